//! Addresses of sockets, as the kernel holds them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// include/linux/socket.h
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// An address of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address<'a> {
    /// An address and port. The scope of IPv6 is the interface's number.
    Inet(SocketAddr),
    /// A name of a unix socket: a path as the caller wrote it, or after a zero byte an abstract name; empty for none.
    Unix(&'a [u8]),
    /// Of another family, or cut short: what follows the family's number.
    Other {
        /// The family.
        family: u16,
        /// The rest of it.
        data: &'a [u8],
    },
}

impl<'a> Address<'a> {
    /// Reads a `struct sockaddr`. Nothing where there is not even a family.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Address<'a>> {
        let (family, data) = bytes.split_first_chunk()?;
        let family = u16::from_ne_bytes(*family);
        Some(match family {
            AF_UNIX => Address::Unix(unix(data)),
            AF_INET => inet(data).map_or(Address::Other { family, data }, Address::Inet),
            AF_INET6 => inet6(data).map_or(Address::Other { family, data }, Address::Inet),
            _ => Address::Other { family, data },
        })
    }
}

/// A path ends at its first zero byte, an abstract name where the address does (unix(7)).
fn unix(name: &[u8]) -> &[u8] {
    match name.iter().position(|byte| *byte == 0) {
        Some(end) if end > 0 => &name[..end],
        _ => name,
    }
}

fn inet(data: &[u8]) -> Option<SocketAddr> {
    let (port, rest) = data.split_first_chunk()?;
    let address: &[u8; 4] = rest.first_chunk()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(*address), u16::from_be_bytes(*port)).into())
}

fn inet6(data: &[u8]) -> Option<SocketAddr> {
    let (port, rest) = data.split_first_chunk()?;
    let (flow, rest) = rest.split_first_chunk()?;
    let (address, rest) = rest.split_first_chunk::<16>()?;
    // The scope may be left out (RFC 2133).
    let scope = rest.first_chunk().map_or(0, |scope| u32::from_ne_bytes(*scope));
    let flow = u32::from_be_bytes(*flow);
    Some(SocketAddrV6::new(Ipv6Addr::from(*address), u16::from_be_bytes(*port), flow, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let two = |family: u16| family.to_ne_bytes().to_vec();
        let v4 = [two(AF_INET), vec![0, 53, 10, 0, 0, 1]].concat();
        assert_eq!(Address::parse(&v4), Some(Address::Inet("10.0.0.1:53".parse().expect("an address"))));
        let mut v6 = [two(AF_INET6), vec![1, 0xbb, 0, 0, 0, 0]].concat();
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(Address::parse(&v6), Some(Address::Inet("[::1]:443".parse().expect("an address"))));
        v6.extend(7u32.to_ne_bytes());
        let Some(Address::Inet(SocketAddr::V6(scoped))) = Address::parse(&v6) else {
            panic!("an address of IPv6");
        };
        assert_eq!(scoped.scope_id(), 7);
    }

    #[test]
    fn names_of_unix_sockets_end_where_they_should() {
        let of = |name: &[u8]| [&AF_UNIX.to_ne_bytes()[..], name].concat();
        assert_eq!(Address::parse(&of(b"/dev/log\0rest")), Some(Address::Unix(b"/dev/log")));
        assert_eq!(Address::parse(&of(b"/dev/log")), Some(Address::Unix(b"/dev/log")));
        assert_eq!(Address::parse(&of(b"\0a\0b")), Some(Address::Unix(b"\0a\0b")));
        assert_eq!(Address::parse(&of(b"")), Some(Address::Unix(b"")));
    }

    #[test]
    fn what_is_cut_short_is_told_as_it_is() {
        assert_eq!(Address::parse(&[]), None);
        assert_eq!(Address::parse(&[2]), None);
        let data = [0u8, 53, 10, 0, 0];
        let cut = [&AF_INET.to_ne_bytes()[..], &data].concat();
        assert_eq!(Address::parse(&cut), Some(Address::Other { family: AF_INET, data: &data }));
        let netlink = [&16u16.to_ne_bytes()[..], &[9; 10]].concat();
        assert_eq!(Address::parse(&netlink), Some(Address::Other { family: 16, data: &[9; 10] }));
    }
}
