//! What of the machine an attack must leave as it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Settings of the kernel.
const SETTINGS: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/vm/overcommit_memory",
    "/sys/kernel/uevent_helper",
];

/// Where networks have names (ip-netns(8)).
const NETWORKS: &str = "/run/netns";

/// The canary to its last bit, settings of the kernel, nodes in `/dev`, names in `/`, the accounts, mounts, namespaces with a
/// name, and kiln itself.
pub(super) fn state(canary: &Path, project: &Path) -> BTreeMap<PathBuf, String> {
    let mut state: BTreeMap<PathBuf, String> = BTreeMap::new();
    for path in [canary.to_owned(), canary.join("secret"), canary.join("sub"), canary.join("sub/secret2")] {
        let content = fs::read(&path).unwrap_or_default();
        state.insert(path.clone(), format!("{} {}", look(&path), String::from_utf8_lossy(&content)));
    }
    for path in SETTINGS {
        state.insert(path.into(), fs::read_to_string(path).unwrap_or_default());
    }
    for directory in ["/", "/dev", "/root"] {
        let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        // Others may take loop devices.
        let mut names: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with("loop")).collect();
        names.sort();
        state.insert(directory.into(), format!("{names:?}"));
    }
    for node in ["null", "zero", "full", "random", "urandom", "tty", "mem", "kmsg"] {
        let path = Path::new("/dev").join(node);
        let metadata = fs::symlink_metadata(&path).ok().map(|node| (node.mode(), node.rdev(), node.uid()));
        state.insert(path, format!("{metadata:?}"));
    }
    for file in ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/resolv.conf", "/etc/hosts"] {
        state.insert(file.into(), look(Path::new(file)));
    }
    // Other tests may link it.
    let kiln = fs::metadata(env!("CARGO_BIN_EXE_kiln")).unwrap();
    state
        .insert("kiln".into(), format!("{:?}", (kiln.ino(), kiln.mode(), kiln.len(), kiln.mtime(), kiln.mtime_nsec())));
    state.insert("mounts".into(), mounts(&[canary, project]));
    state.insert(NETWORKS.into(), networks());
    state
}

/// The mount table, but for what other tests mount meanwhile: in directories of their own, and by way of podman.
fn mounts(ours: &[&Path]) -> String {
    let others = [std::env::temp_dir(), "/var/lib/containers".into(), "/run/containers".into(), NETWORKS.into()];
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_theirs = |line: &&str| {
        let place = Path::new(line.split(' ').nth(4).unwrap());
        others.iter().any(|other| place.starts_with(other)) && !ours.iter().any(|own| place.starts_with(own))
    };
    table.lines().filter(|line| !is_theirs(line)).collect::<Vec<_>>().join("\n")
}

/// Networks that stay when the last process has left them, but for podman's.
fn networks() -> String {
    let names = fs::read_dir(NETWORKS).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with("netns-")).collect();
    names.sort();
    format!("{names:?}")
}

/// All that is said of a file but when it was read.
fn look(path: &Path) -> String {
    let file = fs::symlink_metadata(path).ok();
    format!("{:?}", file.map(|f| (f.ino(), f.mode(), f.uid(), f.gid(), f.nlink(), f.size(), f.mtime(), f.mtime_nsec())))
}

#[test]
fn a_mount_that_stays_is_seen() {
    let project = tempfile::tempdir().unwrap();
    let before = state(Path::new("/nowhere"), project.path());
    let mount = |program: &str, args: &[&str]| {
        crate::project::run(std::process::Command::new(program).args(args).arg(project.path())).ok();
    };
    mount("mount", &["-t", "tmpfs", "kiln-seen"]);
    let meanwhile = state(Path::new("/nowhere"), project.path());
    mount("umount", &[]);
    assert!(meanwhile["mounts".as_ref() as &Path].contains("kiln-seen") && before != meanwhile);
    assert_eq!(state(Path::new("/nowhere"), project.path()), before);
}
