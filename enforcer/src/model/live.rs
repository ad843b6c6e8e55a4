//! What switching, adopting and withdrawing make of the tables.

use super::*;
use crate::Refreshed;
use crate::live::{bring_in, withdraw_in};
use crate::{Asks, ContainerRecord, VISIBILITY_ANNOTATION};

impl Site {
    fn bring(&self, id: &str, cgroup_id: u64, plan: &Enforce) -> Result<Refreshed, Error> {
        let (facts, place) = (Site::facts(id), at(cgroup_id));
        bring_in(&self.model, &self.state, plan, &Target { facts: &facts, place: &place, running: true, starting: None })
    }

    fn withdraw(&self, id: &str, cgroup_id: u64) -> Result<Refreshed, Error> {
        let (facts, place) = (Site::facts(id), at(cgroup_id));
        withdraw_in(&self.model, &self.state, &Target { facts: &facts, place: &place, running: true, starting: None })
    }
}

#[test]
fn an_armed_container_is_switched_by_one_store() {
    let site = site();
    let armed = site.arm("a", 11, &site.enforce(one("/old"))).unwrap();
    let old = site.state.container("a").unwrap().unwrap();
    assert_eq!(site.bring("a", 11, &site.enforce(one("/old"))).unwrap(), Refreshed::Unchanged);
    assert_eq!(site.state.container("a").unwrap().unwrap(), old);

    let new = site.enforce(one("/new"));
    assert_eq!(site.bring("a", 11, &new).unwrap(), Refreshed::Switched);
    assert!(site.model.blocks(11, "/new") && !site.model.blocks(11, "/old"));
    let slot = site.model.slot(armed.slot);
    assert_eq!((slot.epoch, slot.generation), (1, 2), "the same tenant with another policy");
    let record = site.state.container("a").unwrap().unwrap();
    assert_eq!((record.slot, record.generation, record.set), (armed.slot, 2, slot.set));
    assert!(!record.adopting);
    // Events of both generations are told by the rules that they were decided by.
    assert_eq!(site.state.rules_in(&record, 1).unwrap().unwrap(), one("/old"));
    assert_eq!(site.state.rules_in(&record, 2).unwrap().unwrap(), one("/new"));
    sets::sweep(&site.model, 7).unwrap();
    assert_eq!(site.model.sets.borrow()[armed.set as usize].retired_at, 7, "nobody needs the old set");
}

/// Whatever write fails, the container has the old policy or the new one, and the next attempt brings the new one.
#[test]
fn a_failed_switch_leaves_one_of_both_policies() {
    let mut failures = 0;
    for fail_at in 1..20 {
        let site = site();
        site.arm("a", 1, &site.enforce(one("/old"))).unwrap();
        site.model.writes.set(0);
        site.model.fail_at.set(fail_at);
        failures += u32::from(site.bring("a", 1, &site.enforce(one("/new"))).is_err());
        let (old, new) = (site.model.blocks(1, "/old"), site.model.blocks(1, "/new"));
        assert!(old != new, "write {fail_at}: {old} {new}");
        site.bring("a", 1, &site.enforce(one("/new"))).unwrap();
        assert!(site.model.blocks(1, "/new") && !site.model.blocks(1, "/old"));
        let record = site.state.container("a").unwrap().unwrap();
        assert_eq!(record.generation, site.model.slot(record.slot).generation, "write {fail_at}");
        assert_eq!(site.state.rules_of(&record).unwrap().unwrap(), one("/new"), "write {fail_at}");
    }
    assert_eq!(failures, 3, "tables, set, slot");
}

#[test]
fn the_audited_annotation_is_switched_too() {
    let site = site();
    let armed = site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
    for audited in [true, false] {
        let plan = Enforce { audited, ..site.enforce(one("/a")) };
        assert_eq!(site.bring("a", 1, &plan).unwrap(), Refreshed::Switched);
        assert_eq!(site.model.slot(armed.slot).flags & abi::SLOT_AUDITED != 0, audited);
        assert_eq!(site.state.container("a").unwrap().unwrap().audited, audited);
    }
}

#[test]
fn a_running_container_is_adopted_until_a_pass_finds_nobody() {
    let site = site();
    *site.model.unlabelled.borrow_mut() = vec![0, 1, 5];
    assert_eq!(site.bring("a", 1, &site.enforce(one("/a"))).unwrap(), Refreshed::Adopted);
    let record = site.state.container("a").unwrap().unwrap();
    assert!(site.model.blocks(1, "/a") && !record.adopting);
    assert_eq!(site.model.tasks.borrow()[&record.slot], 6);
    assert!(site.model.unlabelled.borrow().is_empty());
}

#[test]
fn a_container_whose_init_is_gone_is_not_adopted() {
    let site = site();
    site.model.init_is_gone.set(true);
    assert!(matches!(site.bring("a", 1, &site.enforce(one("/a"))), Err(Error::Place(_))));
    assert!(site.model.cgroups.borrow().is_empty() && site.state.container("a").unwrap().is_none());
}

#[test]
fn an_adoption_that_was_not_finished_is_finished_by_the_next_attempt() {
    let site = site();
    let plan = site.enforce(one("/a"));
    site.model.unlabelled_for_ever.set(2);
    assert!(matches!(site.bring("a", 1, &plan), Err(Error::Unlabelled { failed: 2 })));
    assert!(site.model.blocks(1, "/a"), "who has the label is under the policy");
    assert!(site.state.container("a").unwrap().unwrap().adopting);
    site.model.unlabelled_for_ever.set(0);
    *site.model.unlabelled.borrow_mut() = vec![1; 100];
    assert!(matches!(site.bring("a", 1, &plan), Err(Error::Restless { .. })));
    site.model.unlabelled.borrow_mut().clear();
    assert_eq!(site.bring("a", 1, &plan).unwrap(), Refreshed::Unchanged);
    assert!(!site.state.container("a").unwrap().unwrap().adopting);
}

#[test]
fn a_withdrawn_policy_denies_nothing_and_may_come_again() {
    let site = site();
    assert_eq!(site.withdraw("a", 1).unwrap(), Refreshed::Untouched);
    let plan = site.enforce(one("/a"));
    let armed = site.arm("a", 1, &plan).unwrap();
    site.model.set_tasks(armed.slot, 3);
    assert_eq!(site.withdraw("a", 1).unwrap(), Refreshed::Withdrawn);
    assert_eq!(site.withdraw("a", 1).unwrap(), Refreshed::Unchanged);
    assert!(!site.model.blocks(1, "/a"));
    assert_eq!(site.bring("a", 1, &plan).unwrap(), Refreshed::Switched);
    let slot = site.model.slot(armed.slot);
    assert!(site.model.blocks(1, "/a"));
    assert_eq!(slot.epoch, 1, "its tasks kept their label");
}

/// The same id with another cgroup is another container (`podman restart`).
#[test]
fn a_restarted_container_is_armed_anew() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let before = site.arm("a", 1, &plan).unwrap();
    assert_eq!(site.bring("a", 2, &plan).unwrap(), Refreshed::Adopted);
    let record = site.state.container("a").unwrap().unwrap();
    assert_ne!((record.slot, record.epoch), (before.slot, 1));
    assert!(site.model.blocks(2, "/a") && !site.model.blocks(1, "/a"));
}

#[test]
fn what_a_container_asks_for_is_on_record_also_of_one_that_an_older_version_armed_and_stays_when_it_is_gone() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let mut facts = Site::facts("a");
    facts.annotations.insert(VISIBILITY_ANNOTATION.to_owned(), "file".to_owned());
    let place = at(1);
    let target = Target { facts: &facts, place: &place, running: true, starting: None };
    arm_in(&site.model, &site.state, &plan, &target).unwrap();
    let armed = site.state.container("a").unwrap().unwrap();
    assert_eq!(armed.asks, Some(Asks::of(&facts)));
    assert_ne!(armed.asks, Some(Asks::of(&Site::facts("a"))));
    site.state.write_container(&ContainerRecord { asks: None, ..armed.clone() }).unwrap();
    assert_eq!(bring_in(&site.model, &site.state, &plan, &target).unwrap(), Refreshed::Unchanged);
    assert_eq!(site.state.container("a").unwrap().unwrap().asks, armed.asks);
    site.disarm("a").unwrap();
    assert_eq!(site.state.departed(armed.slot, armed.epoch).unwrap().unwrap().asks, armed.asks);
}
