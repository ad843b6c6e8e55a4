//! The file that an engine has its runtime write what goes wrong to. containerd and Podman tell their users what is in it, and nothing
//! of standard error (`getLastRuntimeError` in containerd's `pkg/process/utils.go`).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::json;

use super::{CarrierError, command};

/// Adds an error as runtimes write it, if the words of the runtime name such a file.
pub(super) fn tell(words: &[OsString], text: &str) -> Result<(), CarrierError> {
    let Some((path, as_json)) = command::log(words) else { return Ok(()) };
    let entry = json!({ "level": "error", "msg": text }).to_string();
    let entry = if as_json { entry } else { format!("level=error msg={}", json!(text)) };
    // Runtimes make it for root alone.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    file.and_then(|mut file| writeln!(file, "{entry}")).map_err(|source| CarrierError::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_ascii_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn an_engine_reads_why() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log.json");
        std::fs::write(&log, "{\"level\":\"info\",\"msg\":\"of the runtime\"}\n").unwrap();
        let line = format!("--root /r --log {} --log-format=json exec --process /p c1", log.display());
        tell(&words(&line), "refused: \"x\"").unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((text.lines().count(), &last), (2, &json!({ "level": "error", "msg": "refused: \"x\"" })));
        let plain = directory.path().join("log");
        tell(&words(&format!("--log={} create c1", plain.display())), "refused").unwrap();
        assert_eq!(std::fs::read_to_string(&plain).unwrap(), "level=error msg=\"refused\"\n");
    }

    #[test]
    fn nothing_is_written_that_nobody_asked_for() {
        for line in ["create c1", "create --log /nowhere/x c1", "--new --log /nowhere/x create c1"] {
            tell(&words(line), "refused").unwrap();
        }
        assert!(matches!(tell(&words("--log /nowhere/x create c1"), "refused"), Err(CarrierError::Write { .. })));
    }
}
