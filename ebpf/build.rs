//! Compiles the kernel programs. One object for enforcement, from one C file, so that every hook shares one set of maps; one for
//! the monitor.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// Compilers that are tried, in this order. Set `CLANG` to choose another.
const COMPILERS: [&str; 9] =
    ["clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-16", "clang-15", "clang-14"];

/// Every type of `abi.h` and `monitor_abi.h`, so that a test can compare them with their mirrors: the object of the programs keeps the type
/// information only of what it declares variables of.
const LAYOUT: &str = r#"
#include "abi.h"
#include "monitor_abi.h"
struct {
	struct pc_decision decision;
	struct pc_set set;
	struct pc_slot slot;
	struct pc_cgroup cgroup;
	struct pc_adoption adoption;
	struct pc_label label;
	struct pc_config config;
	struct pc_event event;
	struct pc_stats stats;
	enum pc_kind kind;
	enum pc_op op;
	struct pc_mon_config monitor_config;
	struct pc_mon_process process;
	struct pc_mon_access access;
	struct pc_mon_repeat repeat;
	struct pc_mon_repeated repeated;
	struct pc_mon_stats monitor_stats;
	enum pc_mon_kind monitor_kind;
} pc_layout;
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let sources = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("bpf");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-env-changed=CLANG");
    println!("cargo:rerun-if-changed={}", sources.display());
    for entry in fs::read_dir(&sources)? {
        println!("cargo:rerun-if-changed={}", entry?.path().display());
    }
    let clang = find_clang()?;
    for (name, variable) in [("portcullis", "PORTCULLIS_OBJECT_HASH"), ("monitor", "PORTCULLIS_MONITOR_HASH")] {
        let object = out.join(format!("{name}.bpf.o"));
        compile(&clang, &sources.join(format!("{name}.bpf.c")), &object)?;
        // Here and not at run time: hashing half a megabyte would be the longest step of a container's start.
        let hash: String = Sha256::digest(fs::read(object)?).iter().take(8).map(|b| format!("{b:02x}")).collect();
        println!("cargo:rustc-env={variable}={hash}");
    }
    let layout = out.join("layout.c");
    fs::write(&layout, LAYOUT)?;
    compile(&clang, &layout, &out.join("layout.bpf.o"))?;
    if env::var_os("CARGO_FEATURE_BENCH").is_some() {
        compile(&clang, &sources.join("bench.bpf.c"), &out.join("bench.bpf.o"))?;
    }
    Ok(())
}

fn find_clang() -> Result<String, Box<dyn Error>> {
    if let Ok(chosen) = env::var("CLANG") {
        return Ok(chosen);
    }
    let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    COMPILERS
        .iter()
        .find(runs)
        .map(|name| (*name).to_owned())
        .ok_or_else(|| "no clang was found to compile the kernel programs; run: apt-get install clang libbpf-dev".into())
}

fn compile(clang: &str, source: &Path, object: &Path) -> Result<(), Box<dyn Error>> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let (define, include) = match arch.as_str() {
        "x86_64" => ("__TARGET_ARCH_x86", "/usr/include/x86_64-linux-gnu"),
        "aarch64" => ("__TARGET_ARCH_arm64", "/usr/include/aarch64-linux-gnu"),
        other => return Err(format!("the kernel programs have not been ported to {other}").into()),
    };
    let result = Command::new(clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
        .args(["-Wno-unused-function", "-Wno-address-of-packed-member"])
        .args([format!("-D{define}"), format!("-I{include}"), "-Ibpf".to_owned()])
        // Paths of the build machine would end up in the debug information and change the hash of the object.
        .arg(format!("-fdebug-prefix-map={}=.", source.parent().unwrap_or(source).display()))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()?;
    let said = String::from_utf8_lossy(&result.stderr);
    if !result.status.success() {
        let hint = if said.contains("bpf/bpf_helpers.h") || said.contains("linux/types.h") {
            "\nheaders are missing; run: apt-get install libbpf-dev linux-libc-dev"
        } else {
            ""
        };
        return Err(format!("{clang} refused {}:\n{said}{hint}", source.display()).into());
    }
    for line in said.lines() {
        println!("cargo:warning={line}");
    }
    strip(clang, object);
    Ok(())
}

/// Leaves out the debug information, a third of the object, but not the type information that the loader needs. The
/// object works as well without this, so a missing tool is no error.
fn strip(clang: &str, object: &Path) {
    let tool = clang.replace("clang", "llvm-strip");
    let _ = Command::new(tool).arg("-g").arg(object).output();
}
