//! Containers, run for real.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use support::{Image, require_containers};

#[test]
fn smoke() {
    require_containers!();
    let image = Image::new();
    let ran = image.sh("echo hi; id; cat /proc/self/mountinfo; cat /proc/self/status | grep -E 'Cap|Sec|NoNew'; ls -l /dev /proc/self/fd; cat /etc/resolv.conf /etc/hosts /etc/hostname; ps; cat /proc/self/cgroup; ls /sys/fs/cgroup | head -3; exit 3");
    println!("{:?}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
}
