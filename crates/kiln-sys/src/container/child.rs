//! The child between clone and exec: system calls from prepared data, nothing else.
//!
//! It shares our memory on a stack of its own, while the thread that starts it stands still, as with `posix_spawn`: a
//! copy of a large process takes longer than all that is done here. The other threads go on, so it must touch nothing
//! they could: no allocation, no panic, no lock, no thread-local storage, no libc (`errno`). It writes to its own stack
//! alone. Slices are walked by iterators; arithmetic cannot overflow. A failed step is reported as three numbers.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use rustix::thread::futex;

use super::launch::Step;
use super::stack::Stack;
use crate::raw::{CloneArguments, RawErrno, clone, clone3, syscall};
use crate::{Error, Result};

/// All a child needs. Pointers are to data that the caller of [`start`] keeps.
pub(super) struct Prepared<'a> {
    /// A handle of the process that starts it.
    pub(super) parent: RawFd,
    /// Where failures are written.
    pub(super) report: RawFd,
    /// Who waits for us to be born.
    pub(super) born: &'a Born,
    /// Not 0 once somebody watches who kills the program when we die (`Watchdog`).
    pub(super) watched: &'a AtomicU32,
    pub(super) proc: Option<ProcTarget<'a>>,
    /// Files of control groups to enter.
    pub(super) control: &'a [RawFd],
    /// The control group to be made in.
    pub(super) born_in: Option<Birthplace>,
    /// The file by which it is entered where that cannot be.
    pub(super) entrance: Option<RawFd>,
    /// How likely it is that the kernel kills it when memory runs out, as text.
    pub(super) badness: &'a [u8],
    pub(super) limits: &'a [(u32, [u64; 2])],
    /// The user namespace to enter.
    pub(super) users: Option<RawFd>,
    /// The directory that becomes its root.
    pub(super) root: Option<RawFd>,
    pub(super) cwd: *const libc::c_char,
    pub(super) stdio: [RawFd; 3],
    pub(super) takes_terminal: bool,
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) filter: Option<&'a libc::sock_fprog>,
    pub(super) ids: Ids<'a>,
    /// NUL-terminated strings; the last is null, as in the next two.
    pub(super) programs: &'a [*const libc::c_char],
    pub(super) args: *const *const libc::c_char,
    pub(super) env: *const *const libc::c_char,
}

/// A control group of the second version: its directory, and the file by which it is entered.
#[derive(Clone, Copy)]
pub(super) struct Birthplace {
    pub(super) directory: RawFd,
    pub(super) entrance: RawFd,
}

pub(super) struct ProcTarget<'a> {
    pub(super) target: RawFd,
    pub(super) replaces: bool,
    pub(super) masks: &'a [(*const libc::c_char, RawFd)],
    pub(super) read_only: &'a [*const libc::c_char],
}

pub(super) struct Ids<'a> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Option<&'a [u32]>,
}

struct Failure {
    step: Step,
    errno: u32,
    index: u32,
}

type Done<T = ()> = std::result::Result<T, Failure>;

/// More than ten times what the deepest step needs without optimisation.
pub(super) const STACK: usize = 256 * 1024;

/// Starts the child in a new pid namespace, and returns when it has executed the program or is dead. Signals must be
/// blocked in the calling thread, which stands still meanwhile; another has `meanwhile` do what takes a handle of the
/// child. If that goes wrong the child is killed.
pub(super) fn start<T: Send>(
    mut prepared: Prepared<'_>,
    meanwhile: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
) -> Result<(OwnedFd, T)> {
    let stack = Stack::new(STACK)?;
    let born = prepared.born;
    std::thread::scope(|scope| {
        let meanwhile = || {
            // SAFETY: it is open until the thread that stands still goes on and has waited for us.
            let child = unsafe { BorrowedFd::borrow_raw(born.wait()?) };
            let done = meanwhile(child);
            if done.is_err() {
                let _ = rustix::process::pidfd_send_signal(child, Signal::KILL);
            }
            Some(done)
        };
        let name = "kiln-start".to_owned();
        let other = std::thread::Builder::new().name(name).stack_size(STACK).spawn_scoped(scope, meanwhile);
        let other = other.map_err(|e| Error::call("start a thread", e))?;
        let begun = begin(&mut prepared, &stack);
        if begun.is_err() {
            born.never();
        }
        let done = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let pidfd = begun.map_err(|errno| Error::call("start a process", kernel_says(errno)))?;
        match done {
            Some(Ok(done)) => Ok((pidfd, done)),
            Some(Err(error)) => {
                let ended = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                let _ = rustix::io::retry_on_intr(ended);
                Err(error)
            }
            None => Err(Error::call("start a process", rustix::io::Errno::CHILD)),
        }
    })
}

/// A child that is born while the thread that starts it stands still, for another thread.
pub(super) struct Born {
    /// Where the kernel writes its handle, and leaves it if there is no child after all.
    pidfd: AtomicI32,
    state: AtomicU32,
}

impl Born {
    const NOT_YET: u32 = 0;
    const ALIVE: u32 = 1;
    const NEVER: u32 = 2;

    pub(super) fn not_yet() -> Self {
        Self { pidfd: AtomicI32::new(-1), state: AtomicU32::new(Born::NOT_YET) }
    }

    /// Waits for the child's handle; `None` if there will be no child.
    fn wait(&self) -> Option<RawFd> {
        while self.state.load(Ordering::Acquire) == Born::NOT_YET {
            let _ = futex::wait(&self.state, futex::Flags::empty(), Born::NOT_YET, None);
        }
        (self.state.load(Ordering::Acquire) == Born::ALIVE).then(|| self.pidfd.load(Ordering::Acquire))
    }

    /// The child itself says so, by system calls alone.
    fn announce(&self) {
        self.state.store(Born::ALIVE, Ordering::Release);
        let _ = call(libc::SYS_futex, [self.state.as_ptr() as usize, libc::FUTEX_WAKE as usize, 1, 0, 0, 0]);
    }

    /// The handle of a child that was begotten; who waits hears it, if it was killed at once.
    fn own(&self) -> OwnedFd {
        self.announce();
        // SAFETY: the kernel has opened it for us; `start` drops it when the thread that borrowed it has ended.
        unsafe { OwnedFd::from_raw_fd(self.pidfd.load(Ordering::Acquire)) }
    }

    fn never(&self) {
        self.state.store(Born::NEVER, Ordering::Release);
        let _ = futex::wake(&self.state, futex::Flags::empty(), 1);
    }
}

const FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_NEWPID | libc::CLONE_PIDFD).cast_unsigned() as u64;

/// Starts the child in the namespaces of who calls, from a process that makes system calls only; gives its number, or what
/// the kernel said, negative.
pub(super) fn start_here(prepared: &Prepared<'_>, stack: *mut libc::c_void) -> i32 {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: as in `start`; the caller vouches for the stack.
    let started = unsafe { clone(flags, stack, live, std::ptr::from_ref(prepared).cast_mut().cast()) };
    started.map_or_else(|RawErrno(errno)| -errno.cast_signed(), |pid| pid as i32)
}

/// Clones; in a control group of the second version, if there is one: entering one later waits for all processors.
fn begin(prepared: &mut Prepared<'_>, stack: &Stack) -> std::result::Result<OwnedFd, RawErrno> {
    if let Some(group) = prepared.born_in.take() {
        match begin_in(prepared, stack, group.directory) {
            Err(RawErrno(errno)) if is_unknown(errno) => prepared.entrance = Some(group.entrance),
            begun => return begun,
        }
    }
    let flags = (FLAGS | libc::SIGCHLD as u64) as libc::c_int;
    let argument = std::ptr::from_ref(&*prepared).cast_mut().cast();
    // SAFETY: with CLONE_VFORK this thread goes on only when the child has left our memory, so the stack and what
    // `prepared` points to outlive it; `live` keeps to the rules above; the kernel writes one descriptor to `born`.
    let pid = unsafe { libc::clone(live, stack.top(), flags, argument, prepared.born.pidfd.as_ptr()) };
    if pid < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
        return Err(RawErrno(errno.cast_unsigned()));
    }
    Ok(prepared.born.own())
}

fn begin_in(prepared: &Prepared<'_>, stack: &Stack, group: RawFd) -> std::result::Result<OwnedFd, RawErrno> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = CloneArguments {
        flags: FLAGS | INTO_CGROUP,
        pidfd: prepared.born.pidfd.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.top() as u64 - STACK as u64,
        stack_size: STACK as u64,
        cgroup: group as u64,
        ..CloneArguments::default()
    };
    // SAFETY: as in `begin`.
    unsafe { clone3(&arguments, live, std::ptr::from_ref(prepared).cast_mut().cast()) }?;
    Ok(prepared.born.own())
}

/// Kernels before 5.7 and filters of older containers know nothing of it.
fn is_unknown(errno: u32) -> bool {
    [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG, libc::EOPNOTSUPP].contains(&errno.cast_signed())
}

fn kernel_says(RawErrno(errno): RawErrno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.cast_signed())
}

/// The child's life until it is another program, or none.
extern "C" fn live(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a `Prepared` that outlives this process.
    let prepared = unsafe { &*argument.cast::<Prepared<'_>>() };
    let failure = match become_the_program(prepared) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    let words = [failure.step as u32, failure.errno, failure.index];
    let report = words.map(u32::to_le);
    let _ = call(libc::SYS_write, [prepared.report as usize, report.as_ptr() as usize, size_of_val(&report), 0, 0, 0]);
    loop {
        let _ = call(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]);
    }
}

fn become_the_program(prepared: &Prepared<'_>) -> Done<std::convert::Infallible> {
    prepared.born.announce();
    die_with_parent(prepared.parent)?;
    step(Step::Session, libc::SYS_setsid, [0; 6])?;
    if let Some(proc) = &prepared.proc {
        mount_proc(proc)?;
    }
    step(Step::Umask, libc::SYS_umask, [0o022, 0, 0, 0, 0, 0])?;
    enter_groups(prepared)?;
    if prepared.proc.is_some() {
        be_killed_first(prepared.badness);
    }
    leave_the_keyring();
    // From here on we have no rights over the namespaces we are in, only over files and processes of these ids.
    if let Some(users) = prepared.users {
        step(Step::Users, libc::SYS_setns, [users as usize, libc::CLONE_NEWUSER as usize, 0, 0, 0, 0])?;
    }
    if let Some(root) = prepared.root {
        step(Step::Root, libc::SYS_fchdir, [root as usize, 0, 0, 0, 0, 0])?;
        step(Step::Root, libc::SYS_chroot, [c".".as_ptr() as usize, 0, 0, 0, 0, 0])?;
    }
    enter_cwd(prepared.cwd)?;
    for (to, from) in (0usize..).zip(prepared.stdio) {
        step(Step::Stdio, libc::SYS_dup3, [from as usize, to, 0, 0, 0, 0])?;
    }
    if prepared.takes_terminal {
        step(Step::Terminal, libc::SYS_ioctl, [0, libc::TIOCSCTTY as usize, 0, 0, 0, 0])?;
    }
    let cloexec = libc::CLOSE_RANGE_CLOEXEC as usize;
    step(Step::Descriptors, libc::SYS_close_range, [3, u32::MAX as usize, cloexec, 0, 0, 0])?;
    wait_for_watchdog(prepared.watched)?;
    drop_bounding(prepared.bounding)?;
    // While CAP_SYS_ADMIN is left: without it the kernel would want no_new_privs, and `su` would not work.
    if let Some(filter) = prepared.filter {
        let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
        step(Step::Filter, libc::SYS_seccomp, [mode, 0, std::ptr::from_ref(filter) as usize, 0, 0, 0])?;
    }
    take_identity(&prepared.ids, prepared.effective)?;
    // A change of user has reset it.
    die_with_parent(prepared.parent)?;
    reset_signals()?;
    execute(prepared)
}

/// Waits until somebody watches: what kills us and the watchdog before leaves no program behind that nobody kills.
fn wait_for_watchdog(watched: &AtomicU32) -> Done {
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    for _ in 0..30 {
        if watched.load(Ordering::Acquire) != 0 {
            return Ok(());
        }
        let timeout = std::ptr::from_ref(&second) as usize;
        let _ = call(libc::SYS_futex, [watched.as_ptr() as usize, libc::FUTEX_WAIT as usize, 0, timeout, 0, 0]);
    }
    fail(Step::Watchdog, libc::ETIMEDOUT as u32, 0)
}

/// Enters control groups, and makes them the top of all that is seen of groups: their names tell of the machine.
fn enter_groups(prepared: &Prepared<'_>) -> Done {
    for entrance in prepared.control.iter().chain(&prepared.entrance) {
        let ourselves = b"0";
        let arguments = [*entrance as usize, ourselves.as_ptr() as usize, ourselves.len(), 0, 0, 0];
        step(Step::ControlGroup, libc::SYS_write, arguments)?;
    }
    // Kernels without it have no paths of groups worth hiding.
    let _ = call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as usize, 0, 0, 0, 0, 0]);
    Ok(())
}

/// Has the kernel kill this before whoever started it. Where that may not be said, all are alike.
fn be_killed_first(badness: &[u8]) {
    let Ok(file) = open_plain(c"/proc/1/oom_score_adj".as_ptr(), libc::O_WRONLY) else { return };
    let _ = call(libc::SYS_write, [file, badness.as_ptr() as usize, badness.len(), 0, 0, 0]);
    let _ = call(libc::SYS_close, [file, 0, 0, 0, 0, 0]);
}

/// Ties our life to that of the thread that started us, and makes sure it has not ended before.
fn die_with_parent(parent: RawFd) -> Done {
    let option = libc::PR_SET_PDEATHSIG as usize;
    step(Step::DieWithParent, libc::SYS_prctl, [option, libc::SIGKILL as usize, 0, 0, 0, 0])?;
    let mut process = libc::pollfd { fd: parent, events: libc::POLLIN, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let arguments = [(&raw mut process) as usize, 1, std::ptr::from_ref(&now) as usize, 0, 0, 0];
    let dead = step(Step::DieWithParent, libc::SYS_ppoll, arguments)?;
    if dead == 0 { Ok(()) } else { fail(Step::DieWithParent, libc::ESRCH as u32, 0) }
}

/// Mounts this pid namespace's `/proc` on its prepared place, and covers what is not for containers.
fn mount_proc(proc: &ProcTarget<'_>) -> Done {
    const CREATE: usize = 6;
    const SET_STRING: usize = 1;
    const CLOEXEC: usize = 1;
    const INERT: usize = 0x2 | 0x4 | 0x8;
    const PROC: &std::ffi::CStr = c"/proc";
    let name = c"proc".as_ptr() as usize;
    let context = step(Step::MountProc, libc::SYS_fsopen, [name, CLOEXEC, 0, 0, 0, 0])?;
    let source = [context, SET_STRING, c"source".as_ptr() as usize, name, 0, 0];
    step(Step::MountProc, libc::SYS_fsconfig, source)?;
    step(Step::MountProc, libc::SYS_fsconfig, [context, CREATE, 0, 0, 0, 0])?;
    let mount = match call(libc::SYS_fsmount, [context, CLOEXEC, INERT, 0, 0, 0]) {
        Ok(mount) => {
            if proc.replaces {
                let flags = (libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) as usize;
                step(Step::MountProc, libc::SYS_umount2, [PROC.as_ptr() as usize, flags, 0, 0, 0, 0])?;
            }
            attach(Step::MountProc, mount, proc.target as usize, 0)?;
            mount
        }
        // Parts of the machine's are covered, and ours would show them.
        Err(RawErrno(errno)) if proc.replaces && errno == libc::EPERM as u32 => {
            let flags = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as usize;
            let at = [libc::AT_FDCWD as usize, PROC.as_ptr() as usize, flags, 0, 0, 0];
            step(Step::MountProc, libc::SYS_openat, at)?
        }
        Err(RawErrno(errno)) => return fail(Step::MountProc, errno, 0),
    };
    for (index, name) in (0u32..).zip(proc.read_only.iter().filter(|name| !name.is_null())) {
        make_read_only(mount, *name, index)?;
    }
    for (index, (name, cover)) in (0u32..).zip(proc.masks) {
        if let Some(place) = open_in_proc(mount, *name, index)? {
            attach(Step::MaskProc, *cover as usize, place, index)?;
        }
    }
    Ok(())
}

/// Opens a name of `/proc`, if this kernel has it. Our own fresh mount has no links of others in it.
fn open_in_proc(proc: usize, name: *const libc::c_char, index: u32) -> Done<Option<usize>> {
    let flags = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as usize;
    match call(libc::SYS_openat, [proc, name as usize, flags, 0, 0, 0]) {
        Err(RawErrno(errno)) if errno == libc::ENOENT as u32 => Ok(None),
        Err(RawErrno(errno)) => fail(Step::MaskProc, errno, index),
        Ok(place) => Ok(Some(place)),
    }
}

fn make_read_only(proc: usize, name: *const libc::c_char, index: u32) -> Done {
    const AT_RECURSIVE: usize = 0x8000;
    const EMPTY_PATH: usize = libc::AT_EMPTY_PATH as usize;
    /// Read-only, nosuid, nodev, noexec; nothing cleared; propagation and user namespace as they are.
    const ATTRIBUTES: [u64; 4] = [0x1 | 0x2 | 0x4 | 0x8, 0, 0, 0];
    let Some(place) = open_in_proc(proc, name, index)? else {
        return Ok(());
    };
    let at = |errno: RawErrno| Failure { step: Step::MaskProc, errno: errno.0, index };
    let empty = c"".as_ptr() as usize;
    let clone = EMPTY_PATH | AT_RECURSIVE | libc::OPEN_TREE_CLONE as usize | libc::OPEN_TREE_CLOEXEC as usize;
    let copy = call(libc::SYS_open_tree, [place, empty, clone, 0, 0, 0]).map_err(at)?;
    let (change, size) = (ATTRIBUTES.as_ptr() as usize, size_of_val(&ATTRIBUTES));
    call(libc::SYS_mount_setattr, [copy, empty, EMPTY_PATH, change, size, 0]).map_err(at)?;
    attach(Step::MaskProc, copy, place, index)
}

fn attach(what: Step, mount: usize, place: usize, index: u32) -> Done {
    const BOTH_EMPTY: usize = 0x4 | 0x40;
    let empty = c"".as_ptr() as usize;
    let result = call(libc::SYS_move_mount, [mount, empty, place, empty, BOTH_EMPTY, 0]);
    result.map(drop).map_err(|errno| Failure { step: what, errno: errno.0, index })
}

/// Takes a fresh session keyring, so that ours cannot be reached. Kernels without keyrings, and full quotas, are no
/// reason to stop: the filter denies the calls.
fn leave_the_keyring() {
    const JOIN_SESSION_KEYRING: usize = 1;
    let _ = call(libc::SYS_keyctl, [JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0]);
}

/// The argument of `openat2`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a path of ours that does not go through a magic link: those lead to whatever we have open, or run.
fn open_plain(path: *const libc::c_char, flags: libc::c_int) -> std::result::Result<usize, RawErrno> {
    const NO_MAGICLINKS: u64 = 0x02;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve: NO_MAGICLINKS };
    let how = [libc::AT_FDCWD as usize, path as usize, std::ptr::from_ref(&how) as usize, size_of::<OpenHow>(), 0, 0];
    call(libc::SYS_openat2, how)
}

/// Enters the working directory, and makes sure that it lies in this root.
fn enter_cwd(cwd: *const libc::c_char) -> Done {
    let at = |errno: RawErrno| Failure { step: Step::EnterCwd, errno: errno.0, index: 0 };
    let directory = open_plain(cwd, libc::O_PATH | libc::O_DIRECTORY).map_err(at)?;
    step(Step::EnterCwd, libc::SYS_fchdir, [directory, 0, 0, 0, 0, 0])?;
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    step(Step::CwdOutside, libc::SYS_getcwd, [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0])?;
    // What is not below the root is given as `(unreachable)/…`.
    if buffer.first() == Some(&b'/') { Ok(()) } else { fail(Step::CwdOutside, libc::EXDEV as u32, 0) }
}

fn drop_bounding(keep: u64) -> Done {
    for capability in 0usize..64 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        match call(libc::SYS_prctl, [libc::PR_CAPBSET_DROP as usize, capability, 0, 0, 0, 0]) {
            Ok(_) => {}
            // The first number the kernel does not know ends the list.
            Err(RawErrno(errno)) if errno == libc::EINVAL as u32 => break,
            Err(RawErrno(errno)) => return fail(Step::Capabilities, errno, capability as u32),
        }
    }
    let clear = [libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0, 0];
    step(Step::Capabilities, libc::SYS_prctl, clear).map(drop)
}

/// The arguments of `capset`: header, and three sets in two halves.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

fn take_identity(ids: &Ids<'_>, effective: u64) -> Done {
    const VERSION_3: u32 = 0x2008_0522;
    let (uid, gid) = (ids.uid as usize, ids.gid as usize);
    if let Some(groups) = ids.groups {
        step(Step::Identity, libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0])?;
    }
    step(Step::Identity, libc::SYS_setresgid, [gid, gid, gid, 0, 0, 0])?;
    step(Step::Identity, libc::SYS_setresuid, [uid, uid, uid, 0, 0, 0])?;
    let header = CapHeader { version: VERSION_3, pid: 0 };
    let (low, high) = (effective as u32, (effective >> 32) as u32);
    // Effective, permitted, inheritable of the low half, then of the high half.
    let sets = [low, low, 0, high, high, 0];
    let arguments = [std::ptr::from_ref(&header) as usize, sets.as_ptr() as usize, 0, 0, 0, 0];
    step(Step::Capabilities, libc::SYS_capset, arguments).map(drop)
}

/// Gives every signal its default meaning (Rust ignores SIGPIPE, and ignored signals stay ignored over exec), and lets
/// them through.
fn reset_signals() -> Done {
    const SIGNALS: std::ops::RangeInclusive<usize> = 1..=64;
    let default = [0u64; 4];
    for signal in SIGNALS {
        // Two of them cannot be changed, and need not.
        let _ = call(libc::SYS_rt_sigaction, [signal, default.as_ptr() as usize, 0, 8, 0, 0]);
    }
    let none = 0u64;
    let set = libc::SIG_SETMASK as usize;
    step(Step::Signals, libc::SYS_rt_sigprocmask, [set, std::ptr::from_ref(&none) as usize, 0, 8, 0, 0]).map(drop)
}

/// Tries one file after the other, as a search through `PATH` does.
fn execute(prepared: &Prepared<'_>) -> Done<std::convert::Infallible> {
    let mut failure = Failure { step: Step::Program, errno: libc::ENOENT as u32, index: 0 };
    for (index, program) in (0u32..).zip(prepared.programs.iter().filter(|program| !program.is_null())) {
        match look_for(*program) {
            Ok(()) => {}
            Err(RawErrno(errno)) if is_absent(errno) => continue,
            Err(RawErrno(errno)) if errno == libc::EACCES as u32 => {
                failure = Failure { step: Step::Program, errno, index };
                continue;
            }
            Err(RawErrno(errno)) => return fail(Step::Program, errno, index),
        }
        follow_interpreters(*program, index)?;
        take_limits(prepared.limits)?;
        let arguments = [*program as usize, prepared.args as usize, prepared.env as usize, 0, 0, 0];
        match call(libc::SYS_execve, arguments) {
            Err(RawErrno(errno)) if errno == libc::EACCES as u32 => {
                failure = Failure { step: Step::Exec, errno, index }
            }
            Err(RawErrno(errno)) => return fail(Step::Exec, errno, index),
            Ok(_) => return fail(Step::Exec, 0, index),
        }
    }
    Err(failure)
}

fn is_absent(errno: u32) -> bool {
    errno == libc::ENOENT as u32 || errno == libc::ENOTDIR as u32
}

fn look_for(program: *const libc::c_char) -> std::result::Result<(), RawErrno> {
    let found = open_plain(program, libc::O_PATH)?;
    let _ = call(libc::SYS_close, [found, 0, 0, 0, 0, 0]);
    Ok(())
}

/// Takes the program's limits, and not before its turn: of files that may be open we have more than many a program may.
fn take_limits(limits: &[(u32, [u64; 2])]) -> Done {
    for (resource, limit) in limits {
        step(Step::Limits, libc::SYS_prlimit64, [0, *resource as usize, limit.as_ptr() as usize, 0, 0, 0])?;
    }
    Ok(())
}

/// Looks at the `#!` lines that the kernel is about to follow. None may lead through a magic link: `/proc/self/exe` is
/// still kiln, and a container must never get hold of the host's file.
fn follow_interpreters(program: *const libc::c_char, index: u32) -> Done {
    const DEPTH: usize = 6;
    let mut line = [0u8; 257];
    let mut path = program;
    let mut interpreter = [0u8; 257];
    for _ in 0..DEPTH {
        let file = match open_plain(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY) {
            Ok(file) => file,
            // After a program that could not be started the limits are in force.
            Err(RawErrno(errno)) if errno == libc::EMFILE as u32 => return fail(Step::Interpreter, errno, index),
            // What cannot be read can still be executed, and is then no script.
            Err(_) => return Ok(()),
        };
        let read = call(libc::SYS_read, [file, line.as_mut_ptr() as usize, 256, 0, 0, 0]).unwrap_or(0);
        let _ = call(libc::SYS_close, [file, 0, 0, 0, 0, 0]);
        if !copy_interpreter(line.iter().take(read), &mut interpreter) {
            return Ok(());
        }
        path = interpreter.as_ptr().cast();
        if let Err(RawErrno(errno)) = look_for(path) {
            return fail(Step::Interpreter, errno, index);
        }
    }
    Ok(())
}

/// Copies the program's name out of a `#!` line, NUL-terminated; false if it is none.
fn copy_interpreter<'a>(mut line: impl Iterator<Item = &'a u8>, to: &mut [u8; 257]) -> bool {
    if line.next() != Some(&b'#') || line.next() != Some(&b'!') {
        return false;
    }
    let name = line.skip_while(|b| matches!(b, b' ' | b'\t')).take_while(|b| !matches!(b, b' ' | b'\t' | b'\n' | 0));
    to.fill(0);
    let mut some = false;
    for (to, from) in to.iter_mut().take(256).zip(name) {
        *to = *from;
        some = true;
    }
    some
}

fn step(what: Step, number: libc::c_long, arguments: [usize; 6]) -> Done<usize> {
    call(number, arguments).map_err(|errno| Failure { step: what, errno: errno.0, index: 0 })
}

fn fail<T>(step: Step, errno: u32, index: u32) -> Done<T> {
    Err(Failure { step, errno, index })
}

fn call(number: libc::c_long, arguments: [usize; 6]) -> std::result::Result<usize, RawErrno> {
    // SAFETY: all callers are in this module and pass numbers, strings and structures that live during the call, of
    // the layout that the call's number asks for.
    unsafe { syscall(number, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_read_as_the_kernel_reads_them() {
        let read = |line: &str| {
            let mut to = [b'x'; 257];
            let found = copy_interpreter(line.as_bytes().iter(), &mut to);
            found.then(|| String::from_utf8_lossy(to.split(|b| *b == 0).next().unwrap()).into_owned())
        };
        assert_eq!(read("#!/bin/sh\n").as_deref(), Some("/bin/sh"));
        assert_eq!(read("#! \t/usr/bin/env  python -u\nx").as_deref(), Some("/usr/bin/env"));
        assert_eq!(read("#!/proc/self/exe").as_deref(), Some("/proc/self/exe"));
        assert_eq!(read(&format!("#!/{}", "a".repeat(300))).map(|name| name.len()), Some(256));
        for none in ["", "#", "#!", "#!\n", "#! \n", "\x7fELF", " #!/bin/sh"] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
