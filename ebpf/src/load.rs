//! Loading, attaching and pinning the programs; the order of steps is what makes an upgrade free of gaps.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use aya::programs::links::{FdLink, LinkError};
use aya::programs::{Program as AyaProgram, ProgramError};
use aya::{Ebpf, EbpfLoader};

use crate::elf::{self, Elf};
use crate::kallsyms::Locks;
use crate::pins::{self, Place};
use crate::preempt::Preemption;
use crate::programs::{Attach, Host, Ladder, Program, programs};
use crate::{Error, calls, probe, sys};

/// The maps, all pinned by their names.
pub(crate) const MAPS: [&str; 13] = [
    "pc_adoption",
    "pc_alerts",
    "pc_calls_told",
    "pc_cgroups",
    "pc_config",
    "pc_fresh_sb",
    "pc_own_scratch",
    "pc_scratch",
    "pc_segments",
    "pc_sets",
    "pc_slots",
    "pc_stats",
    "pc_tasks",
];

/// `PC_SCRATCH_PER_CPU` of `bpf/maps.h`: decisions that can be under way on one CPU at a time.
const SCRATCH_PER_CPU: u32 = 4;

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How paths are read; by default the best that the kernel offers.
    pub ladder: Option<Ladder>,
    /// Load and attach also what is in force already, then take the old one out: an upgrade to the same build.
    pub anew: bool,
}

/// Compiled programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a> {
    /// The ELF file, aligned.
    pub(crate) bytes: &'a [u8],
    /// Tells builds apart.
    pub(crate) hash: &'a str,
}

/// Loads and attaches what is not yet in force, and says what had to be done for it. `wanted` is every program, but in tests
/// on hosts that refuse some types.
pub(crate) fn load(
    place: &Place,
    object: Object<'_>,
    options: Options,
    wanted: impl Fn(&Program) -> bool,
) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    if place.mount()? {
        notes.push("mounted the BPF file system at /sys/fs/bpf, where the pins live".to_owned());
    }
    let _lock = place.lock()?;
    place.create()?;

    let mut programs = programs(&Elf::parse(object.bytes)?)?;
    programs.retain(wanted);
    if !options.anew
        && let Some(build) = in_force(place, object, options, &programs)?
    {
        place.keep_only(&build)?;
        return Ok(notes);
    }

    if programs.iter().any(|program| matches!(program.attach, Attach::Lsm(_))) {
        probe::require_active_lsm()?;
    }
    let host = Host::read(&programs)?;
    if host.loses_labels() {
        notes.extend(Preemption::now().require_sound()?);
    }
    let (present, absent): (Vec<Program>, Vec<Program>) = programs.into_iter().partition(|p| host.has(p));
    for program in &absent {
        let Some(reason) = program.optional() else {
            return Err(Error::MissingHook { program: program.name.clone(), hook: program.hook().to_owned() });
        };
        notes.push(left_out(program, reason));
    }

    let ladder = options.ladder.unwrap_or_else(|| host.ladder());
    let build = build_name(object, ladder);
    let attached = attach_all(place, object, &host, ladder, &build, &present);
    drop(host);
    sys::return_free_memory();
    if let Err(error) = attached {
        // What was in force stays so; half of something newer beside it would be nobody's intention.
        place.abandon(&build)?;
        return Err(error);
    }
    place.finish(&build)?;
    Ok(notes)
}

/// The sentence about a program whose hook this kernel does not have.
pub(crate) fn left_out(program: &Program, reason: &str) -> String {
    format!("left out {}: this kernel has no hook {} ({reason})", program.name, program.hook())
}

/// Pins all programs in the directory of a build that is begun with it.
fn attach_all(
    place: &Place,
    object: Object<'_>,
    host: &Host,
    ladder: Ladder,
    build: &str,
    present: &[Program],
) -> Result<(), Error> {
    let directory = place.begin(build)?;
    let mut ebpf = open_object(object.bytes, host, ladder, Some(place))?;
    verify(&mut ebpf, &present.iter().collect::<Vec<_>>())?;
    for program in present {
        attach_and_pin(&mut ebpf, program, &directory)?;
    }
    // What the former build watched, this one goes on watching: neither a call nor a build is left out in between.
    if calls::is_watched(place)? {
        calls::watch(&directory)?;
    }
    require_running(&ebpf, present)
}

fn build_name(object: Object<'_>, ladder: Ladder) -> String {
    format!("{}-{}", object.hash, ladder as u32)
}

/// The name of this object's build if all its required programs are pinned. No look at the kernel's type information: this is
/// on the way of every container's start.
fn in_force(place: &Place, object: Object<'_>, options: Options, programs: &[Program]) -> Result<Option<String>, Error> {
    let ladders = [Ladder::Cast, Ladder::Read].into_iter().filter(|l| options.ladder.is_none_or(|wanted| wanted == *l));
    let builds = place.builds()?;
    for build in ladders.map(|ladder| build_name(object, ladder)).filter(|build| builds.contains(build)) {
        let pinned = pins::entries(&place.build(&build))?;
        if programs.iter().all(|program| program.optional().is_some() || pinned.contains(&program.name)) {
            return Ok(Some(build));
        }
    }
    Ok(None)
}

/// Makes the maps, or opens them where they are pinned, and relocates the programs for this kernel.
pub(crate) fn open_object(object: &[u8], host: &Host, ladder: Ladder, place: Option<&Place>) -> Result<Ebpf, Error> {
    let cast = match ladder {
        Ladder::Cast => Some(host.cast().ok_or_else(|| Error::Unsupported {
            reason: "it has no bpf_rdonly_cast".to_owned(),
            fix: "load without choosing how paths are read".to_owned(),
        })?),
        Ladder::Read => None,
    };
    let object = elf::resolve_casts(object, cast)?;
    let (ladder, setattr_args, locks) = (ladder as u32, host.setattr_args(), Locks::find());
    let cpus = sys::possible_cpus().map_err(|error| Error::file("/sys/devices/system/cpu/possible", error))?;
    let scratch = u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(SCRATCH_PER_CPU);
    let mut loader = EbpfLoader::new();
    loader
        .allow_unsupported_maps()
        .override_global("pc_ladder", &ladder, true)
        .override_global("pc_setattr_args", &setattr_args, true)
        .override_global("pc_rename_lock", &locks.rename, true)
        .override_global("pc_mount_lock", &locks.mount, true)
        .map_max_entries("pc_scratch", scratch);
    if let Some(place) = place {
        for map in MAPS {
            loader.map_pin_path(map, place.map(map));
        }
    }
    loader.load(&object).map_err(|error| Error::Maps(Box::new(error)))
}

/// Gives every program to the verifier. That takes most of the time, and the kernel verifies several at once.
pub(crate) fn verify(ebpf: &mut Ebpf, present: &[&Program]) -> Result<(), Error> {
    let btf = aya::Btf::from_sys_fs().map_err(|error| Error::Btf(error.to_string()))?;
    let mut work: Vec<(&Program, &mut AyaProgram)> = ebpf
        .programs_mut()
        .filter_map(|(name, loaded)| present.iter().find(|program| program.name == name).map(|p| (*p, loaded)))
        .collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = work.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let verify_share = |share: &mut [(&Program, &mut AyaProgram)]| {
            share.iter_mut().try_for_each(|(program, loaded)| verify_one(program, loaded, &btf))
        };
        let running: Vec<_> = work.chunks_mut(share).map(|share| scope.spawn(move || verify_share(share))).collect();
        running.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::Object("a thread of the loader ended early".to_owned())))
        })
    })
}

/// The verifier gives up with EAGAIN where its thread has a signal pending, be it one that is ignored: the end of a child that
/// another thread has started will do. libbpf tries as often.
const ATTEMPTS: usize = 5;

fn verify_one(program: &Program, loaded: &mut AyaProgram, btf: &aya::Btf) -> Result<(), Error> {
    let mut result = give(program, loaded, btf)?;
    for _ in 1..ATTEMPTS {
        match &result {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {
                result = give(program, loaded, btf)?;
            }
            _ => break,
        }
    }
    result.map_err(|source| refused(program, source))
}

fn give(program: &Program, loaded: &mut AyaProgram, btf: &aya::Btf) -> Result<Result<(), ProgramError>, Error> {
    Ok(match (&program.attach, loaded) {
        (Attach::Lsm(hook), AyaProgram::Lsm(loaded)) => loaded.load(hook, btf),
        (Attach::Tracepoint(point) | Attach::WhileNeeded(point), AyaProgram::BtfTracePoint(loaded)) => loaded.load(point, btf),
        (Attach::Exit(function), AyaProgram::FExit(loaded)) => loaded.load(function, btf),
        (Attach::Iterator(list), AyaProgram::Iter(loaded)) => loaded.load(list, btf),
        (Attach::OnDemand, AyaProgram::RawTracePoint(loaded)) => loaded.load(),
        _ => {
            return Err(Error::Object(format!("the program {} has another type than its section says", program.name)));
        }
    })
}

fn refused(program: &Program, source: ProgramError) -> Error {
    Error::Program { program: program.name.clone(), source: Box::new(source) }
}

pub(crate) fn attach_and_pin(ebpf: &mut Ebpf, program: &Program, directory: &Path) -> Result<(), Error> {
    let pin: PathBuf = directory.join(&program.name);
    let refused = |source| refused(program, source);
    let link: FdLink = match ebpf.program_mut(&program.name) {
        Some(AyaProgram::Lsm(loaded)) => {
            let id = loaded.attach().map_err(refused)?;
            loaded.take_link(id).map_err(refused)?.into()
        }
        Some(AyaProgram::BtfTracePoint(loaded)) if matches!(program.attach, Attach::WhileNeeded(_)) => {
            return loaded.pin(pin).map_err(|source| Error::Pin { program: program.name.clone(), source });
        }
        Some(AyaProgram::BtfTracePoint(loaded)) => {
            let id = loaded.attach().map_err(refused)?;
            loaded.take_link(id).map_err(refused)?.into()
        }
        Some(AyaProgram::FExit(loaded)) => {
            let id = loaded.attach().map_err(refused)?;
            loaded.take_link(id).map_err(refused)?.into()
        }
        Some(AyaProgram::Iter(loaded)) => {
            let id = loaded.attach().map_err(refused)?;
            let link = loaded.take_link(id).map_err(refused)?;
            link.try_into().map_err(|error: LinkError| Error::Object(format!("{} is no list: {error}", program.name)))?
        }
        Some(AyaProgram::RawTracePoint(loaded)) => {
            return loaded.pin(pin).map_err(|source| Error::Pin { program: program.name.clone(), source });
        }
        _ => {
            return Err(Error::Object(format!("the program {} was not loaded", program.name)));
        }
    };
    link.pin(pin).map(drop).map_err(|source| Error::Pin { program: program.name.clone(), source })
}

/// The self-test: the kernel must have called what was attached. Without `bpf` among the active modules the programs attach
/// and are never run (security/bpf/hooks.c registers the hooks only then), so the list in securityfs, which may not be
/// mounted, is not the proof; a counted run is.
fn require_running(ebpf: &Ebpf, present: &[Program]) -> Result<(), Error> {
    let opens = |program: &&Program| program.attach == Attach::Lsm("file_open".to_owned());
    let Some(program) = present.iter().find(opens) else {
        return Ok(());
    };
    let Some(AyaProgram::Lsm(loaded)) = ebpf.program(&program.name) else {
        return Ok(());
    };
    let fd = loaded.fd().map_err(|source| refused(program, source))?;
    let failed = |error: io::Error| Error::system("counting the runs of a program", error);
    let _counting = sys::enable_run_statistics().map_err(failed)?;
    drop(File::open("/proc/self/stat").map_err(|error| Error::file("/proc/self/stat", error))?);
    let info: sys::ProgInfo = sys::info(std::os::fd::AsFd::as_fd(fd)).map_err(failed)?;
    if info.run_cnt == 0 { Err(Error::NotRunning) } else { Ok(()) }
}
