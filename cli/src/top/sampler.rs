//! Takes samples: what the agent, the kernel and the state directory say at a moment.

use std::collections::HashMap;
use std::time::Instant;

use portcullis_agent::control::{AgentStatus, Call, Client, ClientError, Tree};
use portcullis_ebpf::Kernel;
use portcullis_ebpf::abi::Stats;
use portcullis_enforcer::{ArmedContainer, Enforcer, Status};
use portcullis_policy::Backend;
use portcullis_policy::meaning::{Action, Class, Posture, RuleSet};

use super::model::{Container, Sample};
use crate::failure::Failure;

/// Most containers that are shown; the rest is counted.
const MAX_CONTAINERS: usize = 64;
/// The classes of operations, as policies have them.
const CLASSES: [(&str, Class); 5] = [
    ("process", Class::Process),
    ("file", Class::File),
    ("network", Class::Network),
    ("capability", Class::Capability),
    ("syscall", Class::Syscall),
];

/// What samples are taken from.
pub(super) struct Sampler {
    enforcer: Enforcer,
    client: Option<Client>,
    /// What sets of rules cover, by their hash.
    covered: HashMap<String, Vec<(&'static str, String)>>,
}

impl Sampler {
    pub(super) fn new(enforcer: Enforcer) -> Sampler {
        Sampler { enforcer, client: None, covered: HashMap::new() }
    }

    /// A sample of now.
    ///
    /// # Errors
    /// If the agent can't be asked, or the state directory can't be read. The next attempt connects anew.
    pub(super) fn take(&mut self) -> Result<Sample, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.enforcer.config().control_socket())?.ok_or(Failure::NoAgent)?,
        };
        let agent: AgentStatus = client.call(Call::Status)?;
        let mut containers = self.containers(&agent)?;
        let left_out = containers.len().saturating_sub(MAX_CONTAINERS);
        containers.truncate(MAX_CONTAINERS);
        for container in &mut containers {
            container.tree = Some(match client.call::<Tree>(Call::Tree { container: container.id.clone() }) {
                Ok(tree) => Ok(tree),
                Err(ClientError::Refused(refusal)) => Err(refusal.message),
                Err(error) => return Err(error.into()),
            });
        }
        self.client = Some(client);
        let kernel = match self.enforcer.chosen().backend {
            Backend::Bpf => kernel().map_err(|error| error.to_string()),
            Backend::AppArmor => Err("AppArmor keeps no count of its records".to_owned()),
        };
        Ok(Sample { at: Instant::now(), agent, kernel, containers, left_out })
    }

    /// Those in trouble first, then by name.
    fn containers(&mut self, agent: &AgentStatus) -> Result<Vec<Container>, Failure> {
        let armed = self.enforcer.list()?;
        let known = self.enforcer.state().all_known()?;
        let unprotected = self.enforcer.state().unprotected()?;
        let mut containers: Vec<Container> = Vec::new();
        for container in &armed {
            let trouble = agent.containers.troubles.iter().find(|trouble| trouble.id == container.record.id);
            let (state, is_well) = match (trouble, state(container)) {
                (Some(trouble), _) => (format!("NOT UP TO DATE: {}", trouble.error), false),
                (None, (state, is_well)) => (state.to_owned(), is_well),
            };
            containers.push(Container {
                id: container.record.id.clone(),
                name: name(&container.record.namespace, &container.record.name),
                state,
                is_well,
                coverage: self.coverage(container)?,
                tree: None,
            });
        }
        for other in known.iter().filter(|known| armed.iter().all(|armed| armed.record.id != known.facts.id)) {
            let (id, facts) = (other.facts.id.clone(), &other.facts);
            let reason = unprotected.iter().find(|container| container.id == id).map(|container| &container.reason);
            let state = reason.map_or_else(|| "no policy is for it".to_owned(), |reason| format!("UNPROTECTED: {reason}"));
            let name = name(&facts.namespace, &facts.name);
            containers.push(Container { id, name, state, is_well: reason.is_none(), ..Container::default() });
        }
        containers.sort_by(|a, b| (a.is_well, &a.name, &a.id).cmp(&(b.is_well, &b.name, &b.id)));
        Ok(containers)
    }

    fn coverage(&mut self, container: &ArmedContainer) -> Result<Vec<(&'static str, String)>, Failure> {
        /// Sets that are remembered; more would be those of policies long gone.
        const MAX_SETS: usize = 1024;
        let hash = &container.record.hash;
        if let Some(covered) = self.covered.get(hash) {
            return Ok(covered.clone());
        }
        let rules = self.enforcer.state().rules_of(&container.record)?.unwrap_or_default();
        let covered: Vec<_> = CLASSES.map(|(name, class)| (name, covered(&rules, class))).into();
        if self.covered.len() >= MAX_SETS {
            self.covered.clear();
        }
        self.covered.insert(hash.clone(), covered.clone());
        Ok(covered)
    }
}

fn name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn state(container: &ArmedContainer) -> (&'static str, bool) {
    match container.status {
        Status::Armed if container.record.adopting => ("being adopted", true),
        Status::Armed if container.record.audited => ("audited", true),
        Status::Armed => ("armed", true),
        Status::Leaving => ("leaving", true),
        Status::Lost => ("LOST: the kernel knows nothing of it", false),
    }
}

/// What rules say of a class: how many block, audit and allow, and what becomes of the rest where it is an allow-list.
fn covered(rules: &RuleSet, class: Class) -> String {
    let of = |action| rules.rules.iter().filter(|rule| rule.class == class && rule.action == action).count();
    let posture = match class {
        Class::Process | Class::File => Some(rules.postures.file),
        Class::Network => Some(rules.postures.network),
        Class::Capability => Some(rules.postures.capabilities),
        // They are only audited.
        Class::Syscall => None,
    };
    let counted = [(of(Action::Block), "block"), (of(Action::Audit), "audit"), (of(Action::Allow), "allow")];
    let mut parts: Vec<String> =
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, action)| format!("{count} {action}")).collect();
    if let (Some(posture), true) = (posture, of(Action::Allow) > 0) {
        parts.push(if posture == Posture::Block { "block the rest" } else { "audit the rest" }.to_owned());
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn kernel() -> Result<Stats, portcullis_ebpf::Error> {
    Kernel::open()?.counts()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_policy::meaning::{Object, Origin, Postures, Rule};

    use super::*;

    fn rule(class: Class, action: Action) -> Arc<Rule> {
        Arc::new(Rule {
            origin: Origin {
                kind: "KubeArmorPolicy".into(),
                namespace: "".into(),
                policy: "p".into(),
                file: Arc::new("/p.yaml".into()),
                line: 1,
                column: 1,
                field: String::new(),
            },
            class,
            objects: vec![Object::Path(b"/a".to_vec())],
            sources: Vec::new(),
            read_only: false,
            owner_only: false,
            action,
            severity: 0,
            tags: Vec::new(),
            message: String::new(),
        })
    }

    #[test]
    fn a_class_is_covered_by_its_rules_and_an_allow_list_by_its_posture() {
        let (block, audit, allow) = (Action::Block, Action::Audit, Action::Allow);
        let rules =
            [(Class::File, block), (Class::File, block), (Class::File, audit), (Class::Network, allow), (Class::Process, allow)];
        let postures = Postures { network: Posture::Block, ..Postures::default() };
        let set = RuleSet { rules: rules.map(|(class, action)| rule(class, action)).into(), postures };
        let covered: Vec<String> = CLASSES.iter().map(|(_, class)| covered(&set, *class)).collect();
        assert_eq!(covered, ["1 allow, audit the rest", "2 block, 1 audit", "1 allow, block the rest", "-", "-"]);
    }
}
