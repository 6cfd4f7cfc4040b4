//! How a cache mount travels: a manifest of packs, and first among its layers the list of chunks they hold.
//!
//! The mount is one tar stream, cut into chunks where its content says. Chunks are put together into packs, each
//! compressed as a whole. A later export names the packs that are there already and adds one with what is new.

use kiln_image::BlobSource;
use kiln_oci::{Descriptor, Digest, Manifest, MediaType, Raw};
use kiln_report::{Failure, FailureKind};
use serde::{Deserialize, Serialize};

use crate::failure::registry;
use crate::job::Result;

/// What the manifest of a mount calls itself.
pub(crate) const ARTIFACT: &str = "application/vnd.kiln.cache-mount.v1";
/// The list of chunks.
pub(crate) const CONTENTS: &str = "application/vnd.kiln.cache-mount.contents.v1+json+zstd";
/// A pack.
pub(crate) const PACK: &str = "application/vnd.kiln.cache-mount.pack.v1+zstd";
/// The config of a manifest that needs none (OCI image-spec, manifest.md#guidance-for-an-empty-descriptor).
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The annotation with a mount's id.
pub(crate) const ID: &str = "kiln.cache-mount.id";
/// The annotation with what tells it from others of its id.
pub(crate) const NAME: &str = "kiln.cache-mount.name";

/// Bytes of chunks that are packed together.
pub(crate) const PACK_SIZE: usize = 16 << 20;
/// The largest pack that is taken, compressed or not.
const PACK_LIMIT: u64 = 64 << 20;
/// Bytes that are decompressed at once.
const PIECE: usize = 128 << 10;
/// The largest list of chunks that is taken, compressed or not.
pub(crate) const CONTENTS_LIMIT: u64 = 64 << 20;
/// The largest chunk that is taken.
const CHUNK_LIMIT: u64 = 1 << 20;
/// Packs may hold so many times what the mount needs of them: what older exports needed is still in them.
const WASTE: u64 = 4;

/// What a mount consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// The mount's own directory.
    pub(crate) root: Look,
    /// Bytes of the tar stream.
    pub(crate) size: u64,
    /// Bytes of each pack, decompressed, in the order of the manifest's layers.
    pub(crate) packs: Vec<u64>,
    /// The stream, in order.
    pub(crate) chunks: Vec<Chunk>,
}

/// Owner and mode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// A piece of the stream: pack, offset in it, length, digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk(pub(crate) usize, pub(crate) u64, pub(crate) u64, pub(crate) Digest);

impl Contents {
    /// Checks that everything is where it is said to be, and no more than `limit` bytes.
    fn validate(&self, packs: &[Descriptor], limit: u64) -> std::result::Result<(), String> {
        if self.size > limit {
            return Err(format!("it has {} bytes, and at most {limit} are wanted", self.size));
        }
        let is_small = |pack: &Descriptor| pack.size <= PACK_LIMIT && pack.media_type.as_str() == PACK;
        if packs.len() != self.packs.len() || !packs.iter().all(is_small) {
            return Err("its packs are not those of its manifest, or too large".into());
        }
        let total = self.packs.iter().try_fold(0_u64, |sum, size| sum.checked_add(*size));
        let most = limit.saturating_mul(WASTE).saturating_add(PACK_LIMIT);
        if self.packs.iter().any(|size| *size > PACK_LIMIT) || total.is_none_or(|total| total > most) {
            return Err("its packs hold too much".into());
        }
        let mut size = 0_u64;
        for Chunk(pack, offset, length, _) in &self.chunks {
            let end = offset.checked_add(*length);
            let fits = self.packs.get(*pack).zip(end).is_some_and(|(pack, end)| end <= *pack);
            if !fits || *length == 0 || *length > CHUNK_LIMIT {
                return Err("a chunk of it is outside of its pack".into());
            }
            size = size.saturating_add(*length);
        }
        if size != self.size {
            return Err(format!("its chunks have {size} bytes together, not {}", self.size));
        }
        Ok(())
    }
}

/// A mount's manifest, read and checked.
pub(crate) struct Opened {
    pub(crate) contents: Contents,
    pub(crate) packs: Vec<Descriptor>,
}

/// Reads what a mount consists of.
pub(crate) async fn open(from: &dyn BlobSource, manifest: &Descriptor, limit: u64) -> Result<Opened> {
    let wrong = |why: String| {
        Failure::new(FailureKind::Build, format!("cannot use the cache mount of manifest `{}`: {why}", manifest.digest))
    };
    let document = kiln_image::fetch_document(from, manifest).await.map_err(registry)?;
    let kiln_oci::Document::Manifest(document) = document else { return Err(wrong("it is an index".into())) };
    let Manifest { artifact_type, layers, .. } = document.into_parts().1;
    let mut layers = layers.into_iter();
    let first = layers.next().filter(|first| first.media_type.as_str() == CONTENTS && first.size <= CONTENTS_LIMIT);
    let first = first.filter(|_| artifact_type.as_deref() == Some(ARTIFACT));
    let first = first.ok_or_else(|| wrong("it is no cache mount".into()))?;
    let bytes = from.fetch(&first).await.map_err(registry)?;
    let bytes = bytes.bytes("read the contents of a cache mount", CONTENTS_LIMIT).await.map_err(registry)?;
    let bytes = decompress(&bytes, CONTENTS_LIMIT).map_err(|error| wrong(error.to_string()))?;
    let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let packs: Vec<Descriptor> = layers.collect();
    contents.validate(&packs, limit).map_err(wrong)?;
    Ok(Opened { contents, packs })
}

/// Decompresses at most `limit` bytes.
pub(crate) fn decompress(bytes: &[u8], limit: u64) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decompress_to(bytes, limit, |piece| {
        out.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(out)
}

/// The same, piece by piece; says how many bytes there were.
pub(crate) fn decompress_to(
    bytes: &[u8],
    limit: u64,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<u64> {
    use std::io::Read as _;
    let mut decoder = zstd::Decoder::with_buffer(bytes)?;
    decoder.window_log_max(27)?;
    let mut buffer = vec![0; PIECE];
    let mut size = 0;
    loop {
        let read = decoder.read(&mut buffer)?;
        if read == 0 {
            return Ok(size);
        }
        size += read as u64;
        if size > limit {
            return Err(std::io::Error::other(format!("it is larger than {limit} bytes, decompressed")));
        }
        take(&buffer[..read])?;
    }
}

/// Compresses, the same bytes to the same bytes.
pub(crate) fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;

    use kiln_fs::compress::{Compression, Compressor};
    let zstd = Compression::Zstd { level: Compression::ZSTD_LEVEL };
    let mut out = Compressor::new(Vec::new(), zstd, Compressor::<Vec<u8>>::all_threads())?;
    out.write_all(bytes)?;
    out.finish()
}

/// The manifest of a mount.
pub(crate) fn manifest(contents: Descriptor, packs: Vec<Descriptor>) -> Raw<Manifest> {
    Raw::new(Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST.into()),
        artifact_type: Some(ARTIFACT.into()),
        config: Descriptor::of(EMPTY, b"{}"),
        layers: std::iter::once(contents).chain(packs).collect(),
        subject: None,
        annotations: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let chunk = |pack, offset, length| Chunk(pack, offset, length, Digest::sha256(""));
        let chunks = vec![chunk(0, 0, 10), chunk(1, 5, 5), chunk(0, 0, 10)];
        Contents { root: Look { uid: 0, gid: 0, mode: 0o755 }, size: 25, packs: vec![10, 10], chunks }
    }

    #[test]
    fn a_list_that_lies_is_refused() {
        let pack = Descriptor::new(PACK, Digest::sha256(""), 10);
        let packs = vec![pack.clone(), pack.clone()];
        let check = |change: fn(&mut Contents)| {
            let mut changed = contents();
            change(&mut changed);
            changed.validate(&packs, 100)
        };
        assert_eq!(check(|_| {}), Ok(()));
        type Change = fn(&mut Contents);
        let cases: [(Change, &str); 9] = [
            (|c| c.chunks[1].1 = 6, "outside of its pack"),
            (|c| c.chunks[1].0 = 2, "outside of its pack"),
            (|c| c.chunks[1].1 = u64::MAX, "outside of its pack"),
            (|c| c.chunks[1].2 = 0, "outside of its pack"),
            (|c| c.size = 24, "25 bytes together"),
            (|c| c.size = 101, "at most 100"),
            (|c| c.packs[0] = u64::MAX, "too much"),
            (|c| c.packs[0] = PACK_LIMIT + 1, "too much"),
            (|c| c.packs.truncate(1), "not those of its manifest"),
        ];
        for (change, said) in cases {
            let error = check(change).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let large = Descriptor::new(PACK, Digest::sha256(""), PACK_LIMIT + 1);
        assert!(contents().validate(&[large, pack], 100).is_err());
    }

    #[test]
    fn what_is_compressed_comes_back_and_a_bomb_does_not() {
        let bytes = vec![7; 1 << 20];
        let small = compress(&bytes).unwrap();
        assert_eq!(decompress(&small, 1 << 20).unwrap(), bytes);
        assert!(decompress(&small, (1 << 20) - 1).unwrap_err().to_string().contains("larger than"));
    }
}
