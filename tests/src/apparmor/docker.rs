//! Docker, whose daemon runs `portcullis-runtime` as contrib has it: what a container begins with is confined, and so is what
//! `docker exec` brings.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Checked, Programs, policy, profiles, read};
use crate::guest::{self, Guest, installed};
use crate::process::{self, Dialogue, Outcome};
use crate::report::Report;
use crate::starts::refused;
use crate::{Failure, Result, image};

const SUITE: &str = "apparmor/docker";
const DAEMON_JSON: &str = include_str!("../../../contrib/runtime/daemon.json");
const SOCKET: &str = "/run/portcullis-docker.sock";
const HOST: &str = "unix:///run/portcullis-docker.sock";
const IMAGE: &str = "portcullis-test:1";
const NAME: &str = "portcullis-docker";
/// One command, under emulation.
const LIMIT: Duration = Duration::from_secs(240);
/// From the daemon's start to its first answer, and from SIGTERM to its end.
const READY_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    if !guest.wants(SUITE) {
        return Ok(());
    }
    if !installed("dockerd") || !installed("docker") {
        report.skip(SUITE, "docker is not installed");
        return Ok(());
    }
    guest.set_policies(&[("docker", &policy("docker"))])?;
    let _programs = Programs::install(guest)?;
    let docker = Docker::start(guest)?;
    report.run(&format!("{SUITE}/entrypoint"), || entrypoint(guest, &docker));
    report.run(&format!("{SUITE}/confined"), || confined(guest, &docker));
    let code = docker.stop();
    report.check(&format!("{SUITE}/daemon-ends"), if code == Some(0) { Ok(()) } else { Err(format!("{code:?}")) });
    Ok(())
}

/// The daemon, with an image, in directories of its own.
struct Docker {
    daemon: Dialogue,
}

impl Docker {
    fn start(guest: &Guest) -> Result<Docker> {
        let version = process::must(Command::new("dockerd").arg("--version"), b"", LIMIT)?.stdout;
        let place = guest.work.join("docker");
        guest::make_directory(&place)?;
        let configuration = place.join("daemon.json");
        guest::write(&configuration, DAEMON_JSON.as_bytes())?;
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(&configuration).arg("--data-root").arg(place.join("data")).args(["--host", HOST]);
        // No network in the guest, nor a need of one.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--exec-opt=native.cgroupdriver=cgroupfs"]);
        let mut docker = Docker { daemon: Dialogue::start(&mut command)? };
        let since = Instant::now();
        // Whoever connects is answered when the daemon is ready; a client that asks in vain takes its time from it.
        while UnixStream::connect(SOCKET).is_err() {
            if since.elapsed() > READY_LIMIT || !docker.daemon.running() {
                return Err(Failure::Answer { what: "dockerd".to_owned(), text: docker.daemon.errors() });
            }
            std::thread::sleep(PAUSE);
        }
        let archive = image::archive(guest)?;
        let imported = docker.call(&["import", &archive.to_string_lossy(), IMAGE])?;
        if !imported.success() {
            return Err(Failure::Command { what: "docker import".to_owned(), complaint: imported.complaint() });
        }
        println!("# {}: ready after {} s", version.trim(), since.elapsed().as_secs());
        Ok(docker)
    }

    fn call(&self, arguments: &[&str]) -> Result<Outcome> {
        process::run(Command::new("docker").args(["--host", HOST]).args(arguments), b"", LIMIT)
    }

    fn run(&self, options: &[&str], arguments: &[&str]) -> Result<Outcome> {
        self.call(&[&["run", "--network=none"][..], options, &[IMAGE], arguments].concat())
    }

    fn stop(mut self) -> Option<i32> {
        self.daemon.signal(Signal::TERM);
        self.daemon.close(STOP_LIMIT)
    }
}

fn entrypoint(guest: &Guest, docker: &Docker) -> Result<Checked> {
    let out = guest.work.join("docker/out");
    guest::make_open_directory(&out)?;
    let mark = out.join("mark");
    guest::remove_tree(&mark)?;
    let volume = format!("{}:/out", out.display());
    // Where there is to be little, that it leaves a mark is left to other parts of the suite.
    if !guest.ci {
        let free = docker.run(&["--rm", "-v", &volume], &["/attack", "--mark"])?;
        if !mark.exists() {
            return Ok(Err(format!("without the label the entrypoint left no mark either ({})", free.complaint())));
        }
        guest::remove_tree(&mark)?;
    }
    for round in 0..guest.repetitions(1, 50) {
        let outcome = docker.run(&["--rm", "--label", "app=docker", "-v", &volume], &["/attack", "--mark"])?;
        if mark.exists() {
            return Ok(Err(format!("round {round}: the denied entrypoint ran")));
        }
        // A start that failed for another reason would prove nothing.
        if outcome.success() || !refused(&outcome.stderr) {
            return Ok(Err(format!("round {round}: not the refusal that was expected: {}", outcome.complaint())));
        }
    }
    Ok(Ok(()))
}

/// By both profiles, Docker's and ours, from the first program to what is executed later.
fn confined(guest: &Guest, docker: &Docker) -> Result<Checked> {
    let script = "cat /etc/hosts; cat /etc/passwd; trap 'exit 0' TERM; while :; do sleep 0.2; done";
    let started = docker.run(&["-d", "--name", NAME, "--label", "app=docker"], &["/bin/sh", "-c", script])?;
    if !started.success() {
        return Ok(Err(format!("it does not start: {}", started.complaint())));
    }
    let pid = docker.call(&["inspect", "--format", "{{.State.Pid}}", NAME])?.stdout;
    let label = read(&PathBuf::from(format!("/proc/{}/attr/apparmor/current", pid.trim())))?;
    if !label.starts_with("docker-default//&portcullis.") || !label.contains("(enforce)") {
        return Ok(Err(format!("its label is {label:?}")));
    }
    for (what, command, denies) in [
        ("a denied file", &["/bin/cat", "/etc/hosts"][..], true),
        ("another file", &["/bin/cat", "/etc/passwd"], false),
        ("a denied program", &["/attack", "--list"], true),
    ] {
        let done = docker.call(&[&["exec", NAME][..], command].concat())?;
        // What the runtime refuses the client has on its standard output.
        let right = if denies { !done.success() && refused(&format!("{}{}", done.stdout, done.stderr)) } else { done.success() };
        if !right {
            return Ok(Err(format!("docker exec, {what}: {} {}", done.stdout, done.complaint())));
        }
    }
    let logs = docker.call(&["logs", NAME])?;
    if !refused(&logs.stderr) || !logs.stdout.contains("root:x:0") || logs.stdout.contains("localhost") {
        return Ok(Err(format!("its first program is not confined: {} {}", logs.stdout, logs.stderr)));
    }
    let who = guest.portcullis(&["who", NAME])?;
    if !who.stdout.contains("AppArmor, profile portcullis.") || who.stdout.contains("PARTIAL") {
        return Ok(Err(format!("who: {} {}", who.stdout, who.complaint())));
    }
    let removed = docker.call(&["rm", "-f", NAME])?;
    Ok(if !removed.success() {
        Err(format!("it is not removed: {}", removed.complaint()))
    } else if profiles()?.is_empty() {
        Ok(())
    } else {
        Err(format!("it leaves profiles: {:?}", profiles()?))
    })
}
