//! Whether the alerts of a document are those that its cases must raise: no case without one that audits or blocks, none
//! with one that allows, each by the policy that decided.
//!
//! Alerts are matched by what they say and not by when they come. Cases that do the same to the same object are counted
//! together.

use std::collections::BTreeMap;

use portcullis_policy::decide::Verdict;
use portcullis_policy::expectation::{FileCall, Op};

use super::{Done, driver};
use crate::events::Alert;

/// Operations on two names.
const TWO_NAMES: [&str; 5] = ["rename", "link", "renameat", "renameat2", "linkat"];

/// What alerts are counted by: the kind of the object, and the object.
type Key = (String, String);

/// What is wrong, by the case's name.
pub(super) fn judge(done: &[Done<'_>], alerts: &[Alert]) -> BTreeMap<String, String> {
    let mut wrong = BTreeMap::new();
    let alerts = alerts.iter().filter(|alert| alert.comm != driver::COMM);
    let (of_two, of_one): (Vec<_>, Vec<_>) = alerts.partition(|alert| TWO_NAMES.contains(&alert.operation.as_str()));
    let mut raised: BTreeMap<Key, Vec<&Alert>> = BTreeMap::new();
    for alert in of_one {
        let class = if alert.class == "syscall" { class_of_call(&alert.operation) } else { alert.class.clone() };
        raised.entry((class, alert.object.clone())).or_default().push(alert);
    }
    let mut groups: BTreeMap<Key, Vec<&Done<'_>>> = BTreeMap::new();
    for done in done.iter().filter(|done| done.to.is_none()) {
        groups.entry(key_of_case(done)).or_default().push(done);
    }
    for (key, group) in &groups {
        let found = raised.get(key).map(Vec::as_slice).unwrap_or_default();
        if let Some(why) = compare(group, found) {
            for done in group {
                wrong.insert(done.case.name.clone(), why.clone());
            }
        }
    }
    wrong.extend(compare_two_names(done, of_two));
    wrong
}

/// Renames and links are told by the name that decided, the old one or the new: each case takes the first alert that could
/// be its own, and what is left over once more belongs to none.
fn compare_two_names(done: &[Done<'_>], mut alerts: Vec<&Alert>) -> BTreeMap<String, String> {
    let mut wrong = BTreeMap::new();
    let cases: Vec<&Done<'_>> = done.iter().filter(|done| done.to.is_some()).collect();
    let fits = |done: &Done<'_>, alert: &Alert| {
        told_as(&done.case.op) == (alert.class.as_str(), alert.operation.as_str())
            && (alert.object == done.path || Some(&alert.object) == done.to.as_ref())
    };
    for done in cases.iter().filter(|done| done.case.expect != Verdict::Allow && counts(done)) {
        let named = |alert: &Alert| done.case.rule.as_ref().is_none_or(|rule| *rule == alert.policy);
        match alerts.iter().position(|alert| fits(done, alert) && named(alert)) {
            Some(index) => drop(alerts.remove(index)),
            None => {
                let other = alerts.iter().find(|alert| fits(done, alert)).map_or("no alert", |alert| alert.line.as_str());
                wrong.insert(done.case.name.clone(), format!("the expected policy raised none: {other}"));
            }
        }
    }
    for done in cases.iter().filter(|done| done.case.expect == Verdict::Allow) {
        let alerting = |other: &&&Done<'_>| other.case.expect != Verdict::Allow && other.path == done.path;
        if let Some(alert) = alerts.iter().find(|alert| fits(done, alert))
            && !cases.iter().any(|other| alerting(&other))
        {
            wrong.insert(done.case.name.clone(), format!("an alert where there should be none: {}", alert.line));
        }
    }
    wrong
}

fn compare(group: &[&Done<'_>], found: &[&Alert]) -> Option<String> {
    let alerting: Vec<_> = group.iter().filter(|done| done.case.expect != Verdict::Allow && counts(done)).collect();
    let most: usize = alerting.iter().map(|done| most(&done.case.op)).sum();
    if found.len() < alerting.len() {
        return Some(format!("{} alerts instead of {}", found.len(), alerting.len()));
    }
    if found.len() > most {
        let first = found.first().map(|alert| alert.line.clone()).unwrap_or_default();
        return Some(format!("{} alerts instead of {}: {first}", found.len(), alerting.len()));
    }
    let names: Vec<String> = found.iter().map(|alert| alert.policy.clone()).collect();
    let missing = alerting.iter().filter_map(|done| done.case.rule.as_ref()).find(|rule| !names.contains(rule))?;
    Some(format!("no alert by {missing}, but by {}", names.join(", ")))
}

/// What never came to the policy raises nothing.
fn counts(done: &Done<'_>) -> bool {
    // A system call is one, whatever comes of it.
    done.free.errno == 0 || done.under.denied() || matches!(done.case.op, Op::Syscall { path: None, .. })
}

/// Some calls are several operations to the kernel: a new file is made and opened, a socket is made and then used.
fn most(op: &Op) -> usize {
    match op {
        Op::File { call: FileCall::Create, .. } => 2,
        Op::Socket(..) => 3,
        Op::Capability(_) => 8,
        _ => 1,
    }
}

fn key_of_case(done: &Done<'_>) -> Key {
    let (class, object) = match &done.case.op {
        Op::File { .. } => ("file", done.path.clone()),
        Op::Exec(_) | Op::ExecDeleted(_) | Op::Memfd => ("process", done.path.clone()),
        Op::Socket(_, socket) => ("network", format!("{},{},{}", socket.family, socket.kind, socket.protocol)),
        Op::Capability(capability) => ("capability", capability.to_string()),
        Op::Syscall { call, .. } => return (class_of_call(call.name()), done.path.clone()),
    };
    (class.to_owned(), object)
}

/// Each call counts for itself.
fn class_of_call(name: &str) -> String {
    format!("syscall {name}")
}

/// Class and operation of the alert of something with two names.
fn told_as(op: &Op) -> (&str, &str) {
    match op {
        Op::Syscall { call, .. } => ("syscall", call.name()),
        _ => ("file", op.name()),
    }
}
