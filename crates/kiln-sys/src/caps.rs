//! Capability sets: what we have, and what a container gets.

pub use rustix::thread::CapabilitySet;

use crate::{Error, Result};

/// What a confined process may: enough for package managers, nothing that reaches the host.
pub const SANDBOX: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// As [`SANDBOX`], without what means nothing in a user namespace that owns no other: making devices, raw packets,
/// writing to the host's audit log.
pub const OF_ITS_OWN: CapabilitySet =
    SANDBOX.difference(CapabilitySet::MKNOD).difference(CapabilitySet::NET_RAW).difference(CapabilitySet::AUDIT_WRITE);

/// Reads what the calling thread may have at most.
pub fn permitted() -> Result<CapabilitySet> {
    let sets = rustix::thread::capabilities(None).map_err(|e| Error::call("read our capabilities", e))?;
    Ok(sets.permitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_has_dockers_fourteen() {
        assert_eq!(SANDBOX.bits(), 0xa804_25fb);
        assert_eq!(SANDBOX.bits().count_ones(), 14);
    }
}
