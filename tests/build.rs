//! Compiles the probe, the attacks and the observer, which run inside of containers and have to be static C programs: what they
//! do is system calls that no safe interface has. The runner carries them in itself.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for name in ["probe", "attack", "observer"] {
        if let Err(why) = compile(name) {
            println!("cargo::error=tests/{name}: {why}");
        }
    }
    if let Err(why) = embed_corpus() {
        println!("cargo::error=tests/conformance: {why}");
    }
}

/// The conformance documents go into the runner: one file is all that a guest needs.
fn embed_corpus() -> Result<(), String> {
    println!("cargo::rerun-if-changed=conformance");
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).ok_or("cargo gave no CARGO_MANIFEST_DIR")?;
    let mut list = String::from("&[\n");
    for path in files(&here.join("conformance"), "yaml")? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        list.push_str(&format!("    ({name:?}, include_bytes!({:?})),\n", path.display().to_string()));
    }
    list.push(']');
    let output = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo gave no OUT_DIR")?;
    std::fs::write(output.join("corpus.rs"), list).map_err(|error| format!("cannot write the list: {error}"))
}

fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(|error| format!("cannot list {}: {error}", directory.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    Ok(files)
}

fn compile(name: &str) -> Result<(), String> {
    println!("cargo::rerun-if-changed={name}");
    println!("cargo::rerun-if-changed=../ebpf/bpf/abi.h");
    println!("cargo::rerun-if-env-changed=CC");
    let sources = files(Path::new(name), "c")?;
    let output = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo gave no OUT_DIR")?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-s", "-I", "../ebpf/bpf", "-o"])
        .arg(output.join(format!("portcullis-{name}")))
        .args(&sources)
        .status()
        .map_err(|error| format!("cannot run {compiler}: {error}; install gcc and the static C library"))?;
    if status.success() { Ok(()) } else { Err(format!("{compiler} failed with {status}")) }
}
