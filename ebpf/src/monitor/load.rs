//! Loading the monitor's programs. An upgrade attaches the new ones silent, lets them speak with one store, and only then takes out
//! the old: nothing is missed.

use aya::{Ebpf, EbpfLoader};

use super::{Watch, abi};
use crate::elf::Elf;
use crate::kallsyms::Locks;
use crate::kernel::open_map;
use crate::load::{Object, attach_and_pin, left_out, verify};
use crate::pins::{self, Place};
use crate::programs::{Attach, Host, Program, programs};
use crate::{Error, sys};

/// The maps that are the monitor's own, all pinned by their names.
pub(crate) const MAPS: [&str; 8] = [
    "pc_mon_access",
    "pc_mon_config",
    "pc_mon_ended",
    "pc_mon_override",
    "pc_mon_process",
    "pc_mon_repeats",
    "pc_mon_scratch",
    "pc_mon_stats",
];

/// The map that belongs to enforcement and says whose a task is. Whichever is loaded first makes it.
pub(crate) const SHARED: &str = "pc_tasks";

/// What differs from the compiled object; tests have smaller rings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    /// Bytes of each ring: a power of two, and whole pages.
    pub(crate) rings: Option<u32>,
}

/// Loads what is not yet in force, and says what this kernel has no place for. `place` is that of enforcement.
pub(crate) fn load(place: &Place, object: Object<'_>, sizes: Sizes, watch: Watch) -> Result<Vec<String>, Error> {
    let own = place.monitor();
    place.mount()?;
    let _loading = place.lock_loading()?;
    let mut lock = Some(place.lock()?);
    place.create()?;
    own.create()?;
    let mut programs = programs(&Elf::parse(object.bytes)?)?;
    programs.retain(|program| watch == Watch::Accesses || !matches!(program.attach, Attach::Exit(_)));
    let host = Host::read(&programs)?;
    let (programs, absent): (Vec<Program>, Vec<Program>) = programs.into_iter().partition(|program| host.has(program));
    drop(host);
    let missing = |program: &Program| match program.optional() {
        Some(reason) => Ok(left_out(program, reason)),
        None => Err(Error::MissingHook { program: program.name.clone(), hook: program.hook().to_owned() }),
    };
    let notes = absent.iter().map(missing).collect::<Result<Vec<_>, _>>()?;
    // The shared map's layout is part of the name: programs that look into another layout's are not in force.
    let build = format!("{}-{}", object.hash, crate::abi::LAYOUT);
    let pinned = pins::entries(&own.build(&build))?;
    let missing: Vec<&Program> = programs.iter().filter(|program| !pinned.contains(&program.name)).collect();
    if !missing.is_empty() {
        // All maps are there where something is added. Then containers that are armed meanwhile don't wait for the verifier.
        let is_added = !pinned.is_empty();
        lock = lock.filter(|_| !is_added);
        let attached = attach(place, object, &build, &missing, sizes);
        sys::return_free_memory();
        lock = Some(lock.map_or_else(|| place.lock(), Ok)?);
        if let Err(error) = attached {
            own.abandon(&build)?;
            return Err(error);
        }
        // Those that are there already go on: what they have told and missed is counted on.
        if is_added { own.join(&build)? } else { own.settle(&build)? }
    }
    hand_over(&own, &build)?;
    own.keep_only(&build)?;
    own.keep_programs(&build, |name| programs.iter().any(|program| program.name == name))?;
    own.clear_other_layouts()?;
    drop(lock);
    Ok(notes)
}

fn attach(place: &Place, object: Object<'_>, build: &str, programs: &[&Program], sizes: Sizes) -> Result<(), Error> {
    let own = place.monitor();
    let directory = own.begin(build)?;
    let mut ebpf = open_object(place, object.bytes, identity(build), sizes)?;
    verify(&mut ebpf, programs)?;
    programs.iter().try_for_each(|program| attach_and_pin(&mut ebpf, program, &directory))
}

fn open_object(place: &Place, object: &[u8], build: u64, sizes: Sizes) -> Result<Ebpf, Error> {
    let locks = Locks::find();
    let own = place.monitor();
    let mut loader = EbpfLoader::new();
    loader
        .allow_unsupported_maps()
        .override_global("pc_mon_build", &build, true)
        .override_global("pc_rename_lock", &locks.rename, true)
        .override_global("pc_mount_lock", &locks.mount, true)
        .map_pin_path(SHARED, place.map(SHARED));
    for map in MAPS {
        loader.map_pin_path(map, own.map(map));
    }
    if let Some(bytes) = sizes.rings {
        loader.map_max_entries("pc_mon_process", bytes).map_max_entries("pc_mon_access", bytes);
    }
    loader.load(object).map_err(|error| Error::Maps(Box::new(error)))
}

/// Lets the programs of this build speak, and no others.
fn hand_over(own: &Place, build: &str) -> Result<(), Error> {
    let map = open_map(own, "pc_mon_config", size_of::<abi::Config>(), 1)?;
    change_config(&map, |config| {
        if config.layout == 0 {
            config.window_ns = abi::WINDOW_NS.into();
        }
        config.layout = abi::LAYOUT;
        config.build = identity(build);
    })
}

pub(super) fn read_config(map: &sys::Map) -> Result<abi::Config, Error> {
    let value = map.lookup(&[0; 4]).map_err(|error| Error::system("reading pc_mon_config", error))?;
    Ok(value.map(|value| bytemuck::pod_read_unaligned(&value)).unwrap_or_default())
}

/// The caller holds the lock of the place.
pub(super) fn change_config(map: &sys::Map, change: impl FnOnce(&mut abi::Config)) -> Result<(), Error> {
    let before = read_config(map)?;
    let mut config = before;
    change(&mut config);
    if config == before {
        return Ok(());
    }
    map.update(&[0; 4], bytemuck::bytes_of(&config)).map_err(|error| Error::system("writing pc_mon_config", error))
}

/// A build's name as the programs have it: its FNV-1a hash, which no two builds of one upgrade share but by a chance of 2^-64.
fn identity(build: &str) -> u64 {
    build.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
