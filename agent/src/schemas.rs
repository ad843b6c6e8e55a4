//! The lines that are written, held to the schemas in `contrib/schemas`.

use jsonschema::Validator;
use portcullis_ebpf::abi::{self, op};
use portcullis_ebpf::monitor::AccessEvent;
use portcullis_ebpf::monitor::abi::{ARGS_CUT, NO_SLOT, PATH_CUT, PATH_OUTSIDE, PATH_UNLINKED};
use portcullis_policy::meaning::Action;
use serde_json::{Value, json};

use crate::alerts::line::SCHEMA;
use crate::control::{EventClass, EventFormat, LOST_SCHEMA, Lost};
use crate::fake;
use crate::kubearmor::tests::{alert, container, facts_of, program, rules};
use crate::logs::line::{ACCESS_SCHEMA, PROCESS_SCHEMA};

const ALERT: &str = include_str!("../../contrib/schemas/portcullis.alert-1.schema.json");
const PROCESS: &str = include_str!("../../contrib/schemas/portcullis.process-1.schema.json");
const ACCESS: &str = include_str!("../../contrib/schemas/portcullis.access-1.schema.json");
const LOST: &str = include_str!("../../contrib/schemas/portcullis.lost-1.schema.json");

fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn validator(text: &str) -> Validator {
    jsonschema::draft202012::new(&schema(text)).unwrap()
}

fn is_valid(validator: &Validator, line: &Value) {
    let wrong: Vec<String> = validator.iter_errors(line).map(|error| format!("{} {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{line}");
}

/// Objects of a line by the names that lead to them, and the line itself.
fn objects<'a>(line: &'a Value, path: &str, found: &mut Vec<(String, Vec<&'a String>)>) {
    if let Value::Object(fields) = line {
        found.push((path.to_owned(), fields.keys().collect()));
        fields.iter().for_each(|(name, value)| objects(value, &format!("{path}/{name}"), found));
    }
}

/// A schema that lets everything pass is none: one field more anywhere, and each that is required less, has to be noticed.
fn is_strict(validator: &Validator, line: &Value, optional: &[&str]) {
    let mut found = Vec::new();
    objects(line, "", &mut found);
    for (path, names) in found {
        let mut more = line.clone();
        more.pointer_mut(&path).unwrap()["surplus"] = json!(1);
        assert!(!validator.is_valid(&more), "{path} may have anything");
        for name in names {
            let mut less = line.clone();
            less.pointer_mut(&path).unwrap().as_object_mut().unwrap().remove(name);
            assert_eq!(validator.is_valid(&less), optional.contains(&name.as_str()), "{path} without {name}");
            let mut other = line.clone();
            other.pointer_mut(&path).unwrap()[name] = json!({ "another": "type" });
            assert!(!validator.is_valid(&other), "{path}/{name} may be anything");
        }
    }
}

const OPTIONAL: [&str; 10] = ["nsPid", "exe", "exeFlags", "args", "argsCut", "cwd", "cwdFlags", "tty", "execId", "parent"];

fn line(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn alerts_are_as_their_schema_says() {
    let schema = validator(ALERT);
    let block = rules("KubeArmorPolicy", Action::Block);
    let all = facts_of(program("/", [PATH_CUT | PATH_UNLINKED, PATH_OUTSIDE, ARGS_CUT]));
    let full = line(&alert(&block, Some(all), |_| {}).written(EventFormat::Json));
    is_valid(&schema, &full);
    is_strict(&schema, &full, &OPTIONAL);
    for operation in (op::READ..=op::RECEIVE).chain(op::EXEC..=op::SYSCALL) {
        for rule in [0, abi::RULE_POSTURE, abi::RULE_GUARD, abi::RULE_ALIAS, abi::RULE_UNRESOLVED, abi::RULE_ORPHAN] {
            let told = alert(&block, None, |event| {
                (event.header.op, event.header.rule) = (operation, rule);
                (event.header.comm, event.path) = ([0xff; 16], vec![0xff, 0x1b, b'\n']);
            });
            is_valid(&schema, &line(&told.written(EventFormat::Json)));
        }
    }
    let mut mixed = full.clone();
    mixed["operation"] = json!("connect");
    assert!(!schema.is_valid(&mixed), "an operation of another class");
}

#[test]
fn executions_are_as_their_schema_says() {
    let schema = validator(PROCESS);
    let full = line(&fake::executed(Some((*container()).clone())).written(EventFormat::Json));
    is_valid(&schema, &full);
    is_strict(&schema, &full, &OPTIONAL);
    let hostile = fake::executed_with(None, |event| {
        (event.exe, event.cwd, event.args) = (vec![0xff; 4095], vec![b'\n'; 4095], vec![0x1b; 4096]);
        (event.header.slot, event.header.uid) = (NO_SLOT, u32::MAX);
    });
    is_valid(&schema, &line(&hostile.written(EventFormat::Json)));
}

#[test]
fn accesses_are_as_their_schema_says() {
    /// What some operations have, and others not.
    const OF_SOME: [&str; 6] = ["object", "objectFlags", "secondObject", "secondObjectFlags", "flags", "mode"];
    let schema = validator(ACCESS);
    let written = |event: &AccessEvent| line(&fake::accessed(Some((*container()).clone()), event).written(EventFormat::Json));
    let mut event = fake::access(op::RENAME, b"/from");
    (event.second, event.header.arg, event.header.result) = (b"/to".to_vec(), [1, 0, 0], 13);
    (event.header.path_flags, event.header.second_flags) = (PATH_CUT, PATH_CUT);
    let full = written(&event);
    is_valid(&schema, &full);
    is_strict(&schema, &full, &[&OPTIONAL[..], &OF_SOME[..]].concat());
    for operation in (op::READ..=op::TRUNCATE).chain([op::RECEIVE]).chain(op::SOCKET..=op::SEND).chain([op::CAPABLE]) {
        for result in [0, 13, u32::MAX] {
            for path in [&b""[..], b"\xff\x1b\n"] {
                let mut event = fake::access(operation, path);
                (event.header.result, event.header.arg) = (result, [u32::MAX; 3]);
                (event.address, event.header.comm) = (path.to_vec(), [0xff; 16]);
                is_valid(&schema, &written(&event));
                event.header.arg = [2, 1, 6];
                is_valid(&schema, &line(&fake::repeated(None, &event).written(EventFormat::Json)));
            }
        }
    }
    let mut silent = full.clone();
    silent.as_object_mut().unwrap().remove("errno");
    assert!(!schema.is_valid(&silent), "denied with nothing");
}

#[test]
fn losses_are_as_their_schema_says() {
    let schema = validator(LOST);
    for class in [EventClass::Alert, EventClass::Process, EventClass::Access] {
        let lost = json!(Lost { schema: LOST_SCHEMA.to_owned(), class, lost: 3 });
        is_valid(&schema, &lost);
        is_strict(&schema, &lost, &[]);
    }
}

#[test]
fn schemas_are_named_as_their_lines_are_and_agree_on_what_they_share() {
    let [alert, process, access, lost] = [ALERT, PROCESS, ACCESS, LOST].map(schema);
    for (schema, name) in [(&alert, SCHEMA), (&process, PROCESS_SCHEMA), (&access, ACCESS_SCHEMA), (&lost, LOST_SCHEMA)] {
        assert_eq!(schema["properties"]["schema"]["const"], name);
        assert_eq!(schema["$id"], format!("urn:portcullis:{name}"));
    }
    assert_eq!(alert["$defs"], process["$defs"]);
    assert_eq!(access["$defs"], process["$defs"]);
}
