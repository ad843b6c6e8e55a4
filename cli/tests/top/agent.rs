//! An agent that says what a test wants: the control socket, with one container and hostile names.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_agent::control::{
    AgentStatus, Body, Call, EventClass, Following, LOST_SCHEMA, Lost, Reply, Request, Tree, TreeProcess, VERSION, Wanted,
};
use portcullis_enforcer::{Door, Known, Missing};
use portcullis_policy::ContainerFacts;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Clears a screen, renames a terminal, rings, starts a line, turns text round.
pub(crate) const HOSTILE: &str = "\u{1b}[2J\u{1b}]2;owned\u{7}\r\n\u{9b}2J\u{202e}evil";
const ID: &str = "4771ac3e9074aaaa";

/// Alerts that all streams have told.
static TOLD: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Agent {
    directory: TempDir,
}

impl Agent {
    pub(crate) fn start() -> Agent {
        let directory = TempDir::new().unwrap();
        let known = directory.path().join("state/known");
        std::fs::create_dir_all(&known).unwrap();
        std::fs::create_dir(directory.path().join("policies")).unwrap();
        let facts = ContainerFacts { id: ID.to_owned(), name: format!("web{HOSTILE}"), ..ContainerFacts::default() };
        let record = Known { facts, missing: Missing::default(), door: Door::Nri, place: None };
        std::fs::write(known.join(format!("{ID}.json")), serde_json::to_vec(&record).unwrap()).unwrap();
        let at = directory.path().display();
        let config = format!("policyDir: {at}/policies\nstateDir: {at}/state\n");
        std::fs::write(directory.path().join("config.yaml"), config).unwrap();
        let listener = UnixListener::bind(directory.path().join("state/agent.sock")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || converse(stream));
            }
        });
        Agent { directory }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Ends when the other end hangs up.
fn converse(stream: UnixStream) -> Option<()> {
    let mut write = stream.try_clone().ok()?;
    for line in BufReader::new(stream).lines() {
        let request: Request = serde_json::from_str(&line.ok()?).unwrap();
        match request.call {
            Call::Status => say(&mut write, &reply(status()))?,
            Call::Tree { container } => say(&mut write, &reply(tree(container)))?,
            Call::Events(wanted) => return follow(&mut write, &wanted),
            other => panic!("nobody asks {other:?}"),
        }
    }
    Some(())
}

fn reply<T>(answer: T) -> Reply<T> {
    Reply { v: VERSION, body: Body::Ok(answer) }
}

fn say(write: &mut UnixStream, line: &impl Serialize) -> Option<()> {
    let line = [serde_json::to_vec(line).unwrap(), b"\n".to_vec()].concat();
    write.write_all(&line).ok()
}

/// An alert each tenth of a second, and one report of a loss. A filtered stream says so in its objects.
fn follow(write: &mut UnixStream, wanted: &Wanted) -> Option<()> {
    say(write, &reply(Following { schema: wanted.format.schema(wanted.class) }))?;
    say(write, &Lost { schema: LOST_SCHEMA.to_owned(), class: EventClass::Alert, lost: 5 })?;
    let of = if wanted.filter.verdict.is_some() { "filtered" } else { "all" };
    loop {
        TOLD.fetch_add(1, Ordering::Relaxed);
        say(write, &alert(&format!("/etc/{of}{HOSTILE}")))?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn alert(object: &str) -> Value {
    json!({
        "schema": "portcullis.alert/1", "time": "2026-01-01T00:00:00.000000Z", "verdict": "block", "operation": "read",
        "object": object, "policy": "no-shadow", "rule": {"line": 12}, "container": {"id": ID, "name": "web", "namespace": "shop"},
        "process": {"pid": 4711, "comm": HOSTILE, "exe": format!("/bin/cat{HOSTILE}")},
    })
}

fn tree(container: String) -> Tree {
    let process = TreeProcess {
        pid: 4711,
        ns_pid: Some(1),
        started: "2026-01-01T00:00:00Z".to_owned(),
        exe: Some(format!("/bin/cat{HOSTILE}")),
        args: Some(vec!["cat".to_owned(), HOSTILE.to_owned()]),
        ..TreeProcess::default()
    };
    Tree { id: container, name: "web".to_owned(), processes: vec![process], left_out: 0 }
}

fn status() -> AgentStatus {
    let status = json!({
        "version": "0.1.0", "pid": 312, "startedAt": 0,
        "policies": {"generation": 7, "readAt": 0, "count": 4, "problems": 0, "unreadable": null},
        "containers": {"known": 1, "leaving": 0, "troubles": []},
        "nri": {"required": false, "connections": []},
        "alerts": {"alerts": TOLD.load(Ordering::Relaxed), "readers": 1, "waiting": 0, "lost": 3, "trouble": null},
    });
    serde_json::from_value(status).unwrap()
}
