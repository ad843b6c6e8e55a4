//! Sockets and capabilities: each use, once, with its address.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;

use super::super::native::Room;
use super::access::{done_by, drain, named, watch};
use crate::abi::op;
use crate::monitor::{AccessEvent, Address, Classes};

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const STREAM: u32 = 1;
const DGRAM: u32 = 2;
const TCP: u32 = 6;
const UDP: u32 = 17;

fn inet(event: &AccessEvent) -> Option<SocketAddr> {
    match event.address() {
        Some(Address::Inet(address)) => Some(address),
        _ => None,
    }
}

fn unix(event: &AccessEvent) -> &[u8] {
    match event.address() {
        Some(Address::Unix(name)) => name,
        _ => b"none",
    }
}

fn operations(told: &[AccessEvent]) -> Vec<u32> {
    told.iter().map(|event| event.header.op).collect()
}

#[test]
fn a_connection_is_told_by_both_of_its_ends() {
    let Some(room) = Room::new("tcp") else {
        return;
    };
    let Some((_monitor, mut events)) = watch(&room, Classes::NETWORK) else {
        return;
    };
    for (family, any) in [(AF_INET, "127.0.0.1:0"), (10, "[::1]:0")] {
        let any: SocketAddr = any.parse().expect("an address");
        if TcpListener::bind(any).is_err() {
            eprintln!("skipped: {any} is no address here");
            continue;
        }
        let (ends, get) = mpsc::channel();
        let told = done_by(&mut events, "pc-tcp", move || {
            let listener = TcpListener::bind(any).expect("a listener");
            let stream = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
            let (_, peer) = listener.accept().expect("the same");
            ends.send((listener.local_addr().expect("its address"), stream.local_addr().expect("its address"), peer))
                .expect("a receiver");
        });
        let (listening, connected, peer) = get.recv().expect("the ends");
        assert_eq!(peer, connected);
        assert_eq!(operations(&told), [op::SOCKET, op::BIND, op::LISTEN, op::SOCKET, op::CONNECT, op::ACCEPT]);
        let addresses: Vec<_> = told.iter().map(inet).collect();
        assert_eq!(addresses, [None, Some(any), Some(listening), None, Some(listening), Some(peer)]);
        assert_eq!(told[0].header.arg[..2], [family, STREAM]);
        for event in told.iter().filter(|event| event.header.op != op::SOCKET) {
            assert_eq!((event.header.arg, event.header.result), ([family, STREAM, TCP], 0));
        }
    }
    assert_eq!((events.lost(), events.malformed()), (0, 0));
}

#[test]
fn only_datagrams_that_name_their_peer_are_told() {
    let Some(room) = Room::new("udp") else {
        return;
    };
    let Some((_monitor, mut events)) = watch(&room, Classes::NETWORK) else {
        return;
    };
    let to = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = to.local_addr().expect("its address");
    let told = done_by(&mut events, "pc-udp", move || {
        let from = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        from.send_to(b"x", address).expect("a datagram");
        from.connect(address).expect("a peer");
        from.send(b"x").expect("a datagram");
    });
    assert_eq!(operations(&told), [op::SOCKET, op::BIND, op::SEND, op::CONNECT]);
    assert_eq!((inet(&told[2]), told[2].header.arg), (Some(address), [AF_INET, DGRAM, UDP]));
}

#[test]
fn unix_sockets_are_told_by_their_names() {
    let Some(room) = Room::new("unix") else {
        return;
    };
    let Some((_monitor, mut events)) = watch(&room, Classes::NETWORK) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    // Longer than what is remembered of an object, and so each is told whatever the window.
    let path = directory.path().join("a-name-that-is-long-enough-to-be-longer-than-an-object");
    let at = path.clone();
    let abstract_name = format!("portcullis-test-{}", std::process::id());
    let abstract_address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name).expect("a name");
    let told = done_by(&mut events, "pc-unix", move || {
        let listener = UnixListener::bind(&at).expect("a listener");
        let _stream = UnixStream::connect(&at).expect("a connection");
        listener.accept().expect("the same");
        let to = UnixDatagram::bind_addr(&abstract_address).expect("a socket");
        let from = UnixDatagram::unbound().expect("a socket");
        from.send_to_addr(b"x", &abstract_address).expect("a datagram");
        drop(to);
    });
    let path = path.as_os_str().as_bytes();
    let abstract_name = [b"\0", abstract_name.as_bytes()].concat();
    let wanted: Vec<(u32, &[u8])> = vec![
        (op::SOCKET, b"none"),
        (op::BIND, path),
        (op::LISTEN, path),
        (op::SOCKET, b"none"),
        (op::CONNECT, path),
        (op::ACCEPT, b"none"), // its peer has no name
        (op::SOCKET, b"none"),
        (op::BIND, &abstract_name),
        (op::SOCKET, b"none"),
        (op::SEND, &abstract_name),
    ];
    assert_eq!(told.iter().map(|event| (event.header.op, unix(event))).collect::<Vec<_>>(), wanted);
    assert!(told.iter().all(|event| event.header.arg[0] == AF_UNIX));
}

const CAP_SYS_CHROOT: u32 = 18;

#[test]
fn capabilities_are_told_with_whether_they_were_granted() {
    let Some(room) = Room::new("capable") else {
        return;
    };
    let Some((_monitor, mut events)) = watch(&room, Classes::CAPABILITY) else {
        return;
    };
    let mut run = |uid: u32| {
        drain(&mut events);
        Command::new("chroot").args(["/", "/bin/true"]).uid(uid).output().expect("a child");
        let mut told = drain(&mut events);
        told.retain(|event| named(event, "chroot") && event.header.arg[0] == CAP_SYS_CHROOT);
        told.iter().map(|event| (event.header.op, event.header.uid, event.header.result)).collect::<Vec<_>>()
    };
    assert_eq!(run(0), [(op::CAPABLE, 0, 0)]);
    assert_eq!(run(65534), [(op::CAPABLE, 65534, 1)], "EPERM");
}
