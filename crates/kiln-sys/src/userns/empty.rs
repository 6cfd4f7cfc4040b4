//! A user namespace that we are about to enter: made first, given ids by whoever may, then entered.

use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{IdMap, Member};
use crate::{Error, Result};

use std::os::fd::AsFd as _;

/// A namespace without ids, kept by a process that waits.
#[derive(Debug)]
pub struct Empty(Member);

impl Empty {
    /// Makes one. To be called while this process has one thread and handles no signals.
    pub fn new() -> Result<Empty> {
        Member::start().map(Empty)
    }

    /// The process in it, by which others may give it ids.
    pub fn process(&self) -> u32 {
        self.0.pid.cast_unsigned()
    }

    /// Gives it our own user and group as its root, and nothing else. Everybody may do that.
    pub fn give_own_ids(&self) -> Result<()> {
        self.0.write("setgroups", "deny")?;
        let maps = [format!("0 {} 1\n", geteuid().as_raw()), format!("0 {} 1\n", getegid().as_raw())];
        self.0.give_ids([&maps[0], &maps[1]])
    }

    /// Gives it all ids that we have, as they are. That takes the right to take any of them on.
    pub fn give_all_ids(&self) -> Result<()> {
        let maps = [IdMap::of_users()?.to_itself(), IdMap::of_groups()?.to_itself()];
        self.0.give_ids([&maps[0], &maps[1]])
    }

    /// Moves this process into it, and into a mount namespace that belongs to it. It must have one thread.
    pub fn enter(self) -> Result<()> {
        let namespace = self.0.namespace()?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))
            .map_err(|e| Error::call("enter a user namespace", e))?;
        drop(self);
        // SAFETY: the flag concerns neither descriptors nor memory, and there is one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            .map_err(|e| Error::call("make a mount namespace", e))
    }
}
