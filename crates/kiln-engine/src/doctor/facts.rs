//! What is found out about a machine, as plain data.

use std::path::PathBuf;

use kiln_exec::Isolation;

/// Everything there is to judge.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// As `6.12.4-amd64`.
    pub(super) kernel: String,
    pub(super) standing: Standing,
    /// Which container we are in.
    pub(super) container: Option<String>,
    pub(super) filter: Filter,
    /// What was chosen to keep steps apart.
    pub(super) isolation: Isolation,
    /// Whether steps could be run in another root alone.
    pub(super) may_chroot: bool,
    /// Whether user namespaces can be made.
    pub(super) users: Trial,
    /// What a build tells users to do about that.
    pub(super) way_in: Option<String>,
    /// What a build tells users of the ids that they have.
    pub(super) note: Option<String>,
    pub(super) switches: Switches,
    pub(super) ranges: Ranges,
    pub(super) state: State,
    pub(super) groups: Vec<Controller>,
    pub(super) network: Network,
    pub(super) platforms: Vec<(String, Emulation)>,
    pub(super) agent: Agent,
    pub(super) logins: Logins,
}

/// What came of doing what builds do.
pub(super) type Trial = Result<(), Refusal>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Option<i32>,
    pub(super) why: String,
}

/// Who we are to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Root of the machine.
    Root,
    /// Root of a user namespace: of a container, for one.
    RootOfSome,
    /// Anybody else.
    User { name: String, uid: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filter {
    /// Whether the kernel filters system calls.
    pub(super) is_available: bool,
    /// Whether our own are filtered.
    pub(super) is_around_us: bool,
    /// Whether programs that would gain rights do not.
    pub(super) no_new_rights: bool,
}

/// Settings by which machines keep people from making user namespaces; `None` where there is no such setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Switches {
    pub(super) most: Option<u64>,
    pub(super) for_anybody: Option<u64>,
    pub(super) apparmor: Option<u64>,
}

/// What a user has of ids beside their own, and the programs that give them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ranges {
    pub(super) users: u64,
    pub(super) groups: u64,
    pub(super) newuidmap: Tool,
    pub(super) newgidmap: Tool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tool {
    #[default]
    Absent,
    /// Without the right that it needs.
    Powerless,
    Ready,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) path: PathBuf,
    pub(super) exists: bool,
    /// Whether somebody else owns it.
    pub(super) owner: Option<u32>,
    /// Of the file system it is on, or will be.
    pub(super) filesystem: String,
    pub(super) free: u64,
    /// Whether something can be written there. What follows was not tried else.
    pub(super) writable: Trial,
    /// Whether layers can be stacked there.
    pub(super) overlay: Trial,
    /// Whether files there can be shown with other ids.
    pub(super) shifted: Trial,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) name: &'static str,
    pub(super) version: Option<u8>,
    pub(super) tried: Trial,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// Whether a step can have its own.
    pub(super) own: Trial,
    /// Its addresses, as `10.213.64.0/20`.
    pub(super) pool: Option<String>,
    /// Another firewall that decides by rules of its own what is passed on.
    pub(super) has_firewalld: bool,
    /// Programs by which a user's steps get one: the first that is there.
    pub(super) program: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Emulation {
    Native,
    Emulated,
    /// By a program that containers do not have.
    Unfixed(String),
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agent {
    NotNamed,
    Listens(PathBuf),
    /// It is named, and does not answer.
    Silent(PathBuf, String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Logins {
    pub(super) file: Option<PathBuf>,
    /// Whether the file is there.
    pub(super) exists: bool,
    /// Why it cannot be read.
    pub(super) broken: Option<String>,
    /// Programs that keep logins, by name, and whether they are there.
    pub(super) helpers: Vec<(String, bool)>,
}
