//! A terminal emulator that tells what is on its screen.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a screen is waited for: everything here is quick, but the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server of its own, with one window.
pub(crate) struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// A terminal in which a command runs, and then a line says how it ended. Nothing where there is no tmux, which is said.
    pub(crate) fn start(directory: &Path, command: &str) -> Option<Tmux> {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("skip {}: tmux is not installed (hack/deps does it)", module_path!());
            return None;
        }
        let tmux = Tmux { socket: directory.join("tmux.sock") };
        let command = format!("{command}; echo ended with $?; sleep 600");
        let arguments = ["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "30", &command];
        let output = tmux.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(tmux)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        // The names are UTF-8, and so is the screen.
        tmux.env("LC_ALL", "C.UTF-8").env_remove("TMUX").arg("-u").arg("-S").arg(&self.socket);
        tmux.args(arguments).output().unwrap()
    }

    fn answer(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments).stdout).unwrap()
    }

    /// Presses keys, by tmux's names of them.
    pub(crate) fn keys(&self, keys: &[&str]) {
        assert!(self.run(&[&["send-keys"], keys].concat()).status.success());
    }

    pub(crate) fn text(&self, text: &str) {
        assert!(self.run(&["send-keys", "-l", text]).status.success());
    }

    pub(crate) fn title(&self) -> String {
        self.answer(&["display-message", "-p", "#{pane_title}"]).trim_end().to_owned()
    }

    /// What runs in the window.
    pub(crate) fn pid(&self) -> u32 {
        self.answer(&["display-message", "-p", "#{pane_pid}"]).trim_end().parse().unwrap()
    }

    /// The screen, once it is as a test wants it.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let screen = self.answer(&["capture-pane", "-p"]);
            if is_so(&screen) {
                return screen;
            }
            assert!(since.elapsed() < PATIENCE, "never: {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        drop(self.run(&["kill-server"]));
    }
}
