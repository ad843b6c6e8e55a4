//! Pods that AppArmor confines: containerd runs `portcullis-runtime` in place of each runtime, the agent tells it the pods' labels
//! by NRI, and containerd's own profile stays beside ours. For the suite `apparmor`.

use std::path::PathBuf;

use super::agent::{self, Agent};
use super::engine::{Engine, handler};
use super::live::empty_out;
use super::pods::{ContainerSpec, Ended, Pod, PodSpec};
use super::starts::{RAN, attack, free, marked};
use super::{CONFIG, STATE, last_words};
use crate::events::Events;
use crate::guest::Guest;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::starts::{refused, refused_start};
use crate::{Failure, Result};

const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: confined
  namespace: default
spec:
  selector:
    matchLabels:
      app: confined
  file:
    matchPaths:
      - path: /etc/hosts
  process:
    matchPaths:
      - path: /attack
  action: Block
";

/// The profile that containerd gives whoever asks for none.
const OF_THE_ENGINE: &str = "cri-containerd.apparmor.d//&portcullis.";

type Checked = std::result::Result<(), String>;

/// Runs the tests, on a guest whose runtimes are run by `portcullis-runtime`.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    const NAME: &str = "apparmor/containerd";
    if !guest.wants(NAME) {
        return Ok(());
    }
    let place =
        &Guest { config: PathBuf::from(CONFIG), settings: agent::settings(guest, STATE, &Engine::nri_socket()), ..guest.clone() };
    place.configure("enforce", "audit")?;
    place.set_policies(&[("confined", POLICY)])?;
    let engine = match Engine::prepare(place)? {
        Ok(engine) => engine,
        Err(why) => {
            report.skip(NAME, why);
            return guest.configure("enforce", "audit");
        }
    };
    println!("# containerd {}", engine.version);
    let mut agent = Agent::start(place)?;
    let out = empty_out(place)?;
    for (index, runtime) in guest.runtimes.iter().copied().enumerate() {
        let pods = Pods { guest: place, engine: &engine, out: out.clone(), runtime };
        // Starts by both, the rest by one: what differs is what the runtime says of a refusal.
        let count = guest.repetitions(if index == 0 { 2 } else { 1 }, 50);
        report.run(&format!("{NAME}/{}/entrypoint", runtime.name()), || pods.entrypoints(count));
        if index == 0 || !guest.ci {
            report.run(&format!("{NAME}/{}/confined", runtime.name()), || pods.confined());
        }
    }
    if let Some(runtime) = guest.runtimes.first().copied() {
        let pods = Pods { guest: place, engine: &engine, out, runtime };
        report.run(&format!("{NAME}/{}/without-the-agent", runtime.name()), || pods.without(&mut agent));
    }
    let ended = agent.stop();
    report.check(&format!("{NAME}/agent-ends"), if ended { Ok(()) } else { Err(last_words(&engine, &agent)) });
    drop(engine);
    guest.configure("enforce", "audit")
}

struct Pods<'a> {
    guest: &'a Guest,
    engine: &'a Engine,
    out: PathBuf,
    runtime: Runtime,
}

impl Pods<'_> {
    fn pod(&self, name: &str, app: &str) -> Result<Pod> {
        Pod::run(self.guest, self.engine, PodSpec::new(name, app, &handler(self.runtime, false)))
    }

    /// It did not run because it was denied. A start that failed for another reason would prove nothing.
    fn denied(&self, ended: &Ended) -> Result<Checked> {
        let said = format!("{} {}", ended.refusal.as_deref().unwrap_or_default(), ended.said);
        let ran = marked(&self.out)? || ended.code == RAN;
        Ok(match (ran, refused_start(self.guest, &said)) {
            (true, _) => Err(format!("the denied program ran: {ended}")),
            (false, false) => Err(format!("not the refusal that was expected: {ended}")),
            (false, true) => Ok(()),
        })
    }

    fn entrypoints(&self, count: u32) -> Result<Checked> {
        let stranger = self.pod("stranger", "stranger")?;
        if let Err(why) = free(&stranger.complete(&attack("free", &self.out))?, &self.out)? {
            return Ok(Err(why));
        }
        let pod = self.pod("entrypoint", "confined")?;
        for round in 0..count {
            if let Err(why) = self.denied(&pod.complete(&attack("entrypoint", &self.out))?)? {
                return Ok(Err(format!("round {round}: {why}")));
            }
        }
        Ok(Ok(()))
    }

    /// By both profiles, so that what its own denies is denied to its first program and to others, and told.
    fn confined(&self) -> Result<Checked> {
        let pod = self.pod("confined", "confined")?;
        let script = "cat /etc/hosts; cat /etc/passwd; sleep 100000";
        let main = pod.start(&ContainerSpec::new("main", &["/bin/sh", "-c", script]).with(&self.out, "/out"))?;
        let path = format!("/proc/{}/attr/apparmor/current", main.pid()?);
        let label = std::fs::read_to_string(&path).map_err(|source| Failure::io(&path, source))?;
        if !label.starts_with(OF_THE_ENGINE) || !label.trim_end().ends_with("(enforce)") {
            return Ok(Err(format!("its label is {label:?}")));
        }
        let mut events = Events::follow(self.guest)?;
        for (what, command, denies) in [
            ("a denied file", &["/bin/cat", "/etc/hosts"][..], true),
            ("another file", &["/bin/cat", "/etc/passwd"], false),
            ("a denied program", &["/attack", "--mark"], true),
            ("a denied program of a program", &["/bin/sh", "-c", "/attack --mark"], true),
            ("another program", &["/bin/true"], false),
        ] {
            let ended = main.exec(command)?;
            let said = format!("{} {}", ended.refusal.as_deref().unwrap_or_default(), ended.said);
            let right = if denies { refused(&said) && !marked(&self.out)? } else { ended.success() };
            if !right {
                return Ok(Err(format!("{what}: {ended}")));
            }
        }
        let alerts = events.drain()?;
        let told = |object: &str| {
            alerts.iter().any(|alert| alert.container == main.id && alert.object == object && alert.policy == "confined")
        };
        if !told("/etc/hosts") || !told("/attack") {
            return Ok(Err(format!("not all is told: {alerts:?}")));
        }
        let said = main.said();
        main.kill()?;
        Ok(match said.contains("root:x:0") && refused(&said) && !said.contains("localhost") {
            true => Ok(()),
            false => Err(format!("its first program was not denied what it should be: {said}")),
        })
    }

    /// Nobody tells the labels then: what a policy might select is refused, and what is confined stays so.
    fn without(&self, agent: &mut Agent) -> Result<Checked> {
        let pod = self.pod("without", "confined")?;
        let stays = pod.start(&ContainerSpec::new("main", &["/bin/sleep", "100000"]))?;
        agent.stop();
        let refused_without = pod.complete(&ContainerSpec::new("late", &["/bin/true"]))?;
        let held = stays.exec(&["/bin/cat", "/etc/hosts"])?;
        agent.launch(self.guest)?;
        let again = pod.complete(&ContainerSpec::new("again", &["/bin/true"]))?;
        let why = refused_without.refusal.unwrap_or_default();
        Ok(if !why.contains("container") || !(why.contains("labels") || why.contains("portcullis-")) {
            Err(format!("without the agent it is not refused: {why:?}"))
        } else if held.success() || !refused(&held.said) {
            Err(format!("without the agent what runs is not held: {held}"))
        } else if !again.success() {
            Err(format!("with the agent again it does not start: {again}"))
        } else {
            Ok(())
        })
    }
}
