//! The network of a step: one of its own, unless it wants the machine's or none.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_exec::{Error, Network, Networks, PendingNetwork};
use kiln_graph::llb::NetMode;
use kiln_report::{Event, Reporter};

use crate::failure::environment;
use crate::job::Result;

/// Stands for this machine's address, as the step has it.
const GATEWAY: &str = "host-gateway";

/// Gives networks to steps. Nothing is made before the first step wants one.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepNetworks {
    networks: Networks,
    told: Arc<AtomicBool>,
}

/// The network of a step that is about to run.
pub(crate) enum ComingNetwork {
    Here(Network),
    Pending(PendingNetwork),
}

impl StepNetworks {
    /// With programs of the machine, if need be, that are found here.
    pub(crate) fn new(path: Option<OsString>) -> Self {
        Self { networks: Networks::new(path), told: Arc::default() }
    }

    /// Begins to make what a step wants, while its files are made ready.
    pub(crate) fn begin(&self, mode: NetMode) -> Result<ComingNetwork> {
        Ok(match mode {
            NetMode::None => ComingNetwork::Here(Network::None),
            NetMode::Host => ComingNetwork::Here(Network::Host),
            NetMode::Unset => ComingNetwork::Pending(self.networks.begin().map_err(environment)?),
        })
    }

    /// Waits for it. Where steps cannot have networks of their own they have the machine's, which is said once.
    pub(crate) fn ready(&self, coming: ComingNetwork, reporter: &dyn Reporter) -> Result<Network> {
        let pending = match coming {
            ComingNetwork::Here(network) => return Ok(network),
            ComingNetwork::Pending(pending) => pending,
        };
        match pending.ready() {
            Ok(network) => Ok(Network::Private(network)),
            Err(error @ Error::NoNetwork { .. }) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    reporter.report(Event::Note(format!("warning: {error}; they have this machine's")));
                }
                Ok(Network::Host)
            }
            Err(error) => Err(environment(error)),
        }
    }
}

/// Lines for `/etc/hosts`, with this machine's addresses for what stands for them. A step without a network has no way to it.
pub(crate) fn hosts(wanted: impl Iterator<Item = (String, String)>, network: &Network) -> Vec<(String, String)> {
    let machine: Vec<IpAddr> = match network {
        Network::Host => vec![Ipv4Addr::LOCALHOST.into()],
        Network::Private(network) => network.gateways(),
        Network::None => Vec::new(),
    };
    let lines = |(name, address): (String, String)| match address.as_str() {
        GATEWAY => machine.iter().map(|address| (name.clone(), address.to_string())).collect(),
        _ => vec![(name, address)],
    };
    wanted.flat_map(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_the_address_that_the_step_knows_it_by() {
        let wanted = || [("db", "10.0.0.7"), ("host", GATEWAY)].map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter();
        let shown = |network: &Network| hosts(wanted(), network).into_iter().map(|(a, b)| format!("{a} {b}"));
        assert_eq!(shown(&Network::Host).collect::<Vec<_>>(), ["db 10.0.0.7", "host 127.0.0.1"]);
        assert_eq!(shown(&Network::None).collect::<Vec<_>>(), ["db 10.0.0.7"]);
    }
}
