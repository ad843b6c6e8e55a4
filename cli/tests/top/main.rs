//! `portcullis top` as it is seen: in a real terminal emulator, and as the text of one frame. The agent is one that names things to
//! do harm.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod agent;
mod tmux;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::Agent;
use tmux::{PATIENCE, Tmux};

fn portcullis() -> &'static str {
    env!("CARGO_BIN_EXE_portcullis")
}

#[test]
fn keys_do_in_a_terminal_what_they_say() {
    let agent = Agent::start();
    let command = format!("{} --config {} top", portcullis(), agent.config().display());
    let Some(terminal) = Tmux::start(agent.path(), &command) else { return };

    let screen = terminal.until("samples and events", |screen| {
        screen.contains("agent 0.1.0 (process 312)") && screen.contains("alerts  0.0 other events") && screen.contains("/etc/all")
    });
    assert!(screen.contains("3 by readers") && screen.contains("5 here"), "what was lost: {screen}");
    assert!(screen.contains("no policy is for it") && screen.contains("4711 (1)"), "{screen}");
    assert!(screen.contains(r"\u{1b}[2J"), "names are written out: {screen}");
    terminal.until("verdicts in the tree", |screen| {
        screen.lines().any(|line| {
            line.contains("4711 (1)") && line.trim_start().split_once("d ").is_some_and(|(count, _)| count.parse::<u64>().is_ok())
        })
    });

    terminal.keys(&["Space"]);
    let paused = terminal.until("a pause in which events come", |screen| {
        screen.split_once("PAUSED, ").is_some_and(|(_, count)| !count.starts_with("0 "))
    });
    assert!(paused.contains("/etc/all"), "{paused}");
    terminal.keys(&["Space"]);
    terminal.until("the end of the pause", |screen| !screen.contains("PAUSED"));

    terminal.keys(&["/"]);
    terminal.text("verdict=nonsense");
    terminal.until("what is typed", |screen| screen.contains("filter: verdict=nonsense"));
    terminal.keys(&["Enter"]);
    terminal.until("a refusal", |screen| screen.contains("not filtered so: invalid value 'nonsense'"));
    terminal.keys(&["/"]);
    terminal.text("verdict=block");
    terminal.keys(&["Enter"]);
    terminal.until("only what is wanted", |screen| {
        screen.contains("events of verdict=block") && screen.contains("/etc/filtered") && !screen.contains("/etc/all")
    });

    assert_ne!(terminal.title(), "owned", "a name of a process has given the terminal its title");
    terminal.keys(&["q"]);
    let after = terminal.until("the end", |screen| screen.contains("ended with 0"));
    assert!(!after.contains("containers and processes"), "the screen is as it was before: {after}");
}

/// Whoever ignores the hangup has no terminal left to read.
#[test]
fn it_ends_with_its_terminal() {
    let agent = Agent::start();
    let command = format!("trap '' HUP; exec {} --config {} top", portcullis(), agent.config().display());
    let Some(terminal) = Tmux::start(agent.path(), &command) else { return };
    terminal.until("samples", |screen| screen.contains("agent 0.1.0 (process 312)"));
    let top = terminal.pid();
    drop(terminal);
    let since = Instant::now();
    while Path::new(&format!("/proc/{top}")).exists() {
        assert!(since.elapsed() < PATIENCE, "{top} still runs");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_frame_is_text_and_nothing_else() {
    let agent = Agent::start();
    let output = Command::new(portcullis()).arg("--config").arg(agent.config()).args(["top", "--once"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("portcullis top  agent 0.1.0 (process 312)") && text.contains("per second: "), "{text}");
    assert!(text.contains("4711 (1)") && text.contains(" denied") && text.contains("by readers, 0 by sinks"), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
}

#[test]
fn without_a_terminal_or_an_agent_it_says_so() {
    let agent = Agent::start();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(portcullis());
        let output = command.args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let config = agent.config();
    let config = config.to_str().unwrap();
    assert!(run(&["--config", config, "top"]).contains("`portcullis top --once` prints one frame"));
    std::fs::remove_file(agent.path().join("state/agent.sock")).unwrap();
    assert!(run(&["--config", config, "top", "--once"]).contains("systemctl start portcullis"));
}
