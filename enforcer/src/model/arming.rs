//! Arming and disarming, and what is left when a step of that fails.

use super::*;

#[test]
fn an_armed_container_is_enforced_and_recorded() {
    let site = site();
    let plan = site.enforce(one("/etc/shadow"));
    let armed = site.arm("a", 11, &plan).unwrap();
    assert!(!armed.reused);
    assert!(site.model.blocks(11, "/etc/shadow") && !site.model.blocks(11, "/etc/passwd"));
    assert_eq!(site.model.armed.get(), 1);
    assert_eq!(site.model.waits.get(), 0, "nobody waits for readers at a start");
    let record = site.state.container("a").unwrap().unwrap();
    assert_eq!((record.slot, record.set, record.cgroup_id), (armed.slot, armed.set, 11));
    assert_eq!(site.state.rule_set(plan.hash).unwrap().unwrap(), plan.set);
}

#[test]
fn containers_with_the_same_rules_share_a_set() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let (a, b) = (site.arm("a", 1, &plan).unwrap(), site.arm("b", 2, &plan).unwrap());
    assert_eq!((a.set, b.reused, a.slot != b.slot), (b.set, true, true));
    let other = site.arm("c", 3, &site.enforce(one("/b"))).unwrap();
    assert_ne!(other.set, a.set);
    let model = &site.model;
    assert!(model.blocks(1, "/a") && model.blocks(2, "/a") && model.blocks(3, "/b") && !model.blocks(3, "/a"));
    assert_eq!(model.segments.borrow().len(), 1, "small sets share a segment");
}

/// Whatever write fails, nothing is half armed, and the next attempt succeeds.
#[test]
fn a_failure_at_any_step_leaves_nothing() {
    for fail_at in 1..100 {
        let site = site();
        let plan = site.enforce(one("/a"));
        site.model.fail_at.set(fail_at);
        let armed = site.arm("a", 1, &plan);
        if armed.is_ok() {
            assert!(fail_at > 6, "there are as many steps");
            return;
        }
        assert!(!site.model.blocks(1, "/a"), "write {fail_at}");
        assert!(site.model.cgroups.borrow().is_empty(), "write {fail_at}");
        assert!(site.model.slots.borrow().iter().all(|slot| slot.flags & abi::SLOT_ARMED == 0), "write {fail_at}");
        assert_eq!(site.state.container("a").unwrap(), None, "write {fail_at}");
        site.arm("a", 1, &plan).unwrap();
        assert!(site.model.blocks(1, "/a"), "after write {fail_at}");
        assert_eq!(site.model.armed.get(), 1);
    }
    panic!("arming never succeeded");
}

/// And what was armed for the same container before stays armed.
#[test]
fn a_failed_replacement_leaves_the_old_policy() {
    let mut failures = 0;
    for fail_at in 1..100 {
        let site = site();
        site.arm("a", 1, &site.enforce(one("/old"))).unwrap();
        let before = site.state.container("a").unwrap();
        site.model.writes.set(0);
        site.model.fail_at.set(fail_at);
        if site.arm("a", 1, &site.enforce(one("/new"))).is_err() {
            failures += 1;
            assert!(site.model.blocks(1, "/old"), "write {fail_at}");
            assert_eq!(site.state.container("a").unwrap(), before, "write {fail_at}");
        } else {
            assert!(site.model.blocks(1, "/new") && !site.model.blocks(1, "/old"), "write {fail_at}");
        }
    }
    assert!(failures > 6);
}

/// Whatever write fails, what may still be armed keeps its record, and disarming again ends it.
#[test]
fn a_failed_disarming_can_be_repeated() {
    for fail_at in 1..8 {
        let site = site();
        site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
        site.model.writes.set(0);
        site.model.fail_at.set(fail_at);
        let disarmed = site.disarm("a");
        let armed = site.model.slots.borrow().iter().any(|slot| slot.flags & abi::SLOT_ARMED != 0);
        let there = site.state.container("a").unwrap().is_some();
        assert!(there || !armed, "write {fail_at}");
        if disarmed.is_err() && there {
            site.disarm("a").unwrap();
        }
        assert!(!site.model.blocks(1, "/a") && site.state.container("a").unwrap().is_none(), "write {fail_at}");
        assert!(site.model.cgroups.borrow().is_empty());
        assert_eq!(site.model.armed.get(), 0, "write {fail_at}");
    }
}

#[test]
fn arming_waits_for_the_lock_and_not_for_ever() {
    let site = site();
    let held = site.state.lock().unwrap();
    let state = site.state.clone();
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        state
    });
    site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
    let _held = release.join().unwrap().lock().unwrap();
    assert!(matches!(site.arm("b", 2, &site.enforce(one("/a"))), Err(Error::Locked { .. })));
}

#[test]
fn a_slot_is_another_s_only_when_its_tasks_are_gone() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let first = site.arm("a", 1, &plan).unwrap();
    site.model.cgroups.borrow_mut().insert(99, abi::Cgroup { slot: first.slot, epoch: 1 });
    site.model.set_tasks(first.slot, 2);
    site.disarm("a").unwrap();
    assert!(site.model.cgroups.borrow().is_empty(), "children of its cgroup too");
    assert_eq!(site.model.slot(first.slot).flags, abi::SLOT_DYING);
    assert_eq!((site.model.armed.get(), site.model.waits.get()), (0, 1));
    assert_eq!(site.model.sets.borrow()[first.set as usize].retired_at, 0, "two tasks still need it");

    let second = site.arm("b", 2, &plan).unwrap();
    assert_ne!(second.slot, first.slot);
    site.model.set_tasks(first.slot, 0);
    for slot in 0..abi::MAX_SLOTS {
        if slot != first.slot && slot != second.slot {
            site.model.slots.borrow_mut()[slot as usize].flags = abi::SLOT_ARMED;
        }
    }
    site.model.sees_few.set(true);
    assert!(matches!(site.arm("c", 3, &plan), Err(Error::NoSlot { .. })), "it may have tasks that cannot be seen");
    site.model.sees_few.set(false);
    let third = site.arm("c", 3, &plan).unwrap();
    assert_eq!(third.slot, first.slot);
    assert_eq!(site.model.slot(third.slot).epoch, 2);
    assert!(matches!(site.arm("d", 4, &plan), Err(Error::NoSlot { .. })));
    assert_eq!(site.state.container("d").unwrap(), None);
}

#[test]
fn unused_sets_stay_for_a_while_and_make_room_when_it_is_needed() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let set = site.arm("a", 1, &plan).unwrap().set;
    site.disarm("a").unwrap();
    assert_ne!(site.model.sets.borrow()[set as usize].retired_at, 0);
    let again = site.arm("a", 1, &plan).unwrap();
    assert!(again.reused);
    site.disarm("a").unwrap();
    assert_eq!(site.model.used_sets(), 1);
    // All other entries are taken by sets that nobody retired because nobody ever used them (a crash, say).
    for index in 0..abi::MAX_SETS as usize {
        if index != set as usize {
            site.model.sets.borrow_mut()[index] =
                abi::Set { flags: abi::SET_USED, hash: [1, index as u64], ..abi::Set::default() };
        }
    }
    let other = site.arm("b", 2, &site.enforce(one("/b"))).unwrap();
    assert!(site.model.blocks(2, "/b"));
    assert_eq!(site.model.used_sets(), 1, "all that nobody used is freed: {other:?}");
    sets::sweep(&site.model, u32::MAX).unwrap();
    assert_eq!(site.model.used_sets(), 1, "what is used stays");
}

#[test]
fn system_calls_are_watched_while_a_set_in_use_has_rules_on_them() {
    let site = site();
    let mut rules = one("/a");
    let rule = Arc::make_mut(&mut rules.rules[0]);
    (rule.class, rule.objects) = (Class::Syscall, vec![Object::Syscall { call: "unlink".parse().unwrap(), at: None }]);
    site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
    assert!(!site.model.calls_watched.get(), "nobody needs it");
    let plan = site.enforce(rules);
    site.arm("b", 2, &plan).unwrap();
    site.arm("c", 3, &plan).unwrap();
    site.disarm("b").unwrap();
    assert!(site.model.calls_watched.get(), "c needs it");
    site.disarm("c").unwrap();
    assert!(!site.model.calls_watched.get());
    site.arm("c", 3, &plan).unwrap();
    assert!(site.model.calls_watched.get(), "the set was there already");
    site.model.calls_watched.set(false);
    site.model.fail_at.set(site.model.writes.get() + 1);
    assert!(site.arm("d", 4, &plan).is_err(), "rules that nobody would see are not armed");
    assert!(!site.model.cgroups.borrow().contains_key(&4));
}

#[test]
fn the_set_of_a_plan_may_vanish_before_it_is_armed() {
    let site = site();
    let mut plan = site.enforce(one("/a"));
    plan.form = Form::Tables(None);
    site.arm("a", 1, &plan).unwrap();
    assert!(site.model.blocks(1, "/a"));
}

#[test]
fn a_set_that_fits_no_gap_gets_another_segment() {
    let site = site();
    let paths = |salt: usize| -> Vec<String> { (0..2500).map(|n| format!("/{salt}/{}", n * 7919 % 100_000)).collect() };
    let mut segments = std::collections::BTreeSet::new();
    for salt in 0..14 {
        let armed = site.arm(&format!("c{salt}"), salt as u64, &site.enforce(blocking(&paths(salt)))).unwrap();
        segments.insert(site.model.sets.borrow()[armed.set as usize].segment);
    }
    assert!(segments.len() > 1, "{segments:?}");
    assert!((0..14).all(|salt| site.model.blocks(salt as u64, &paths(salt)[77])));
    let ranges = slots::sets_in_use(&site.model).unwrap();
    assert_eq!(ranges.len(), 14);
}

#[test]
fn ids_that_are_no_file_names_are_refused() {
    let site = site();
    let plan = site.enforce(one("/a"));
    for id in ["", "../x", ".x", "a/b", "a\nb", &"x".repeat(300)] {
        assert!(matches!(site.arm(id, 1, &plan), Err(Error::Id { .. })), "{id:?}");
    }
    assert!(site.model.cgroups.borrow().is_empty());
}

#[test]
fn a_plan_follows_links_and_the_audited_annotation() {
    let site = site();
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
    let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: p\nspec:\n  selector:\n    \
                matchLabels:\n      app: x\n  process:\n    matchPaths:\n    - path: /bin/ls\n  action: Block\n";
    let policies: Vec<_> = parse(Path::new("p.yaml"), text, Options::default()).policies().cloned().collect();
    let mut facts = Site::facts("a");
    facts.labels.insert("app".into(), "x".into());
    let planned = |facts: &ContainerFacts| {
        let directory = std::fs::File::open(root.path()).unwrap();
        let container = Container { facts, root: Some(directory.as_fd()), no_new_privileges: false };
        let form = |set: &RuleSet, hash, _| Ok(Form::Tables(Some(tables(&site.state, set, hash, facts)?)));
        plan(&Config::default(), &policies, &container, form).unwrap()
    };
    let Plan::Enforce(enforce) = planned(&facts) else { panic!("it is selected") };
    let exec = |path: &'static [u8]| Operation::Exec { path: Some(path), unlinked: false };
    let Form::Tables(Some(compiled)) = &enforce.form else { panic!("it is compiled") };
    for path in [&b"/bin/ls"[..], b"/usr/bin/ls"] {
        assert_eq!(compiled.evaluate(None, false, &exec(path)).verdict, Verdict::Block);
    }
    facts.annotations.insert("kubearmor-policy".into(), "audited".into());
    assert!(matches!(planned(&facts), Plan::Enforce(enforce) if enforce.audited));
    facts.annotations.insert("kubearmor-policy".into(), "disabled".into());
    assert!(matches!(planned(&facts), Plan::Untouched { .. }));
    facts.annotations.clear();
    facts.labels.clear();
    assert!(matches!(planned(&facts), Plan::Untouched { policies, .. } if policies.is_empty()));
}
