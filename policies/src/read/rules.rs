//! The sections of a spec and their `match…` lists.

use std::str::FromStr;

use super::context::Context;
use super::fields::Fields;
use super::paths;
use crate::capability::Capability;
use crate::diagnostic::quote;
use crate::meaning::{Action, Location};
use crate::network::Protocol;
use crate::suggest;
use crate::syscall::Syscall;
use crate::written::{Item, Kind, Limits, Match, PRESETS, Preset, Section, Target};

/// A `match…` list: its name, the fields of its elements, and how one is read.
type List<'a> = (&'a str, &'a [&'a str], &'a dyn Fn(&Fields<'_>) -> Option<Match>);

/// Reads section `name` of `spec`, if it is there.
pub(super) fn section(spec: &Fields<'_>, name: &str, kind: Kind) -> Option<Section> {
    let host = kind == Kind::KubeArmorHostPolicy;
    let process = |fields: &Fields<'_>, targets: Vec<Target>| {
        let limits = paths::limits(fields);
        (!targets.is_empty()).then(|| Match::Process {
            targets,
            limits,
            allowed_args: !fields.texts("allowedArgs").is_empty(),
            terminal_only: fields.flag("pts") == Some(false),
        })
    };
    let file = |fields: &Fields<'_>, target: Option<Target>| {
        let limits = paths::limits(fields);
        let read_only = fields.flag("readOnly").unwrap_or(false);
        target.map(|target| Match::File { target, limits, read_only })
    };
    let process_path = |f: &Fields<'_>| process(f, paths::executable(f));
    let process_dir = |f: &Fields<'_>| process(f, paths::directory(f).into_iter().collect());
    let process_pattern = |f: &Fields<'_>| process(f, paths::pattern(f).into_iter().collect());
    let file_path = |f: &Fields<'_>| file(f, paths::file(f));
    let file_dir = |f: &Fields<'_>| file(f, paths::directory(f));
    let file_pattern = |f: &Fields<'_>| file(f, paths::pattern(f));
    let protocols = |f: &Fields<'_>| protocols(f, host);
    let dns = |f: &Fields<'_>| dns(f);
    let capabilities = |f: &Fields<'_>| capabilities(f, host);
    let syscalls = |f: &Fields<'_>| syscalls(f, None);
    let syscall_paths = |f: &Fields<'_>| syscall_paths(f);
    let device = |f: &Fields<'_>| device(f);
    let lists: &[List<'_>] = match name {
        "process" => &[
            ("matchPaths", &["path", "execname", "allowedArgs", "ownerOnly", "pts", "fromSource"], &process_path),
            ("matchDirectories", &["dir", "recursive", "ownerOnly", "pts", "fromSource"], &process_dir),
            ("matchPatterns", &["pattern", "ownerOnly"], &process_pattern),
        ],
        "file" => &[
            ("matchPaths", &["path", "readOnly", "ownerOnly", "fromSource"], &file_path),
            ("matchDirectories", &["dir", "recursive", "readOnly", "ownerOnly", "fromSource"], &file_dir),
            ("matchPatterns", &["pattern", "readOnly", "ownerOnly"], &file_pattern),
        ],
        "network" => &[
            ("matchProtocols", &["protocol", "pts", "fromSource"], &protocols),
            ("matchDNSQueries", &["domain", "fromSource"], &dns),
        ],
        "capabilities" => &[("matchCapabilities", &["capability", "fromSource"], &capabilities)],
        "syscalls" => &[
            ("matchSyscalls", &["syscall", "fromSource"], &syscalls),
            ("matchPaths", &["syscall", "path", "recursive", "fromSource"], &syscall_paths),
        ],
        "device" => &[("matchDevice", &["class", "subClass", "protocol", "level"], &device)],
        _ => &[],
    };
    let node = spec.get(name)?;
    let names: Vec<&str> = lists.iter().map(|(list, ..)| *list).collect();
    let fields = Fields::open(spec.cx, node, spec.field(name), &names, true)?;
    let common = fields.common();
    let mut rules = Vec::new();
    for (list, known, read) in lists {
        for (node, field) in fields.list(list) {
            let Some(item) = Fields::open(spec.cx, node, field, known, true) else { continue };
            let common = item.common();
            if let Some(says) = read(&item) {
                rules.push(Item { at: node.at, field: item.path, common, says });
            }
        }
    }
    Some(Section { common, rules })
}

fn protocols(fields: &Fields<'_>, host: bool) -> Option<Match> {
    let words = fields.comma_list("protocol", "write `protocol: tcp`");
    let protocols = each(
        fields,
        "protocol",
        &words,
        |word| Protocol::from_str(word).ok(),
        || Protocol::ALL.iter().map(|protocol| protocol.name()).collect(),
    );
    let limits = paths::limits(fields);
    require_source(fields, &limits, host);
    (!protocols.is_empty()).then(|| Match::Protocols { protocols, limits, terminal_only: fields.flag("pts") == Some(false) })
}

fn capabilities(fields: &Fields<'_>, host: bool) -> Option<Match> {
    let words = fields.comma_list("capability", "write `capability: net_raw`");
    let capabilities = each(
        fields,
        "capability",
        &words,
        |word| Capability::from_str(word).ok(),
        || Capability::all().map(Capability::name).collect(),
    );
    let limits = paths::limits(fields);
    require_source(fields, &limits, host);
    (!capabilities.is_empty()).then_some(Match::Capabilities { capabilities, limits })
}

/// A host's network and capabilities belong to everything that runs on it: such rules must name a source.
fn require_source(fields: &Fields<'_>, limits: &Limits, host: bool) {
    if host && limits.sources.is_empty() && fields.list("fromSource").is_empty() {
        fields.cx.error(
            fields.node.at,
            &fields.path,
            "`fromSource` is missing: in a host policy this rule would hold for the whole host",
            "add `fromSource: [{path: /…}]`",
        );
    }
}

fn dns(fields: &Fields<'_>) -> Option<Match> {
    let domains = fields.comma_list("domain", "write `domain: example.com`");
    paths::limits(fields);
    for domain in &domains {
        let valid = domain.len() <= 253
            && domain.trim_end_matches('.').split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '*'))
            });
        if !valid {
            let help = "write a domain name such as `example.com`, without a scheme, a port or a path";
            fields.cx.error(fields.at("domain"), &fields.field("domain"), format!("{} is no domain name", quote(domain)), help);
        }
    }
    (!domains.is_empty()).then(|| Match::Dns(domains.into_iter().map(str::to_owned).collect()))
}

/// A rule on system calls; with `at` on what they do there.
fn syscalls(fields: &Fields<'_>, at: Option<Location>) -> Option<Match> {
    let limits = paths::sources_of_calls(fields);
    fields.require("syscall", "write `syscall: [unlink, rmdir]`")?;
    let words = fields.texts("syscall");
    let known = || Syscall::all().map(Syscall::name).collect();
    let calls = each(fields, "syscall", &words, |word| word.parse::<Syscall>().ok(), known);
    let place = |call: Syscall| {
        let index = words.iter().position(|word| *word == call.name()).unwrap_or_default();
        (call, format!("{}[{index}]", fields.field("syscall")))
    };
    let calls: Vec<_> = calls.into_iter().map(place).collect();
    (!calls.is_empty()).then_some(Match::Syscalls { calls, at, limits })
}

fn syscall_paths(fields: &Fields<'_>) -> Option<Match> {
    fields.require("path", "write `path: /…`, or use `matchSyscalls` for every path");
    let at = paths::location(fields, "path");
    // A rule whose path was refused is no rule on every path.
    let rule = syscalls(fields, at);
    rule.filter(|rule| matches!(rule, Match::Syscalls { at: Some(_), .. }))
}

/// USB class codes, as KubeArmor takes them: a name, a number, or `ALL`.
fn device(fields: &Fields<'_>) -> Option<Match> {
    fields.number("subClass", 0..=255);
    fields.number("protocol", 0..=255);
    fields.number("level", 1..=i64::from(i32::MAX));
    fields.require("class", "write `class: ALL`, a class name such as `HID`, or its number such as `0x03`")?;
    fields.text("class").map(|class| Match::Device(class.to_owned()))
}

/// `presets[]`.
pub(super) fn presets(spec: &Fields<'_>) -> Vec<Item<Preset>> {
    let mut presets = Vec::new();
    for (node, field) in spec.list("presets") {
        let Some(fields) = Fields::open(spec.cx, node, field, &["name"], true) else { continue };
        let common = fields.common();
        if common.action == Some(Action::Allow) {
            spec.cx.error(fields.at("action"), &fields.field("action"), "a preset cannot allow", "write `Audit` or `Block`");
        }
        let name = fields.require("name", "write `name:` and one of the presets").and_then(|_| fields.text("name"));
        let Some(name) = name else { continue };
        if let Some(found) = PRESETS.into_iter().find(|preset| preset.eq_ignore_ascii_case(name)) {
            presets.push(Item { at: node.at, field: fields.path, common, says: Preset { name: found.to_owned() } });
        } else {
            unknown_word(spec.cx, &fields, "name", name, "preset", &PRESETS);
        }
    }
    presets
}

/// Parses each of `words`, and reports those that are none of the known ones.
fn each<T: PartialEq>(
    fields: &Fields<'_>,
    name: &str,
    words: &[&str],
    parse: impl Fn(&str) -> Option<T>,
    known: impl Fn() -> Vec<&'static str>,
) -> Vec<T> {
    let mut out = Vec::new();
    for word in words {
        match parse(word) {
            Some(value) if !out.contains(&value) => out.push(value),
            Some(_) => {}
            None => unknown_word(fields.cx, fields, name, word, name, &known()),
        }
    }
    out
}

fn unknown_word(cx: &Context<'_>, fields: &Fields<'_>, name: &str, word: &str, what: &str, known: &[&str]) {
    /// A longer list of words helps nobody.
    const MAX_LISTED: usize = 45;
    let what = if what == "syscall" { "system call of x86-64" } else { what };
    let help = match suggest::nearest(word, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if known.len() <= MAX_LISTED => format!("write one of {}", known.join(", ")),
        None => "write a name of syscalls(2), such as `unlink`".to_owned(),
    };
    cx.error(fields.at(name), &fields.field(name), format!("{} is no {what}", quote(word)), help);
}
