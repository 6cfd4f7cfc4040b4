//! Which programs the kernel runs besides those of its own architecture.

use std::io;

/// What a thread asks to be that runs 32-bit programs.
const LINUX32: libc::c_ulong = 0x0008;

/// Whether programs of 32 bits run here. Kernels for arm64 say no where the processor or their configuration lacks them;
/// others do not tell.
pub fn runs_32_bit() -> bool {
    // SAFETY: personality takes a number and no pointers. It changes this thread only, and that is undone below.
    let before = unsafe { libc::personality(LINUX32) };
    if before < 0 {
        return io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
    }
    // SAFETY: as above; the number is what this thread had.
    unsafe { libc::personality(before as libc::c_ulong) };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_nothing() {
        let now = || std::fs::read_to_string("/proc/thread-self/personality").unwrap();
        let before = now();
        let answer = runs_32_bit();
        assert_eq!(now(), before);
        assert!(answer || cfg!(not(target_arch = "x86_64")));
    }
}
