//! Networks of containers' own: a namespace, a link out of it, and a way to names.
//!
//! A container gets a network namespace that nobody had before it. A pair of links leads out of it, and what leaves the
//! machine has the machine's address. Nothing of it has to be taken away: the links go with the namespace, the namespace
//! with its last process, the rules with us. ADR 15 has the reasons and the figures.

mod forwarding;
mod ground;
mod hub;
mod names;
mod relay;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use kiln_sys::net::{Change, Links, Namespace};
use kiln_sys::userns::IdMap;

use crate::Error;
use ground::Ground;
use relay::Relay;

/// What the link is called that a container sees.
const INSIDE: &str = "eth0";

/// The link of a namespace that leads to itself.
const LOOPBACK: &str = "lo";

/// Gives networks to containers. Cheap to make and to clone; what all networks share is made with the first.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    ground: Arc<OnceLock<Result<Arc<Ground>, String>>>,
    /// Where programs of the machine are found.
    path: Option<OsString>,
}

/// A network that one container has for itself.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: Namespace,
    gateway: Ipv4Addr,
    gateway6: Option<Ipv6Addr>,
    resolv_conf: String,
    /// What the outer link is called.
    outer: String,
    /// Answers questions for names as long as the container lives.
    _relay: Option<Relay>,
    /// The rules are in force as long as somebody is under them.
    ground: Arc<Ground>,
}

/// A network that another thread is making.
#[derive(Debug)]
pub struct PendingNetwork(JoinHandle<Result<PrivateNetwork, Error>>);

impl Networks {
    /// Gives networks, if need be with programs of the machine that are found here.
    pub fn new(path: Option<OsString>) -> Self {
        Self { path, ..Self::default() }
    }

    /// Begins to make a network, on another thread: it takes about as long as mounting a tree. To be called where tokio
    /// runs.
    pub fn begin(&self) -> Result<PendingNetwork, Error> {
        let (networks, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let thread = std::thread::Builder::new().name("kiln-network".into());
        let thread = thread.spawn(move || PrivateNetwork::new(networks.ground()?, &runtime));
        thread.map(PendingNetwork).map_err(|source| Error::Resources { source })
    }

    fn ground(&self) -> Result<Arc<Ground>, Error> {
        let made = self.ground.get_or_init(|| Ground::prepare(self.path.as_deref()).map(Arc::new));
        made.clone().map_err(|why| Error::NoNetwork { why })
    }
}

impl PendingNetwork {
    /// Waits until it is made.
    pub fn ready(self) -> Result<PrivateNetwork, Error> {
        let network = self.0.join().unwrap_or(Err(Error::Lost))?;
        // The kernel shows each thread the settings of its own namespace, and that thread was in another.
        network.ground.forward(&network.outer);
        Ok(network)
    }
}

impl PrivateNetwork {
    /// Makes one; the calling thread ends up in it.
    fn new(ground: Arc<Ground>, runtime: &tokio::runtime::Handle) -> Result<PrivateNetwork, Error> {
        let fail = |source| Error::Prepare { what: "a network", source };
        ground.enter().map_err(fail)?;
        let outside = Links::open().map_err(fail)?;
        let namespace = Namespace::enter_new().map_err(fail)?;
        let (name, slot) = ground.connect(&outside, (INSIDE, &namespace)).map_err(fail)?;
        let ends = ground.ends(slot);
        let inside = Links::open().map_err(fail)?;
        inside.change(&ends.inside(inside.index(LOOPBACK), inside.index(INSIDE)).map_err(fail)?).map_err(fail)?;
        outside.change(&ends.outside(outside.index(&name).map_err(fail)?)).map_err(fail)?;
        allow_low_ports();
        let relay = match ground.names.upstreams.as_slice() {
            [] => None,
            upstreams => Some(Relay::start(upstreams.to_vec(), runtime)?),
        };
        Ok(PrivateNetwork {
            namespace,
            gateway: ends.gateway,
            gateway6: ends.gateway6(),
            resolv_conf: ground.names.resolv_conf.clone(),
            outer: name,
            _relay: relay,
            ground,
        })
    }

    /// By which addresses the container reaches this machine.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let links = || std::iter::once(self.gateway.into()).chain(self.gateway6.map(IpAddr::from)).collect();
        self.ground.machine.map_or_else(links, |machine| vec![machine])
    }

    /// The range that all networks of this process have their addresses from, as `10.213.64.0/20`.
    pub fn pool(&self) -> String {
        self.ground.pool()
    }

    /// What its `/etc/resolv.conf` says.
    pub(crate) fn resolv_conf(&self) -> &str {
        &self.resolv_conf
    }

    /// Moves the calling thread into it.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        self.namespace.enter().map_err(|source| Error::Prepare { what: "a container's network", source })
    }
}

/// The addresses of a pair of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    gateway: Ipv4Addr,
    step: Ipv4Addr,
    v6: Option<(Ipv6Addr, Ipv6Addr)>,
}

/// Two addresses share all but their last bit.
const PAIR4: u8 = 31;
const PAIR6: u8 = 127;

impl Ends {
    fn gateway6(&self) -> Option<Ipv6Addr> {
        self.v6.map(|(gateway, _)| gateway)
    }

    fn outside(&self, link: u32) -> Vec<Change> {
        let v4 = Change::Address { link, address: self.gateway.into(), prefix: PAIR4 };
        let v6 = self.gateway6().map(|address| Change::Address { link, address: address.into(), prefix: PAIR6 });
        [v4].into_iter().chain(v6).chain([Change::Up { link }]).collect()
    }

    fn inside(&self, loopback: kiln_sys::Result<u32>, link: kiln_sys::Result<u32>) -> kiln_sys::Result<Vec<Change>> {
        let (loopback, link) = (loopback?, link?);
        let address = |address, prefix| Change::Address { link, address, prefix };
        let mut changes = vec![Change::Up { link: loopback }, address(self.step.into(), PAIR4)];
        changes.extend(self.v6.map(|(_, step)| address(step.into(), PAIR6)));
        changes.push(Change::Up { link });
        changes.push(Change::Default { via: self.gateway.into(), link });
        changes.extend(self.gateway6().map(|via| Change::Default { via: via.into(), link }));
        // The rules outside lose such packets; here they are refused, which nobody has to wait for.
        let refused = ground::FORBIDDEN.iter().filter(|(to, _)| to.is_ipv4() || self.v6.is_some());
        changes.extend(refused.map(|(to, prefix)| Change::Prohibit { to: *to, prefix: *prefix }));
        Ok(changes)
    }
}

/// Lets everybody in the calling thread's namespace listen on any port and send echo requests, as docker does: both are
/// harmless in a network of one's own. Kernels without the settings keep to their rules.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
fn allow_low_ports() {
    let last = IdMap::of_groups().map_or(0, |map| map.last()).min(i32::MAX.cast_unsigned());
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", format!("0 {last}"));
}

/// Does something in a thread of its own, which may end up in another network.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("kiln-network".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
