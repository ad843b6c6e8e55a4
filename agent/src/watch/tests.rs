use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::*;

/// Long enough for a change to be told under load.
const SOON: Duration = Duration::from_secs(5);
/// Long enough to believe that nothing is told.
const QUIET: Duration = Duration::from_millis(300);

struct Place {
    temporary: tempfile::TempDir,
    changes: Receiver<Change>,
    _watch: Watch,
}

impl Place {
    /// Watches `policies`, after `prepare` has made of it what it likes.
    fn new(prepare: impl FnOnce(&Path)) -> Place {
        let temporary = tempfile::tempdir().unwrap();
        prepare(temporary.path());
        fs::create_dir(temporary.path().join("known")).unwrap();
        let (send, changes) = channel();
        let (policies, known) = (temporary.path().join("etc/policies"), temporary.path().join("known"));
        let watch = Watch::start(&policies, &known, move |change| drop(send.send(change))).unwrap();
        Place { temporary, changes, _watch: watch }
    }

    fn with_directory() -> Place {
        Place::new(|root| fs::create_dir_all(root.join("etc/policies")).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn told(&self) -> Change {
        self.changes.recv_timeout(SOON).unwrap()
    }

    fn policies_told(&self) {
        assert_eq!(self.told(), Change::Policies);
    }

    fn nothing_told(&self) {
        assert_eq!(self.changes.recv_timeout(QUIET), Err(RecvTimeoutError::Timeout));
    }
}

#[test]
fn a_file_that_is_written_is_told_once_when_it_is_closed() {
    use std::io::Write;
    let place = Place::with_directory();
    let mut file = fs::File::create(place.path("etc/policies/a.yaml")).unwrap();
    // The empty file is a change of its own.
    place.policies_told();
    for _ in 0..4 {
        file.write_all(b"half").unwrap();
        std::thread::sleep(Duration::from_millis(70));
    }
    assert!(place.changes.try_recv().is_err(), "told while it is open for writing");
    drop(file);
    place.policies_told();
    place.nothing_told();
}

#[test]
fn a_file_that_is_kept_open_is_told_after_a_while() {
    use std::io::Write;
    let place = Place::with_directory();
    let mut file = fs::File::create(place.path("etc/policies/a.yaml")).unwrap();
    file.write_all(b"x").unwrap();
    place.policies_told();
    drop(file);
}

#[test]
fn what_is_put_in_place_while_another_file_is_written_is_told_soon() {
    use std::io::Write;
    let place = Place::with_directory();
    let mut swap = fs::File::create(place.path("etc/policies/.a.yaml.swp")).unwrap();
    fs::write(place.path("etc/policies/.new"), "x").unwrap();
    swap.write_all(b"kept open").unwrap();
    fs::rename(place.path("etc/policies/.new"), place.path("etc/policies/a.yaml")).unwrap();
    let since = Instant::now();
    place.policies_told();
    assert!(since.elapsed() < Duration::from_millis(700), "{:?}", since.elapsed());
    drop(swap);
}

#[test]
fn what_editors_do_is_told_once() {
    let place = Place::with_directory();
    fs::write(place.path("etc/policies/a.yaml"), "old").unwrap();
    place.policies_told();
    // vim: a swap file, the old file renamed to a backup, the new one written, the backup removed.
    fs::write(place.path("etc/policies/.a.yaml.swp"), "x").unwrap();
    fs::rename(place.path("etc/policies/a.yaml"), place.path("etc/policies/a.yaml~")).unwrap();
    fs::write(place.path("etc/policies/a.yaml"), "new").unwrap();
    fs::remove_file(place.path("etc/policies/a.yaml~")).unwrap();
    fs::remove_file(place.path("etc/policies/.a.yaml.swp")).unwrap();
    place.policies_told();
    // Others write beside it and rename into place.
    fs::write(place.path("etc/policies/.a.tmp"), "newer").unwrap();
    fs::rename(place.path("etc/policies/.a.tmp"), place.path("etc/policies/a.yaml")).unwrap();
    place.policies_told();
    place.nothing_told();
}

#[test]
fn what_is_no_policy_is_not_told() {
    let place = Place::with_directory();
    fs::write(place.path("etc/policies/readme.txt"), "x").unwrap();
    fs::write(place.path("etc/policies/.hidden.yaml"), "x").unwrap();
    fs::write(place.path("etc/other"), "x").unwrap();
    place.nothing_told();
}

#[test]
fn files_removed_one_by_one_or_all_at_once_are_told() {
    let place = Place::with_directory();
    for name in ["a", "b", "c"] {
        fs::write(place.path(&format!("etc/policies/{name}.yaml")), "x").unwrap();
    }
    place.policies_told();
    for name in ["a", "b", "c"] {
        fs::remove_file(place.path(&format!("etc/policies/{name}.yaml"))).unwrap();
    }
    place.policies_told();
    place.nothing_told();
}

#[test]
fn the_directory_may_come_go_and_be_replaced() {
    let place = Place::new(|_| {});
    fs::create_dir_all(place.path("etc/policies")).unwrap();
    fs::write(place.path("etc/policies/a.yaml"), "x").unwrap();
    place.policies_told();
    fs::create_dir_all(place.path("new")).unwrap();
    fs::write(place.path("new/a.yaml"), "y").unwrap();
    fs::rename(place.path("etc/policies"), place.path("etc/old")).unwrap();
    fs::rename(place.path("new"), place.path("etc/policies")).unwrap();
    place.policies_told();
    fs::write(place.path("etc/old/a.yaml"), "nobody's").unwrap();
    place.nothing_told();
    fs::write(place.path("etc/policies/a.yaml"), "z").unwrap();
    place.policies_told();
    fs::remove_dir_all(place.path("etc")).unwrap();
    place.policies_told();
    fs::create_dir_all(place.path("etc/policies")).unwrap();
    std::thread::sleep(QUIET);
    fs::write(place.path("etc/policies/b.yaml"), "x").unwrap();
    place.policies_told();
}

#[test]
fn a_directory_that_is_made_again_is_watched_though_it_has_the_same_inode() {
    let place = Place::with_directory();
    for round in 0..5 {
        fs::remove_dir_all(place.path("etc/policies")).unwrap();
        fs::create_dir(place.path("etc/policies")).unwrap();
        fs::write(place.path("etc/policies/a.yaml"), format!("{round}")).unwrap();
        place.policies_told();
        place.nothing_told();
        fs::write(place.path("etc/policies/.new"), format!("{round} again")).unwrap();
        fs::rename(place.path("etc/policies/.new"), place.path("etc/policies/a.yaml")).unwrap();
        place.policies_told();
    }
}

#[test]
fn links_may_be_switched() {
    let place = Place::new(|root| {
        for (version, text) in [("v1", "one"), ("v2", "two"), ("v3", "three")] {
            fs::create_dir_all(root.join(version)).unwrap();
            fs::write(root.join(version).join("a.yaml"), text).unwrap();
        }
        fs::create_dir(root.join("etc")).unwrap();
        symlink(root.join("v1"), root.join("etc/policies")).unwrap();
    });
    // The directory is a link.
    symlink(place.path("v2"), place.path("etc/next")).unwrap();
    fs::rename(place.path("etc/next"), place.path("etc/policies")).unwrap();
    place.policies_told();
    fs::write(place.path("v2/a.yaml"), "two and a half").unwrap();
    place.policies_told();
    // As kubelet projects a ConfigMap: names are links through `..data`, which is switched.
    fs::create_dir(place.path("v2/..v1")).unwrap();
    fs::create_dir(place.path("v2/..v2")).unwrap();
    fs::write(place.path("v2/..v1/b.yaml"), "1").unwrap();
    fs::write(place.path("v2/..v2/b.yaml"), "2").unwrap();
    symlink("..v1", place.path("v2/..data")).unwrap();
    symlink("..data/b.yaml", place.path("v2/b.yaml")).unwrap();
    place.policies_told();
    symlink("..v2", place.path("v2/..data_tmp")).unwrap();
    fs::rename(place.path("v2/..data_tmp"), place.path("v2/..data")).unwrap();
    place.policies_told();
}

#[test]
fn records_are_told_by_id_and_together() {
    let place = Place::with_directory();
    for id in ["c1", "c2", "c3"] {
        fs::write(place.path(&format!("known/.{id}.tmp")), "{}").unwrap();
        fs::rename(place.path(&format!("known/.{id}.tmp")), place.path(&format!("known/{id}.json"))).unwrap();
    }
    let ids = |ids: &[&str]| Change::Known(ids.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(place.told(), ids(&["c1", "c2", "c3"]));
    fs::remove_file(place.path("known/c1.json")).unwrap();
    assert_eq!(place.told(), Change::Left(["c1".to_owned()].into()));
    place.nothing_told();
}

#[test]
fn it_ends_when_dropped() {
    let Place { changes, _watch: watch, .. } = Place::with_directory();
    drop(watch);
    assert_eq!(changes.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
}
