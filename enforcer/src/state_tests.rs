use super::*;

#[test]
fn records_are_counted_without_what_is_being_written() {
    let temporary = tempfile::tempdir().unwrap();
    let state = StateDir::at(temporary.path());
    assert_eq!(state.count_known().unwrap(), 0);
    std::fs::create_dir(state.known_dir()).unwrap();
    for name in ["a.json", "b.json", ".c.json", "d"] {
        std::fs::write(state.known_dir().join(name), b"{}").unwrap();
    }
    assert_eq!(state.count_known().unwrap(), 2);
}
#[test]
fn a_damaged_record_is_told_and_the_others_are_listed() {
    let temporary = tempfile::tempdir().unwrap();
    let state = StateDir::at(temporary.path());
    state.create().unwrap();
    let record = |id: &str| Unprotected { id: id.to_owned(), name: "web".to_owned(), reason: "r".to_owned(), at: 1 };
    state.write_unprotected(&record("a")).unwrap();
    assert!(state.damaged().unwrap().is_empty());
    for kind in ["containers", "known", "unprotected"] {
        std::fs::write(temporary.path().join(kind).join("bad.json"), b"{\"id\": ").unwrap();
    }
    assert_eq!(state.unprotected().unwrap().len(), 1);
    let told: Vec<String> = state.damaged().unwrap().iter().map(Error::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|text| text.contains("bad.json")), "{told:?}");
}
