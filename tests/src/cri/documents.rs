//! Conformance documents in pods: the same cases as everywhere, but the agent learns who the container is through NRI.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use portcullis_policy::expectation::{Expectation, FileKind};

use super::agent::Agent;
use super::engine::{Engine, handler};
use super::pods::{Container, ContainerSpec, Pod, PodSpec};
use super::until;
use crate::conformance::{self, Ground, Started, driver};
use crate::guest::Guest;
use crate::process::Talk;
use crate::report::Report;
use crate::{Failure, Result};

/// With `--ci`: every kind of selector and posture once, and a rule of each class. What rules mean does not depend on the door.
const FEW: &[(&str, &str)] = &[
    ("capabilities", "capabilities are blocked one by one"),
    ("kubernetes", "a pod does not set its own postures"),
    ("kubernetes", "names of a pod's containers"),
    ("kubernetes", "namespaces"),
    ("postures", "a container that is left alone"),
    ("postures", "a container that is only audited"),
    ("postures", "a file allow-list with posture block"),
    ("process", "an allow-list of executables that blocks"),
    ("selection", "labels"),
    ("selection", "several policies for one container"),
    ("sources", "two sources apart"),
];

/// Runs the documents.
pub(super) fn run(guest: &Guest, engine: &Engine, agent: &mut Agent, report: &mut Report) -> Result<()> {
    let wanted = |stem: &str, document: &Expectation| {
        let few = FEW.iter().any(|(file, name)| *file == stem && *name == document.name);
        if guest.ci { few } else { is_for_pods(document) }
    };
    let mut pods = Pods { guest, engine, agent };
    conformance::run_on(guest, "cri/conformance", &mut pods, None, &wanted, report)
}

/// All pods have one image, in which a document's own links are not yet when its policies are put in force.
fn is_for_pods(document: &Expectation) -> bool {
    document.facts.image.is_empty() && !document.files.iter().any(|file| matches!(file.kind, FileKind::Symlink(_)))
}

struct Pods<'a> {
    guest: &'a Guest,
    engine: &'a Engine,
    agent: &'a mut Agent,
}

impl Ground for Pods<'_> {
    fn start(&mut self, document: &Expectation, number: usize) -> Result<Started> {
        self.agent.follow_configuration(self.guest)?;
        let runtime = self.guest.runtimes[number % self.guest.runtimes.len()];
        let pod = Pod::run(
            self.guest,
            self.engine,
            PodSpec {
                name: format!("conformance-{number}"),
                namespace: document.facts.namespace.clone(),
                labels: document.facts.labels.clone(),
                annotations: document.facts.annotations.clone(),
                handler: handler(runtime, false),
                host_pid: false,
            },
        )?;
        let mut spec = ContainerSpec::new(&document.facts.name, &[driver::DRIVER, "--drive"]);
        spec.stdin = true;
        let container = pod.start(&spec)?;
        Ok(Started {
            id: container.id.clone(),
            root: self.engine.root_of(&container.id),
            driver: Box::new(Spoken::to(self.engine, container, pod)?),
        })
    }
}

/// A container that is spoken to through the pipe that is its standard input on the machine, and the log of what it says.
struct Spoken {
    stdin: File,
    container: Container,
    read: usize,
    _pod: Pod,
}

impl Spoken {
    fn to(engine: &Engine, container: Container, pod: Pod) -> Result<Self> {
        let path = engine.stdin_of(&container.id)?;
        // For reading as well: then there is no waiting for the other end.
        let stdin = File::options().read(true).write(true).open(&path).map_err(|source| Failure::io(path.display(), source))?;
        Ok(Self { stdin, container, read: 0, _pod: pod })
    }
}

impl Talk for Spoken {
    fn tell(&mut self, line: &str) -> Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).map_err(|source| Failure::io("a container's input", source))
    }

    fn line(&mut self, limit: Duration) -> Result<String> {
        let mut asked = Instant::now();
        let line = until("a line of the container", limit, || {
            let line = self.container.lines().into_iter().nth(self.read);
            if line.is_none() && asked.elapsed() > Duration::from_secs(1) {
                asked = Instant::now();
                if let Some(end) = self.container.ended()? {
                    return Err(Failure::Answer { what: "the container".to_owned(), text: end.to_string() });
                }
            }
            Ok(line)
        })?;
        self.read += 1;
        Ok(line)
    }
}
