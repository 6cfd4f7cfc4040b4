//! Writes tar members to an async stream, the same bytes for the same members.

use std::fs::File;
use std::io::Read;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{BlobReader, Error, Result};

/// Where an archive goes.
#[async_trait]
pub trait ArchiveOut: AsyncWrite + Unpin + Send {
    /// Adds the `size` bytes that a file has, without bringing them into this process where that can be.
    async fn append(&mut self, file: File, size: u64) -> std::io::Result<()>;
}

/// The same, where what is written can be changed.
#[async_trait]
pub trait ArchiveFile: ArchiveOut {
    /// Adds all that a reader gives, which may have to be waited for; how much that was.
    async fn follow(&mut self, content: Box<dyn Read + Send>) -> std::io::Result<u64>;
    /// Writes over what stands at an offset.
    async fn patch(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()>;
    /// Takes back all from an offset on.
    async fn cut(&mut self, offset: u64) -> std::io::Result<()>;
}

/// In memory.
#[async_trait]
impl ArchiveOut for Vec<u8> {
    async fn append(&mut self, file: File, size: u64) -> std::io::Result<()> {
        carry(file, size, self).await
    }
}

#[async_trait]
impl<W: ArchiveOut + ?Sized> ArchiveOut for &mut W {
    async fn append(&mut self, file: File, size: u64) -> std::io::Result<()> {
        (**self).append(file, size).await
    }
}

/// To somebody else in this process.
#[async_trait]
impl ArchiveOut for tokio::io::DuplexStream {
    async fn append(&mut self, file: File, size: u64) -> std::io::Result<()> {
        carry(file, size, self).await
    }
}

async fn carry(file: File, size: u64, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut file = tokio::fs::File::from_std(file).take(size);
    tokio::io::copy(&mut file, to).await.map(drop)
}

/// A tar being written. Members have no owner, no time, and fixed modes.
pub(crate) struct TarWriter<W> {
    out: W,
    /// Bytes written.
    at: u64,
}

const BLOCK: u64 = 512;

impl<W: ArchiveOut> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0 }
    }

    pub(crate) async fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, tar::EntryType::Directory, 0, 0o755).await
    }

    pub(crate) async fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.header(name, tar::EntryType::Regular, bytes.len() as u64, mode).await?;
        self.put(bytes).await?;
        self.pad(bytes.len() as u64).await
    }

    /// Writes exactly `size` bytes; the reader verifies that it gives as many.
    pub(crate) async fn stream(&mut self, name: &str, size: u64, mut content: BlobReader) -> Result<()> {
        self.header(name, tar::EntryType::Regular, size, 0o444).await?;
        while let Some(chunk) = content.chunk().await? {
            self.put(&chunk).await?;
        }
        self.pad(size).await
    }

    /// Writes all of a file, which has `size` bytes.
    pub(crate) async fn append(&mut self, name: &str, size: u64, file: File) -> Result<()> {
        self.header(name, tar::EntryType::Regular, size, 0o444).await?;
        self.out.append(file, size).await.map_err(broken)?;
        self.at += size;
        self.pad(size).await
    }

    /// Ends the archive, and gives back where it went.
    pub(crate) async fn finish(mut self) -> Result<W> {
        let end = self.out.write_all(&[0; 2 * BLOCK as usize]).await;
        end.and(self.out.flush().await).map_err(broken)?;
        Ok(self.out)
    }

    async fn header(&mut self, name: &str, kind: tar::EntryType, size: u64, mode: u32) -> Result<()> {
        if name.len() > 100 {
            // `blobs/sha512/…` does not fit into a ustar name.
            let record = pax_record("path", name);
            self.put(block("pax", tar::EntryType::XHeader, record.len() as u64, 0o644).as_bytes()).await?;
            self.put(record.as_bytes()).await?;
            self.pad(record.len() as u64).await?;
        }
        let short: String = name.chars().take(100).collect();
        self.put(block(&short, kind, size, mode).as_bytes()).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).await.map_err(broken)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    async fn pad(&mut self, size: u64) -> Result<()> {
        let rest = (BLOCK - size % BLOCK) % BLOCK;
        self.put(&[0; BLOCK as usize][..rest as usize]).await
    }
}

/// A member that has content and no name yet.
pub(crate) struct Unnamed {
    header: u64,
    size: u64,
}

impl<W: ArchiveFile> TarWriter<W> {
    /// Writes a member as it comes. Its name, of at most 100 bytes, is given to it later.
    pub(crate) async fn follow(&mut self, content: Box<dyn Read + Send>) -> Result<Unnamed> {
        let header = self.at;
        self.put(&[0; BLOCK as usize]).await?;
        let size = self.out.follow(content).await.map_err(broken)?;
        self.at += size;
        self.pad(size).await?;
        Ok(Unnamed { header, size })
    }

    pub(crate) async fn name(&mut self, member: Unnamed, name: &str) -> Result<()> {
        let header = block(name, tar::EntryType::Regular, member.size, 0o444);
        self.out.patch(member.header, header.as_bytes()).await.map_err(broken)
    }

    /// Takes back the member that was written last.
    pub(crate) async fn take_back(&mut self, member: Unnamed) -> Result<()> {
        self.at = member.header;
        self.out.cut(member.header).await.map_err(broken)
    }
}

impl Unnamed {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

fn broken(source: std::io::Error) -> Error {
    Error::Io { doing: "write the archive".into(), source }
}

fn block(name: &str, kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(name).expect("a relative name of at most 100 bytes");
    // Beyond 8 GiB the size is written in base 256, which every reader of today knows.
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

/// `"<length> <key>=<value>\n"`, where the length counts itself (POSIX pax).
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_oci::Descriptor;

    #[test]
    fn pax_records_count_themselves() {
        for length in [1, 90, 91, 92, 93, 994] {
            let record = pax_record("path", &"x".repeat(length));
            assert_eq!(record.split_once(' ').unwrap().0.parse::<usize>().unwrap(), record.len());
        }
    }

    #[tokio::test]
    async fn members_read_back() {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        let (mut out, data) = (Vec::new(), vec![7u8; 1000]);
        let mut tar = TarWriter::new(&mut out);
        tar.directory("blobs/").await.unwrap();
        let reader = BlobReader::from_bytes("read", &Descriptor::of("x", &data), data.clone().into());
        tar.stream(&long, 1000, reader).await.unwrap();
        tar.file("empty", 0o644, b"").await.unwrap();
        tar.finish().await.unwrap();
        assert_eq!(out.len() % 512, 0);
        let mut archive = tar::Archive::new(&out[..]);
        let read: Vec<(String, usize)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content.len())
            })
            .collect();
        assert_eq!(read, [("blobs/".to_owned(), 0), (long, 1000), ("empty".to_owned(), 0)]);
    }
}
