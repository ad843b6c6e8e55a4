//! Files, sockets and capabilities: each operation that a container does, once, as what it is, with the answer.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::abi::NO_SLOT;
use portcullis_ebpf::monitor::{AccessEvent, AccessEvents, Address, Classes, Monitor, Visibility};

use super::unusable;
use crate::bundle::Bundle;
use crate::conformance::driver;
use crate::guest::{self, Guest};
use crate::image::Overlay;
use crate::process::Talk as _;
use crate::report::Report;
use crate::runtime::{Runtime, START_LIMIT};
use crate::{Failure, Result};

const EPERM: u32 = 1;
const EACCES: u32 = 13;
/// The probe's peer.
const DISCARD: u16 = 9;

/// What is told of an operation.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    op: u32,
    path: String,
    second: String,
    address: String,
    result: u32,
}

/// One case: what the probe is told to do, and all that is told of it.
type Case<'a> = (&'a str, Vec<Told>);

fn of_path(op: u32, path: &str) -> Told {
    Told { op, path: path.to_owned(), second: String::new(), address: String::new(), result: 0 }
}

fn of_two(op: u32, path: &str, second: &str) -> Told {
    Told { second: second.to_owned(), ..of_path(op, path) }
}

fn of_socket(op: u32, address: &str) -> Told {
    Told { address: address.to_owned(), ..of_path(op, "") }
}

fn denied(told: Told, result: u32) -> Told {
    Told { result, ..told }
}

/// Each is one system call on the path, and in this order.
fn files() -> Vec<Case<'static>> {
    vec![
        ("create\t/data/a", vec![of_path(op::CREATE, "/data/a"), of_path(op::WRITE, "/data/a")]),
        ("write\t/data/a", vec![of_path(op::WRITE, "/data/a")]),
        ("read\t/data/a", vec![of_path(op::READ, "/data/a")]),
        ("opendir\t/data", vec![of_path(op::READ, "/data")]),
        ("trunc\t/data/a", vec![of_path(op::WRITE, "/data/a"), of_path(op::TRUNCATE, "/data/a")]),
        ("truncate\t/data/a", vec![of_path(op::TRUNCATE, "/data/a")]),
        ("ftruncate\t/data/a", vec![of_path(op::WRITE, "/data/a"), of_path(op::TRUNCATE, "/data/a")]),
        ("chmod\t/data/a", vec![of_path(op::CHMOD, "/data/a")]),
        ("chown\t/data/a", vec![of_path(op::CHOWN, "/data/a")]),
        ("link\t/data/a\t/data/b", vec![of_two(op::LINK, "/data/a", "/data/b")]),
        ("rename\t/data/b\t/data/c", vec![of_two(op::RENAME, "/data/b", "/data/c")]),
        ("symlink\t/data/s\t../etc/hosts", vec![of_two(op::SYMLINK, "/data/s", "../etc/hosts")]),
        // By the link that it leads through, the file that is opened.
        ("read\t/data/s", vec![of_path(op::READ, "/etc/hosts")]),
        ("mkdir\t/data/d", vec![of_path(op::MKDIR, "/data/d")]),
        ("mknod\t/data/d/f", vec![of_path(op::MKNOD, "/data/d/f")]),
        ("unlink\t/data/d/f", vec![of_path(op::UNLINK, "/data/d/f")]),
        ("rmdir\t/data/d", vec![of_path(op::RMDIR, "/data/d")]),
        ("read\t/srv/secret", vec![denied(of_path(op::READ, "/srv/secret"), EACCES)]),
        ("unlink\t/srv/secret", vec![denied(of_path(op::UNLINK, "/srv/secret"), EACCES)]),
    ]
}

fn sockets() -> Vec<Case<'static>> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, DISCARD)).to_string();
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, DISCARD)).to_string();
    let socket = || of_socket(op::SOCKET, "");
    vec![
        ("socket\t2\t2\t0", vec![socket()]),
        ("connect\t2\t1\t0", vec![socket(), of_socket(op::CONNECT, &v4)]),
        ("connect\t10\t1\t0", vec![socket(), of_socket(op::CONNECT, &v6)]),
        ("sendto\t2\t2\t0", vec![socket(), of_socket(op::SEND, &v4)]),
        ("bind\t2\t1\t0", vec![socket(), of_socket(op::BIND, "127.0.0.1:0")]),
        ("listen\t2\t1\t0", vec![socket(), of_socket(op::BIND, "127.0.0.1:0"), of_socket(op::LISTEN, "127.0.0.1:port")]),
        (
            "accept\t1\t1\t0",
            vec![
                socket(),
                of_socket(op::BIND, "@portcullis-probe"),
                of_socket(op::LISTEN, "@portcullis-probe"),
                socket(),
                of_socket(op::CONNECT, "@portcullis-probe"),
                of_socket(op::ACCEPT, ""), // its peer has no name
            ],
        ),
        ("socket\t2\t3\t1", vec![denied(socket(), EACCES)]),
    ]
}

/// Whatever else the kernel asks of the probe is not on trial: the capability's number, and the answer.
const CAPABILITIES: [(&str, u32, u32); 3] = [
    ("cap\tsys_chroot", 18, 0),
    ("cap\tsys_time", 25, EPERM), // which the container does not have
    ("cap\tnet_raw", 13, EPERM),  // which the policy denies
];

/// Runs one container for all cases, and what the host does.
pub(super) fn run(guest: &Guest, report: &mut Report, monitor: &Monitor, events: &mut AccessEvents, root: &Path) {
    let Some(runtime) = guest.runtimes.first().copied() else {
        report.fail("monitor/access", "no runtime is installed");
        return;
    };
    let all = [("access", Classes::FILE, files()), ("access", Classes::NETWORK, sockets())];
    if let Err(error) = container(guest, report, monitor, events, root, runtime, &all, &CAPABILITIES) {
        report.fail("monitor/access", error);
    }
    // An overlay opens its layer's file behind each that is asked for, and copies it up before it changes.
    let overlay = Overlay::mount(root, &guest.work.join("monitor/overlay")).and_then(|overlay| {
        let files = [("overlay", Classes::FILE, files())];
        container(guest, report, monitor, events, &overlay.merged, runtime, &files, &[])
    });
    if let Err(error) = overlay {
        report.fail("monitor/overlay", error);
    }
    report.run("monitor/access/host", || {
        let told = |classes: Classes, events: &mut AccessEvents| -> Result<Vec<AccessEvent>> {
            monitor.set_visibility(Visibility { host: classes, containers: Classes::ALL }).map_err(unusable)?;
            drain(events)?;
            connect_here()?;
            let mut told = drain(events)?;
            told.retain(|event| event.header.tgid == std::process::id() && event.header.op == op::ACCEPT);
            Ok(told)
        };
        let unseen = told(Classes::NONE, events)?;
        let seen = told(Classes::NETWORK, events)?;
        monitor.set_visibility(Visibility::default()).map_err(unusable)?;
        Ok(match (&unseen[..], &seen[..]) {
            ([], [one]) if one.header.slot == NO_SLOT && matches!(one.address(), Some(Address::Inet(_))) => Ok(()),
            told => Err(format!("when not asked for, and when it was: {told:#?}")),
        })
    });
}

fn connect_here() -> Result<()> {
    let failed = |source| Failure::io("a connection of this guest with itself", source);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let _stream = TcpStream::connect(listener.local_addr().map_err(failed)?).map_err(failed)?;
    listener.accept().map(drop).map_err(failed)
}

pub(super) fn drain(events: &mut AccessEvents) -> Result<Vec<AccessEvent>> {
    let mut all = Vec::new();
    while let Some(event) = events.next(Duration::ZERO).map_err(unusable)? {
        all.push(event);
    }
    Ok(all)
}

#[expect(clippy::too_many_arguments, reason = "what a container is run with, and what it is asked to do")]
fn container(
    guest: &Guest,
    report: &mut Report,
    monitor: &Monitor,
    events: &mut AccessEvents,
    root: &Path,
    runtime: Runtime,
    operations: &[(&str, Classes, Vec<Case<'static>>)],
    capabilities: &[(&str, u32, u32)],
) -> Result<()> {
    guest::remove_tree(&root.join("data"))?;
    guest::make_directory(&root.join("data"))?;
    guest::write(&root.join("srv/secret"), b"secret")?;
    let mut bundle = Bundle::new("accessed", root, &["/probe", "--drive"]);
    bundle.facts.labels.insert("app".to_owned(), "monitored".to_owned());
    let mut probe = runtime.start(guest, &bundle)?;
    probe.line(START_LIMIT)?;
    monitor.set_window(Duration::ZERO).map_err(unusable)?;
    for (name, class, cases) in operations {
        monitor.set_visibility(Visibility { host: Classes::NONE, containers: *class }).map_err(unusable)?;
        for (line, wanted) in cases {
            report.run(&format!("monitor/{name}/{}", line.replace('\t', " ")), || {
                drain(events)?;
                driver::ask(&mut probe, &format!("1\t-\t-1\t{line}"))?;
                Ok(compare(&drain(events)?, wanted))
            });
        }
    }
    let classes = Classes::CAPABILITY;
    monitor.set_visibility(Visibility { host: Classes::NONE, containers: classes }).map_err(unusable)?;
    for &(line, number, result) in capabilities {
        report.run(&format!("monitor/access/{}", line.replace('\t', " ")), || {
            drain(events)?;
            driver::ask(&mut probe, &format!("1\t-\t-1\t{line}"))?;
            let all = drain(events)?;
            let told: Vec<_> = all.iter().filter(|event| event.header.arg[0] == number).collect();
            let as_wanted = |event: &AccessEvent| {
                event.header.op == op::CAPABLE && event.header.result == result && event.header.slot != NO_SLOT
            };
            Ok(match told[..] {
                [one] if as_wanted(one) => Ok(()),
                _ => Err(format!("capability {number} with the answer {result} was not told once: {all:#?}")),
            })
        });
    }
    monitor.set_visibility(Visibility::default()).map_err(unusable)?;
    probe.stop();
    Ok(())
}

fn compare(told: &[AccessEvent], wanted: &[Told]) -> std::result::Result<(), String> {
    let seen: Vec<Told> = told.iter().map(seen).collect();
    if seen != wanted {
        return Err(format!("wanted {wanted:#?}\ntold {told:#?}"));
    }
    let first = &told[0].header;
    let same = |event: &AccessEvent| {
        let h = &event.header;
        (h.tgid, h.started_ns, h.slot, h.epoch, h.pid_ns, h.mnt_ns, h.cgroup)
            == (first.tgid, first.started_ns, first.slot, first.epoch, first.pid_ns, first.mnt_ns, first.cgroup)
            && (h.path_flags, h.second_flags, h.repeats, h.uid) == (0, 0, 0, 0)
    };
    if first.slot != NO_SLOT && told.iter().all(same) { Ok(()) } else { Err(format!("not of one labelled process: {told:#?}")) }
}

/// As cases are written: a listener's port and a probe's number are left out.
fn seen(event: &AccessEvent) -> Told {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let address = match event.address() {
        Some(Address::Inet(address)) if event.header.op == op::LISTEN && address.port() != 0 => format!("{}:port", address.ip()),
        Some(Address::Inet(address)) => address.to_string(),
        Some(Address::Unix(name)) => {
            text(name).replacen('\0', "@", 1).trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-').to_owned()
        }
        Some(Address::Other { .. }) => format!("{:?}", event.address),
        None => String::new(),
    };
    Told { op: event.header.op, path: text(&event.path), second: text(&event.second), address, result: event.header.result }
}
