//! `portcullis doctor`: what this host can do, and the line that fixes what is missing.

use portcullis_ebpf::{Kernel, Ladder, Lsm};
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, output};

#[derive(Serialize)]
struct Diagnosis {
    can_enforce: bool,
    loaded: bool,
    bpf_lsm: Option<bool>,
    btf: bool,
    bpffs: bool,
    path_access: Option<&'static str>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    fatal: bool,
    what: String,
    fix: Option<String>,
}

pub(crate) fn doctor(format: Output) -> Result<Answer, Failure> {
    let probe = Kernel::probe();
    let loaded = match Kernel::open() {
        Ok(_) => true,
        Err(portcullis_ebpf::Error::NotLoaded) => false,
        Err(error) => return Err(error.into()),
    };
    let diagnosis = Diagnosis {
        can_enforce: probe.can_enforce(),
        loaded,
        bpf_lsm: match probe.lsm {
            Lsm::Active => Some(true),
            Lsm::Inactive(_) => Some(false),
            Lsm::Unknown => None,
        },
        btf: probe.btf,
        bpffs: probe.bpffs,
        path_access: probe.ladder.map(|ladder| match ladder {
            Ladder::Cast => "direct (bpf_rdonly_cast)",
            Ladder::Read => "by copy (bpf_probe_read_kernel)",
        }),
        findings: probe
            .findings
            .into_iter()
            .map(|finding| Finding { fatal: finding.fatal, what: finding.what, fix: finding.fix })
            .collect(),
    };
    match format {
        Output::Json => output::json(&diagnosis)?,
        Output::Table => show(&diagnosis)?,
    }
    Ok(if diagnosis.can_enforce { Answer::Yes } else { Answer::No })
}

fn show(diagnosis: &Diagnosis) -> Result<(), Failure> {
    let verdict = match (diagnosis.can_enforce, diagnosis.loaded, diagnosis.bpf_lsm) {
        (false, ..) => "cannot enforce policies",
        (true, true, _) | (true, _, Some(_)) => "can enforce policies",
        (true, false, None) => "may be able to enforce policies; `portcullis load` finds out",
    };
    output::line(&format!("This host {verdict}."))?;
    let loaded = if diagnosis.loaded { "loaded" } else { "not loaded; `portcullis load` does, and so does the first container" };
    output::line(&format!("  programs     {loaded}"))?;
    if let Some(access) = diagnosis.path_access {
        output::line(&format!("  path access  {access}"))?;
    }
    for finding in &diagnosis.findings {
        output::line(&format!("  {}  {}", if finding.fatal { "missing" } else { "note   " }, output::printable(&finding.what)))?;
        if let Some(fix) = &finding.fix {
            output::line(&format!("           fix: {}", output::printable(fix)))?;
        }
    }
    Ok(())
}
