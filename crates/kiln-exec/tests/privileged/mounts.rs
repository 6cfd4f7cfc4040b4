//! What callers mount, and what of it stays in the image: nothing.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;

use kiln_exec::{ContainerMount, Error, MountSource, Secret};
use kiln_sys::mount::{Overlay, Swap, Tmpfs};
use kiln_sys::root::Root;

use crate::require_containers;
use crate::support::{Image, run, user};

fn tree(dir: impl Into<OwnedFd>, subpath: &str) -> MountSource {
    MountSource::Tree { dir: dir.into(), subpath: subpath.into() }
}

fn at(target: &str, readonly: bool, source: MountSource) -> ContainerMount {
    ContainerMount { target: target.into(), readonly, source }
}

#[test]
fn trees_are_seen_and_written_as_allowed() {
    require_containers!();
    let image = Image::new();
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(data.path().join("sub/deep")).unwrap();
    std::fs::write(data.path().join("sub/file"), "content\n").unwrap();
    let mounts = vec![
        at("/ro", true, tree(image.host(data.path()), "")),
        at("/rw", false, tree(image.host(data.path()), "sub")),
        at("/a/b/file", true, tree(image.host(data.path()), "/sub/file")),
        at("/ro/sub/deep", false, MountSource::Tmpfs { size: Some(1 << 20), mode: 0o700 }),
    ];
    let script = "cat /ro/sub/file /rw/file /a/b/file; echo x > /ro/x; echo x > /a/b/file; echo new > /rw/new; \
        touch /ro/sub/deep/t && stat -c %a /ro/sub/deep; dd if=/dev/zero of=/ro/sub/deep/big bs=1M count=2";
    let ran = run(image.spec_with(&["sh", "-c", script], mounts)).unwrap();
    assert_eq!(ran.stdout, "content\ncontent\ncontent\n700\n", "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("Read-only file system").count(), 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(data.path().join("sub/new")).unwrap(), "new\n");
    assert_eq!(image.changes(), Vec::<String>::new());
}

#[test]
fn parts_of_overlays_and_memory_can_be_mounted() {
    require_containers!();
    let image = Image::new();
    let other = Image::new();
    std::fs::write(other.base("etc/special"), "from the other\n").unwrap();
    let tmpfs = Tmpfs { size: None, mode: 0o755, swap: Swap::Allowed, attributes: kiln_sys::mount::DATA };
    let users = image.users().unwrap();
    let acting = users.act_as_root().unwrap();
    let memory = Root::new(tmpfs.mount_detached().unwrap());
    memory.mkdir_all("x/y", 0o755).unwrap();
    drop(acting);
    let view = other.sight(&Overlay { lowers: vec![other.base("")], upper: None, userxattr: false });
    let mounts = vec![
        at("/other", true, tree(other.mount(&[]), "etc")),
        at("/view", true, tree(view, "etc/special")),
        at("/memory", false, tree(memory.try_clone().unwrap().into_fd(), "x")),
    ];
    let script = "cat /other/special /view; touch /memory/y/made; ls /memory";
    let ran = run(image.spec_with(&["sh", "-c", script], mounts)).unwrap();
    assert_eq!(ran.stdout, "from the other\nfrom the other\ny\n", "{}", ran.stderr);
    assert!(memory.contains("x/y/made").unwrap());
}

#[test]
fn secrets_are_files_in_memory_with_their_owner_and_mode() {
    require_containers!();
    let image = Image::new();
    let secret =
        |uid, mode| MountSource::Bytes { data: Secret::new(b"SECRET-9c1e44aa77".to_vec()), mode, uid, gid: uid };
    let mounts = vec![at("/run/secrets/a", true, secret(0, 0o400)), at("/run/secrets/b", true, secret(1000, 0o440))];
    let script = "stat -c %a:%u:%g /run/secrets/a /run/secrets/b; stat -f -c %T /run/secrets/a; cat /run/secrets/b; \
        echo; cat /run/secrets/a || echo no; echo x > /run/secrets/b || echo no";
    let mut spec = image.spec_with(&["sh", "-c", script], mounts);
    spec.user = user(1000, 1000);
    let ran = run(spec).unwrap();
    assert_eq!(ran.stdout, "400:0:0\n440:1000:1000\ntmpfs\nSECRET-9c1e44aa77\nno\nno\n", "{}", ran.stderr);
    assert_eq!(image.changes(), Vec::<String>::new());
    assert_eq!(image.sh("ls /run/secrets 2>&1; true").stdout.matches("SECRET").count(), 0);
}

#[test]
fn a_container_that_writes_nothing_changes_nothing() {
    require_containers!();
    let image = Image::new();
    let times = |path: std::path::PathBuf| path.metadata().unwrap().modified().unwrap();
    let before = times(image.upper(""));
    let mounts = || vec![at("/a/b/c", false, MountSource::Tmpfs { size: None, mode: 0o755 })];
    assert!(run(image.spec_with(&["ls", "/a/b/c"], mounts())).unwrap().status.is_success());
    assert_eq!(image.changes(), Vec::<String>::new());
    // Without the layer of mount points they are made and taken away; the directories they were in may be left, as
    // they were.
    let mut spec = image.spec(&["ls", "/a/b/c"]);
    spec.mounts = mounts();
    spec.root = image.mount_bare();
    assert!(run(spec).unwrap().status.is_success());
    assert_eq!(image.changes(), ["etc"]);
    assert_eq!(times(image.upper("etc")), times(image.base("etc")));
    assert_eq!(times(image.upper("")), before);
}

#[test]
fn a_root_can_be_read_only_while_mounts_are_not() {
    require_containers!();
    let image = Image::new();
    let mounts = vec![at("/cache", false, MountSource::Tmpfs { size: None, mode: 0o755 })];
    let script = "touch /x || echo no; touch /cache/x && echo yes; echo x > /dev/null && touch /dev/shm/x && echo yes";
    let mut spec = image.spec_with(&["sh", "-c", script], mounts);
    spec.readonly_root = true;
    assert_eq!(run(spec).unwrap().stdout, "no\nyes\nyes\n");
}

#[test]
fn targets_follow_links_inside_the_root() {
    require_containers!();
    let image = Image::new();
    symlink("/tmp/../real", image.base("link")).unwrap();
    std::fs::create_dir(image.base("real")).unwrap();
    let mounts = vec![at("/link/here", false, MountSource::Tmpfs { size: None, mode: 0o755 })];
    let ran = run(image.spec_with(&["sh", "-c", "grep -c ' /real/here ' /proc/self/mountinfo"], mounts)).unwrap();
    assert_eq!(ran.stdout, "1\n");
    assert_eq!(image.changes(), ["real"], "the place is made where the link leads, and taken away");
}

#[test]
fn device_nodes_in_mounts_do_not_open() {
    require_containers!();
    let image = Image::new();
    let data = tempfile::tempdir().unwrap();
    let root = Root::open_ambient(data.path()).unwrap();
    let device = kiln_sys::metadata::Device { major: 1, minor: 3 };
    root.mknod("null", kiln_sys::metadata::FileKind::CharDevice, 0o666, device).unwrap();
    let mounts = vec![at("/data", false, tree(image.host(data.path()), ""))];
    let ran = run(image.spec_with(&["sh", "-c", "cat /data/null && echo opened"], mounts)).unwrap();
    assert!(ran.stderr.contains("ermission denied"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_mounted_is_named() {
    require_containers!();
    let image = Image::new();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("f"), "").unwrap();
    let tmpfs = || MountSource::Tmpfs { size: None, mode: 0o755 };
    let cases: Vec<(ContainerMount, &str)> = vec![
        (at("/proc", false, tmpfs()), "nothing can be mounted at `/proc`"),
        (at("/a/../sys/kernel", false, tmpfs()), "nothing can be mounted at `/a/../sys/kernel`"),
        (at("/", false, tmpfs()), "nothing can be mounted at `/`"),
        (at("x", false, tmpfs()), "nothing can be mounted at `x`"),
        (at("/bin/busybox", false, tmpfs()), "cannot mount at `/bin/busybox`: it is not a directory"),
        (at("/etc", false, tree(image.host(data.path()), "f")), "cannot mount at `/etc`: it is not a file"),
        (
            at("/x", false, tree(image.host(data.path()), "gone")),
            "cannot mount `gone`: it cannot be opened in its source",
        ),
        (
            at("/bin/busybox/x", false, tmpfs()),
            "cannot mount at `/bin/busybox/x`: it cannot be opened or made in the image",
        ),
    ];
    for (mount, message) in cases {
        let mut spec = image.spec(&["true"]);
        spec.mounts = vec![mount];
        let error: Error = run(spec).err().unwrap();
        assert_eq!(error.to_string(), message);
        assert!(error.is_image_fault());
    }
    assert_eq!(image.changes(), Vec::<String>::new());
}
