//! The section `feeder`: who may read alerts in KubeArmor's protocol, and from where.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Field, Wrong, absolute, address};

/// Where KubeArmor's protocol is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Feeder {
    /// The socket for root, if that was said; see [`super::Config::feeder_socket`].
    pub socket: Option<PathBuf>,
    /// Also for others.
    pub tcp: Option<Tcp>,
}

/// The protocol over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Where.
    pub listen: SocketAddr,
    /// For whom.
    pub protection: Protection,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Whoever has a certificate of the authority.
    Tls(Tls),
    /// Whoever reaches the port.
    Nothing,
}

/// Files of PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The agent's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients.
    pub client_ca: PathBuf,
}

/// The fields as they were written.
#[derive(Default)]
pub(super) struct Written {
    socket: Option<PathBuf>,
    listen: Option<SocketAddr>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    insecure: bool,
    /// Where the last of those is that concern TCP.
    at: (usize, usize),
}

impl Written {
    /// Takes a field of the section; whether there is one by its name.
    pub(super) fn set(&mut self, field: &Field) -> Result<bool, String> {
        match field.name.as_str() {
            "feeder" => return Err("feeder is a mapping with socket, listen, tls and insecure".to_owned()),
            "feeder.tls" => return Err("feeder.tls is a mapping with certificate, key and clientCa".to_owned()),
            "feeder.socket" => {
                self.socket = Some(absolute(field)?);
                return Ok(true);
            }
            "feeder.listen" => self.listen = Some(address(field)?),
            "feeder.tls.certificate" => self.certificate = Some(absolute(field)?),
            "feeder.tls.key" => self.key = Some(absolute(field)?),
            "feeder.tls.clientCa" => self.client_ca = Some(absolute(field)?),
            "feeder.insecure" => {
                self.insecure = match field.value.as_str() {
                    "true" => true,
                    "false" => false,
                    value => return Err(format!("feeder.insecure is `{value}`; write true or false")),
                }
            }
            _ => return Ok(false),
        }
        self.at = field.at;
        Ok(true)
    }

    /// What all fields together mean.
    pub(super) fn meant(self) -> Result<Feeder, Wrong> {
        let wrong = |message: &str| Err((self.at, message.to_owned()));
        let tls = match (self.certificate, self.key, self.client_ca) {
            (None, None, None) => None,
            (Some(certificate), Some(key), Some(client_ca)) => Some(Tls { certificate, key, client_ca }),
            _ => return wrong("feeder.tls needs certificate, key and clientCa; write all three"),
        };
        let protection = match (tls, self.insecure) {
            (Some(tls), false) => Some(Protection::Tls(tls)),
            (None, true) => Some(Protection::Nothing),
            (None, false) => None,
            (Some(_), true) => return wrong("feeder.tls and feeder.insecure exclude each other; remove one"),
        };
        let tcp = match (self.listen, protection) {
            (Some(listen), Some(protection)) => Some(Tcp { listen, protection }),
            (None, None) => None,
            (Some(_), None) => {
                return wrong(
                    "feeder.listen lets others than root read alerts; say who by feeder.tls, or write `insecure: true` for whoever reaches the port",
                );
            }
            (None, Some(_)) => return wrong("feeder.tls and feeder.insecure are about TCP; write feeder.listen too, or neither"),
        };
        Ok(Feeder { socket: self.socket, tcp })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Config, Error};

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(Path::new("config.yaml"), text.as_bytes())
    }

    #[test]
    fn by_default_there_is_a_socket_for_root_and_nothing_else() {
        let config = parse("stateDir: /s").unwrap();
        assert_eq!((config.feeder_socket(), config.feeder.tcp), (PathBuf::from("/s/feeder.sock"), None));
        assert_eq!(config.cluster_name, "default");
        let config = parse("clusterName: c1\nfeeder:\n  socket: /f\n").unwrap();
        assert_eq!((config.feeder_socket(), config.cluster_name.as_str()), (PathBuf::from("/f"), "c1"));
    }

    #[test]
    fn tcp_says_for_whom() {
        let text = "feeder:\n  listen: 0.0.0.0:32767\n  tls:\n    certificate: /c\n    key: /k\n    clientCa: /a\n";
        let Some(Tcp { listen, protection: Protection::Tls(tls) }) = parse(text).unwrap().feeder.tcp else { panic!() };
        assert_eq!((listen.port(), tls.certificate, tls.key), (32767, PathBuf::from("/c"), PathBuf::from("/k")));
        let tcp = parse("feeder:\n  listen: '[::1]:1'\n  insecure: true\n").unwrap().feeder.tcp;
        assert!(matches!(tcp, Some(Tcp { protection: Protection::Nothing, .. })));
    }

    #[test]
    fn metrics_are_told_nowhere_by_default() {
        assert_eq!(parse("stateDir: /s").unwrap().metrics_listen, None);
        let listen = parse("metrics:\n  listen: 127.0.0.1:9465\n").unwrap().metrics_listen;
        assert_eq!(listen, Some("127.0.0.1:9465".parse().unwrap()));
    }

    #[test]
    fn errors_tell_the_place_and_the_fix() {
        for (text, expected) in [
            ("feeder:\n  listen: 1.2.3.4:1", "config.yaml:2:11: feeder.listen lets others than root read alerts; say who"),
            ("feeder:\n  listen: here", "config.yaml:2:11: feeder.listen is `here`; write an address with a port"),
            ("feeder:\n  insecure: true", "config.yaml:2:13: feeder.tls and feeder.insecure are about TCP"),
            ("feeder:\n  insecure: yes", "config.yaml:2:13: feeder.insecure is `yes`; write true or false"),
            (
                "feeder:\n  listen: 1.2.3.4:1\n  tls: {key: /k}",
                "config.yaml:3:14: feeder.tls needs certificate, key and clientCa",
            ),
            (
                "feeder:\n  listen: 1.2.3.4:1\n  tls: {key: /k, certificate: /c, clientCa: /a}\n  insecure: true",
                "config.yaml:4:13: feeder.tls and feeder.insecure exclude each other",
            ),
            ("feeder: on", "config.yaml:1:9: feeder is a mapping"),
            ("feeder:\n  tls: on", "config.yaml:2:8: feeder.tls is a mapping"),
            ("feeder:\n  port: 1", "config.yaml:2:9: there is no field `feeder.port`"),
            ("metrics:\n  listen: 9465", "config.yaml:2:11: metrics.listen is `9465`; write an address with a port"),
            ("metrics: on", "config.yaml:1:10: metrics is a mapping"),
            ("clusterName: ''", "config.yaml:1:14: clusterName is empty"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
