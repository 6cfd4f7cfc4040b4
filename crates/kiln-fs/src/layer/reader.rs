//! Reading tar archives, strictly: what readers could disagree on is refused, not guessed.

use std::io::{self, Read};

use kiln_sys::metadata::{Device, Timestamp};

use super::entry::{EntryKind, TarEntry};
use super::header::BLOCK;
use super::pax::{self, Pax};
use super::{LayerError, Result, sparse};
use crate::Limits;

/// Reads one entry after the other from a stream.
pub struct TarReader<R> {
    input: io::BufReader<R>,
    limits: Limits,
    /// Bytes of the current entry's data that are not yet read, and of the padding behind it.
    left: u64,
    padding: u64,
    entries: u64,
    /// The last path, for messages.
    last: Vec<u8>,
}

/// What stands before an entry and belongs to it.
#[derive(Default)]
struct Prelude {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// Starts reading.
    pub fn new(input: R, limits: &Limits) -> Self {
        let input = io::BufReader::with_capacity(128 << 10, input);
        Self { input, limits: limits.clone(), left: 0, padding: 0, entries: 0, last: b"(the start)".to_vec() }
    }

    /// The next entry. What was not read of the one before is passed over.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        let mut prelude = Prelude::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header_block()? else {
                if prelude.is_empty() {
                    return Ok(None);
                }
                return Err(self.malformed("extended headers without an entry"));
            };
            let header = Header(&block);
            let flag = header.0[156];
            match flag {
                b'x' | b'g' | b'L' | b'K' => self.take_prelude(&header, flag, &mut prelude)?,
                _ => return self.entry(&header, prelude).map(Some),
            }
        }
    }

    /// Reads the current entry's data as it is stored, a sparse file's without its holes.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
    }

    /// Reads what stands behind the archive, so that checksums at the end of the stream are looked at.
    pub fn drain(mut self) -> Result<()> {
        match io::copy(&mut self.input, &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.read_error(error)),
        }
    }

    fn malformed(&self, what: &'static str) -> LayerError {
        LayerError::malformed(&self.last, what)
    }

    fn read_error(&self, source: io::Error) -> LayerError {
        LayerError::read(&self.last, source)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == rest => Ok(()),
            Ok(_) => Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// The next block that is a header; `None` at the end, with or without the blocks of zeros that should mark it.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().any(|byte| *byte != 0) {
            if !Header(&block).is_sum_right() {
                return Err(self.malformed("a header with a wrong checksum"));
            }
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => Err(self.malformed("content behind the end")),
            _ => Ok(None),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
        Ok(Some(block))
    }

    /// Reads an extended header whole.
    fn take_prelude(&mut self, header: &Header<'_>, flag: u8, prelude: &mut Prelude) -> Result<()> {
        let size = header.size().ok_or_else(|| self.malformed("a size that is none"))?;
        if size > self.limits.header_bytes {
            return Err(LayerError::limit(&self.last, "bytes of an extended header", self.limits.header_bytes));
        }
        self.begin_data(size);
        let mut body = vec![0; size as usize];
        let mut filled = 0;
        while filled < body.len() {
            filled += self.read_data(&mut body[filled..])?;
        }
        match flag {
            b'x' if prelude.pax.is_none() => {
                prelude.pax = Some(pax::parse(&body).map_err(|what| self.malformed(what))?);
            }
            b'g' => {
                if pax::is_global_ambiguous(&body).map_err(|what| self.malformed(what))? {
                    return Err(self.malformed("a global header that renames or resizes entries"));
                }
            }
            b'L' if prelude.long_name.is_none() => prelude.long_name = Some(text(&body).to_vec()),
            b'K' if prelude.long_link.is_none() => prelude.long_link = Some(text(&body).to_vec()),
            _ => return Err(self.malformed("the same extended header twice")),
        }
        Ok(())
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn entry(&mut self, header: &Header<'_>, prelude: Prelude) -> Result<TarEntry> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(LayerError::limit(&self.last, "entries", self.limits.entries));
        }
        let Prelude { pax, long_name, long_link } = prelude;
        let pax = pax.unwrap_or_default();
        if (long_name.is_some() && pax.path.is_some()) || (long_link.is_some() && pax.link.is_some()) {
            return Err(self.malformed("two long names for one entry"));
        }
        let own_name = pax.sparse.name.clone().or(pax.path.clone()).or(long_name);
        let path = own_name.unwrap_or_else(|| header.path());
        self.last.clone_from(&path);
        if path.len() > self.limits.path_bytes {
            self.last.truncate(200);
            return Err(LayerError::limit(&self.last, "bytes of a path", self.limits.path_bytes as u64));
        }
        let link = pax.link.clone().or(long_link).unwrap_or_else(|| text(&header.0[157..257]).to_vec());
        let flag = header.0[156];
        let kind = self.kind(header, flag, &path, link)?;
        let stored = header.size().ok_or_else(|| self.malformed("a size that is none"))?;
        let stored = self.data_size(&kind, pax.size.unwrap_or(stored))?;
        self.begin_data(stored);
        let mut entry = TarEntry {
            path,
            kind,
            mode: self.mode(header)?,
            uid: self.owner(pax.uid, header.number(108, 8))?,
            gid: self.owner(pax.gid, header.number(116, 8))?,
            size: stored,
            mtime: pax.mtime.or(header.mtime()).ok_or_else(|| self.malformed("a time that is none"))?,
            xattrs: Vec::new(),
            segments: None,
        };
        if flag == b'S' || pax.sparse.is_used() {
            self.sparse(&mut entry, header, &pax)?;
        }
        entry.xattrs = pax.xattrs;
        Ok(entry)
    }

    fn kind(&self, header: &Header<'_>, flag: u8, path: &[u8], link: Vec<u8>) -> Result<EntryKind> {
        let device = || {
            let part = |at| header.number(at, 8).and_then(|number| u32::try_from(number).ok());
            let (major, minor) = part(329).zip(part(337)).ok_or_else(|| self.malformed("a device that is none"))?;
            Ok(Device { major, minor })
        };
        Ok(match flag {
            // Before there was a type for them, directories were known by the slash.
            0 | b'0' if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::Regular,
            b'1' | b'2' if link.is_empty() => return Err(self.malformed("a link without a target")),
            b'1' => EntryKind::Hardlink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => EntryKind::CharDevice(device()?),
            b'4' => EntryKind::BlockDevice(device()?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            kind => return Err(LayerError::UnknownType { entry: crate::error::printable(path), kind }),
        })
    }

    /// How many bytes follow. A link's size is that of its target, and has no data; for all other kinds without
    /// content readers disagree on whether data follows, so there must be none.
    fn data_size(&self, kind: &EntryKind, size: u64) -> Result<u64> {
        match kind {
            EntryKind::Regular if size > self.limits.bytes => {
                Err(LayerError::limit(&self.last, "bytes of a file", self.limits.bytes))
            }
            EntryKind::Regular => Ok(size),
            EntryKind::Hardlink(_) => Ok(0),
            _ if size == 0 => Ok(0),
            _ => Err(self.malformed("content where there can be none")),
        }
    }

    fn mode(&self, header: &Header<'_>) -> Result<u32> {
        let mode = header.number(100, 8).ok_or_else(|| self.malformed("a mode that is none"))?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    fn owner(&self, pax: Option<u32>, header: Option<i64>) -> Result<u32> {
        if let Some(id) = pax {
            return Ok(id);
        }
        let id = header.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
        id.ok_or_else(|| self.malformed("an owner out of range"))
    }

    fn sparse(&mut self, entry: &mut TarEntry, header: &Header<'_>, pax: &Pax) -> Result<()> {
        if entry.kind != EntryKind::Regular {
            return Err(self.malformed("a sparse map of something else than a file"));
        }
        let (map, real_size) = if pax.sparse.map_in_data {
            let real_size = pax.sparse.real_size.ok_or_else(|| self.malformed("a sparse file without its size"))?;
            (sparse::map_in_data(self)?, real_size)
        } else if let Some(map) = &pax.sparse.map {
            let real_size = pax.sparse.real_size.ok_or_else(|| self.malformed("a sparse file without its size"))?;
            (map.clone(), real_size)
        } else if header.0[156] == b'S' {
            let real_size = header.positive(483, 12).ok_or_else(|| self.malformed("a sparse file without its size"))?;
            (self.gnu_map(header)?, real_size)
        } else {
            return Err(self.malformed("a sparse file without a map"));
        };
        if real_size > self.limits.bytes {
            return Err(LayerError::limit(&self.last, "bytes of a file", self.limits.bytes));
        }
        if !sparse::is_sound(&map, real_size, self.left) {
            return Err(self.malformed("a sparse map that does not fit its data"));
        }
        entry.size = real_size;
        entry.segments = Some(map);
        Ok(())
    }

    /// The map of GNU's oldest sparse format: four pieces in the header, more in blocks behind it.
    fn gnu_map(&mut self, header: &Header<'_>) -> Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        let mut pieces = |block: &[u8], from: usize, count: usize| -> Option<()> {
            for piece in 0..count {
                let at = from + piece * 24;
                if block[at] == 0 {
                    return Some(());
                }
                map.push((Header::positive_in(&block[at..at + 12])?, Header::positive_in(&block[at + 12..at + 24])?));
            }
            Some(())
        };
        let mut is_sound = pieces(header.0, 386, 4).is_some();
        let mut more = header.0[482] != 0;
        let mut blocks = 0;
        while more && is_sound {
            // These blocks stand between the header and the data, and are not counted in its size.
            let block = self.block()?.ok_or_else(|| self.read_error(io::ErrorKind::UnexpectedEof.into()))?;
            is_sound = pieces(&block, 0, 21).is_some();
            more = block[504] != 0;
            blocks += 1;
            if blocks > sparse::MAX_PIECES / 21 {
                return Err(LayerError::limit(&self.last, "pieces of a sparse file", sparse::MAX_PIECES as u64));
            }
        }
        if is_sound { Ok(map) } else { Err(self.malformed("a sparse map that is none")) }
    }

    /// Bytes of data left in the current entry.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The error for a sparse map that cannot be read.
    pub(super) fn bad_map(&self) -> LayerError {
        self.malformed("a sparse map that is none")
    }
}

impl Prelude {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// A header block.
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn is_sum_right(&self) -> bool {
        let Some(stored) = self.number(148, 8) else { return false };
        let counted = |at: usize| if (148..156).contains(&at) { b' ' } else { self.0[at] };
        let unsigned: i64 = (0..BLOCK).map(|at| i64::from(counted(at))).sum();
        // Some old writers added signed bytes.
        let signed: i64 = (0..BLOCK).map(|at| i64::from(counted(at) as i8)).sum();
        stored == unsigned || stored == signed
    }

    fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // GNU's own format keeps other things where the prefix would be.
        let has_prefix = &self.0[257..263] == b"ustar\0" && !prefix.is_empty();
        if has_prefix { [prefix, b"/", name].concat() } else { name.to_vec() }
    }

    fn size(&self) -> Option<u64> {
        self.positive(124, 12)
    }

    fn mtime(&self) -> Option<Timestamp> {
        self.number(136, 12).map(|secs| Timestamp { secs, nanos: 0 })
    }

    fn positive(&self, at: usize, length: usize) -> Option<u64> {
        Self::positive_in(&self.0[at..at + length])
    }

    fn positive_in(field: &[u8]) -> Option<u64> {
        number(field).and_then(|number| u64::try_from(number).ok())
    }

    fn number(&self, at: usize, length: usize) -> Option<i64> {
        number(&self.0[at..at + length])
    }
}

/// Whether a header block says that bytes about the next entry follow, and how many: none when it says no number.
pub(crate) fn extended_size(block: &[u8]) -> Option<Option<u64>> {
    let is_extended = matches!(block[156], b'x' | b'g' | b'L' | b'K');
    is_extended.then(|| Header::positive_in(&block[124..136]))
}

/// A number in octal digits, or, when the first bit is set, in binary.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement over the field, without the bit that marks it.
        let start = if first & 0x40 != 0 { i128::from(first) - 256 } else { i128::from(first & 0x7f) };
        let mut value = start;
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return i64::try_from(value).ok();
    }
    let digits: &[u8] = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    if !digits[end..].iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    digits[..end].iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// A field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}
