//! What steps may do only when the user allows it: the machine's network, all privileges, devices.

use std::fs;

use crate::project::{Project, Run, run};

#[test]
fn the_host_network_must_be_allowed_and_the_line_is_named() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN true\nRUN --network=host ls /sys/class/net > /net\n");
    let refused = project.build(&[]).fails(1);
    refused.says("Dockerfile:3").says("`network.host`").says("--allow network.host").never_says("RUN true DONE");
    project.build(&["--allow", "network.host"]).ok();
    assert!(project.sh("cat /net").contains("lo"));
    // Who asks for it on the command line has said so.
    project.build(&["--network", "host"]).ok();
    project.build(&["--allow", "network.hots"]).fails(2).says("did you mean `network.host`?");
}

#[test]
fn an_insecure_step_has_every_privilege_and_must_be_allowed() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN --security=insecure grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status && \
         mount -t tmpfs none /mnt 2>/dev/null || mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted && umount /mnt && \
         cat /proc/sys/kernel/ostype && touch /sys/fs/cgroup 2>/dev/null; ls -l /dev/fuse /dev/kvm /dev/net/tun /dev/loop0\n\
         RUN grep CapEff /proc/self/status | sed s/CapEff/Next/\n",
    );
    project.build(&[]).fails(1).says("Dockerfile:2").says("--allow security.insecure");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapPrm:")).unwrap().replace("CapPrm", "CapEff");
    let allowed = project.build(&["--allow", "security.insecure"]).ok().says(&own).says("Seccomp:\t0").says("mounted");
    allowed.says("/dev/fuse").says("/dev/loop0").says("Next:\t00000000800405fb");
}

/// Describes devices in the project and builds with them.
fn build(project: &Project, args: &[&str]) -> Run {
    let context = project.context();
    let mut command = project.command();
    command.args(["build", "--progress=plain", "-t", "app"]).args(args).arg(&context);
    run(command.env("KILN_CDI_DIRS", project.path().join("cdi")))
}

fn with_devices() -> Project {
    let project = Project::new();
    let dir = project.path().join("cdi");
    fs::create_dir(&dir).unwrap();
    fs::write(project.path().join("library"), "library").unwrap();
    let yaml = format!(
        "cdiVersion: \"0.6.0\"\nkind: acme.com/gpu\nannotations:\n  org.mobyproject.buildkit.device.class: gpu\n\
         containerEdits:\n  env: [DRIVER=acme]\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [GPU=0]\n    \
         deviceNodes:\n    - {{path: /dev/acme0, hostPath: /dev/null, fileMode: 432, gid: 44}}\n    mounts:\n    \
         - {{hostPath: {0}, containerPath: /usr/lib/library, options: [ro, bind]}}\n- name: \"1\"\n  annotations:\n    \
         org.mobyproject.buildkit.device.autoallow: \"true\"\n  containerEdits:\n    deviceNodes:\n    - {{path: /dev/acme1, type: c, major: 1, minor: 5}}\n",
        project.path().join("library").display()
    );
    fs::write(dir.join("acme.yaml"), yaml).unwrap();
    let json = r#"{"cdiVersion":"0.5.0","kind":"other.org/hooked","devices":[{"name":"x","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/usr/bin/evil"}]}}]}"#;
    fs::write(dir.join("other.json"), json).unwrap();
    project
}

#[test]
fn a_device_brings_its_node_files_and_variables_and_leaves_nothing() {
    let project = with_devices();
    let step = "--device=acme.com/gpu=0 stat -c '%F %a %g %t:%T' /dev/acme0 && echo $DRIVER $GPU && cat /usr/lib/library && \
                echo x > /dev/acme0 && ! touch /usr/lib/library";
    project.dockerfile(&format!(
        "FROM busybox\nRUN {step}\nRUN test ! -e /dev/acme0 -a ! -e /usr/lib/library -a -z \"$GPU\"\n"
    ));
    let refused = build(&project, &[]).fails(1);
    refused.says("Dockerfile:2").says("--allow device=acme.com/gpu=0");
    let run = build(&project, &["--allow", "device=acme.com/gpu=0"]).ok();
    run.says("character special file 660 44 1:3").says("acme 0").says("library");
    build(&project, &["--allow", "device"]).ok();
    assert_eq!(project.sh("ls /dev/acme0 /usr/lib/library 2>/dev/null; true"), "");
}

#[test]
fn devices_are_found_by_class_and_wildcard_and_may_allow_themselves() {
    let project = with_devices();
    let builds = |device: &str, script: &str, args: &[&str]| {
        project.dockerfile(&format!("FROM busybox\nRUN --device={device} {script}\n"));
        build(&project, args)
    };
    builds("acme.com/gpu=1", "head -c 3 /dev/acme1 | wc -c", &[]).ok().says(" 3");
    builds("acme.com/gpu=*", "ls /dev/acme0 /dev/acme1", &["--allow", "device=gpu"]).ok();
    builds("gpu", "ls /dev/acme0 /dev/acme1", &["--allow", "device=acme.com/gpu=*"]).ok();
    builds("acme.com/gpu", "ls /dev/acme0 && test ! -e /dev/acme1", &["--allow", "device"]).ok();
    builds("mine", "ls /dev/acme0", &["--allow", "device=acme.com/gpu=0,alias=mine"]).ok();
    builds("acme.com/gpu=9", "test -z \"$DRIVER\"", &[]).ok();
    let missing = builds("acme.com/gpu=9,required", "true", &[]).fails(1);
    missing.says("Dockerfile:2").says("no device `acme.com/gpu=9`").says("`acme.com/gpu=0`, `acme.com/gpu=1`");
    builds("other.org/hooked=x", "true", &["--allow", "device"]).fails(3).says("/usr/bin/evil");
}
