//! That every line is the one of serde_json.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::{line, write};

#[derive(Serialize)]
enum Word {
    Alone,
    Of(u32),
    With { number: u32 },
}

#[derive(Serialize)]
struct All<'a> {
    text: &'a str,
    letter: char,
    numbers: (u8, i8, u64, i64),
    nothing: Option<u32>,
    unit: (),
    words: [Word; 2],
    #[serde(flatten)]
    map: BTreeMap<&'a str, bool>,
    left_to_others: Vec<Word>,
    fraction: Option<f64>,
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~\\x00-\\x1f\"\\\\\u{7f}\u{2028}]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

#[test]
fn lines_are_those_of_serde_json() {
    let with = |left_to_others, fraction| All {
        text: "a\"b\\c\n\u{1}\u{1f}é\u{7f}",
        letter: '\t',
        numbers: (255, -128, u64::MAX, i64::MIN),
        nothing: None,
        unit: (),
        words: [Word::Alone, Word::Alone],
        map: BTreeMap::from([("x\ny", true)]),
        left_to_others,
        fraction,
    };
    for all in [
        with(Vec::new(), None),
        with(vec![Word::Of(7)], None),
        with(vec![Word::With { number: 7 }], None),
        with(Vec::new(), Some(0.5)),
    ] {
        let mut lines = b"before ".to_vec();
        write(&mut lines, &all);
        assert_eq!(lines, [&b"before "[..], &serde_json::to_vec(&all).unwrap()].concat());
    }
    assert_eq!(line(&format_args!("{}\"{}", 1, 2)), b"\"1\\\"2\"");
}

#[test]
fn every_byte_is_escaped_wherever_it_is() {
    for byte in 0..=0x7f_u8 {
        for at in 0..20 {
            let mut text = "é".repeat(10).into_bytes();
            text.splice(2 * (at / 2)..2 * (at / 2), std::iter::repeat_n(byte, 1 + at % 2));
            let text = String::from_utf8(text).unwrap();
            assert_eq!(line(&text), serde_json::to_vec(&text).unwrap(), "{byte} at {at}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_it_is_serde_json_would_write_the_same(value in values()) {
        prop_assert_eq!(line(&value), serde_json::to_vec(&value).unwrap());
    }
}
