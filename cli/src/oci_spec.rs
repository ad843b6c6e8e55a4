//! `portcullis oci-spec-with-gate`: an OCI runtime configuration on standard input, the same with the gate hook on standard output.
//!
//! For containerd's `base_runtime_spec`: `ctr oci spec | portcullis oci-spec-with-gate > /etc/containerd/portcullis-spec.json`.

use std::io::Read;
use std::path::Path;

use portcullis_enforcer::Config;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::{Answer, output};

/// Largest configuration that is read.
const MAX_SPEC_BYTES: u64 = 4 << 20;
/// The runtime's limit, in seconds; the hook gives up two earlier.
const TIMEOUT_SECONDS: u64 = 10;

pub(crate) fn with_gate(config: Option<&Path>) -> Result<Answer, Failure> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_SPEC_BYTES + 1).read_to_end(&mut text).map_err(|error| Failure::file(Path::new("stdin"), error))?;
    let spec = add_gate(&text, &Config::read(config)?.nri.hook)?;
    output::json(&spec)?;
    Ok(Answer::Yes)
}

fn add_gate(text: &[u8], hook: &Path) -> Result<Value, Failure> {
    let wrong = |reason: String| Failure::NoSpec { reason };
    if text.len() as u64 > MAX_SPEC_BYTES {
        return Err(wrong(format!("it is larger than {MAX_SPEC_BYTES} bytes")));
    }
    let mut spec: Value = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    if spec.get("ociVersion").is_none() {
        return Err(wrong("it has no ociVersion".to_owned()));
    }
    let object = |value: &'static str| wrong(format!("{value} is not what the OCI runtime specification has there"));
    let hooks = spec.as_object_mut().ok_or_else(|| object("the top"))?.entry("hooks").or_insert_with(|| json!({}));
    // Go writes an absent map as null.
    if hooks.is_null() {
        *hooks = json!({});
    }
    let stage = hooks.as_object_mut().ok_or_else(|| object("hooks"))?.entry("createRuntime").or_insert_with(|| json!([]));
    if stage.is_null() {
        *stage = json!([]);
    }
    let stage = stage.as_array_mut().ok_or_else(|| object("hooks.createRuntime"))?;
    let path = hook.display().to_string();
    if !stage.iter().any(|hook| hook["path"] == path.as_str()) {
        stage.push(json!({ "path": path, "args": ["portcullis-hook", "createRuntime"], "timeout": TIMEOUT_SECONDS }));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "/usr/libexec/portcullis/portcullis-hook";

    fn add(text: &str) -> Result<Value, Failure> {
        add_gate(text.as_bytes(), Path::new(HOOK))
    }

    #[test]
    fn the_hook_is_added_once_and_nothing_else_changes() {
        let gate = json!({ "path": HOOK, "args": ["portcullis-hook", "createRuntime"], "timeout": 10 });
        for hooks in [json!(null), json!({}), json!({ "createRuntime": null }), json!({ "createRuntime": [] })] {
            let spec = json!({ "ociVersion": "1.1.0", "hooks": hooks, "linux": { "x": [1, 2.5] } });
            let once = add(&spec.to_string()).unwrap();
            assert_eq!(once["hooks"]["createRuntime"], json!([gate]));
            assert_eq!(once["linux"], spec["linux"]);
            assert_eq!(add(&once.to_string()).unwrap(), once);
        }
        let others = add(r#"{"ociVersion":"1","hooks":{"poststop":[1],"createRuntime":[{"path":"/other"}]}}"#).unwrap();
        assert_eq!(others["hooks"], json!({ "poststop": [1], "createRuntime": [{ "path": "/other" }, gate] }));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for (text, reason) in [
            ("", "EOF"),
            ("[]", "no ociVersion"),
            ("{}", "no ociVersion"),
            (r#"{"ociVersion":"1","hooks":[]}"#, "hooks is not"),
            (r#"{"ociVersion":"1","hooks":{"createRuntime":{}}}"#, "hooks.createRuntime is not"),
        ] {
            let error = add(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
