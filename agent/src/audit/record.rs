//! What AppArmor says of a denial (`audit_pre` in the kernel's `security/apparmor/audit.c`, `common_lsm_audit` in
//! `security/lsm_audit.c`): `audit(SECONDS.MILLIS:SERIAL): apparmor="DENIED" operation="open" name="/x" …`.
//!
//! Names come from containers. What is quoted has no quote in it, and what would have is written in hexadecimal digits
//! (`audit_log_untrustedstring`).

use std::time::Duration;

/// Fields that are looked at; a record has about twenty.
const MAX_FIELDS: usize = 64;

/// A record of AppArmor's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Since 1970.
    pub(super) time: Duration,
    /// It was denied. Else it was let through and audited.
    pub(super) denied: bool,
    pub(super) operation: Vec<u8>,
    pub(super) profile: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) pid: u32,
    pub(super) comm: Vec<u8>,
    /// What of that was asked for is told: the letters of `apparmor.d(5)`.
    pub(super) mask: Vec<u8>,
    /// The user ids of the task and of the file's owner.
    pub(super) users: Option<(u32, u32)>,
    pub(super) family: Vec<u8>,
    pub(super) socket_type: Vec<u8>,
    pub(super) protocol: u32,
    pub(super) capability: Option<u32>,
}

/// Reads a record. Nothing for what is no verdict of AppArmor's.
pub(super) fn parse(text: &[u8]) -> Option<Record> {
    let (stamp, fields) = split(text.strip_prefix(b"audit(")?, b"): ")?;
    let mut record = Record { time: time(stamp)?, ..Record::default() };
    let (mut requested, mut denied) = (Vec::new(), Vec::new());
    let (mut user, mut owner) = (None, None);
    let mut is_verdict = false;
    for (key, value) in Fields(fields).take(MAX_FIELDS) {
        match key {
            b"apparmor" => {
                record.denied = value == b"DENIED";
                is_verdict = record.denied || value == b"AUDIT";
            }
            b"operation" => record.operation = value,
            b"profile" => record.profile = value,
            b"name" => record.name = value,
            b"pid" => record.pid = number(&value)?,
            b"comm" => record.comm = value,
            b"requested_mask" => requested = value,
            b"denied_mask" => denied = value,
            b"fsuid" => user = number(&value),
            b"ouid" => owner = number(&value),
            b"family" => record.family = value,
            b"sock_type" => record.socket_type = value,
            b"protocol" => record.protocol = number(&value)?,
            b"capability" => record.capability = number(&value),
            _ => {}
        }
    }
    record.mask = if denied.is_empty() { requested } else { denied };
    record.users = user.zip(owner);
    is_verdict.then_some(record)
}

/// `SECONDS.MILLIS:SERIAL`
fn time(stamp: &[u8]) -> Option<Duration> {
    let (seconds, rest) = split(stamp, b".")?;
    let (millis, _) = split(rest, b":")?;
    let seconds: u64 = std::str::from_utf8(seconds).ok()?.parse().ok()?;
    Some(Duration::new(seconds, number(millis).filter(|millis| *millis < 1000)? * 1_000_000))
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn split<'t>(text: &'t [u8], at: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let place = text.windows(at.len()).position(|window| window == at)?;
    Some((&text[..place], &text[place + at.len()..]))
}

/// `key="value"`, `key=6B6579` and `key=7`, separated by spaces.
struct Fields<'t>(&'t [u8]);

impl<'t> Iterator for Fields<'t> {
    type Item = (&'t [u8], Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|&byte| byte != b' ')?;
        let (key, rest) = split(&self.0[start..], b"=")?;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let (value, rest) = split(quoted, b"\"")?;
            self.0 = rest;
            return Some((key, value.to_vec()));
        }
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        self.0 = &rest[end..];
        let value = &rest[..end];
        let is_text = matches!(key, b"name" | b"profile" | b"comm");
        Some((key, if is_text { unhex(value) } else { value.to_vec() }))
    }
}

/// What is no hexadecimal digits is itself: `(null)`.
fn unhex(digits: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return digits.to_vec();
    }
    let bytes: Option<Vec<u8>> = pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect();
    bytes.unwrap_or_else(|| digits.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linux 6.12 writes them.
    #[test]
    fn records_of_a_kernel_are_read() {
        let file = parse(br#"audit(1795376816.173:5): apparmor="DENIED" operation="open" class="file" profile="portcullis.ab" name="/etc/hosts" pid=131 comm="cat" requested_mask="r" denied_mask="r" fsuid=1000 ouid=0"#).unwrap();
        assert_eq!(file.time, Duration::from_millis(1_795_376_816_173));
        assert!(file.denied && file.users == Some((1000, 0)) && file.pid == 131);
        assert_eq!(
            (file.operation.as_slice(), file.name.as_slice(), file.mask.as_slice()),
            (&b"open"[..], &b"/etc/hosts"[..], &b"r"[..])
        );
        let net = parse(br#"audit(1.002:6): apparmor="AUDIT" operation="create" class="net" profile="p" pid=7 comm="nc" family="inet" sock_type="dgram" protocol=17 requested_mask="create""#).unwrap();
        assert_eq!(
            (net.family.as_slice(), net.socket_type.as_slice(), net.protocol, net.denied),
            (&b"inet"[..], &b"dgram"[..], 17, false)
        );
        assert_eq!(net.mask, b"create");
        let capability = parse(br#"audit(1.002:6): apparmor="DENIED" operation="capable" class="cap" profile="p" pid=7 comm="a b" capability=13  capname="net_raw""#).unwrap();
        assert_eq!((capability.capability, capability.comm.as_slice(), capability.users), (Some(13), &b"a b"[..], None));
    }

    #[test]
    fn a_name_cannot_forge_a_field() {
        // `/a" pid=1 profile="x` is not quoted by the kernel, but written in digits.
        let record = parse(
            b"audit(1.000:1): apparmor=\"DENIED\" operation=\"open\" profile=\"p\" name=2F6122207069643D31 pid=9 comm=\"c\"",
        )
        .unwrap();
        assert_eq!((record.name.as_slice(), record.pid), (&b"/a\" pid=1"[..], 9));
        let quoted = parse(br#"audit(1.000:1): apparmor="DENIED" name="/a pid=1 profile=x" profile="p" pid=9"#).unwrap();
        assert_eq!((quoted.name.as_slice(), quoted.pid, quoted.profile.as_slice()), (&b"/a pid=1 profile=x"[..], 9, &b"p"[..]));
    }

    #[test]
    fn what_is_no_verdict_is_none() {
        for text in [
            "",
            "audit(",
            "audit(1.000:1): ",
            "audit(1.000:1): avc:  denied  { read } for pid=1",
            "audit(1.000:1): apparmor=\"STATUS\" operation=\"profile_load\" profile=\"unconfined\" name=\"portcullis.ab\" pid=1",
            "audit(x.000:1): apparmor=\"DENIED\" pid=1",
            "audit(1.1000:1): apparmor=\"DENIED\" pid=1",
            "audit(1.000:1): apparmor=\"DENIED\" pid=99999999999",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        let unfinished = parse(b"audit(1.000:1): apparmor=\"DENIED\" pid=1 name=\"/etc").unwrap();
        assert_eq!((unfinished.pid, unfinished.name.as_slice()), (1, &b""[..]));
    }

    proptest! {
        #[test]
        fn noise_ends(text in prop::collection::vec(any::<u8>(), 0..400), ours in any::<bool>()) {
            let text = if ours { [&b"audit(1.000:1): apparmor=\"DENIED\" "[..], &text].concat() } else { text };
            drop(parse(&text));
        }

        #[test]
        fn names_come_back(name in prop::collection::vec(1u8.., 0..64)) {
            let digits: String = name.iter().map(|byte| format!("{byte:02X}")).collect();
            let text = format!("audit(1.000:1): apparmor=\"DENIED\" name={digits} pid=3");
            prop_assert_eq!(parse(text.as_bytes()).unwrap().name, name);
        }
    }
}
