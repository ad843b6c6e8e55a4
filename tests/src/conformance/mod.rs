//! The conformance documents on the kernel: the same cases that the reference model answers, done by real processes in a
//! real container, and compared.
//!
//! Each case is done once outside of any container first, in the same root file system. What fails there as well proves
//! nothing about a policy: where `allow` is expected the errno has to be the same, elsewhere the case is skipped.

mod alerts;
mod call;
pub(crate) mod driver;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_policy::decide::Verdict;
use portcullis_policy::expectation::{self, Case, Expectation, Only, Op};
use portcullis_policy::meaning::Posture;
use portcullis_policy::{Options, Policy, Selection};

use crate::bundle::Bundle;
use crate::events::{Alert, Events};
use crate::guest::{self, Guest};
use crate::process::{Dialogue, Talk};
use crate::report::Report;
use crate::runtime::START_LIMIT;
use crate::{Failure, Result, image};
use driver::Answer;
use tree::Tree;

/// Every so many documents one is run by the second runtime.
const OTHER_RUNTIME_EVERY: usize = 5;
/// Of policies that name none, and of containers outside of Kubernetes.
const NAMESPACES: &[&str] = &["default", "container_namespace"];

/// The documents of the repository.
const CORPUS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/corpus.rs"));

/// Where the containers of the documents are.
pub(crate) trait Ground {
    /// Starts the driver as the container of this document, under the policies that are now in the policy directory.
    fn start(&mut self, document: &Expectation, number: usize) -> Result<Started>;

    /// Whether somebody tells alerts of these containers.
    fn alerts(&self) -> bool {
        true
    }

    /// Whether a case is known to end otherwise here, which the report of its policies says.
    fn ends_otherwise(&mut self, _document: &str, _case: &str) -> bool {
        false
    }
}

/// The container of a document; it ends with this.
pub(crate) struct Started {
    /// The container's id.
    pub id: String,
    /// Its root file system, as it is seen from outside.
    pub root: PathBuf,
    /// Does the cases.
    pub driver: Box<dyn Talk>,
}

/// Runs every document of `corpus`, by default of the repository, in containers of the runtimes themselves.
pub(crate) fn run(guest: &Guest, corpus: Option<&Path>, report: &mut Report) -> Result<()> {
    if guest.runtimes.is_empty() {
        report.skip("conformance", "neither crun nor runc is installed");
        return Ok(());
    }
    run_on(guest, "conformance", &mut Direct { guest }, corpus, &|_, _| true, report)
}

/// Runs the documents that `wanted` takes, by the name of their file and the document itself.
pub(crate) fn run_on(
    guest: &Guest,
    suite: &str,
    ground: &mut dyn Ground,
    corpus: Option<&Path>,
    wanted: &dyn Fn(&str, &Expectation) -> bool,
    report: &mut Report,
) -> Result<()> {
    let files = documents(corpus)?;
    let mut events = if ground.alerts() { Events::follow(guest)? } else { Events::of_nobody() };
    let mut number = 0;
    for (file, text) in files {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let documents = match expectation::parse(&file, &text) {
            Ok(documents) => documents,
            Err(errors) => {
                let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
                report.fail(&format!("{suite}/{stem}"), text.join("; "));
                continue;
            }
        };
        for document in documents {
            let name = format!("{suite}/{stem}/{}", document.name.replace(' ', "-"));
            if !wanted(&stem, &document) || !document.cases.iter().any(|case| guest.wants(&format!("{name}/{}", case.name))) {
                continue;
            }
            let mut test = Test { guest, report: &mut *report, name, ground: &mut *ground, number };
            if let Err(error) = test.document(document, &file, &mut events) {
                let name = test.name;
                report.fail(&name, error);
            }
            number += 1;
        }
    }
    Ok(())
}

/// Bundles of ours, run by the runtimes that are installed.
pub(crate) struct Direct<'a> {
    pub(crate) guest: &'a Guest,
}

impl Ground for Direct<'_> {
    fn start(&mut self, document: &Expectation, number: usize) -> Result<Started> {
        let root = self.guest.work.join("conformance/root");
        image::make(&root)?;
        add_driver(self.guest, &root)?;
        // Links may be what the policies name, and are followed when those are put in force.
        Tree::new(self.guest, &root, document)?;
        let runtimes = &self.guest.runtimes;
        let other = number % OTHER_RUNTIME_EVERY == OTHER_RUNTIME_EVERY - 1;
        let runtime = runtimes[if other { runtimes.len() - 1 } else { 0 }];
        let mut bundle = Bundle::new(&format!("conformance-{number}"), &root, &[driver::DRIVER, "--drive"]);
        bundle.facts.name = document.facts.name.clone();
        bundle.facts.namespace = document.facts.namespace.clone();
        bundle.facts.image = document.facts.image.clone();
        bundle.facts.labels = document.facts.labels.clone();
        bundle.facts.annotations = document.facts.annotations.clone();
        let container = runtime.start(self.guest, &bundle)?;
        Ok(Started { id: bundle.id, root, driver: Box::new(container) })
    }
}

/// The files of documents, by name.
fn documents(corpus: Option<&Path>) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let Some(corpus) = corpus else {
        return Ok(CORPUS.iter().map(|(name, text)| (PathBuf::from(name), text.to_vec())).collect());
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(corpus).map_err(|source| Failure::io(corpus.display(), source))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read(&path).map_err(|source| Failure::io(path.display(), source))?;
            files.push((path, text));
        }
    }
    files.sort();
    Ok(files)
}

/// One document under test.
struct Test<'a> {
    guest: &'a Guest,
    report: &'a mut Report,
    name: String,
    ground: &'a mut dyn Ground,
    number: usize,
}

/// What a case came to, with and without the policies.
struct Done<'a> {
    case: &'a Case,
    /// The path that the kernel comes to, through the links on its way.
    path: String,
    /// The second one, where there are two.
    to: Option<String>,
    free: Answer,
    under: Answer,
}

impl Test<'_> {
    fn document(&mut self, mut document: Expectation, file: &Path, events: &mut Events) -> Result<()> {
        let loaded = load(&document, file)?;
        let policies: Vec<Policy> = loaded.iter().flat_map(|(_, _, policies)| policies.clone()).collect();
        let selection = document.select(&policies);
        if !document.facts.orchestrated {
            // A bundle says who its container is as CRI-O does, which has a namespace.
            let found = NAMESPACES.iter().find(|namespace| {
                document.facts.orchestrated = true;
                document.facts.namespace = (**namespace).to_owned();
                document.select(&policies).set == selection.set
            });
            if found.is_none() {
                self.report.skip(&self.name, "only a container outside of Kubernetes selects these policies");
                return Ok(());
            }
        }
        let cases = self.cases(&document);
        let driver = driver::policy(&document, &selection, &cases);
        let text = driver.as_ref().map(|text| ("driver", text.as_str()));
        let mut files: Vec<(String, String)> = loaded.iter().map(|(name, text, _)| (name.clone(), text.clone())).collect();
        files.push(("inline".to_owned(), document.policy_text.clone()));
        files.extend(text.map(|(name, text)| (name.to_owned(), text.to_owned())));
        let given: Vec<(&str, &str)> =
            files.iter().filter(|(_, text)| !text.trim().is_empty()).map(|(name, text)| (name.as_str(), text.as_str())).collect();
        self.guest.set_policies(&given)?;
        self.configure(&document)?;
        let mut all = policies.clone();
        if let Some(text) = &driver {
            all.extend(
                portcullis_policy::parse(Path::new("driver.yaml"), text.as_bytes(), Options::default())
                    .documents
                    .into_iter()
                    .flatten(),
            );
        }
        let with_driver = document.select(&all);
        let cases = self.unchanged(&document, &selection, &with_driver, cases);
        let (done, alerts) = self.carry_out(&document, &cases, events)?;
        let told = !self.guest.without && self.ground.alerts();
        let wrong_alerts = if told { alerts::judge(&done, &alerts) } else { BTreeMap::new() };
        for done in &done {
            let name = format!("{}/{}", self.name, done.case.name.replace(' ', "-"));
            let otherwise = self.ground.ends_otherwise(&document.name, &done.case.name);
            match judge(done) {
                Judgement::Fail(_) if otherwise && done.under.stage == "op" => {
                    self.report.ok(&format!("{name} (otherwise, and reported)"))
                }
                Judgement::Ok if otherwise => self.report.fail(&name, "it ends as it should, and is listed as one that does not"),
                Judgement::Skip(why) => self.report.skip(&name, why),
                Judgement::Fail(why) => self.report.fail(&name, why),
                Judgement::Ok => match wrong_alerts.get(&done.case.name) {
                    Some(why) => self.report.fail(&name, why),
                    None => self.report.ok(&name),
                },
            }
        }
        Ok(())
    }

    /// The cases that the kernel can be asked.
    fn cases<'d>(&mut self, document: &'d Expectation) -> Vec<&'d Case> {
        let mut cases = Vec::new();
        for case in &document.cases {
            let name = format!("{}/{}", self.name, case.name.replace(' ', "-"));
            if !self.guest.wants(&name) {
                continue;
            }
            match &case.only {
                Only::Model(why) => self.report.skip(&name, format!("for the model alone: {why}")),
                Only::Both | Only::Kernel(_) => cases.push(case),
            }
        }
        cases
    }

    /// Leaves out what the driver's own rules would change.
    fn unchanged<'d>(
        &mut self,
        document: &Expectation,
        before: &Selection,
        after: &Selection,
        cases: Vec<&'d Case>,
    ) -> Vec<&'d Case> {
        let mut kept = Vec::new();
        for case in cases {
            let (old, new) = (document.evaluate(before, case), document.evaluate(after, case));
            let name = format!("{}/{}", self.name, case.name.replace(' ', "-"));
            if old.verdict != new.verdict || old.reason.name() != new.reason.name() {
                self.report.skip(&name, "the rules that let the driver work would change the answer");
            } else if let Some(why) = driver::hindered(after, case) {
                self.report.skip(&name, why);
            } else {
                kept.push(case);
            }
        }
        kept
    }

    fn configure(&self, document: &Expectation) -> Result<()> {
        let word = |posture: Posture| if posture == Posture::Block { "block" } else { "audit" };
        let postures = document.postures;
        self.guest.configure_postures("enforce", word(postures.file), word(postures.network), word(postures.capabilities))
    }

    fn carry_out<'d>(
        &mut self,
        document: &Expectation,
        cases: &[&'d Case],
        events: &mut Events,
    ) -> Result<(Vec<Done<'d>>, Vec<Alert>)> {
        let Started { id, root, mut driver } = self.ground.start(document, self.number)?;
        driver.line(START_LIMIT)?;
        if self.ground.alerts() {
            events.again(self.guest)?;
        }
        let tree = Tree::new(self.guest, &root, document)?;
        let mut free = Dialogue::start(
            Command::new(root.join(driver::DRIVER.trim_start_matches('/'))).arg("--chroot").arg(&root).arg("--drive"),
        )?;
        free.line(START_LIMIT)?;
        let mut done = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let line = driver::line(number, case)?;
            tree.prepare(case)?;
            let (path, to) = tree.real(&case.op)?;
            let without = driver::ask(&mut free, &line)?;
            tree.prepare(case)?;
            let under = driver::ask(&mut *driver, &line)?;
            done.push(Done { case, path, to, free: without, under });
        }
        free.close(START_LIMIT);
        // Before its end: then its records are gone, and with them the names in the alerts.
        let mut alerts = events.drain()?;
        alerts.retain(|alert| alert.container == id);
        drop(driver);
        Ok((done, alerts))
    }
}

/// The policy files that a document names: name, text, policies.
fn load(document: &Expectation, file: &Path) -> Result<Vec<(String, String, Vec<Policy>)>> {
    let mut loaded = Vec::new();
    for (index, name) in document.policy_files.iter().enumerate() {
        let path = file.parent().unwrap_or(Path::new(".")).join(name);
        let text = std::fs::read_to_string(&path).map_err(|source| Failure::io(path.display(), source))?;
        let parsed = portcullis_policy::parse(&path, text.as_bytes(), Options::default());
        let policies = parsed.documents.into_iter().flatten().collect();
        loaded.push((format!("file-{index}"), text, policies));
    }
    Ok(loaded)
}

enum Judgement {
    Ok,
    Fail(String),
    Skip(String),
}

/// Compares the errno. A denial is EPERM or EACCES.
fn judge(done: &Done<'_>) -> Judgement {
    let Done { case, free, under, .. } = done;
    if under.stage != "op" {
        return Judgement::Fail(format!("the case could not be done: {under}"));
    }
    let outside = hidden(&case.op);
    match case.expect {
        Verdict::Allow | Verdict::Audit if under.errno == 0 || (under.errno == free.errno && !outside) => Judgement::Ok,
        Verdict::Allow | Verdict::Audit => {
            Judgement::Fail(format!("expected to be let through, and it is {under} (without a policy {free})"))
        }
        Verdict::Block if free.errno != 0 && !outside && !network_only(&case.op) => {
            Judgement::Skip(format!("does not work without a policy either: {free}"))
        }
        Verdict::Block if under.denied() => Judgement::Ok,
        Verdict::Block => Judgement::Fail(format!("expected to be denied, and it is {under}")),
    }
}

/// Below what the container mounts for itself: the free run sees another file there.
fn hidden(op: &Op) -> bool {
    let (Op::File { path, .. } | Op::Exec(path) | Op::ExecDeleted(path)) = op else { return false };
    tree::MOUNTED.iter().any(|mount| path.starts_with(mount.as_bytes()))
}

/// A protocol that this kernel does not have gives an errno without a policy, and the policy's with one.
fn network_only(op: &Op) -> bool {
    matches!(op, Op::Socket(..))
}

/// The programs that do the cases, in a root file system.
pub(crate) fn add_driver(guest: &Guest, root: &Path) -> Result<()> {
    for path in [driver::DRIVER, driver::SUBJECT] {
        probe_at(guest, &root.join(path.trim_start_matches('/')))?;
    }
    Ok(())
}

/// Puts the probe somewhere.
fn probe_at(guest: &Guest, path: &Path) -> Result<()> {
    guest::copy(&guest.probe, path)?;
    guest::set_mode(path, 0o755)
}
