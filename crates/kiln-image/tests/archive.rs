//! Archives: written as others read them, read with suspicion, judged by skopeo and podman.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::error::Error as _;
use std::io::Write as _;
use std::path::Path;

use kiln_image::archive::{Archive, ArchiveImage, Format, write};
use kiln_image::testing::tiny_image;
use kiln_image::{BlobSource as _, CopyOptions, ErrorKind, MemoryBlobs, Result, copy_graph};
use kiln_oci::{Descriptor, Digest, Document, Index, MediaType, Platform, Raw};
use kiln_testkit::Tool;

const NAME: &str = "docker.io/library/app:1";

async fn written(format: Format, memory: &MemoryBlobs, root: &Descriptor) -> Vec<u8> {
    let images = [ArchiveImage { descriptor: root.clone(), names: vec![NAME.into(), "h.example/x:2".into()] }];
    let mut out = Vec::new();
    write(format, &images, memory, &mut out).await.unwrap();
    out
}

async fn opened(bytes: &[u8]) -> Result<Archive> {
    let dir = tempfile::tempdir().unwrap();
    Archive::spool(std::io::Cursor::new(bytes.to_vec()), dir.path(), 1 << 30).await
}

fn names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[tokio::test]
async fn what_is_written_reads_back_and_is_the_same_each_time() {
    let memory = MemoryBlobs::new();
    let root = tiny_image(&memory, "archive");
    for format in [Format::Oci, Format::Docker] {
        let bytes = written(format, &memory, &root).await;
        assert!(bytes == written(format, &memory, &root).await);
        let archive = opened(&bytes).await.unwrap();
        let expected = ArchiveImage { descriptor: root.clone(), names: vec![NAME.into(), "h.example/x:2".into()] };
        assert_eq!(archive.images(), [expected]);
        let sink = MemoryBlobs::new();
        let report = copy_graph(&archive, &sink, &root, &CopyOptions::default()).await.unwrap();
        assert_eq!(report.written, 3);
        let names = names(&bytes);
        assert!(names[0] == "blobs/" && names.contains(&"oci-layout".to_owned()), "{names:?}");
        assert_eq!(names.contains(&"manifest.json".to_owned()), format == Format::Docker);
    }
}

/// A changed digest here is a changed archive for everybody: it needs a line in the changelog.
#[tokio::test]
async fn archive_bytes_are_stable() {
    let memory = MemoryBlobs::new();
    let root = tiny_image(&memory, "stable");
    for (format, expected) in [(Format::Oci, "ee1777401fe9"), (Format::Docker, "6bf9bc2bca1d")] {
        let bytes = written(format, &memory, &root).await;
        assert_eq!(Digest::sha256(&bytes).short(), expected, "{format:?}");
    }
}

#[tokio::test]
async fn an_index_of_platforms_keeps_all_and_shows_docker_the_native_one() {
    let memory = MemoryBlobs::new();
    let mut entries = vec![tiny_image(&memory, "foreign"), tiny_image(&memory, "native")];
    entries[0].platform = Some(Platform::linux("s390x"));
    entries[1].platform = Some(Platform::host());
    let index = Raw::new(Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.into()),
        manifests: entries.clone(),
        annotations: Default::default(),
    });
    let root = memory.insert(MediaType::OCI_INDEX, index.bytes().to_vec());
    let bytes = written(Format::Docker, &memory, &root).await;
    let archive = opened(&bytes).await.unwrap();
    let sink = MemoryBlobs::new();
    copy_graph(&archive, &sink, &root, &CopyOptions::default()).await.unwrap();
    assert!(sink.contains(&entries[0].digest) && sink.contains(&entries[1].digest));
    let list = member(&bytes, "manifest.json");
    let manifest = memory.fetch(&entries[1]).await.unwrap().bytes("read", 1 << 20).await.unwrap();
    let Document::Manifest(native) = Document::parse(&MediaType::OCI_MANIFEST.into(), manifest).unwrap() else {
        panic!("a manifest")
    };
    assert!(list.contains(native.value().config.digest.hex()) && list.contains(r#""app:1""#), "{list}");
}

fn member(bytes: &[u8], name: &str) -> String {
    let mut archive = tar::Archive::new(bytes);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let entry = entries.find(|entry| entry.path().unwrap().as_os_str() == name).unwrap();
    std::io::read_to_string(entry).unwrap()
}

/// One member of a hand-made archive.
enum Part<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Kind(&'a str, tar::EntryType),
}

fn hand_made(parts: &[Part<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let (name, kind, data, link): (&str, _, &[u8], Option<&str>) = match *part {
            Part::File(name, data) => (name, tar::EntryType::Regular, data, None),
            Part::Link(name, to) => (name, tar::EntryType::Symlink, &[], Some(to)),
            Part::Hard(name, to) => (name, tar::EntryType::Link, &[], Some(to)),
            Part::Kind(name, kind) => (name, kind, &[], None),
        };
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        // Written raw: the library would refuse the names that are tested here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn docker_parts() -> (Vec<u8>, Vec<u8>, String) {
    let layer = hand_made(&[Part::File("etc/os", b"x")]);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&layer), Digest::sha256(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", Digest::sha256(&config).hex());
    (layer, config, name)
}

#[tokio::test]
async fn the_old_docker_form_is_read_links_and_order_and_all() {
    let (layer, config, name) = docker_parts();
    let list = format!(
        r#"[{{"Config":"{name}","RepoTags":["app:1","h.example/app:2"],"Layers":["a/layer.tar","./b/layer.tar"]}}]"#
    );
    for second in [Part::Link("b/layer.tar", "../a/layer.tar"), Part::Hard("b/layer.tar", "a/layer.tar")] {
        // Links before what they point at, the list first, as no tool would write it.
        let bytes = hand_made(&[
            Part::File("manifest.json", list.as_bytes()),
            second,
            Part::File("./a/VERSION", b"1.0"),
            Part::File(&name, &config),
            Part::Kind("a/", tar::EntryType::Directory),
            Part::File("a/layer.tar", &layer),
        ]);
        let archive = opened(&bytes).await.unwrap();
        let [image] = archive.images() else { panic!("one image") };
        assert_eq!(image.names, [NAME, "h.example/app:2"]);
        let sink = MemoryBlobs::new();
        copy_graph(&archive, &sink, &image.descriptor, &CopyOptions::default()).await.unwrap();
        assert!(sink.contains(&Digest::sha256(&layer)) && sink.contains(&Digest::sha256(&config)));
    }
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let (layer, config, name) = docker_parts();
    let list = |config: &str, layers: &str| format!(r#"[{{"Config":"{config}","RepoTags":null,"Layers":[{layers}]}}]"#);
    let good = list(&name, r#""l","l""#);
    let lying = list(&format!("{}.json", "0".repeat(64)), r#""l","l""#);
    let file = |name| Part::File(name, b"x".as_slice());
    let zeros = format!("{}.json", "0".repeat(64));
    for (what, parts) in [
        ("nothing", vec![]),
        ("no list", vec![file("README")]),
        ("an escape", vec![file("../../etc/cron.d/x")]),
        ("an absolute name", vec![file("/etc/passwd")]),
        ("a link out", vec![Part::Link("manifest.json", "../../../etc/passwd")]),
        ("an absolute link", vec![Part::Link("manifest.json", "/etc/passwd")]),
        ("a link to itself", vec![Part::Link("manifest.json", "manifest.json")]),
        ("a device", vec![Part::Kind("manifest.json", tar::EntryType::Char)]),
        ("a fifo", vec![Part::Kind("oci-layout", tar::EntryType::Fifo)]),
        ("a second list", vec![Part::File("manifest.json", good.as_bytes()), file("./manifest.json")]),
        ("a config that is missing", vec![Part::File("manifest.json", good.as_bytes())]),
        ("a layer that is missing", vec![Part::File("manifest.json", good.as_bytes()), Part::File(&name, &config)]),
        (
            "a layer that is another",
            vec![Part::File("manifest.json", good.as_bytes()), Part::File(&name, &config), file("l")],
        ),
        (
            "a config under a false name",
            vec![Part::File("manifest.json", lying.as_bytes()), Part::File(&zeros, &config), Part::File("l", &layer)],
        ),
        ("a list that is none", vec![Part::File("manifest.json", b"{}")]),
        ("an index that is none", vec![Part::File("index.json", b"[]"), file("oci-layout")]),
    ] {
        let Err(error) = opened(&hand_made(&parts)).await else { panic!("{what} was accepted") };
        assert_eq!(error.kind(), ErrorKind::Lying, "{what}: {error}");
    }
    let fewer = list(&name, r#""l""#);
    let parts = [Part::File("manifest.json", fewer.as_bytes()), Part::File(&name, &config), Part::File("l", &layer)];
    let error = opened(&hand_made(&parts)).await.err().unwrap().to_string();
    assert!(error.contains("names 2 layers, its `manifest.json` 1"), "{error}");
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for path in [&fifo, dir.path()] {
        let error = Archive::open(path).await.err().unwrap();
        assert!(error.source().unwrap().to_string().contains("it is not a file"), "{error}");
    }
}

#[tokio::test]
async fn broken_archives_are_refused() {
    let memory = MemoryBlobs::new();
    let root = tiny_image(&memory, "broken");
    let bytes = written(Format::Oci, &memory, &root).await;
    let huge = hand_made(&[Part::File("index.json", &vec![b' '; 5 << 20]), Part::File("oci-layout", b"{}")]);
    assert_eq!(opened(&huge).await.err().unwrap().kind(), ErrorKind::TooLarge);
    for (what, bytes) in [
        ("cut in a member", bytes[..bytes.len() / 2].to_vec()),
        ("gzip", [b"\x1f\x8b\x08\x00".as_slice(), &[0; 600]].concat()),
        ("noise", vec![b'x'; 2048]),
        ("empty", Vec::new()),
    ] {
        let Err(error) = opened(&bytes).await else { panic!("{what} was accepted") };
        assert_eq!(error.kind(), ErrorKind::Lying, "{what}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let endless = Archive::spool(std::io::repeat(0), dir.path(), 1 << 20).await;
    assert_eq!(endless.err().unwrap().kind(), ErrorKind::TooLarge);

    // One flipped bit of a layer shows when it is read.
    let mut flipped = bytes.clone();
    let layer = member(&bytes, &format!("blobs/sha256/{}", root.digest.hex()));
    let at = bytes.windows(6).position(|window| window == b"broken").unwrap();
    flipped[at] ^= 1;
    let archive = opened(&flipped).await.unwrap();
    let error = copy_graph(&archive, &MemoryBlobs::new(), &root, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lying, "{error} {layer}");
}

fn on_disk(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn skopeo_reads_what_we_write_and_we_read_what_it_writes() {
    let Some(skopeo) = Tool::find("skopeo") else { return };
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryBlobs::new();
    let root = tiny_image(&memory, "skopeo");
    for (format, transport) in [(Format::Oci, "oci-archive"), (Format::Docker, "docker-archive")] {
        let images = [ArchiveImage { descriptor: root.clone(), names: vec![NAME.into()] }];
        let mut bytes = Vec::new();
        write(format, &images, &memory, &mut bytes).await.unwrap();
        let ours = on_disk(dir.path(), transport, &bytes);
        let seen = skopeo.run(&["inspect", &format!("{transport}:{ours}")]).unwrap();
        assert!(seen.contains("PATH=/bin") && seen.contains("amd64"), "{seen}");
        for back in ["oci-archive", "docker-archive"] {
            let theirs = dir.path().join(format!("{transport}-{back}")).display().to_string();
            let target = if back == "oci-archive" {
                format!("{back}:{theirs}:app:1")
            } else {
                format!("{back}:{theirs}:{NAME}")
            };
            skopeo.run(&["--insecure-policy", "copy", &format!("{transport}:{ours}"), &target]).unwrap();
            let archive = Archive::open(theirs.as_ref()).await.unwrap();
            let [image] = archive.images() else { panic!("one image in {theirs}") };
            copy_graph(&archive, &MemoryBlobs::new(), &image.descriptor, &CopyOptions::default()).await.unwrap();
            assert_eq!(image.names, [NAME], "{transport} to {back}");
        }
    }
}

#[tokio::test]
async fn podman_loads_both_kinds() {
    let Some(podman) = Tool::find("podman") else { return };
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryBlobs::new();
    let root = tiny_image(&memory, "podman");
    let place = |name: &str| dir.path().join(name).display().to_string();
    let (graph, run) = (place("graph"), place("run"));
    let base = ["--root", &graph, "--runroot", &run, "--storage-driver", "vfs"];
    for (format, name) in [(Format::Oci, "oci.tar"), (Format::Docker, "docker.tar")] {
        let images = [ArchiveImage { descriptor: root.clone(), names: vec![NAME.into()] }];
        let mut bytes = Vec::new();
        write(format, &images, &memory, &mut bytes).await.unwrap();
        let ours = on_disk(dir.path(), name, &bytes);
        let loaded = podman.run(&[&base[..], &["load", "-i", &ours]].concat()).unwrap();
        assert!(loaded.contains("app:1") || loaded.contains("Loaded image"), "{loaded}");
        let _ = podman.run(&[&base[..], &["rmi", "--all", "--force"]].concat());
    }
}
