//! A node with more containers than can be armed: each alert has the name of its own, whatever the order, in bounded memory.

use std::time::Instant;

use portcullis_agent::alerts::Names;
use portcullis_agent::alerts::clock::Clock;
use portcullis_agent::control::EventFormat;
use portcullis_agent::kubearmor::Host;
use portcullis_ebpf::{Event, abi};
use portcullis_enforcer::StateDir;
use serde_json::{Value, json};

const MANY: u32 = 10_000;
/// The names of all of them with their labels, an index of the records, and the rest of this test.
const MAX_GROWTH_KIB: u64 = 24 << 10;

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim_end_matches("kB").trim().parse().ok()
}

#[test]
fn of_ten_thousand_containers_each_alert_has_its_own_name_in_bounded_memory() {
    let place = tempfile::tempdir().unwrap();
    let containers = place.path().join("containers");
    std::fs::create_dir_all(&containers).unwrap();
    for slot in 0..MANY {
        let record = json!({
            "id": format!("{slot:064x}"), "name": format!("web-{slot}"), "image": "registry/web:1", "namespace": "shop",
            "pod": format!("web-{slot}-x"), "labels": {"app": "web", "tier": "front"}, "pid": 1, "cgroupId": slot, "cgroupPath": "/c",
            "slot": slot, "epoch": 1, "set": 5, "hash": "h", "audited": false, "policies": [], "unenforced": 0, "armedAt": 6,
        });
        std::fs::write(containers.join(format!("{slot:064x}.json")), record.to_string()).unwrap();
    }
    let mut names = Names::new(StateDir::at(place.path()), Host::this(""));
    let before = resident_kib().unwrap();
    let moment = Clock::now().moment(2_000, 3_000);
    let begun = Instant::now();
    for round in 0..2u64 {
        for number in 0..MANY {
            // Each once, and no two neighbours one after the other.
            let slot = number * 7_919 % MANY;
            let header =
                abi::Event { slot, epoch: 1, generation: 1, verdict: abi::BLOCK, op: abi::op::READ, ..abi::Event::default() };
            let event = Event { header, path: b"/etc/shadow".to_vec(), lost_before: 0 };
            let alert = names.alert(event, moment, None).unwrap();
            let line: Value = serde_json::from_slice(&alert.written(EventFormat::Json)).unwrap();
            assert_eq!(line["container"]["name"], format!("web-{slot}"), "round {round}");
        }
    }
    let (took, grown) = (begun.elapsed(), resident_kib().unwrap().saturating_sub(before));
    println!("{} alerts of {MANY} containers: {took:?}, {grown} KiB more resident", 2 * MANY);
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB more resident");
}
