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

/// What `clone3` is told (`struct clone_args`); all of it is numbers.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CloneArguments {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// What a child begins with, on its own stack. It may not return.
pub(crate) type Begin = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// Starts a process that runs `begin` on a stack of its own, by the call that every filter knows.
///
/// # Safety
///
/// The stack, and what `begin` does with the argument, must be valid for as long as the child shares our memory.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn clone(
    flags: libc::c_int,
    stack: *mut libc::c_void,
    begin: Begin,
    argument: *mut libc::c_void,
) -> Result<usize, RawErrno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments. In the parent the kernel changes rax, rcx and r11 only; the child goes on
    // on a stack of its own, whose top is aligned, and never leaves the block.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as usize,
            in("rsi") stack,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            in("r12") argument,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    decode(result)
}

/// Starts a process that runs `begin` on a stack of its own, by the call that every filter knows.
///
/// # Safety
///
/// The stack, and what `begin` does with the argument, must be valid for as long as the child shares our memory.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn clone(
    flags: libc::c_int,
    stack: *mut libc::c_void,
    begin: Begin,
    argument: *mut libc::c_void,
) -> Result<usize, RawErrno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments. In the parent the kernel changes x0 only; the child goes on on a stack of
    // its own, whose top is aligned, and never leaves the block.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as usize => result,
            in("x1") stack,
            in("x2") 0,
            in("x3") 0,
            in("x4") 0,
            in("x20") argument,
            in("x21") begin,
        );
    }
    decode(result)
}

/// Starts a process that runs `begin`, by the call that takes more than flags.
///
/// # Safety
///
/// The stack, what `begin` does with the argument, and the places the kernel writes to must be valid for as long as the
/// child shares our memory.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn clone3(
    arguments: &CloneArguments,
    begin: Begin,
    argument: *mut libc::c_void,
) -> Result<usize, RawErrno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments. In the parent the kernel changes rax, rcx and r11 only; the child goes on
    // on a stack of its own, whose top is aligned, and never leaves the block.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArguments>(),
            in("r12") argument,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    decode(result)
}

/// Starts a process that runs `begin`, by the call that takes more than flags.
///
/// # Safety
///
/// The stack, what `begin` does with the argument, and the places the kernel writes to must be valid for as long as the
/// child shares our memory.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn clone3(
    arguments: &CloneArguments,
    begin: Begin,
    argument: *mut libc::c_void,
) -> Result<usize, RawErrno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments. In the parent the kernel changes x0 only; the child goes on on a stack of
    // its own, whose top is aligned, and never leaves the block.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_ref(arguments) as isize => result,
            in("x1") size_of::<CloneArguments>(),
            in("x20") argument,
            in("x21") begin,
        );
    }
    decode(result)
}

fn decode(result: isize) -> Result<usize, RawErrno> {
    if (-4095..0).contains(&result) { Err(RawErrno(result.unsigned_abs() as u32)) } else { Ok(result as usize) }
}
