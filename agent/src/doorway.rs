//! The NRI plugin's view of the agent: what has to be answered is asked of the node, what may wait goes to the reconciler.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_enforcer::{Door, Expected, FailPolicy, Started};
use portcullis_nri_plugin::{Enforcement, Failure, Running};
use portcullis_policy::ContainerFacts;

use crate::node::Node;
use crate::reconcile::{Inbox, Task};

/// What one runtime's plugin asks.
pub(crate) struct Doorway<N> {
    pub(crate) node: Arc<N>,
    pub(crate) inbox: Inbox,
    /// Whether there is no other runtime: then a container that this one does not know is nobody's.
    pub(crate) is_only_one: bool,
}

impl<N: Node> Enforcement for Doorway<N> {
    fn fail_policy(&self) -> FailPolicy {
        self.node.fail_policy()
    }

    fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Failure> {
        self.node.expect(facts)
    }

    fn start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Failure> {
        self.node.start(facts, pid)
    }

    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure> {
        self.node.record_unprotected(id, name, reason)
    }

    fn synchronized(
        &self,
        running: Vec<Running>,
        created: Vec<ContainerFacts>,
        listed: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        // Before the answer, after which new ones are announced that are not listed.
        let known = self.node.known()?;
        let never_came = known.into_iter().filter(|known| {
            self.is_only_one && known.door == Door::Nri && known.place.is_none() && !listed.contains(&known.facts.id)
        });
        self.inbox.send(Task::NeverCame(never_came.map(|known| known.facts.id).collect()));
        self.inbox.send(Task::Adopt(running));
        // They were created while nobody was told, and will be started: the gate hook they may have asks who they are.
        created.iter().try_for_each(|facts| self.node.expect(facts).map(drop))
    }

    fn leaving(&self, id: &str) {
        self.inbox.send(Task::Leave(id.to_owned()));
    }
}
