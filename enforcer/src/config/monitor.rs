//! The section `monitor`: whether processes are watched, and what is told of whom.

use portcullis_ebpf::monitor::{Classes, Visibility};

use super::Field;

/// What the lists of the section may name, in KubeArmor's words. Its other classes are refused as long as nobody is told of them.
const CLASSES: [(&str, Classes); 4] = [
    ("process", Classes::PROCESS),
    ("file", Classes::FILE),
    ("network", Classes::NETWORK),
    ("capabilities", Classes::CAPABILITY),
];

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Monitor {
    /// Whether there is one.
    pub enabled: MonitorEnabled,
    /// What is told as events. Who is who is known in any case, on the host too.
    pub visibility: Visibility,
}

impl Default for Monitor {
    fn default() -> Monitor {
        let visibility = Visibility { host: Classes::NONE, containers: Classes::PROCESS };
        Monitor { enabled: MonitorEnabled::default(), visibility }
    }
}

impl Monitor {
    /// Takes a field of the section; whether there is one by its name.
    pub(super) fn set(&mut self, field: &Field) -> Result<bool, String> {
        match field.name.as_str() {
            "monitor" => return Err("monitor is a mapping with enabled, visibility and hostVisibility".to_owned()),
            "monitor.enabled" => {
                self.enabled = match field.value.as_str() {
                    "auto" => MonitorEnabled::Auto,
                    "true" => MonitorEnabled::Yes,
                    "false" => MonitorEnabled::No,
                    value => return Err(format!("monitor.enabled is `{value}`; write auto, true or false")),
                }
            }
            "monitor.visibility" => self.visibility.containers = classes(field)?,
            "monitor.hostVisibility" => self.visibility.host = classes(field)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn classes(field: &Field) -> Result<Classes, String> {
    let class = |word: &String| {
        let known = CLASSES.into_iter().find(|(name, _)| name == word);
        known.map(|(_, class)| class).ok_or_else(|| {
            let words = CLASSES.map(|(name, _)| name).join(", ");
            format!("{} has `{word}`; the classes that can be told are: {words}", field.name)
        })
    };
    field.list.iter().flatten().try_fold(Classes::NONE, |classes, word| Ok(classes | class(word)?))
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
    fn it_is_there_where_it_can_be_and_tells_what_containers_execute() {
        let by_default = parse("").unwrap();
        assert_eq!((by_default, by_default.enabled), (Monitor::default(), MonitorEnabled::Auto));
        assert_eq!(by_default.visibility, Visibility { host: Classes::NONE, containers: Classes::PROCESS });
        assert_eq!(parse("monitor: {enabled: true}").unwrap().enabled, MonitorEnabled::Yes);
        assert_eq!(parse("monitor: {enabled: false}").unwrap().enabled, MonitorEnabled::No);
    }

    #[test]
    fn what_is_told_is_a_list_of_classes() {
        let text = "monitor:\n  visibility: [process]\n  hostVisibility:\n  - process\n";
        let visibility = parse(text).unwrap().visibility;
        assert_eq!(visibility, Visibility { host: Classes::PROCESS, containers: Classes::PROCESS });
        let all = parse("monitor: {visibility: [capabilities, network, process, file, file]}").unwrap().visibility;
        assert_eq!(all, Visibility { host: Classes::NONE, containers: Classes::ALL });
        assert_eq!(parse("monitor: {visibility: []}").unwrap().visibility, Visibility::default(), "nothing");
    }

    #[test]
    fn errors_tell_the_place_and_the_fix() {
        for (text, expected) in [
            ("monitor: true", "config.yaml:1:10: monitor is a mapping with enabled, visibility and hostVisibility"),
            ("monitor:\n  enabled: on", "config.yaml:2:12: monitor.enabled is `on`; write auto, true or false"),
            (
                "monitor:\n  visibility: [process, dns]",
                "config.yaml:2:15: monitor.visibility has `dns`; the classes that can be told are: process, file, network, capabilities",
            ),
            ("monitor:\n  hostVisibility: file", "config.yaml:2:19: monitor.hostVisibility is a list, like `hostVisibility: ["),
            ("monitor:\n  visibility: [{a: b}]", "config.yaml:2:16: monitor.visibility is a list of classes"),
            ("monitor:\n  hostVisibility: [File]", "config.yaml:2:19: monitor.hostVisibility has `File`; the classes"),
            ("monitor:\n  host: true", "config.yaml:2:9: there is no field `monitor.host`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
