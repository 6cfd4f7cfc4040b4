//! Reads archives: what `docker save`, BuildKit, Podman and kiln write, members in any order, nothing believed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, ImageConfig, Manifest, MediaType, Raw, Reference};
use serde::Deserialize;

use super::ArchiveImage;
use crate::layout::{LayoutEntry, parse_index};
use crate::verify::Verifier;
use crate::{BlobReader, BlobSource, Error, MemoryBlobs, Result, limits};

/// An archive whose members are known; a source of their blobs.
pub struct Archive {
    file: Arc<File>,
    label: String,
    blobs: BTreeMap<Digest, Member>,
    made: MemoryBlobs,
    images: Vec<ArchiveImage>,
}

/// Where a member's content lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    offset: u64,
    size: u64,
}

/// Members an archive may have.
const MEMBERS: usize = 100_000;
/// Bytes of a member's name.
const NAME: usize = 1024;
/// Bytes of headers that are no members: long names, PAX records.
const LINKS: usize = 8;

impl Archive {
    /// Opens an archive file. What is no file is refused, and not waited for.
    pub async fn open(path: &Path) -> Result<Self> {
        let opened = crate::regular::open(path).map_err(Error::file("open", path))?;
        let not_a_file = || Error::file("open", path)(std::io::Error::other("it is not a file"));
        let file = opened.ok_or_else(not_a_file)?;
        let label = path.display().to_string();
        blocking(move || Self::scan(file, label)).await
    }

    /// Reads an archive that is open; `label` is what people call it.
    pub async fn of_file(file: File, label: impl Into<String>) -> Result<Self> {
        let label = label.into();
        blocking(move || Self::scan(file, label)).await
    }

    /// Reads an archive from a stream into an unnamed file in `dir`, at most `limit` bytes, and opens that.
    /// A compressed stream is decompressed by the caller.
    pub async fn spool(mut stream: impl Read + Send + 'static, dir: &Path, limit: u64) -> Result<Self> {
        let dir = dir.to_owned();
        blocking(move || {
            let failed = |source| Error::Io { doing: "read the archive".into(), source };
            let mut file = tempfile::tempfile_in(&dir).map_err(Error::file("write to", &dir))?;
            let copied = std::io::copy(&mut (&mut stream).take(limit + 1), &mut file).map_err(failed)?;
            if copied > limit {
                let limit = format!("{limit} bytes");
                return Err(Error::TooLarge { doing: "read the archive".into(), what: "the archive".into(), limit });
            }
            file.flush().and_then(|()| file.rewind()).map_err(failed)?;
            Self::scan(file, "the archive".into())
        })
        .await
    }

    /// The images in it.
    pub fn images(&self) -> &[ArchiveImage] {
        &self.images
    }

    fn scan(file: File, label: String) -> Result<Self> {
        let members = Members::list(&file, &label)?.sound(&label)?;
        let mut archive =
            Self { file: Arc::new(file), label, blobs: BTreeMap::new(), made: MemoryBlobs::new(), images: Vec::new() };
        for (name, member) in &members.files {
            if let Some(digest) = digest_of(name) {
                archive.blobs.insert(digest, *member);
            }
        }
        match (members.find("index.json"), members.find("manifest.json")) {
            (Some(index), _) if members.find("oci-layout").is_some() => archive.read_index(index)?,
            (_, Some(list)) => archive.read_docker(list, &members)?,
            _ => return Err(Error::NoImages { doing: archive.doing() }),
        }
        Ok(archive)
    }

    fn read_index(&mut self, member: Member) -> Result<()> {
        let index = parse_index(&format!("{}/index.json", self.label), self.small(member, limits::DOCUMENT)?)?;
        for entry in index.manifests.into_iter().map(LayoutEntry::from) {
            let name = entry.name.or(entry.tag.filter(|tag| tag.contains(['/', ':'])));
            let name = name.as_deref().and_then(tag_of);
            let mut descriptor = entry.descriptor;
            descriptor.annotations.remove(crate::layout::IMAGE_NAME);
            descriptor.annotations.remove(crate::layout::REF_NAME);
            match self.images.iter_mut().find(|image| image.descriptor.digest == descriptor.digest) {
                Some(image) => image.names.extend(name),
                None => self.images.push(ArchiveImage { descriptor, names: name.into_iter().collect() }),
            }
        }
        Ok(())
    }

    /// Makes manifests for a `manifest.json`, which names its files and not their digests.
    fn read_docker(&mut self, member: Member, members: &Members) -> Result<()> {
        let bytes = self.small(member, limits::DOCUMENT)?;
        let entries: Vec<DockerEntry> =
            serde_json::from_slice(&bytes).map_err(|error| self.wrong(format!("its `manifest.json`: {error}")))?;
        let mut known = BTreeMap::new();
        for entry in entries {
            let config = self.docker_config(&entry, members)?;
            let diff_ids = &config.1.rootfs.diff_ids;
            if diff_ids.len() != entry.layers.len() || entry.layers.len() > limits::LAYERS {
                let counts =
                    format!("its config names {} layers, its `manifest.json` {}", diff_ids.len(), entry.layers.len());
                return Err(self.wrong(counts));
            }
            let mut layers = Vec::new();
            for (name, diff_id) in entry.layers.iter().zip(diff_ids) {
                layers.push(self.docker_layer(members.wanted(name, &self.label)?, diff_id, &mut known)?);
            }
            let manifest = Raw::new(Manifest {
                schema_version: 2,
                media_type: Some(MediaType::OCI_MANIFEST.into()),
                artifact_type: None,
                config: config.0,
                layers,
                subject: None,
                annotations: BTreeMap::new(),
            });
            let descriptor = self.made.insert(MediaType::OCI_MANIFEST, manifest.bytes().to_vec());
            let names = entry.repo_tags.unwrap_or_default();
            let names = names.iter().filter_map(|name| tag_of(name)).collect();
            self.images.push(ArchiveImage { descriptor, names });
        }
        Ok(())
    }

    fn docker_config(&mut self, entry: &DockerEntry, members: &Members) -> Result<(Descriptor, ImageConfig)> {
        let member = members.wanted(&entry.config, &self.label)?;
        let bytes = self.small(member, limits::CONFIG)?;
        let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
        // `<digest>.json` and `blobs/sha256/<digest>` say what must be inside.
        let stem = entry.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(named) = format!("sha256:{stem}").parse::<Digest>()
            && named != descriptor.digest
        {
            return Err(Error::Digest { doing: self.doing(), got: descriptor.digest, want: named });
        }
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|error| self.wrong(format!("its config `{}`: {error}", entry.config)))?;
        self.blobs.insert(descriptor.digest.clone(), member);
        Ok((descriptor, config))
    }

    /// A layer's descriptor. Uncompressed ones must be what the config says; compressed ones are checked when unpacked.
    fn docker_layer(
        &mut self,
        member: Member,
        diff_id: &Digest,
        known: &mut BTreeMap<u64, Descriptor>,
    ) -> Result<Descriptor> {
        if let Some(descriptor) = known.get(&member.offset) {
            return Ok(descriptor.clone());
        }
        let mut magic = [0; 4];
        let read = self.file.read_at(&mut magic[..member.size.min(4) as usize], member.offset);
        let read = read.map_err(|source| Error::Io { doing: self.doing(), source })?;
        let kind = match &magic[..read] {
            [0x1f, 0x8b, ..] => MediaType::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => MediaType::OCI_LAYER_ZSTD,
            _ => MediaType::OCI_LAYER,
        };
        let digest = self.hash(member)?;
        if kind == MediaType::OCI_LAYER && digest != *diff_id && diff_id.algorithm() == "sha256" {
            return Err(Error::Digest { doing: self.doing(), got: digest, want: diff_id.clone() });
        }
        let descriptor = Descriptor::new(kind, digest.clone(), member.size);
        self.blobs.insert(digest, member);
        known.insert(member.offset, descriptor.clone());
        Ok(descriptor)
    }

    fn hash(&self, member: Member) -> Result<Digest> {
        let mut verifier = Verifier::new(&Digest::sha256(""));
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        while done < member.size {
            let want = buffer.len().min((member.size - done) as usize);
            let read = self.file.read_at(&mut buffer[..want], member.offset + done);
            match read.map_err(|source| Error::Io { doing: self.doing(), source })? {
                0 => return Err(self.wrong("it ends within a member")),
                count => {
                    verifier.update(&buffer[..count]);
                    done += count as u64;
                }
            }
        }
        Ok(verifier.digest())
    }

    fn small(&self, member: Member, limit: u64) -> Result<Vec<u8>> {
        limits::check_size(&self.doing(), "a document in it", member.size, limit)?;
        let mut bytes = vec![0; member.size as usize];
        let read = self.file.read_exact_at(&mut bytes, member.offset);
        read.map_err(|source| Error::Io { doing: self.doing(), source })?;
        Ok(bytes)
    }

    fn doing(&self) -> String {
        format!("read archive `{}`", self.label)
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::invalid(self.doing(), reason)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The members of a tar by name.
struct Members {
    files: BTreeMap<String, Member>,
    links: BTreeMap<String, String>,
    /// What no archive of images has.
    wrong: Option<Error>,
}

impl Members {
    fn list(file: &File, label: &str) -> Result<Self> {
        let doing = || format!("read archive `{label}`");
        let mut magic = [0; 4];
        let read = file.read_at(&mut magic, 0).map_err(|source| Error::Io { doing: doing(), source })?;
        if let [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] | [b'B', b'Z', b'h', _] = magic[..read] {
            return Err(Error::invalid(doing(), "it is compressed"));
        }
        let mut members = Self { files: BTreeMap::new(), links: BTreeMap::new(), wrong: None };
        let end = file.metadata().map_err(|source| Error::Io { doing: doing(), source })?.len();
        let mut archive = tar::Archive::new(file);
        let unreadable = |error: std::io::Error| Error::invalid(doing(), format!("it is not a readable tar: {error}"));
        for (count, entry) in archive.entries_with_seek().map_err(unreadable)?.enumerate() {
            if count == MEMBERS {
                let limit = MEMBERS.to_string();
                members.wrong = Some(Error::TooLarge { doing: doing(), what: "the number of members".into(), limit });
                break;
            }
            let entry = entry.map_err(unreadable)?;
            if entry.raw_file_position().checked_add(entry.size()).is_none_or(|last| last > end) {
                return Err(Error::invalid(doing(), format!("member `{}` is cut off", shown(&entry.path_bytes()))));
            }
            let added = members.add(&entry).map_err(|reason| Error::invalid(doing(), reason));
            members.wrong = members.wrong.take().or(added.err());
        }
        Ok(members)
    }

    /// Itself, if nothing is wrong with it. In an archive of other things nothing needs to be as in one of images.
    fn sound(mut self, label: &str) -> Result<Self> {
        let has_images = ["index.json", "manifest.json"].into_iter().any(|name| self.find(name).is_some());
        match self.wrong.take() {
            Some(_) if !has_images => Err(Error::NoImages { doing: format!("read archive `{label}`") }),
            Some(wrong) => Err(wrong),
            None => Ok(self),
        }
    }

    fn add<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> Result<(), String> {
        let raw = entry.path_bytes();
        let text = std::str::from_utf8(&raw).ok().filter(|text| text.len() <= NAME);
        let Some(name) = text.and_then(|text| normal("", text)) else {
            return Err(format!("member `{}` leads out of it", shown(&raw)));
        };
        let kind = entry.header().entry_type();
        if name.is_empty() || kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(());
        }
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
            let base = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            let target = target.and_then(|target| normal(base, &target));
            let target = target.ok_or_else(|| format!("link `{}` leads out of it", shown(&raw)))?;
            return self.once(name.clone(), |m, name| m.links.insert(name, target).is_some());
        }
        // Sparse members lie in pieces, and devices have no content.
        if !matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous) {
            return Err(format!("member `{}` is neither file, directory nor link", shown(&raw)));
        }
        let member = Member { offset: entry.raw_file_position(), size: entry.size() };
        self.once(name, |m, name| m.files.insert(name, member).is_some())
    }

    fn once(&mut self, name: String, insert: impl FnOnce(&mut Self, String) -> bool) -> Result<(), String> {
        if self.files.contains_key(&name) || self.links.contains_key(&name) {
            return Err(format!("it has two members `{}`", name.escape_debug()));
        }
        insert(self, name);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Member> {
        let mut name = normal("", name)?;
        for _ in 0..LINKS {
            match self.links.get(&name) {
                Some(target) => name = target.clone(),
                None => return self.files.get(&name).copied(),
            }
        }
        None
    }

    fn wanted(&self, name: &str, label: &str) -> Result<Member> {
        self.find(name).ok_or_else(|| {
            let name: String = name.chars().take(200).collect();
            Error::invalid(format!("read archive `{label}`"), format!("it has no `{}`", name.escape_debug()))
        })
    }
}

/// A name that anybody may have written.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(100).collect::<String>().escape_debug().to_string()
}

/// A name without `.` and `..`, seen from a directory of the archive; `None` when it leads out of it.
fn normal(base: &str, name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The digest a member's name promises: `blobs/sha256/<hex>`.
fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

const CHUNK: usize = 256 << 10;

/// A name an archive may give an image: none with a digest, which nobody but a registry can promise.
fn tag_of(name: &str) -> Option<String> {
    let name = name.parse::<Reference>().ok()?;
    name.digest.is_none().then(|| name.to_string())
}

#[async_trait]
impl BlobSource for Archive {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        if self.made.contains(&descriptor.digest) {
            return self.made.fetch(descriptor).await;
        }
        let doing = format!("read blob `{}`", descriptor.digest);
        let Some(member) = self.blobs.get(&descriptor.digest).copied() else {
            return Err(Error::Incomplete { doing, host: self.label.clone(), message: String::new() });
        };
        if member.size != descriptor.size {
            return Err(Error::Size { doing, got: member.size.to_string(), want: descriptor.size });
        }
        let stream = futures::stream::try_unfold((self.file.clone(), member), read_on);
        Ok(BlobReader::verified(doing, descriptor, stream))
    }
}

async fn read_on((file, rest): (Arc<File>, Member)) -> Result<Option<(Bytes, (Arc<File>, Member))>> {
    if rest.size == 0 {
        return Ok(None);
    }
    blocking(move || {
        let mut buffer = vec![0; CHUNK.min(rest.size as usize)];
        let read = file.read_at(&mut buffer, rest.offset);
        let count = read.map_err(|source| Error::Io { doing: "read the archive".into(), source })?;
        if count == 0 {
            return Err(Error::invalid("read the archive", "it ends within a member"));
        }
        buffer.truncate(count);
        let rest = Member { offset: rest.offset + count as u64, size: rest.size - count as u64 };
        Ok(Some((buffer.into(), (file, rest))))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.expect("reading an archive does not panic")
}
