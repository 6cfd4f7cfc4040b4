//! A container's own network: what it reaches, what it never does, and that nothing of it stays.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use kiln_exec::{ContainerSpec, Executor, ExitStatus, Network, Networks, PrivateNetwork, Security};
use kiln_sys::net::{Links, Table};

use crate::require_containers;
use crate::support::machine::{Counter, MACHINE, MACHINE6, address, on_a_machine, tool};
use crate::support::{Image, Ran, eventually, piped, run, runtime};

const REACHED: &str = "nameserver 203.0.113.10\n";
const BEYOND: &str = "203.0.113.10";
const BEYOND6: &str = "2001:db8:1::10";

/// A network that is ready, in a runtime of its own.
struct Ready {
    runtime: tokio::runtime::Runtime,
    networks: Networks,
}

impl Ready {
    fn new() -> Ready {
        Ready { runtime: runtime(), networks: Networks::default() }
    }

    fn network(&self) -> PrivateNetwork {
        let _inside = self.runtime.enter();
        self.networks.begin().unwrap().ready().unwrap()
    }

    fn spec(&self, image: &Image, script: &str) -> ContainerSpec {
        let mut spec = image.spec(&["sh", "-c", script]);
        spec.network = Network::Private(self.network());
        spec
    }

    fn sh(&self, script: &str) -> Ran {
        run(self.spec(&Image::new(), script)).unwrap()
    }
}

/// Goes to a place, and says so when there is an answer.
fn visit(place: &str, port: u16) -> String {
    format!("timeout 2 nc -w 1 {place} {port} < /dev/null && echo reached {place}; ")
}

#[test]
fn a_container_has_one_link_one_address_and_a_way_out() {
    require_containers!();
    on_a_machine(REACHED, |beyond| {
        let (v4, v6) = (beyond.listen("203.0.113.10:80"), beyond.listen("[2001:db8:1::10]:80"));
        let ready = Ready::new();
        let script = format!(
            "ls /sys/class/net; cat /sys/class/net/eth0/mtu /etc/resolv.conf; {}{}",
            visit(BEYOND, 80),
            visit(BEYOND6, 80)
        );
        let ran = ready.sh(&script);
        let reached = format!("eth0\nlo\n1400\n{REACHED}hello\nreached {BEYOND}\n");
        assert!(ran.stdout.starts_with(&reached), "{} {}", ran.stdout, ran.stderr);
        // Others see the machine, never an address that only it knows.
        assert_eq!(v4.visitors(), [MACHINE]);
        if std::path::Path::new("/proc/sys/net/ipv6/conf/uplink/force_forwarding").exists() {
            assert!(ran.stdout.ends_with(&format!("hello\nreached {BEYOND6}\n")), "{} {}", ran.stdout, ran.stderr);
            assert_eq!(v6.visitors(), [MACHINE6]);
        }
    });
}

#[test]
fn the_machine_s_own_and_the_cloud_s_secrets_are_never_reached() {
    require_containers!();
    on_a_machine(REACHED, |beyond| {
        let links = Links::open().unwrap();
        let loopback = links.index("lo").unwrap();
        links.change(&["169.254.169.253/32", "fd20:ce::254/128"].map(|text| address(loopback, text))).unwrap();
        // With this the kernel lets strangers talk to the loopback; some set it for all links.
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        let here = ["127.0.0.1:7001", "[::1]:7001", "169.254.169.253:7001", "[fd20:ce::254]:7001"].map(Counter::listen);
        let clouds = ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]"];
        let there = clouds.map(|place| format!("{place}:7001"));
        let there = there.map(|place| beyond.listen(&place));
        let name = std::os::unix::net::SocketAddr::from_abstract_name("kiln-test-abstract").unwrap();
        let _abstract = UnixListener::bind_addr(&name).unwrap();
        let ready = Ready::new();
        let clouds = clouds.map(|place| place.trim_matches(['[', ']']));
        let places = clouds.into_iter().chain(["169.254.169.253", "fd20:ce::254"]);
        let network = ready.network();
        let gateways: Vec<String> = network.gateways().iter().map(ToString::to_string).collect();
        let places = places.chain(["127.0.0.1", "::1"]).chain(gateways.iter().map(String::as_str));
        let visits: String = places.map(|place| visit(place, 7001)).collect();
        let script = format!("{visits} grep -c kiln-test-abstract /proc/net/unix");
        let image = Image::new();
        let mut spec = image.spec(&["sh", "-c", &script]);
        spec.network = Network::Private(network);
        assert_eq!(run(spec).unwrap().stdout, "0\n");
        // One that may change its own routes does not get further.
        let network = ready.network();
        let routes = format!(
            "ip route del prohibit 169.254.0.0/16 && ip route del prohibit 100.100.100.200 && \
             ip route del prohibit 168.63.129.16 && ip route del prohibit 192.0.0.192 && \
             ip route del local 127.0.0.0/8 table local; ip route add 127.0.0.0/8 via {} && echo changed; {visits}",
            network.gateways()[0]
        );
        let host = Image::with_host_ids();
        let mut spec = host.spec(&["sh", "-c", &routes]);
        spec.network = Network::Private(network);
        spec.security = Security::Insecure;
        let ran = run(spec).unwrap();
        assert_eq!(ran.stdout, "changed\n", "{}", ran.stderr);
        assert!(here.iter().chain(&there).all(|counter| counter.visitors().is_empty()));
        // The listeners do listen: one with the machine's network comes by.
        let mut spec = image.spec(&["sh", "-c", &visit("127.0.0.1", 7001)]);
        spec.network = Network::Host;
        assert_eq!(run(spec).unwrap().stdout, "hello\nreached 127.0.0.1\n");
        assert_eq!(here[0].visitors(), ["127.0.0.1"]);
    });
}

#[test]
fn who_listens_for_everybody_does_not_hear_a_container() {
    require_containers!();
    on_a_machine(REACHED, |_| {
        // Machines answer such calls when they are told to.
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts", "0").unwrap();
        let ready = Ready::new();
        let network = ready.network();
        let gateway = network.gateways()[0];
        // One with the right to raw packets, for which busybox asks.
        let image = Image::with_host_ids();
        let call = |whom: &str| format!("ping -c 1 -W 1 {whom} | grep -o '[0-9]* packets received'; ");
        let mut spec = image.spec(&["sh", "-c", &(call(&gateway.to_string()) + &call("224.0.0.1"))]);
        spec.network = Network::Private(network);
        let ran = run(spec).unwrap();
        assert_eq!(ran.stdout, "1 packets received\n0 packets received\n", "{}", ran.stderr);
    });
}

#[test]
fn containers_at_once_reach_out_and_not_each_other_nor_are_they_reached() {
    require_containers!();
    on_a_machine(REACHED, |beyond| {
        let counter = beyond.listen("203.0.113.10:80");
        let ready = Ready::new();
        let (image, other) = (Image::new(), Image::new());
        let network = ready.network();
        let address = step_address(&network);
        let mut listening = image.spec(&["sh", "-c", &format!("{} nc -l -p 8080 -e echo served", visit(BEYOND, 80))]);
        listening.network = Network::Private(network);
        let (io, output) = piped();
        let listener = ready.runtime.spawn(async move { Executor::new().run(listening, io).await.unwrap() });
        assert!(eventually(|| counter.visitors().len() == 1));
        let from_afar = beyond.run(move || TcpStream::connect_timeout(&address, Duration::from_millis(500)).map(drop));
        assert_eq!(from_afar.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        let script = visit(BEYOND, 80) + &visit(&address.ip().to_string(), 8080);
        let ran = run(ready.spec(&other, &script)).unwrap();
        assert_eq!(ran.stdout, format!("hello\nreached {BEYOND}\n"), "{}", ran.stderr);
        // It did listen all the time.
        assert!(eventually(|| TcpStream::connect(address).is_ok()));
        assert_eq!(ready.runtime.block_on(listener).unwrap(), ExitStatus::Code(0));
        assert!(output().0.contains("hello"));
    });
}

/// Where a container's own network has it: the neighbour of its gateway.
fn step_address(network: &PrivateNetwork) -> SocketAddr {
    let Some(std::net::IpAddr::V4(gateway)) = network.gateways().first().copied() else { panic!("no gateway") };
    (std::net::Ipv4Addr::from(u32::from(gateway) + 1), 8080).into()
}

#[test]
fn a_resolver_on_the_machine_s_loopback_answers_by_datagram_and_by_connection() {
    require_containers!();
    on_a_machine("search lan\nnameserver 127.0.0.53\n", |_| {
        let resolver = UdpSocket::bind("127.0.0.53:53").unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, asker)) = resolver.recv_from(&mut question) {
                resolver.send_to(&answer(&question[..length]), asker).unwrap();
            }
        });
        let by_connection = Counter::listen("127.0.0.53:53");
        let ready = Ready::new();
        let ran =
            ready.sh("cat /etc/resolv.conf; busybox nslookup -type=a kiln.example; nc -w 1 127.0.0.11 53 < /dev/null");
        assert!(ran.stdout.starts_with("nameserver 127.0.0.11\nsearch lan\n"), "{}", ran.stdout);
        assert!(ran.stdout.contains("192.0.2.77"), "{} {}", ran.stdout, ran.stderr);
        assert!(ran.stdout.ends_with("hello\n"), "{} {}", ran.stdout, ran.stderr);
        assert_eq!(by_connection.visitors(), ["127.0.0.1"]);
    });
}

/// An answer to any question: one address.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..8].copy_from_slice(&[0, 1]);
    answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    answer
}

#[test]
fn everybody_listens_on_low_ports_in_a_network_of_their_own() {
    require_containers!();
    on_a_machine(REACHED, |_| {
        let (ready, image) = (Ready::new(), Image::new());
        let mut spec =
            ready.spec(&image, "(nc -l -p 80 -e echo served &); sleep 0.2; nc -w 1 127.0.0.1 80 < /dev/null");
        spec.user = crate::support::user(1000, 1000);
        assert_eq!(run(spec).unwrap().stdout, "served\n");
    });
}

#[test]
fn what_was_made_and_switched_for_networks_goes_with_them() {
    require_containers!();
    on_a_machine(REACHED, |_| {
        let links = Links::open().unwrap();
        let switch = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/uplink/forwarding").unwrap();
        let ours = || links.names().unwrap().iter().filter(|name| name.starts_with("kiln-")).count();
        let ready = Ready::new();
        assert_eq!((switch().as_str(), ours()), ("0\n", 0));
        let networks: Vec<_> = (0..3).map(|_| ready.network()).collect();
        assert_eq!((switch().as_str(), ours()), ("1\n", 3));
        drop(networks);
        assert!(eventually(|| ours() == 0));
        drop(ready);
        assert_eq!(switch(), "0\n");
        // Another process that has no step at the moment counts on it for its next.
        let (ready, other) = (Ready::new(), Ready::new());
        drop(ready.network());
        drop(other.network());
        drop(ready);
        assert_eq!(switch(), "1\n");
        assert_eq!(Table::names().unwrap().len(), 1);
        drop(other);
        assert!(Table::names().unwrap().is_empty());
    });
}

#[test]
fn without_rules_there_are_no_networks_and_it_is_said_why() {
    require_containers!();
    let told = std::thread::spawn(|| {
        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        Networks::default().begin().unwrap().ready().unwrap_err().to_string()
    });
    let told = told.join().unwrap();
    assert!(told.contains("steps cannot have a network of their own") && told.contains("not permitted"), "{told}");
}

#[test]
fn the_chain_of_iptables_lets_containers_pass_and_stays_readable() {
    require_containers!();
    on_a_machine(REACHED, |beyond| {
        if tool("iptables-nft", "-P FORWARD DROP").is_none() {
            return;
        }
        let counter = beyond.listen("203.0.113.10:80");
        let ready = Ready::new();
        assert_eq!(ready.sh(&visit(BEYOND, 80)).stdout, format!("hello\nreached {BEYOND}\n"));
        assert_eq!(counter.visitors(), [MACHINE]);
        // A second process finds them there.
        drop(Ready::new().network());
        let rules = tool("iptables-nft", "-S FORWARD").unwrap();
        let passed = ["-i", "-o"].map(|side| rules.matches(&format!("-A FORWARD {side} kiln-+")).count());
        assert_eq!(passed, [1, 1], "{rules}");
        assert!(rules.contains("-P FORWARD DROP") && rules.matches("-j ACCEPT").count() == 2, "{rules}");
        tool("iptables-nft", "-A FORWARD -i other -j ACCEPT").unwrap();
    });
}

#[test]
fn another_firewall_in_the_way_is_named() {
    require_containers!();
    on_a_machine(REACHED, |_| {
        let wall =
            "add table inet wall; add chain inet wall passage { type filter hook forward priority 0; policy drop; }";
        if tool("nft", wall).is_none() {
            return;
        }
        let ready = Ready::new();
        let _inside = ready.runtime.enter();
        let told = ready.networks.begin().unwrap().ready().unwrap_err().to_string();
        assert!(told.contains("table `wall`"), "{told}");
    });
}
