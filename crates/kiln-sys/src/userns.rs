//! User namespaces: one for containers, which owns nothing, and one for ourselves when we are nobody.
//!
//! That for containers is made once and shared: what tells containers apart are their other namespaces. Where we are the
//! machine's root, id `n` in it is `2147483647 + n` on the host, for every `n` that a process can be given as its user.
//! Files keep their own ids: they are shown to it through idmapped mounts ([`crate::mount::Shifted`]). What is made for it
//! in memory belongs to ids of the host, and so is made by a thread that acts as its root
//! ([`UserNamespace::act_as_root`]). Where we are in a user namespace ourselves, its ids are ours.

mod empty;
mod map;

use std::fs::File;
use std::io::Write as _;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::container::Stack;
use crate::container::block_signals;
use crate::raw::syscall;
use crate::{Error, Result, dumpable};

pub use empty::Empty;
pub use map::{Extent, IdMap, has_groups, is_machine_root};

/// The host's id of the namespace's id 0, above all that is given to people, services or other namespaces.
const FIRST: u32 = 0x7fff_ffff;
/// All ids of 31 bits, which is what a `USER` can be.
const COUNT: u32 = 0x8000_0000;

/// The namespace; it is gone with the last process and the last mount that know it.
#[derive(Debug)]
pub struct UserNamespace {
    handle: OwnedFd,
    ids: Ids,
}

/// Which ids it has.
#[derive(Debug)]
enum Ids {
    /// Those of nobody.
    Shifted,
    /// All that we have, as they are: users and groups.
    Same(IdMap, IdMap),
}

impl UserNamespace {
    /// Makes one with ids that nobody has. That takes the right to give them, which only the host's root has.
    pub fn new() -> Result<UserNamespace> {
        let map = format!("0 {FIRST} {COUNT}\n");
        UserNamespace::make(Ids::Shifted, [&map, &map])
    }

    /// Makes one with the ids that we have in the namespace we are in.
    pub fn nested() -> Result<UserNamespace> {
        let (users, groups) = (IdMap::of_users()?, IdMap::of_groups()?);
        let maps = [users.to_itself(), groups.to_itself()];
        UserNamespace::make(Ids::Same(users, groups), [&maps[0], &maps[1]])
    }

    fn make(ids: Ids, maps: [&str; 2]) -> Result<UserNamespace> {
        // In a thread of its own: no handler of ours may run in a process that shares our memory.
        let make = || {
            block_signals()?;
            let member = Member::start()?;
            member.give_ids(maps)?;
            Ok(UserNamespace { handle: member.namespace()?, ids })
        };
        apart(make)
    }

    /// The number that one of its ids has for us.
    pub fn on_host(&self, id: u32) -> Result<u32> {
        match &self.ids {
            Ids::Shifted => FIRST
                .checked_add(id)
                .filter(|host| *host != u32::MAX)
                .ok_or_else(|| Error::call("give a file to an id over 2147483647 in a user namespace", Errno::INVAL)),
            Ids::Same(users, groups) => {
                match [("user", users), ("group", groups)].into_iter().find(|(_, map)| !map.has(id)) {
                    Some((what, map)) => Err(Error::NoId { what, id, last: map.last() }),
                    None => Ok(id),
                }
            }
        }
    }

    /// Has the calling thread make files as the namespace's root would, until what is given is dropped. Its rights stay.
    pub fn act_as_root(&self) -> Result<Acting> {
        if matches!(self.ids, Ids::Same(..)) {
            return Ok(Acting { before: None, effective: CapabilitySet::empty(), _thread: PhantomData });
        }
        let sets = capabilities(None).map_err(|e| Error::call("read our capabilities", e))?;
        let before = dumpable::kept(|| (set_fsuid(FIRST), set_fsgid(FIRST)));
        let acting = Acting { before: Some(before), effective: sets.effective, _thread: PhantomData };
        // The change has taken the rights over files; what is still permitted can be taken back.
        set_capabilities(None, sets).map_err(|e| Error::call("keep our capabilities", e))?;
        // The calls tell no failure, but what was set before.
        if (set_fsuid(FIRST), set_fsgid(FIRST)) == (FIRST, FIRST) {
            Ok(acting)
        } else {
            Err(Error::call("act as the root of a user namespace", Errno::PERM))
        }
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// A thread acts as the root of a user namespace as long as this lives, in that thread.
#[derive(Debug)]
pub struct Acting {
    /// Nothing where its root is who we are.
    before: Option<(u32, u32)>,
    effective: CapabilitySet,
    _thread: PhantomData<*const ()>,
}

impl Drop for Acting {
    fn drop(&mut self) {
        let Some((uid, gid)) = self.before else { return };
        dumpable::kept(|| (set_fsuid(uid), set_fsgid(gid)));
        if let Ok(sets) = capabilities(None) {
            let sets = CapabilitySets { effective: self.effective & sets.permitted, ..sets };
            // Lowering to what we had, or raising what is permitted, is always allowed.
            let _ = set_capabilities(None, sets);
        }
    }
}

fn set_fsuid(id: u32) -> u32 {
    // SAFETY: the call takes no pointers and concerns the calling thread alone.
    (unsafe { libc::setfsuid(id) }).cast_unsigned()
}

fn set_fsgid(id: u32) -> u32 {
    // SAFETY: as above.
    (unsafe { libc::setfsgid(id) }).cast_unsigned()
}

/// Does something in a thread of its own.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("kiln-users".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::call("start a thread", e))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A process that is in a new user namespace and waits for our end of a pipe to be closed.
#[derive(Debug)]
struct Member {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    until: Option<OwnedFd>,
    _stack: Stack,
    _wait: Box<RawFd>,
}

impl Member {
    fn start() -> Result<Member> {
        const ACTION: &str = "make a user namespace";
        const STACK: usize = 64 * 1024;
        let (read, until) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::call(ACTION, e))?;
        let stack = Stack::new(STACK)?;
        let wait = Box::new(read.as_raw_fd());
        let mut pidfd: RawFd = -1;
        let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::CLONE_PIDFD;
        let argument = std::ptr::from_ref(&*wait).cast_mut().cast();
        // SAFETY: the stack and the argument live until the process is reaped (`drop`); `stay` makes system calls only
        // and touches no thread-local storage; the kernel writes one descriptor to `pidfd`.
        let pid = unsafe { libc::clone(stay, stack.top(), flags, argument, &raw mut pidfd) };
        if pid < 0 {
            return Err(Error::call(ACTION, std::io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just opened it for us, and nobody else knows the number.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Member { pid, pidfd, until: Some(until), _stack: stack, _wait: wait })
    }

    /// Gives its namespace ids: of users, of groups.
    fn give_ids(&self, maps: [&str; 2]) -> Result<()> {
        ["uid_map", "gid_map"].into_iter().zip(maps).try_for_each(|(name, map)| self.write(name, map))
    }

    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = format!("/proc/{}/{name}", self.pid);
        let written = File::options().write(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|e| Error::path("write", Path::new(&path), e))
    }

    /// A handle of its namespace.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
    fn namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid);
        let handle = File::open(&path).map_err(|e| Error::path("open", Path::new(&path), e))?;
        Ok(handle.into())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.until.take());
        // `ALL` because it was made without an exit signal, so that nobody who waits for just any child finds it.
        let options = WaitIdOptions::from_bits_retain(WaitIdOptions::EXITED.bits() | libc::__WALL as u32);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        let _ = rustix::io::retry_on_intr(wait);
    }
}

/// The member's life: it lets go of all our descriptors but one, and ends when that has no other end any more.
extern "C" fn stay(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a descriptor's number that outlives this process.
    let wait = unsafe { *argument.cast::<RawFd>() } as usize;
    let mut byte = 0u8;
    if let Some(below) = wait.checked_sub(1) {
        call(libc::SYS_close_range, [0, below, 0, 0, 0, 0]);
    }
    call(libc::SYS_close_range, [wait + 1, u32::MAX as usize, 0, 0, 0, 0]);
    call(libc::SYS_read, [wait, (&raw mut byte) as usize, 1, 0, 0, 0]);
    0
}

fn call(number: libc::c_long, arguments: [usize; 6]) {
    // SAFETY: the callers pass numbers, and one byte of theirs to write to.
    let _ = unsafe { syscall(number, arguments) };
}
