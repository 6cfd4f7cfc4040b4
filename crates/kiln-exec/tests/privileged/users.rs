//! Whose the processes and files of a container are, on both sides.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use kiln_exec::Executor;

use crate::require_containers;
use crate::support::{Image, compile, piped, processes, run, runtime, user};

const HOST_ROOT: u32 = 0x7fff_ffff;

#[test]
fn ids_are_the_image_s_inside_and_on_disk_and_nobody_s_on_the_host() {
    require_containers!();
    let image = Image::new();
    std::fs::write(image.base("etc/owned"), "").unwrap();
    chown(image.base("etc/owned"), Some(1000), Some(44)).unwrap();
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; stat -c %u:%g / /etc/owned /dev /dev/null /tmp \
        /etc/resolv.conf /dev/shm /dev/pts/ptmx; mkdir /d && chown 5:6 /d && chown 2147483647 /etc/passwd && rm /etc/group";
    let ran = image.sh(script);
    let map = " 0 2147483647 2147483648\n";
    let owners = "0:0\n1000:44\n0:0\n0:0\n0:0\n0:0\n0:0\n0:0\n";
    assert_eq!(ran.stdout, format!("{map}{map}{owners}"), "{}", ran.stderr);
    let owner = |path: &str| {
        let metadata = image.upper(path).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("d"), (5, 6));
    assert_eq!(owner("etc/passwd"), (i32::MAX as u32, 0));
    assert_eq!(owner("etc/group"), (0, 0), "a whiteout");
    let (io, _output) = piped();
    let (executor, spec) = (Executor::new(), image.spec(&["sleep", "86861"]));
    let runtime = runtime();
    let running = runtime.spawn(async move { executor.run(spec, io).await });
    assert!(crate::support::eventually(|| !processes("sleep 86861").is_empty()));
    for pid in processes("sleep 86861") {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains(&format!("Uid:\t{HOST_ROOT}\t{HOST_ROOT}\t{HOST_ROOT}\t{HOST_ROOT}\n")), "{status}");
    }
    running.abort();
}

#[test]
fn the_root_of_a_container_owns_nothing_of_the_host_s() {
    require_containers!();
    let image = Image::new();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("f"), "theirs").unwrap();
    std::fs::set_permissions(data.path().join("f"), std::fs::Permissions::from_mode(0o600)).unwrap();
    // The tree is given as the host sees it, which is what an escape would meet.
    let dir = kiln_sys::root::Root::open_ambient(data.path()).unwrap().into_fd();
    let source = kiln_exec::MountSource::Tree { dir, subpath: String::new() };
    let mounts = vec![kiln_exec::ContainerMount { target: "/host".into(), readonly: false, source }];
    let script = "stat -c %u:%a /host/f; cat /host/f || echo denied; rm -f /host/f || echo denied; chown 0 /host/f \
        || echo denied; mknod /node b 254 0 || echo denied; mknod /fifo p && echo pipe";
    let ran = run(image.spec_with(&["sh", "-c", script], mounts)).unwrap();
    assert_eq!(ran.stdout, "65534:600\ndenied\ndenied\ndenied\ndenied\npipe\n", "{}", ran.stderr);
    assert_eq!(std::fs::read(data.path().join("f")).unwrap(), b"theirs");
}

#[test]
fn any_port_of_a_network_of_one_s_own_can_be_listened_on() {
    require_containers!();
    let image = Image::new();
    let mut spec = image.spec(&["sh", "-c", "nc -l -p 80 -e cat & sleep 0.5; echo hello | nc -w 2 127.0.0.1 80"]);
    spec.network = kiln_exec::Network::None;
    spec.user = user(1000, 1000);
    let ran = run(spec).unwrap();
    assert_eq!(ran.stdout, "hello\n", "{}", ran.stderr);
}

#[test]
fn standard_streams_are_the_user_s_whoever_that_is() {
    require_containers!();
    let image = Image::new();
    for id in [0, 1000] {
        let mut spec = image.spec(&["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"]);
        spec.user = user(id, id);
        let ran = run(spec).unwrap();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"), "{id}");
    }
}

/// Sets and reads the capabilities of a file; without one, shows its own.
const CAPABILITIES: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
int main(int argc, char **argv) {
    unsigned char v2[20] = { 1, 0, 0, 2, 0x00, 4, 0, 0 }, found[64];
    char line[256];
    if (argc == 1) {
        FILE *status = fopen("/proc/self/status", "r");
        while (fgets(line, sizeof line, status))
            if (!strncmp(line, "CapEff", 6)) fputs(line, stdout);
        return 0;
    }
    if (argc > 2)
        printf("set %d\n", setxattr(argv[1], "security.capability", v2, 20, 0));
    long size = getxattr(argv[1], "security.capability", found, 64);
    printf("size %ld version %d\n", size, found[3]);
    return 0;
}
"#;

#[test]
fn capabilities_of_files_work_inside_and_are_plain_on_disk() {
    require_containers!();
    let image = Image::new();
    let Some(()) = compile(CAPABILITIES, &image.base("bin/capabilities")) else { return };
    let script = "cp /bin/capabilities /bin/new; capabilities /bin/new set; capabilities /bin/old; touch -c /bin/old; \
        su app -c '/bin/new; /bin/old'";
    std::fs::copy(image.base("bin/capabilities"), image.base("bin/old")).unwrap();
    let v2: Vec<u8> = [vec![1, 0, 0, 2, 0, 4, 0, 0], vec![0; 12]].concat();
    kiln_sys::xattr::set(std::fs::File::open(image.base("bin/old")).unwrap(), "security.capability", &v2).unwrap();
    let ran = image.sh(script);
    let effective = "CapEff:\t0000000000000400\n";
    let expected = format!("set 0\nsize 20 version 2\nsize 20 version 2\n{effective}{effective}");
    assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    for name in ["new", "old"] {
        let file = std::fs::File::open(image.upper("bin").join(name)).unwrap();
        let on_disk = kiln_sys::xattr::get(&file, "security.capability").unwrap();
        assert_eq!(on_disk.as_deref(), Some(v2.as_slice()), "{name}");
    }
}
