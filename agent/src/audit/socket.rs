//! The multicast group of audit records.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt};

/// `AUDIT_NLGRP_READLOG` of `linux/audit.h`, as a mask.
const READ_LOG: u32 = 1;
/// `AUDIT_AVC` of `linux/audit.h`: what security modules say.
const AVC: u16 = 1400;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Longest record: `MAX_AUDIT_MESSAGE_LENGTH` of `linux/audit.h` and its header.
const MAX_RECORD_BYTES: usize = 8970 + HEADER_BYTES;
/// What the kernel may keep for us: some thousand records.
const BUFFER_BYTES: usize = 4 << 20;

/// The socket.
pub(super) struct AuditSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<'b> {
    /// Nothing is there.
    Nothing,
    /// The kernel had no room for some records.
    Overrun,
    /// What a security module says.
    Avc(&'b [u8]),
    /// Somebody else's record, or one that is none.
    Other,
}

impl AuditSocket {
    /// Joins the group, which takes CAP_AUDIT_READ.
    pub(super) fn open() -> Result<AuditSocket, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::AUDIT))?;
        // Without CAP_NET_ADMIN the system's limit holds, which is less.
        sockopt::set_socket_recv_buffer_size_force(&fd, BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&fd, BUFFER_BYTES))?;
        bind(&fd, &SocketAddrNetlink::new(0, READ_LOG))?;
        Ok(AuditSocket { fd, buffer: vec![0; MAX_RECORD_BYTES] })
    }

    pub(super) fn read(&mut self) -> Result<Read<'_>, Errno> {
        match recvfrom(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((length, _, sender)) => {
                let record = if is_kernel(sender) { text(&self.buffer[..length]) } else { None };
                Ok(record.map_or(Read::Other, Read::Avc))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Read::Nothing),
            Err(Errno::NOBUFS) => Ok(Read::Overrun),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for AuditSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whoever has CAP_NET_ADMIN in this network namespace may send to this socket, and is no witness of denials.
fn is_kernel(sender: Option<SocketAddrAny>) -> bool {
    sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok()).is_some_and(|sender| sender.pid() == 0)
}

/// The text of a record. `nlmsg_len` is not heeded: for audit records it does not count the header (`kauditd_send_multicast_skb`),
/// and a datagram is one record.
fn text(datagram: &[u8]) -> Option<&[u8]> {
    let (header, text) = datagram.split_at_checked(HEADER_BYTES)?;
    let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
    let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    (kind == AVC).then_some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u16, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(text);
        bytes
    }

    #[test]
    fn only_the_kernel_is_believed() {
        assert!(is_kernel(Some(SocketAddrNetlink::new(0, READ_LOG).into())));
        assert!(!is_kernel(Some(SocketAddrNetlink::new(7, READ_LOG).into())));
        assert!(!is_kernel(None));
    }

    #[test]
    fn a_record_is_of_a_security_module_or_another_s() {
        assert_eq!(text(&datagram(AVC, b"audit(1.2:3): x\0\0")), Some(&b"audit(1.2:3): x"[..]));
        assert_eq!(text(&datagram(AVC, b"")), Some(&b""[..]));
        assert_eq!(text(&datagram(1300, b"audit(1.2:3): x")), None);
        for length in 0..HEADER_BYTES {
            assert_eq!(text(&datagram(AVC, b"")[..length]), None);
        }
    }
}
