//! The contract that every source and sink of blobs keeps, as tests to be run for each of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, Manifest, MediaType, Raw};

use crate::blob::Role;
use crate::{
    BlobReader, BlobSink, BlobSource, CopyOptions, ErrorKind, MemoryBlobs, Pushed, Result, copy_graph, fetch_document,
};

/// What the suite tests.
pub trait End: BlobSource + BlobSink {}
impl<T: BlobSource + BlobSink> End for T {}

/// Declares the contract tests for an expression that makes an end to test, as `(end, guard)`, in an async context.
#[macro_export]
macro_rules! blob_suite {
    ($make:expr) => {
        $crate::blob_suite!(@ $make;
            gives_back_what_it_took,
            takes_content_once,
            refuses_wrong_content,
            misses_what_is_not_there,
            takes_the_same_blob_from_many_at_once,
            holds_a_whole_image
        );
    };
    (@ $make:expr; $($claim:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $claim() {
            let Some((end, _guard)) = $make.await else { return };
            $crate::testing::$claim(&end).await;
        })*
    };
}

const KIND: &str = MediaType::OCI_LAYER;

fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(3_037_000_493);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A source that gives a descriptor other bytes than it names.
struct Liar(Bytes);

#[async_trait]
impl BlobSource for Liar {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        Ok(BlobReader::from_bytes("lie", descriptor, self.0.clone()))
    }
}

/// Blobs of all sizes come back byte for byte, from any offset.
pub async fn gives_back_what_it_took(end: &dyn End) {
    let memory = MemoryBlobs::new();
    for (size, seed) in [(0, 1), (1, 2), (511, 3), (512, 4), (65_537, 5), (3_000_001, 6)] {
        let bytes = noise(size, seed);
        let descriptor = memory.insert(KIND, bytes.clone());
        assert!(!end.has(&descriptor).await.unwrap());
        assert_eq!(end.push(&descriptor, &memory).await.unwrap(), Pushed::Written);
        assert!(end.has(&descriptor).await.unwrap());
        let back = end.fetch(&descriptor).await.unwrap().bytes("read", 1 << 30).await.unwrap();
        assert!(back == bytes, "{size} bytes");
        let offset = size as u64 / 3;
        let rest = end.fetch_from(&descriptor, offset).await.unwrap().bytes("read", 1 << 30).await.unwrap();
        assert!(rest == bytes[offset as usize..], "{size} bytes from {offset}");
    }
}

/// What is there is not taken again.
pub async fn takes_content_once(end: &dyn End) {
    let memory = MemoryBlobs::new();
    let descriptor = memory.insert(KIND, noise(1000, 7));
    assert_eq!(end.push(&descriptor, &memory).await.unwrap(), Pushed::Written);
    assert_eq!(end.push(&descriptor, &memory).await.unwrap(), Pushed::Existing);
}

/// Bytes that are short, long or other are refused and leave nothing.
pub async fn refuses_wrong_content(end: &dyn End) {
    let good = noise(100_000, 8);
    let descriptor = Descriptor::of(KIND, &good);
    let mut flipped = good.clone();
    flipped[99_999] ^= 1;
    let long = [&good[..], b"x"].concat();
    for bad in [flipped, long, good[..99_999].to_vec(), Vec::new()] {
        let size = bad.len();
        let error = end.push(&descriptor, &Liar(bad.into())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lying, "{size} bytes: {error}");
        assert!(!end.has(&descriptor).await.unwrap(), "{size} bytes");
    }
    assert_eq!(end.push(&descriptor, &Liar(good.into())).await.unwrap(), Pushed::Written);
}

/// Unknown content is not found; a known digest with another size is a lie.
pub async fn misses_what_is_not_there(end: &dyn End) {
    let unknown = Descriptor::new(KIND, Digest::sha256("nobody pushed this"), 18);
    assert!(!end.has(&unknown).await.unwrap());
    let error = end.fetch(&unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let memory = MemoryBlobs::new();
    let mut descriptor = memory.insert(KIND, noise(1000, 9));
    end.push(&descriptor, &memory).await.unwrap();
    for size in [999, 1001] {
        descriptor.size = size;
        let read = async { end.fetch(&descriptor).await?.bytes("read", 1 << 30).await };
        assert_eq!(read.await.unwrap_err().kind(), ErrorKind::Lying);
    }
}

/// Eight tasks pushing one blob leave one whole blob.
pub async fn takes_the_same_blob_from_many_at_once(end: &dyn End) {
    let memory = MemoryBlobs::new();
    let bytes = noise(400_000, 10);
    let descriptor = memory.insert(KIND, bytes.clone());
    let pushes = (0..8).map(|_| end.push(&descriptor, &memory));
    for pushed in futures::future::join_all(pushes).await {
        pushed.unwrap();
    }
    let back = end.fetch(&descriptor).await.unwrap().bytes("read", 1 << 30).await.unwrap();
    assert!(back == bytes);
}

/// A two-layer image is copied in, and its manifest reads back as it was.
pub async fn holds_a_whole_image(end: &dyn End) {
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "contract");
    let report = copy_graph(&memory, end, &image, &CopyOptions::default()).await.unwrap();
    assert_eq!(report.written, 3);
    let (there, here) = (fetch_document(end, &image).await.unwrap(), fetch_document(&memory, &image).await.unwrap());
    assert_eq!(there, here);
    let again = copy_graph(&memory, end, &image, &CopyOptions::default()).await.unwrap();
    assert_eq!((again.written, again.mounted), (0, 0));
    end.push_document(&image, b"{}", Role::Child).await.unwrap_err();
}

/// An image of two one-file layers, for tests.
pub fn tiny_image(memory: &MemoryBlobs, salt: &str) -> Descriptor {
    let layer = |name: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(salt.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, salt.as_bytes()).expect("writing to memory");
        memory.insert(MediaType::OCI_LAYER, tar.into_inner().expect("writing to memory"))
    };
    let layers = vec![layer("one"), layer("two")];
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| l.digest.clone()).collect::<Vec<_>>() },
        "history": [{ "created_by": "one" }, { "created_by": "two" }],
    });
    let manifest = Raw::new(Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST.into()),
        artifact_type: None,
        config: memory.insert(MediaType::OCI_CONFIG, config.to_string()),
        layers,
        subject: None,
        annotations: Default::default(),
    });
    memory.insert(MediaType::OCI_MANIFEST, manifest.bytes().to_vec())
}
