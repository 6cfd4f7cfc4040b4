//! Where requests may go: never to link-local or metadata addresses, to loopback only when asked to by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether a URL's host is this machine, by its name alone: `localhost`, 127.0.0.0/8, `::1`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.to_ascii_lowercase();
    name == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| canonical(ip).is_loopback())
}

/// Which addresses a name may resolve to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Everywhere but link-local, metadata and unspecified addresses.
    Named,
    /// Not to loopback either: where a redirect from elsewhere leads.
    Redirected,
}

/// Why an address is out of bounds.
pub(crate) fn forbidden(ip: IpAddr, reach: Reach) -> Option<&'static str> {
    let ip = canonical(ip);
    match ip {
        _ if ip.is_unspecified() => Some("the unspecified address is no server"),
        IpAddr::V4(v4) if v4.is_link_local() || METADATA.contains(&v4) => Some(LINK_LOCAL),
        IpAddr::V6(v6) if v6.is_unicast_link_local() || METADATA_V6.contains(&v6) => Some(LINK_LOCAL),
        _ if ip.is_loopback() && reach == Reach::Redirected => Some("a redirect may not lead to this machine"),
        _ => None,
    }
}

const LINK_LOCAL: &str = "link-local and metadata addresses are never asked";
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// IPv4 addresses hidden in IPv6 ones count as what they are.
fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_canonical(),
        v4 => v4,
    }
}

/// Why a URL is out of bounds, as far as its text can tell.
pub(crate) fn forbidden_url(url: &Url, reach: Reach) -> Option<&'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some("only http and https are spoken");
    }
    let Some(host) = url.host_str() else { return Some("it names no host") };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if reach == Reach::Redirected && is_loopback(host) {
        return Some("a redirect may not lead to this machine");
    }
    host.parse::<IpAddr>().ok().and_then(|ip| forbidden(ip, reach))
}

/// Resolves names with the system's resolver and leaves out what is out of bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuardedResolver(pub(crate) Reach);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut reason = None;
            let allowed: Vec<SocketAddr> = all
                .into_iter()
                .filter(|address| match forbidden(address.ip(), reach) {
                    Some(why) => {
                        reason = Some(why);
                        false
                    }
                    None => true,
                })
                .collect();
            match reason {
                Some(why) if allowed.is_empty() => Err(why.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_out_of_bounds() {
        for bad in [
            "169.254.169.254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "::",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert!(forbidden(bad.parse().unwrap(), Reach::Named).is_some(), "{bad}");
        }
        for good in ["10.0.0.1", "127.0.0.1", "1.1.1.1", "::1", "2001:db8::1"] {
            assert!(forbidden(good.parse().unwrap(), Reach::Named).is_none(), "{good}");
        }
    }

    #[test]
    fn redirects_do_not_reach_this_machine() {
        for bad in [
            "http://127.0.0.1/",
            "http://[::1]:80/",
            "http://localhost:1/",
            "http://LOCALHOST/",
            "http://[::ffff:127.0.0.1]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "file:///etc/shadow",
            "http://169.254.169.254/",
        ] {
            assert!(forbidden_url(&bad.parse().unwrap(), Reach::Redirected).is_some(), "{bad}");
        }
        assert!(forbidden_url(&"http://127.0.0.1/".parse().unwrap(), Reach::Named).is_none());
        assert!(forbidden_url(&"https://cdn.example.com/".parse().unwrap(), Reach::Redirected).is_none());
    }
}
