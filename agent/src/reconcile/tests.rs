use std::path::Path;

use portcullis_enforcer::Door;

use super::*;
use crate::fake::{FakeNode, known, policy};

struct Place {
    temporary: tempfile::TempDir,
    node: Arc<FakeNode>,
    inbox: Inbox,
    book: Book,
}

fn place(containers: usize) -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let node = FakeNode::new(temporary.path());
    for number in 0..containers {
        node.let_in(&format!("c{number:03}"), Door::Hook, Some(7));
    }
    let (inbox, book) = start(Arc::clone(&node)).unwrap();
    Place { temporary, node, inbox, book }
}

impl Place {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(Path::join(self.temporary.path(), name), text).unwrap();
    }

    fn reload(&self) -> Result<Outcome, String> {
        let (send, outcome) = oneshot::channel();
        self.inbox.send(Task::Reload(Some(send)));
        outcome.blocking_recv().unwrap()
    }
}

#[test]
fn every_known_container_is_brought_to_what_is_read() {
    let place = place(20);
    assert_eq!(place.node.state().sweeps, 1, "at the start");
    assert_eq!(place.node.state().refreshed.len(), 20);
    place.write("a.yaml", &policy("a"));
    place.write("b.yaml", "kind: [");
    let outcome = place.reload().unwrap();
    assert_eq!((outcome.generation, outcome.policies, outcome.containers, outcome.failed), (2, 1, 20, 0));
    assert!(outcome.problems > 0);
    let mut refreshed = place.node.state().refreshed.split_off(20);
    refreshed.sort();
    assert_eq!(refreshed, (0..20).map(|number| format!("c{number:03}")).collect::<Vec<_>>());
    let page = place.book.page();
    assert_eq!((page.generation, page.policies, page.unreadable), (2, 1, None));
}

#[test]
fn a_failure_is_told_and_tried_again_until_it_succeeds() {
    let place = place(10);
    place.node.state().failing.insert("c003".to_owned(), "the kernel has no room".to_owned());
    assert_eq!(place.reload().unwrap().failed, 1);
    let troubles = place.book.page().troubles;
    assert_eq!((troubles.len(), troubles["c003"].error.as_str(), troubles["c003"].attempts), (1, "the kernel has no room", 1));
    place.node.state().refreshed.clear();
    place.node.eventually("another attempt", |state| state.refreshed == ["c003"]);
    place.node.state().failing.clear();
    place.node.eventually("a third one", |state| state.refreshed.len() == 2);
    let since = Instant::now();
    while !place.book.page().troubles.is_empty() {
        assert!(since.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn policies_that_cannot_be_read_leave_the_former_ones() {
    let place = place(3);
    place.node.state().unreadable = Some("more than 4096 files".to_owned());
    assert_eq!(place.reload().unwrap_err(), "more than 4096 files");
    let page = place.book.page();
    assert_eq!((page.generation, page.unreadable.as_deref()), (1, Some("more than 4096 files")));
    place.node.state().unreadable = None;
    assert_eq!(place.reload().unwrap().generation, 2);
    assert_eq!(place.book.page().unreadable, None);
}

#[test]
fn a_container_leaves_when_its_last_task_has_ended() {
    let place = place(0);
    place.node.state().populated.insert("c1".to_owned());
    place.node.let_in("c1", Door::Nri, Some(7));
    for id in ["c1", "c1", "never-seen"] {
        place.inbox.send(Task::Leave(id.to_owned()));
    }
    place.node.eventually("the unknown one is gone", |state| state.forgotten == ["never-seen"]);
    assert_eq!(place.book.page().leaving, 1);
    assert!(place.node.state().known.contains_key("c1"));
    place.node.state().populated.clear();
    place.node.eventually("the other one too", |state| state.forgotten.len() == 2);
}

#[test]
fn what_runs_is_adopted_and_tried_again_by_what_the_runtime_told() {
    let place = place(0);
    let running = |number: u32| Running { facts: known(&format!("r{number}"), Door::Nri, None).facts, pid: number };
    place.node.state().failing.insert("r5".to_owned(), "no memory".to_owned());
    place.inbox.send(Task::Adopt((0..10).map(running).collect()));
    place.node.eventually("all were tried", |state| state.adopted.len() == 10);
    place.node.eventually("it is tried again", |state| state.adopted.len() == 11);
    assert_eq!(place.node.state().adopted[10], ("r5".to_owned(), 5));
    assert_eq!(place.book.page().troubles["r5"].name, "name-of-r5");
    assert_eq!(place.node.state().known.len(), 9);
}

#[test]
fn a_container_that_turns_up_just_after_a_change_is_looked_at() {
    let place = place(0);
    place.inbox.send(Task::Recorded(["late".to_owned()].into()));
    place.node.eventually("it is", |state| state.refreshed == ["late"]);
}

#[test]
fn many_wishes_are_one_piece_of_work() {
    let place = place(4);
    place.node.state().delay = Duration::from_millis(50);
    let outcomes: Vec<_> = (0..100)
        .map(|_| {
            let (send, outcome) = oneshot::channel();
            place.inbox.send(Task::Reload(Some(send)));
            outcome
        })
        .collect();
    for outcome in outcomes {
        outcome.blocking_recv().unwrap().unwrap();
    }
    let reloads = place.node.state().reloads;
    assert!(reloads <= 4, "{reloads} readings");
}

#[test]
fn results_are_in_the_order_of_what_was_asked() {
    for count in [0, 1, 3, 100] {
        let items: Vec<usize> = (0..count).collect();
        let doubled = each(&items, |item| {
            std::thread::sleep(Duration::from_micros(u64::try_from(item % 7).unwrap() * 50));
            item * 2
        });
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }
}
