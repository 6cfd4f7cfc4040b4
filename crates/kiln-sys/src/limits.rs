//! Resource limits of a process to be, never above what we have ourselves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Address space, in bytes.
    As,
    /// Core dump, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Data segment, in bytes.
    Data,
    /// Largest file, in bytes.
    FileSize,
    /// Locks.
    Locks,
    /// Locked memory, in bytes.
    MemLock,
    /// Bytes in message queues.
    MsgQueue,
    /// Priority.
    Nice,
    /// Open files.
    NoFile,
    /// Processes of the user.
    NProc,
    /// Resident memory, in bytes.
    Rss,
    /// Real-time priority.
    RtPrio,
    /// Real-time processor time, in microseconds.
    RtTime,
    /// Queued signals.
    SigPending,
    /// Stack, in bytes.
    Stack,
}

/// A limit as it will be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamped {
    /// Of what.
    pub limit: Limit,
    /// What the process starts with; `None` is unlimited.
    pub soft: Option<u64>,
    /// What it may raise it to; `None` is unlimited.
    pub hard: Option<u64>,
}

impl Limit {
    /// Reads a limit by the name `ulimit`-like flags give it (`nofile`, `nproc`, …).
    pub fn from_name(name: &str) -> Option<Limit> {
        Some(match name {
            "as" => Limit::As,
            "core" => Limit::Core,
            "cpu" => Limit::Cpu,
            "data" => Limit::Data,
            "fsize" => Limit::FileSize,
            "locks" => Limit::Locks,
            "memlock" => Limit::MemLock,
            "msgqueue" => Limit::MsgQueue,
            "nice" => Limit::Nice,
            "nofile" => Limit::NoFile,
            "nproc" => Limit::NProc,
            "rss" => Limit::Rss,
            "rtprio" => Limit::RtPrio,
            "rttime" => Limit::RtTime,
            "sigpending" => Limit::SigPending,
            "stack" => Limit::Stack,
            _ => return None,
        })
    }

    /// Lowers a wish to what this process may hand on.
    pub fn clamp(self, soft: Option<u64>, hard: Option<u64>) -> Clamped {
        let ours = getrlimit(self.resource()).maximum;
        let hard = least(hard, ours);
        Clamped { limit: self, soft: least(soft, hard), hard }
    }

    fn resource(self) -> Resource {
        match self {
            Limit::As => Resource::As,
            Limit::Core => Resource::Core,
            Limit::Cpu => Resource::Cpu,
            Limit::Data => Resource::Data,
            Limit::FileSize => Resource::Fsize,
            Limit::Locks => Resource::Locks,
            Limit::MemLock => Resource::Memlock,
            Limit::MsgQueue => Resource::Msgqueue,
            Limit::Nice => Resource::Nice,
            Limit::NoFile => Resource::Nofile,
            Limit::NProc => Resource::Nproc,
            Limit::Rss => Resource::Rss,
            Limit::RtPrio => Resource::Rtprio,
            Limit::RtTime => Resource::Rttime,
            Limit::SigPending => Resource::Sigpending,
            Limit::Stack => Resource::Stack,
        }
    }

    /// The kernel's number.
    pub(crate) fn raw(self) -> u32 {
        self.resource() as u32
    }
}

/// Keeps the memory of this process out of core dumps, for as long as it lives.
pub fn refuse_core_dumps() {
    // One byte is too little for a file, and also tells the kernel to start no program that would take the dump
    // (core(5)), which zero does not.
    let limit = Rlimit { current: Some(1), maximum: getrlimit(Resource::Core).maximum };
    // Who may have none at all has none already.
    let _ = setrlimit(Resource::Core, limit);
}

/// The smaller of two limits, of which `None` is none.
fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_end_at_our_own_hard_limit() {
        let ours = getrlimit(Resource::Nofile).maximum;
        let all = Limit::NoFile.clamp(None, None);
        assert_eq!((all.soft, all.hard), (ours, ours));
        let small = Limit::NoFile.clamp(Some(50), Some(20));
        assert_eq!((small.soft, small.hard), (Some(20), Some(20)));
    }

    #[test]
    fn memory_with_secrets_is_not_dumped() {
        refuse_core_dumps();
        assert!(getrlimit(Resource::Core).current.is_some_and(|limit| limit <= 1));
    }

    #[test]
    fn names_are_those_of_ulimit_flags() {
        assert_eq!(Limit::from_name("nofile"), Some(Limit::NoFile));
        assert_eq!(Limit::NoFile.raw(), libc::RLIMIT_NOFILE);
        assert_eq!(Limit::RtTime.raw(), libc::RLIMIT_RTTIME);
        assert_eq!(Limit::from_name("nofiles"), None);
    }
}
