//! The files of a zip archive (jars and wheels are such), searched one by one.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use flate2::read::DeflateDecoder;

use super::Patterns;
use super::content::search;

/// How a zip archive begins.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// The record at the end says where the list of files is; a comment may follow it.
const END: &[u8] = b"PK\x05\x06";
const END_SIZE: usize = 22;
const LONGEST_COMMENT: u64 = 65_535;
/// Begins each entry of that list.
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_SIZE: usize = 46;
const LOCAL_SIZE: u64 = 30;
/// The largest list that is read.
const LARGEST_LIST: u64 = 64 << 20;
/// The compression of nearly all files that have one.
const DEFLATE: u16 = 8;

/// The first pattern in a compressed file of an archive, and the name of that file. At most `limit` bytes are unpacked of
/// the whole archive. What breaks the format has nothing to find.
pub(super) fn search_archive(file: &File, patterns: &Patterns, limit: u64) -> Option<(String, usize)> {
    let list = list(file)?;
    let mut rest = list.as_slice();
    let mut left = limit;
    while let Some(entry) = rest.get(..ENTRY_SIZE).filter(|entry| entry.starts_with(ENTRY)) {
        let (name, extra, comment) = (half(entry, 28)?, half(entry, 30)?, half(entry, 32)?);
        let name = rest.get(ENTRY_SIZE..ENTRY_SIZE + usize::from(name))?;
        if half(entry, 10)? == DEFLATE && left > 0 {
            let (size, local) = (u64::from(word(entry, 20)?), u64::from(word(entry, 42)?));
            let packed = Section { file, at: data_of(file, local)?, left: size };
            let mut plain = DeflateDecoder::new(packed).take(left);
            if let Ok(Some(hit)) = search(&mut plain, u64::MAX, patterns) {
                return Some((String::from_utf8_lossy(name).into_owned(), hit.pattern));
            }
            left = plain.limit();
        }
        rest = rest.get(ENTRY_SIZE + name.len() + usize::from(extra) + usize::from(comment)..)?;
    }
    None
}

/// The list of files.
fn list(file: &File) -> Option<Vec<u8>> {
    let size = file.metadata().ok()?.len();
    let from = size.saturating_sub(LONGEST_COMMENT + END_SIZE as u64);
    let tail = bytes(file, from, size - from)?;
    let end = (0..=tail.len().checked_sub(END_SIZE)?).rev().find(|at| tail[*at..].starts_with(END))?;
    let (length, start) = (word(&tail, end + 12)?, word(&tail, end + 16)?);
    bytes(file, u64::from(start), u64::from(length).min(LARGEST_LIST))
}

/// Where the bytes of a file begin: behind a header of its own, whose length may differ from the list's.
fn data_of(file: &File, local: u64) -> Option<u64> {
    let header = bytes(file, local, LOCAL_SIZE)?;
    Some(local + LOCAL_SIZE + u64::from(half(&header, 26)?) + u64::from(half(&header, 28)?))
}

fn bytes(file: &File, at: u64, count: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    Section { file, at, left: count }.read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == count).then_some(bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A stretch of a file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
