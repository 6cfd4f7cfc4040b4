//! Which ids a user namespace has, and what they are outside of it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use crate::{Error, Result};

/// A row of numbers inside and as many outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first of them inside.
    pub inside: u32,
    /// The first of them outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// The ids of a namespace, as `/proc/PID/uid_map` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap(Vec<Extent>);

impl IdMap {
    /// The user ids of the calling process.
    pub fn of_users() -> Result<IdMap> {
        IdMap::read(Path::new("/proc/self/uid_map"))
    }

    /// The group ids of the calling process.
    pub fn of_groups() -> Result<IdMap> {
        IdMap::read(Path::new("/proc/self/gid_map"))
    }

    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
    fn read(path: &Path) -> Result<IdMap> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::path("read", path, e))?;
        Ok(IdMap::parse(&text))
    }

    /// Reads the kernel's form: three numbers a line.
    pub fn parse(text: &str) -> IdMap {
        let extent = |line: &str| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
            let mut next = || numbers.next().flatten();
            Some(Extent { inside: next()?, outside: next()?, count: next()? })
        };
        IdMap(text.lines().filter_map(extent).collect())
    }

    /// Whether it is that of the machine's own namespace: every id, as it is.
    pub fn is_whole(&self) -> bool {
        self.0 == [Extent { inside: 0, outside: 0, count: u32::MAX }]
    }

    /// Whether there is but one id.
    pub fn is_single(&self) -> bool {
        self.0.iter().map(|extent| u64::from(extent.count)).sum::<u64>() == 1
    }

    /// Whether an id has a place.
    pub fn has(&self, id: u32) -> bool {
        self.0.iter().any(|extent| id >= extent.inside && id - extent.inside < extent.count)
    }

    /// The last id of the row that begins with 0.
    pub fn last(&self) -> u32 {
        let mut last = 0;
        // Rows are in no order, and there are few.
        for _ in &self.0 {
            let next = self.0.iter().find(|extent| extent.inside <= last && last - extent.inside < extent.count);
            let end = next.map_or(last, |extent| extent.inside.saturating_add(extent.count - 1));
            last = if self.has(end.saturating_add(1)) { end.saturating_add(1) } else { end };
        }
        last
    }

    /// The rows.
    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// The map of a namespace below this one in which every id is what it is here.
    pub(super) fn to_itself(&self) -> String {
        let mut text = String::new();
        for Extent { inside, count, .. } in &self.0 {
            let _ = writeln!(text, "{inside} {inside} {count}");
        }
        text
    }
}

/// Whether this process is in the machine's own user namespace, and root there. Asked once: after it was entered another.
///
/// Nobody else has attributes of the kind `trusted.*`.
pub fn is_machine_root() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let may_administer =
            crate::caps::permitted().is_ok_and(|may| may.contains(crate::caps::CapabilitySet::SYS_ADMIN));
        may_administer && IdMap::of_users().is_ok_and(|map| map.is_whole())
    })
}

/// Whether processes may have groups other than their own; not where a namespace was made without anybody's leave.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
pub fn has_groups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |text| text.trim() != "deny")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_know_their_ids() {
        let map = IdMap::parse("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(map.extents().len(), 2);
        assert!(map.has(0) && map.has(1) && map.has(65536) && !map.has(65537));
        assert_eq!(map.last(), 65536);
        assert!(!map.is_whole() && !map.is_single());
        assert_eq!(map.to_itself(), "0 0 1\n1 1 65536\n");
        let whole = IdMap::parse("0 0 4294967295\n");
        assert!(whole.is_whole() && whole.has(u32::MAX - 1) && !whole.has(u32::MAX));
        assert_eq!(whole.last(), u32::MAX - 1);
        assert!(IdMap::parse("0 1000 1").is_single());
    }

    #[test]
    fn a_gap_ends_the_row() {
        assert_eq!(IdMap::parse("10 7 5\n0 1 10\n50 60 3\n").last(), 14);
    }
}
