//! `/etc/portcullis/config.yaml`.
//!
//! ```yaml
//! policyDir: /etc/portcullis/policies
//! stateDir: /run/portcullis
//! failPolicy: enforce        # or permit: a container that cannot be armed starts all the same, with a record
//! defaultPosture:            # for what an allow-list does not list: audit or block
//!   file: audit
//!   network: audit
//!   capabilities: audit
//! ```
//!
//! Every field may be left out, and so may the file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use portcullis_policy::meaning::{Posture, Postures};
use saphyr_parser::{Event, Marker, Parser};

use crate::Error;
use crate::files;

/// Where the configuration is if nothing else is said.
pub const CONFIG_FILE: &str = "/etc/portcullis/config.yaml";
/// Largest configuration file that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 64 << 10;

const FIELDS: [&str; 7] = [
    "policyDir",
    "stateDir",
    "failPolicy",
    "defaultPosture",
    "defaultPosture.file",
    "defaultPosture.network",
    "defaultPosture.capabilities",
];

/// What happens to a container that cannot be armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailPolicy {
    /// It does not start.
    #[default]
    Enforce,
    /// It starts, and that is said and recorded.
    Permit,
}

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the policies are.
    pub policy_dir: PathBuf,
    /// What is armed, and with what.
    pub state_dir: PathBuf,
    /// What happens to a container that cannot be armed.
    pub fail_policy: FailPolicy,
    /// The postures where no annotation sets one.
    pub postures: Postures,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            policy_dir: PathBuf::from("/etc/portcullis/policies"),
            state_dir: PathBuf::from("/run/portcullis"),
            fail_policy: FailPolicy::default(),
            postures: Postures::default(),
        }
    }
}

impl Config {
    /// Reads `file`, or [`CONFIG_FILE`] if none is given; only the latter may be absent.
    ///
    /// # Errors
    /// [`Error::Config`] with the place of what is wrong.
    pub fn read(file: Option<&Path>) -> Result<Config, Error> {
        let path = file.unwrap_or(Path::new(CONFIG_FILE));
        match files::read(path, MAX_CONFIG_BYTES) {
            Ok(bytes) => Config::parse(path, &bytes),
            Err(Error::File { source, .. }) if file.is_none() && source.kind() == ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(file: &Path, text: &[u8]) -> Result<Config, Error> {
        let wrong =
            |(line, column): (usize, usize), message: String| Error::Config { file: file.to_owned(), line, column, message };
        let text = std::str::from_utf8(text).map_err(|_| wrong((1, 1), "the file is not UTF-8; save it as UTF-8".to_owned()))?;
        let mut config = Config::default();
        for field in fields(text).map_err(|(at, message)| wrong(at, message))? {
            config.set(&field).map_err(|message| wrong(field.at, message))?;
        }
        Ok(config)
    }

    fn set(&mut self, field: &Field) -> Result<(), String> {
        let value = field.value.as_str();
        match field.name.as_str() {
            "policyDir" => self.policy_dir = absolute(field)?,
            "stateDir" => self.state_dir = absolute(field)?,
            "failPolicy" => {
                self.fail_policy = match value {
                    "enforce" => FailPolicy::Enforce,
                    "permit" => FailPolicy::Permit,
                    _ => return Err(format!("failPolicy is `{value}`; write enforce or permit")),
                }
            }
            "defaultPosture.file" => self.postures.file = posture(field)?,
            "defaultPosture.network" => self.postures.network = posture(field)?,
            "defaultPosture.capabilities" => self.postures.capabilities = posture(field)?,
            "defaultPosture" => return Err("defaultPosture is a mapping with file, network and capabilities".to_owned()),
            unknown => return Err(format!("there is no field `{unknown}`; known are {}", FIELDS.join(", "))),
        }
        Ok(())
    }
}

fn absolute(field: &Field) -> Result<PathBuf, String> {
    let path = PathBuf::from(&field.value);
    if path.is_absolute() { Ok(path) } else { Err(format!("{} is `{}`; write an absolute path", field.name, field.value)) }
}

fn posture(field: &Field) -> Result<Posture, String> {
    match field.value.as_str() {
        "audit" => Ok(Posture::Audit),
        "block" => Ok(Posture::Block),
        value => Err(format!("{} is `{value}`; write audit or block", field.name)),
    }
}

/// A leaf of the file, by the names that lead to it.
struct Field {
    name: String,
    value: String,
    at: (usize, usize),
}

type Wrong = ((usize, usize), String);

/// Flattens mappings of mappings of scalars; anything else is wrong.
fn fields(text: &str) -> Result<Vec<Field>, Wrong> {
    let mut fields: Vec<Field> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut key: Option<(String, (usize, usize))> = None;
    let mut depth = 0usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (place(*error.marker()), format!("this is not YAML: {}", error.info())))?;
        let at = place(span.start);
        match event {
            Event::MappingStart(..) => {
                depth += 1;
                match key.take() {
                    Some((name, _)) => path.push(name),
                    None if depth > 1 => return Err((at, "a field cannot be a mapping".to_owned())),
                    None => {}
                }
            }
            Event::MappingEnd => {
                depth -= 1;
                path.pop();
            }
            // What an empty document is to YAML.
            Event::Scalar(value, ..) if depth == 0 && (value.is_empty() || value == "~") => {}
            Event::Scalar(..) if depth == 0 => {
                return Err((at, "the file is a mapping of fields, like `failPolicy: enforce`".to_owned()));
            }
            Event::Scalar(value, ..) => match key.take() {
                None => key = Some((value.into_owned(), at)),
                Some((name, _)) => {
                    let name = path.iter().map(String::as_str).chain([name.as_str()]).collect::<Vec<_>>().join(".");
                    if fields.iter().any(|field| field.name == name) {
                        return Err((at, format!("{name} is there twice; remove one")));
                    }
                    fields.push(Field { name, value: value.into_owned(), at });
                }
            },
            Event::SequenceStart(..) => return Err((at, "no field is a list".to_owned())),
            Event::Alias(_) => return Err((at, "aliases are not supported here; write the value".to_owned())),
            _ => {}
        }
    }
    Ok(fields)
}

fn place(marker: Marker) -> (usize, usize) {
    (marker.line(), marker.col() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(Path::new("config.yaml"), text.as_bytes())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        for text in ["", "---\n", "# nothing\n", "{}"] {
            assert_eq!(parse(text).unwrap(), Config::default(), "{text:?}");
        }
    }

    #[test]
    fn every_field_is_read() {
        let text = "policyDir: /p\nstateDir: /s\nfailPolicy: permit\ndefaultPosture:\n  file: block\n  network: block\n  capabilities: audit\n";
        let config = parse(text).unwrap();
        assert_eq!((config.policy_dir, config.state_dir), (PathBuf::from("/p"), PathBuf::from("/s")));
        assert_eq!(config.fail_policy, FailPolicy::Permit);
        assert_eq!(config.postures, Postures { file: Posture::Block, network: Posture::Block, capabilities: Posture::Audit });
    }

    #[test]
    fn errors_tell_the_place_and_the_fix() {
        for (text, expected) in [
            ("policyDir: here", "config.yaml:1:12: policyDir is `here`; write an absolute path"),
            ("\nfailPolicy: maybe", "config.yaml:2:13: failPolicy is `maybe`; write enforce or permit"),
            ("defaultPosture:\n  files: audit", "config.yaml:2:10: there is no field `defaultPosture.files`"),
            ("failPolicy: [a]", "config.yaml:1:13: no field is a list"),
            ("failPolicy: permit\nfailPolicy: permit", "config.yaml:2:13: failPolicy is there twice"),
            ("hello", "config.yaml:1:1: the file is a mapping"),
            ("a: {b: [", "config.yaml:1:8"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
