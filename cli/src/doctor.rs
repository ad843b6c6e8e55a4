//! `portcullis doctor`: what this host can do, and the line that fixes what is missing.

mod podman;

use std::path::Path;

use portcullis_ebpf::{Kernel, Ladder, Lsm};
use portcullis_enforcer::{Config, Enforcer};
use portcullis_policy::Backend;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, output};

#[derive(Serialize)]
struct Diagnosis {
    backend: Backend,
    backend_reason: String,
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

pub(crate) fn doctor(config: Option<&Path>, format: Output) -> Result<Answer, Failure> {
    let enforcer = Enforcer::open(Config::read(config)?)?;
    let chosen = enforcer.chosen();
    let probe = Kernel::probe();
    let by_profiles = (chosen.backend == Backend::AppArmor).then(|| enforcer.load());
    let loaded = match Kernel::open() {
        Ok(_) => true,
        Err(portcullis_ebpf::Error::NotLoaded) => false,
        Err(error) => return Err(error.into()),
    };
    let diagnosis = Diagnosis {
        backend: chosen.backend,
        backend_reason: chosen.reason.to_string(),
        can_enforce: by_profiles.as_ref().map_or(probe.can_enforce(), Result::is_ok),
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
            // What is in the way of the programs is in nobody's where AppArmor enforces.
            .map(|finding| Finding { fatal: finding.fatal && by_profiles.is_none(), what: finding.what, fix: finding.fix })
            .chain(by_profiles.iter().filter_map(|ready| ready.as_ref().err()).map(|error| Finding {
                fatal: true,
                what: error.to_string(),
                fix: None,
            }))
            .chain(podman::findings(Path::new("/"), chosen.backend))
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
        _ if diagnosis.backend == Backend::AppArmor => "can enforce policies",
        (true, true, _) | (true, _, Some(_)) => "can enforce policies",
        (true, false, None) => "may be able to enforce policies; `portcullis load` finds out",
    };
    output::line(&format!("This host {verdict}."))?;
    let name = if diagnosis.backend == Backend::AppArmor { "AppArmor" } else { "BPF LSM" };
    output::line(&format!("  backend      {name}: {}", diagnosis.backend_reason))?;
    if diagnosis.backend == Backend::AppArmor {
        output::line("  carrier      portcullis-runtime, where an engine runs it: contrib/runtime")?;
    }
    let loaded = match (diagnosis.loaded, diagnosis.backend) {
        (true, _) => "loaded",
        (false, Backend::Bpf) => "not loaded; `portcullis load` does, and so does the first container",
        (false, Backend::AppArmor) => "not loaded, nor wanted: they would decide nothing here",
    };
    output::line(&format!("  programs     {loaded}"))?;
    if let Some(access) = diagnosis.path_access.filter(|_| diagnosis.loaded || diagnosis.backend == Backend::Bpf) {
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
