//! `selector` and `nodeSelector` as written.

use std::collections::BTreeMap;

use regex_lite::{Regex, RegexBuilder};
use serde::Serialize;

/// Largest compiled regular expression, in bytes. It runs on names of at most a few hundred characters.
const MAX_REGEX_BYTES: usize = 1 << 17;
/// Deepest nesting of a regular expression.
const MAX_REGEX_NESTING: u32 = 16;

/// Both selectors. A kind of policy that has no such selector leaves it empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selector {
    /// `selector.matchLabels` without the label that names containers. All must hold.
    pub labels: BTreeMap<String, String>,
    /// `selector.matchLabels["kubearmor.io/container.name"]`.
    pub containers: Option<ContainerNames>,
    /// `selector.matchExpressions`. All must hold.
    pub expressions: Vec<Expression>,
    /// `nodeSelector.matchLabels` without the labels that name hosts. All must hold.
    pub node_labels: BTreeMap<String, String>,
    /// `nodeSelector.matchLabels["kubernetes.io/hostname"]` and its relatives. All must hold.
    pub hosts: Vec<HostNames>,
}

/// One of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expression {
    /// What it is about.
    pub key: ExpressionKey,
    /// How it compares.
    pub operator: Operator,
    /// `key=value` for labels, names for namespaces.
    pub values: Vec<String>,
}

/// `matchExpressions[].key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpressionKey {
    /// The labels of the container.
    Label,
    /// The namespace of the container.
    Namespace,
}

/// `matchExpressions[].operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Operator {
    /// At least one of the values holds.
    In,
    /// None of the values holds.
    NotIn,
}

/// The containers that `kubearmor.io/container.name` selects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ContainerNames {
    /// `[]` or nothing: all.
    All,
    /// `[a,b]`.
    List(Vec<String>),
    /// A bare word: the name itself in Kubernetes, an anchored regular expression elsewhere.
    Bare(NamePattern),
}

/// The hosts that a host name label selects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum HostNames {
    /// `*`.
    All,
    /// A comma list of names.
    List(Vec<String>),
    /// `kubernetes.io/hostnamereg`.
    Pattern(NamePattern),
}

/// An anchored regular expression over names.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct NamePattern {
    text: String,
    #[serde(skip)]
    regex: Regex,
}

impl NamePattern {
    /// Compiles `text`; the error is that of the expression, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let compile =
            |expression: &str| RegexBuilder::new(expression).size_limit(MAX_REGEX_BYTES).nest_limit(MAX_REGEX_NESTING).build();
        // By itself first: `a)|(b` is balanced only between the anchors, and would escape them.
        compile(text)
            .and_then(|_| compile(&format!("^(?:{text})$")))
            .map(|regex| Self { text: text.to_owned(), regex })
            .map_err(|error| error.to_string())
    }

    /// The expression as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches the whole of `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for NamePattern {}
