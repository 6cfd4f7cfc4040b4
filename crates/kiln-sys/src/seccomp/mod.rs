//! System-call filters: a profile as data, compiled to BPF once, loaded as bytes.

mod compile;
mod numbers;
mod profile;

use rustix::thread::CapabilitySet;

use crate::raw::syscall;

/// Tells whether the kernel filters system calls, and can kill for them.
pub fn is_available() -> bool {
    const GET_ACTION_AVAILABLE: usize = 2;
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    let arguments = [GET_ACTION_AVAILABLE, 0, std::ptr::from_ref(&action) as usize, 0, 0, 0];
    // SAFETY: the kernel reads four bytes of `action`.
    unsafe { syscall(libc::SYS_seccomp, arguments) }.is_ok()
}

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
