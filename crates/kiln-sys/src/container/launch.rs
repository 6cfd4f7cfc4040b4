//! From a process as safe code describes it to the data its child needs, and from its end to an outcome.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;

use super::child::{self, ProcTarget};
use super::isolate::block_signals;
use super::keeper::Keeper;
use super::watchdog::Watchdog;
use crate::limits::Clamped;
use crate::seccomp::Filter;
use crate::userns::UserNamespace;
use crate::{Error, Result, dumpable};

/// A process to be, in the namespaces of the thread that starts it.
#[derive(Debug)]
pub struct Launch {
    /// Its `/proc`; without one the process sees what its root has there.
    pub proc: Option<ProcMount>,
    /// A directory that becomes its root without namespaces of its own: what is left of it when it ends is killed, and
    /// nothing hides the processes of others from it. Without one it is the first of a new pid namespace.
    pub chroot: Option<OwnedFd>,
    /// Its working directory, absolute.
    pub cwd: CString,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Whether standard input is a terminal that becomes that of its session.
    pub takes_terminal: bool,
    /// The files of control groups by which it enters them.
    pub control: Vec<OwnedFd>,
    /// The control group in which it begins, in the hierarchy of the second version.
    pub group: Option<UnifiedGroup>,
    /// How likely it is that the kernel kills it when memory runs out: -1000 to 1000 (`oom_score_adj`).
    pub badness: i16,
    /// Its resource limits.
    pub limits: Vec<Clamped>,
    /// What it can ever have; the rest leaves the bounding set.
    pub bounding: CapabilitySet,
    /// What it has at the start. Of no effect for a user other than root.
    pub effective: CapabilitySet,
    /// Which system calls it may make; `None` is all.
    pub filter: Option<Arc<Filter>>,
    /// Whose ids it has; `None` is the host's.
    pub users: Option<Arc<UserNamespace>>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; `None` leaves those that we have, where nobody may choose.
    pub groups: Option<Vec<u32>>,
    /// The files to try, in order, as a search through `PATH` gives them.
    pub programs: Vec<CString>,
    /// The arguments, the program's name first.
    pub args: Vec<CString>,
    /// The environment.
    pub env: Vec<CString>,
}

/// A control group of the second version.
#[derive(Debug)]
pub struct UnifiedGroup {
    /// Its directory.
    pub directory: OwnedFd,
    /// Its `cgroup.procs`, open for writing: for kernels that start no process in a group.
    pub entrance: OwnedFd,
}

/// A `/proc` to be mounted by the child.
#[derive(Debug)]
pub struct ProcMount {
    /// Where (`O_PATH`).
    pub target: OwnedFd,
    /// Whether the machine's is mounted there already, without which the kernel gives no other to who is in a user
    /// namespace. It is taken off; where the kernel gives no other even so, it stays.
    pub replaces: bool,
    /// What in it is hidden, where the kernel has it.
    pub masks: Vec<Mask>,
    /// What in it cannot be written, where the kernel has it.
    pub read_only: Vec<CString>,
}

/// A name in `/proc`, and what covers it.
#[derive(Debug)]
pub struct Mask {
    /// The name.
    pub name: CString,
    /// A detached mount, of a file or a directory as the name is one.
    pub mount: OwnedFd,
}

/// What the child was about when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "each is the name of what is done")]
pub enum Step {
    DieWithParent = 1,
    Session,
    MountProc,
    MaskProc,
    Umask,
    ControlGroup,
    Limits,
    Users,
    EnterCwd,
    CwdOutside,
    Stdio,
    Terminal,
    Descriptors,
    Watchdog,
    Capabilities,
    Filter,
    Identity,
    Signals,
    Program,
    Interpreter,
    Exec,
    Root,
}

impl Step {
    const ALL: [Step; 22] = [
        Step::DieWithParent,
        Step::Session,
        Step::MountProc,
        Step::MaskProc,
        Step::Umask,
        Step::ControlGroup,
        Step::Limits,
        Step::Users,
        Step::EnterCwd,
        Step::CwdOutside,
        Step::Stdio,
        Step::Terminal,
        Step::Descriptors,
        Step::Watchdog,
        Step::Capabilities,
        Step::Filter,
        Step::Identity,
        Step::Signals,
        Step::Program,
        Step::Interpreter,
        Step::Exec,
        Step::Root,
    ];

    fn from_raw(raw: u32) -> Option<Step> {
        Step::ALL.into_iter().find(|step| *step as u32 == raw)
    }
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The program exited.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
    /// The program never ran.
    NotStarted {
        /// What could not be done.
        step: Step,
        /// What the kernel said.
        source: io::Error,
        /// Which one, where a step does several things: the program, the mask.
        index: usize,
    },
}

/// A process that was started.
///
/// It dies with the thread that started it, and a second process watches for the death of this one, because the first
/// rule can be shed (`prctl`, a change of user) and the second cannot. Dropping a child kills and reaps it.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
    report: OwnedFd,
    minder: Minder,
    reaped: bool,
}

/// Who sees to its end when we die.
#[derive(Debug)]
enum Minder {
    Watchdog(Watchdog),
    /// It also reaps it.
    Keeper(Keeper),
}

impl Launch {
    /// Starts the process. The calling thread must stay until it has ended: its end would end the process.
    pub fn start(&self) -> Result<Child> {
        let resources = |e: rustix::io::Errno| Error::call("prepare a process", e);
        let ourselves =
            rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(resources)?;
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(resources)?;
        let write = above_stdio(write.as_fd())?;
        let [stdin, stdout, stderr] = &self.stdio;
        let (stdin, stdout) = (above_stdio(stdin.as_fd())?, above_stdio(stdout.as_fd())?);
        let stderr = above_stdio(stderr.as_fd())?;
        let stdio = [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
        let (pidfd, minder) = self.clone_child(ourselves, write.as_raw_fd(), stdio)?;
        Ok(Child { pidfd, report: read, minder, reaped: false })
    }

    fn clone_child(&self, ourselves: OwnedFd, report: RawFd, stdio: [RawFd; 3]) -> Result<(OwnedFd, Minder)> {
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        let masks: Vec<(*const libc::c_char, RawFd)> =
            self.proc.iter().flat_map(|proc| &proc.masks).map(Mask::raw).collect();
        let read_only = pointers(self.proc.as_ref().map_or(&[], |proc| &proc.read_only));
        let programs = pointers(&self.programs);
        let proc = self.proc.as_ref().map(|proc| ProcTarget {
            target: proc.target.as_raw_fd(),
            replaces: proc.replaces,
            masks: &masks,
            read_only: &read_only,
        });
        let limits: Vec<(u32, [u64; 2])> = self.limits.iter().map(raw_limit).collect();
        let control: Vec<RawFd> = self.control.iter().map(AsRawFd::as_raw_fd).collect();
        let badness = self.badness.to_string();
        let filter = self.filter.as_ref().map(|filter| filter.as_fprog());
        let groups = self.groups.as_deref();
        let born = child::Born::not_yet();
        let is_watched = Arc::<AtomicU32>::default();
        let prepared = child::Prepared {
            parent: ourselves.as_raw_fd(),
            report,
            born: &born,
            watched: &is_watched,
            proc,
            control: &control,
            born_in: self.group.as_ref().map(UnifiedGroup::raw),
            entrance: None,
            badness: badness.as_bytes(),
            limits: &limits,
            users: self.users.as_ref().map(|users| users.as_fd().as_raw_fd()),
            root: self.chroot.as_ref().map(AsRawFd::as_raw_fd),
            cwd: self.cwd.as_ptr(),
            stdio,
            takes_terminal: self.takes_terminal,
            bounding: self.bounding.bits(),
            effective: if self.uid == 0 { self.effective.bits() } else { 0 },
            filter: filter.as_ref(),
            ids: child::Ids { uid: self.uid, gid: self.gid, groups },
            programs: &programs,
            args: args.as_ptr(),
            env: env.as_ptr(),
        };
        // The child's change of user marks the memory it shares with us as secret, and core dumps would be off for good.
        dumpable::kept(|| {
            if prepared.root.is_some() {
                // A keeper has left our process group before it starts the program.
                is_watched.store(1, Ordering::Release);
                block_signals()?;
                let (keeper, pidfd) = Keeper::start(&prepared, &ourselves)?;
                return Ok((pidfd, Minder::Keeper(keeper)));
            }
            let watch = |child: BorrowedFd<'_>| Watchdog::start(ourselves, child, is_watched.clone());
            child::start(prepared, watch).map(|(pidfd, watchdog)| (pidfd, Minder::Watchdog(watchdog)))
        })
    }
}

impl UnifiedGroup {
    fn raw(&self) -> child::Birthplace {
        child::Birthplace { directory: self.directory.as_raw_fd(), entrance: self.entrance.as_raw_fd() }
    }
}

impl Mask {
    fn raw(&self) -> (*const libc::c_char, RawFd) {
        (self.name.as_ptr(), self.mount.as_raw_fd())
    }
}

fn raw_limit(limit: &Clamped) -> (u32, [u64; 2]) {
    (limit.limit.raw(), [limit.soft.unwrap_or(u64::MAX), limit.hard.unwrap_or(u64::MAX)])
}

/// Duplicates a descriptor to one that is none of the three the child is about to replace.
fn above_stdio(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| Error::call("duplicate a descriptor", e))
}

impl Child {
    /// Kills it. Everything in its pid namespace dies with it. No error if it is dead already.
    pub fn kill(&self) {
        // The only failures are that it is gone, and that we may not, which cannot be of our own child.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// A handle by which it can be killed from elsewhere.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        self.pidfd.try_clone().map_err(|e| Error::call("duplicate a process handle", e))
    }

    /// Waits for its end. All processes of its pid namespace are dead then.
    pub fn wait(mut self) -> Result<Outcome> {
        let status = self.end()?;
        let mut report = [0; 12];
        // The pipe is empty if the program was executed, and the message is shorter than what a pipe splits.
        if let Ok(12) = rustix::io::read(&self.report, &mut report) {
            let word =
                |at: usize| report.iter().skip(at).take(4).rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
            if let Some(step) = Step::from_raw(word(0)) {
                let source = io::Error::from_raw_os_error(word(4) as i32);
                return Ok(Outcome::NotStarted { step, source, index: word(8) as usize });
            }
        }
        Ok(status)
    }

    /// Waits for the end of all that belongs to it.
    fn end(&mut self) -> Result<Outcome> {
        match &self.minder {
            Minder::Watchdog(watchdog) => watchdog.outlast(self.pidfd.as_fd()),
            Minder::Keeper(keeper) => {
                let status = keeper.wait()?;
                self.reaped = true;
                return Ok(match libc::WIFEXITED(status) {
                    true => Outcome::Exited(libc::WEXITSTATUS(status)),
                    false => Outcome::Killed(libc::WTERMSIG(status)),
                });
            }
        }
        let status = self.reap()?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Outcome::Exited(code),
            (None, signal) => Outcome::Killed(signal.unwrap_or(libc::SIGKILL)),
        })
    }

    fn reap(&mut self) -> Result<rustix::process::WaitIdStatus> {
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        let status = rustix::io::retry_on_intr(wait).map_err(|e| Error::call("wait for a process", e))?;
        self.reaped = true;
        status.ok_or_else(|| Error::call("wait for a process", rustix::io::Errno::CHILD))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.end();
        }
    }
}
