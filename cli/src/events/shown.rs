//! Events for people: one line each, from the JSON that programs get. Whatever a container chose as a name stays text.

use serde_json::Value;

use crate::output::printable;

/// Columns of a table, and how wide they are at least: what is longer is not cut.
const COLUMNS: [(&str, usize); 6] =
    [("TIME", 24), ("VERDICT", 7), ("CONTAINER", 20), ("OPERATION", 10), ("PROCESS", 24), ("OBJECT", 0)];

/// An event as a sentence.
pub(crate) fn compact(event: &Value) -> String {
    let Parts { time, verdict, container, operation, process, object, policy } = Parts::of(event);
    let what = match is_execution(event) {
        false => format!("{verdict} {container}: {operation} {object}"),
        true => format!("exec {container}: {object}"),
    };
    let policy = if policy.is_empty() { policy } else { format!(" ({policy})") };
    printable(&format!("{time} {what} by {process}{policy}"))
}

/// The first row of a table.
pub(super) fn header() -> String {
    padded(COLUMNS.map(|(name, _)| name.to_owned()))
}

/// An event as a row.
pub(super) fn row(event: &Value) -> String {
    let Parts { time, verdict, container, operation, process, object, policy } = Parts::of(event);
    let object = if policy.is_empty() { object } else { format!("{object} ({policy})") };
    padded([time, verdict, container, operation, process, object].map(|cell| printable(&cell)))
}

fn padded(cells: [String; 6]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Alerts and accesses have a verdict.
fn is_execution(event: &Value) -> bool {
    event["verdict"].is_null()
}

/// What a line says.
struct Parts {
    time: String,
    /// `block` or `audit`, of accesses `passed` or `denied`; nothing of an execution.
    verdict: String,
    container: String,
    operation: String,
    /// Who did it.
    process: String,
    object: String,
    policy: String,
}

impl Parts {
    fn of(event: &Value) -> Parts {
        let process = &event["process"];
        let (process, object) = match is_execution(event) {
            false => (who(process), object(event)),
            true => (who(&process["parent"]), command(process)),
        };
        let policy = match event["rule"]["line"].as_u64() {
            Some(line) => format!("{}:{line}", text(&event["policy"])),
            None => text(&event["policy"]).to_owned(),
        };
        Parts {
            time: milliseconds(text(&event["time"])),
            verdict: text(&event["verdict"]).to_owned(),
            container: container(event),
            operation: text(&event["operation"]).to_owned(),
            process,
            object,
            policy,
        }
    }
}

/// What it was done to, where that is known; how often besides, for the same is not told each time.
fn object(event: &Value) -> String {
    let kind = || text(&event["family"]).to_owned() + " " + text(&event["type"]);
    let mut object = match (event["object"].as_str(), event["family"].is_string()) {
        (Some(object), _) => object.to_owned(),
        (None, true) => kind(),
        (None, false) => "?".to_owned(),
    };
    if let Some(second) = event["secondObject"].as_str() {
        object.extend([" -> ", second]);
    }
    match (event["repeats"].as_u64(), event["repeatsOf"].is_null()) {
        (Some(repeats @ 1..), true) => format!("{object} ({repeats} times before)"),
        (Some(repeats), false) => format!("{object} ({repeats} times more)"),
        _ => object,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// RFC 3339 without its microseconds.
fn milliseconds(time: &str) -> String {
    time.get(..23).map_or_else(|| time.to_owned(), |time| format!("{time}Z"))
}

fn container(event: &Value) -> String {
    let container = &event["container"];
    match (text(&container["namespace"]), text(&container["name"]), event["cgroup"].as_u64()) {
        ("", "", None) => "-".to_owned(),
        ("", "", Some(cgroup)) => format!("cgroup {cgroup}"),
        ("", name, _) => name.to_owned(),
        (namespace, name, _) => format!("{namespace}/{name}"),
    }
}

/// The executable, or how the process calls itself, and its number.
fn who(process: &Value) -> String {
    let Some(pid) = process["pid"].as_u64() else { return "-".to_owned() };
    let name = process["exe"].as_str().or_else(|| process["comm"].as_str()).unwrap_or("?");
    format!("{name}[{pid}]")
}

/// The executable with its arguments.
fn command(process: &Value) -> String {
    let arguments = process["args"].as_array().into_iter().flatten().skip(1).map(text);
    let cut = if process["argsCut"] == true { " …" } else { "" };
    let name = process["exe"].as_str().unwrap_or_else(|| text(&process["comm"]));
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ") + cut
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alert() -> Value {
        json!({
            "schema": "portcullis.alert/1", "time": "2025-12-16T05:37:19.127331Z", "verdict": "block", "operation": "read",
            "object": "/etc/shadow", "policy": "no-shadow", "rule": {"line": 12},
            "container": {"id": "aaaa", "name": "web", "namespace": "shop"},
            "process": {"pid": 4711, "comm": "cat", "exe": "/bin/cat", "args": ["cat", "/etc/shadow"]},
        })
    }

    fn execution() -> Value {
        json!({
            "schema": "portcullis.process/1", "time": "2025-12-16T05:37:19.127331Z", "operation": "exec", "container": null,
            "cgroup": 99, "process": {"pid": 7, "comm": "sh", "exe": "/bin/sh", "args": ["sh", "-c", "id"], "argsCut": true,
            "parent": {"pid": 6, "exe": "/bin/bash"}},
        })
    }

    #[test]
    fn an_event_is_one_sentence() {
        let time = "2025-12-16T05:37:19.127Z";
        assert_eq!(compact(&alert()), format!("{time} block shop/web: read /etc/shadow by /bin/cat[4711] (no-shadow:12)"));
        assert_eq!(compact(&execution()), format!("{time} exec cgroup 99: /bin/sh -c id … by /bin/bash[6]"));
    }

    fn access(more: &Value) -> Value {
        let mut access = json!({
            "schema": "portcullis.access/1", "time": "2025-12-16T05:37:19.127331Z", "operation": "connect", "class": "network",
            "verdict": "passed", "family": "AF_INET", "type": "SOCK_STREAM", "repeats": 0, "container": null, "cgroup": 99,
            "process": {"pid": 7, "comm": "nc", "exe": "/bin/nc"},
        });
        access.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        access
    }

    #[test]
    fn an_access_says_what_came_of_it_and_how_often() {
        let said = |more: Value| compact(&access(&more)).split_once("127Z ").unwrap().1.to_owned();
        assert_eq!(said(json!({"object": "10.0.0.1:80"})), "passed cgroup 99: connect 10.0.0.1:80 by /bin/nc[7]");
        assert_eq!(said(json!({})), "passed cgroup 99: connect AF_INET SOCK_STREAM by /bin/nc[7]");
        let denied = json!({"verdict": "denied", "operation": "rename", "object": "/a", "secondObject": "/b", "repeats": 2});
        assert_eq!(said(denied), "denied cgroup 99: rename /a -> /b (2 times before) by /bin/nc[7]");
        let repeats = json!({"object": "/a", "repeats": 3, "repeatsOf": {"cpu": 0, "sequence": 1}});
        assert_eq!(said(repeats), "passed cgroup 99: connect /a (3 times more) by /bin/nc[7]");
        assert!(row(&access(&json!({"object": "/a"}))).contains("passed   cgroup 99"));
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let mut bare = alert();
        bare["container"] = Value::Null;
        bare["rule"] = Value::Null;
        bare["policy"] = json!("");
        bare["process"] = json!({"pid": 4711, "comm": "cat"});
        assert_eq!(compact(&bare), "2025-12-16T05:37:19.127Z block -: read /etc/shadow by cat[4711]");
        let mut orphan = execution();
        orphan["process"] = json!({"pid": 7, "comm": "sh"});
        assert_eq!(compact(&orphan), "2025-12-16T05:37:19.127Z exec cgroup 99: sh by -");
        assert_eq!(compact(&json!({})), " exec -:  by -");
    }

    #[test]
    fn rows_stand_under_their_header() {
        let (header, row) = (header(), row(&alert()));
        let cells = [("VERDICT", "block"), ("CONTAINER", "shop/web"), ("PROCESS", "/bin/cat["), ("OBJECT", "/etc/shadow (")];
        for (name, cell) in cells {
            assert_eq!(header.find(name), row.find(cell), "{header}\n{row}");
        }
    }

    #[test]
    fn hostile_names_move_no_cursor() {
        let mut hostile = execution();
        hostile["process"]["args"] = json!(["sh", "\u{1b}[2J\n", "\r"]);
        hostile["process"]["parent"]["exe"] = json!("/tmp/\u{7f}\u{9b}");
        for line in [compact(&hostile), row(&hostile)] {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(line.contains(r"\u{1b}[2J\n"), "{line}");
        }
    }
}
