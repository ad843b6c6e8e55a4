//! `ingress` and `egress` of KubeArmorNetworkPolicy.

use std::net::IpAddr;
use std::str::FromStr;

use super::fields::Fields;
use crate::diagnostic::quote;
use crate::suggest;
use crate::written::{Item, Traffic};

/// Reads list `name` (`ingress` or `egress`) of `spec`.
pub(super) fn traffic(spec: &Fields<'_>, name: &str) -> Vec<Item<Traffic>> {
    let peers = if name == "ingress" { "from" } else { "to" };
    let known = [peers, "iface", "ports", "limit", "duration"];
    let mut out = Vec::new();
    for (node, field) in spec.list(name) {
        let Some(fields) = Fields::open(spec.cx, node, field, &known, true) else { continue };
        let common = fields.common();
        for (node, field) in fields.list(peers) {
            let Some(peer) = Fields::open(spec.cx, node, field, &["ipBlock"], false) else { continue };
            let Some(node) = peer.require("ipBlock", "write `ipBlock: {cidr: 10.0.0.0/8}`") else { continue };
            let Some(block) = Fields::open(spec.cx, node, peer.field("ipBlock"), &["cidr"], false) else { continue };
            cidr(&block);
        }
        fields.texts("iface");
        for (node, field) in fields.list("ports") {
            if let Some(ports) = Fields::open(spec.cx, node, field, &["port", "endPort", "protocol"], false) {
                port(&ports);
            }
        }
        let quota = limit(&fields);
        out.push(Item { at: node.at, field: fields.path, common, says: Traffic { quota } });
    }
    out
}

/// `level`: the scope of a bandwidth quota.
pub(super) fn level(spec: &Fields<'_>) {
    if let Some(text) = spec.text("level")
        && !["Pod", "Policy"].contains(&text)
    {
        spec.cx.error(spec.at("level"), &spec.field("level"), format!("{} is no level", quote(text)), "write `Pod` or `Policy`");
    }
}

fn cidr(block: &Fields<'_>) {
    let Some(text) = block.require("cidr", "write `cidr: 10.0.0.0/8`").and_then(|_| block.text("cidr")) else { return };
    let valid = match text.split_once('/') {
        None => IpAddr::from_str(text).is_ok(),
        Some((address, length)) => match (IpAddr::from_str(address), u8::from_str(length)) {
            (Ok(IpAddr::V4(_)), Ok(length)) => length <= 32,
            (Ok(IpAddr::V6(_)), Ok(length)) => length <= 128,
            _ => false,
        },
    };
    if !valid {
        let help = "write an address and a prefix length, such as `10.0.0.0/8` or `2001:db8::/32`";
        block.cx.error(block.at("cidr"), &block.field("cidr"), format!("{} is no address block", quote(text)), help);
    }
}

fn port(fields: &Fields<'_>) {
    if let Some(text) = fields.text("port") {
        let number = u16::from_str(text).is_ok_and(|port| port > 0);
        let name = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !number && !name {
            let help = "write a number from 1 to 65535, or a service's name such as `https`";
            fields.cx.error(fields.at("port"), &fields.field("port"), format!("{} is no port", quote(text)), help);
        }
    }
    fields.number("endPort", 1..=65535);
    if let Some(text) = fields.text("protocol") {
        let known = ["TCP", "UDP", "SCTP"];
        if !known.iter().any(|word| word.eq_ignore_ascii_case(text)) {
            let help = suggest::nearest(text, known)
                .map_or("write `TCP`, `UDP` or `SCTP`".to_owned(), |w| format!("did you mean `{w}`?"));
            fields.cx.error(fields.at("protocol"), &fields.field("protocol"), format!("{} is no protocol", quote(text)), help);
        }
    }
}

/// `limit` and `duration`; whether there is a limit.
fn limit(fields: &Fields<'_>) -> bool {
    fields.text("duration");
    let Some(text) = fields.text("limit") else { return fields.get("limit").is_some() };
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() == text.len() || !["", "KB", "MB", "GB", "K", "M", "G"].contains(&unit) {
        let help = "write a number and a unit, such as `20MB`";
        fields.cx.error(fields.at("limit"), &fields.field("limit"), format!("{} is no amount of data", quote(text)), help);
    }
    true
}
