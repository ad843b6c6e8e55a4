//! What `AppArmor` costs: making and loading our profiles, and system calls under them beside a profile that is written by hand for
//! the same rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_enforcer::apparmor::{CompiledProfiles, ProfileName, Profiles as Store, Variant, generate};
use portcullis_policy::meaning::{Action, Class, Object, RuleSet};

use crate::guest::{Container, Costs, PROFILE_RULES};
use crate::report::{Compiling, Guest, Report};
use crate::{Failure, Set};

/// The name of the profile that is written by hand, and of our container.
const NAME: &str = "portcullis-bench";
/// Where distributions have the parser, and we look for it.
const PARSER: &str = "/usr/sbin/apparmor_parser";
/// Timings of what is short; the least counts, as what else the machine does can only add.
const TRIES: usize = 3;

/// System calls under a profile of each kind.
pub(crate) struct Profiles {
    pub(crate) by_hand: Costs,
    pub(crate) ours: Costs,
}

/// Making profiles of the sets, on this machine.
pub(crate) fn compiling(sets: &[Set], report: &mut Report) -> Result<(), Failure> {
    if !Path::new(PARSER).exists() {
        println!("skipped: profiles: {PARSER} is not installed");
        return Ok(());
    }
    for Set { mix, .. } in sets {
        let mut made = make(&mix.set)?.map(|(compiling, _)| compiling);
        for _ in 1..TRIES {
            // What is refused is refused again.
            let Ok(best) = &mut made else { break };
            if let Ok((again, _)) = make(&mix.set)? {
                best.cold = best.cold.min(again.cold);
            }
        }
        report.profiles(mix.count, &made);
    }
    Ok(())
}

/// Makes and loads profiles, and measures under them.
pub(crate) fn measure(container: &Container, ops: &Path, none: &Costs, report: &mut Guest) -> Result<Profiles, Failure> {
    if !Path::new("/sys/kernel/security/apparmor/profiles").exists() {
        return Err("not active in this kernel".into());
    }
    // The guest's own is taken away where BPF LSM enforces (hack/guest/main).
    let beside = ops.with_file_name("apparmor_parser");
    if !Path::new(PARSER).exists() && beside.exists() {
        std::os::unix::fs::symlink(&beside, PARSER)?;
    }
    let set = &container.mix(PROFILE_RULES).set;
    let mut costs = |kind: &str, profile: &str| -> Result<Costs, Failure> {
        let costs = container.run("/sys/fs/cgroup", &format!("export OPS_PROFILE={profile};"))?;
        report.add(&format!("AppArmor {kind}, {PROFILE_RULES} rules"), Some(none), &costs);
        Ok(costs)
    };
    load_text(&by_hand(set))?;
    let by_hand = costs("by hand", NAME)?;
    let name = ProfileName::of(NAME);
    let (compiling, compiled) = make(set)??;
    let load = least(|| store(&std::env::temp_dir()).load(&compiled, &name))?;
    let ours = costs("ours", name.as_str())?;
    report.profiles(PROFILE_RULES, &Ok(compiling), Some(load));
    Ok(Profiles { by_hand, ours })
}

fn store(state: &Path) -> Store {
    Store::of_host(state)
}

/// The profiles of a set by way of an empty cache, and what that takes. The inner error is why there are none.
fn make(set: &RuleSet) -> Result<Result<(Compiling, CompiledProfiles), String>, Failure> {
    let state = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    fs::create_dir_all(&state)?;
    let made = make_in(&state, set);
    fs::remove_dir_all(&state)?;
    Ok(made.map_err(|error| error.to_string()))
}

fn make_in(state: &Path, set: &RuleSet) -> Result<(Compiling, CompiledProfiles), Failure> {
    let text = least(|| generate(set, Variant::default()))?;
    let generated = generate(set, Variant::default())?;
    let begun = Instant::now();
    let compiled = store(state).compile(&generated)?;
    let cold = begun.elapsed();
    let cached = least(|| store(state).compile(&generated))?;
    let bytes: u64 = fs::read_dir(state.join("apparmor"))?
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "bin"))
        .map(|entry| entry.metadata().map_or(0, |data| data.len()))
        .sum();
    Ok((Compiling { text, cold, cached, bytes: usize::try_from(bytes)? }, compiled))
}

fn least<T, E>(mut work: impl FnMut() -> Result<T, E>) -> Result<Duration, E> {
    let mut least = Duration::MAX;
    for _ in 0..TRIES {
        let begun = Instant::now();
        work()?;
        least = least.min(begun.elapsed());
    }
    Ok(least)
}

/// The same rules as people write them.
fn by_hand(set: &RuleSet) -> String {
    let mut text = format!("profile {NAME} flags=(attach_disconnected) {{\n  /** rwlkix,\n  capability,\n");
    for rule in &set.rules {
        let mode = if rule.class == Class::Process { "x" } else { "w" };
        debug_assert!(rule.action == Action::Block, "the mix denies");
        for object in &rule.objects {
            let pattern = match object {
                Object::Path(path) => String::from_utf8_lossy(path).into_owned(),
                Object::Directory { dir, recursive } => {
                    format!("{}/{}", String::from_utf8_lossy(dir), if *recursive { "**" } else { "*" })
                }
                Object::Pattern(glob) => String::from_utf8_lossy(glob.text()).into_owned(),
                _ => continue,
            };
            text.push_str(&format!("  deny \"{pattern}\" {mode},\n"));
        }
    }
    text.push_str("}\n");
    text
}

fn load_text(text: &str) -> Result<(), Failure> {
    let file: PathBuf = std::env::temp_dir().join(NAME);
    fs::write(&file, text)?;
    let parser = Command::new(PARSER).arg("--replace").arg("--skip-cache").arg(&file).output()?;
    if !parser.status.success() {
        return Err(format!("apparmor_parser: {}", String::from_utf8_lossy(&parser.stderr)).into());
    }
    Ok(())
}
