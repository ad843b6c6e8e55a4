//! What holds between the C side, as compiled, and the Rust side.

use std::collections::{BTreeMap, HashSet};
use std::mem::offset_of;

use crate::btf::Btf;
use crate::elf::Elf;
use crate::programs::{Attach, Program, programs};
use crate::{MONITOR_OBJECT, OBJECT, abi, load, monitor};

mod calls;
mod monitor_native;
mod native;

const HEADER: &str = include_str!("../bpf/abi.h");
const MONITOR_HEADER: &str = include_str!("../bpf/monitor_abi.h");

/// `abi.h` compiled like the programs.
static LAYOUT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/layout.bpf.o"));

fn btf(object: &'static [u8]) -> Btf<'static> {
    let section = Elf::parse(object).expect("the object").section(".BTF").expect("compiled with -g");
    Btf::parse(section).expect("clang's own")
}

/// Compares a structure of the object with its mirror: same size, same fields at the same offsets, none left out.
macro_rules! same_layout {
    ($c:literal, $rust:ty, { $($fields:tt)+ }) => { same_layout!(OBJECT, $c, $rust, { $($fields)+ }) };
    ($object:ident, $c:literal, $rust:ty, { $($field:ident $(= $name:literal)?),+ $(,)? }) => {{
        let (size, members) = btf(LAYOUT).layout($c).unwrap_or_else(|| panic!("{} is not in the header", $c));
        if let Some(layout) = btf($object).layout($c) {
            assert_eq!(layout, (size, members.clone()), "{} in the object of the programs", $c);
        }
        assert_eq!(size as usize, size_of::<$rust>(), "size of {}", $c);
        let there: Vec<(&str, usize)> = members.iter().map(|(name, at)| (name.as_str(), *at as usize)).collect();
        #[allow(unused_mut, unused_assignments, reason = "not every field has another name in C")]
        let here = vec![$({
            let mut name = stringify!($field);
            $(name = $name;)?
            (name, offset_of!($rust, $field))
        }),+];
        assert_eq!(there, here, "fields of {}", $c);
    }};
}

#[test]
fn the_mirrors_have_the_layout_of_the_header() {
    same_layout!("pc_decision", abi::Decision, { op, zero });
    same_layout!("pc_set", abi::Set, {
        flags, segment, base, length, classes, sink, sources, source_start, starts, name_starts, decisions, decisions_len,
        network, capabilities, rules, retired_at, hash, unmatched, calls, call_entries, call_columns, call_starts, call_classes,
        spare,
    });
    same_layout!("pc_slot", abi::Slot, {
        flags, epoch, set, generation = "gen", runtime_mntns, unused, root, cgroup, armed_ns, runtime_root, spare,
    });
    same_layout!("pc_cgroup", abi::Cgroup, { slot, epoch });
    same_layout!("pc_label", abi::Label, { slot, epoch });
    same_layout!("pc_adoption", abi::Adoption, { cgroup, slot, epoch, init, rooted, labelled, failed });
    same_layout!("pc_config", abi::Config, { layout, armed, pin_dev, spare });
    same_layout!("pc_stats", abi::Stats, { seq, lost, blocked, audited, unresolved, busy, torn, repeated });
    same_layout!("pc_event", abi::Event, {
        kind = "type", cpu, seq, time_ns, cgroup, slot, epoch, generation = "gen", set, rule, op, verdict, source, tgid, tid,
        uid, arg, path_len, path_cut, repeats, zero, comm,
    });
}

#[test]
fn the_monitors_mirrors_have_the_layout_of_its_header() {
    use crate::monitor::abi::{Access, Config, Process, Repeat, Repeated, Stats};
    same_layout!(MONITOR_OBJECT, "pc_mon_config", Config, {
        layout, any, host, containers, overrides, zero, window_ns, build,
    });
    same_layout!(MONITOR_OBJECT, "pc_mon_stats", Stats, { seq, lost, access_seq, access_lost, aggregated });
    same_layout!(MONITOR_OBJECT, "pc_mon_access", Access, {
        op, cpu, seq, time_ns, started_ns, cgroup, slot, epoch, tgid, tid, uid, pid_ns, mnt_ns, result, repeats, arg, path_flags,
        second_flags, path_len, second_len, address_len, comm,
    });
    same_layout!(MONITOR_OBJECT, "pc_mon_repeat", Repeat, { started_ns, tgid, op, result, arg, object_len, object });
    same_layout!(MONITOR_OBJECT, "pc_mon_repeated", Repeated, { since_ns, repeats, seq, cpu, zero });
    same_layout!(MONITOR_OBJECT, "pc_mon_process", Process, {
        kind, cpu, seq, time_ns, started_ns, parent_started_ns, cgroup, slot, epoch, tgid, tid, parent, ns_pid, ns_parent,
        pid_ns, mnt_ns, uid, gid, loginuid, sessionid, status, args_flags, exe_flags, cwd_flags, exe_len, cwd_len, args_len, comm, tty,
    });
    for name in ["pc_mon_config", "pc_mon_stats", "pc_mon_process", "pc_mon_access", "pc_mon_repeat", "pc_mon_repeated"] {
        assert!(btf(MONITOR_OBJECT).layout(name).is_some(), "the object has {name}, and it was compared");
    }
    assert_eq!(btf(MONITOR_OBJECT).layout("pc_task"), btf(OBJECT).layout("pc_task"), "of the map that both use");
}

/// `#define PC_X 1u` of a header and the enumerators, by name; function-like macros and other headers' names are left out.
fn constants(header: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in header.lines() {
        let mut words = line.split("/*").next().unwrap_or_default().splitn(3, char::is_whitespace);
        let (Some("#define"), Some(name), Some(value)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if let Some(value) = number(value.trim()) {
            found.insert(name.to_owned(), value);
        }
    }
    let enumerators = btf(LAYOUT).enumerators();
    found.extend(enumerators.into_iter().filter(|(name, _)| name.starts_with("PC_")).map(|(n, v)| (n, v.into())));
    let monitors = header == MONITOR_HEADER;
    found.retain(|name: &String, _| name.starts_with("PC_MON_") == monitors);
    found
}

fn number(text: &str) -> Option<u64> {
    if let Some((value, shift)) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).and_then(|t| t.split_once("<<")) {
        return Some(number(value.trim())? << number(shift.trim())?);
    }
    let text = text.trim_end_matches(['u', 'l']);
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[test]
fn the_constants_are_those_of_the_header() {
    let found = constants(HEADER);
    let mut compared = HashSet::new();
    let mut same = |name: &'static str, value: u32| {
        assert_eq!(found.get(name), Some(&u64::from(value)), "{name}");
        compared.insert(name);
    };
    for (name, value) in [
        ("PC_LAYOUT", abi::LAYOUT),
        ("PC_SEGMENT_BYTES", abi::SEGMENT_BYTES),
        ("PC_MAX_SEGMENTS", abi::MAX_SEGMENTS),
        ("PC_SET_ALIGN", abi::SET_ALIGN),
        ("PC_ROW_DECISION", abi::ROW_DECISION),
        ("PC_ROW_SUBTREE", abi::ROW_SUBTREE),
        ("PC_ROW_FIRST_CLASS", abi::ROW_FIRST_CLASS),
        ("PC_READ", abi::READ),
        ("PC_CHANGE", abi::CHANGE),
        ("PC_EXEC", abi::EXEC),
        ("PC_GROUPS", abi::GROUPS),
        ("PC_NONE", abi::NONE),
        ("PC_ALLOW", abi::ALLOW),
        ("PC_AUDIT", abi::AUDIT),
        ("PC_BLOCK", abi::BLOCK),
        ("PC_RULE_POSTURE", abi::RULE_POSTURE),
        ("PC_RULE_NONE", abi::RULE_NONE),
        ("PC_RULE_GUARD", abi::RULE_GUARD),
        ("PC_RULE_ALIAS", abi::RULE_ALIAS),
        ("PC_RULE_UNRESOLVED", abi::RULE_UNRESOLVED),
        ("PC_RULE_ORPHAN", abi::RULE_ORPHAN),
        ("PC_RANK_POSTURE", abi::RANK_POSTURE),
        ("PC_RANK_NONE", abi::RANK_NONE),
        ("PC_DECISION_WORDS", abi::DECISION_WORDS),
        ("PC_KINDS", abi::KINDS),
        ("PC_CAPS", abi::CAPS),
        ("PC_CALL_X86_64", abi::call::X86_64),
        ("PC_CALL_I386", abi::call::I386),
        ("PC_CALL_X32", abi::call::X32),
        ("PC_CALL_SOCKETCALL", abi::call::SOCKETCALL),
        ("PC_CALL_IPC", abi::call::IPC),
        ("PC_CALL_END", abi::call::END),
        ("PC_CALL_NUMBERS", abi::call::NUMBERS),
        ("PC_CALL_ARGUMENTS", abi::call::ARGUMENTS),
        ("PC_CALL_WINDOW_NS", abi::call::WINDOW_NS),
        ("PC_CALL_REPEATS_MAX", abi::call::REPEATS_MAX),
        ("PC_AT_OPEN", abi::call::AT_OPEN),
        ("PC_AT_EXEC", abi::call::AT_EXEC),
        ("PC_AT_NAME", abi::call::AT_NAME),
        ("PC_AT_ATTRIBUTE", abi::call::AT_ATTRIBUTE),
        ("PC_AT_MOUNT", abi::call::AT_MOUNT),
        ("PC_CALLED", abi::call::CALLED),
        ("PC_MAX_SETS", abi::MAX_SETS),
        ("PC_SET_FILE", abi::SET_FILE),
        ("PC_SET_PROCESS", abi::SET_PROCESS),
        ("PC_SET_NETWORK", abi::SET_NETWORK),
        ("PC_SET_CAPABILITY", abi::SET_CAPABILITY),
        ("PC_SET_BLOCKS_PATHS", abi::SET_BLOCKS_PATHS),
        ("PC_SET_PROC_RULES", abi::SET_PROC_RULES),
        ("PC_SET_SYS_RULES", abi::SET_SYS_RULES),
        ("PC_SET_CALLS", abi::SET_CALLS),
        ("PC_SET_CALL_PATHS", abi::SET_CALL_PATHS),
        ("PC_SET_USED", abi::SET_USED),
        ("PC_MAX_SLOTS", abi::MAX_SLOTS),
        ("PC_SLOT_ARMED", abi::SLOT_ARMED),
        ("PC_SLOT_AUDITED", abi::SLOT_AUDITED),
        ("PC_SLOT_DYING", abi::SLOT_DYING),
        ("PC_EVENT_ALERT", abi::EVENT_ALERT),
        ("PC_PATH_MAX", abi::PATH_MAX),
    ] {
        same(name, value);
    }
    kinds_and_operations(&mut same);
    let left: Vec<&String> = found
        .keys()
        .filter(|name| !compared.contains(name.as_str()))
        .filter(|name| !matches!(name.as_str(), "PC_SEGMENT_WORDS" | "PC_SEGMENT_SIZE"))
        .collect();
    assert!(left.is_empty(), "these have no mirror: {left:?}");
}

fn kinds_and_operations(same: &mut impl FnMut(&'static str, u32)) {
    use crate::abi::{kind, op};
    for (name, value) in [
        ("PC_KIND_UNIX_STREAM", kind::UNIX_STREAM),
        ("PC_KIND_UNIX_DGRAM", kind::UNIX_DGRAM),
        ("PC_KIND_UNIX_SEQPACKET", kind::UNIX_SEQPACKET),
        ("PC_KIND_NETLINK", kind::NETLINK),
        ("PC_KIND_TCP", kind::TCP),
        ("PC_KIND_UDP", kind::UDP),
        ("PC_KIND_ICMP_DGRAM", kind::ICMP_DGRAM),
        ("PC_KIND_ICMP_RAW", kind::ICMP_RAW),
        ("PC_KIND_ICMPV6_DGRAM", kind::ICMPV6_DGRAM),
        ("PC_KIND_ICMPV6_RAW", kind::ICMPV6_RAW),
        ("PC_KIND_SCTP_STREAM", kind::SCTP_STREAM),
        ("PC_KIND_SCTP_SEQPACKET", kind::SCTP_SEQPACKET),
        ("PC_KIND_DCCP", kind::DCCP),
        ("PC_KIND_INET_RAW", kind::INET_RAW),
        ("PC_KIND_PACKET_RAW", kind::PACKET_RAW),
        ("PC_KIND_PACKET_DGRAM", kind::PACKET_DGRAM),
        ("PC_KIND_OTHER_STREAM", kind::OTHER_STREAM),
        ("PC_KIND_OTHER_DGRAM", kind::OTHER_DGRAM),
        ("PC_KIND_OTHER_RAW", kind::OTHER_RAW),
        ("PC_KIND_OTHER_RDM", kind::OTHER_RDM),
        ("PC_KIND_OTHER_SEQPACKET", kind::OTHER_SEQPACKET),
        ("PC_KIND_OTHER", kind::OTHER),
        ("PC_OP_READ", op::READ),
        ("PC_OP_WRITE", op::WRITE),
        ("PC_OP_CREATE", op::CREATE),
        ("PC_OP_UNLINK", op::UNLINK),
        ("PC_OP_RENAME", op::RENAME),
        ("PC_OP_LINK", op::LINK),
        ("PC_OP_SYMLINK", op::SYMLINK),
        ("PC_OP_MKDIR", op::MKDIR),
        ("PC_OP_RMDIR", op::RMDIR),
        ("PC_OP_MKNOD", op::MKNOD),
        ("PC_OP_CHMOD", op::CHMOD),
        ("PC_OP_CHOWN", op::CHOWN),
        ("PC_OP_TRUNCATE", op::TRUNCATE),
        ("PC_OP_SETATTR", op::SETATTR),
        ("PC_OP_SETXATTR", op::SETXATTR),
        ("PC_OP_RECEIVE", op::RECEIVE),
        ("PC_OP_EXEC", op::EXEC),
        ("PC_OP_MAP_EXEC", op::MAP_EXEC),
        ("PC_OP_SOCKET", op::SOCKET),
        ("PC_OP_CONNECT", op::CONNECT),
        ("PC_OP_BIND", op::BIND),
        ("PC_OP_LISTEN", op::LISTEN),
        ("PC_OP_ACCEPT", op::ACCEPT),
        ("PC_OP_SEND", op::SEND),
        ("PC_OP_CAPABLE", op::CAPABLE),
        ("PC_OP_MOUNT", op::MOUNT),
        ("PC_OP_UMOUNT", op::UMOUNT),
        ("PC_OP_MOVE_MOUNT", op::MOVE_MOUNT),
        ("PC_OP_PIVOT_ROOT", op::PIVOT_ROOT),
        ("PC_OP_BPF", op::BPF),
        ("PC_OP_URING_CREDS", op::URING_CREDS),
        ("PC_OP_SYSCALL", op::SYSCALL),
    ] {
        same(name, value);
    }
}

#[test]
fn the_monitors_constants_are_those_of_its_header() {
    use crate::monitor::abi as m;
    let here = [
        ("PC_MON_LAYOUT", m::LAYOUT),
        ("PC_MON_CLASS_PROCESS", m::CLASS_PROCESS),
        ("PC_MON_CLASS_FILE", m::CLASS_FILE),
        ("PC_MON_CLASS_NETWORK", m::CLASS_NETWORK),
        ("PC_MON_CLASS_CAPABILITY", m::CLASS_CAPABILITY),
        ("PC_MON_OVERRIDES_MAX", m::OVERRIDES_MAX),
        ("PC_MON_OVERRIDE_LEVELS", m::OVERRIDE_LEVELS),
        ("PC_MON_WINDOW_NS", m::WINDOW_NS),
        ("PC_MON_ADDRESS_MAX", m::ADDRESS_MAX),
        ("PC_MON_REPEATS_MAX", m::REPEATS_MAX),
        ("PC_MON_OBJECT_MAX", m::OBJECT_MAX),
        ("PC_MON_EXEC", m::EXEC),
        ("PC_MON_FORK", m::FORK),
        ("PC_MON_EXIT", m::EXIT),
        ("PC_MON_PATH_MAX", m::PATH_MAX),
        ("PC_MON_ARGS_MAX", m::ARGS_MAX),
        ("PC_MON_PATH_CUT", m::PATH_CUT),
        ("PC_MON_PATH_OUTSIDE", m::PATH_OUTSIDE),
        ("PC_MON_PATH_UNLINKED", m::PATH_UNLINKED),
        ("PC_MON_PATH_INTERNAL", m::PATH_INTERNAL),
        ("PC_MON_PATH_TORN", m::PATH_TORN),
        ("PC_MON_ARGS_CUT", m::ARGS_CUT),
        ("PC_MON_ARGS_UNREADABLE", m::ARGS_UNREADABLE),
        ("PC_MON_NO_SLOT", m::NO_SLOT),
    ];
    let here: BTreeMap<String, u64> = here.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    assert_eq!(constants(MONITOR_HEADER), here);
}

#[test]
fn every_map_of_the_object_is_pinned() {
    let mut maps = btf(OBJECT).variables(".maps");
    maps.sort();
    assert_eq!(maps, load::MAPS);
    let mut maps = btf(MONITOR_OBJECT).variables(".maps");
    maps.sort();
    assert_eq!(maps, [&monitor::load::MAPS[..], &[monitor::load::SHARED]].concat());
    // 15 bytes are left of a name, and contained tasks are kept from what begins so: hooks_guard.h.
    assert!(maps.iter().all(|name| name.starts_with("pc_") && name.len() <= 15), "{maps:?}");
}

#[test]
fn the_monitor_needs_no_security_module() {
    let programs = programs(&Elf::parse(MONITOR_OBJECT).expect("the object")).expect("known sections");
    let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    let wanted = [
        "accept", "bind", "capable", "chmod", "chown", "connect", "exec", "exit", "fork", "ftrunc", "link", "listen", "mkdir",
        "mknod", "open", "refused", "rename", "rmdir", "send", "socket", "symlink", "trunc", "unlink",
    ];
    assert_eq!(names, wanted.map(|name| format!("pc_mon_{name}")));
    // The kernel cuts names off after 15 bytes.
    assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
    let traces = |program: &Program| matches!(program.attach, Attach::Tracepoint(_) | Attach::Exit(_));
    assert!(programs.iter().all(traces), "{programs:?}");
}

#[test]
fn every_program_has_a_place() {
    let programs = programs(&Elf::parse(OBJECT).expect("the object")).expect("known sections");
    let hooks = |wanted: &str| programs.iter().any(|p| p.attach == Attach::Lsm(wanted.to_owned()));
    assert!(hooks("file_open") && hooks("bprm_check_security") && hooks("task_alloc"));
    let names: HashSet<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(names.len(), programs.len(), "names are pins");
    assert!(names.contains("pc_stamp"), "run on demand by Kernel::stamp");
    // The kernel cuts names off after 15 bytes; the guard of our own objects goes by their beginning.
    assert!(names.iter().all(|name| name.starts_with("pc_")));
}

#[test]
fn the_globals_that_the_loader_sets_are_there() {
    let rodata = btf(OBJECT).variables(".rodata");
    for name in ["pc_ladder", "pc_setattr_args", "pc_rename_lock", "pc_mount_lock"] {
        assert!(rodata.iter().any(|there| there == name), "{name} is not in .rodata: {rodata:?}");
    }
    let rodata = btf(MONITOR_OBJECT).variables(".rodata");
    for name in ["pc_mon_build", "pc_rename_lock", "pc_mount_lock"] {
        assert!(rodata.iter().any(|there| there == name), "{name} is not in .rodata: {rodata:?}");
    }
}

#[test]
fn the_programs_cast_through_the_kernel_function_or_not_at_all() {
    let with = crate::elf::resolve_casts(OBJECT, Some(0x0102_0304)).expect("the object");
    let without = crate::elf::resolve_casts(OBJECT, None).expect("the object");
    let changed = |other: &[u8]| OBJECT.chunks(8).zip(other.chunks(8)).filter(|(a, b)| a != b).count();
    assert!(changed(&with) > 0, "bpf/walk.h has placeholder calls");
    assert_eq!(changed(&with), changed(&without));
}
