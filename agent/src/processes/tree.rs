//! The processes of a container, as the table has them.

use std::collections::HashMap;

use super::{Container, Key, MAX_ANCESTORS, Process, Processes, View};

/// What tells the processes of a container from others. Whoever descends from one of them is one, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those with this label.
    pub label: Option<Container>,
    /// Those in this cgroup.
    pub cgroup: Option<u64>,
    /// Its first process.
    pub init: Option<Key>,
}

impl Members {
    fn has(&self, process: &Process) -> bool {
        let labelled = process.container.is_some() && process.container == self.label;
        let within = process.cgroup != 0 && Some(process.cgroup) == self.cgroup;
        labelled || within || self.init.is_some_and(|init| init.is(process.key))
    }
}

impl Processes {
    /// The living processes of a container as they are now, the oldest first.
    #[must_use]
    pub fn of(&self, members: &Members) -> Vec<View<'_>> {
        let mut known: HashMap<Key, bool> = HashMap::new();
        let mut found: Vec<View<'_>> = self
            .living
            .iter()
            .filter_map(|(_, key)| self.find(*key))
            .filter(|process| self.belongs(process, members, &mut known))
            .map(|process| self.view(process, u64::MAX))
            .collect();
        found.sort_unstable_by_key(|view| (view.process.key.started_ns, view.process.key.tgid));
        found
    }

    /// Whether a process is one of the members, or descends from one. Each process is looked at once.
    fn belongs(&self, process: &Process, members: &Members, known: &mut HashMap<Key, bool>) -> bool {
        let mut way = Vec::new();
        let mut belongs = false;
        let mut next = Some(process);
        while let Some(process) = next {
            if let Some(answer) = known.get(&process.key) {
                belongs = *answer;
                break;
            }
            way.push(process.key);
            belongs = members.has(process);
            if belongs || way.len() >= MAX_ANCESTORS {
                break;
            }
            next = self.find(process.parent).filter(|parent| parent.key.started_ns <= process.key.started_ns);
        }
        known.extend(way.into_iter().map(|key| (key, belongs)));
        belongs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::processes::Limits;

    const LABEL: Container = Container { slot: 3, epoch: 9 };

    /// A host's shell (10), a container's first process (20) with a child (21), a labelled one that came later (30), and one
    /// in its cgroup (40).
    fn table() -> Processes {
        let mut table = Processes::new(Limits::default());
        for (tgid, parent, labelled, cgroup) in [
            (10, 1, false, 5),
            (20, 10, false, 6),
            (21, 20, false, 7),
            (30, 10, true, 8),
            (40, 10, false, 99),
            (50, 10, false, 5),
        ] {
            let mut event = fake::exec();
            let header = &mut event.header;
            (header.tgid, header.started_ns, header.time_ns) = (tgid, u64::from(tgid) * 1_000 + 1, 100_000);
            (header.parent, header.parent_started_ns, header.cgroup) = (parent, u64::from(parent) * 1_000 + 1, cgroup);
            if labelled {
                (header.slot, header.epoch) = (LABEL.slot, LABEL.epoch);
            }
            table.apply(event);
        }
        table
    }

    fn found(members: &Members) -> Vec<u32> {
        table().of(members).iter().map(|view| view.process.key.tgid).collect()
    }

    #[test]
    fn members_are_known_by_label_cgroup_first_process_and_descent() {
        let init = Some(Key { tgid: 20, started_ns: 20_001 });
        assert_eq!(found(&Members { init, ..Members::default() }), [20, 21]);
        assert_eq!(found(&Members { label: Some(LABEL), ..Members::default() }), [30]);
        assert_eq!(found(&Members { cgroup: Some(99), ..Members::default() }), [40]);
        assert_eq!(found(&Members { label: Some(LABEL), cgroup: Some(99), init }), [20, 21, 30, 40]);
        assert_eq!(found(&Members { init: Some(Key { tgid: 10, started_ns: 10_001 }), ..Members::default() }).len(), 6);
    }

    #[test]
    fn nobody_belongs_to_what_is_not_known() {
        assert_eq!(found(&Members::default()), [0; 0]);
        let earlier = Some(Key { tgid: 20, started_ns: 3 });
        assert_eq!(
            found(&Members { init: earlier, cgroup: Some(0), ..Members::default() }),
            [0; 0],
            "its number was used before"
        );
        let mut ended = table();
        ended.end_others(&[], 200_000_000);
        assert!(ended.of(&Members { label: Some(LABEL), ..Members::default() }).is_empty());
    }
}
