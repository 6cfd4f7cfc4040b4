//! What all networks of this process share: their addresses, the rules for what passes, the way to names.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use kiln_sys::net::{Barrier, Links, Match, Namespace, Route, Rule, Table, Verdict};
use kiln_sys::root::Root;
use kiln_sys::userns::is_machine_root;

use super::Ends;
use super::forwarding::Forwarding;
use super::hub::Hub;
use super::names::Names;

/// How the outer links of all kilns begin; the number of a pair of addresses follows. That the kernel gives a name once is
/// what makes the pairs of several processes different.
pub(super) const PREFIX: &str = "kiln-";

/// Addresses that no container reaches: where clouds tell machines their secrets, and what is near the machine only. One of
/// them answers for names as well, which the machine is then asked for.
pub(super) const FORBIDDEN: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), 128),
];

/// What of the machine is never a container's, although a packet could say so.
const LOOPBACK: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
const LINK_LOCAL: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);

/// What reaches whoever listens, the machine too.
const TO_MANY: [(IpAddr, u8); 2] =
    [(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4), (IpAddr::V4(Ipv4Addr::BROADCAST), 32)];
const TO_MANY6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8);

/// Addresses for containers, in the order they are tried: corners of the private ranges that others leave alone.
const POOLS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(10, 213, 64, 0),
    Ipv4Addr::new(172, 29, 208, 0),
    Ipv4Addr::new(192, 168, 224, 0),
    Ipv4Addr::new(10, 87, 144, 0),
    Ipv4Addr::new(10, 171, 32, 0),
    Ipv4Addr::new(198, 19, 240, 0),
];
const NO_POOL: &str = "all address ranges that kiln knows are in use here";
const POOL_PREFIX: u8 = 20;
/// Pairs of addresses in a pool.
const PAIRS: u32 = 1 << (31 - POOL_PREFIX);

const POOL6: Ipv6Addr = Ipv6Addr::new(0xfd6b, 0x696c, 0x6e5f, 0, 0, 0, 0, 0);
const POOL6_PREFIX: u8 = 64;

/// More than any resolver reads.
const RESOLV_CONF_LIMIT: u64 = 64 << 10;
/// What links have where nobody says otherwise.
const ETHERNET: u32 = 1500;

#[derive(Debug)]
pub(super) struct Ground {
    pool: Ipv4Addr,
    has_v6: bool,
    mtu: u32,
    pub(super) names: Names,
    /// By which address the machine is reached, if not by the link's.
    pub(super) machine: Option<IpAddr>,
    // It goes before what is switched off only when nobody has one any more.
    _table: Table,
    forwarding: Forwarding,
    /// Where all this is, if not in the machine's own network.
    hub: Option<Hub>,
}

impl Ground {
    /// Looks at the machine's network, and readies it, or another where it is not ours to change; else says why containers
    /// cannot have networks of their own.
    pub(super) fn prepare(path: Option<&OsStr>) -> Result<Ground, String> {
        match Ground::here() {
            Err(_) if !is_machine_root() => Ground::beyond(path),
            ground => ground,
        }
    }

    /// Makes a network between the machine's and the containers', and readies that. The calling thread ends up in it.
    fn beyond(path: Option<&OsStr>) -> Result<Ground, String> {
        let links = Links::open().map_err(told)?;
        let pool = free_pool(&links.routes().map_err(told)?).ok_or(NO_POOL)?;
        let machine = own_address();
        let names = names(&links, false);
        let hub = Hub::start(pool, path)?;
        hub.enter().map_err(told)?;
        let ground = Ground::here()?;
        Ok(Ground { names, machine, hub: Some(hub), ..ground })
    }

    /// Readies the network that the calling thread is in.
    fn here() -> Result<Ground, String> {
        let links = Links::open().map_err(told)?;
        let routes = ours_apart(&links, links.routes().map_err(told)?);
        let pool = free_pool(&routes).ok_or(NO_POOL)?;
        let way_out = routes.iter().find(|route| route.prefix == 0 && route.is_main && route.to.is_ipv4());
        let mtu = way_out.and_then(|route| links.describe(route.link?).ok()).map_or(ETHERNET, |(_, mtu)| mtu);
        let is_free = !routes.iter().any(|route| overlap((route.to, route.prefix), (POOL6.into(), POOL6_PREFIX)));
        let mut forwarding = Forwarding::begin(&links, &routes)?;
        let passes_v6 = pass_barriers()?;
        let has_v6 = is_free && passes_v6 && forwarding.with_v6(&links, &routes);
        let table = Table::raise(PREFIX, &rules(pool, forwarding.switched()));
        let table = table.map_err(told)?;
        let names = names(&links, has_v6);
        Ok(Ground { pool, has_v6, mtu, names, machine: None, _table: table, forwarding, hub: None })
    }

    /// Moves the calling thread to where links to containers are made.
    pub(super) fn enter(&self) -> kiln_sys::Result<()> {
        self.hub.as_ref().map_or(Ok(()), Hub::enter)
    }

    /// Makes a link out of a namespace; gives its outer name, and the number of its pair of addresses.
    pub(super) fn connect(&self, outside: &Links, inside: (&str, &Namespace)) -> kiln_sys::Result<(String, u32)> {
        // Where others begin as well, their names are tried in vain; so each process begins elsewhere.
        let first = std::process::id().wrapping_mul(61);
        let mut tries = 0;
        loop {
            let slot = first.wrapping_add(tries) % PAIRS;
            let name = format!("{PREFIX}{slot}");
            tries += 1;
            if outside.add_pair(&name, inside, self.mtu)? || tries > PAIRS {
                return Ok((name, slot));
            }
        }
    }

    pub(super) fn ends(&self, slot: u32) -> Ends {
        let gateway = u32::from(self.pool) + slot * 2;
        let gateway6 = u128::from(POOL6) + u128::from(slot) * 2;
        let v6 = self.has_v6.then(|| (gateway6.into(), (gateway6 + 1).into()));
        Ends { gateway: gateway.into(), step: (gateway + 1).into(), v6 }
    }

    pub(super) fn pool(&self) -> String {
        format!("{}/{POOL_PREFIX}", self.pool)
    }

    /// Has what comes out of a container passed on.
    pub(super) fn forward(&self, link: &str) {
        self.forwarding.include(link, self.has_v6);
    }
}

/// Gets through other firewalls, else says which is in the way; tells whether IP version 6 gets through as well.
fn pass_barriers() -> Result<bool, String> {
    let mut passes_v6 = true;
    for barrier in Barrier::all().map_err(told)? {
        if barrier.is_of_iptables() {
            barrier.open(PREFIX).map_err(told)?;
        } else if barrier.is_for_v4() {
            return Err(format!("the firewall's table `{}` drops what is passed on", barrier.table));
        } else {
            passes_v6 = false;
        }
    }
    Ok(passes_v6)
}

/// How the machine finds names, as a container may.
fn names(links: &Links, has_v6: bool) -> Names {
    let resolv_conf =
        Root::open_ambient("/").and_then(|host| host.read_to_limit("/etc/resolv.conf", RESOLV_CONF_LIMIT));
    // A machine without the file asks its own loopback, as the C library has it.
    let resolv_conf = String::from_utf8_lossy(&resolv_conf.unwrap_or_default()).into_owned();
    Names::new(&resolv_conf, has_v6, |link| links.index(link).ok())
}

/// The address from which this machine reaches others. Nothing is sent to find it out.
fn own_address() -> Option<IpAddr> {
    const ANYBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYBODY).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

pub(super) fn told(error: kiln_sys::Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Routes to containers of other kilns are not in the way: their numbers are others.
fn ours_apart(links: &Links, routes: Vec<Route>) -> Vec<Route> {
    let is_ours = |route: &Route| {
        let name = route.link.and_then(|link| links.describe(link).ok()).map(|(name, _)| name);
        name.is_some_and(|name| name.starts_with(PREFIX))
    };
    routes.into_iter().filter(|route| !is_ours(route)).collect()
}

fn free_pool(routes: &[Route]) -> Option<Ipv4Addr> {
    let is_free = |pool: &Ipv4Addr| {
        let pool = (IpAddr::from(*pool), POOL_PREFIX);
        !routes.iter().any(|route| overlap((route.to, route.prefix), pool))
    };
    POOLS.into_iter().find(is_free)
}

/// Whether two ranges share an address. A default route is in nobody's way.
fn overlap((a, a_prefix): (IpAddr, u8), (b, b_prefix): (IpAddr, u8)) -> bool {
    let common = u32::from(a_prefix.min(b_prefix));
    match (a, b) {
        _ if common == 0 => false,
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros() >= common,
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros() >= common,
        _ => false,
    }
}

/// What passes. `switched` are links whose packets are passed on only for containers.
fn rules<'a>(pool: Ipv4Addr, switched: impl Iterator<Item = (&'a str, Match)>) -> Vec<Rule> {
    let from = || Match::From(PREFIX.into());
    let refuse = |matches: Vec<Match>| Rule { matches, verdict: Verdict::Refuse };
    let stop = |matches: Vec<Match>| Rule { matches, verdict: Verdict::Stop };
    let hide = |address: IpAddr, prefix| Rule {
        matches: vec![Match::Source(address, prefix), Match::NotTo(PREFIX.into())],
        verdict: Verdict::Masquerade,
    };
    let forbidden = FORBIDDEN.iter().chain([&LOOPBACK]).chain(&TO_MANY);
    let mut rules: Vec<_> =
        forbidden.map(|(to, prefix)| refuse(vec![from(), Match::Destination(*to, *prefix)])).collect();
    for (to, prefix) in [LINK_LOCAL, TO_MANY6] {
        rules.push(refuse(vec![from(), Match::Destination(to, prefix), Match::NotControl]));
    }
    // Containers have one address each, and none of another's connections.
    rules.push(stop(vec![from(), Match::To(PREFIX.into())]));
    rules.push(stop(vec![Match::To(PREFIX.into()), Match::IsUnasked]));
    rules.extend(
        switched.map(|(link, version)| stop(vec![version, Match::From(link.to_owned()), Match::NotTo(PREFIX.into())])),
    );
    rules.push(hide(pool.into(), POOL_PREFIX));
    rules.push(hide(POOL6.into(), POOL6_PREFIX));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (to, prefix) = text.split_once('/').unwrap();
        Route { to: to.parse().unwrap(), prefix: prefix.parse().unwrap(), link: None, is_main: true }
    }

    #[test]
    fn addresses_are_taken_that_no_route_leads_to() {
        assert_eq!(free_pool(&[route("0.0.0.0/0"), route("192.0.2.0/24"), route("::/0")]), Some(POOLS[0]));
        assert_eq!(free_pool(&[route("10.0.0.0/8")]), Some(POOLS[1]));
        assert_eq!(free_pool(&[route("10.213.79.255/32"), route("172.16.0.0/12")]), Some(POOLS[2]));
        assert_eq!(free_pool(&[route("10.213.80.0/24")]), Some(POOLS[0]));
        let all = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"].map(route);
        assert_eq!(free_pool(&all), None);
        assert_eq!(free_pool(&[route("0.0.0.0/1"), route("128.0.0.0/1")]), None);
    }

    #[test]
    fn pairs_of_addresses_are_all_different() {
        let pool = u32::from(POOLS[0]);
        assert!(POOLS.iter().all(|pool| u32::from(*pool) % (PAIRS * 2) == 0));
        assert!((pool + (PAIRS - 1) * 2 + 1) ^ pool < 1 << (32 - POOL_PREFIX));
    }
}
