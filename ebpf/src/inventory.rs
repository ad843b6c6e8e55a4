//! What is attached and what it takes.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::abi::MAX_SEGMENTS;
use crate::kernel::Kernel;
use crate::pins::{self, Place};
use crate::{Error, calls, sys};

/// A program that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its name.
    pub name: String,
    /// The build that it belongs to. Two builds are attached only during an upgrade.
    pub build: String,
    /// Whether it is attached to a hook; the others run on demand, or wait until they are needed.
    pub attached: bool,
    /// Instructions after verification.
    pub xlated_insns: u32,
    /// Instructions that the verifier looked at (Linux 5.16, else 0).
    pub verified_insns: u32,
    /// Times that the kernel did not run it because it was running already on that CPU. Never a security hook.
    pub missed: u64,
}

/// Bytes of an instruction.
const INSN: u32 = 8;

/// Every program that is pinned in a place.
pub(crate) fn programs_in(place: &Place) -> Result<Vec<ProgramInfo>, Error> {
    let mut list = Vec::new();
    for build in place.builds()? {
        let directory = place.build(&build);
        let names = pins::entries(&directory)?;
        for name in names.iter().filter(|name| *name != calls::LINK) {
            let pin = directory.join(name);
            let failed = |error| Error::file(&pin, error);
            let object = sys::open_pin(&pin).map_err(failed)?;
            let (program, attached) = program_of(object).map_err(failed)?;
            let info: sys::ProgInfo = sys::info(program.as_fd()).map_err(failed)?;
            let watching = name == calls::PROGRAM && names.iter().any(|name| name == calls::LINK);
            list.push(ProgramInfo {
                name: name.clone(),
                build: build.clone(),
                attached: attached || watching,
                xlated_insns: info.xlated_len / INSN,
                verified_insns: info.verified_insns,
                missed: info.recursion_misses,
            });
        }
    }
    Ok(list)
}

impl Kernel {
    /// Every pinned program.
    ///
    /// # Errors
    /// If a pin can't be read.
    pub fn programs(&self) -> Result<Vec<ProgramInfo>, Error> {
        programs_in(&self.place)
    }

    /// Bytes of memory of all maps, segments included.
    ///
    /// # Errors
    /// If a pin can't be read.
    pub fn memory(&self) -> Result<u64, Error> {
        let mut total = 0u64;
        for name in self.place.pinned_maps()? {
            let pin = self.place.map(&name);
            let failed = |error| Error::file(&pin, error);
            let map = sys::open_pin(&pin).and_then(sys::Map::new).map_err(failed)?;
            total += memlock(map.fd()).map_err(failed)?;
            if name == "pc_segments" {
                for index in 0..MAX_SEGMENTS {
                    let id = map.lookup(&index.to_ne_bytes()).map_err(failed)?;
                    let Some(id) = id.and_then(|id| Some(u32::from_ne_bytes(id.try_into().ok()?))) else {
                        continue;
                    };
                    total += memlock(sys::map_by_id(id).map_err(failed)?.as_fd()).map_err(failed)?;
                }
            }
        }
        Ok(total)
    }
}

/// The program behind a pin, which is the program itself or a link to it, as its descriptor says.
pub(crate) fn program_of(object: OwnedFd) -> std::io::Result<(OwnedFd, bool)> {
    let target = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    if target.to_string_lossy().contains("bpf-prog") {
        return Ok((object, false));
    }
    let link: sys::LinkInfo = sys::info(object.as_fd())?;
    Ok((sys::program_by_id(link.prog_id)?, true))
}

/// What the kernel accounts for a map (kernel/bpf/syscall.c `bpf_map_show_fdinfo`).
fn memlock(fd: BorrowedFd<'_>) -> std::io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}
