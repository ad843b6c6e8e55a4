//! Rule sets as people write them: 40 % files, 40 % directories at every depth, 10 % directories, 6 % patterns within a
//! component, 4 % patterns across directories. The same count gives the same set.

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_policy::glob::Glob;
use portcullis_policy::meaning::{Action, Class, Object, Origin, Postures, Rule, RuleSet};
use portcullis_policy::syscall::UnknownSyscall;

/// The comparison's keys hold shorter paths only.
pub(crate) const WAY_PATH_MAX: usize = 256;

const TOPS: [&str; 8] = ["/etc", "/usr/lib", "/usr/share", "/var/lib", "/opt", "/srv", "/home", "/usr/local/lib"];
const NAMES: [&str; 24] = [
    "nginx",
    "python3",
    "postgresql",
    "config",
    "ssl",
    "certs",
    "x86_64-linux-gnu",
    "systemd",
    "cache",
    "releases",
    "current",
    "node_modules",
    "app",
    "data",
    "site-packages",
    "security",
    "passwd",
    "secrets",
    "templates",
    "static",
    "bin",
    "modules",
    "private",
    "backup",
];

/// A set and what of it the comparison can hold.
pub(crate) struct Mix {
    pub(crate) count: usize,
    pub(crate) set: RuleSet,
    /// Exact paths, and directories with their slash.
    pub(crate) keys: Vec<Vec<u8>>,
}

/// Numbers that look random and are always the same: a linear congruential generator (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % sides
    }

    fn name(&mut self) -> String {
        let name = NAMES[self.roll(NAMES.len())];
        match self.roll(3) {
            0 => format!("{name}-{}", self.roll(100)),
            1 => format!("{name}.{}", self.roll(10)),
            _ => name.to_owned(),
        }
    }

    fn directory(&mut self, depth: usize) -> String {
        let mut path = TOPS[self.roll(TOPS.len())].to_owned();
        for _ in 0..depth {
            path.push('/');
            path.push_str(&self.name());
        }
        path
    }
}

/// The same with a quarter of the rules about executions, but for those of `measured`.
pub(crate) fn mixed(count: usize, measured: &[Vec<u8>]) -> Mix {
    let mut mix = mix(count, measured);
    for rule in mix.set.rules.iter_mut().skip(measured.len()).step_by(4) {
        let rule = Arc::make_mut(rule);
        rule.class = Class::Process;
        rule.read_only = false;
    }
    mix
}

/// A set of that many rules. Each of `measured` has a rule of its own, for otherwise a walk would end where no rule goes on.
pub(crate) fn mix(count: usize, measured: &[Vec<u8>]) -> Mix {
    let mut dice = Dice(count as u64);
    let mut keys = Vec::new();
    let mut objects: Vec<Object> = measured.iter().cloned().map(Object::Path).collect();
    for index in objects.len()..count {
        let object = object(index % 50, &mut dice);
        match &object {
            Object::Path(path) => keys.push(path.clone()),
            Object::Directory { dir, .. } => keys.push([dir, &b"/"[..]].concat()),
            _ => {}
        }
        objects.push(object);
    }
    let rules = objects.into_iter().take(count).enumerate().map(|(index, object)| Arc::new(rule(index, object))).collect();
    Mix { count, set: RuleSet { rules, postures: Postures::default() }, keys }
}

fn object(kind: usize, dice: &mut Dice) -> Object {
    match kind {
        0..=19 => {
            let depth = 1 + dice.roll(4);
            Object::Path(format!("{}/{}", dice.directory(depth), dice.name()).into_bytes())
        }
        20..=39 => directory(dice, true),
        40..=44 => directory(dice, false),
        45..=47 => pattern(&format!("{}/{}*.{}", dice.directory(2), dice.name(), dice.roll(10))),
        _ => pattern(&format!("{}/**/{}/**", dice.directory(2), dice.name())),
    }
}

fn directory(dice: &mut Dice, recursive: bool) -> Object {
    let depth = 1 + dice.roll(3);
    Object::Directory { dir: dice.directory(depth).into_bytes(), recursive }
}

fn pattern(text: &str) -> Object {
    Glob::parse(text.as_bytes()).map_or_else(|_| Object::Path(text.as_bytes().to_vec()), Object::Pattern)
}

/// A rule on a system call that no measured operation makes.
pub(crate) fn on_a_call(index: usize) -> Result<Rule, UnknownSyscall> {
    let object = Object::Syscall { call: "ptrace".parse()?, at: None };
    Ok(Rule { class: Class::Syscall, action: Action::Audit, read_only: false, ..rule(index, object) })
}

/// Reads stay silent, so that no alert is timed: the rules deny changes.
fn rule(index: usize, object: Object) -> Rule {
    let line = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
    Rule {
        origin: Origin {
            kind: Arc::from("KubeArmorPolicy"),
            namespace: Arc::from("bench"),
            policy: Arc::from("bench"),
            file: Arc::new(PathBuf::from("bench.yaml")),
            line,
            column: 1,
            field: format!("spec.file[{index}]"),
        },
        class: Class::File,
        objects: vec![object],
        sources: Vec::new(),
        read_only: true,
        owner_only: false,
        action: Action::Block,
        severity: 5,
        tags: Vec::new(),
        message: String::new(),
    }
}
