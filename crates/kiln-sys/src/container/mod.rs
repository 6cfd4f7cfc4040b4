//! Starting one process as pid 1 of its own pid namespace.
//!
//! The thread that starts it has made everything else before: it stands in the container's mount, network, IPC, UTS
//! and cgroup namespaces, with the container's root as its own ([`Isolation::enter`], [`pivot_into`]), in ordinary safe
//! code. What is left for the child is what only it can do (its `/proc`, its identity, the filter, exec), and it does
//! that from prepared data with system calls alone. ADR 5 has the reasons and the figures.

mod child;
mod isolate;
mod keeper;
mod launch;
mod minding;
mod stack;
mod watchdog;

pub(crate) use isolate::block_signals;
pub use isolate::{Isolation, NetworkNamespace, pivot_into};
pub use launch::{Child, Launch, Mask, Outcome, ProcMount, Step, UnifiedGroup};
pub(crate) use stack::Stack;
