//! What a carrier changes in a container's configuration, and in the one of an execution: the label, and the hooks that say what
//! the label means and take it back.

use std::path::{Path, PathBuf};

use portcullis_enforcer::Carrier;
use portcullis_enforcer::apparmor::{Label, ProfileName};
use serde_json::{Map, Value, json};

use super::CarrierError;
use crate::bundle::{BY_PRECREATE, CARRIER_ANNOTATION};

/// Seconds after which a runtime ends a hook; as in contrib/hooks.d.
const HOOK_TIMEOUT: u32 = 10;

/// A configuration that is to be written back.
pub(super) struct Config {
    path: PathBuf,
    root: Map<String, Value>,
}

impl Config {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Config, CarrierError> {
        let failed = |source| CarrierError::Json { path: path.to_owned(), source };
        Ok(Config { path: path.to_owned(), root: serde_json::from_slice(bytes).map_err(failed)? })
    }

    /// Gives a container its profile, or takes it from one that was run with one before. Whether that changes anything.
    pub(super) fn label(&mut self, profile: Option<&ProfileName>) -> Result<bool, CarrierError> {
        let path = &self.path;
        match self.root.get_mut("process") {
            Some(Value::Object(process)) => Ok(relabel(process, "", profile)),
            _ if profile.is_none() => Ok(false),
            _ => Err(CarrierError::NoProcess { path: path.clone() }),
        }
    }

    /// Gives an execution its profile. One that names none has the container's, as runtimes see it.
    pub(super) fn label_execution(&mut self, inherited: &str, profile: &ProfileName) -> bool {
        relabel(&mut self.root, inherited, Some(profile))
    }

    /// Notes who has given it its label, which the gate hook puts on record. That of the runtime is no note, so that nobody but the
    /// hook of `precreate` can make less of it than it is.
    pub(super) fn carried_by(&mut self, carrier: Carrier) -> Result<(), CarrierError> {
        let annotations = match self.root.get_mut("annotations") {
            Some(Value::Object(annotations)) => annotations,
            _ if carrier == Carrier::Runtime => return Ok(()),
            None | Some(Value::Null) => {
                self.root.insert("annotations".to_owned(), json!({ CARRIER_ANNOTATION: BY_PRECREATE }));
                return Ok(());
            }
            Some(_) => return Err(CarrierError::Annotations { path: self.path.clone() }),
        };
        match carrier {
            Carrier::Runtime => drop(annotations.remove(CARRIER_ANNOTATION)),
            Carrier::Precreate => drop(annotations.insert(CARRIER_ANNOTATION.to_owned(), Value::from(BY_PRECREATE))),
        }
        Ok(())
    }

    /// Has the gate hook run before and after the container, unless it is anyway.
    pub(super) fn gate(&mut self, hook: &Path) -> Result<(), CarrierError> {
        let malformed = || CarrierError::Hooks { path: self.path.clone() };
        let hooks = self.root.entry("hooks").and_modify(|hooks| {
            if hooks.is_null() {
                *hooks = json!({});
            }
        });
        let hooks = hooks.or_insert_with(|| json!({})).as_object_mut().ok_or_else(malformed)?;
        for stage in ["createRuntime", "poststop"] {
            let of_stage = hooks.entry(stage).or_insert(Value::Null);
            if of_stage.is_null() {
                *of_stage = json!([]);
            }
            let of_stage = of_stage.as_array_mut().ok_or_else(malformed)?;
            let name = hook.file_name();
            let is_ours = |other: &Value| other["path"].as_str().is_some_and(|path| Path::new(path).file_name() == name);
            if !of_stage.iter().any(is_ours) {
                of_stage.push(json!({ "path": hook, "args": ["portcullis-hook", stage], "timeout": HOOK_TIMEOUT }));
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        Value::Object(self.root.clone()).to_string().into_bytes()
    }

    /// Takes the place of the file in one step, with its mode.
    pub(super) fn write(&self) -> Result<(), CarrierError> {
        let failed = |source| CarrierError::Write { path: self.path.clone(), source };
        let mode = std::fs::metadata(&self.path).map_err(failed)?.permissions();
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".portcullis-{}", std::process::id()));
        let temporary = self.path.with_file_name(name);
        let written = std::fs::File::create_new(&temporary).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &self.bytes())?;
            file.set_permissions(mode)?;
            std::fs::rename(&temporary, &self.path)
        });
        if written.is_err() {
            // The error that is told is the first one.
            drop(std::fs::remove_file(&temporary));
        }
        written.map_err(failed)
    }
}

fn relabel(process: &mut Map<String, Value>, inherited: &str, profile: Option<&ProfileName>) -> bool {
    const FIELD: &str = "apparmorProfile";
    let before = process.get(FIELD).and_then(Value::as_str).unwrap_or_default().to_owned();
    let label = Label::new(if before.is_empty() { inherited } else { &before });
    let after = match profile {
        Some(profile) => label.with(profile),
        None => label.without_ours(),
    };
    let changed = after != before;
    if changed {
        process.insert(FIELD.to_owned(), Value::from(after));
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("/b/config.json"), text.as_bytes()).unwrap()
    }

    fn written(config: &Config) -> Value {
        serde_json::from_slice(&config.bytes()).unwrap()
    }

    #[test]
    fn a_label_is_stacked_on_the_engine_s_and_taken_away_again() {
        let profile = ProfileName::of("c1");
        let mut of_engine =
            config(r#"{"process":{"args":["a"],"apparmorProfile":"containers-default"},"x":18446744073709551615}"#);
        assert!(of_engine.label(Some(&profile)).unwrap());
        let expected =
            json!({"process": {"args": ["a"], "apparmorProfile": format!("containers-default//&{profile}")}, "x": u64::MAX});
        assert_eq!(written(&of_engine), expected);
        assert!(!of_engine.label(Some(&profile)).unwrap(), "it has it");
        assert!(of_engine.label(Some(&ProfileName::of("c2"))).unwrap());
        let label = written(&of_engine)["process"]["apparmorProfile"].clone();
        assert_eq!(label, format!("containers-default//&{}", ProfileName::of("c2")), "another container of the same bundle");
        assert!(of_engine.label(None).unwrap());
        assert_eq!(written(&of_engine)["process"]["apparmorProfile"], "containers-default");
        let mut bare = config(r#"{"process":{}}"#);
        assert!(!bare.label(None).unwrap());
        assert!(bare.label(Some(&profile)).unwrap());
        assert_eq!(written(&bare)["process"]["apparmorProfile"], profile.as_str());
        assert!(matches!(config("{}").label(Some(&profile)), Err(CarrierError::NoProcess { .. })));
    }

    #[test]
    fn an_execution_has_the_container_s_label_or_its_own_and_ours() {
        let profile = ProfileName::of("c1");
        let mut silent = config(r#"{"args":["a"]}"#);
        assert!(silent.label_execution(&format!("containers-default//&{profile}"), &profile));
        assert_eq!(written(&silent)["apparmorProfile"], format!("containers-default//&{profile}"));
        let mut own = config(r#"{"apparmorProfile":"other"}"#);
        assert!(own.label_execution("containers-default", &profile));
        assert_eq!(written(&own)["apparmorProfile"], format!("other//&{profile}"));
    }

    #[test]
    fn the_gate_is_there_once_and_behind_the_others() {
        let hook = Path::new("/usr/libexec/portcullis/portcullis-hook");
        for text in ["{}", r#"{"hooks":null}"#, r#"{"hooks":{"createRuntime":null}}"#] {
            let mut config = config(text);
            config.gate(hook).unwrap();
            config.gate(hook).unwrap();
            for stage in ["createRuntime", "poststop"] {
                let expected = json!([{ "path": hook, "args": ["portcullis-hook", stage], "timeout": 10 }]);
                assert_eq!(written(&config)["hooks"][stage], expected, "{text}");
            }
        }
        let mut with_others =
            config(r#"{"hooks":{"createRuntime":[{"path":"/x"}],"poststop":[{"path":"/opt/portcullis-hook"}]}}"#);
        with_others.gate(hook).unwrap();
        let hooks = &written(&with_others)["hooks"];
        assert_eq!(
            (hooks["createRuntime"][0]["path"].as_str(), hooks["createRuntime"][1]["path"].as_str()),
            (Some("/x"), hook.to_str())
        );
        assert_eq!(hooks["poststop"].as_array().unwrap().len(), 1);
        for text in [r#"{"hooks":7}"#, r#"{"hooks":{"poststop":{}}}"#] {
            assert!(matches!(config(text).gate(hook), Err(CarrierError::Hooks { .. })), "{text}");
        }
    }

    #[test]
    fn only_the_hook_leaves_a_note() {
        for text in ["{}", r#"{"annotations":null}"#, r#"{"annotations":{"portcullis.io/carrier":"x"}}"#] {
            let mut config = config(text);
            config.carried_by(Carrier::Precreate).unwrap();
            assert_eq!(written(&config)["annotations"]["portcullis.io/carrier"], "precreate", "{text}");
            config.carried_by(Carrier::Runtime).unwrap();
            assert_eq!(written(&config)["annotations"], json!({}), "{text}");
        }
        let mut silent = config("{}");
        silent.carried_by(Carrier::Runtime).unwrap();
        assert_eq!(written(&silent), json!({}));
        let odd = config(r#"{"annotations":7}"#).carried_by(Carrier::Precreate);
        assert!(matches!(odd, Err(CarrierError::Annotations { .. })));
    }

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "{}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut config = Config::parse(&path, br#"{"a":1}"#).unwrap();
        config.gate(Path::new("/h")).unwrap();
        config.write().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), config.bytes());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
