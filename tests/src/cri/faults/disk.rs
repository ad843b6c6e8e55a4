//! What is wrong with files: the policies, and the disk of the state directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::agent::EFFECT_LIMIT;
use super::{Verdict, World};
use crate::cri::live::{switch, version};
use crate::cri::observer::{FILES, Observer, Seen};
use crate::cri::until;
use crate::guest::{self, COMMAND_LIMIT};
use crate::{Failure, Result, process};

const NOT_YAML: &str = "{ this is: [not a document\n";

/// The last good version stays in force, for what runs and for what starts.
pub(super) fn corrupted(world: &mut World<'_>) -> Result<Verdict> {
    let observer = world.observer("observer")?;
    guest::write(&world.guest.policies.join("live.yaml"), NOT_YAML.as_bytes())?;
    world.agent.settle(world.guest)?;
    let late = world.observer("late")?;
    if let Err(why) = late.end()?.expect([0]) {
        return Ok(Err(format!("a container that started after: {why}")));
    }
    let begin = switch(world.guest, 1)?;
    meets(&observer, 1, begin)?;
    Ok(observer.end()?.expect([0, 1]))
}

fn meets(observer: &Observer, version: u8, since: Duration) -> Result<()> {
    until("the new version", EFFECT_LIMIT, || Ok(Seen::first(&observer.seen(), version, since))).map(|_| ())
}

/// Another directory in the place of the first one.
pub(super) fn replaced(world: &mut World<'_>) -> Result<Verdict> {
    let observer = world.observer("observer")?;
    let policies = &world.guest.policies;
    let (new, old) = (policies.with_extension("new"), policies.with_extension("old"));
    guest::remove_tree(&old)?;
    guest::make_directory(&new)?;
    guest::write(&new.join("live.yaml"), version(1).as_bytes())?;
    let begin = crate::cri::observer::monotonic();
    rename(policies, &old)?;
    rename(&new, policies)?;
    meets(&observer, 1, begin)?;
    // What is watched now is the new one.
    let begin = switch(world.guest, 0)?;
    meets(&observer, 0, begin)?;
    guest::remove_tree(&old)?;
    // Between the two renames there was no directory, which withdraws nothing.
    Ok(observer.end()?.expect([0, 1, 0]))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|source| Failure::io(from.display(), source))
}

/// A policy that is removed is withdrawn, and comes back with its file.
pub(super) fn emptied(world: &mut World<'_>) -> Result<Verdict> {
    let observer = world.observer("observer")?;
    let read = || observer.container.exec(&["/bin/cat", FILES[0]]);
    if read()?.success() {
        return Ok(Err("the policy was not in force".to_owned()));
    }
    world.guest.put_policies(&[])?;
    until("the policy's withdrawal", EFFECT_LIMIT, || Ok(read()?.success().then_some(())))?;
    world.policies()?;
    until("the policy's return", EFFECT_LIMIT, || Ok((!read()?.success()).then_some(())))?;
    world.recovered()
}

/// A small file system over the state directory, full.
struct FullDisk(PathBuf);

impl FullDisk {
    fn mount(place: &Path) -> Result<Self> {
        guest::make_directory(place)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]).arg(place);
        process::must(&mut mount, b"", COMMAND_LIMIT)?;
        Ok(Self(place.to_owned()))
    }

    fn file(&self) -> PathBuf {
        self.0.join("fills-the-disk")
    }

    /// Writes until there is no room for another byte.
    fn fill(&self) -> Result<()> {
        match std::fs::write(self.file(), vec![0; 1 << 20]) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            other => Err(Failure::Answer { what: "a full disk".to_owned(), text: format!("{other:?}") }),
        }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = process::run(Command::new("umount").arg("-l").arg(&self.0), b"", COMMAND_LIMIT);
    }
}

/// Without room for the records of a container it may start protected or not at all.
pub(super) fn full(world: &mut World<'_>) -> Result<Verdict> {
    world.agent.stop();
    let disk = FullDisk::mount(Path::new(crate::cri::STATE))?;
    let verdict = on_full_disk(world, &disk);
    world.agent.stop();
    drop(disk);
    world.agent.launch(world.guest)?;
    verdict
}

fn on_full_disk(world: &mut World<'_>, disk: &FullDisk) -> Result<Verdict> {
    world.agent.launch(world.guest)?;
    world.agent.settle(world.guest)?;
    disk.fill()?;
    let ended = world.starts.complete(&world.attack("attack"))?;
    if let Err(why) = world.held(&ended)? {
        return Ok(Err(why));
    }
    guest::remove_tree(&disk.file())?;
    world.recovered()
}
