//! Every trouble has a verdict of its own, and a way out.

use kiln_exec::Isolation;

use crate::doctor::Diagnosis;
use crate::doctor::facts::*;

use super::*;

fn sound() -> Facts {
    Facts {
        kernel: "6.12.4-amd64".into(),
        standing: Standing::Root,
        container: None,
        filter: Filter { is_available: true, is_around_us: false, no_new_rights: false },
        isolation: Isolation::Namespaces,
        may_chroot: false,
        users: Ok(()),
        way_in: None,
        note: None,
        switches: Switches { most: Some(1000), for_anybody: None, apparmor: None },
        ranges: Ranges::default(),
        state: State {
            path: "/var/lib/kiln".into(),
            exists: true,
            owner: None,
            filesystem: "ext4".into(),
            free: 50_000_000_000,
            writable: Ok(()),
            overlay: Ok(()),
            shifted: Ok(()),
        },
        groups: vec![
            Controller { name: "pids", version: Some(2), tried: Ok(()) },
            Controller { name: "memory", version: Some(2), tried: Ok(()) },
        ],
        network: Network { own: Ok(()), pool: Some("10.213.64.0/20".into()), has_firewalld: false, program: None },
        platforms: vec![("linux/amd64".into(), Emulation::Native), ("linux/arm64".into(), Emulation::Emulated)],
        agent: Agent::Listens("/run/agent".into()),
        logins: Logins { file: Some("/root/.docker/config.json".into()), exists: true, ..Logins::default() },
    }
}

/// An ordinary user of a machine that was set up for it.
fn user() -> Facts {
    Facts {
        standing: Standing::User { name: "ann".into(), uid: 1000 },
        ranges: Ranges { users: 65536, groups: 65536, newuidmap: Tool::Ready, newgidmap: Tool::Ready },
        network: Network { program: Some("pasta"), ..sound().network },
        ..sound()
    }
}

fn refused(errno: i32) -> Trial {
    Err(Refusal { errno: Some(errno), why: std::io::Error::from_raw_os_error(errno).to_string() })
}

/// What is not well, and whether builds can run.
fn troubles(facts: &Facts) -> (Vec<Check>, bool) {
    let diagnosis = Diagnosis { checks: judge(facts) };
    let can_build = diagnosis.can_build();
    (diagnosis.checks.into_iter().filter(|check| check.mark != Mark::Ok).collect(), can_build)
}

/// The only trouble: its name, its mark, how it is mended, and whether builds can run.
fn trouble(facts: &Facts) -> (&'static str, Mark, String, bool) {
    let (mut found, can_build) = troubles(facts);
    assert_eq!(found.len(), 1, "{found:#?}");
    let check = found.remove(0);
    assert!(check.lost.is_some_and(|lost| !lost.is_empty()));
    (check.name, check.mark, check.mend.unwrap(), can_build)
}

#[test]
fn a_sound_machine_has_no_trouble() {
    for facts in [sound(), user()] {
        assert_eq!(troubles(&facts), (vec![], true));
    }
}

#[test]
fn the_kernel_is_new_enough_or_not() {
    let of = |kernel: &str| trouble(&Facts { kernel: kernel.into(), ..sound() });
    assert_eq!(of("5.10.0-30-amd64"), ("kernel", Mark::Missing, "boot Linux 5.12 or later".into(), false));
    assert_eq!(of("5.15.0"), ("kernel", Mark::Degraded, "boot Linux 5.19 or later".into(), true));
    assert!(troubles(&Facts { kernel: "7.0-rc1".into(), ..sound() }).0.is_empty());
}

#[test]
fn no_step_runs_without_a_filter() {
    let filter = Filter { is_available: false, ..sound().filter };
    assert!(matches!(trouble(&Facts { filter, ..sound() }), ("seccomp", Mark::Missing, _, false)));
}

#[test]
fn what_keeps_users_from_namespaces_is_named_with_its_command() {
    let of = |switches: Switches, errno: i32| {
        let (name, mark, mend, can_build) = trouble(&Facts { switches, users: refused(errno), ..user() });
        assert_eq!((name, mark, can_build), ("user namespaces", Mark::Missing, false));
        mend
    };
    let open = sound().switches;
    assert!(of(Switches { most: Some(0), ..open }, 28).contains("sysctl -w user.max_user_namespaces=15000"));
    assert!(of(Switches { most: Some(9000), ..open }, 28).contains("sysctl -w user.max_user_namespaces=36000"));
    let closed = Switches { for_anybody: Some(0), ..open };
    assert!(of(closed, 1).contains("sysctl -w kernel.unprivileged_userns_clone=1"));
    let restricted = Switches { apparmor: Some(1), for_anybody: Some(1), ..open };
    assert!(of(restricted, 13).contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"));
    assert!(of(open, 22).contains("CONFIG_USER_NS"));
    // What a build says goes before what is looked at.
    let told = Facts { users: refused(1), way_in: Some("run `that`".into()), switches: closed, ..user() };
    assert_eq!(trouble(&told).2, "run `that`");
    let contained = Facts { users: refused(1), container: Some("podman".into()), ..user() };
    assert!(trouble(&contained).2.contains("--security-opt seccomp=unconfined"));
}

#[test]
fn root_builds_without_user_namespaces() {
    let facts = Facts { users: refused(28), switches: Switches { most: Some(0), ..sound().switches }, ..sound() };
    let (name, mark, mend, can_build) = trouble(&facts);
    assert_eq!((name, mark, can_build), ("user namespaces", Mark::Degraded, true));
    assert!(mend.contains("sysctl -w user.max_user_namespaces="));
}

#[test]
fn a_user_needs_ids_and_programs_that_give_them() {
    let of = |ranges: Ranges| trouble(&Facts { ranges, ..user() });
    let all = user().ranges;
    let (name, mark, mend, can_build) = of(Ranges { groups: 0, ..all.clone() });
    assert_eq!((name, mark, can_build), ("subuid and subgid", Mark::Missing, true));
    assert!(mend.contains("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"));
    assert_eq!(of(Ranges { users: 1000, ..all.clone() }).1, Mark::Degraded);
    assert!(of(Ranges { newgidmap: Tool::Absent, ..all.clone() }).2.contains("apt-get install uidmap"));
    assert!(of(Ranges { newuidmap: Tool::Powerless, ..all }).2.contains("chmod u+s"));
    let filter = Filter { no_new_rights: true, ..sound().filter };
    assert!(trouble(&Facts { filter, ..user() }).2.contains("no-new-privileges"));
    let note = Some("warning: steps have one user id, since `newuidmap` refused: no".to_owned());
    let (found, _) = troubles(&Facts { note, ..user() });
    assert_eq!((found.len(), found[0].found.as_str()), (1, "steps have one user id, since `newuidmap` refused: no"));
}

#[test]
fn the_state_directory_decides_what_can_be_stacked() {
    let of = |state: State| trouble(&Facts { state, ..sound() });
    let state = sound().state;
    let (name, mark, mend, can_build) =
        of(State { overlay: refused(22), filesystem: "overlay".into(), ..state.clone() });
    assert_eq!((name, mark, can_build), ("overlay", Mark::Degraded, true));
    assert!(mend.contains("-v kiln:/var/lib/kiln"));
    assert!(of(State { overlay: refused(22), filesystem: "nfs".into(), ..state.clone() }).2.contains("--state DIR"));
    let (name, mark, _, can_build) = of(State { shifted: refused(22), filesystem: "fuse".into(), ..state.clone() });
    assert_eq!((name, mark, can_build), ("idmapped mounts", Mark::Degraded, true));
    let (name, mark, mend, can_build) = of(State { writable: refused(30), ..state.clone() });
    assert_eq!((name, mark, can_build), ("state directory", Mark::Missing, false));
    assert!(mend.contains("--state DIR"));
    assert_eq!(of(State { free: 1 << 20, ..state.clone() }).1, Mark::Degraded);
    assert_eq!(of(State { owner: Some(7), ..state }).1, Mark::Degraded);
}

#[test]
fn a_container_that_may_not_mount_is_told_how_to_be_started() {
    let facts = Facts {
        standing: Standing::RootOfSome,
        container: Some("docker".into()),
        state: State { overlay: refused(1), ..sound().state },
        ..sound()
    };
    let (name, _, mend, can_build) = trouble(&facts);
    assert_eq!((name, can_build), ("overlay", false));
    assert!(mend.contains("--privileged"));
}

#[test]
fn a_chroot_is_named_where_it_is_all_there_is_and_marked_where_it_is_used() {
    let refused_to_root = Facts {
        standing: Standing::User { name: "root".into(), uid: 0 },
        container: Some("docker".into()),
        users: refused(1),
        ..user()
    };
    assert!(troubles(&refused_to_root).0.iter().all(|check| check.name != "isolation"));
    let (found, can_build) = troubles(&Facts { may_chroot: true, ..refused_to_root.clone() });
    let check = found.iter().find(|check| check.name == "isolation").unwrap();
    assert_eq!((check.mark, can_build), (Mark::Missing, false));
    assert!(check.mend.as_ref().unwrap().contains("`--isolation=chroot`"));
    let used = Facts { isolation: Isolation::Chroot, standing: Standing::RootOfSome, ..sound() };
    let (name, mark, mend, can_build) = trouble(&used);
    assert_eq!((name, mark, can_build), ("isolation", Mark::Degraded, true));
    assert!(mend.contains("KILN_ISOLATION"));
    let (_, can_build) = troubles(&Facts { state: State { overlay: refused(1), ..sound().state }, ..used });
    assert!(can_build, "layers are copied, and nothing is mounted");
}

#[test]
fn limits_need_controllers_that_are_ours() {
    let with = |facts: Facts, memory: Trial, version: Option<u8>| {
        let groups = vec![facts.groups[0].clone(), Controller { name: "memory", version, tried: memory }];
        trouble(&Facts { groups, ..facts })
    };
    let (name, mark, mend, can_build) = with(user(), refused(13), Some(2));
    assert_eq!((name, mark, can_build), ("cgroups", Mark::Degraded, true));
    assert!(mend.contains("Delegate=cpu cpuset io memory pids") && mend.contains("daemon-reload"));
    let handed = with(sound(), refused(2), None).2;
    assert!(handed.contains("echo +memory > /sys/fs/cgroup/cgroup.subtree_control"), "{handed}");
    assert!(with(sound(), refused(30), Some(2)).2.contains("/sys/fs/cgroup"));
    assert!(with(user(), refused(13), Some(1)).2.contains("systemd.unified_cgroup_hierarchy=1"));
    let none = Controller { name: "pids", version: None, tried: refused(2) };
    assert_eq!(trouble(&Facts { groups: vec![none], ..sound() }).1, Mark::Missing);
}

#[test]
fn a_network_that_steps_share_is_told() {
    let of = |facts: &Facts| {
        let (name, mark, mend, can_build) = trouble(facts);
        assert_eq!((name, mark, can_build), ("network", Mark::Degraded, true));
        mend
    };
    let firewalld = Network { has_firewalld: true, ..sound().network };
    assert!(of(&Facts { network: firewalld, ..sound() }).contains("--zone=trusted --add-source=10.213.64.0/20"));
    let why = "the firewall's table `inet strict` drops what is passed on".to_owned();
    let barrier = Network { own: Err(Refusal { errno: None, why }), ..sound().network };
    assert!(of(&Facts { network: barrier, ..sound() }).contains("`kiln-*`"));
    let kernel = Network { own: refused(95), ..sound().network };
    assert!(of(&Facts { network: kernel.clone(), ..sound() }).contains("modprobe"));
    let contained = Facts { network: kernel, container: Some("docker".into()), ..sound() };
    assert!(of(&contained).contains("--cap-add NET_ADMIN"));
    let without = Network { program: None, own: refused(2), ..user().network };
    assert!(of(&Facts { network: without, ..user() }).contains("apt-get install passt"));
}

#[test]
fn platforms_without_an_emulator_are_named() {
    let of = |emulation: Emulation| {
        let platforms = vec![("linux/amd64".into(), Emulation::Native), ("linux/s390x".into(), emulation)];
        let (mut found, can_build) = troubles(&Facts { platforms, ..sound() });
        let check = found.remove(0);
        assert_eq!((check.name, can_build), ("platforms", true));
        assert_eq!(check.lost.as_deref(), Some("`RUN` steps for linux/s390x"));
        check.mend.unwrap()
    };
    assert!(of(Emulation::Missing).contains("apt-get install qemu-user-static"));
    assert!(of(Emulation::Unfixed("/usr/bin/qemu".into())).contains("`F`"));
}

#[test]
fn agents_and_helpers_that_are_named_and_absent_are_told() {
    let silent = Agent::Silent("/gone".into(), "no such file".into());
    for agent in [Agent::NotNamed, silent] {
        assert!(matches!(trouble(&Facts { agent, ..sound() }), ("ssh agent", Mark::Missing, _, true)));
    }
    let of = |logins: Logins| trouble(&Facts { logins, ..sound() });
    let helpers = vec![("pass".to_owned(), true), ("ecr-login".to_owned(), false)];
    let (name, mark, mend, can_build) = of(Logins { helpers, ..sound().logins });
    assert_eq!((name, mark, can_build), ("registry logins", Mark::Degraded, true));
    assert!(mend.contains("`docker-credential-ecr-login`") && !mend.contains("pass"));
    let broken = Some("not valid JSON at line 1, column 2".to_owned());
    assert!(of(Logins { broken, ..sound().logins }).2.contains("kiln login"));
}
