//! Containers under AppArmor, on a kernel that does not run BPF LSM: by `portcullis-runtime`, which gives them their label, with crun,
//! runc and Podman.

mod agent;
mod conformance;
mod distinct;
mod docker;
mod faults;
mod life;
mod precreate;

use std::path::{Path, PathBuf};

use crate::cri::confined;
use crate::guest::{self, Guest};
use crate::report::Report;
use crate::{Failure, Result, starts};

/// Where the runtime reads its configuration: engines tell it nothing of ours.
const CONFIG: &str = "/etc/portcullis/config.yaml";
/// Where programs of ours are installed.
const PROGRAMS: &str = "/usr/libexec/portcullis";
/// What the kernel has.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Active security modules.
const MODULES: &str = "/sys/kernel/security/lsm";

/// A result that is judged.
type Checked = std::result::Result<(), String>;

/// A policy for containers with the label `app` of this value: `/attack` is not executed in them, nor `/etc/hosts` read.
fn policy(app: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: {app}\nspec:\n  selector:\n    matchLabels:\n      app: {app}\n  \
         file:\n    matchPaths:\n      - path: /etc/hosts\n  process:\n    matchPaths:\n      - path: /attack\n  action: Block\n"
    )
}

/// Runs the suite.
pub(crate) fn run(guest: &Guest, corpus: Option<&Path>, report: &mut Report) -> Result<()> {
    let modules = read(Path::new(MODULES))?;
    if modules.trim().split(',').any(|module| module == "bpf") || !modules.contains("apparmor") {
        let why = format!("active are {}; the suite is for a kernel with AppArmor and without BPF LSM", modules.trim());
        report.fail("apparmor", why);
        return Ok(());
    }
    let guest = carried(guest)?;
    if guest.wants("apparmor/backend") {
        report.run("apparmor/backend", || told(&guest));
    }
    starts::run(&guest, "apparmor/starts", report)?;
    let podman = life::run(&guest, report)?;
    precreate::run(&guest, podman, report)?;
    docker::run(&guest, report)?;
    distinct::run(&guest, report)?;
    faults::run(&guest, report)?;
    agent::run(&guest, report)?;
    confined::run(&guest, report)?;
    conformance::run(&guest, corpus, report)
}

/// The same guest, whose runtimes are run by `portcullis-runtime`.
fn carried(guest: &Guest) -> Result<Guest> {
    let guest = Guest {
        carried: true,
        settings: format!("nri:\n  enabled: false\n  hook: {}\n", guest.binaries.join("portcullis-hook").display()),
        ..guest.clone()
    };
    for runtime in &guest.runtimes {
        link(&guest.binaries.join("portcullis-runtime"), &guest.runtime_program(*runtime))?;
    }
    guest::make_directory(Path::new("/etc/portcullis"))?;
    link(&guest.config, Path::new(CONFIG))?;
    guest.configure("enforce", "audit")?;
    Ok(guest)
}

/// Our programs where the manuals have them put, which is where configurations of contrib look for them. Taken away when dropped.
struct Programs;

impl Programs {
    fn install(guest: &Guest) -> Result<Programs> {
        guest::remove_tree(Path::new(PROGRAMS))?;
        guest::make_directory(Path::new(PROGRAMS))?;
        for program in ["portcullis-hook", "portcullis-runtime"] {
            link(&guest.binaries.join(program), &Path::new(PROGRAMS).join(program))?;
        }
        for runtime in &guest.runtimes {
            link(Path::new("portcullis-runtime"), &Path::new(PROGRAMS).join(format!("portcullis-{}", runtime.name())))?;
        }
        Ok(Programs)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if let Err(error) = guest::remove_tree(Path::new(PROGRAMS)) {
            println!("# {error}");
        }
    }
}

fn link(target: &Path, name: &Path) -> Result<()> {
    guest::remove_tree(name)?;
    std::os::unix::fs::symlink(target, name).map_err(|source| Failure::io(name.display(), source))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Failure::io(path.display(), source))
}

/// Our profiles in the kernel.
fn profiles() -> Result<Vec<String>> {
    let list = read(&PathBuf::from(PROFILES))?;
    let names = list.lines().filter_map(|line| line.split(" (").next());
    Ok(names.filter(|name| name.starts_with("portcullis.")).map(str::to_owned).collect())
}

/// `doctor` and `status` say that it is AppArmor, and why.
fn told(guest: &Guest) -> Result<std::result::Result<(), String>> {
    for command in ["doctor", "status"] {
        let said = guest.portcullis(&[command])?;
        if !said.success() || !said.stdout.contains("AppArmor") || !said.stdout.contains("BPF LSM is not") {
            return Ok(Err(format!("{command}: {} {}", said.stdout, said.complaint())));
        }
    }
    Ok(Ok(()))
}
