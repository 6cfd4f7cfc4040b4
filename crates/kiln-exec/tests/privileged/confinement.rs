//! What a confined process sees of the kernel, and what it may ask of it.

use std::os::unix::fs::PermissionsExt;

use kiln_exec::{Network, Security};
use kiln_testkit::{CONFINED, compile_probe};

use crate::require_containers;
use crate::support::{Image, run, user};

/// What every container has mounted: where, of what kind, with which of the options that matter. The three dots stand
/// for what some kernels lack.
const MOUNTS: &str = "\
/ overlay rw nodev
/dev tmpfs rw nosuid,nodev
/dev/full tmpfs ro nosuid,noexec
/dev/mqueue mqueue rw nosuid,nodev,noexec
/dev/null tmpfs ro nosuid,noexec
/dev/pts devpts rw nosuid,noexec
/dev/random tmpfs ro nosuid,noexec
/dev/shm tmpfs rw nosuid,nodev,noexec
/dev/tty tmpfs ro nosuid,noexec
/dev/urandom tmpfs ro nosuid,noexec
/dev/zero tmpfs ro nosuid,noexec
/etc/hostname tmpfs ro nosuid,nodev,noexec
/etc/hosts tmpfs ro nosuid,nodev,noexec
/etc/resolv.conf tmpfs ro nosuid,nodev,noexec
/proc proc rw nosuid,nodev,noexec
/sys sysfs ro nosuid,nodev,noexec";

/// Hidden or read-only, where the kernel has them.
const COVERS: &str = "\
/proc/acpi /proc/asound /proc/bus /proc/fs /proc/interrupts /proc/irq /proc/kallsyms /proc/kcore /proc/keys /proc/kmsg \
/proc/latency_stats /proc/modules /proc/sched_debug /proc/scsi /proc/sys /proc/sysrq-trigger /proc/timer_list \
/proc/timer_stats /sys/firmware /sys/devices/virtual/powercap /sys/kernel/debug /sys/kernel/tracing \
/sys/kernel/security /sys/fs/cgroup";

#[test]
fn exactly_the_listed_mounts_are_there() {
    require_containers!();
    let ran = Image::new().sh("cat /proc/self/mountinfo");
    let mut lines: Vec<String> = ran.stdout.lines().map(mount_line).collect();
    lines.sort();
    let covers: Vec<&str> = COVERS.split_whitespace().collect();
    let is_cover = |line: &&String| {
        let place = line.split(' ').next().unwrap();
        covers.contains(&place) || place.ends_with("/thermal_throttle")
    };
    let usual: Vec<_> = lines.iter().filter(|line| !is_cover(line)).cloned().collect();
    assert_eq!(usual.join("\n"), MOUNTS);
    for cover in lines.iter().filter(is_cover) {
        assert!(cover.contains(" ro nosuid"), "{cover}");
    }
    // What this kernel has on the host must be covered in the container.
    for place in covers.iter().filter(|place| std::path::Path::new(place).exists()) {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{place} "))), "{place} is bare");
    }
}

/// Place, kind, first option, and the `no…` options of a line of `mountinfo`.
fn mount_line(line: &str) -> String {
    let (fields, rest) = line.split_once(" - ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let options: Vec<&str> = fields[5].split(',').collect();
    let kept: Vec<&str> = options[1..].iter().copied().filter(|o| ["nosuid", "nodev", "noexec"].contains(o)).collect();
    format!("{} {} {} {}", fields[4], rest.split(' ').next().unwrap(), options[0], kept.join(","))
}

#[test]
fn kernel_files_read_empty_and_take_no_writes() {
    require_containers!();
    let ran = Image::new().sh(
        "for f in interrupts kallsyms kcore keys kmsg modules timer_list sched_debug latency_stats; do \
           [ -e /proc/$f ] && head -c 1 /proc/$f | wc -c; done; \
         for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/kernel/debug /sys/kernel/security \
           /sys/kernel/tracing /sys/devices/virtual/powercap; do [ -e $d ] && ls -A $d; done; \
         echo data > /proc/kcore; head -c 1 /proc/kcore | wc -c; \
         for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/0/smp_affinity \
           /sys/kernel/uevent_helper /sys/fs/cgroup/cgroup.procs /sys/x /proc/acpi/x /sys/firmware/x; do \
           (echo x > $f) 2>/dev/null && echo wrote $f; done; true",
    );
    let odd: Vec<&str> = ran.stdout.lines().filter(|line| *line != "0").collect();
    assert_eq!(odd, Vec::<&str>::new(), "{}", ran.stderr);
}

#[test]
fn devices_are_the_real_ones_and_others_do_not_open() {
    require_containers!();
    let ran = Image::new().sh(
        "for d in null zero full random urandom tty; do echo $d $(stat -c '%F %t:%T %a' /dev/$d); done; \
         head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null; echo x > /dev/full; head -c 1 /dev/urandom | wc -c; \
         chmod 600 /dev/null; touch /dev/null; chmod 600 /proc/self/fd/0; rm /dev/null; \
         for at in /dev /tmp /dev/shm; do mknod $at/null2 c 1 3; mknod $at/mem c 1 1; mknod $at/disk b 254 0; \
           for n in null2 mem disk; do head -c 1 $at/$n && echo opened $at/$n; done; done; echo end",
    );
    let expected = "null character special file 1:3 666\nzero character special file 1:5 666\n\
        full character special file 1:7 666\nrandom character special file 1:8 666\n\
        urandom character special file 1:9 666\ntty character special file 5:0 666\n 00 00 00 00\n1\nend\n";
    assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("Read-only file system").count(), 3, "{}", ran.stderr);
}

#[test]
fn capabilities_are_few_for_root_and_none_for_others() {
    require_containers!();
    let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";
    let of = |capabilities: [&str; 3]| {
        let [inherited, mine, bound] = capabilities;
        format!(
            "CapInh:\t{inherited}\nCapPrm:\t{mine}\nCapEff:\t{mine}\nCapBnd:\t{bound}\nCapAmb:\t{inherited}\n\
             NoNewPrivs:\t0\nSeccomp:\t2\n"
        )
    };
    // With the host's ids they are docker's fourteen; else what would be void is not given.
    for (image, some) in [(Image::new(), "00000000800405fb"), (Image::with_host_ids(), "00000000a80425fb")] {
        let none = "0000000000000000";
        assert_eq!(image.sh(script).stdout, of([none, some, some]));
        let mut spec = image.spec(&["sh", "-c", script]);
        spec.user = user(1000, 1000);
        assert_eq!(run(spec).unwrap().stdout, of([none, none, some]));
    }
}

#[test]
fn what_is_not_for_containers_is_denied() {
    require_containers!();
    let image = Image::new();
    let Some(()) = compile_probe(&image.base("bin/probe")) else { return };
    assert_eq!(run(image.spec(&["probe"])).unwrap().stdout, CONFINED);
}

#[test]
fn programs_that_change_the_user_work() {
    require_containers!();
    let image = Image::new();
    let probe = image.base("bin/probe");
    let Some(()) = compile_probe(&probe) else { return };
    std::fs::set_permissions(&probe, PermissionsExt::from_mode(0o4755)).unwrap();
    let mut spec = image.spec(&["sh", "-c", "probe | tail -n 1"]);
    spec.user = user(1000, 1000);
    assert_eq!(run(spec).unwrap().stdout, "user: 0\n");
    assert_eq!(image.sh("su app -c 'id -u'").stdout, "1000\n");
}

#[test]
fn only_the_three_streams_are_open() {
    require_containers!();
    let image = Image::new();
    // The shell opens nothing while it expands, but the directory itself.
    let ran = image.sh("for f in /proc/self/fd/*; do echo ${f##*/}; done");
    assert_eq!(ran.stdout, "0\n1\n2\n3\n".replace("3\n", if ran.stdout.contains('3') { "3\n" } else { "" }));
    let ran = image.sh("ls /proc/1/fd; (exec 9>/proc/1/exe) 2>&1; (exec 9>>/proc/self/exe) 2>&1; cat /proc/1/cmdline");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..3], ["0", "1", "2"]);
    assert!(lines[3].contains("Text file busy") && lines[4].contains("Text file busy"), "{:?}", ran.stdout);
    assert!(!ran.stdout.contains("kiln") && !ran.stdout.contains("privileged"), "{:?}", ran.stdout);
}

#[test]
fn nothing_of_our_environment_is_seen() {
    require_containers!();
    let ran = Image::new().sh("cat /proc/*/environ | tr '\\0' '\\n' | sort -u; cat /proc/1/cgroup /proc/self/cgroup");
    assert!(!ran.stdout.contains("CARGO"), "{}", ran.stdout);
    for line in ran.stdout.lines().filter(|line| line.contains(':')) {
        assert!(line.ends_with(":/") || line.starts_with("PATH="), "{line}");
    }
}

#[test]
fn without_a_network_there_is_a_loopback_and_nothing_else() {
    require_containers!();
    let image = Image::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    // 5000 is 1388 in what the kernel writes, and a server's state is 0A. A server whose own input ends hangs up on one side, at
    // which `nc` at the other would leave before it has said anything.
    let script = format!(
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; cat /etc/resolv.conf; ls /sys/class/net; \
         nc -w 1 127.0.0.1 {port} < /dev/null && echo reached; (sleep 600 | nc -l -p 5000 > /tmp/got &); \
         until grep -q ':1388 [^ ]* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done; \
         echo hi | nc -w 30 127.0.0.1 5000; until [ -s /tmp/got ]; do sleep 0.02; done; cat /tmp/got"
    );
    let mut spec = image.spec(&["sh", "-c", &script]);
    spec.network = Network::None;
    let ran = run(spec).unwrap();
    assert_eq!(ran.stdout, "lo\nlo\nhi\n", "{}", ran.stderr);
    let script = format!("nc -w 30 127.0.0.1 {port} < /dev/null && echo reached; wc -l < /etc/resolv.conf");
    let ran = image.sh(&script);
    let lines = std::fs::read_to_string("/etc/resolv.conf").map_or(0, |text| text.lines().count());
    assert_eq!(ran.stdout, format!("reached\n{lines}\n"));
}

#[test]
fn hosts_and_host_name_are_those_asked_for() {
    require_containers!();
    let image = Image::new();
    let mut spec = image.spec(&["cat", "/etc/hosts", "/etc/hostname"]);
    spec.extra_hosts = vec![("db".into(), "10.0.0.7".into()), ("six".into(), "fd00::1".into())];
    let expected = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\tbox\n\
        10.0.0.7\tdb\nfd00::1\tsix\nbox\n";
    assert_eq!(run(spec).unwrap().stdout, expected);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(host.trim(), "box", "the host was renamed");
}

#[test]
fn an_insecure_container_may_what_kiln_may() {
    require_containers!();
    let image = Image::with_host_ids();
    let script = "mount -t tmpfs x /tmp && echo mounted; grep Seccomp: /proc/self/status; grep -c . /proc/kallsyms; \
        mknod /root/null2 c 1 3; echo x > /root/null2 && echo device; echo box2 > /proc/sys/kernel/hostname; hostname";
    let mut spec = image.spec(&["sh", "-c", script]);
    spec.security = Security::Insecure;
    let ran = run(spec).unwrap();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((lines[0], lines[1]), ("mounted", "Seccomp:\t0"), "{}", ran.stderr);
    assert_ne!(lines[2], "0");
    assert_eq!((lines[3], lines[4]), ("device", "box2"), "{}", ran.stderr);
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" x "), "the host sees the mount");
}
