//! Compiles the probe and the attacks, which run inside of containers and have to be static C programs: what they do is
//! system calls that no safe interface has. The runner carries both in itself.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for name in ["probe", "attack"] {
        if let Err(why) = compile(name) {
            println!("cargo::error=tests/{name}: {why}");
        }
    }
}

fn compile(name: &str) -> Result<(), String> {
    let directory = Path::new(name);
    println!("cargo::rerun-if-changed={name}");
    println!("cargo::rerun-if-env-changed=CC");
    let mut sources: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(|error| format!("cannot list {}: {error}", directory.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    let output = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo gave no OUT_DIR")?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-s", "-o"])
        .arg(output.join(format!("portcullis-{name}")))
        .args(&sources)
        .status()
        .map_err(|error| format!("cannot run {compiler}: {error}; install gcc and the static C library"))?;
    if status.success() { Ok(()) } else { Err(format!("{compiler} failed with {status}")) }
}
