//! The container's state, as the runtime writes it to the standard input of a hook.
//!
//! Its form is the OCI runtime specification's `State`. runc writes one line, crun pretty-prints, escapes `/` as `\/` and adds
//! fields of its own; all of that is accepted, and unknown fields are ignored. What the hook relies on is checked here once:
//! an id that is safe as a file name, a pid that can be a process, an absolute bundle.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use portcullis_enforcer::place::{ReadError, host};

/// The whole state. A real one has a few kilobytes, nearly all of it annotations.
pub const MAX_STATE_BYTES: u64 = 1 << 20;
/// An id becomes the name of a file in the state directory, with a suffix; file names end at 255 bytes.
pub const MAX_ID_BYTES: usize = 200;
/// PATH_MAX of Linux.
pub const MAX_BUNDLE_BYTES: usize = 4096;

/// What a hook is told of its container.
#[derive(Debug, Clone)]
pub struct State {
    /// The runtime's name of the container: letters, digits and `_ . + : -`.
    pub id: String,
    /// The container's init as the runtime sees it; absent when there is none (poststop).
    pub pid: Option<u32>,
    /// The directory that holds `config.json`; absolute.
    pub bundle: Option<PathBuf>,
    /// The configuration's annotations, as far as the runtime passes them.
    pub annotations: BTreeMap<String, String>,
}

/// Why a state is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Nothing on the standard input: the hook was started by hand, or by a runtime that is none.
    #[error("no container state on the standard input; the hook is run by an OCI runtime, see oci-hooks(5)")]
    Empty,
    /// The standard input could not be read, or is too long.
    #[error("the container state is unusable: {0}; the runtime has to write one OCI state to the hook's standard input")]
    Read(#[from] ReadError),
    /// Not a state.
    #[error(
        "the container state is not an OCI state: {0}; the runtime has to write one JSON object to the hook's standard input"
    )]
    Json(serde_json::Error),
    /// An id that is not safe to use.
    #[error(
        "the container id {0:?} is unusable: it must be 1 to {MAX_ID_BYTES} letters, digits and _.+:- and begin with a letter or digit"
    )]
    Id(String),
    /// No process to protect.
    #[error(
        "the container state has no usable pid ({0}); createRuntime hooks run after the runtime has made the container's init"
    )]
    Pid(String),
    /// No place to read the configuration from.
    #[error("the container state has no usable bundle ({0:?}); it must be the absolute path of the directory of config.json")]
    Bundle(String),
}

#[derive(Deserialize)]
struct Written {
    id: String,
    #[serde(default)]
    pid: Value,
    #[serde(default)]
    bundle: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
}

impl State {
    /// Reads a state to the end of the stream.
    pub fn read(stream: impl Read) -> Result<State, StateError> {
        let bytes = host::read_to_limit(stream, Path::new("the container state"), MAX_STATE_BYTES)?;
        State::parse(&bytes)
    }

    /// Parses one state.
    pub fn parse(bytes: &[u8]) -> Result<State, StateError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(StateError::Empty);
        }
        let written: Written = object(bytes).map_err(StateError::Json)?;
        if !is_usable_id(&written.id) {
            return Err(StateError::Id(written.id.chars().take(80).collect()));
        }
        let pid = match &written.pid {
            Value::Null => None,
            Value::Number(number) if number.as_i64() == Some(0) => None,
            Value::Number(number) => match number.as_i64() {
                Some(pid) if (1..=i64::from(i32::MAX)).contains(&pid) => u32::try_from(pid).ok(),
                _ => return Err(StateError::Pid(number.to_string())),
            },
            other => return Err(StateError::Pid(kind(other).to_owned())),
        };
        if let Some(bundle) = &written.bundle
            && (bundle.contains('\0') || bundle.len() > MAX_BUNDLE_BYTES)
        {
            return Err(StateError::Bundle(bundle.chars().take(80).collect()));
        }
        Ok(State {
            id: written.id,
            pid,
            bundle: written.bundle.map(PathBuf::from),
            annotations: strings(written.annotations.unwrap_or_default()),
        })
    }

    /// That of a container which is yet to be made from a bundle.
    pub fn of_bundle(id: &str, bundle: &Path) -> Result<State, StateError> {
        if !is_usable_id(id) {
            return Err(StateError::Id(id.chars().take(80).collect()));
        }
        Ok(State { id: id.to_owned(), pid: None, bundle: Some(bundle.to_owned()), annotations: BTreeMap::new() })
    }

    /// The pid of a container that has to have one.
    pub fn init_pid(&self) -> Result<u32, StateError> {
        self.pid.ok_or_else(|| StateError::Pid("none".to_owned()))
    }

    /// The bundle of a container that has to have one.
    pub fn bundle_dir(&self) -> Result<&Path, StateError> {
        match &self.bundle {
            Some(bundle) if bundle.is_absolute() => Ok(bundle),
            Some(bundle) => Err(StateError::Bundle(bundle.display().to_string())),
            None => Err(StateError::Bundle(String::new())),
        }
    }
}

/// Parses a JSON object. serde alone would take an array for a struct as well.
pub(crate) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => serde_json::from_slice(bytes),
        _ => Err(serde::de::Error::custom("it is not a JSON object")),
    }
}

/// An annotation is a string; a value of another type is kept as its JSON text rather than lost.
pub(crate) fn strings(annotations: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    annotations
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => (key, text),
            other => (key, other.to_string()),
        })
        .collect()
}

fn is_usable_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES
        && id.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.+:-".contains(&byte))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runc_writes_one_line() {
        let state = State::parse(
            br#"{"ociVersion":"1.0.2-dev","id":"6a63c4a301f4","status":"creating","pid":18801,"bundle":"/g/overlay-containers/6a63c4a301f4/userdata","annotations":{"io.container.manager":"libpod"}}"#,
        )
        .unwrap();
        assert_eq!(state.init_pid().unwrap(), 18801);
        assert_eq!(state.bundle_dir().unwrap(), Path::new("/g/overlay-containers/6a63c4a301f4/userdata"));
        assert_eq!(state.annotations["io.container.manager"], "libpod");
    }

    #[test]
    fn crun_pretty_prints_escapes_and_adds_fields() {
        let state = State::parse(
            b"{\n  \"ociVersion\": \"1.0\",\n  \"id\": \"c1\",\n  \"pid\": 7,\n  \"root\": \"\\/x\\/merged\",\n  \"bundle\": \"\\/g\\/u\",\n  \"status\": \"created\",\n  \"annotations\": {\n    \"a\": \"\\/b\", \"n\": 5\n  }\n}\n",
        )
        .unwrap();
        assert_eq!(state.bundle_dir().unwrap(), Path::new("/g/u"));
        assert_eq!(state.annotations["a"], "/b");
        assert_eq!(state.annotations["n"], "5");
    }

    #[test]
    fn poststop_has_no_pid() {
        for text in [r#"{"id":"c1","status":"stopped","pid":0}"#, r#"{"id":"c1","pid":null}"#, r#"{"id":"c1"}"#] {
            let state = State::parse(text.as_bytes()).unwrap();
            assert!(state.pid.is_none());
            assert!(state.init_pid().is_err() && state.bundle_dir().is_err());
        }
    }

    #[test]
    fn an_id_is_safe_as_a_file_name() {
        for id in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "a\\n", "ä"] {
            let text = format!(r#"{{"id":"{id}"}}"#);
            assert!(matches!(State::parse(text.as_bytes()), Err(StateError::Id(_))), "{id:?}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "a".repeat(MAX_ID_BYTES + 1));
        assert!(matches!(State::parse(long.as_bytes()), Err(StateError::Id(_))));
        for id in ["c1", "a.b_c-d+e:f", &"f".repeat(MAX_ID_BYTES)] {
            State::parse(format!(r#"{{"id":"{id}"}}"#).as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_pid_is_a_process() {
        for pid in ["-1", "2147483648", "1.5", "\"7\"", "[7]", "true"] {
            let text = format!(r#"{{"id":"c1","pid":{pid}}}"#);
            assert!(matches!(State::parse(text.as_bytes()), Err(StateError::Pid(_))), "{pid}");
        }
    }
}
