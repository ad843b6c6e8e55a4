//! What becomes of a policy's rules under AppArmor.

use portcullis_policy::meaning::{Postures, RuleSet};
use portcullis_policy::{Backend, Policy, RuleReport, Support};

use super::{Variant, generate};

/// What becomes of each rule of `policy`, in the order of the file, where the container has no other policy: what holds for every
/// rule of its kind, and what comes of these rules standing together.
#[must_use]
pub fn report(policy: &Policy) -> Vec<RuleReport> {
    let mut reports = portcullis_policy::report(policy, Backend::AppArmor);
    let set = RuleSet { rules: policy.rules.clone(), postures: Postures::default() };
    match generate(&set, Variant::default()) {
        Ok(generated) => {
            for shortfall in generated.shortfalls {
                let origin = &set.rules[shortfall.rule].origin;
                for report in reports.iter_mut().filter(|report| report.origin == *origin) {
                    report.support = report.support.clone().except(shortfall.reason.clone());
                }
            }
        }
        Err(error) => {
            for report in reports.iter_mut().filter(|report| !matches!(report.support, Support::None(_))) {
                report.support = Support::None(error.to_string());
            }
        }
    }
    reports
}
