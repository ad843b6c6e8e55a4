//! Which container has or had a slot during an epoch, for whoever asks with each event.

use std::collections::HashMap;

use crate::index::Index;
use crate::{ContainerRecord, Error, StateDir};

/// An index of the records of containers.
#[derive(Debug)]
pub struct Tenants {
    state: StateDir,
    records: Index<Tenancy>,
    ids: HashMap<Tenancy, String>,
}

/// Slot and epoch.
type Tenancy = (u32, u32);

impl Tenants {
    /// Of the records in a state directory.
    #[must_use]
    pub fn of(state: StateDir) -> Tenants {
        Tenants { state, records: Index::default(), ids: HashMap::new() }
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The container that has or had a slot during an epoch, as it is on record now.
    ///
    /// # Errors
    /// If the records cannot be listed.
    pub fn find(&mut self, slot: u32, epoch: u32) -> Result<Option<ContainerRecord>, Error> {
        if let Some(record) = self.on_record((slot, epoch)) {
            return Ok(Some(record));
        }
        self.look()?;
        match self.on_record((slot, epoch)) {
            Some(record) => Ok(Some(record)),
            None => self.state.departed(slot, epoch),
        }
    }

    fn on_record(&self, tenancy: Tenancy) -> Option<ContainerRecord> {
        let record = self.state.container(self.ids.get(&tenancy)?).ok()??;
        ((record.slot, record.epoch) == tenancy).then_some(record)
    }

    fn look(&mut self) -> Result<(), Error> {
        let tenancy = |id: &str| self.state.container(id).ok().flatten().map(|record| (record.slot, record.epoch));
        self.records.update(self.state.container_files()?, tenancy);
        self.ids = self.records.iter().map(|(id, tenancy)| (*tenancy, id.to_owned())).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// More than can be armed.
    const MANY: u32 = 10_000;

    fn record(number: u32, epoch: u32) -> ContainerRecord {
        let text = format!(
            r#"{{"id":"{number:064x}","name":"web-{number}","image":"i","namespace":"shop","pid":1,"cgroupId":2,"cgroupPath":"/c",
            "slot":{number},"epoch":{epoch},"set":5,"hash":"h","audited":false,"policies":[],"unenforced":0,"armedAt":6}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn name(tenants: &mut Tenants, slot: u32, epoch: u32) -> Option<String> {
        tenants.find(slot, epoch).unwrap().map(|record| record.name)
    }

    #[test]
    fn of_ten_thousand_containers_each_is_found_and_each_record_is_read_once() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        state.create().unwrap();
        (0..MANY).for_each(|number| state.write_container(&record(number, 1)).unwrap());
        let mut tenants = Tenants::of(state.clone());
        let begun = Instant::now();
        assert_eq!(name(&mut tenants, 7, 1).as_deref(), Some("web-7"));
        let first = begun.elapsed();
        for number in 0..MANY {
            assert_eq!(name(&mut tenants, number, 1), Some(format!("web-{number}")));
        }
        let all = begun.elapsed() - first;
        // Another comes, and its record is the only one that is read: those of the others may be gone from the disk meanwhile.
        state.write_container(&record(MANY, 1)).unwrap();
        let begun = Instant::now();
        assert_eq!(name(&mut tenants, MANY, 1), Some(format!("web-{MANY}")));
        let one_more = begun.elapsed();
        println!("{MANY} records: all read in {first:?}, each then in {:?}, one more found in {one_more:?}", all / MANY);
        assert!(one_more < first / 2 + Duration::from_millis(1), "{one_more:?} is not less than {first:?} for all");
        assert_eq!((tenants.records.len(), tenants.ids.len()), (MANY as usize + 1, MANY as usize + 1));
    }

    #[test]
    fn what_is_armed_anew_disarmed_or_damaged_is_what_it_is_now() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        state.create().unwrap();
        state.write_container(&record(1, 1)).unwrap();
        let mut tenants = Tenants::of(state.clone());
        assert_eq!((name(&mut tenants, 1, 1).as_deref(), name(&mut tenants, 1, 2)), (Some("web-1"), None));
        // The same container in another epoch of its slot.
        state.write_container(&record(1, 2)).unwrap();
        assert_eq!(name(&mut tenants, 1, 1), None, "it is that no more, and nobody departed");
        assert_eq!(name(&mut tenants, 1, 2).as_deref(), Some("web-1"));
        state.retire_container(&record(1, 2), 3).unwrap();
        state.remove_container(&record(1, 2).id).unwrap();
        assert_eq!(name(&mut tenants, 1, 2).as_deref(), Some("web-1"), "among the departed");
        std::fs::write(place.path().join("containers/damaged.json"), "{").unwrap();
        state.write_container(&record(2, 1)).unwrap();
        assert_eq!(name(&mut tenants, 2, 1).as_deref(), Some("web-2"));
        assert_eq!(name(&mut tenants, 3, 1), None);
        assert_eq!(tenants.records.len(), 2, "what is gone is forgotten");
    }
}
