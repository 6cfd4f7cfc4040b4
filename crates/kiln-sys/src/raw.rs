//! System calls without libc: no `errno`, no thread-local storage, no allocation.
//!
//! Code between clone and exec, and code that shares our memory as another process, may use nothing else.

use std::arch::asm;

/// A failed call's error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawErrno(pub(crate) u32);

/// Makes a system call.
///
/// # Safety
///
/// Whatever the kernel reads or writes through the arguments must be valid for that during the call.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn syscall(number: libc::c_long, a: [usize; 6]) -> Result<usize, RawErrno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel changes rax, rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0],
            in("rsi") a[1],
            in("rdx") a[2],
            in("r10") a[3],
            in("r8") a[4],
            in("r9") a[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    decode(result)
}

/// Makes a system call.
///
/// # Safety
///
/// Whatever the kernel reads or writes through the arguments must be valid for that during the call.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn syscall(number: libc::c_long, a: [usize; 6]) -> Result<usize, RawErrno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel changes x0 only.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] as isize => result,
            in("x1") a[1],
            in("x2") a[2],
            in("x3") a[3],
            in("x4") a[4],
            in("x5") a[5],
            options(nostack),
        );
    }
    decode(result)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("kiln starts containers on x86-64 and aarch64");

fn decode(result: isize) -> Result<usize, RawErrno> {
    if (-4095..0).contains(&result) { Err(RawErrno(result.unsigned_abs() as u32)) } else { Ok(result as usize) }
}
