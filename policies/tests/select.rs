//! Which policies hold for which containers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_policy::meaning::{Posture, Postures};
use portcullis_policy::select::{CONTAINER_NAMESPACE, applies};
use portcullis_policy::{ContainerFacts, HostFacts, Mode, Options, Policy, parse, select, select_host};

const RULES: &str = "file: {matchPaths: [{path: /a}]}";

/// A policy of `kind` in `namespace` with `selector` in its spec.
fn policy(kind: &str, namespace: &str, selector: &str) -> Policy {
    let namespace = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: p{namespace}}}\nspec: {{{selector} {RULES}}}\n"
    );
    let parsed = parse(Path::new("p.yaml"), &text, Options::default());
    assert!(parsed.errors().next().is_none(), "{:#?}", parsed.errors().collect::<Vec<_>>());
    parsed.policies().next().unwrap().clone()
}

fn ksp(namespace: &str, selector: &str) -> Policy {
    policy("KubeArmorPolicy", namespace, &format!("selector: {{{selector}}},"))
}

fn csp(expressions: &str) -> Policy {
    policy("KubeArmorClusterPolicy", "", &format!("selector: {{matchExpressions: [{expressions}]}},"))
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn pod() -> ContainerFacts {
    ContainerFacts {
        id: "1".into(),
        name: "nginx".into(),
        image: "docker.io/library/nginx:1".into(),
        labels: map(&[("app", "web"), ("tier", "front")]),
        annotations: map(&[("note", "x")]),
        namespace: "prod".into(),
        orchestrated: true,
        namespace_annotations: BTreeMap::new(),
        ..ContainerFacts::default()
    }
}

fn podman() -> ContainerFacts {
    ContainerFacts { namespace: String::new(), orchestrated: false, ..pod() }
}

#[track_caller]
fn selects(policy: &Policy, facts: &ContainerFacts, expected: bool) {
    let found = applies(policy, facts);
    assert_eq!(found.is_ok(), expected, "{found:?}: {:?}", policy.selector);
}

#[test]
fn all_labels_must_hold() {
    selects(&ksp("prod", "matchLabels: {app: web, tier: front}"), &pod(), true);
    selects(&ksp("prod", "matchLabels: {app: web, tier: back}"), &pod(), false);
    selects(&ksp("prod", "matchLabels: {app: web, other: ''}"), &pod(), false);
}

#[test]
fn an_empty_selector_selects_all_of_the_namespace() {
    selects(&ksp("prod", ""), &pod(), true);
    selects(&ksp("test", ""), &pod(), false);
    selects(&csp(""), &pod(), true);
    selects(&csp(""), &podman(), true);
}

#[test]
fn a_policy_without_a_namespace_is_for_default_in_kubernetes_and_for_containers_elsewhere() {
    let unnamed = ksp("", "matchLabels: {app: web}");
    selects(&unnamed, &pod(), false);
    selects(&unnamed, &ContainerFacts { namespace: "default".into(), ..pod() }, true);
    selects(&unnamed, &podman(), true);
    selects(&ksp(CONTAINER_NAMESPACE, "matchLabels: {app: web}"), &podman(), true);
    for namespace in ["default", "prod"] {
        selects(&ksp(namespace, "matchLabels: {app: web}"), &podman(), false);
    }
    // A container cannot choose its namespace.
    selects(&ksp("prod", ""), &ContainerFacts { namespace: "prod".into(), ..podman() }, false);
}

#[test]
fn expressions_hold_each_by_itself_in_any_order() {
    let web = "{key: label, operator: In, values: [app=web, app=api]}";
    let not_back = "{key: label, operator: NotIn, values: [tier=back]}";
    let not_front = "{key: label, operator: NotIn, values: [tier=front]}";
    let api = "{key: label, operator: In, values: [app=api]}";
    for (a, b, expected) in [(web, not_back, true), (web, not_front, false), (api, not_back, false), (api, not_front, false)] {
        selects(&ksp("prod", &format!("matchExpressions: [{a}, {b}]")), &pod(), expected);
        selects(&ksp("prod", &format!("matchExpressions: [{b}, {a}]")), &pod(), expected);
    }
    selects(&ksp("prod", &format!("matchLabels: {{app: api}}, matchExpressions: [{web}]")), &pod(), false);
}

#[test]
fn cluster_policies_select_namespaces() {
    selects(&csp("{key: namespace, operator: In, values: [test, prod]}"), &pod(), true);
    selects(&csp("{key: namespace, operator: NotIn, values: [test, prod]}"), &pod(), false);
    selects(
        &csp("{key: namespace, operator: NotIn, values: [test]}, {key: label, operator: In, values: [app=web]}"),
        &pod(),
        true,
    );
    selects(&csp(&format!("{{key: namespace, operator: In, values: [{CONTAINER_NAMESPACE}]}}")), &podman(), true);
}

#[test]
fn containers_are_named_by_list_or_by_anchored_expression() {
    let named =
        |namespace: &str, value: &str| ksp(namespace, &format!("matchLabels: {{kubearmor.io/container.name: '{value}'}}"));
    for (value, expected) in [("[nginx,redis]", true), ("[redis, nginx,,]", true), ("[redis]", false), ("[]", true), ("", true)] {
        selects(&named("prod", value), &pod(), expected);
        selects(&named("", value), &podman(), expected);
    }
    selects(&named("prod", "nginx"), &pod(), true);
    selects(&named("prod", "ngin."), &pod(), false);
    for (value, expected) in
        [("nginx", true), ("ngin.", true), ("ngin", false), ("ginx", false), ("redis|nginx", true), (".*", true)]
    {
        selects(&named("", value), &podman(), expected);
    }
    let both = ksp("", "matchLabels: {kubearmor.io/container.name: 'ng.*', app: api}");
    selects(&both, &podman(), false);
    let open = "spec: {selector: {matchLabels: {kubearmor.io/container.name: 'a)|(b'}}, file: {}}";
    let text = format!("apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\n{open}\n");
    assert_eq!(parse(Path::new("p"), text, Options::default()).errors().count(), 1, "it would escape its anchors");
}

#[test]
fn images_and_annotations_are_labels_outside_kubernetes_and_facts_outrank_labels() {
    let image = ksp("", "matchLabels: {kubearmor.io/image: 'docker.io/library/nginx:1'}");
    selects(&image, &podman(), true);
    selects(&ksp("", "matchLabels: {note: x}"), &podman(), true);
    selects(&ksp("prod", "matchLabels: {note: x}"), &pod(), false);
    let mut disguised = podman();
    disguised.labels = map(&[("kubearmor.io/image", "harmless")]);
    selects(&image, &disguised, true);
}

#[test]
fn the_annotation_of_a_container_turns_enforcement_off_or_to_audit() {
    let policies = [ksp("prod", "matchLabels: {app: web}")];
    let mode = |value: &str| {
        let facts = ContainerFacts { annotations: map(&[("kubearmor-policy", value)]), ..pod() };
        let selection = select(&policies, &facts, Postures::default());
        (selection.mode, selection.set.rules.len(), selection.policies)
    };
    let named = || vec!["KubeArmorPolicy/prod/p".to_owned()];
    assert_eq!(mode("disabled"), (Mode::Disabled, 0, named()));
    assert_eq!(mode("audited"), (Mode::Audited, 1, named()));
    assert_eq!(mode("enabled"), (Mode::Enabled, 1, named()));
    assert_eq!(mode("nonsense"), (Mode::Enabled, 1, named()));
}

#[test]
fn postures_come_from_the_namespace_or_from_the_container_outside_kubernetes() {
    let block = map(&[
        ("kubearmor-file-posture", "block"),
        ("kubearmor-network-posture", "Audit"),
        ("kubearmor-capabilities-posture", "?"),
    ]);
    let defaults = Postures { file: Posture::Audit, network: Posture::Block, capabilities: Posture::Block };
    let expected = Postures { file: Posture::Block, network: Posture::Audit, capabilities: Posture::Block };
    let in_namespace = ContainerFacts { namespace_annotations: block.clone(), ..pod() };
    assert_eq!(select(&[], &in_namespace, defaults).set.postures, expected);
    let on_pod = ContainerFacts { annotations: block.clone(), ..pod() };
    assert_eq!(select(&[], &on_pod, defaults).set.postures, defaults, "a pod may not weaken its namespace");
    let on_container = ContainerFacts { annotations: block, ..podman() };
    assert_eq!(select(&[], &on_container, defaults).set.postures, expected);
}

#[test]
fn hosts_are_selected_by_name_and_labels() {
    let hsp = |labels: &str| policy("KubeArmorHostPolicy", "", &format!("nodeSelector: {{matchLabels: {{{labels}}}}},"));
    let facts = HostFacts { hostname: "node-1".into(), labels: map(&[("zone", "a")]) };
    for (labels, expected) in [
        ("kubernetes.io/hostname: '*'", true),
        ("kubernetes.io/hostname: 'node-2, node-1'", true),
        ("kubernetes.io/hostname: node", false),
        ("kubearmor.io/hostnamereg: 'node-[0-9]'", true),
        ("zone: a", true),
        ("zone: a, kubernetes.io/hostname: node-2", false),
    ] {
        assert_eq!(!select_host(&[hsp(labels)], &facts, Postures::default()).policies.is_empty(), expected, "{labels}");
        selects(&hsp(labels), &pod(), false);
    }
}

#[test]
fn the_set_does_not_depend_on_the_order_of_policies() {
    let mut policies = vec![csp(""), ksp("prod", ""), ksp("prod", "matchLabels: {app: web}")];
    let forwards = select(&policies, &pod(), Postures::default());
    policies.reverse();
    assert_eq!(forwards, select(&policies, &pod(), Postures::default()));
}
