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

/// What alerts are counted by: the kind of the object, and the object.
type Key = (String, String);

/// What is wrong, by the case's name.
pub(super) fn judge(done: &[Done<'_>], alerts: &[Alert]) -> BTreeMap<String, String> {
    let mut raised: BTreeMap<Key, Vec<&Alert>> = BTreeMap::new();
    for alert in alerts.iter().filter(|alert| alert.comm != driver::COMM) {
        raised.entry((alert.class.clone(), alert.object.clone())).or_default().push(alert);
    }
    let mut groups: BTreeMap<Key, Vec<&Done<'_>>> = BTreeMap::new();
    for done in done {
        groups.entry(key_of_case(done)).or_default().push(done);
    }
    let mut wrong = BTreeMap::new();
    for (key, group) in &groups {
        let found = raised.get(key).map(Vec::as_slice).unwrap_or_default();
        if let Some(why) = compare(group, found) {
            for done in group {
                wrong.insert(done.case.name.clone(), why.clone());
            }
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
    done.free.errno == 0 || done.under.denied()
}

/// Some calls are several operations to the kernel: a new file is made and opened, a socket is made and then used.
fn most(op: &Op) -> usize {
    match op {
        Op::File { call: FileCall::Create | FileCall::Rename | FileCall::Link, .. } => 2,
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
    };
    (class.to_owned(), object)
}
