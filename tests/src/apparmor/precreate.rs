//! Podman's hook `precreate`, installed as its README says, with Podman's own runtimes: what a container executes is confined, what
//! `podman exec` does is not, and that is told. Beside `portcullis-runtime` both are.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Checked, Programs, policy, profiles, read};
use crate::guest::{self, Guest};
use crate::podman::Podman;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::starts::{refused, refused_start};
use crate::{Failure, Result};

const NAME: &str = "portcullis-precreate";
const HOOK: &str = include_str!("../../../contrib/podman-precreate/portcullis-precreate.json");
const CONTAINERS_CONF: &str = include_str!("../../../contrib/podman-precreate/containers.conf");
/// Where its README has them put.
const HOOKS: &str = "/etc/portcullis/podman-hooks.d";
const HOOK_FILE: &str = "/etc/portcullis/podman-hooks.d/portcullis-precreate.json";
const CONF_FILE: &str = "/etc/containers/containers.conf.d/portcullis-precreate.conf";

/// A test, and whether Podman runs `portcullis-runtime` in it, too.
type Test = (&'static str, bool, fn(&Place<'_>) -> Result<Checked>);

const TESTS: &[Test] = &[
    ("entrypoint", false, entrypoint),
    ("held", false, held),
    ("too-long", false, too_long),
    ("with-the-runtime", true, with_the_runtime),
];

pub(super) fn run(guest: &Guest, podman: Option<Podman>, report: &mut Report) -> Result<()> {
    const SUITE: &str = "apparmor/precreate";
    let name = |runtime: Runtime, what: &str| format!("{SUITE}/{}/{what}", runtime.name());
    let all = guest.runtimes.iter().flat_map(|runtime| TESTS.iter().map(move |test| (*runtime, *test)));
    // Where there is to be little: by one runtime, and what the program's own tests have, too, is left to them.
    let first = guest.runtimes.first().copied();
    let is_for_ci = |runtime, what| Some(runtime) == first && what != "too-long";
    let wanted: Vec<(Runtime, Test)> = all
        .filter(|(runtime, (what, ..))| guest.wants(&name(*runtime, what)) && (!guest.ci || is_for_ci(*runtime, *what)))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let prepared = podman.map_or_else(|| Podman::prepare(guest), |podman| Ok(Some(podman)))?;
    let Some(podman) = prepared else {
        report.skip(SUITE, "podman is not installed");
        return Ok(());
    };
    guest.set_policies(&[("precreate", &policy("precreate"))])?;
    let _installed = Installed::install(guest)?;
    for (runtime, (what, carried, test)) in wanted {
        let guest = &Guest { carried, ..guest.clone() };
        let place = Place { guest, podman: podman.with(guest, runtime) };
        report.run(&name(runtime, what), || test(&place));
        place.podman.call(&["rm", "-f", "--ignore", "-t", "0", NAME])?;
    }
    Ok(())
}

/// The files of contrib at their places; taken away when dropped, for the other parts of the suite.
struct Installed {
    _programs: Programs,
}

impl Installed {
    fn install(guest: &Guest) -> Result<Installed> {
        for directory in [HOOKS, "/etc/containers/containers.conf.d"] {
            guest::make_directory(Path::new(directory))?;
        }
        guest::write(Path::new(HOOK_FILE), HOOK.as_bytes())?;
        guest::write(Path::new(CONF_FILE), CONTAINERS_CONF.as_bytes())?;
        Ok(Installed { _programs: Programs::install(guest)? })
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        for path in [CONF_FILE, HOOKS] {
            if let Err(error) = guest::remove_tree(Path::new(path)) {
                println!("# {error}");
            }
        }
    }
}

struct Place<'a> {
    guest: &'a Guest,
    podman: Podman,
}

impl Place<'_> {
    fn start(&self) -> Result<Checked> {
        let script = "cat /etc/hosts; cat /etc/passwd; trap 'exit 0' TERM; while :; do sleep 0.2; done";
        let started = self.podman.run(&["-d", "--name", NAME, "--label", "app=precreate"], &["/bin/sh", "-c", script])?;
        Ok(if started.success() { Ok(()) } else { Err(format!("it does not start: {}", started.complaint())) })
    }

    fn inspect(&self, field: &str) -> Result<String> {
        let said = self.podman.call(&["inspect", "--format", field, NAME])?;
        if said.success() {
            Ok(said.stdout.trim().to_owned())
        } else {
            Err(Failure::Answer { what: format!("podman inspect {field}"), text: said.stderr })
        }
    }

    /// The label of the container's first process: ours once, and enforced.
    fn labelled(&self) -> Result<Checked> {
        let label = read(&PathBuf::from(format!("/proc/{}/attr/apparmor/current", self.inspect("{{.State.Pid}}")?)))?;
        let ours = label.matches("portcullis.").count();
        Ok(if ours == 1 && label.contains("(enforce)") { Ok(()) } else { Err(format!("its label is {label:?}")) })
    }

    fn exec(&self, arguments: &[&str]) -> Result<bool> {
        Ok(self.podman.call(&[&["exec", NAME][..], arguments].concat())?.success())
    }
}

fn entrypoint(place: &Place<'_>) -> Result<Checked> {
    let out = place.guest.work.join("precreate/out");
    guest::make_open_directory(&out)?;
    let mark = out.join("mark");
    guest::remove_tree(&mark)?;
    let volume = format!("{}:/out", out.display());
    // Where there is to be little, that it leaves a mark is left to `apparmor/starts`.
    if !place.guest.ci {
        let free = place.podman.run(&["--rm", "-v", &volume], &["/attack", "--mark"])?;
        if !mark.exists() {
            return Ok(Err(format!("without the label the entrypoint left no mark either ({})", free.complaint())));
        }
        guest::remove_tree(&mark)?;
    }
    let told = Guest { carried: true, ..place.guest.clone() };
    for round in 0..place.guest.repetitions(2, 50) {
        let outcome = place.podman.run(&["--rm", "--label", "app=precreate", "-v", &volume], &["/attack", "--mark"])?;
        if mark.exists() {
            return Ok(Err(format!("round {round}: the denied entrypoint ran")));
        }
        // A start that failed for another reason would prove nothing.
        if outcome.success() || !refused_start(&told, &outcome.stderr) {
            return Ok(Err(format!("round {round}: not the refusal that was expected: {}", outcome.complaint())));
        }
    }
    Ok(Ok(()))
}

/// Held is what the container does itself, also when it is started again; what is not held is told by all who are asked.
fn held(place: &Place<'_>) -> Result<Checked> {
    if let Err(why) = place.start()? {
        return Ok(Err(why));
    }
    for again in [false, true] {
        if again {
            for verb in [&["stop", "-t", "20", NAME][..], &["start", NAME]] {
                let done = place.podman.call(verb)?;
                if !done.success() {
                    return Ok(Err(format!("podman {}: {}", verb[0], done.complaint())));
                }
            }
        }
        if let Err(why) = place.labelled()? {
            return Ok(Err(format!("started again {again}: {why}")));
        }
    }
    // If this were denied, the report would be wrong.
    if !place.exec(&["/bin/cat", "/etc/hosts"])? {
        return Ok(Err("`podman exec` is confined, and reported not to be".to_owned()));
    }
    for (command, expected) in [
        (&["who", NAME][..], &["state     armed", "AppArmor, profile portcullis.", "PARTIAL", "`podman exec`"][..]),
        (&["status"], &[&format!("PARTIAL {NAME}"), "`podman exec`", "  partial  "]),
        (&["status", "-o", "json"], &["\"carrier\":\"precreate\""]),
        (&["doctor"], &["Partial: Podman's precreate hook", "contrib/runtime"]),
    ] {
        let said = place.guest.portcullis(command)?;
        if let Some(missing) = expected.iter().find(|text| !said.stdout.contains(**text)) {
            return Ok(Err(format!("{}: not a word of {missing:?}: {} {}", command[0], said.stdout, said.complaint())));
        }
    }
    let logs = place.podman.call(&["logs", NAME])?;
    if !refused(&logs.stderr) || !logs.stdout.contains("root:x:0") || logs.stdout.contains("localhost") {
        return Ok(Err(format!("its first program is not held: {} {}", logs.stdout, logs.stderr)));
    }
    place.podman.call(&["rm", "-f", "-t", "5", NAME])?;
    Ok(if profiles()?.is_empty() { Ok(()) } else { Err(format!("it leaves profiles: {:?}", profiles()?)) })
}

/// A hook before ours makes the configuration longer than is read. By itself it does no harm.
fn too_long(place: &Place<'_>) -> Result<Checked> {
    let program = place.guest.work.join("precreate/longer");
    guest::make_directory(&place.guest.work.join("precreate"))?;
    guest::write_executable(&program, b"#!/bin/sh\n/usr/bin/head -c 9000000 /dev/zero | /usr/bin/tr '\\0' ' '\nexec /bin/cat\n")?;
    let mut longer: Value = serde_json::from_str(HOOK).map_err(|error| Failure::io(HOOK_FILE, error.into()))?;
    longer["hook"] = json!({ "path": program, "args": ["longer"], "timeout": 60 });
    let file = Path::new(HOOKS).join("00-longer.json");
    guest::write(&file, longer.to_string().as_bytes())?;
    let with_ours = place.podman.run(&["--rm"], &["/bin/true"]);
    guest::remove_tree(Path::new(HOOK_FILE))?;
    let by_itself = place.podman.run(&["--rm"], &["/bin/true"]);
    guest::remove_tree(&file)?;
    guest::write(Path::new(HOOK_FILE), HOOK.as_bytes())?;
    let (with_ours, by_itself) = (with_ours?, by_itself?);
    Ok(if !by_itself.success() {
        Err(format!("without ours it does not start either: {}", by_itself.complaint()))
    } else if with_ours.success() {
        Err("it starts".to_owned())
    } else {
        Ok(())
    })
}

/// Both are asked: one label, one gate, and nothing left out.
fn with_the_runtime(place: &Place<'_>) -> Result<Checked> {
    if let Err(why) = place.start()?.and(place.labelled()?) {
        return Ok(Err(why));
    }
    if place.exec(&["/bin/cat", "/etc/hosts"])? || !place.exec(&["/bin/cat", "/etc/passwd"])? {
        return Ok(Err("what `podman exec` executes is not confined as it should be".to_owned()));
    }
    let who = place.guest.portcullis(&["who", NAME])?;
    if !who.stdout.contains("state     armed") || who.stdout.contains("PARTIAL") {
        return Ok(Err(format!("who: {} {}", who.stdout, who.complaint())));
    }
    let path = PathBuf::from(place.inspect("{{.OCIConfigPath}}")?);
    let config: Value = serde_json::from_str(&read(&path)?).map_err(|error| Failure::io(path.display(), error.into()))?;
    let gates = config["hooks"]["createRuntime"].as_array().map_or(0, Vec::len);
    let note = &config["annotations"]["portcullis.io/carrier"];
    Ok(if gates == 1 && note.is_null() { Ok(()) } else { Err(format!("{gates} gates, noted {note}")) })
}
