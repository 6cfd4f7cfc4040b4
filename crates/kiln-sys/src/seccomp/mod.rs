//! System-call filters: a profile as data, compiled to BPF once, loaded as bytes.

mod compile;
mod numbers;
mod profile;

use rustix::thread::CapabilitySet;

/// A compiled filter; making one takes a fraction of a millisecond, so it is made once a process and shared.
#[derive(Clone)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Filter {
    /// Compiles the profile of a confined process that is granted these capabilities.
    pub fn sandbox(granted: CapabilitySet) -> Filter {
        Filter { program: compile::program(&profile::verdicts(granted)) }
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Tells whether there is nothing in it; never true of a compiled profile.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }

    /// What the kernel is given; valid as long as the filter is.
    pub(crate) fn as_fprog(&self) -> libc::sock_fprog {
        let len = u16::try_from(self.program.len()).expect("the kernel's limit of 4096 is tested");
        libc::sock_fprog { len, filter: self.program.as_ptr().cast_mut() }
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} instructions)", self.len())
    }
}
