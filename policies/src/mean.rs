//! From a policy as written to what it means: inheritance, defaults, objects, and what is left out with its reason.

use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::Position;
use crate::meaning::{Action, Class, Location, Object, Origin, Rule};
use crate::policy::{NOBODY, Policy, Unenforced};
use crate::reasons;
use crate::syscall::Syscall;
use crate::written::{Common, Document, Item, Limits, Match, Target};

/// What `document`, read from `file`, means.
pub(crate) fn mean(document: Document, file: &Arc<PathBuf>) -> Policy {
    let mut meant = Meant {
        kind: Arc::from(document.kind.as_str()),
        namespace: Arc::from(document.namespace),
        name: Arc::from(document.name),
        file,
        rules: Vec::new(),
        unenforced: Vec::new(),
    };
    let spec = document.spec;
    for section in spec.sections {
        for item in section.rules {
            let common = inherit(&[&item.common, &section.common, &spec.common]);
            meant.rule(item, common);
        }
    }
    for preset in spec.presets {
        meant.leave_out(preset.at, preset.field, "presets", reasons::preset(&preset.says.name));
    }
    for traffic in spec.traffic {
        meant.leave_out(traffic.at, traffic.field, "network policy", reasons::traffic(traffic.says.quota).to_owned());
    }
    if let Some(at) = spec.apparmor {
        meant.leave_out(at, "spec.apparmor".to_owned(), "apparmor", reasons::APPARMOR.to_owned());
    }
    Policy {
        kind: document.kind,
        name: meant.name,
        namespace: meant.namespace,
        selector: spec.selector,
        rules: meant.rules,
        unenforced: meant.unenforced,
    }
}

/// The attributes of a rule: of each, the first that is given, from the rule outwards.
fn inherit(levels: &[&Common]) -> Common {
    Common {
        severity: levels.iter().find_map(|level| level.severity),
        tags: levels.iter().map(|level| &level.tags).find(|tags| !tags.is_empty()).cloned().unwrap_or_default(),
        message: levels.iter().find_map(|level| level.message.clone().filter(|message| !message.is_empty())),
        action: levels.iter().find_map(|level| level.action),
    }
}

struct Meant<'a> {
    kind: Arc<str>,
    namespace: Arc<str>,
    name: Arc<str>,
    file: &'a Arc<PathBuf>,
    rules: Vec<Arc<Rule>>,
    unenforced: Vec<Unenforced>,
}

/// What a rule says, apart from what every rule has.
struct Said {
    class: Class,
    objects: Vec<Object>,
    limits: Limits,
    read_only: bool,
    /// The limit that is not enforced, if it has one.
    narrowed: Option<&'static str>,
}

impl Meant<'_> {
    fn rule(&mut self, item: Item<Match>, common: Common) {
        let said = match item.says {
            Match::Process { targets, limits, allowed_args, terminal_only } => Said {
                class: Class::Process,
                objects: targets.into_iter().map(object).collect(),
                limits,
                read_only: false,
                narrowed: narrowed(allowed_args, terminal_only),
            },
            Match::File { target, limits, read_only } => {
                Said { class: Class::File, objects: vec![object(target)], limits, read_only, narrowed: None }
            }
            Match::Protocols { protocols, limits, terminal_only } => Said {
                class: Class::Network,
                objects: protocols.into_iter().map(Object::Protocol).collect(),
                limits,
                read_only: false,
                narrowed: narrowed(false, terminal_only),
            },
            Match::Capabilities { capabilities, limits } => Said {
                class: Class::Capability,
                objects: capabilities.into_iter().map(Object::Capability).collect(),
                limits,
                read_only: false,
                narrowed: None,
            },
            Match::Dns(domains) => {
                return self.leave_out(item.at, item.field, "matchDNSQueries", reasons::dns(&domains, action(&common)));
            }
            Match::Syscalls { calls, at, limits } => {
                let objects = self.calls(item.at, calls, at.as_ref());
                if objects.is_empty() {
                    return;
                }
                Said { class: Class::Syscall, objects, limits, read_only: false, narrowed: None }
            }
            Match::Device(class) => return self.leave_out(item.at, item.field, "device", reasons::device(&class)),
        };
        let action = action(&common);
        let mut sources = said.limits.sources;
        if let Some(limit) = said.narrowed {
            self.leave_out(item.at, item.field.clone(), limit, reasons::narrowed(limit, action));
            match action {
                Action::Allow => sources = vec![Location::Path(NOBODY.to_vec())],
                Action::Audit | Action::Block => return,
            }
        }
        let origin = self.origin(item.at, item.field);
        self.rules.push(Arc::new(Rule {
            origin,
            class: said.class,
            objects: said.objects,
            sources,
            read_only: said.read_only,
            owner_only: said.limits.owner_only,
            action,
            severity: common.severity.unwrap_or(0),
            tags: common.tags,
            message: common.message.unwrap_or_default(),
        }));
    }

    /// The calls of a rule. One whose path nobody tells is left out by itself, so that the rest holds.
    fn calls(&mut self, at: Position, calls: Vec<(Syscall, String)>, location: Option<&Location>) -> Vec<Object> {
        let mut objects = Vec::with_capacity(calls.len());
        for (call, field) in calls {
            match reasons::unseen(call).filter(|_| location.is_some()) {
                Some(reason) => self.leave_out(at, field, "syscalls", reason),
                None => objects.push(Object::Syscall { call, at: location.cloned() }),
            }
        }
        objects
    }

    fn leave_out(&mut self, at: Position, field: String, feature: &'static str, reason: String) {
        let origin = self.origin(at, field);
        self.unenforced.push(Unenforced { origin, feature, reason });
    }

    fn origin(&self, at: Position, field: String) -> Origin {
        Origin {
            kind: Arc::clone(&self.kind),
            namespace: Arc::clone(&self.namespace),
            policy: Arc::clone(&self.name),
            file: Arc::clone(self.file),
            line: at.line,
            column: at.column,
            field,
        }
    }
}

/// KubeArmor's default.
fn action(common: &Common) -> Action {
    common.action.unwrap_or(Action::Block)
}

fn narrowed(allowed_args: bool, terminal_only: bool) -> Option<&'static str> {
    match (allowed_args, terminal_only) {
        (true, _) => Some("allowedArgs"),
        (false, true) => Some("pts"),
        (false, false) => None,
    }
}

fn object(target: Target) -> Object {
    match target {
        Target::Path(path) => Object::Path(path),
        Target::ExecName(name) => Object::ExecName(name),
        Target::Directory { dir, recursive } => Object::Directory { dir, recursive },
        Target::Pattern(glob) => Object::Pattern(glob),
    }
}
