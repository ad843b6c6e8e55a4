//! Passes over all tasks of the host, which iterators make: giving them labels, and listing the labels that they have.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;

use crate::kernel::ZERO;
use crate::{Error, Kernel, abi};

/// Inode number of the first pid namespace, that of the host (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
pub const FIRST_PID_NS: u32 = 0xefff_fffc;
/// Most bytes that a list of tasks has: 8 for each of the kernel's 4,194,304 (`PID_MAX_LIMIT`, include/linux/threads.h).
const MAX_LIST_BYTES: u64 = 32 << 20;

impl Kernel {
    /// One pass over all tasks of the host: those of the container that have no label get it. The caller holds the lock
    /// that writers of slots hold, and repeats this until a pass labels nobody (`bpf/hooks_adopt.h` says why).
    ///
    /// # Errors
    /// If the program can't be run.
    pub fn adopt(&self, adoption: abi::Adoption) -> Result<abi::Adoption, Error> {
        let failed = |error| Error::system("labelling the tasks of a container", error);
        self.adoption.update(&ZERO, bytemuck::bytes_of(&adoption)).map_err(failed)?;
        self.read_list("pc_adopt", &mut io::sink())?;
        let value = self.adoption.lookup(&ZERO).map_err(failed)?;
        Ok(value.map(|value| bytemuck::pod_read_unaligned(&value)).unwrap_or_default())
    }

    /// The labels of all tasks that have one and have not ended, and how many tasks have each. A task that is born meanwhile may be
    /// missing: one that is missing twice is not there (`bpf/hooks_adopt.h` says why).
    ///
    /// # Errors
    /// If the program can't be run.
    pub fn labels(&self) -> Result<BTreeMap<abi::Label, u32>, Error> {
        let mut list = Vec::new();
        self.read_list("pc_labels", &mut list)?;
        let mut labels = BTreeMap::new();
        for label in list.chunks_exact(size_of::<abi::Label>()).map(bytemuck::pod_read_unaligned) {
            *labels.entry(label).or_default() += 1;
        }
        Ok(labels)
    }

    /// Whether [`Kernel::labels`] tells of all tasks: the kernel lists those of the caller's pid namespace and of those below it.
    #[must_use]
    pub fn sees_all_tasks(&self) -> bool {
        fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == FIRST_PID_NS.into())
    }

    /// Runs the iterator by this name.
    fn read_list(&self, program: &str, to: &mut impl Write) -> Result<(), Error> {
        let build = self.place.builds()?.pop().ok_or(Error::NotLoaded)?;
        let pin = self.place.build(&build).join(program);
        let file = fs::File::open(&pin).map_err(|error| Error::file(&pin, error))?;
        let read = io::copy(&mut file.take(MAX_LIST_BYTES + 1), to).map_err(|error| Error::file(&pin, error))?;
        if read > MAX_LIST_BYTES {
            return Err(Error::Range { what: "bytes of a list of tasks", index: read, limit: MAX_LIST_BYTES });
        }
        Ok(())
    }
}
