//! Archives that ADD unpacks: told from their content, unpacked inside a root.

use std::io::{self, Read};

use kiln_sys::root::Root;

use crate::Limits;
use crate::compress::{Format, decompressor, sniff as sniff_compression};
use crate::layer::{ApplyOptions, ApplyStats, LayerError, TarReader, Target, apply_with};

/// What an archive file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A tar.
    Tar,
    /// Something compressed, perhaps a tar.
    Compressed(Format),
}

/// Says what kind of archive begins with `head`; 512 bytes are enough. Only [`is_archive`] knows what is in a
/// compressed file.
pub fn sniff(head: &[u8]) -> Option<Kind> {
    match sniff_compression(head) {
        Format::Plain => (head.get(257..262) == Some(b"ustar")).then_some(Kind::Tar),
        format => Some(Kind::Compressed(format)),
    }
}

/// Says whether a file is an archive: a tar, compressed or not, whose first entry can be read, or would be too much.
pub fn is_archive(reader: impl Read + Send, limits: &Limits) -> bool {
    let Ok(plain) = decompressor(reader, limits) else { return false };
    match TarReader::new(plain, limits).next_entry() {
        Ok(entry) => entry.is_some(),
        Err(error) => error.is_too_much(),
    }
}

/// Unpacks an archive, compressed or not, into the directory `dest`, out of which no path in it leads.
///
/// With `owner` everything unpacked belongs to that user and group.
pub fn extract(
    reader: impl Read + Send,
    dest: &Root,
    limits: &Limits,
    owner: Option<(u32, u32)>,
) -> Result<ApplyStats, LayerError> {
    let plain = decompressor(reader, limits).map_err(|source: io::Error| LayerError::read(b"", source))?;
    let target = Target::Archive;
    apply_with(plain, dest, &ApplyOptions { limits: limits.clone(), target, owner, refuse_devices: false })
}
