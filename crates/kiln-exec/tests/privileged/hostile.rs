//! Images and commands that want out.

use std::os::unix::fs::symlink;
use std::path::Path;

use kiln_exec::{ContainerMount, Limit, MountSource, Network, Ulimit};

use crate::require_containers;
use crate::support::{Image, processes, run};

const SECRET: &str = "HOST-CANARY-7f3a";

/// A directory of the host that must stay as it is.
struct Canary {
    dir: tempfile::TempDir,
    core_pattern: Vec<u8>,
}

impl Canary {
    fn new() -> Canary {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        Canary { dir, core_pattern: core_pattern() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn check(&self) {
        let mut names: Vec<_> =
            std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["b", "secret"]);
        assert_eq!(std::fs::read_to_string(self.path().join("secret")).unwrap(), SECRET);
        assert_eq!(std::fs::read_dir(self.path().join("b")).unwrap().count(), 0);
        assert_eq!(core_pattern(), self.core_pattern);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path().to_str().unwrap()), "{mounts}");
    }
}

fn core_pattern() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/core_pattern").unwrap()
}

#[test]
fn roots_with_links_for_kernel_places_are_refused() {
    require_containers!();
    let canary = Canary::new();
    for place in ["proc", "sys", "dev"] {
        for target in [canary.path(), Path::new("/"), Path::new("/proc"), Path::new("../../../../../proc")] {
            let image = Image::new();
            symlink(target, image.base(place)).unwrap();
            let error = run(image.spec(&["true"])).err().unwrap();
            assert_eq!(error.to_string(), format!("cannot mount at `/{place}`: it is not a directory"));
            assert!(error.is_image_fault());
            canary.check();
        }
    }
}

#[test]
fn links_for_our_files_lead_nowhere_outside() {
    require_containers!();
    let canary = Canary::new();
    for name in ["resolv.conf", "hosts", "hostname"] {
        for target in [canary.path().join("secret"), "/proc/sys/kernel/core_pattern".into(), "../../../secret".into()] {
            let image = Image::new();
            symlink(&target, image.base("etc").join(name)).unwrap();
            let script =
                format!("cat /etc/{name}; echo x > /etc/{name}; cat {}", canary.path().join("secret").display());
            match run(image.spec(&["sh", "-c", &script])) {
                Ok(ran) => assert!(!ran.stdout.contains(SECRET), "{}", ran.stdout),
                Err(error) => assert!(error.is_image_fault(), "{error}"),
            }
            canary.check();
        }
    }
    let image = Image::new();
    std::fs::remove_dir(image.base("etc")).err();
    std::fs::rename(image.base("etc"), image.base("real")).unwrap();
    symlink(canary.path(), image.base("etc")).unwrap();
    // The link's target does not exist inside, so it is made there, and taken away again.
    assert!(run(image.spec(&["true"])).unwrap().status.is_success());
    canary.check();
}

#[test]
fn the_images_own_devices_are_never_used() {
    require_containers!();
    let canary = Canary::new();
    let image = Image::new();
    std::fs::create_dir(image.base("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", image.base("dev/null")).unwrap();
    symlink(canary.path(), image.base("dev/pts")).unwrap();
    symlink(canary.path(), image.base("dev/shm")).unwrap();
    let script = "stat -c '%F %t:%T' /dev/null; echo pwned > /dev/null; echo pwned > /proc/kcore; touch /dev/shm/x";
    let ran = run(image.spec(&["sh", "-c", script])).unwrap();
    assert_eq!(ran.stdout, "character special file 1:3\n", "{}", ran.stderr);
    canary.check();
}

#[test]
fn a_working_directory_does_not_lead_out() {
    require_containers!();
    let canary = Canary::new();
    let image = Image::new();
    let secret = canary.path().join("secret");
    // Descriptors of the host's directories, as a leak would leave them.
    let leaked: Vec<_> = (0..20).map(|_| std::fs::File::open("/").unwrap()).collect();
    for n in 3..64 {
        let mut spec = image.spec(&["sh", "-c", &format!("cat ../../../../..{}; pwd", secret.display())]);
        spec.cwd = format!("/proc/self/fd/{n}");
        match run(spec) {
            Ok(ran) => assert!(ran.stdout.starts_with('/') && !ran.stdout.contains(SECRET), "{}", ran.stdout),
            Err(error) => assert!(error.to_string().starts_with(&format!("working directory `/proc/self/fd/{n}`"))),
        }
    }
    drop(leaked);
    for cwd in ["/proc/1/root", "/proc/self/cwd", "/link", "/link2/fd/5"] {
        let image = Image::new();
        symlink("/proc/self/fd/7", image.base("link")).unwrap();
        symlink("/proc/self", image.base("link2")).unwrap();
        let mut spec = image.spec(&["pwd"]);
        spec.cwd = cwd.into();
        let error = run(spec).err().unwrap().to_string();
        assert!(error.starts_with(&format!("working directory `{cwd}`")), "{error}");
    }
    let mut spec = image.spec(&["pwd"]);
    spec.cwd = "/proc/sys/kernel".into();
    assert_eq!(run(spec).unwrap().stdout, "/proc/sys/kernel\n");
    canary.check();
}

#[test]
fn a_working_directory_through_the_images_links_stays_inside() {
    require_containers!();
    let canary = Canary::new();
    let image = Image::new();
    symlink(canary.path(), image.base("out")).unwrap();
    let mut spec = image.spec(&["pwd"]);
    spec.cwd = "/out/new".into();
    let error = run(spec).err().unwrap();
    assert_eq!(error.to_string(), "working directory `/out/new` does not exist");
    canary.check();
}

#[test]
fn kiln_itself_is_never_run_nor_held() {
    require_containers!();
    let image = Image::new();
    for (name, line) in [("direct", "#!/proc/self/exe\n"), ("arg", "#! /proc/self/exe -x\n"), ("link", "#!/exe\n")] {
        std::fs::write(image.base("bin").join(name), line).unwrap();
        std::fs::set_permissions(image.base("bin").join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    std::fs::write(image.base("bin/second"), "#!/bin/direct\n").unwrap();
    std::fs::set_permissions(image.base("bin/second"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    symlink("/proc/self/exe", image.base("exe")).unwrap();
    symlink("/proc/1/exe", image.base("bin/one")).unwrap();
    for command in ["direct", "arg", "link", "second", "one", "/proc/self/exe", "/exe", "/proc/1/exe"] {
        let error = run(image.spec(&[command])).err().unwrap().to_string();
        assert!(error.starts_with(&format!("exec: \"{command}\": ")), "{error}");
        assert!(error.contains("link") || error.contains("symbolic"), "{error}");
        // Nor when so few files may be open that nobody could look.
        let mut spec = image.spec(&[command]);
        spec.ulimits = vec![Ulimit { limit: Limit::NoFile, soft: Some(0), hard: Some(0) }];
        assert_eq!(run(spec).err().unwrap().to_string(), error);
    }
}

#[test]
fn sources_do_not_lead_out() {
    require_containers!();
    let canary = Canary::new();
    let image = Image::new();
    let data = tempfile::tempdir().unwrap();
    symlink("/", data.path().join("rootdir")).unwrap();
    symlink(canary.path(), data.path().join("out")).unwrap();
    let dir = || image.host(data.path());
    let mount = |subpath: &str| ContainerMount {
        target: "/x".into(),
        readonly: false,
        source: MountSource::Tree { dir: dir(), subpath: subpath.into() },
    };
    let ran = run(image.spec_with(&["sh", "-c", "ls /x; touch /x/BIND_BREAKOUT"], vec![mount("rootdir")])).unwrap();
    assert_eq!(ran.stdout, "out\nrootdir\n");
    assert!(data.path().join("BIND_BREAKOUT").exists() && !Path::new("/BIND_BREAKOUT").exists());
    let mut spec = image.spec(&["true"]);
    spec.mounts = vec![mount("out")];
    assert!(run(spec).is_err());
    let mut spec = image.spec(&["true"]);
    spec.mounts = vec![mount("../../../../../etc")];
    assert!(run(spec).is_err(), "`..` at the top is the top, which has no such name");
    canary.check();
}

#[test]
fn cleaning_up_follows_nothing() {
    require_containers!();
    let canary = Canary::new();
    let script = format!("mv /a /z; ln -s {0} /a; ln -s {0} /z/b2", canary.path().display());
    let mounts = || {
        let tmpfs = MountSource::Tmpfs { size: None, mode: 0o755 };
        vec![ContainerMount { target: "/a/b/c".into(), readonly: false, source: tmpfs }]
    };
    let image = Image::new();
    assert!(run(image.spec_with(&["sh", "-c", &script], mounts())).unwrap().status.is_success());
    canary.check();
    let image = Image::new();
    let mut spec = image.spec(&["sh", "-c", &script]);
    spec.mounts = mounts();
    spec.root = image.mount_bare();
    assert!(run(spec).unwrap().status.is_success());
    canary.check();
    let left: Vec<_> = image.changes().into_iter().filter(|name| !name.starts_with("etc")).collect();
    assert_eq!(left, ["a", "z", "z/b2"], "what the command made stays, what we made does not");
}

#[test]
fn a_storm_of_processes_ends_with_the_first() {
    require_containers!();
    let image = Image::new();
    let script = "i=0; while [ $i -lt 60 ]; do (trap '' TERM; sleep 75757) & i=$((i+1)); done; sleep 0.1; exit 7";
    let mut spec = image.spec(&["sh", "-c", script]);
    spec.network = Network::None;
    assert_eq!(run(spec).unwrap().status.shell_code(), 7);
    assert_eq!(processes("sleep 75757"), Vec::<u32>::new());
}

/// The classic way out of a `chroot`: keep a working directory outside of the new root, and climb.
const CLIMB: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
    mkdir("/deep", 0755);
    if (chroot("/deep") != 0) return 3;
    for (int i = 0; i < 100; i++) if (chdir("..") != 0) return 4;
    if (chroot(".") != 0) return 5;
    struct stat s;
    if (stat(argv[1], &s) == 0) { puts("ESCAPED"); return 1; }
    if (stat("/bin/busybox", &s) != 0) { puts("LOST"); return 2; }
    puts("inside");
    return 0;
}
"#;

#[test]
fn climbing_ends_at_the_containers_root() {
    require_containers!();
    let canary = Canary::new();
    let image = Image::new();
    let Some(()) = crate::support::compile(CLIMB, &image.base("bin/climb")) else { return };
    let secret = canary.path().join("secret").to_str().unwrap().to_string();
    assert_eq!(run(image.spec(&["climb", &secret])).unwrap().stdout, "inside\n");
    // And when kiln itself stands in a chroot, on a mount point or not, whose outside is still in its namespace.
    for place in ["mount", "mount/root"] {
        let host = tempfile::tempdir().unwrap();
        std::fs::create_dir(host.path().join("mount")).unwrap();
        let (place, secret, image) = (host.path().join(place), secret.clone(), &image);
        let mount_at = host.path().join("mount");
        let ran = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let isolation = kiln_sys::container::Isolation {
                    network: kiln_sys::container::NetworkNamespace::Inherited,
                    hostname: "chrooted",
                };
                let spec = image.spec(&["climb", &secret]);
                isolation.enter().unwrap();
                rustix::mount::mount_bind_recursive("/", &mount_at).unwrap();
                rustix::process::chroot(place).unwrap();
                rustix::process::chdir("/").unwrap();
                run(spec)
            });
            thread.join().unwrap()
        });
        assert_eq!(ran.unwrap().stdout, "inside\n");
    }
}
