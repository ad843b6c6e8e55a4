//! Tables for people, lines for machines.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use portcullis_ebpf::ProgramInfo;
use portcullis_ebpf::bench::Loaded;
use portcullis_enforcer::automaton::Compiled;
use serde_json::{Value, json};

use crate::guest::Costs;

struct Number {
    what: &'static str,
    ladder: &'static str,
    rules: usize,
    bytes: usize,
    ns: f64,
}

/// Where lines for machines go.
struct Lines(Option<File>);

impl Lines {
    fn open(json: Option<&Path>) -> io::Result<Lines> {
        json.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose().map(Lines)
    }

    fn write(&mut self, value: &Value) {
        if let Some(file) = &mut self.0
            && let Err(error) = writeln!(file, "{value}")
        {
            eprintln!("portcullis-bench: a result could not be written: {error}");
        }
    }
}

/// All numbers so far.
pub(crate) struct Report {
    json: Lines,
    numbers: Vec<Number>,
}

/// What it takes to have profiles, not yet in the kernel.
pub(crate) struct Compiling {
    /// Writing the text.
    pub(crate) text: Duration,
    /// The parser.
    pub(crate) cold: Duration,
    /// Finding what it made before.
    pub(crate) cached: Duration,
    /// What it made.
    pub(crate) bytes: usize,
}

/// Prints what profiles take; the line for machines.
fn profiles(place: &str, rules: usize, made: &Result<Compiling, String>, load: Option<Duration>) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    match made {
        Ok(Compiling { text, cold, cached, bytes }) => {
            let loaded = load.map_or_else(String::new, |load| format!(", loaded {:.2} ms", ms(load)));
            println!(
                "profiles of {rules:>6} rules: text {:.2} ms, compiled {:.1} ms, cached {:.2} ms{loaded}, {} KiB",
                ms(*text),
                ms(*cold),
                ms(*cached),
                bytes / 1024
            );
            json!({"bench": "profiles", "place": place, "rules": rules, "text_ms": ms(*text), "compiled_ms": ms(*cold),
                "cached_ms": ms(*cached), "loaded_ms": load.map(ms), "bytes": bytes})
        }
        Err(reason) => {
            println!("profiles of {rules:>6} rules: none: {reason}");
            json!({"bench": "profiles", "place": place, "rules": rules, "refused": reason})
        }
    }
}

/// A limit that a number must keep.
pub(crate) struct Gate {
    pub(crate) what: &'static str,
    /// Nothing where it could not be measured: that fails too.
    pub(crate) value: Option<f64>,
    pub(crate) limit: f64,
}

impl Report {
    pub(crate) fn open(json: Option<&Path>) -> io::Result<Report> {
        Ok(Report { json: Lines::open(json)?, numbers: Vec::new() })
    }

    pub(crate) fn compiled(&mut self, rules: usize, time: Duration, compiled: &Result<Compiled, String>) {
        let ms = time.as_secs_f64() * 1e3;
        match compiled {
            Ok(compiled) => {
                let stats = compiled.stats();
                println!(
                    "compile {rules:>6} rules: {ms:>9.2} ms, {:>6} states, {:>3} byte classes, {:>5} KiB",
                    stats.states,
                    stats.classes,
                    stats.bytes / 1024
                );
                self.json.write(&json!({"bench": "compile", "rules": rules, "ms": ms, "states": stats.states,
                    "states_built": stats.states_built, "classes": stats.classes, "bytes": stats.bytes}));
            }
            Err(reason) => {
                println!("compile {rules:>6} rules: {ms:>9.2} ms, refused: {reason}");
                self.json.write(&json!({"bench": "compile", "rules": rules, "ms": ms, "refused": reason}));
            }
        }
    }

    pub(crate) fn loaded(&mut self, ladder: &str, cost: &Loaded) {
        let ms = cost.time.as_secs_f64() * 1e3;
        println!("load ({ladder}): {} instructions verified, {} after, {ms:.1} ms", cost.verified_insns, cost.xlated_insns);
        self.json.write(&json!({"bench": "load", "ladder": ladder, "verified_insns": cost.verified_insns,
            "xlated_insns": cost.xlated_insns, "ms": ms}));
    }

    pub(crate) fn stand_in(&mut self, time: Duration, absent: usize) {
        let ms = time.as_secs_f64() * 1e3;
        println!("loading all but the {absent} security programs, which this machine refuses: {ms:.1} ms");
        self.json.write(&json!({"bench": "stand-in", "absent": absent, "ms": ms}));
    }

    pub(crate) fn profiles(&mut self, rules: usize, made: &Result<Compiling, String>) {
        self.json.write(&profiles("this machine", rules, made, None));
    }

    pub(crate) fn add(&mut self, what: &'static str, ladder: &'static str, rules: usize, bytes: usize, ns: f64) {
        self.json
            .write(&json!({"bench": "native", "what": what, "ladder": ladder, "rules": rules, "path_bytes": bytes, "ns": ns}));
        self.numbers.push(Number { what, ladder, rules, bytes, ns });
    }

    pub(crate) fn find(&self, what: &str, ladder: &str, rules: usize, bytes: usize) -> Option<f64> {
        let same = |n: &&Number| n.what == what && n.ladder == ladder && n.rules == rules && n.bytes == bytes;
        self.numbers.iter().find(same).map(|n| n.ns)
    }

    /// Prints everything that was measured.
    pub(crate) fn end(&self) {
        let sizes: BTreeSet<usize> = self.numbers.iter().map(|n| n.bytes).collect();
        let mut rows: Vec<(&str, &str, usize)> = Vec::new();
        for n in &self.numbers {
            if !rows.contains(&(n.what, n.ladder, n.rules)) {
                rows.push((n.what, n.ladder, n.rules));
            }
        }
        let header: String = sizes.iter().map(|bytes| format!("{:>12}", format!("{bytes} B"))).collect();
        println!("\nnanoseconds for a path of{:>5}{header}", "");
        for (what, ladder, rules) in rows {
            let title = format!("{what} {ladder}");
            print!("{title:<18}{rules:>6} rules");
            for bytes in &sizes {
                match self.find(what, ladder, rules, *bytes) {
                    Some(ns) => print!("{ns:>12.0}"),
                    None => print!("{:>12}", "-"),
                }
            }
            println!();
        }
        let ratio = |bytes| Some(self.find("copy and hash", "", 100, bytes)? / self.find("decision", "cast", 100, bytes)?);
        print!("{:<30}", "copy and hash / decision");
        for bytes in sizes {
            match ratio(bytes) {
                Some(ratio) => print!("{ratio:>11.1}x"),
                None => print!("{:>12}", "-"),
            }
        }
        println!("\n");
    }
}

/// Prints the gates; whether all are kept.
pub(crate) fn gates(gates: &[Gate]) -> bool {
    let mut kept = true;
    for gate in gates {
        let passed = gate.value.is_some_and(|value| value <= gate.limit);
        let value = gate.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"));
        println!("{} {}: {value} (limit {})", if passed { "pass" } else { "FAIL" }, gate.what, gate.limit);
        kept &= passed;
    }
    kept
}

/// The table of a virtual machine.
pub(crate) struct Guest {
    json: Lines,
    kernel: String,
    rows: Vec<(String, Costs, Option<Costs>)>,
}

impl Guest {
    pub(crate) fn open(json: Option<&Path>) -> io::Result<Guest> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Guest { json: Lines::open(json)?, kernel: release.trim().to_owned(), rows: Vec::new() })
    }

    pub(crate) fn kernel(&mut self, programs: &[ProgramInfo], memory: u64, load_ms: f64) {
        let sum = |of: fn(&ProgramInfo) -> u32| programs.iter().map(|p| u64::from(of(p))).sum::<u64>();
        let (xlated, verified) = (sum(|p| p.xlated_insns), sum(|p| p.verified_insns));
        let most = programs.iter().max_by_key(|p| p.verified_insns);
        println!(
            "{} programs: {xlated} instructions, {verified} verified (most: {}), loaded in {load_ms:.0} ms of guest time; maps {} KiB",
            programs.len(),
            most.map_or_else(String::new, |p| format!("{} {}", p.name, p.verified_insns)),
            memory / 1024
        );
        self.json.write(&json!({"bench": "programs", "kernel": self.kernel, "programs": programs.len(), "xlated_insns": xlated,
            "verified_insns": verified, "load_ms": load_ms, "maps_bytes": memory}));
    }

    pub(crate) fn add(&mut self, state: &str, base: Option<&Costs>, costs: &Costs) {
        for (operation, instructions) in costs {
            let added = base.and_then(|base| base.get(operation)).map(|base| instructions - base);
            self.json.write(&json!({"bench": "vm", "kernel": self.kernel, "state": state, "operation": operation,
                "instructions": instructions, "added": added}));
        }
        self.rows.push((state.to_owned(), costs.clone(), base.cloned()));
    }

    pub(crate) fn profiles(&mut self, rules: usize, made: &Result<Compiling, String>, load: Option<Duration>) {
        self.json.write(&profiles(&self.kernel, rules, made, load));
    }

    /// Each operation in one state against another.
    pub(crate) fn ratios(&mut self, what: &str, base: &Costs, costs: &Costs) {
        print!("{what:<28}");
        for operation in OPERATIONS {
            let Some((cost, base)) = costs.get(operation).zip(base.get(operation)) else { continue };
            print!("{:>24}", format!("{:.3}x", cost / base));
            self.json.write(&json!({"bench": "vm", "kernel": self.kernel, "state": what, "operation": operation,
                "ratio": cost / base}));
        }
        println!("\n");
    }

    pub(crate) fn skip(&mut self, state: &str, reason: &str) {
        println!("skipped: {state}: {}", reason.trim());
        self.json.write(&json!({"bench": "vm", "kernel": self.kernel, "state": state, "skipped": reason}));
    }

    pub(crate) fn end(&self) {
        println!("\nguest instructions, Linux {}", self.kernel);
        print!("{:<28}", "");
        for operation in OPERATIONS {
            print!("{operation:>24}");
        }
        println!();
        for (state, costs, base) in &self.rows {
            print!("{state:<28}");
            for operation in OPERATIONS {
                let Some(cost) = costs.get(operation) else { continue };
                let text = match base.as_ref().and_then(|base| base.get(operation)) {
                    Some(base) => format!("{cost:.0} ({:+.0}, {:.2}x)", cost - base, cost / base),
                    None => format!("{cost:.0}"),
                };
                print!("{text:>24}");
            }
            println!();
        }
        println!();
    }
}

const OPERATIONS: [&str; 8] = ["open64", "open12", "stat64", "write1", "create_unlink", "connect", "capable", "fork_exec"];
