//! Layout directories: found by name and digest, named like BuildKit does, never pointing at what is not there.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use kiln_image::testing::tiny_image;
use kiln_image::{
    BlobSink as _, BlobSource as _, CopyOptions, ErrorKind, Layout, MemoryBlobs, Pushed, Role, Selector, Swept,
    copy_graph,
};
use kiln_oci::{Descriptor, Digest};
use kiln_testkit::Tool;

async fn export(dir: &Path, salt: &str, names: &[&str]) -> Descriptor {
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, salt);
    let sink = Layout::create(dir).await.unwrap().sink(names.iter().map(ToString::to_string)).await.unwrap();
    copy_graph(&memory, &sink, &image, &CopyOptions::default()).await.unwrap();
    image
}

#[tokio::test]
async fn images_are_found_by_name_tag_and_digest() {
    let dir = tempfile::tempdir().unwrap();
    let one = export(dir.path(), "one", &["docker.io/library/app:1", "h.example/app:stable"]).await;
    let layout = Layout::open(dir.path()).await.unwrap();
    let find = async |selector: Selector| layout.resolve(&selector).await.map(|d| d.digest);
    assert_eq!(find(Selector::Only).await.unwrap(), one.digest);
    let two = export(dir.path(), "two", &["docker.io/library/app:2"]).await;
    let three = export(dir.path(), "three", &[]).await;
    for (name, digest) in [
        ("1", &one.digest),
        ("app:1", &one.digest),
        ("docker.io/library/app:1", &one.digest),
        ("stable", &one.digest),
        ("app:2", &two.digest),
    ] {
        assert_eq!(find(Selector::Name(name.into())).await.unwrap(), *digest, "{name}");
    }
    let other = export(dir.path(), "other", &["docker.io/library/other:2"]).await;
    let unclear = find(Selector::Name("2".into())).await.unwrap_err().to_string();
    assert!(unclear.contains("`2` stands for several") && unclear.contains(other.digest.as_str()), "{unclear}");
    assert_eq!(find(Selector::Digest(three.digest.clone())).await.unwrap(), three.digest);
    let missing = find(Selector::Name("nope".into())).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("`nope`") && missing.to_string().contains("`docker.io/library/app:2`"));
    assert!(find(Selector::Only).await.unwrap_err().to_string().contains("several"));
    assert_eq!(find(Selector::Digest(Digest::sha256("no"))).await.unwrap_err().kind(), ErrorKind::Environment);
}

#[tokio::test]
async fn a_directory_is_told_from_the_name_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (there, colon) = (dir.path().join("d"), dir.path().join("d:x"));
    export(&there, "one", &["docker.io/library/app:1"]).await;
    export(&colon, "two", &[]).await;
    let (there, colon) = (there.to_str().unwrap(), colon.to_str().unwrap());
    for (text, wanted, name) in [
        (format!("{there}:1"), there, Some("1")),
        (format!("{there}:docker.io/library/app:1"), there, Some("docker.io/library/app:1")),
        (format!("{there}:h:5000/app"), there, Some("h:5000/app")),
        (format!("{colon}:1"), colon, Some("1")),
        (colon.to_owned(), there, Some("x")),
        ("/no/where:1".into(), "/no/where", Some("1")),
        ("/no:where/else".into(), "/no:where/else", None),
    ] {
        assert_eq!(Layout::split(&text), (Path::new(wanted), name), "{text}");
    }
}

#[tokio::test]
async fn a_name_moves_and_nothing_is_listed_twice() {
    let dir = tempfile::tempdir().unwrap();
    let name = "docker.io/library/app:1";
    export(dir.path(), "old", &[name]).await;
    for _ in 0..2 {
        export(dir.path(), "new", &[name, "docker.io/library/app:2"]).await;
        export(dir.path(), "nameless", &[]).await;
    }
    let entries = Layout::open(dir.path()).await.unwrap().entries().await.unwrap();
    let mut seen: Vec<_> = entries.iter().map(|e| (e.name.as_deref(), e.tag.as_deref())).collect();
    seen.sort();
    assert_eq!(seen, [(None, None), (Some(name), Some("1")), (Some("docker.io/library/app:2"), Some("2"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_exports_into_one_layout_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let exports = (0..8).map(|i| {
        let dir = dir.path().to_owned();
        tokio::spawn(async move { export(&dir, &i.to_string(), &[&format!("h.example/app:{i}")]).await })
    });
    for export in futures::future::join_all(exports).await {
        export.unwrap();
    }
    assert_eq!(Layout::open(dir.path()).await.unwrap().entries().await.unwrap().len(), 8);
    let left: Vec<_> = walk(dir.path()).into_iter().filter(|path| path.contains(".part-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn walk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn an_unfinished_copy_is_not_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "whole");
    let bytes = memory.fetch(&image).await.unwrap().bytes("read", 1 << 20).await.unwrap();
    let layout = Layout::create(dir.path()).await.unwrap();
    let sink = layout.sink(["h.example/app:1".to_owned()]).await.unwrap();
    // A source that has the manifest and the config, but no layers.
    let partial = MemoryBlobs::new();
    partial.push_document(&image, &bytes, Role::Root).await.unwrap();
    copy_graph(&partial, &sink, &image, &CopyOptions::default()).await.unwrap_err();
    assert!(layout.entries().await.unwrap().is_empty());
    assert!(!sink.has(&image).await.unwrap());
}

#[tokio::test]
async fn nothing_is_swept_that_somebody_relies_on() {
    let dir = tempfile::tempdir().unwrap();
    let name = "h.example/app:1";
    let old = export(dir.path(), "old", &[name]).await;
    export(dir.path(), "new", &[name]).await;
    let layout = Layout::open(dir.path()).await.unwrap();
    // Nothing leads to the old image any more; now somebody finds it there, and has not yet pointed at it.
    let memory = MemoryBlobs::new();
    assert_eq!(tiny_image(&memory, "old"), old);
    let sink = layout.sink(["h.example/app:old".to_owned()]).await.unwrap();
    assert_eq!(sink.push(&old, &memory).await.unwrap(), Pushed::Existing);
    assert_eq!(layout.sweep().await.unwrap(), Swept::InUse);
    copy_graph(&memory, &sink, &old, &CopyOptions::default()).await.unwrap();
    drop(sink);
    assert_eq!(layout.sweep().await.unwrap(), Swept::Removed(0));
    copy_graph(&layout, &MemoryBlobs::new(), &old, &CopyOptions::default()).await.unwrap();
    export(dir.path(), "new", &["h.example/app:old"]).await;
    assert_eq!(layout.sweep().await.unwrap(), Swept::Removed(4), "a manifest, a config and two layers");
}

#[tokio::test]
async fn a_sweep_follows_no_link_that_took_the_place_of_the_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let (place, elsewhere) = (dir.path().join("layout"), dir.path().join("elsewhere"));
    let layout = Layout::create(&place).await.unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    let like_a_blob = elsewhere.join("0".repeat(64));
    std::fs::write(&like_a_blob, "kept").unwrap();
    std::fs::rename(place.join("blobs/sha256"), dir.path().join("aside")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.join("blobs/sha256")).unwrap();
    layout.sweep().await.unwrap_err();
    assert_eq!(std::fs::read_to_string(like_a_blob).unwrap(), "kept");
}

#[tokio::test]
async fn who_writes_waits_for_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(dir.path()).await.unwrap();
    let sweeping = std::fs::File::open(dir.path().join("blobs")).unwrap();
    sweeping.lock().unwrap();
    let waiting = tokio::spawn(async move { layout.sink([]).await.is_ok() });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    sweeping.unlock().unwrap();
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn what_rotted_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["h.example/app:1"];
    let image = export(dir.path(), "x", &names).await;
    for path in walk(&dir.path().join("blobs")) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    export(dir.path(), "x", &names).await;
    let layout = Layout::open(dir.path()).await.unwrap();
    copy_graph(&layout, &MemoryBlobs::new(), &image, &CopyOptions::default()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_layout_is_refused_without_hanging() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Layout::open(dir.path()).await.is_err());
    for (version, good) in [("1.0.0", true), ("1.1.0", true), ("2.0.0", false), ("", false)] {
        let text = format!(r#"{{"imageLayoutVersion":"{version}"}}"#);
        std::fs::write(dir.path().join("oci-layout"), text).unwrap();
        assert_eq!(Layout::open(dir.path()).await.is_ok(), good, "{version}");
    }
    let image = export(&dir.path().join("l"), "x", &[]).await;
    let layout = Layout::open(&dir.path().join("l")).await.unwrap();
    let blob = dir.path().join("l/blobs/sha256").join(image.digest.hex());
    std::fs::remove_file(&blob).unwrap();
    std::fs::create_dir(&blob).unwrap();
    assert_eq!(layout.fetch(&image).await.unwrap_err().kind(), ErrorKind::Lying);
    std::fs::remove_dir(&blob).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
    let read = async { layout.fetch(&image).await?.bytes("read", 1 << 20).await };
    assert_eq!(read.await.unwrap_err().kind(), ErrorKind::Lying);
}

#[tokio::test]
async fn a_layout_that_leads_elsewhere_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir_all(outside.join("sha256")).unwrap();
    for link in ["blobs", "blobs/sha256"] {
        let layout = dir.path().join(link.replace('/', "-"));
        std::fs::create_dir_all(layout.join(link).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&outside, layout.join(link)).unwrap();
        let refused = Layout::create(&layout).await.unwrap_err();
        assert!(refused.to_string().contains(link) && refused.kind() == ErrorKind::Environment, "{refused}");
    }
    assert_eq!(walk(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_pipe_in_place_of_a_layout_s_file_is_not_waited_for() {
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "x");
    for name in ["index.json", "oci-layout"] {
        let dir = tempfile::tempdir().unwrap();
        export(dir.path(), "old", &[]).await;
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join(name), pipe, rustix::fs::Mode::RWXU, 0).unwrap();
        let written = async {
            let sink = Layout::create(dir.path()).await?.sink([]).await?;
            copy_graph(&memory, &sink, &image, &CopyOptions::default()).await
        };
        let refused = written.await.unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
    }
}

#[tokio::test]
async fn skopeo_and_umoci_read_our_layouts_and_we_read_skopeo_s() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).display().to_string();
    let image = export(&dir.path().join("ours"), "tools", &["docker.io/library/app:1"]).await;
    let (ours, theirs) = (format!("oci:{}:1", place("ours")), format!("oci:{}:2", place("theirs")));
    if let Some(umoci) = Tool::find("umoci") {
        let tags = umoci.run(&["ls", "--layout", &place("ours")]).unwrap();
        assert_eq!(tags.trim(), "1");
    }
    let Some(skopeo) = Tool::find("skopeo") else { return };
    let seen = skopeo.run(&["inspect", "--raw", &ours]).unwrap();
    assert_eq!(Digest::sha256(seen), image.digest);
    skopeo.run(&["--insecure-policy", "copy", &ours, &theirs]).unwrap();
    let layout = Layout::open(&dir.path().join("theirs")).await.unwrap();
    let root = layout.resolve(&Selector::Name("2".into())).await.unwrap();
    assert_eq!(copy_graph(&layout, &MemoryBlobs::new(), &root, &CopyOptions::default()).await.unwrap().written, 3);
}
