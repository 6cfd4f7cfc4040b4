//! What a confined process may ask of the kernel: the meaning of Docker's default profile, as our table.
//!
//! Calls that are not listed fail with `EPERM`; numbers above the last call we know fail with `ENOSYS`, so that a libc
//! newer than we are falls back to an older call. Calls of a foreign ABI (32-bit, x32) fail with `ENOSYS`: their
//! arguments cannot be checked.

use rustix::thread::CapabilitySet;

use super::numbers::{NONE, NUMBERS};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error.
    Fail(u16),
    /// It is made if the low 32 bits of an argument lie in one of these ranges; else it fails with `EPERM`. The kernel
    /// itself looks at no more than these bits.
    AllowIn {
        /// Which argument.
        argument: u8,
        /// Both ends included, ascending.
        ranges: &'static [(u32, u32)],
    },
    /// It is made if an argument has none of these bits; else it fails with `EPERM`.
    AllowWithout {
        /// Which argument.
        argument: u8,
        /// The bits.
        bits: u32,
    },
}

pub(super) const EPERM: u16 = libc::EPERM as u16;
pub(super) const ENOSYS: u16 = libc::ENOSYS as u16;

/// The flags of `clone` that make namespaces. `CLONE_NEWTIME` shares its bit with the exit signal and means that there.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Address families with a use in a container. Out: what no kernel has any more, the kernel's crypto (`AF_ALG`, 38),
/// and the host's other machines (`AF_VSOCK`, 40).
const FAMILIES: &[(u32, u32)] = &[(1, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// Requests to devices: all but those that type into a terminal for whoever sits at it (`TIOCSTI`), or paste on a
/// console (`TIOCLINUX`).
const REQUESTS: &[(u32, u32)] = &[
    (0, libc::TIOCSTI as u32 - 1),
    (libc::TIOCSTI as u32 + 1, libc::TIOCLINUX as u32 - 1),
    (libc::TIOCLINUX as u32 + 1, u32::MAX),
];

/// Execution domains that change nothing but what a program sees of itself.
const PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (0x8, 0x8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// Gives the verdict on every call, by number; what lies beyond fails with `ENOSYS`.
pub(super) fn verdicts(granted: CapabilitySet) -> Vec<Verdict> {
    let last = NUMBERS.iter().filter_map(number).max().expect("the table is not empty");
    let mut verdicts = vec![Verdict::Fail(EPERM); usize::from(last) + 1];
    let mut rule = |names: &str, verdict: Verdict| {
        for name in names.split_whitespace() {
            let row = NUMBERS.binary_search_by_key(&name, |row| row.0).ok().map(|at| &NUMBERS[at]);
            if let Some(number) = row.and_then(number) {
                verdicts[usize::from(number)] = verdict;
            }
        }
    };
    GROUPS.iter().for_each(|names| rule(names, Verdict::Allow));
    rule("socket", Verdict::AllowIn { argument: 0, ranges: FAMILIES });
    rule("personality", Verdict::AllowIn { argument: 0, ranges: PERSONALITIES });
    rule("ioctl", Verdict::AllowIn { argument: 1, ranges: REQUESTS });
    rule("clone", Verdict::AllowWithout { argument: 0, bits: NAMESPACES });
    // Its flags are behind a pointer, so libc is told that there is only `clone`.
    rule("clone3", Verdict::Fail(ENOSYS));
    for (capability, names) in UNLOCKED {
        if granted.contains(*capability) {
            rule(names, Verdict::Allow);
        }
    }
    verdicts
}

fn number((_, x86_64, aarch64): &(&str, u16, u16)) -> Option<u16> {
    let number = if cfg!(target_arch = "x86_64") { *x86_64 } else { *aarch64 };
    (number != NONE).then_some(number)
}

/// Calls anyone may make, by theme. Names that an architecture lacks mean nothing there.
const GROUPS: &[&str] = &[
    // Files: open, read, write, close.
    "open openat openat2 creat close close_range read readv pread64 preadv preadv2 readahead write writev pwrite64 \
     pwritev pwritev2 lseek sendfile splice tee vmsplice copy_file_range dup dup2 dup3 fcntl flock fsync \
     fdatasync sync syncfs sync_file_range ftruncate truncate fallocate fadvise64 cachestat memfd_create memfd_secret",
    // Files: names, attributes, directories.
    "access faccessat faccessat2 chdir fchdir getcwd chmod fchmod fchmodat fchmodat2 chown \
     fchown fchownat lchown link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat \
     renameat2 mkdir mkdirat rmdir mknod mknodat umask utime utimes utimensat futimesat stat fstat lstat newfstatat \
     statx statfs fstatfs statmount listmount getdents getdents64 name_to_handle_at",
    "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr \
     listxattrat removexattr lremovexattr fremovexattr removexattrat",
    // Waiting for several things at once.
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old \
     epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime \
     inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark pipe pipe2 io_setup io_destroy \
     io_submit io_cancel io_getevents io_pgetevents",
    // Memory.
    "brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal membarrier \
     pkey_alloc pkey_free pkey_mprotect remap_file_pages map_shadow_stack process_mrelease",
    // Processes and threads.
    "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp getsid setpgid \
     setsid kill tkill tgkill pidfd_open pidfd_send_signal pause prctl restart_syscall set_tid_address \
     set_robust_list get_robust_list rseq futex futex_wait futex_wake futex_requeue futex_waitv set_thread_area \
     get_thread_area arch_prctl modify_ldt uretprobe ptrace process_vm_readv process_vm_writev seccomp \
     landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    "sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam \
     sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
     getpriority setpriority ioprio_get ioprio_set getcpu getrlimit setrlimit prlimit64 getrusage times sysinfo uname",
    // Signals.
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_tgsigqueueinfo sigaltstack alarm getitimer setitimer",
    // Users.
    "getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid setgroups setreuid setregid setresuid \
     setresgid setfsuid setfsgid capget capset",
    // Time. Setting the clock fails for want of a capability.
    "time gettimeofday nanosleep clock_gettime clock_getres clock_nanosleep clock_adjtime adjtimex timer_create \
     timer_delete timer_getoverrun timer_gettime timer_settime getrandom",
    // Sockets that are there; making one is checked.
    "socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt sendto \
     sendmsg sendmmsg recvfrom recvmsg recvmmsg",
    // Queues and shared memory of the own IPC namespace.
    "msgget msgsnd msgrcv msgctl semget semop semctl semtimedop shmget shmat shmdt shmctl mq_open mq_unlink \
     mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
];

/// Calls that a capability brings along.
const UNLOCKED: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        CapabilitySet::SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    (CapabilitySet::SYS_BOOT, "reboot"),
    (CapabilitySet::SYS_CHROOT, "chroot"),
    (CapabilitySet::SYS_MODULE, "delete_module init_module finit_module"),
    (CapabilitySet::SYS_PACCT, "acct"),
    (CapabilitySet::SYS_PTRACE, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (CapabilitySet::SYS_RAWIO, "iopl ioperm"),
    (CapabilitySet::SYS_TIME, "settimeofday clock_settime"),
    (CapabilitySet::SYS_TTY_CONFIG, "vhangup"),
    (CapabilitySet::SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (CapabilitySet::SYSLOG, "syslog"),
    (CapabilitySet::BPF, "bpf"),
    (CapabilitySet::PERFMON, "perf_event_open"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(granted: CapabilitySet, name: &str) -> Verdict {
        let row = NUMBERS.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no call `{name}`"));
        verdicts(granted)[usize::from(number(row).unwrap())]
    }

    #[test]
    fn every_name_in_the_profile_is_a_call() {
        let unlocked = UNLOCKED.iter().map(|(_, names)| *names);
        for name in GROUPS.iter().copied().chain(unlocked).flat_map(str::split_whitespace) {
            assert!(NUMBERS.binary_search_by_key(&name, |row| row.0).is_ok(), "no call `{name}`");
        }
    }

    #[test]
    fn what_reaches_the_host_is_denied() {
        let names = "mount umount2 unshare setns keyctl add_key request_key bpf perf_event_open userfaultfd \
            io_uring_setup io_uring_enter kexec_load open_by_handle_at open_tree fsopen move_mount pivot_root swapon \
            reboot init_module iopl syslog settimeofday acct quotactl";
        for name in names.split_whitespace() {
            assert_eq!(verdict(crate::caps::SANDBOX, name), Verdict::Fail(EPERM), "{name}");
        }
        assert_eq!(verdict(crate::caps::SANDBOX, "clone3"), Verdict::Fail(ENOSYS));
    }

    #[test]
    fn capabilities_unlock_their_calls() {
        assert_eq!(verdict(crate::caps::SANDBOX, "chroot"), Verdict::Allow);
        assert_eq!(verdict(CapabilitySet::empty(), "chroot"), Verdict::Fail(EPERM));
        assert_eq!(verdict(CapabilitySet::SYS_ADMIN, "clone3"), Verdict::Allow);
        assert_eq!(verdict(CapabilitySet::SYS_ADMIN, "mount"), Verdict::Allow);
        assert_eq!(verdict(CapabilitySet::SYS_ADMIN, "init_module"), Verdict::Fail(EPERM));
    }

    #[test]
    fn the_namespace_bits_are_all_seven() {
        assert_eq!(NAMESPACES, 0x7e02_0000);
    }
}
