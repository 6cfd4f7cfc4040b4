//! One test per wrapper that needs root: detached mounts, trusted attributes, owners.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::fs::File;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use kiln_sys::metadata::{Device, FileKind, Metadata};
use kiln_sys::mount::{self, Bind, DATA, Depth, MountAttrFlags, Overlay, Swap, Tmpfs, Upper};
use kiln_sys::root::{Root, set_owner};
use kiln_sys::xattr;

/// Leaves a test with a word when we are not root.
macro_rules! require_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
    };
}

fn host_mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

struct Layers {
    dir: tempfile::TempDir,
}

impl Layers {
    fn new() -> Self {
        Layers { dir: tempfile::tempdir().unwrap() }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn upper(&self) -> Upper {
        Upper { upper: self.dir("upper"), work: self.dir("work") }
    }
}

#[test]
fn an_overlay_shows_the_topmost_and_writes_to_the_upper() {
    require_root!();
    let layers = Layers::new();
    let (low, mid) = (layers.dir("low"), layers.dir("mid"));
    std::fs::write(low.join("same"), "low").unwrap();
    std::fs::write(mid.join("same"), "mid").unwrap();
    std::fs::write(low.join("gone"), "").unwrap();
    let before = host_mounts();
    let overlay = Overlay { lowers: vec![mid, low], upper: Some(layers.upper()), userxattr: false };
    let merged = Root::new(overlay.mount_detached().unwrap());
    assert_eq!(merged.read_to_limit("same", 10).unwrap(), b"mid");
    merged.create_file("new", 0o644).unwrap();
    merged.unlink("gone").unwrap();
    assert_eq!(host_mounts(), before, "a mount became visible");
    drop(merged);
    let upper = Root::open_ambient(layers.dir("upper")).unwrap();
    let gone = upper.metadata("gone").unwrap();
    assert_eq!((gone.kind, gone.rdev), (FileKind::CharDevice, Device { major: 0, minor: 0 }));
    assert!(upper.metadata("new").unwrap().is_file());
}

#[test]
fn the_same_upper_mounts_again_after_a_volatile_mount() {
    require_root!();
    let layers = Layers::new();
    let overlay = Overlay { lowers: vec![layers.dir("low")], upper: Some(layers.upper()), userxattr: false };
    for name in ["one", "two", "three"] {
        Root::new(overlay.mount_detached().unwrap()).create_file(name, 0o600).unwrap();
    }
    assert!(layers.dir("upper").join("three").exists());
}

#[test]
fn without_an_upper_nothing_can_be_written() {
    require_root!();
    let layers = Layers::new();
    for lowers in [vec![layers.dir("a")], vec![layers.dir("a"), layers.dir("b")]] {
        let merged = Root::new(Overlay { lowers, upper: None, userxattr: false }.mount_detached().unwrap());
        assert_eq!(merged.create_file("x", 0o600).unwrap_err().errno(), Some(libc::EROFS));
    }
    let alone = Overlay { lowers: vec![], upper: Some(layers.upper()), userxattr: false };
    Root::new(alone.mount_detached().unwrap()).create_file("x", 0o600).unwrap();
    assert!(layers.dir("upper").join("x").exists());
}

#[test]
fn user_xattr_marks_are_used_when_asked_for() {
    require_root!();
    let layers = Layers::new();
    let low = layers.dir("low");
    std::fs::create_dir(low.join("d")).unwrap();
    let overlay = Overlay { lowers: vec![low], upper: Some(layers.upper()), userxattr: true };
    let merged = Root::new(overlay.mount_detached().unwrap());
    merged.rmdir("d").unwrap();
    merged.mkdir("d", 0o755).unwrap();
    drop(merged);
    let made = File::open(layers.dir("upper").join("d")).unwrap();
    assert_eq!(xattr::get(&made, "user.overlay.opaque").unwrap(), Some(b"y".to_vec()));
}

#[test]
fn roots_work_on_detached_mounts() {
    require_root!();
    let tmpfs = Tmpfs { size: Some(1 << 20), mode: 0o750, swap: Swap::Avoided, attributes: DATA };
    let root = Root::new(tmpfs.mount_detached().unwrap());
    assert_eq!(root.metadata("/").unwrap().mode, 0o750);
    root.mkdir_all("etc/deep", 0o755).unwrap();
    root.symlink("/etc", "link").unwrap();
    root.create_file("link/deep/f", 0o600).unwrap();
    assert!(root.metadata("etc/deep/f").unwrap().is_file());
    assert_eq!(root.open_path("../../../proc/self").unwrap_err().errno(), Some(libc::ENOENT));
    let file = root.open_nofollow("etc/deep/f").unwrap();
    set_owner(&file, 70_000, 4_000_000_000).unwrap();
    let metadata = Metadata::of(&file).unwrap();
    assert_eq!((metadata.uid, metadata.gid), (70_000, 4_000_000_000));
    root.mknod("null", FileKind::CharDevice, 0o666, Device { major: 1, minor: 3 }).unwrap();
    assert_eq!(root.metadata("null").unwrap().rdev, Device { major: 1, minor: 3 });
    let open = root.open("null", rustix::fs::OFlags::RDWR).unwrap_err();
    assert_eq!(open.errno(), Some(libc::EACCES), "nodev does not hold");
    let full = (0..).find_map(|n| {
        let mut file = root.create_file(format!("{n}"), 0o600).ok()?;
        std::io::Write::write_all(&mut file, &[0; 300_000]).err()
    });
    assert_eq!(full.unwrap().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn binds_are_second_sights_with_their_own_attributes() {
    require_root!();
    let layers = Layers::new();
    let source = layers.dir("source/sub");
    std::fs::write(source.join("f"), "f").unwrap();
    let handle = Root::open_ambient(layers.dir("source")).unwrap();
    let read_only = Bind { depth: Depth::One, attributes: MountAttrFlags::MOUNT_ATTR_RDONLY | DATA };
    let bound = Root::new(mount::bind_detached(handle.open_path("sub").unwrap(), read_only).unwrap());
    assert_eq!(bound.create_file("x", 0o600).unwrap_err().errno(), Some(libc::EROFS));
    let up = bound.metadata("..").unwrap();
    assert!(up.is_same_file(&bound.metadata("/").unwrap()));
    std::fs::write(source.join("later"), "").unwrap();
    assert!(bound.contains("later").unwrap());
    let file = mount::bind_detached(handle.open_path("sub/f").unwrap(), read_only).unwrap();
    assert!(Metadata::of(&file).unwrap().is_file());
    let writable = Bind { depth: Depth::Recursive, attributes: DATA };
    Root::new(mount::bind_path_detached(&source, writable).unwrap()).create_file("x", 0o600).unwrap();
    assert!(source.join("x").exists());
}

#[test]
fn kernel_filesystems_mount_detached() {
    require_root!();
    let sys = Root::new(mount::sysfs_detached(MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap());
    assert!(sys.metadata("kernel").unwrap().is_dir());
    let pts = Root::new(mount::devpts_detached(5).unwrap());
    assert_eq!(pts.metadata("ptmx").unwrap().mode, 0o666);
    assert_eq!(pts.read_dir("/").unwrap().len(), 1, "terminals of others are seen");
    Root::new(mount::mqueue_detached(DATA).unwrap()).metadata("/").unwrap();
    match mount::cgroup2_detached(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        Ok(groups) => assert!(Root::new(groups).contains("cgroup.procs").unwrap()),
        Err(e) => println!("skipped cgroup2: {e}"),
    }
}

#[test]
fn attributes_of_links_and_trusted_ones_are_kept() {
    require_root!();
    let layers = Layers::new();
    let dir = layers.dir("d");
    symlink("x", dir.join("link")).unwrap();
    let root = Root::open_ambient(&dir).unwrap();
    let link = root.open_nofollow("link").unwrap();
    xattr::set(&link, "trusted.kiln", b"1").unwrap();
    assert_eq!(xattr::list(&link).unwrap(), ["trusted.kiln"]);
    assert_eq!(xattr::get(&link, "trusted.kiln").unwrap(), Some(b"1".to_vec()));
    set_owner(&link, 12, 34).unwrap();
    let metadata = std::fs::symlink_metadata(dir.join("link")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
}

/// A root of memory with one static program, and a process to be in it.
mod process {
    use std::ffi::CString;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::Arc;

    use kiln_sys::caps::{self, CapabilitySet};
    use kiln_sys::container::{
        Isolation, Launch, NetworkNamespace, Outcome, ProcMount, Step, UnifiedGroup, pivot_into,
    };
    use kiln_sys::limits::Limit;
    use kiln_sys::mount::{DATA, Swap, Tmpfs};
    use kiln_sys::root::Root;
    use kiln_sys::seccomp::Filter;

    const BUSYBOX: &str = "/bin/busybox";

    fn obstacle() -> Option<&'static str> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root");
        }
        (!Path::new(BUSYBOX).exists()).then_some("needs a static `/bin/busybox`")
    }

    fn root() -> Root {
        let tmpfs = Tmpfs { size: None, mode: 0o755, swap: Swap::Allowed, attributes: DATA };
        let root = Root::new(tmpfs.mount_detached().unwrap());
        let mut to = root.create_file("busybox", 0o755).unwrap();
        std::io::copy(&mut std::fs::File::open(BUSYBOX).unwrap(), &mut to).unwrap();
        root.mkdir("proc", 0o555).unwrap();
        root
    }

    fn launch(root: &Root, program: &str, args: &[&str], stdout: OwnedFd) -> Launch {
        let c = |text: &str| CString::new(text).unwrap();
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        Launch {
            chroot: None,
            proc: Some(ProcMount {
                target: root.open_path("proc").unwrap(),
                replaces: false,
                masks: vec![],
                read_only: vec![c("sys")],
            }),
            cwd: c("/"),
            takes_terminal: false,
            stdio: [null().into(), stdout, null().into()],
            control: vec![],
            group: None,
            badness: 300,
            limits: vec![Limit::NoFile.clamp(Some(64), Some(64))],
            bounding: caps::SANDBOX,
            effective: caps::SANDBOX,
            filter: Some(Arc::new(Filter::sandbox(caps::SANDBOX))),
            users: None,
            uid: 0,
            gid: 0,
            groups: Some(vec![]),
            programs: vec![c(program)],
            args: args.iter().map(|arg| c(arg)).collect(),
            env: vec![],
        }
    }

    /// Runs a launch in namespaces of its own; gives the outcome and what was written.
    fn run(change: impl FnOnce(&mut Launch) + Send, program: &str, args: &[&str]) -> (Outcome, String) {
        let (read, write) = std::io::pipe().unwrap();
        let outcome = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let root = root();
                let mut launch = launch(&root, program, args, write.into());
                Isolation { network: NetworkNamespace::New, hostname: "inside" }.enter().unwrap();
                pivot_into(&root).unwrap();
                change(&mut launch);
                let child = launch.start().unwrap();
                drop(launch);
                child.wait().unwrap()
            });
            thread.join().unwrap()
        });
        (outcome, std::io::read_to_string(read).unwrap())
    }

    /// A directory of the second version's hierarchy that goes with it.
    struct Group(std::path::PathBuf);

    impl Group {
        fn new() -> Option<Group> {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            let top =
                mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|line| line[2] == "cgroup2")?;
            let directory = std::path::Path::new(top[1]).join(format!("kiln-sys-{}", std::process::id()));
            std::fs::create_dir(&directory).ok().map(|()| Group(directory))
        }

        fn unified(&self) -> UnifiedGroup {
            let entrance = std::fs::File::options().write(true).open(self.0.join("cgroup.procs")).unwrap();
            UnifiedGroup { directory: std::fs::File::open(&self.0).unwrap().into(), entrance: entrance.into() }
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            while std::fs::remove_dir(&self.0).is_err_and(|e| e.kind() == std::io::ErrorKind::ResourceBusy) {}
        }
    }

    #[test]
    fn a_process_begins_in_its_control_group_and_sees_none_above_it() {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return;
        }
        let Some(group) = Group::new() else { return println!("skipped: no control groups of the second version") };
        let script = "/busybox cat /proc/self/cgroup /proc/self/oom_score_adj";
        let unified = group.unified();
        let (outcome, text) = run(|launch| launch.group = Some(unified), "/busybox", &["sh", "-c", script]);
        assert!(matches!(outcome, Outcome::Exited(0)), "{outcome:?}");
        assert!(text.contains("0::/\n") && text.ends_with("\n300\n"), "{text}");
        // What is no group is told by the call that starts it.
        let nowhere = || UnifiedGroup { directory: std::fs::File::open("/").unwrap().into(), ..group.unified() };
        let started = std::thread::spawn({
            let nowhere = nowhere();
            move || {
                let root = root();
                let (_read, write) = std::io::pipe().unwrap();
                let launch = Launch { group: Some(nowhere), ..launch(&root, "/busybox", &["true"], write.into()) };
                Isolation { network: NetworkNamespace::New, hostname: "inside" }.enter().unwrap();
                pivot_into(&root).unwrap();
                launch.start().map(drop)
            }
        });
        assert_eq!(started.join().unwrap().unwrap_err().errno(), Some(9));
    }

    #[test]
    fn a_thread_in_its_own_namespaces_starts_a_process_and_sees_it_end() {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return;
        }
        let script = "echo $$ $(/busybox hostname) $(/busybox ls /) $(ulimit -n); exit 9";
        let (outcome, out) = run(|_| {}, "/busybox", &["sh", "-c", script]);
        assert!(matches!(outcome, Outcome::Exited(9)), "{outcome:?}");
        assert_eq!(out, "1 inside busybox proc 64\n");
        let script = "/busybox grep -c . /proc/net/dev; echo x > /proc/sys/kernel/hostname || echo read-only";
        let (_, out) = run(|_| {}, "/busybox", &["sh", "-c", script]);
        assert_eq!(out, "3\nread-only\n");
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), "inside\n");
    }

    #[test]
    fn failures_say_which_step_and_why() {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return;
        }
        let failed = |change: fn(&mut Launch), program: &str| match run(change, program, &["x"]).0 {
            Outcome::NotStarted { step, source, index } => (step, source.raw_os_error().unwrap(), index),
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(|_| {}, "/gone"), (Step::Program, libc::ENOENT, 0));
        assert_eq!(failed(|_| {}, "/proc/self/exe"), (Step::Program, libc::ELOOP, 0));
        assert_eq!(failed(|launch| launch.cwd = c"/gone".into(), "/busybox"), (Step::EnterCwd, libc::ENOENT, 0));
        assert_eq!(failed(|launch| launch.cwd = c"/proc/self/fd/3".into(), "/x"), (Step::EnterCwd, libc::ELOOP, 0));
        let (step, errno, _) = failed(|launch| launch.limits[0].soft = Some(1 << 40), "/busybox");
        assert_eq!((step, errno), (Step::Limits, libc::EINVAL));
        let (step, errno, index) = failed(|launch| launch.programs.insert(0, c"/proc".into()), "/gone");
        assert_eq!((step, errno, index), (Step::Exec, libc::EACCES, 0));
    }

    #[test]
    fn a_filter_and_an_identity_are_taken() {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return;
        }
        let script = "/busybox grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|Seccomp):' /proc/self/status";
        let change = |launch: &mut Launch| {
            (launch.uid, launch.gid, launch.groups) = (70_000, 5, Some(vec![5, 9]));
            launch.bounding = CapabilitySet::KILL;
        };
        let (_, out) = run(change, "/busybox", &["sh", "-c", script]);
        let expected = "Uid:\t70000\t70000\t70000\t70000\nGid:\t5\t5\t5\t5\nGroups:\t5 9 \n\
            CapEff:\t0000000000000000\nCapBnd:\t0000000000000020\nSeccomp:\t2\n";
        assert_eq!(out, expected);
        let unfiltered = |launch: &mut Launch| launch.filter = None;
        assert!(run(unfiltered, "/busybox", &["sh", "-c", script]).1.ends_with("Seccomp:\t0\n"));
    }

    #[test]
    fn dropping_a_child_kills_and_reaps_it() {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return;
        }
        let before = rustix::process::dumpable_behavior().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            let root = root();
            let mut launch = launch(&root, "/busybox", &["sleep", "1000"], write.into());
            launch.uid = 1000;
            Isolation { network: NetworkNamespace::Inherited, hostname: "inside" }.enter().unwrap();
            pivot_into(&root).unwrap();
            let child = launch.start().unwrap();
            let pidfd = child.pidfd().unwrap();
            drop((launch, child));
            // A reaped process cannot be signalled any more.
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)
        });
        assert_eq!(thread.join().unwrap(), Err(rustix::io::Errno::SRCH));
        assert_eq!(std::io::read_to_string(read).unwrap(), "");
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), before, "the child's user was ours for a moment");
    }
}
