//! Mounts that travel from store to store.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_image::BlobSink as _;
use kiln_image::{BlobSource as _, MemoryBlobs, Role};
use kiln_oci::{Descriptor, Document, Manifest};
use kiln_store::{CacheMountSpec, Sharing, Store};

use super::export::{MountsExported, entries, export};
use super::format::{CONTENTS, Chunk, Contents, Look, PACK, compress, decompress, manifest};
use super::import::fetch;
use super::place::Found;
use super::{DEFAULT_MAX_SIZE, wanted};
use crate::job::Result;

/// A store, and mounts on their way.
struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    way: Arc<MemoryBlobs>,
    root: Option<Descriptor>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        Self { dir, store, way: Arc::default(), root: None }
    }

    /// The directory of a mount.
    fn mount(&self, id: &str) -> PathBuf {
        let lease = self.store.lease().unwrap();
        let mounts = self.store.cache_mounts();
        let id = format!("/{id}");
        mounts.acquire(&CacheMountSpec::new(id), &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap().dir().into()
    }

    fn found(&self) -> Option<Found> {
        Some(Found { blobs: self.way.clone(), root: self.root.clone()? })
    }

    async fn export(&mut self, ids: &[&str], max_size: u64) -> MountsExported {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let mounts = wanted(&self.store, &ids).unwrap();
        let before = self.found();
        let (report, root) =
            export(&self.store, (&mounts, max_size), before.as_ref(), self.way.as_ref()).await.unwrap();
        self.root = root.or(self.root.take());
        report
    }

    async fn import(&self, id: &str) -> Result<tempfile::TempDir> {
        let out = tempfile::tempdir().unwrap();
        self.import_into(id, out.path()).await.map(|()| out)
    }

    async fn import_into(&self, id: &str, out: &Path) -> Result<()> {
        let found = self.found().unwrap();
        let all = entries(&found).await.unwrap();
        let entry = all.iter().find(|entry| entry.id == format!("/{id}")).unwrap();
        fetch(self.way.as_ref(), &entry.manifest, DEFAULT_MAX_SIZE, self.dir.path()).await?.unpack(out)
    }

    /// The one mount's manifest.
    async fn manifest(&self) -> (Descriptor, Manifest) {
        let entry = entries(&self.found().unwrap()).await.unwrap().remove(0);
        match kiln_image::fetch_document(self.way.as_ref(), &entry.manifest).await.unwrap() {
            Document::Manifest(manifest) => (entry.manifest, manifest.into_parts().1),
            Document::Index(_) => panic!("a mount has a manifest"),
        }
    }

    async fn contents(&self) -> Contents {
        let (_, manifest) = self.manifest().await;
        let bytes = self.way.fetch(&manifest.layers[0]).await.unwrap().bytes("", u64::MAX).await.unwrap();
        serde_json::from_slice(&decompress(&bytes, u64::MAX - 1).unwrap()).unwrap()
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// A cache of downloads: files of many sizes in many directories.
fn fill(dir: &Path, megabytes: u64) {
    for number in 0..megabytes * 4 {
        let directory = dir.join(format!("{:02x}", number * 37 % 64));
        fs::create_dir_all(&directory).unwrap();
        let size = 1000 + (number * 7919 % 500) as usize * 1000;
        fs::write(directory.join(format!("{number}.whl")), noise(number + 1, size)).unwrap();
    }
}

#[tokio::test]
async fn a_mount_comes_back_as_it_was() {
    let mut f = Fixture::new();
    let dir = f.mount("pip");
    fill(&dir, 2);
    fs::write(dir.join("program"), "#!").unwrap();
    fs::set_permissions(dir.join("program"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(dir.join("program"), dir.join("same")).unwrap();
    symlink("/etc/passwd", dir.join("link")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap();
    fs::File::open(dir.join("program")).unwrap().set_modified(std::time::UNIX_EPOCH + Duration::new(5, 6)).unwrap();
    f.export(&[], DEFAULT_MAX_SIZE).await;
    let out = f.import("pip").await.unwrap();
    let look = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec(), found.nlink())
    };
    for name in ["program", "same", "link", "empty", "00/0.whl"] {
        assert_eq!(look(&out.path().join(name)), look(&dir.join(name)), "{name}");
    }
    assert_eq!(fs::metadata(out.path()).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(
        fs::metadata(out.path().join("same")).unwrap().ino(),
        fs::metadata(out.path().join("program")).unwrap().ino()
    );
    assert_eq!(fs::read(out.path().join("00/0.whl")).unwrap(), fs::read(dir.join("00/0.whl")).unwrap());
}

#[tokio::test]
async fn a_second_export_sends_what_has_changed() {
    let mut f = Fixture::new();
    let dir = f.mount("pip");
    fill(&dir, 24);
    let first = f.export(&[], DEFAULT_MAX_SIZE).await;
    assert!(first.mounts[0].sent > 20 << 20, "{first:?}");
    let unchanged = f.root.clone();
    assert_eq!(f.export(&[], DEFAULT_MAX_SIZE).await.mounts[0].sent, 0, "nothing has changed");
    assert_eq!(f.root, unchanged);
    fs::write(dir.join("00/0.whl"), noise(1000, 300_000)).unwrap();
    fs::write(dir.join("new"), noise(1001, 200_000)).unwrap();
    fs::remove_file(dir.join("01/45.whl")).unwrap_or_default();
    let second = f.export(&[], DEFAULT_MAX_SIZE).await;
    assert!(second.mounts[0].sent < 2 << 20, "{second:?}");
    let out = f.import("pip").await.unwrap();
    for name in ["00/0.whl", "new", "25/1.whl"] {
        assert!(fs::read(out.path().join(name)).unwrap() == fs::read(dir.join(name)).unwrap(), "{name}");
    }
}

#[tokio::test]
async fn packs_do_not_grow_without_end() {
    let mut f = Fixture::new();
    let dir = f.mount("go");
    for round in 0..40 {
        fs::write(dir.join(format!("{round}")), noise(round, 200_000)).unwrap();
        f.export(&[], DEFAULT_MAX_SIZE).await;
    }
    assert!(f.manifest().await.1.layers.len() < 30, "small packs are packed together");
    for round in 0..39 {
        fs::remove_file(dir.join(format!("{round}"))).unwrap();
    }
    for _ in 0..2 {
        f.export(&[], DEFAULT_MAX_SIZE).await;
    }
    let contents = f.contents().await;
    assert!(contents.packs.iter().sum::<u64>() < 3 * contents.size, "what nothing needs is left behind: {contents:?}");
}

#[tokio::test]
async fn mounts_of_an_earlier_export_stay() {
    let mut f = Fixture::new();
    fs::write(f.mount("a").join("x"), "a").unwrap();
    fs::write(f.mount("b").join("x"), "b").unwrap();
    f.export(&["a"], DEFAULT_MAX_SIZE).await;
    f.export(&["b"], DEFAULT_MAX_SIZE).await;
    assert_eq!(fs::read_to_string(f.import("a").await.unwrap().path().join("x")).unwrap(), "a");
    assert_eq!(fs::read_to_string(f.import("b").await.unwrap().path().join("x")).unwrap(), "b");
}

#[tokio::test]
async fn a_mount_over_the_limit_is_skipped_and_the_others_are_not() {
    let mut f = Fixture::new();
    fs::write(f.mount("large").join("x"), noise(1, 300_000)).unwrap();
    fs::write(f.mount("small").join("x"), "x").unwrap();
    let report = f.export(&[], 100_000).await;
    assert_eq!(report.mounts.iter().map(|mount| mount.id.as_str()).collect::<Vec<_>>(), ["small"]);
    assert_eq!(
        (report.skipped[0].id.as_str(), report.skipped[0].why.as_str()),
        ("large", "it is larger than 100000 bytes")
    );
    f.export(&[], DEFAULT_MAX_SIZE).await;
    let found = f.found().unwrap();
    let entry = entries(&found).await.unwrap().into_iter().find(|entry| entry.id == "/large").unwrap();
    let failure = fetch(f.way.as_ref(), &entry.manifest, 100_000, f.dir.path()).await.err().unwrap();
    assert!(failure.message.contains("at most 100000"), "{failure}");
}

#[tokio::test]
async fn an_export_waits_for_no_step_that_shares_and_says_which_has_it_alone() {
    let mut f = Fixture::new();
    fs::write(f.mount("m").join("x"), "x").unwrap();
    let lease = f.store.lease().unwrap();
    let spec = CacheMountSpec { sharing: Sharing::Shared, ..CacheMountSpec::new("/m") };
    let shared = f.store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &|_| Ok(())).unwrap();
    assert_eq!(f.export(&["m"], DEFAULT_MAX_SIZE).await.mounts.len(), 1);
    drop(shared);
}

/// A mount of one chunk, whatever is in it.
async fn forged(f: &mut Fixture, stream: &[u8], change: impl FnOnce(&mut Contents, &mut Vec<u8>)) {
    f.mount("m");
    f.export(&[], DEFAULT_MAX_SIZE).await;
    let (mut pack, size) = (stream.to_vec(), stream.len() as u64);
    let chunk = Chunk(0, 0, size, kiln_oci::Digest::sha256(stream));
    let root = Look { uid: 0, gid: 0, mode: 0o755 };
    let mut contents = Contents { root, size, packs: vec![size], chunks: vec![chunk] };
    change(&mut contents, &mut pack);
    let pack = f.way.insert(PACK, compress(&pack).unwrap());
    let listed = f.way.insert(CONTENTS, compress(&serde_json::to_vec(&contents).unwrap()).unwrap());
    let document = manifest(listed, vec![pack]);
    let found = f.found().unwrap();
    let Document::Index(index) = kiln_image::fetch_document(&*found.blobs, &found.root).await.unwrap() else {
        panic!()
    };
    let mut index = index.into_parts().1;
    let bare = f.way.insert(index.manifests[0].media_type.clone(), document.bytes().to_vec());
    index.manifests[0] = Descriptor { annotations: index.manifests[0].annotations.clone(), ..bare };
    index.manifests[0].artifact_type = Some(super::format::ARTIFACT.into());
    let index = kiln_oci::Raw::new(index);
    let root = Descriptor::of(found.root.media_type.clone(), index.bytes());
    f.way.push_document(&root, index.bytes(), Role::Root).await.unwrap();
    f.root = Some(root);
}

/// A tar with one entry.
fn tar(name: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[329..336].copy_from_slice(b"0000010");
    header[337..344].copy_from_slice(b"0000000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut all = header.to_vec();
    all.extend_from_slice(content);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

#[tokio::test]
async fn a_hostile_mount_writes_nothing_outside() {
    let end = vec![0; 1024];
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap().as_bytes();
    let through_link = [tar(b"d", b'2', target, b""), tar(b"d/evil", b'0', b"", b"x")].concat();
    let cases = [
        (tar(b"../evil", b'0', b"", b"x"), Some("upwards")),
        (tar(b"evil", b'1', b"../../etc/passwd", b""), Some("upwards")),
        (tar(b"disk", b'4', b"", b""), Some("has no place here")),
        (vec![b'x'; 512], Some("malformed")),
        // The link is followed as if the mount were all there is.
        (through_link, None),
    ];
    for (entries, said) in cases {
        let mut f = Fixture::new();
        forged(&mut f, &[entries, end.clone()].concat(), |_, _| {}).await;
        let around = tempfile::tempdir().unwrap();
        let inside = around.path().join("mount");
        fs::create_dir(&inside).unwrap();
        let outcome = f.import_into("m", &inside).await;
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let failure = outcome.err().map(|failure| format!("{} {:?}", failure.message, failure.causes));
        assert!(
            failure.is_none() || failure.as_ref().is_some_and(|text| text.contains(said.unwrap_or(""))),
            "{failure:?}"
        );
        assert!(failure.is_some() || said.is_none(), "it was taken: {said:?}");
    }
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused() {
    let good = [tar(b"a", b'0', b"", b"x"), vec![0; 1024]].concat();
    let mut f = Fixture::new();
    forged(&mut f, &good, |_, _| {}).await;
    assert_eq!(fs::read_to_string(f.import("m").await.unwrap().path().join("a")).unwrap(), "x");
    type Change = fn(&mut Contents, &mut Vec<u8>);
    let cases: [(Change, &str); 4] = [
        (|_, pack| pack[512] = b'y', "is not what its digest says"),
        (|_, pack| pack.truncate(100), "bytes, not"),
        (|_, pack| pack.extend(vec![0; 100 << 20]), "larger than"),
        (|contents, _| contents.size = DEFAULT_MAX_SIZE + 1, "are wanted"),
    ];
    for (change, said) in cases {
        let mut f = Fixture::new();
        forged(&mut f, &good, change).await;
        let failure = f.import("m").await.err().unwrap();
        let text = format!("{} {:?}", failure.message, failure.causes);
        assert!(text.contains(said), "{text}");
    }
}
