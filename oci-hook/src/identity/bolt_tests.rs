//! A database that podman 4.3.1 wrote (two containers, "web" with labels and "plain" without, cut at its last page in use),
//! trees with branch pages made here, and files made to harm.

use std::io::{Seek, Write};

use proptest::prelude::*;

use super::*;

const WEB: &[u8] = b"6e33e03227cca6c7c48e0bf840ee0008e16ecf8de6efadf37d7e98fa351b32f0";
const PLAIN: &[u8] = b"d4c0765bc591084df2d9b6712210e493f8d9aa4e7adbd07f7d6fb916a399d510";
static PODMAN: &[u8] = include_bytes!("../../tests/data/podman-4.3-bolt_state.db");

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn config(file: &File, id: &[u8]) -> Result<Option<Vec<u8>>, BoltError> {
    lookup(file, &[b"ctr", id], b"config")
}

#[test]
fn podmans_own_file_is_read() {
    let file = file(PODMAN);
    for (id, name, labels) in [(WEB, "web", 2), (PLAIN, "plain", 0)] {
        let json: serde_json::Value = serde_json::from_slice(&config(&file, id).unwrap().unwrap()).unwrap();
        assert_eq!(json["name"], name);
        assert_eq!(json["labels"].as_object().map_or(0, serde_json::Map::len), labels);
    }
    assert_eq!(config(&file, b"6e33").unwrap(), None);
    assert_eq!(config(&file, b"").unwrap(), None);
    assert_eq!(lookup(&file, &[b"nothing"], b"config").unwrap(), None);
    assert!(matches!(lookup(&file, &[], b"ctr"), Err(BoltError::Damaged("a bucket where a value should be"))));
    assert!(matches!(
        lookup(&file, &[b"ctr", WEB, b"config"], b"x"),
        Err(BoltError::Damaged("a value where a bucket should be"))
    ));
}

#[test]
fn what_is_no_database_is_an_error() {
    for bytes in [b"".as_slice(), b"SQLite format 3\0", &[0; 8192], &PODMAN[..60], &PODMAN[8192..]] {
        assert!(matches!(config(&file(bytes), WEB), Err(BoltError::Damaged("no valid meta page"))));
    }
    // Cut short: a page is missing.
    assert!(config(&file(&PODMAN[..3 * 4096]), WEB).is_err());
}

#[test]
fn one_damaged_meta_page_leaves_the_other() {
    let transaction = |bytes: &[u8]| Reader::open(&file(bytes)).map(|reader| reader.transaction);
    let newest = transaction(PODMAN).unwrap();
    let mut seen = Vec::new();
    for page in 0..2 {
        let mut bytes = PODMAN.to_vec();
        bytes[page * 4096 + PAGE_HEADER + 20] ^= 1;
        seen.push(transaction(&bytes).unwrap());
        bytes[(1 - page) * 4096 + PAGE_HEADER + 20] ^= 1;
        assert!(transaction(&bytes).is_err());
    }
    seen.sort_unstable();
    assert_eq!(seen, [newest - 1, newest]);
}

/// A file of pages: two metas, then these, of which the first is the root.
fn made(pages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 0..2u64 {
        let mut meta = Vec::new();
        for word in [MAGIC, VERSION, 4096, 0] {
            meta.extend(word.to_le_bytes());
        }
        for word in [2, 0, 0, 2 + pages.len() as u64, 5 + id] {
            meta.extend(word.to_le_bytes());
        }
        meta.extend(fnv1a(&meta).to_le_bytes());
        bytes.extend(page(id, 4, 0, &meta));
    }
    bytes.extend(pages.concat());
    bytes
}

fn page(id: u64, flags: u16, count: u16, content: &[u8]) -> Vec<u8> {
    let mut page = id.to_le_bytes().to_vec();
    page.extend(flags.to_le_bytes());
    page.extend(count.to_le_bytes());
    page.extend(0u32.to_le_bytes());
    page.extend(content);
    page.resize(4096, 0);
    page
}

fn leaf_page(id: u64, entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (mut elements, mut data) = (Vec::new(), Vec::<u8>::new());
    for (index, (key, value)) in entries.iter().enumerate() {
        let position = (entries.len() - index) * ELEMENT + data.len();
        for word in [0, position as u32, key.len() as u32, value.len() as u32] {
            elements.extend(word.to_le_bytes());
        }
        data.extend([*key, *value].concat());
    }
    elements.extend(data);
    page(id, LEAF, entries.len() as u16, &elements)
}

fn branch_page(id: u64, children: &[(&[u8], u64)]) -> Vec<u8> {
    let (mut elements, mut data) = (Vec::new(), Vec::<u8>::new());
    for (index, (key, child)) in children.iter().enumerate() {
        let position = (children.len() - index) * ELEMENT + data.len();
        elements.extend((position as u32).to_le_bytes());
        elements.extend((key.len() as u32).to_le_bytes());
        elements.extend(child.to_le_bytes());
        data.extend(*key);
    }
    elements.extend(data);
    page(id, BRANCH, children.len() as u16, &elements)
}

#[test]
fn branches_lead_to_the_right_leaf() {
    let file = file(&made(&[
        branch_page(2, &[(b"b", 3), (b"m", 4)]),
        leaf_page(3, &[(b"b", b"1"), (b"c", b"2")]),
        leaf_page(4, &[(b"m", b"3"), (b"z", b"4")]),
    ]));
    for (key, value) in
        [("b", Some("1")), ("c", Some("2")), ("m", Some("3")), ("z", Some("4")), ("a", None), ("d", None), ("zz", None)]
    {
        let found = lookup(&file, &[], key.as_bytes()).unwrap();
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
    }
}

#[test]
fn a_tree_that_leads_back_to_itself_ends() {
    let file = file(&made(&[branch_page(2, &[(b"a", 2)])]));
    assert!(matches!(lookup(&file, &[], b"k"), Err(BoltError::Damaged("the tree is too deep"))));
}

#[test]
fn a_page_that_claims_gigabytes_is_refused_before_they_are_allocated() {
    let mut root = branch_page(2, &[(b"a", 2)]);
    root[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(lookup(&file(&made(&[root])), &[], b"k"), Err(BoltError::TooMuch)));
}

#[test]
fn a_page_id_out_of_range_is_refused() {
    for id in [0, 1, 3, u64::MAX, u64::MAX / 4096 + 1] {
        let file = file(&made(&[branch_page(2, &[(b"a", id)])]));
        assert!(matches!(lookup(&file, &[], b"k"), Err(BoltError::Damaged("a page id out of range"))), "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed behind the meta pages: an answer or an error, never a panic, never without end.
    #[test]
    fn mutated_files_do_no_harm(changes in prop::collection::vec((8192usize..PODMAN.len(), any::<u8>()), 1..200)) {
        let mut bytes = PODMAN.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        drop(config(&file(&bytes), WEB));
    }

    /// The same where it hurts most: headers and elements at the beginning of pages.
    #[test]
    fn mutated_page_heads_do_no_harm(changes in prop::collection::vec((2usize..14, 0usize..96, any::<u8>()), 1..40)) {
        let mut bytes = PODMAN.to_vec();
        for (page, at, value) in changes {
            bytes[page * 4096 + at] = value;
        }
        drop(config(&file(&bytes), WEB));
    }

    /// A valid meta page over pages of noise.
    #[test]
    fn noise_does_no_harm(noise in prop::collection::vec(any::<u8>(), 64..4096), flags in 0u16..4, count in any::<u16>()) {
        drop(lookup(&file(&made(&[page(2, flags, count, &noise[..noise.len().min(4080)])])), &[b"ctr"], b"config"));
    }
}
