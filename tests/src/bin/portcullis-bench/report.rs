//! Tables for people, lines for machines.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use portcullis_ebpf::bench::Loaded;
use portcullis_enforcer::automaton::Compiled;
use serde_json::{Value, json};

struct Number {
    what: &'static str,
    ladder: &'static str,
    rules: usize,
    bytes: usize,
    ns: f64,
}

/// All numbers so far.
pub(crate) struct Report {
    json: Option<File>,
    numbers: Vec<Number>,
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
        let json = json.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Report { json, numbers: Vec::new() })
    }

    fn line(&mut self, value: &Value) {
        if let Some(file) = &mut self.json
            && let Err(error) = writeln!(file, "{value}")
        {
            eprintln!("portcullis-bench: a result could not be written: {error}");
        }
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
                self.line(&json!({"bench": "compile", "rules": rules, "ms": ms, "states": stats.states,
                    "states_built": stats.states_built, "classes": stats.classes, "bytes": stats.bytes}));
            }
            Err(reason) => {
                println!("compile {rules:>6} rules: {ms:>9.2} ms, refused: {reason}");
                self.line(&json!({"bench": "compile", "rules": rules, "ms": ms, "refused": reason}));
            }
        }
    }

    pub(crate) fn loaded(&mut self, ladder: &str, cost: &Loaded) {
        let ms = cost.time.as_secs_f64() * 1e3;
        println!(
            "load ({ladder}): {} instructions verified, {} after, {ms:.1} ms",
            cost.verified_insns, cost.xlated_insns
        );
        self.line(&json!({"bench": "load", "ladder": ladder, "verified_insns": cost.verified_insns,
            "xlated_insns": cost.xlated_insns, "ms": ms}));
    }

    pub(crate) fn add(&mut self, what: &'static str, ladder: &'static str, rules: usize, bytes: usize, ns: f64) {
        self.line(&json!({"bench": "native", "what": what, "ladder": ladder, "rules": rules, "path_bytes": bytes, "ns": ns}));
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
