use portcullis_policy::meaning::{Action, Class, Location, Object, Origin, Postures, Rule, RuleSet};

use std::collections::BTreeSet;

use super::super::in_kernel::HOST_PID_NAMESPACE;
use super::super::{MAX_WRITTEN_BYTES, Variant, generate};
use super::*;

struct Site {
    _temporary: tempfile::TempDir,
    root: PathBuf,
    profiles: Profiles,
}

/// A host whose kernel is a directory.
fn site() -> Site {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().to_owned();
    let security = root.join("security");
    let proc = root.join("proc");
    fs::create_dir_all(&security).unwrap();
    fs::create_dir_all(proc.join("self/ns")).unwrap();
    std::os::unix::fs::symlink(HOST_PID_NAMESPACE, proc.join("self/ns/pid")).unwrap();
    for file in [".replace", ".remove", "profiles"] {
        fs::write(security.join(file), "").unwrap();
    }
    let host = Profiles::of_host(&root);
    let profiles = Profiles { cache: host.cache, security, proc, parsers: host.parsers };
    Site { _temporary: temporary, root, profiles }
}

fn blocking(path: &str) -> RuleSet {
    let rule = Rule {
        origin: Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "".into(),
            policy: "p".into(),
            file: std::sync::Arc::new("p.yaml".into()),
            line: 1,
            column: 1,
            field: String::new(),
        },
        class: Class::File,
        objects: vec![Object::Path(path.as_bytes().to_vec())],
        sources: Vec::new(),
        read_only: false,
        owner_only: false,
        action: Action::Block,
        severity: 0,
        tags: Vec::new(),
        message: String::new(),
    };
    RuleSet { rules: vec![std::sync::Arc::new(rule)], postures: Postures::default() }
}

fn generated(path: &str) -> Generated {
    generate(&blocking(path), Variant::default()).unwrap()
}

impl Site {
    fn task(&self, pid: u32, tid: u32, current: &str, exec: &str) {
        let attributes = self.profiles.proc.join(format!("{pid}/task/{tid}/attr/apparmor"));
        fs::create_dir_all(&attributes).unwrap();
        fs::write(attributes.join("current"), current).unwrap();
        fs::write(attributes.join("exec"), exec).unwrap();
    }

    fn have(&self, names: &[&str]) {
        let list: String = names.iter().map(|name| format!("{name} (enforce)\n")).collect();
        fs::write(self.profiles.security.join("profiles"), list).unwrap();
    }

    /// A parser that is this shell script.
    fn parser(&mut self, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root.join("parser");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.profiles.parsers = vec![path];
    }
}

#[test]
fn a_set_is_compiled_once() {
    let mut site = site();
    site.parser(r#"echo ran >> "$(dirname "$0")/runs"; while [ "$1" != -o ]; do shift; done; cp "$3" "$2""#);
    let set = generated("/etc/shadow");
    let first = site.profiles.compile(&set).unwrap();
    assert_eq!(first.bytes, set.text.as_bytes());
    assert_eq!(site.profiles.compile(&set).unwrap(), first);
    assert_eq!(fs::read_to_string(site.root.join("runs")).unwrap(), "ran\n");
    site.profiles.compile(&generated("/etc/passwd")).unwrap();
    assert_eq!(fs::read_to_string(site.root.join("runs")).unwrap(), "ran\nran\n");
    let left: Vec<String> = files::list(&site.profiles.cache, 100).unwrap();
    assert!(left.iter().all(|name| name == "features" || name.ends_with(".bin") || name.ends_with(".profile")), "{left:?}");
}

#[test]
fn what_a_set_was_compiled_to_is_found_without_its_text() {
    let mut site = site();
    site.parser(r#"echo ran >> "$(dirname "$0")/runs"; while [ "$1" != -o ]; do shift; done; cp "$3" "$2""#);
    let runs = |site: &Site| fs::read_to_string(site.root.join("runs")).unwrap().lines().count();
    let of = |site: &Site, hash, variant| {
        let mut written = 0;
        let compiled = site.profiles.of_set(hash, variant, || {
            written += 1;
            Ok::<_, StoreError>(generated("/etc/shadow"))
        });
        (written, compiled.unwrap())
    };
    let plain = Variant::default();
    let (written, first) = of(&site, [1, 2], plain);
    assert_eq!((written, first.bytes.as_slice()), (1, generated("/etc/shadow").text.as_bytes()));
    assert_eq!(of(&site, [1, 2], plain), (0, first.clone()));
    // Other rules, or the same written otherwise, may come to the same text: that is compiled once all the same.
    for (hash, variant) in [([2, 1], plain), ([1, 2], Variant { audited: true, ..plain })] {
        assert_eq!(of(&site, hash, variant), (1, first.clone()));
    }
    assert_eq!(runs(&site), 1);
    // What is kept of a set may be damaged, and may name what is not kept any more.
    let names = || files::list(&site.profiles.cache, 100).unwrap().into_iter();
    for name in names().filter(|name| name.ends_with(".set")) {
        fs::write(site.profiles.cache.join(name), "../../etc/x").unwrap();
    }
    assert_eq!((of(&site, [1, 2], plain), of(&site, [1, 2], plain).0), ((1, first.clone()), 0));
    for name in names().filter(|name| name.ends_with(".bin")) {
        fs::remove_file(site.profiles.cache.join(name)).unwrap();
    }
    assert_eq!((of(&site, [1, 2], plain), runs(&site)), ((1, first), 2));
    let error = site.profiles.of_set([9, 9], plain, || Err(StoreError::SeesFewTasks)).unwrap_err();
    assert!(matches!(error, StoreError::SeesFewTasks));
    // Another parser may make something else of it.
    site.parser(r#"while [ "$1" != -o ]; do shift; done; echo other > "$2""#);
    assert_eq!(of(&site, [1, 2], plain).1.bytes, b"other\n");
}

#[test]
fn the_cache_is_bounded() {
    let mut site = site();
    site.parser(r#"while [ "$1" != -o ]; do shift; done; echo "$3" > "$2""#);
    fs::create_dir(&site.profiles.cache).unwrap();
    for number in 0..MAX_CACHED {
        for suffix in ["bin", "set"] {
            fs::write(site.profiles.cache.join(format!("{number}.{suffix}")), "").unwrap();
        }
    }
    site.profiles.of_set([1, 2], Variant::default(), || Ok::<_, StoreError>(generated("/etc/shadow"))).unwrap();
    let left = files::list(&site.profiles.cache, 4 * MAX_CACHED).unwrap();
    for suffix in [".bin", ".set"] {
        assert_eq!(left.iter().filter(|name| name.ends_with(suffix)).count(), MAX_CACHED, "{suffix}");
    }
}

#[test]
fn what_the_parser_says_is_told() {
    let mut site = site();
    site.parser("echo 'syntax error, line 3' >&2; exit 1");
    let error = site.profiles.compile(&generated("/x")).unwrap_err();
    assert!(error.to_string().ends_with(": syntax error, line 3"), "{error}");
    site.parser("exit 7");
    let error = site.profiles.compile(&generated("/x")).unwrap_err();
    assert!(matches!(&error, StoreError::NotAccepted { complaint, .. } if complaint.contains('7')), "{error}");
    site.profiles.parsers.clear();
    assert!(matches!(site.profiles.compile(&generated("/x")), Err(StoreError::NoParser)));
}

#[test]
fn loading_is_one_request() {
    let site = site();
    let compiled = CompiledProfiles { bytes: format!("a{UNNAMED}b{UNNAMED}.1c").into_bytes() };
    let name = ProfileName::of("c1");
    site.profiles.load(&compiled, &name).unwrap();
    assert_eq!(fs::read_to_string(site.profiles.security.join(".replace")).unwrap(), format!("a{name}b{name}.1c"));
    fs::remove_dir_all(&site.profiles.security).unwrap();
    assert!(matches!(site.profiles.load(&compiled, &name), Err(StoreError::NotActive { .. })));
    assert!(matches!(site.profiles.loaded(), Err(StoreError::NotActive { .. })));
}

#[test]
fn only_our_profiles_are_listed() {
    let site = site();
    site.have(&["portcullis.a", "portcullis.a.1", "docker-default", "portcullis"]);
    let expected: BTreeSet<String> = ["portcullis.a", "portcullis.a.1"].map(str::to_owned).into();
    assert_eq!(site.profiles.loaded().unwrap(), expected);
}

#[test]
fn a_profile_that_somebody_has_or_will_have_stays() {
    let site = site();
    site.have(&["portcullis.a", "portcullis.a.1", "portcullis.b", "portcullis.c", "portcullis.d", "other"]);
    site.task(10, 10, "docker-default//&portcullis.a.1 (enforce)\n", "");
    site.task(10, 11, "unconfined\n", "portcullis.b\n");
    let removed = site.profiles.remove_unused(|name| name == "portcullis.c").unwrap();
    assert_eq!(removed, ["portcullis.d"]);
    assert_eq!(fs::read(site.profiles.security.join(".remove")).unwrap(), b"portcullis.d");
}

#[test]
fn tasks_are_counted_for_whose_profiles_they_have() {
    let site = site();
    site.task(10, 10, "docker-default//&portcullis.a.1 (enforce)\n", "portcullis.a\n");
    site.task(10, 11, "portcullis.a (enforce)\n", "");
    site.task(12, 12, "crun//&portcullis.b (mixed)\n", "");
    let carriers = site.profiles.carriers().unwrap();
    assert_eq!(carriers, [("portcullis.a".to_owned(), 2), ("portcullis.b".to_owned(), 1)].into());
}

/// What is compiled under one name and loaded under another is what the parser makes of that other name.
#[test]
fn a_name_can_be_changed_after_compiling() {
    let site = site();
    let mut set = blocking("/k");
    std::sync::Arc::make_mut(&mut set.rules[0]).sources = vec![Location::Path(b"/bin/app".to_vec())];
    let unnamed = generate(&set, Variant::default()).unwrap();
    let name = ProfileName::of("c1");
    let named = Generated { text: unnamed.text.replace(UNNAMED, name.as_str()), ..unnamed.clone() };
    assert_ne!(named.text, unnamed.text);
    assert_eq!(site.profiles.compile(&unnamed).unwrap().named(&name), site.profiles.compile(&named).unwrap().bytes);
}

#[test]
fn nothing_is_removed_where_not_all_tasks_are_seen() {
    let site = site();
    site.have(&["portcullis.d"]);
    let namespace = site.profiles.proc.join("self/ns/pid");
    fs::remove_file(&namespace).unwrap();
    std::os::unix::fs::symlink("pid:[4026532000]", namespace).unwrap();
    assert!(matches!(site.profiles.remove_unused(|_| false), Err(StoreError::SeesFewTasks)));
    assert!(fs::read(site.profiles.security.join(".remove")).unwrap().is_empty());
}

#[test]
fn the_real_parser_takes_hostile_names() {
    let site = site();
    for name in
        ["/a\"b", "/a\n}\nprofile evil {", "/a//&b", "/@{PROC}/x", "/{a,b}", "/a b # c", "/\\", "/\u{fc}*[", "/a,\n  capability,"]
    {
        let set = generated(name);
        assert_eq!(set.text.lines().filter(|line| line.starts_with("profile ")).count(), 1, "{}", set.text);
        site.profiles.compile(&set).unwrap_or_else(|error| panic!("{error}\n{}", set.text));
    }
    for longest in [format!("/{}", "a".repeat(4094)), format!("/{}", "\"".repeat(MAX_WRITTEN_BYTES / 4 - 1))] {
        site.profiles.compile(&generated(&longest)).unwrap();
    }
}

#[test]
fn a_path_that_the_parser_could_not_read_is_refused_with_its_place() {
    let error = generate(&blocking(&format!("/{}", "\"".repeat(4094))), Variant::default()).unwrap_err();
    assert!(error.to_string().starts_with("p.yaml:1: a path or pattern that takes 16378 bytes"), "{error}");
}
