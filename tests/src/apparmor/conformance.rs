//! The conformance documents on the kernel's own AppArmor.

use std::cell::Cell;
use std::path::Path;

use portcullis_policy::expectation::Expectation;

use crate::Result;
use crate::conformance::{Direct, Ground, Started, run_on};
use crate::guest::Guest;
use crate::report::Report;

/// Cases that are denied or let through otherwise, which the report of their policies says: those of
/// `enforcer/src/apparmor/conformance.rs`, but for those that differ in what is told and not in what is done.
const OTHERWISE: &[&str] = &[
    "icmp: other raw protocols",
    "sctp, dccp and packet: SCTP, one to one",
    "a path stands for itself alone: its times stay",
    "a path of an executable: it gets no other name",
    "an allow-list of executables that blocks: a removed one has no name to be listed by",
    "what lies below a name: its directory does not move",
    "what lies below a name: its parent does not move",
    // What the compiled profiles do not tell: a source is mapped under its own profile, which lets it read what it is for alone.
    "two sources apart: the reader reads",
    "two sources apart: the writer writes",
];

/// Containers of the runtimes that are installed, confined.
struct Confined<'a> {
    direct: Direct<'a>,
    otherwise: Cell<usize>,
}

impl Ground for Confined<'_> {
    fn start(&mut self, document: &Expectation, number: usize) -> Result<Started> {
        self.direct.start(document, number)
    }

    fn alerts(&self) -> bool {
        false
    }

    fn ends_otherwise(&mut self, document: &str, case: &str) -> bool {
        let listed = OTHERWISE.contains(&format!("{document}: {case}").as_str());
        self.otherwise.set(self.otherwise.get() + usize::from(listed));
        listed
    }
}

pub(super) fn run(guest: &Guest, corpus: Option<&Path>, report: &mut Report) -> Result<()> {
    let mut ground = Confined { direct: Direct { guest }, otherwise: Cell::new(0) };
    run_on(guest, "apparmor/conformance", &mut ground, corpus, &|_, _| true, report)?;
    // Of the whole corpus, each that is listed was met.
    if guest.only.is_none() && corpus.is_none() {
        let met = ground.otherwise.get();
        let result = if met == OTHERWISE.len() { Ok(()) } else { Err(format!("{met} of {} were met", OTHERWISE.len())) };
        report.check("apparmor/conformance/listed", result);
    }
    Ok(())
}
