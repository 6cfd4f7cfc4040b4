//! What a file should be and cannot be here, kept in an attribute of it.
//!
//! Who is not the machine's root can make no devices, and may have but one id to give files to. So that a layer is packed
//! again as it came, an empty file stands for a device, and a file says whose it should be. Attributes of users are for
//! files and directories alone: links and pipes forget.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use kiln_sys::metadata::Device;
use kiln_sys::root::set_owner;
use kiln_sys::userns::{IdMap, is_machine_root};
use kiln_sys::xattr;
use rustix::io::Errno;

use crate::layer::{EntryKind, TarEntry};

/// The attribute.
const NAME: &str = "user.kiln.file";

/// The words of the attribute: `owner=0:42 device=c5:1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    owner: Option<(u32, u32)>,
    device: Option<(Letter, Device)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    Character,
    Block,
}

/// Whether an attribute is a record. The machine's root has none, and believes none.
pub(crate) fn is_record(name: &OsStr) -> bool {
    name == NAME && !is_machine_root()
}

/// Gives a file to its owner, or notes whose it is where there is but one.
pub(crate) fn give(handle: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    match set_owner(handle, uid, gid) {
        Err(kiln_sys::Error::NoId { .. }) if IdMap::of_users().is_ok_and(|map| map.is_single()) => {
            note(handle, |record| record.owner = Some((uid, gid)))
        }
        given => Ok(given?),
    }
}

/// Notes of an empty file which device it stands for.
pub(crate) fn note_device(handle: impl AsFd, kind: &EntryKind) -> io::Result<()> {
    let device = match kind {
        EntryKind::CharDevice(device) => (Letter::Character, *device),
        EntryKind::BlockDevice(device) => (Letter::Block, *device),
        _ => return Ok(()),
    };
    note(handle.as_fd(), |record| record.device = Some(device))
}

fn note(handle: BorrowedFd<'_>, change: impl FnOnce(&mut Record)) -> io::Result<()> {
    let mut record = xattr::get(handle, NAME)?.map(|value| Record::parse(&value)).unwrap_or_default();
    change(&mut record);
    match xattr::set(handle, NAME, record.text().as_bytes()) {
        Err(error) if error.errno() == Some(Errno::PERM.raw_os_error()) => Ok(()),
        set => Ok(set?),
    }
}

/// Makes an entry say what its record says.
pub(crate) fn apply(entry: &mut TarEntry) {
    let Some(at) = entry.xattrs.iter().position(|(name, _)| is_record(name)) else { return };
    let record = Record::parse(&entry.xattrs.remove(at).1);
    (entry.uid, entry.gid) = record.owner.unwrap_or((entry.uid, entry.gid));
    // One that was written to is a file.
    if let (EntryKind::Regular, 0, Some((letter, device))) = (&entry.kind, entry.size, record.device) {
        entry.kind = match letter {
            Letter::Character => EntryKind::CharDevice(device),
            Letter::Block => EntryKind::BlockDevice(device),
        };
    }
}

impl Record {
    fn parse(value: &[u8]) -> Record {
        let pair = |text: &str| text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let mut record = Record::default();
        for word in String::from_utf8_lossy(value).split(' ') {
            if let Some(owner) = word.strip_prefix("owner=") {
                record.owner = pair(owner);
            }
            let letters = [("device=c", Letter::Character), ("device=b", Letter::Block)];
            for (begin, letter) in letters {
                let device = word.strip_prefix(begin).and_then(pair);
                record.device = device.map(|(major, minor)| (letter, Device { major, minor })).or(record.device);
            }
        }
        record
    }

    fn text(&self) -> String {
        let owner = self.owner.map(|(uid, gid)| format!("owner={uid}:{gid}"));
        let device = self.device.map(|(letter, Device { major, minor })| {
            let letter = if letter == Letter::Character { 'c' } else { 'b' };
            format!("device={letter}{major}:{minor}")
        });
        owner.into_iter().chain(device).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let device = Some((Letter::Block, Device { major: 8, minor: 300 }));
        for record in [
            Record { owner: Some((0, 42)), device: None },
            Record { owner: None, device },
            Record { owner: Some((7, 4_000_000_000)), device },
        ] {
            assert_eq!(Record::parse(record.text().as_bytes()), record);
        }
        assert_eq!(Record::parse(b"owner=x:1 device=c5 \xff"), Record::default());
    }
}
