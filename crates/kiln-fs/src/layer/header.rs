//! Writing tar headers: ustar where it suffices, PAX records where it does not.
//!
//! What is written depends on the entry alone: no clock, no user names, records sorted by key.

use std::io::{self, Write};

use kiln_sys::metadata::{Device, Timestamp};

use super::entry::{EntryKind, TarEntry};

/// The size of everything in a tar.
pub(crate) const BLOCK: usize = 512;

const MAX_OCTAL_7: u64 = 0o7_777_777;
const MAX_OCTAL_11: u64 = 0o77_777_777_777;

/// Writes the header of an entry; the content of a regular file, if any, is up to the caller. Returns bytes written.
pub(super) fn write_header(out: &mut dyn Write, entry: &TarEntry) -> io::Result<u64> {
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let link: &[u8] = match &entry.kind {
        EntryKind::Symlink(target) | EntryKind::Hardlink(target) => target,
        _ => b"",
    };
    let size = if entry.kind == EntryKind::Regular { entry.size } else { 0 };
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut record = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
    let name = split_name(&path);
    if name.is_none() {
        record("path", path.clone());
    }
    if link.len() > 100 {
        record("linkpath", link.to_vec());
    }
    for (key, value, limit) in [
        ("uid", u64::from(entry.uid), MAX_OCTAL_7),
        ("gid", u64::from(entry.gid), MAX_OCTAL_7),
        ("size", size, MAX_OCTAL_11),
    ] {
        if value > limit {
            record(key, value.to_string().into_bytes());
        }
    }
    if entry.mtime.nanos != 0 || !(0..=MAX_OCTAL_11 as i64).contains(&entry.mtime.secs) {
        record("mtime", decimal(entry.mtime).into_bytes());
    }
    for (name, value) in &entry.xattrs {
        let key = [b"SCHILY.xattr.", name.as_encoded_bytes()].concat();
        records.push((key, value.clone()));
    }
    let mut written = 0;
    if !records.is_empty() {
        records.sort();
        written += write_records(out, &path, &records)?;
    }
    let (prefix, name) = name.unwrap_or((&[], &path[path.len() - path.len().min(100)..]));
    let mut block = Block::new(type_flag(&entry.kind));
    block.bytes(0, 100, name);
    block.bytes(345, 155, prefix);
    block.bytes(157, 100, link);
    block.octal(100, 8, u64::from(entry.mode));
    block.octal(108, 8, u64::from(entry.uid).min(MAX_OCTAL_7));
    block.octal(116, 8, u64::from(entry.gid).min(MAX_OCTAL_7));
    block.octal(124, 12, size.min(MAX_OCTAL_11));
    block.octal(136, 12, u64::try_from(entry.mtime.secs).unwrap_or(0).min(MAX_OCTAL_11));
    if let EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) = entry.kind {
        block.device(device);
    }
    out.write_all(&block.finish())?;
    Ok(written + BLOCK as u64)
}

/// Bytes that fill up the block that content of this size ends in.
pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// Fills up the block that content of this size ends in. Returns bytes written.
pub(super) fn write_padding(out: &mut dyn Write, size: u64) -> io::Result<u64> {
    let padding = padding(size);
    out.write_all(&[0; BLOCK][..padding as usize])?;
    Ok(padding)
}

/// Ends the archive. Returns bytes written.
pub(super) fn write_trailer(out: &mut dyn Write) -> io::Result<u64> {
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(2 * BLOCK as u64)
}

/// Writes an archive of one file that has no owner, no mode and no time.
pub(crate) fn write_lone_file(out: &mut dyn Write, name: &str, content: &[u8]) -> io::Result<()> {
    let (path, kind, size) = (name.as_bytes().to_vec(), EntryKind::Regular, content.len() as u64);
    let (mtime, xattrs) = (Timestamp::default(), Vec::new());
    write_header(out, &TarEntry { path, kind, mode: 0, uid: 0, gid: 0, size, mtime, xattrs, segments: None })?;
    out.write_all(content)?;
    write_padding(out, size)?;
    write_trailer(out).map(drop)
}

fn type_flag(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Regular => b'0',
        EntryKind::Hardlink(_) => b'1',
        EntryKind::Symlink(_) => b'2',
        EntryKind::CharDevice(_) => b'3',
        EntryKind::BlockDevice(_) => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

/// Splits a path into prefix and name as ustar has them, if it fits.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // A name may be at most 100 bytes and not empty, a prefix at most 155; the slash between them is not stored.
    let from = path.len().checked_sub(101)?;
    let at = path[from..path.len() - 1].iter().position(|byte| *byte == b'/')? + from;
    (at > 0 && at <= 155).then(|| (&path[..at], &path[at + 1..]))
}

/// A time with all its digits, as PAX wants it: a decimal number, so -0.25 s is `-0.25`.
fn decimal(time: Timestamp) -> String {
    let total = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let (secs, nanos) = (total / 1_000_000_000, total % 1_000_000_000);
    if nanos == 0 {
        return format!("{sign}{secs}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{secs}.{}", fraction.trim_end_matches('0'))
}

fn write_records(out: &mut dyn Write, path: &[u8], records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<u64> {
    let mut body = Vec::new();
    for (key, value) in records {
        // The length counts its own digits: find the number that holds.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        if length.to_string().len() + rest != length {
            length += 1;
        }
        body.extend_from_slice(length.to_string().as_bytes());
        body.push(b' ');
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    let mut name = b"PaxHeaders.0/".to_vec();
    let base = path.strip_suffix(b"/").unwrap_or(path);
    let base = base.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.extend_from_slice(&base[..base.len().min(80)]);
    let mut block = Block::new(b'x');
    block.bytes(0, 100, &name);
    block.octal(100, 8, 0o644);
    for (at, length) in [(108, 8), (116, 8), (136, 12)] {
        block.octal(at, length, 0);
    }
    block.octal(124, 12, body.len() as u64);
    out.write_all(&block.finish())?;
    out.write_all(&body)?;
    let padding = write_padding(out, body.len() as u64)?;
    Ok((BLOCK + body.len()) as u64 + padding)
}

/// A header block being filled.
struct Block([u8; BLOCK]);

impl Block {
    fn new(flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.0[156] = flag;
        block.0[257..265].copy_from_slice(b"ustar\x0000");
        block.device(Device::default());
        block
    }

    fn bytes(&mut self, at: usize, length: usize, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(length)];
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn octal(&mut self, at: usize, length: usize, value: u64) {
        let text = format!("{value:0width$o}", width = length - 1);
        self.bytes(at, length - 1, text.as_bytes());
    }

    fn device(&mut self, device: Device) {
        self.octal(329, 8, u64::from(device.major));
        self.octal(337, 8, u64::from(device.minor));
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        let text = format!("{sum:06o}\0 ");
        self.0[148..156].copy_from_slice(text.as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        let cases = [
            ((0, 0), "0"),
            ((1, 500_000_000), "1.5"),
            ((-1, 750_000_000), "-0.25"),
            ((-2, 0), "-2"),
            ((1 << 40, 1), "1099511627776.000000001"),
        ];
        for ((secs, nanos), text) in cases {
            assert_eq!(decimal(Timestamp { secs, nanos }), text);
        }
    }

    #[test]
    fn long_paths_are_split_where_ustar_can() {
        let deep = [vec![b'p'; 90], vec![b'/'], vec![b'n'; 80]].concat();
        assert_eq!(split_name(&deep), Some((&deep[..90], &deep[91..])));
        assert_eq!(split_name(&[b'n'; 101]), None);
        assert_eq!(split_name(&[vec![b'p'; 156], vec![b'/'], vec![b'n'; 80]].concat()), None);
        assert_eq!(split_name(&[vec![b'p'; 120], vec![b'/']].concat()), None);
    }
}
