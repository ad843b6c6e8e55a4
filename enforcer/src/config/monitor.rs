//! The section `monitor`: whether processes are watched, and what is told of whom.

use std::collections::BTreeMap;

use portcullis_ebpf::monitor::{Classes, Visibility};

use super::Field;
use crate::visibility;

/// Where the fields are that are a namespace's.
const NAMESPACES: &str = "monitor.namespaces";
/// Most namespaces that can have classes of their own.
const MAX_NAMESPACES: usize = 256;
/// Longest name of one: that of a Kubernetes namespace is a DNS label.
const MAX_NAMESPACE_BYTES: usize = 63;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Whether there is one.
    pub enabled: MonitorEnabled,
    /// What is told as events. Who is who is known in any case, on the host too.
    pub visibility: Visibility,
    /// What is told in place of that of containers in these namespaces.
    pub namespaces: BTreeMap<String, Classes>,
}

impl Default for Monitor {
    fn default() -> Monitor {
        let visibility = Visibility { host: Classes::NONE, containers: Classes::PROCESS };
        Monitor { enabled: MonitorEnabled::default(), visibility, namespaces: BTreeMap::new() }
    }
}

impl Monitor {
    /// Takes a field of the section; whether there is one by its name.
    pub(super) fn set(&mut self, field: &Field) -> Result<bool, String> {
        match field.name.as_str() {
            "monitor" => return Err("monitor is a mapping with enabled, visibility, hostVisibility and namespaces".to_owned()),
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
            NAMESPACES => return Err(format!("{NAMESPACES} is a mapping of lists, like `shop: [process, file]`")),
            name => match namespace(name) {
                Some(name) => self.set_namespace(name, field)?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    fn set_namespace(&mut self, name: &str, field: &Field) -> Result<(), String> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAMESPACE_BYTES || !name.bytes().all(is_part) {
            let most = MAX_NAMESPACE_BYTES;
            return Err(format!("{NAMESPACES} has `{name}`; a namespace has 1 to {most} letters, digits, `-` and `_`"));
        }
        if self.namespaces.len() >= MAX_NAMESPACES {
            return Err(format!("{NAMESPACES} has more than {MAX_NAMESPACES} namespaces; name fewer"));
        }
        self.namespaces.insert(name.to_owned(), classes(field)?);
        Ok(())
    }
}

/// The namespace that a field is of.
pub(super) fn namespace(field: &str) -> Option<&str> {
    field.strip_prefix(NAMESPACES)?.strip_prefix('.')
}

/// KubeArmor's other classes are refused as long as nobody is told of them.
fn classes(field: &Field) -> Result<Classes, String> {
    let class = |word: &String| {
        visibility::class(word)
            .ok_or_else(|| format!("{} has `{word}`; the classes that can be told are: {}", field.name, visibility::words()))
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
        assert_eq!((&by_default, by_default.enabled), (&Monitor::default(), MonitorEnabled::Auto));
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
    fn a_namespace_has_classes_of_its_own() {
        let text = "monitor:\n  visibility: []\n  namespaces:\n    shop: [process, file]\n    container_namespace: []\n";
        let namespaces = parse(text).unwrap().namespaces;
        let expected = [("container_namespace", Classes::NONE), ("shop", Classes::PROCESS | Classes::FILE)];
        assert_eq!(namespaces, expected.map(|(name, classes)| (name.to_owned(), classes)).into());
        assert_eq!(parse("monitor: {namespaces: {}}").unwrap(), Monitor::default());
        let many = |count: usize| {
            let lines: String = (0..count).map(|number| format!("    n{number}: [file]\n")).collect();
            parse(&format!("monitor:\n  namespaces:\n{lines}"))
        };
        assert_eq!(many(MAX_NAMESPACES).unwrap().namespaces.len(), MAX_NAMESPACES);
        let error = many(MAX_NAMESPACES + 1).unwrap_err().to_string();
        assert!(error.contains("monitor.namespaces has more than 256 namespaces; name fewer"), "{error}");
    }

    #[test]
    fn errors_tell_the_place_and_the_fix() {
        for (text, expected) in [
            ("monitor: true", "config.yaml:1:10: monitor is a mapping with enabled, visibility, hostVisibility and namespaces"),
            ("monitor:\n  enabled: on", "config.yaml:2:12: monitor.enabled is `on`; write auto, true or false"),
            (
                "monitor:\n  visibility: [process, dns]",
                "config.yaml:2:15: monitor.visibility has `dns`; the classes that can be told are: process, file, network, capabilities",
            ),
            ("monitor:\n  hostVisibility: file", "config.yaml:2:19: monitor.hostVisibility is a list, like `hostVisibility: ["),
            ("monitor:\n  visibility: [{a: b}]", "config.yaml:2:16: monitor.visibility is a list of classes"),
            ("monitor:\n  hostVisibility: [File]", "config.yaml:2:19: monitor.hostVisibility has `File`; the classes"),
            ("monitor:\n  namespaces: [a]", "config.yaml:2:15: no field but nri.sockets, monitor.visibility"),
            ("monitor:\n  namespaces: a", "config.yaml:2:15: monitor.namespaces is a mapping of lists, like"),
            (
                "monitor:\n  namespaces: {shop: file}",
                "config.yaml:2:22: monitor.namespaces.shop is a list, like `NAME: [process]`",
            ),
            ("monitor:\n  namespaces: {shop: [dns]}", "config.yaml:2:22: monitor.namespaces.shop has `dns`; the classes"),
            ("monitor:\n  namespaces: {a.b: [file]}", "config.yaml:2:21: monitor.namespaces has `a.b`; a namespace has 1 to 63"),
            ("monitor:\n  host: true", "config.yaml:2:9: there is no field `monitor.host`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
