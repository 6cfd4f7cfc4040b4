//! How a container with a network of its own finds names: as the machine does.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::ground::FORBIDDEN;

/// Where the relay listens in a container's network: on its loopback, at an address where nothing else is expected.
pub(super) const RELAY: &str = "127.0.0.11";

const PORT: u16 = 53;

/// The way to names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// What the container's `/etc/resolv.conf` says.
    pub(super) resolv_conf: String,
    /// Whom the relay asks. Nobody when the container reaches the machine's servers itself.
    pub(super) upstreams: Vec<SocketAddr>,
}

impl Names {
    /// Reads the machine's `/etc/resolv.conf`. Servers on its loopback, or on one of its links only, are no container's to
    /// reach, so we ask them for it; all else stands as it is. `link` gives the number of a link by its name.
    pub(super) fn new(host: &str, has_v6: bool, link: impl Fn(&str) -> Option<u32>) -> Names {
        let server = |line: &str| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default().to_owned())
        };
        let servers: Vec<_> =
            host.lines().filter_map(server).filter_map(|server| Some((address(&server, &link)?, server))).collect();
        let is_reached =
            |(address, server): &(SocketAddr, String)| is_reached(address.ip(), has_v6) && !server.contains('%');
        if !servers.is_empty() && servers.iter().all(is_reached) {
            return Names { resolv_conf: host.to_owned(), upstreams: Vec::new() };
        }
        let others = host.lines().filter(|line| server(line).is_none()).map(|line| format!("{line}\n"));
        let resolv_conf = format!("nameserver {RELAY}\n{}", others.collect::<String>());
        let mut upstreams: Vec<_> = servers.into_iter().map(|(address, _)| address).collect();
        if upstreams.is_empty() {
            upstreams.push(SocketAddr::from(([127, 0, 0, 1], PORT)));
        }
        Names { resolv_conf, upstreams }
    }
}

fn address(server: &str, link: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((ip, scope)) = server.split_once('%') else {
        return Some(SocketAddr::new(server.parse().ok()?, PORT));
    };
    let scope = scope.parse().ok().or_else(|| link(scope))?;
    Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, scope).into())
}

fn is_reached(server: IpAddr, has_v6: bool) -> bool {
    let is_near = match server {
        IpAddr::V4(server) => server.is_link_local() || server.is_unspecified(),
        IpAddr::V6(server) => server.is_unicast_link_local() || server.is_unspecified() || !has_v6,
    };
    !server.is_loopback() && !is_near && !FORBIDDEN.iter().any(|(forbidden, _)| *forbidden == server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(host: &str, has_v6: bool) -> (String, Vec<String>) {
        let names = Names::new(host, has_v6, |link| (link == "eth0").then_some(4));
        (names.resolv_conf, names.upstreams.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn servers_that_can_be_reached_stand_as_they_are() {
        for (host, has_v6) in [
            ("search a.b\nnameserver 10.0.0.2\noptions edns0\n", false),
            ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", true),
        ] {
            assert_eq!(names(host, has_v6), (host.to_owned(), vec![]));
        }
    }

    #[test]
    fn servers_of_the_machine_alone_are_asked_for_the_container() {
        let relayed = |host, has_v6| {
            let (text, upstreams) = names(host, has_v6);
            assert!(text.starts_with("nameserver 127.0.0.11\n"), "{text}");
            (text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>(), upstreams)
        };
        let (rest, upstreams) = relayed("# local\nnameserver 127.0.0.53\noptions edns0\nsearch lan", true);
        assert_eq!(
            (rest.join("|").as_str(), upstreams.join(" ").as_str()),
            ("# local|options edns0|search lan", "127.0.0.53:53")
        );
        assert_eq!(relayed("nameserver 169.254.169.254\n", true).1, ["169.254.169.254:53"]);
        assert_eq!(relayed("nameserver 168.63.129.16\n", true).1, ["168.63.129.16:53"]);
        assert_eq!(relayed("nameserver 1.1.1.1\nnameserver ::1\n", true).1, ["1.1.1.1:53", "[::1]:53"]);
        assert_eq!(relayed("nameserver 2001:db8::1\n", false).1, ["[2001:db8::1]:53"]);
        assert_eq!(relayed("nameserver fe80::1%eth0\n", true).1, ["[fe80::1%4]:53"]);
        for nothing in ["", "nameserver\n", "nameserver x\n", "nameserver fe80::1%gone\n"] {
            assert_eq!(relayed(nothing, true).1, ["127.0.0.1:53"], "{nothing:?}");
        }
    }
}
