//! Links, addresses and routes of one network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use super::namespace::Namespace;
use super::netlink::{ACK, Answer, CREATE, DUMP, EXCLUSIVE, Message, Socket, attributes, u32_at};
use crate::{Error, Result};
use std::os::fd::{AsFd, AsRawFd};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const INET: u8 = 2;
const INET6: u8 = 10;
const UP: u32 = 1;
const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
/// The table of routes that `ip route` shows.
const MAIN: u8 = 254;

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: IpAddr,
    /// How many bits of that count; none in a default route.
    pub prefix: u8,
    /// The link it leaves by.
    pub link: Option<u32>,
    /// Whether it is among those that packets to elsewhere follow by default, and leads somewhere.
    pub is_main: bool,
}

/// A change to what is in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A link carries packets.
    Up {
        /// Which.
        link: u32,
    },
    /// A link has an address, and the others of its prefix are at its other end.
    Address {
        /// Which link.
        link: u32,
        /// The address.
        address: IpAddr,
        /// How many bits all at the link have in common.
        prefix: u8,
    },
    /// What is not known otherwise goes to a neighbour.
    Default {
        /// The neighbour.
        via: IpAddr,
        /// On this link.
        link: u32,
    },
    /// What goes to these addresses is refused at once.
    Prohibit {
        /// The addresses.
        to: IpAddr,
        /// How many bits of that count.
        prefix: u8,
    },
}

/// The links, addresses and routes of the namespace that the calling thread was in when it opened this.
#[derive(Debug)]
pub struct Links(Socket);

impl Links {
    /// Opens them.
    pub fn open() -> Result<Links> {
        Socket::open(None).map(Links).map_err(|e| Error::call("ask the kernel for its links", e))
    }

    /// Makes a pair of links: one here, its other end in another namespace. False when the name is taken.
    pub fn add_pair(&self, name: &str, (peer, namespace): (&str, &Namespace), mtu: u32) -> Result<bool> {
        let size = mtu.to_ne_bytes();
        let place = namespace.as_fd().as_raw_fd().to_ne_bytes();
        let other_end = |message: Message| {
            message.raw(&[0; LINK_HEADER]).text(IFLA_IFNAME, peer).with(IFLA_MTU, &size).with(IFLA_NET_NS_FD, &place)
        };
        let pair = |message: Message| message.nest(VETH_INFO_PEER, other_end);
        let message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, &[0; LINK_HEADER])
            .text(IFLA_IFNAME, name)
            .with(IFLA_MTU, &size)
            .nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, pair));
        match self.0.send(vec![message]) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(Error::call("make a link into a namespace", e)),
        }
    }

    /// The number of a link.
    pub fn index(&self, name: &str) -> Result<u32> {
        let message = Message::new(GET_LINK, 0, &[0; LINK_HEADER]).text(IFLA_IFNAME, name);
        let answer = self.0.ask(message).map_err(|e| Error::call("find a link", e))?;
        Ok(u32_at(&answer, 4))
    }

    /// The name and the largest packet of a link.
    pub fn describe(&self, link: u32) -> Result<(String, u32)> {
        let message = Message::new(GET_LINK, 0, &link_header(link, 0));
        let answer = self.0.ask(message).map_err(|e| Error::call("find a link", e))?;
        let (mut name, mut mtu) = (String::new(), 0);
        for (kind, value) in attributes(answer.get(LINK_HEADER..).unwrap_or_default()) {
            match kind {
                IFLA_IFNAME => name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
                IFLA_MTU => mtu = u32_at(value, 0),
                _ => {}
            }
        }
        Ok((name, mtu))
    }

    /// The names of all links.
    pub fn names(&self) -> Result<Vec<String>> {
        let all = self.0.dump(Message::new(GET_LINK, DUMP, &[0; LINK_HEADER]));
        let all = all.map_err(|e| Error::call("list links", e))?;
        let name = |answer: Answer| {
            let mut all = attributes(answer.get(LINK_HEADER..).unwrap_or_default());
            let (_, value) = all.find(|(kind, _)| *kind == IFLA_IFNAME)?;
            Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
        };
        Ok(all.into_iter().filter_map(name).collect())
    }

    /// All routes, of all tables.
    pub fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [INET, INET6] {
            let mut header = [0; ROUTE_HEADER];
            header[0] = family;
            match self.0.dump(Message::new(GET_ROUTE, DUMP, &header)) {
                Ok(all) => routes.extend(all.iter().filter_map(|answer| route(family, answer))),
                // A kernel without the family has no routes of it.
                Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => {}
                Err(e) => return Err(Error::call("list routes", e)),
            }
        }
        Ok(routes)
    }

    /// Makes changes, in order. The first that cannot be made ends it.
    pub fn change(&self, changes: &[Change]) -> Result<()> {
        let messages = changes.iter().map(|change| change.message()).collect();
        self.0.send(messages).map_err(|e| Error::call("set a network namespace up", e))
    }
}

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// The address is used at once, without asking whether somebody else has it.
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTN_UNICAST: u8 = 1;
const RTN_PROHIBIT: u8 = 8;
const RTPROT_BOOT: u8 = 3;

impl Change {
    fn message(&self) -> Message {
        match *self {
            Change::Up { link } => Message::new(NEW_LINK, ACK, &link_header(link, UP)),
            Change::Address { link, address, prefix } => {
                let bytes = octets(address);
                let [a, b, c, d] = link.to_ne_bytes();
                let header = [family(address), prefix, IFA_F_NODAD, 0, a, b, c, d];
                let message = Message::new(NEW_ADDRESS, ACK | CREATE | EXCLUSIVE, &header);
                message.with(IFA_LOCAL, &bytes).with(IFA_ADDRESS, &bytes)
            }
            Change::Default { via, link } => {
                let message = new_route(via, 0, RTN_UNICAST);
                message.with(RTA_GATEWAY, &octets(via)).with(RTA_OIF, &link.to_ne_bytes())
            }
            Change::Prohibit { to, prefix } => new_route(to, prefix, RTN_PROHIBIT).with(RTA_DST, &octets(to)),
        }
    }
}

fn new_route(to: IpAddr, prefix: u8, kind: u8) -> Message {
    let header = [family(to), prefix, 0, 0, MAIN, RTPROT_BOOT, 0, kind, 0, 0, 0, 0];
    Message::new(NEW_ROUTE, ACK | CREATE | EXCLUSIVE, &header)
}

fn link_header(link: u32, flags: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn route(family: u8, answer: &[u8]) -> Option<Route> {
    let header = answer.get(..ROUTE_HEADER)?;
    let is_main = header[4] == MAIN && header[7] == RTN_UNICAST;
    let any: IpAddr = if family == INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut route = Route { to: any, prefix: header[1], link: None, is_main };
    for (kind, value) in attributes(&answer[ROUTE_HEADER..]) {
        match kind {
            RTA_DST => route.to = address(value)?,
            RTA_OIF => route.link = Some(u32_at(value, 0)),
            _ => {}
        }
    }
    Some(route)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { INET } else { INET6 }
}

/// An address as the wire has it.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
