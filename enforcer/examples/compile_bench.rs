//! Compile time and size of policy sets of 10 to 10,000 rules.
//!
//! The mix is that of policies in the field: 40 % exact paths, 40 % recursive directories, 10 % `/*`, 6 % wildcards within
//! a component, 4 % with several `**`. Run it with `--release`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use portcullis_enforcer::automaton::{Budget, compile};
use portcullis_policy::glob::Glob;
use portcullis_policy::meaning::{Action, Class, Location, Object, Origin, Posture, Postures, Rule, RuleSet};

fn main() {
    println!("rules  built  states  classes  decisions     bytes  median ms");
    for rules in [10, 100, 1_000, 10_000] {
        let set = realistic(rules);
        let runs = if rules > 1_000 { 3 } else { 11 };
        let mut times = Vec::new();
        let mut last = None;
        for _ in 0..runs {
            let start = Instant::now();
            last = Some(compile(&set, Budget::default()));
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() * 1e3;
        match last {
            Some(Ok(compiled)) => {
                let s = compiled.stats();
                let (built, states, classes, decisions, bytes) = (s.states_built, s.states, s.classes, s.decisions, s.bytes);
                println!("{rules:>5}  {built:>5}  {states:>6}  {classes:>7}  {decisions:>9}  {bytes:>8}  {median:>9.2}");
            }
            Some(Err(error)) => println!("{rules:>5}  refused after {median:.2} ms: {error}"),
            None => {}
        }
    }
}

/// A reproducible stream of numbers (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const TOPS: &[&str] =
    &["/usr/bin", "/usr/lib", "/usr/share", "/etc", "/var/lib", "/var/log", "/opt", "/srv", "/home", "/app", "/run", "/tmp"];
const WORDS: &[&str] = &[
    "nginx",
    "python3",
    "ssl",
    "private",
    "certs",
    "mysql",
    "data",
    "cache",
    "conf.d",
    "kube",
    "token",
    "secrets",
    "worker",
    "lib",
    "node_modules",
    "site-packages",
    "log4j",
    "agent",
    "backup",
    "config",
    "users",
    "session",
    "spool",
    "cron",
    "systemd",
    "network",
    "dpkg",
    "apt",
    "jvm",
    "tomcat",
    "webapps",
    "static",
    "media",
    "uploads",
    "models",
    "queue",
    "redis",
    "postgres",
    "archive",
    "keys",
];
const ENDS: &[&str] = &["", ".conf", ".so", ".pem", ".key", ".sh", ".py", ".json", ".db", ".log"];

fn realistic(count: usize) -> RuleSet {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let rules = (0..count).map(|index| Arc::new(rule(&mut numbers, index))).collect();
    RuleSet { rules, postures: Postures { file: Posture::Block, ..Postures::default() } }
}

fn rule(numbers: &mut Numbers, index: usize) -> Rule {
    let mut dir = numbers.pick(TOPS).to_owned();
    for _ in 0..1 + numbers.below(3) {
        dir = format!("{dir}/{}", numbers.pick(WORDS));
        if numbers.below(3) == 0 {
            dir = format!("{dir}{}", numbers.below(100));
        }
    }
    let file = format!("{}{}", numbers.pick(WORDS), numbers.pick(ENDS));
    let glob = |text: String| Object::Pattern(Glob::parse(text.as_bytes()).expect("the bench writes valid patterns"));
    let object = match numbers.below(100) {
        0..40 => Object::Path(format!("{dir}/{file}").into_bytes()),
        40..80 => Object::Directory { dir: dir.into_bytes(), recursive: true },
        80..90 => Object::Directory { dir: dir.into_bytes(), recursive: false },
        90..96 => glob(format!("{dir}/{}*{}", &file[..3], numbers.pick(ENDS))),
        _ => glob(format!("{dir}/**/{}/**/{file}", numbers.pick(WORDS))),
    };
    Rule {
        origin: Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "default".into(),
            policy: "bench".into(),
            file: Arc::new(PathBuf::from("bench.yaml")),
            line: index as u32 + 1,
            column: 1,
            field: format!("spec.file[{index}]"),
        },
        class: if numbers.below(5) == 0 { Class::Process } else { Class::File },
        objects: vec![object],
        sources: if numbers.below(10) == 0 {
            vec![Location::Path(format!("/usr/bin/{}", numbers.pick(WORDS)).into_bytes())]
        } else {
            Vec::new()
        },
        read_only: numbers.below(6) == 0,
        owner_only: numbers.below(12) == 0,
        action: [Action::Allow, Action::Audit, Action::Block, Action::Block][numbers.below(4)],
        severity: 5,
        tags: Vec::new(),
        message: String::new(),
    }
}
