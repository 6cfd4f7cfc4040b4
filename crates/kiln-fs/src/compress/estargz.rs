//! eStargz: a gzipped tar whose files can be fetched one by one. Each chunk of a file begins a member, and a table at the
//! end says where (stargz-snapshotter, docs/estargz.md).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kiln_oci::{Digest, Hasher};
use kiln_sys::metadata::Device;
use serde::Serialize;

use super::members::{Batch, MemberWriter};
use crate::Limits;
use crate::layer::{BLOCK, EntryKind, TarEntry, TarReader, extended_size, padding, write_lone_file};

/// Bytes of a file per member. Part of what a digest depends on.
const CHUNK: u64 = 4 << 20;
/// A member that holds no file's content is ended beyond this, so that it need not be held in memory.
const MEMBER: usize = 4 << 20;
/// Members are handed over together until they are so many bytes.
const BATCH: usize = 1 << 20;
/// The table's name in the archive.
const TABLE: &str = "stargz.index.json";

/// The table behind the files of an eStargz layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The digest of the table's JSON.
    pub digest: Digest,
    /// The tar it is in. It follows the layer's own when the whole blob is decompressed, so digests of that cover it.
    pub tar: Vec<u8>,
}

/// Follows a tar while it passes, and compresses it in members.
pub(super) struct EstargzWriter<W: Write> {
    members: MemberWriter<W>,
    /// What is not handed over yet; behind the last end is the member that is open.
    batch: Batch,
    /// How many members were ended.
    ended: usize,
    place: Place,
    entries: Vec<Entry>,
}

/// Where in the tar the next byte belongs.
enum Place {
    /// The headers of an entry: so far, where the last block begins, and how many bytes are wanted before a look.
    Header { raw: Vec<u8>, block: usize, wanted: usize },
    /// A file's content.
    Content(Content),
    /// What fills up the last block of a file.
    Padding(u64),
    /// Behind the last entry.
    End,
}

struct Content {
    /// Its entry.
    file: usize,
    left: u64,
    chunk_left: u64,
    whole: Hasher,
    chunk: Hasher,
}

#[derive(Serialize)]
struct Table<'a> {
    version: u32,
    entries: &'a [Entry],
}

/// A line of the table. What is zero or empty is left out.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    modtime: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_none")]
    mode: u32,
    #[serde(skip_serializing_if = "is_none")]
    uid: u32,
    #[serde(skip_serializing_if = "is_none")]
    gid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_none")]
    dev_major: u32,
    #[serde(skip_serializing_if = "is_none")]
    dev_minor: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    chunk_digest: String,
    /// The member it begins, as long as nobody knows where that will be.
    #[serde(skip)]
    member: Option<usize>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none(number: &u32) -> bool {
    *number == 0
}

impl Place {
    fn next_entry() -> Self {
        Self::Header { raw: Vec::new(), block: 0, wanted: BLOCK }
    }
}

impl<W: Write> EstargzWriter<W> {
    pub(super) fn new(out: W, level: u8, threads: NonZeroUsize) -> io::Result<Self> {
        Ok(Self {
            members: MemberWriter::new(out, level, threads)?,
            batch: Batch::default(),
            ended: 0,
            place: Place::next_entry(),
            entries: Vec::new(),
        })
    }

    pub(super) fn finish(mut self) -> io::Result<(W, Toc)> {
        let is_whole = match &self.place {
            Place::Header { raw, .. } => raw.is_empty(),
            place => matches!(place, Place::End),
        };
        if !is_whole {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar of the layer ends in the middle"));
        }
        self.end_member()?;
        let lengths = self.members.settle(std::mem::take(&mut self.batch))?;
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0;
        for length in lengths {
            starts.push(end);
            end += *length as u64;
        }
        for entry in &mut self.entries {
            entry.offset = entry.member.map_or(0, |member| starts[member]);
        }
        let json = serde_json::to_vec(&Table { version: 1, entries: &self.entries }).map_err(io::Error::other)?;
        let mut tar = Vec::with_capacity(json.len() + 4 * BLOCK);
        write_lone_file(&mut tar, TABLE, &json)?;
        self.members.append(&tar, &footer(end))?;
        Ok((self.members.finish()?, Toc { digest: Digest::sha256(&json), tar }))
    }

    /// Takes some of `bytes`; where it stops depends on the tar alone.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = match &self.place {
            Place::Header { raw, wanted, .. } => wanted - raw.len(),
            Place::Content(content) => usize::try_from(content.chunk_left).unwrap_or(usize::MAX),
            Place::Padding(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Place::End => MEMBER - self.open_bytes(),
        };
        let taken = &bytes[..bytes.len().min(most)];
        self.batch.bytes.extend_from_slice(taken);
        match &mut self.place {
            Place::Header { raw, wanted, .. } => {
                raw.extend_from_slice(taken);
                if raw.len() == *wanted {
                    self.header()?;
                }
            }
            Place::Content(content) => {
                content.chunk.update(taken);
                content.whole.update(taken);
                content.left -= taken.len() as u64;
                content.chunk_left -= taken.len() as u64;
                if content.chunk_left == 0 {
                    self.end_chunk()?;
                }
            }
            Place::Padding(left) => {
                *left -= taken.len() as u64;
                if *left == 0 {
                    self.place = Place::next_entry();
                }
            }
            Place::End => {
                if self.open_bytes() == MEMBER {
                    self.end_member()?;
                }
            }
        }
        Ok(taken.len())
    }

    /// Looks at what is there of an entry's headers.
    fn header(&mut self) -> io::Result<()> {
        let Place::Header { raw, block, wanted } = &mut self.place else { return Ok(()) };
        let limits = Limits::default();
        let last = &raw[*block..*block + BLOCK];
        if *block == 0 && last.iter().all(|byte| *byte == 0) {
            self.place = Place::End;
            // The last chunk may have filled it.
            return if self.open_bytes() >= MEMBER { self.end_member() } else { Ok(()) };
        }
        if let Some(size) = extended_size(last) {
            let size = size.filter(|size| *size <= limits.header_bytes);
            let size = size.ok_or_else(|| io::Error::other("the tar of the layer has a broken extended header"))?;
            *block = *wanted + (size + padding(size)) as usize;
            *wanted = *block + BLOCK;
            return Ok(());
        }
        let mut reader = TarReader::new(&raw[..], &limits);
        let entry = reader.next_entry().map_err(io::Error::other)?;
        let entry = entry.ok_or_else(|| io::Error::other("the tar of the layer has headers without an entry"))?;
        self.entry(entry)
    }

    fn entry(&mut self, entry: TarEntry) -> io::Result<()> {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if entry.segments.is_some() {
            return Err(io::Error::other(format!("`{path}` is sparse, which eStargz cannot say")));
        }
        if path.trim_start_matches("./").trim_matches('/') == TABLE {
            return Err(io::Error::other(format!("`{TABLE}` cannot be in an eStargz layer: its table has that name")));
        }
        let size = entry.size;
        let is_file = entry.kind == EntryKind::Regular;
        let mut line = Entry::of(path, entry);
        if is_file && size == 0 {
            line.digest = Hasher::new().finish().to_string();
        }
        self.entries.push(line);
        if !is_file || size == 0 {
            self.place = Place::next_entry();
            return if self.open_bytes() >= MEMBER { self.end_member() } else { Ok(()) };
        }
        let file = self.entries.len() - 1;
        self.begin_chunk(Content { file, left: size, chunk_left: 0, whole: Hasher::new(), chunk: Hasher::new() })
    }

    /// Begins a member with the next chunk of a file, whose entry is the last.
    fn begin_chunk(&mut self, mut content: Content) -> io::Result<()> {
        self.end_member()?;
        content.chunk_left = content.left.min(CHUNK);
        let member = self.ended;
        let line = self.entries.last_mut().expect("it was just pushed");
        line.member = Some(member);
        // Zero stands for the rest of the file.
        line.chunk_size = if content.left < CHUNK { 0 } else { CHUNK };
        self.place = Place::Content(content);
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        let Place::Content(mut content) = std::mem::replace(&mut self.place, Place::End) else { return Ok(()) };
        let line = self.entries.last_mut().expect("a file has an entry");
        line.chunk_digest = std::mem::take(&mut content.chunk).finish().to_string();
        if content.left > 0 {
            let (name, chunk_offset) = (line.name.clone(), line.chunk_offset + CHUNK);
            self.entries.push(Entry { name, kind: "chunk", chunk_offset, ..Entry::default() });
            return self.begin_chunk(content);
        }
        let file = &mut self.entries[content.file];
        file.digest = content.whole.finish().to_string();
        self.place = match padding(file.size) {
            0 => Place::next_entry(),
            padding => Place::Padding(padding),
        };
        Ok(())
    }

    fn open_bytes(&self) -> usize {
        self.batch.bytes.len() - self.batch.ends.last().copied().unwrap_or(0)
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.open_bytes() == 0 {
            return Ok(());
        }
        self.batch.ends.push(self.batch.bytes.len());
        self.ended += 1;
        if self.batch.bytes.len() >= BATCH {
            self.members.submit(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}

impl<W: Write> Write for EstargzWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Entry {
    fn of(name: String, entry: TarEntry) -> Self {
        let (mut link_name, mut device) = (String::new(), Device::default());
        let kind = match entry.kind {
            EntryKind::Regular => "reg",
            EntryKind::Directory => "dir",
            EntryKind::Fifo => "fifo",
            EntryKind::Symlink(target) => {
                link_name = String::from_utf8_lossy(&target).into_owned();
                "symlink"
            }
            EntryKind::Hardlink(target) => {
                link_name = String::from_utf8_lossy(&target).into_owned();
                "hardlink"
            }
            EntryKind::CharDevice(number) => {
                device = number;
                "char"
            }
            EntryKind::BlockDevice(number) => {
                device = number;
                "block"
            }
        };
        let seconds = entry.mtime.secs + i64::from(entry.mtime.nanos >= 500_000_000);
        let time = Timestamp::from_second(seconds).ok().filter(|_| entry.mtime.secs != 0);
        let attribute = |(name, value): &(std::ffi::OsString, Vec<u8>)| {
            (name.to_string_lossy().into_owned(), STANDARD.encode(value))
        };
        Self {
            name,
            kind,
            size: if kind == "reg" { entry.size } else { 0 },
            modtime: time.map(|time| time.to_string()).unwrap_or_default(),
            link_name,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            dev_major: device.major,
            dev_minor: device.minor,
            xattrs: entry.xattrs.iter().map(attribute).collect(),
            ..Self::default()
        }
    }
}

/// An empty gzip member of 51 bytes, whose extra field says where the table begins.
fn footer(table: u64) -> Vec<u8> {
    let extra = format!("{table:016x}STARGZ");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    footer.extend_from_slice(&(extra.len() as u16 + 4).to_le_bytes());
    footer.extend_from_slice(b"SG");
    footer.extend_from_slice(&(extra.len() as u16).to_le_bytes());
    footer.extend_from_slice(extra.as_bytes());
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::Value;

    use super::*;
    use crate::compress::{Compression, Compressor, decompressor};

    const BIG: usize = 9 << 20;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * n / 91) as u8).collect()
    }

    /// A directory, an empty file, a small one, one of three chunks, a link, a name that needs an extended header.
    fn layer() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        header.set_uid(7);
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        tar.append_data(&mut header.clone(), "etc/", &b""[..]).unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        for (name, length) in [("etc/empty", 0), ("etc/small", 700), ("big", BIG), (&"long/".repeat(60)[..], 3)] {
            header.set_size(length as u64);
            tar.append_pax_extensions([("SCHILY.xattr.user.a", &b"v"[..])]).unwrap();
            tar.append_data(&mut header.clone(), name.trim_end_matches('/'), &content(length)[..]).unwrap();
        }
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header.clone(), "link", "big").unwrap();
        tar.into_inner().unwrap()
    }

    fn squeeze(input: &[u8], threads: usize, step: usize) -> (Vec<u8>, Toc) {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut out = Compressor::new(Vec::new(), Compression::Estargz { level: 4 }, threads).unwrap();
        input.chunks(step).for_each(|part| out.write_all(part).unwrap());
        let (blob, toc) = out.finish_with_toc().unwrap();
        (blob, toc.unwrap())
    }

    /// One member, from where it begins.
    fn member(blob: &[u8], at: u64) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&blob[at as usize..]).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn every_chunk_is_where_the_table_says() {
        let (blob, toc) = squeeze(&layer(), 2, 100_000);
        let footer = &blob[blob.len() - 51..];
        assert_eq!(
            (&footer[..4], &footer[12..14], &footer[32..38]),
            (&b"\x1f\x8b\x08\x04"[..], &b"SG"[..], &b"STARGZ"[..])
        );
        let table = u64::from_str_radix(std::str::from_utf8(&footer[16..32]).unwrap(), 16).unwrap();
        let tar = member(&blob, table);
        assert_eq!(tar, toc.tar);
        let mut archive = tar::Archive::new(&tar[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(TABLE));
        let mut json = Vec::new();
        entry.read_to_end(&mut json).unwrap();
        assert_eq!(Digest::sha256(&json), toc.digest);
        let json: Value = serde_json::from_slice(&json).unwrap();
        let entries = json["entries"].as_array().unwrap();
        let kinds: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["dir", "reg", "reg", "reg", "chunk", "chunk", "reg", "symlink"]);
        let big = content(BIG);
        for (entry, wanted) in
            [(2, &content(700)[..]), (3, &big[..4 << 20]), (4, &big[4 << 20..8 << 20]), (5, &big[8 << 20..])]
        {
            let entry = &entries[entry];
            let found = member(&blob, entry["offset"].as_u64().unwrap());
            assert!(found.starts_with(wanted));
            assert_eq!(entry["chunkDigest"], Digest::sha256(wanted).as_str());
        }
        assert_eq!(
            (&entries[3]["digest"], &entries[5]["chunkOffset"]),
            (&Digest::sha256(&big).as_str().into(), &(8 << 20).into())
        );
        assert_eq!((&entries[3]["chunkSize"], &entries[5]["chunkSize"]), (&(4 << 20).into(), &Value::Null));
        let small = &entries[2];
        assert_eq!((&small["modtime"], &small["xattrs"]["user.a"]), (&"2023-11-14T22:13:20Z".into(), &"dg==".into()));
        assert_eq!((&small["mode"], &small["uid"], &small["size"]), (&0o755.into(), &7.into(), &700.into()));
        assert_eq!(entries[7]["linkName"], "big");
    }

    #[test]
    fn whoever_knows_gzip_alone_reads_the_layer_and_then_the_table() {
        let layer = layer();
        let (blob, toc) = squeeze(&layer, 3, usize::MAX);
        let mut plain = Vec::new();
        decompressor(&blob[..], &Limits::default()).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, [layer, toc.tar].concat());
    }

    #[test]
    fn a_last_file_of_whole_chunks_ends_its_member() {
        for length in [1 << 20, (4 << 20) - 1024, (4 << 20) - 512, (4 << 20) - 1, 4 << 20, 8 << 20] {
            let mut tar = Vec::new();
            write_lone_file(&mut tar, "f", &content(length)).unwrap();
            let (blob, toc) = squeeze(&tar, 2, 1 << 20);
            let mut plain = Vec::new();
            decompressor(&blob[..], &Limits::default()).unwrap().read_to_end(&mut plain).unwrap();
            assert!(plain == [tar, toc.tar].concat(), "{length}");
        }
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_how_they_were_written() {
        let layer = layer();
        let one = squeeze(&layer, 1, 1 << 20);
        assert_eq!(one, squeeze(&layer, 4, 511));
        assert_eq!(one, squeeze(&layer, 2, usize::MAX));
        assert_eq!(Digest::sha256(&one.0).short(), "2a85e4a17751", "see `Compression::REVISION`");
    }

    #[test]
    fn what_a_table_cannot_say_is_refused() {
        let fails = |tar: &[u8]| {
            let mut out = Compressor::new(Vec::new(), Compression::Estargz { level: 1 }, NonZeroUsize::MIN).unwrap();
            out.write_all(tar).and_then(|()| out.finish()).unwrap_err().to_string()
        };
        let mut reserved = Vec::new();
        write_lone_file(&mut reserved, TABLE, b"{}").unwrap();
        assert!(fails(&reserved).contains("its table has that name"));
        assert!(fails(&layer()[..5000]).contains("ends in the middle"));
    }

    #[test]
    fn a_layer_without_files_has_an_empty_table() {
        let (blob, toc) = squeeze(&[0; 1024], 2, 9);
        assert!(String::from_utf8_lossy(&toc.tar).contains(r#"{"version":1,"entries":[]}"#));
        assert_eq!(member(&blob, 0), [0; 1024]);
    }
}
