//! The messages by their schema: fields, numbers, names and the order of KubeArmor's JSON.

use prost::encoding::{WireType, encode_key, encode_varint};

use super::*;

const SCHEMA: &str = include_str!("../../../proto/feeder.proto");

/// The order of fields in KubeArmor's JSON, which is not that of their numbers.
const ALERT_ORDER: &str = "Timestamp UpdatedTime ClusterName HostName NamespaceName Owner PodName Labels ContainerID ContainerName \
    ContainerImage HostPPID HostPID PPID PID UID ParentProcessName ProcessName PolicyName Severity Tags ATags Message Type Source \
    Operation Resource Data EventData Enforcer Action Result Cwd TTY MaxAlertsPerSec DroppingAlertsInterval ExecEvent \
    KubeArmorVersion NodeID ProcessHash ParentHash ResourceHash HashAlgo UserName";
const LOG_ORDER: &str = "Timestamp UpdatedTime ClusterName HostName NamespaceName Owner PodName Labels ContainerID ContainerName \
    ContainerImage ParentProcessName ProcessName HostPPID HostPID PPID PID UID Type Source Operation Resource Data EventData \
    Result Cwd TTY ExecEvent NodeID ProcessHash ParentHash ResourceHash HashAlgo UserName";
const MESSAGE_ORDER: &str = "Timestamp UpdatedTime ClusterName HostName HostIP Type Level Message";

/// The fields of a message in the schema: type, name and number.
fn fields(message: &str) -> Vec<(String, String, u32)> {
    let start = SCHEMA.find(&format!("message {message} {{")).unwrap();
    let body = &SCHEMA[start..start + SCHEMA[start..].find('}').unwrap()];
    let field = |line: &str| {
        let (declared, number) = line.trim().strip_suffix(';')?.split_once(" = ")?;
        let (kind, name) = declared.rsplit_once(' ')?;
        Some((kind.to_owned(), name.to_owned(), number.parse().ok()?))
    };
    body.lines().filter_map(field).collect()
}

fn put(buffer: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.extend_from_slice(bytes);
}

/// A message written by hand in which each text is the name of its field and each number the field's.
fn by_hand(message: &str) -> Vec<u8> {
    let mut buffer = Vec::new();
    for (kind, name, number) in fields(message) {
        match kind.as_str() {
            "int32" | "int64" => {
                encode_key(number, WireType::Varint, &mut buffer);
                encode_varint(u64::from(number), &mut buffer);
            }
            "string" | "repeated string" => put(&mut buffer, number, name.as_bytes()),
            "map<string, string>" => {
                let mut pair = Vec::new();
                put(&mut pair, 1, b"Key");
                put(&mut pair, 2, name.as_bytes());
                put(&mut buffer, number, &pair);
            }
            inner => put(&mut buffer, number, &by_hand(inner)),
        }
    }
    buffer
}

/// What the JSON of that is.
fn by_name(message: &str) -> serde_json::Value {
    let value = |kind: &str, name: &str, number: u32| match kind {
        "int32" | "int64" => number.into(),
        "string" => name.into(),
        "repeated string" => vec![name].into(),
        "map<string, string>" => serde_json::json!({ "Key": name }),
        inner => by_name(inner),
    };
    fields(message).iter().map(|(kind, name, number)| (name.clone(), value(kind, name, *number))).collect()
}

fn holds<M: prost::Message + Default + serde::Serialize>(message: &str, order: &str) {
    let bytes = by_hand(message);
    let decoded = M::decode(bytes.as_slice()).unwrap();
    assert_eq!(decoded.encode_to_vec(), bytes, "{message}: as it was written by hand");
    let text = String::from_utf8(line(&decoded)).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), by_name(message), "{message}: every field by its name");
    let names: Vec<&str> = order.split_whitespace().collect();
    assert_eq!(names.len(), fields(message).len());
    let mut from = 0;
    for name in names {
        from += text[from..].find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} is not in its place in {text}"));
    }
}

#[test]
fn messages_have_the_numbers_names_and_order_of_the_schema() {
    holds::<Alert>("Alert", ALERT_ORDER);
    holds::<Log>("Log", LOG_ORDER);
    holds::<Message>("Message", MESSAGE_ORDER);
    assert_eq!(RequestMessage { filter: "all".to_owned() }.encode_to_vec(), b"\x0a\x03all");
    assert_eq!(NonceMessage { nonce: 7 }.encode_to_vec(), ReplyMessage { retval: 7 }.encode_to_vec());
}

#[test]
fn empty_fields_are_left_out_but_for_two() {
    assert_eq!(line(&Alert::default()), br#"{"PPID":0,"UID":0}"#);
    assert_eq!(line(&Log::default()), br#"{"PPID":0,"UID":0}"#);
    assert_eq!(line(&Message::default()), b"{}");
}
