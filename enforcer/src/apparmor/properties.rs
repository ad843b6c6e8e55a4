//! The profiles as the real parser compiles them against the reference model, on the rule sets that the automaton is held to.

use portcullis_policy::capability::Capability;
use portcullis_policy::decide::{Operation, Subject, Verdict, decide};
use portcullis_policy::meaning::{Class, Location, RuleSet};
use portcullis_policy::network::SocketKind;
use proptest::prelude::*;

use super::compiled::{CompiledProfile, compile};
use super::paths::{CHANGE, READ};
use super::{GenerateError, Generated, Variant, generate};
use crate::automaton::properties::{path, rule_set};

/// What a rule of this class says is said by the profile too, for all that the set has.
fn whole(generated: &Generated, set: &RuleSet, classes: &[Class]) -> bool {
    !generated.shortfalls.iter().any(|shortfall| classes.contains(&set.rules[shortfall.rule].class))
}

fn expected(set: &RuleSet, subject: &Subject<'_>, operation: &Operation<'_>, audited: bool) -> Verdict {
    match decide(set, subject, operation).verdict {
        Verdict::Block if audited => Verdict::Audit,
        verdict => verdict,
    }
}

/// The profile that confines tasks of an executable.
fn confining<'p>(profiles: &'p [CompiledProfile], generated: &Generated, exe: Option<&[u8]>) -> &'p CompiledProfile {
    let entry = &profiles[0];
    assert_eq!(entry.name, generated.name);
    let Some(exe) = exe else { return entry };
    let source = generated.source(exe);
    profiles.iter().find(|profile| profile.name == source).expect("every source has a profile")
}

fn hold(set: &RuleSet, variant: Variant, paths: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let generated = match generate(set, variant) {
        Err(GenerateError::TooManySources { .. } | GenerateError::TooManyPathRules { .. }) => return Ok(()),
        generated => generated.unwrap(),
    };
    let profiles = compile(&generated.text).unwrap_or_else(|error| panic!("{error}\n{}", generated.text));
    prop_assert_eq!(profiles.iter().map(|profile| profile.name.clone()).collect::<Vec<_>>(), generated.profiles.clone());
    let sources = set.rules.iter().flat_map(|rule| rule.sources.iter().filter_map(Location::path));
    let exes: Vec<Option<&[u8]>> = [None].into_iter().chain(sources.map(Some)).collect();
    let exes = if variant.no_new_privileges { &exes[..1] } else { &exes[..] };
    for &exe in exes {
        let profile = confining(&profiles, &generated, exe);
        for (path, owner) in paths.iter().flat_map(|path| [(path, true), (path, false)]) {
            let subject = Subject { exe, owner };
            let shown = || {
                format!(
                    "{} {owner} of {:?}\n{}",
                    path.escape_ascii(),
                    exe.map(<[u8]>::escape_ascii).map(|exe| exe.to_string()),
                    generated.text
                )
            };
            if whole(&generated, set, &[Class::File]) {
                let directory = [&path[..], b"/"].concat();
                for name in [Some(path), (path != b"/").then_some(&directory)].into_iter().flatten() {
                    let read = expected(set, &subject, &Operation::Read { path }, variant.audited);
                    prop_assert_eq!(profile.file(name, owner, READ), read, "read {}", shown());
                    let change = expected(set, &subject, &Operation::Change { path }, variant.audited);
                    prop_assert_eq!(profile.file(name, owner, CHANGE), change, "change {}", shown());
                    prop_assert_eq!(profile.links(name, owner), change != Verdict::Block, "link {}", shown());
                }
            }
            if whole(&generated, set, &[Class::Process]) {
                // What is called `/` is what has no path.
                let executed = (path != b"/").then_some(&path[..]);
                let exec = expected(set, &subject, &Operation::Exec { path: executed, unlinked: false }, variant.audited);
                let execution = profile.execution(path, owner);
                prop_assert_eq!(execution.verdict, exec, "exec {}", shown());
                if exec != Verdict::Block {
                    let next = if variant.no_new_privileges { &generated.name } else { generated.source(path) };
                    prop_assert_eq!(execution.profile.unwrap_or(&profile.name), next, "exec leads {}", shown());
                }
            }
        }
        let subject = Subject { exe, owner: false };
        for capability in Capability::all() {
            let verdict = expected(set, &subject, &Operation::Capability(capability), variant.audited);
            prop_assert_eq!(profile.capability(capability), verdict, "{}", capability);
        }
        if whole(&generated, set, &[Class::Network]) {
            for socket in SocketKind::ALL.into_iter().filter(|kind| *kind != SocketKind::Dccp && *kind != SocketKind::Other) {
                let verdict = expected(set, &subject, &Operation::Socket(socket.example()), variant.audited);
                prop_assert_eq!(profile.socket(socket.example()), verdict, "{:?}\n{}", socket, &generated.text);
            }
        }
    }
    Ok(())
}

fn variant() -> impl Strategy<Value = Variant> {
    (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
        .prop_map(|(audited, no_new_privileges)| Variant { audited, no_new_privileges })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_compiled_profile_decides_as_the_model(
        set in rule_set(),
        variant in variant(),
        mut paths in prop::collection::vec(path(), 24),
    ) {
        // The paths that rules name, and sources, are where it is decided.
        let named = set.rules.iter().flat_map(|rule| rule.objects.iter().filter_map(|object| match object {
            portcullis_policy::meaning::Object::Path(path) => Some(path.clone()),
            _ => None,
        }));
        paths.extend(named);
        paths.extend(set.rules.iter().flat_map(|rule| rule.sources.iter().filter_map(Location::path).map(<[u8]>::to_vec)));
        hold(&set, variant, &paths)?;
    }
}
