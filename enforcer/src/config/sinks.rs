//! The section `sinks`: where the agent puts events by itself.

use std::path::PathBuf;

use super::{Field, Wrong, absolute};

/// Smallest and largest size at which a file is rotated, in bytes.
const ROTATE_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 30;
/// Most files that are kept besides the one that is written.
const MAX_KEEP: u64 = 1000;

/// Where the agent puts events by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sinks {
    /// A file.
    pub file: Option<FileSink>,
    /// A collector of OpenTelemetry's.
    pub otlp: Option<OtlpSink>,
}

/// A file of lines, rotated by its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSink {
    /// The file that is written; older ones have `.1`, `.2` and so on after its name.
    pub path: PathBuf,
    /// How events are written.
    pub format: LineFormat,
    /// Which events are.
    pub what: SinkEvents,
    /// Bytes of one file at most; a single line that is longer has one of its own.
    pub max_bytes: u64,
    /// How many older files stay.
    pub keep: u32,
}

/// A collector that speaks OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpSink {
    /// Where it is, as a URL without a path.
    pub endpoint: String,
    /// The authorities of its certificate, as PEM; only of `https`.
    pub ca: Option<PathBuf>,
    /// Which events it gets.
    pub what: SinkEvents,
}

/// How an event is written as a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineFormat {
    /// Our own JSON.
    #[default]
    Lines,
    /// KubeArmor's JSON.
    KubeArmor,
    /// OCSF's JSON.
    Ocsf,
}

/// Which events go to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SinkEvents {
    /// Denials and audited operations.
    Alerts,
    /// What is no alert.
    Logs,
    /// Both.
    #[default]
    All,
}

/// The fields as they were written.
#[derive(Default)]
pub(super) struct Written {
    path: Option<PathBuf>,
    format: LineFormat,
    what: SinkEvents,
    max_bytes: Option<u64>,
    keep: Option<u32>,
    /// Where the last of them is.
    at: Option<(usize, usize)>,
    otlp: WrittenOtlp,
}

#[derive(Default)]
struct WrittenOtlp {
    endpoint: Option<String>,
    ca: Option<PathBuf>,
    what: SinkEvents,
    at: Option<(usize, usize)>,
}

impl WrittenOtlp {
    fn set(&mut self, field: &Field) -> Result<bool, String> {
        match field.name.as_str() {
            "sinks.otlp" => return Err("sinks.otlp is a mapping with endpoint, ca and what".to_owned()),
            "sinks.otlp.endpoint" => self.endpoint = Some(field.value.clone()),
            "sinks.otlp.ca" => self.ca = Some(absolute(field)?),
            "sinks.otlp.what" => self.what = events(field)?,
            _ => return Ok(false),
        }
        self.at = Some(field.at);
        Ok(true)
    }

    fn meant(self) -> Result<Option<OtlpSink>, Wrong> {
        let WrittenOtlp { endpoint, ca, what, at: Some(at) } = self else { return Ok(None) };
        let wrong = |message: String| Err((at, message));
        let Some(endpoint) = endpoint else {
            return wrong("sinks.otlp needs an endpoint, like http://127.0.0.1:4317".to_owned());
        };
        match (endpoint.split_once("://"), &ca) {
            (Some(("http", _)), None) | (Some(("https", _)), Some(_)) => Ok(Some(OtlpSink { endpoint, ca, what })),
            (Some(("https", _)), None) => {
                wrong("sinks.otlp.endpoint is https; say by sinks.otlp.ca whose certificates it may have".to_owned())
            }
            (Some(("http", _)), Some(_)) => {
                wrong("sinks.otlp.ca is about https, and the endpoint is http; change one".to_owned())
            }
            _ => wrong(format!("sinks.otlp.endpoint is `{endpoint}`; write a URL, like http://127.0.0.1:4317")),
        }
    }
}

fn events(field: &Field) -> Result<SinkEvents, String> {
    match field.value.as_str() {
        "alerts" => Ok(SinkEvents::Alerts),
        "logs" => Ok(SinkEvents::Logs),
        "all" => Ok(SinkEvents::All),
        value => Err(format!("{} is `{value}`; write alerts, logs or all", field.name)),
    }
}

impl Written {
    /// Takes a field of the section; whether there is one by its name.
    pub(super) fn set(&mut self, field: &Field) -> Result<bool, String> {
        let value = field.value.as_str();
        match field.name.as_str() {
            "sinks" => return Err("sinks is a mapping with file and otlp".to_owned()),
            "sinks.file" => return Err("sinks.file is a mapping with path, format, what, maxBytes and keep".to_owned()),
            "sinks.file.path" => self.path = Some(absolute(field)?),
            "sinks.file.format" => {
                self.format = match value {
                    "lines" => LineFormat::Lines,
                    "kubearmor" => LineFormat::KubeArmor,
                    "ocsf" => LineFormat::Ocsf,
                    _ => return Err(format!("sinks.file.format is `{value}`; write lines, kubearmor or ocsf")),
                }
            }
            "sinks.file.what" => self.what = events(field)?,
            "sinks.file.maxBytes" => {
                let (least, most) = ROTATE_BYTES.into_inner();
                let wrong = || format!("sinks.file.maxBytes is `{value}`; write a number from {least} to {most}");
                self.max_bytes = Some(value.parse().ok().filter(|bytes| ROTATE_BYTES.contains(bytes)).ok_or_else(wrong)?);
            }
            "sinks.file.keep" => {
                let wrong = || format!("sinks.file.keep is `{value}`; write a number from 0 to {MAX_KEEP}");
                let keep = value.parse().ok().filter(|keep| u64::from(*keep) <= MAX_KEEP);
                self.keep = Some(keep.ok_or_else(wrong)?);
            }
            _ => return self.otlp.set(field),
        }
        self.at = Some(field.at);
        Ok(true)
    }

    /// What all fields together mean.
    pub(super) fn meant(self) -> Result<Sinks, Wrong> {
        /// Days of a node where little is denied, and nothing that fills a disk.
        const MAX_BYTES: u64 = 64 << 20;
        const KEEP: u32 = 5;
        let Written { path, format, what, max_bytes, keep, at, otlp } = self;
        let otlp = otlp.meant()?;
        let Some(path) = path else {
            return match at {
                None => Ok(Sinks { file: None, otlp }),
                Some(at) => Err((at, "sinks.file needs a path, like /var/log/portcullis/events.json".to_owned())),
            };
        };
        let (max_bytes, keep) = (max_bytes.unwrap_or(MAX_BYTES), keep.unwrap_or(KEEP));
        Ok(Sinks { file: Some(FileSink { path, format, what, max_bytes, keep }), otlp })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Config, Error};

    fn parse(text: &str) -> Result<Sinks, Error> {
        Config::parse(Path::new("config.yaml"), text.as_bytes()).map(|config| config.sinks)
    }

    #[test]
    fn by_default_nothing_is_kept() {
        assert_eq!(parse("stateDir: /s").unwrap(), Sinks::default());
    }

    #[test]
    fn a_file_is_named_and_the_rest_may_be_left_out() {
        let path = PathBuf::from("/var/log/e.json");
        let least =
            FileSink { path: path.clone(), format: LineFormat::Lines, what: SinkEvents::All, max_bytes: 64 << 20, keep: 5 };
        assert_eq!(parse("sinks: {file: {path: /var/log/e.json}}").unwrap().file, Some(least));
        let text = "sinks:\n  file:\n    path: /var/log/e.json\n    format: ocsf\n    what: alerts\n    maxBytes: 1048576\n    keep: 0\n";
        let all = FileSink { path, format: LineFormat::Ocsf, what: SinkEvents::Alerts, max_bytes: 1 << 20, keep: 0 };
        assert_eq!(parse(text).unwrap().file, Some(all));
    }

    #[test]
    fn a_collector_is_reached_in_the_clear_or_by_a_certificate_that_is_known() {
        let otlp = |text: &str| parse(text).unwrap().otlp.unwrap();
        let plain = otlp("sinks: {otlp: {endpoint: 'http://127.0.0.1:4317'}}");
        assert_eq!(plain, OtlpSink { endpoint: "http://127.0.0.1:4317".to_owned(), ca: None, what: SinkEvents::All });
        let tls = otlp("sinks:\n  otlp:\n    endpoint: https://collector:4317\n    ca: /ca.pem\n    what: alerts\n");
        assert_eq!((tls.ca, tls.what), (Some(PathBuf::from("/ca.pem")), SinkEvents::Alerts));
        for (text, expected) in [
            ("sinks:\n  otlp: on", "config.yaml:2:9: sinks.otlp is a mapping with endpoint, ca and what"),
            ("sinks:\n  otlp: {what: all}", "config.yaml:2:16: sinks.otlp needs an endpoint"),
            ("sinks:\n  otlp: {endpoint: here}", "config.yaml:2:20: sinks.otlp.endpoint is `here`; write a URL"),
            ("sinks:\n  otlp: {endpoint: 'https://c'}", "config.yaml:2:20: sinks.otlp.endpoint is https; say by sinks.otlp.ca"),
            ("sinks:\n  otlp: {endpoint: 'http://c', ca: /ca}", "config.yaml:2:36: sinks.otlp.ca is about https"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn errors_tell_the_place_and_the_fix() {
        for (text, expected) in [
            ("sinks: on", "config.yaml:1:8: sinks is a mapping with file and otlp"),
            ("sinks:\n  file: /x", "config.yaml:2:9: sinks.file is a mapping with path"),
            ("sinks:\n  file: {path: x}", "config.yaml:2:16: sinks.file.path is `x`; write an absolute path"),
            ("sinks:\n  file: {keep: 1}", "config.yaml:2:16: sinks.file needs a path"),
            ("sinks:\n  file: {keep: 1001}", "config.yaml:2:16: sinks.file.keep is `1001`; write a number from 0 to 1000"),
            ("sinks:\n  file: {maxBytes: 1}", "config.yaml:2:20: sinks.file.maxBytes is `1`; write a number from 1048576 to"),
            ("sinks:\n  file: {maxBytes: 1M}", "config.yaml:2:20: sinks.file.maxBytes is `1M`"),
            ("sinks:\n  file: {format: xml}", "config.yaml:2:18: sinks.file.format is `xml`; write lines, kubearmor or ocsf"),
            ("sinks:\n  file: {what: some}", "config.yaml:2:16: sinks.file.what is `some`; write alerts, logs or all"),
            ("sinks:\n  file: {dir: /x}", "config.yaml:2:15: there is no field `sinks.file.dir`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
