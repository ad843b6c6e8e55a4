//! Attacks from inside of a container, each first without a policy: what does not work there proves nothing and is a skip.

mod arena;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Result;
use crate::bundle::{ALL, Bundle, PLAIN};
use crate::guest::Guest;
use crate::process::Talk;
use crate::report::Report;
use crate::runtime::{Container, Runtime, START_LIMIT};
use arena::{Arena, Ground};

/// One attack, under emulation. The attack program itself gives up earlier.
const ATTACK_LIMIT: Duration = Duration::from_secs(150);
const ATTACK_SECONDS: u32 = 90;
/// `ONLY_ALLOW_LIST` in attack.h.
const ONLY_ALLOW_LIST: u32 = 1;

const DENY: &str = include_str!("deny.yaml");
const ALLOW_LIST: &str = include_str!("allow-list.yaml");

/// How much the container may.
#[derive(Debug, Clone, Copy)]
struct Power {
    name: &'static str,
    more: &'static [&'static str],
    privileged: bool,
}

const POWERS: [Power; 4] = [
    Power { name: "plain", more: &[], privileged: false },
    Power { name: "chroot", more: &["SYS_CHROOT"], privileged: false },
    Power { name: "sysadmin", more: &["SYS_CHROOT", "SYS_ADMIN"], privileged: false },
    Power { name: "privileged", more: &[], privileged: true },
];

/// What protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Control,
    Deny,
    AllowList,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Control => "control",
            Mode::Deny => "deny",
            Mode::AllowList => "allow-list",
        }
    }
}

/// What an attack said: nothing got, and why, or what it got.
type Said = std::result::Result<String, String>;

/// Runs the matrix.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    let attacks = list(guest)?;
    let Some(runtime) = guest.runtimes.first().copied() else {
        report.skip("attacks", "neither crun nor runc is installed");
        return Ok(());
    };
    for power in POWERS {
        for ground in [Ground::Directory, Ground::Overlay] {
            // In short runs each power meets one ground.
            if guest.ci && (power.privileged || power.name == "chroot") != (ground == Ground::Directory) {
                continue;
            }
            let prefix = format!("attacks/{}/{}", power.name, ground.name());
            let mut arena = Arena::make(guest, ground)?;
            let wanted: Vec<_> = attacks.iter().filter(|(name, _)| guest.wants(&format!("{prefix}/{name}"))).collect();
            if wanted.is_empty() {
                continue;
            }
            let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
            let control = carry_out(guest, runtime, &mut arena, power, Mode::Control, &names)?;
            for mode in [Mode::Deny, Mode::AllowList] {
                let names: Vec<&str> = wanted
                    .iter()
                    .filter(|(name, flags)| {
                        let meant = mode == Mode::AllowList || flags & ONLY_ALLOW_LIST == 0;
                        meant && control.get(name).is_some_and(std::result::Result::is_err)
                    })
                    .map(|(name, _)| name.as_str())
                    .collect();
                let said = carry_out(guest, runtime, &mut arena, power, mode, &names)?;
                for name in &names {
                    let test = format!("{prefix}/{}/{name}", mode.name());
                    match said.get(*name) {
                        Some(Ok(_)) => report.ok(&test),
                        Some(Err(what)) => report.fail(&test, what),
                        None => report.fail(&test, "no answer"),
                    }
                }
            }
            for (name, said) in control.iter().filter_map(|(name, said)| said.as_ref().ok().map(|why| (name, why))) {
                report.skip(&format!("{prefix}/{name}"), format!("does not work without a policy either: {said}"));
            }
        }
    }
    Ok(())
}

/// The attacks and their flags.
fn list(guest: &Guest) -> Result<Vec<(String, u32)>> {
    let outcome = crate::process::must(std::process::Command::new(&guest.attack).arg("--list"), b"", Duration::from_secs(60))?;
    Ok(outcome
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, flags)| (name.to_owned(), flags.parse().unwrap_or(0)))
        .collect())
}

/// Runs the attacks one after the other in one container.
fn carry_out(
    guest: &Guest,
    runtime: Runtime,
    arena: &mut Arena,
    power: Power,
    mode: Mode,
    names: &[&str],
) -> Result<BTreeMap<String, Said>> {
    match mode {
        Mode::Control => guest.set_policies(&[])?,
        Mode::Deny => guest.set_policies(&[("deny", DENY)])?,
        Mode::AllowList => guest.set_policies(&[("allow-list", ALLOW_LIST)])?,
    }
    guest.configure("enforce", if mode == Mode::AllowList { "block" } else { "audit" })?;
    let mut said = BTreeMap::new();
    let mut container = None;
    for name in names {
        arena.reset(guest)?;
        if container.is_none() {
            container = Some(start(guest, runtime, arena, power, mode, "--drive")?);
        }
        let Some(running) = container.as_mut() else { break };
        let answer = running.dialogue.tell(name).and_then(|()| running.dialogue.line(ATTACK_LIMIT));
        let outcome = match answer {
            Ok(line) => judge(&line),
            Err(error) => {
                // The next attack gets a new container.
                container = None;
                Ok(format!("{error}"))
            }
        };
        let outcome = match (outcome, mode) {
            (Ok(held), Mode::Control) => Ok(held),
            (Ok(held), _) => arena.damage().map_or(Ok(held), Err),
            (escaped, _) => escaped,
        };
        said.insert((*name).to_owned(), outcome);
    }
    Ok(said)
}

fn judge(line: &str) -> Said {
    match line.split_once(' ') {
        Some(("HELD", why)) => Ok(why.to_owned()),
        _ => Err(line.to_owned()),
    }
}

/// An attacker that tries the plain names without a pause, under the deny rules.
pub(crate) fn start_loop(guest: &Guest, runtime: Runtime) -> Result<(Arena, Container)> {
    let mut arena = Arena::make(guest, Ground::Directory)?;
    guest.set_policies(&[("deny", DENY)])?;
    guest.configure("enforce", "audit")?;
    arena.reset(guest)?;
    let container = start(guest, runtime, &arena, POWERS[0], Mode::Deny, "--loop")?;
    Ok((arena, container))
}

fn start(guest: &Guest, runtime: Runtime, arena: &Arena, power: Power, mode: Mode, how: &str) -> Result<Container> {
    let id = format!("attack-{}-{}-{}", power.name, arena.ground.name(), mode.name());
    let mut bundle = Bundle::new(&id, arena.root(), &["/attack", how]);
    bundle.capabilities = PLAIN.iter().chain(power.more).copied().collect();
    if power.privileged {
        bundle.capabilities = ALL.to_vec();
        bundle.host_pid = true;
    }
    bundle.hooked = mode != Mode::Control;
    bundle.facts.labels.insert("app".to_owned(), "attacked".to_owned());
    bundle.binds.push((arena.out.clone(), "/out".to_owned()));
    bundle.environment.extend([
        format!("ATTACK_SECONDS={ATTACK_SECONDS}"),
        format!("HOST_ROOT={}", arena.root().display()),
        format!("HELPER_PID={}", arena.helper_pid()),
    ]);
    let mut container = runtime.start(guest, &bundle)?;
    container.dialogue.line(START_LIMIT)?;
    Ok(container)
}
