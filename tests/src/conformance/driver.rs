//! The process that does the cases, and the rules that it needs to be able to: it executes a subject for each case, and a
//! document's own allow-list would forbid that.

use std::fmt;

use portcullis_policy::Selection;
use portcullis_policy::decide::{Operation, Subject, Verdict, decide};
use portcullis_policy::expectation::{Case, Expectation, Op};

use super::call;
use crate::process::Talk;
use crate::runtime::START_LIMIT;
use crate::{Failure, Result};

/// The container's entrypoint.
pub(crate) const DRIVER: &str = "/.portcullis/driver";
/// What the kernel calls it.
pub(crate) const COMM: &str = "driver";
/// Does the cases that name no source.
pub(crate) const SUBJECT: &str = "/probe";

/// What the probe says of one case.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// `op`, or what went wrong before the operation.
    pub stage: String,
    /// 0 or an errno.
    pub errno: i64,
    name: String,
    step: String,
}

impl Answer {
    /// EPERM or EACCES.
    pub(crate) fn denied(&self) -> bool {
        matches!(self.errno, 1 | 13)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stage.as_str(), self.errno) {
            ("op", 0) => f.write_str("done"),
            (stage, _) => write!(f, "{} at {} ({stage})", self.name, self.step),
        }
    }
}

/// The subject of a case.
pub(crate) fn subject(case: &Case) -> Vec<u8> {
    case.source.clone().unwrap_or_else(|| SUBJECT.as_bytes().to_vec())
}

/// The case as the probe reads it.
pub(crate) fn line(number: usize, case: &Case) -> Result<String> {
    let uid = if case.uid == 0 { "-1".to_owned() } else { case.uid.to_string() };
    let mut fields = vec![number.to_string(), escape(&subject(case)), uid];
    match &case.op {
        Op::File { call, path, to } => {
            fields.extend([call.name().to_owned(), escape(path)]);
            fields.extend(to.as_deref().map(escape));
        }
        Op::Exec(path) => fields.extend(["exec".to_owned(), escape(path)]),
        Op::ExecDeleted(path) => fields.extend(["exec-deleted".to_owned(), escape(path)]),
        Op::Memfd => fields.push("memfd".to_owned()),
        Op::Socket(call, socket) => fields.extend([
            call.name().to_owned(),
            socket.family.to_string(),
            socket.kind.to_string(),
            socket.protocol.to_string(),
        ]),
        Op::Capability(capability) => fields.extend(["cap".to_owned(), capability.to_string()]),
        Op::Syscall { call, abi, path, to } => {
            fields.push("syscall".to_owned());
            fields.extend(call::fields(*call, *abi, path.as_deref(), to.as_deref())?);
        }
    }
    Ok(fields.join("\t"))
}

/// Everything but the plainest characters as `%XX`.
pub(super) fn escape(path: &[u8]) -> String {
    path.iter()
        .map(|&byte| match byte {
            b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

/// Asks the probe.
pub(crate) fn ask(probe: &mut dyn Talk, line: &str) -> Result<Answer> {
    probe.tell(line)?;
    let text = probe.line(START_LIMIT)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|_| Failure::Answer { what: "the probe".to_owned(), text: text.clone() })?;
    let field = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    Ok(Answer { stage: field("stage"), errno: json["errno"].as_i64().unwrap_or(-1), name: field("name"), step: field("step") })
}

fn may_execute(selection: &Selection, exe: Option<&str>, path: &[u8]) -> bool {
    let subject = Subject { exe: exe.map(str::as_bytes), owner: true };
    let stranger = Subject { owner: false, ..subject };
    let operation = Operation::Exec { path: Some(path), unlinked: false };
    [subject, stranger].iter().all(|subject| decide(&selection.set, subject, &operation).verdict == Verdict::Allow)
}

/// The policy that lets the driver start its subjects, where the document's policies do not. Each rule is as specific as
/// a rule can be, and holds for the driver alone.
pub(crate) fn policy(document: &Expectation, selection: &Selection, cases: &[&Case]) -> Option<String> {
    let mut subjects: Vec<Vec<u8>> = cases.iter().map(|case| subject(case)).collect();
    subjects.sort();
    subjects.dedup();
    subjects.retain(|path| !may_execute(selection, Some(DRIVER), path));
    let itself = !may_execute(selection, None, DRIVER.as_bytes());
    if subjects.is_empty() && !itself {
        return None;
    }
    let mut rules = String::new();
    for path in subjects.iter().filter_map(|path| std::str::from_utf8(path).ok()) {
        rules.push_str(&format!("      - path: {path:?}\n        fromSource:\n          - path: {DRIVER}\n"));
    }
    if itself {
        rules.push_str(&format!("      - path: {DRIVER}\n"));
    }
    let labels = match document.facts.labels.iter().next() {
        Some((key, value)) => format!("      {key:?}: {value:?}\n"),
        None => format!("      kubearmor.io/container.name: {:?}\n", document.facts.name),
    };
    Some(format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: portcullis-driver\n  namespace: {}\n\
         spec:\n  selector:\n    matchLabels:\n{labels}  process:\n    matchPaths:\n{rules}  action: Allow\n",
        document.facts.namespace
    ))
}

/// Why a case cannot be done under the rules that it is about.
pub(crate) fn hindered(selection: &Selection, case: &Case) -> Option<String> {
    if !may_execute(selection, None, DRIVER.as_bytes()) || !may_execute(selection, Some(DRIVER), &subject(case)) {
        return Some("the rules let no driver start the subject".to_owned());
    }
    if case.uid == 0 {
        return None;
    }
    let exe = subject(case);
    let hinders = ["setuid", "setgid"].into_iter().any(|name| {
        name.parse().is_ok_and(|capability| {
            let subject = Subject { exe: Some(&exe), owner: false };
            decide(&selection.set, &subject, &Operation::Capability(capability)).verdict != Verdict::Allow
        })
    });
    hinders.then(|| "the rules forbid to change the user".to_owned())
}
