//! Network namespaces, the links that lead into them, and rules for what passes.
//!
//! All of it is the kernel's netlink, spoken by a socket: no program of the host is asked, and no table of it is changed
//! that is not ours, but where another firewall would
//! lose what is ours ([`Barrier`]). What is made here goes with its owner: a link with the namespace at its end, a table of rules with the
//! socket that made it.

mod barrier;
mod firewall;
mod links;
mod namespace;
mod netlink;

pub use barrier::Barrier;
pub use firewall::{Match, Rule, Table, Verdict};
pub use links::{Change, Links, Route};
pub use namespace::Namespace;
