use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::writer::Writer;

fn written(value: &impl Serialize) -> String {
    let mut lines = Vec::new();
    value.serialize(&mut Writer(&mut lines)).unwrap();
    String::from_utf8(lines).unwrap()
}

#[derive(Serialize)]
enum Kind {
    Unit,
    New(u8),
    Tuple(u8, i64),
    Named { a: char, b: Option<()> },
}

#[derive(Serialize)]
struct Pair(bool, f64);

#[test]
fn every_shape_is_as_serde_json_has_it() {
    let kinds = [Kind::Unit, Kind::New(1), Kind::Tuple(2, -3), Kind::Named { a: '"', b: Some(()) }];
    let keyed = BTreeMap::from([("a", Pair(true, 1.5)), ("b\n", Pair(false, f64::NAN))]);
    let value = (kinds, keyed, (u64::MAX, i64::MIN), [0.1f32], "", Value::Null, json!({"x": [], "y": {}, "z": -0.5}));
    assert_eq!(written(&value), serde_json::to_string(&value).unwrap());
}

#[test]
fn a_key_that_is_no_text_is_an_error() {
    let error = BTreeMap::from([([1u8], 2)]).serialize(&mut Writer(&mut Vec::new())).unwrap_err();
    assert_eq!(error.to_string(), "the key of a map is no text");
}

#[test]
fn each_byte_is_escaped_wherever_it_stands() {
    for special in (0..=0x7fu8).chain([0x80, 0xff]) {
        for before in 0..20 {
            let text = "x".repeat(before) + &char::from(special).to_string() + "/etc/shadow";
            assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
            assert_eq!(written(&format_args!("{text}")), serde_json::to_string(&text).unwrap());
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_as_serde_json_has_it(value in values()) {
        prop_assert_eq!(written(&value), serde_json::to_string(&value).unwrap());
    }
}
