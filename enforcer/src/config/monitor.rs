//! The section `monitor`: whether processes are watched, and whose executions are told.

use super::Field;

/// Whether the monitor of processes is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MonitorEnabled {
    /// Where the kernel takes it; that it does not is said, and no trouble.
    #[default]
    Auto,
    /// Always; that it can't be is told as trouble.
    Yes,
    /// Never.
    No,
}

/// The monitor of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Monitor {
    /// Whether there is one.
    pub enabled: MonitorEnabled,
    /// Whether what the host's processes execute is told as events, too. Who is who on the host is known in any case.
    pub host: bool,
}

impl Monitor {
    /// Takes a field of the section; whether there is one by its name.
    pub(super) fn set(&mut self, field: &Field) -> Result<bool, String> {
        match field.name.as_str() {
            "monitor" => return Err("monitor is a mapping with enabled and host".to_owned()),
            "monitor.enabled" => {
                self.enabled = match field.value.as_str() {
                    "auto" => MonitorEnabled::Auto,
                    "true" => MonitorEnabled::Yes,
                    "false" => MonitorEnabled::No,
                    value => return Err(format!("monitor.enabled is `{value}`; write auto, true or false")),
                }
            }
            "monitor.host" => {
                self.host = match field.value.as_str() {
                    "true" => true,
                    "false" => false,
                    value => return Err(format!("monitor.host is `{value}`; write true or false")),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Config, Error};

    fn parse(text: &str) -> Result<Monitor, Error> {
        Config::parse(Path::new("config.yaml"), text.as_bytes()).map(|config| config.monitor)
    }

    #[test]
    fn it_is_there_where_it_can_be_and_tells_of_containers() {
        assert_eq!(parse("").unwrap(), Monitor { enabled: MonitorEnabled::Auto, host: false });
        let monitor = parse("monitor:\n  enabled: true\n  host: true\n").unwrap();
        assert_eq!(monitor, Monitor { enabled: MonitorEnabled::Yes, host: true });
        assert_eq!(parse("monitor: {enabled: false}").unwrap().enabled, MonitorEnabled::No);
    }

    #[test]
    fn errors_tell_the_place_and_the_fix() {
        for (text, expected) in [
            ("monitor: true", "config.yaml:1:10: monitor is a mapping with enabled and host"),
            ("monitor:\n  enabled: on", "config.yaml:2:12: monitor.enabled is `on`; write auto, true or false"),
            ("monitor:\n  host: auto", "config.yaml:2:9: monitor.host is `auto`; write true or false"),
            ("monitor:\n  guest: true", "config.yaml:2:10: there is no field `monitor.guest`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
