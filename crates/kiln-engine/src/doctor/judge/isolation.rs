//! Verdicts on what keeps steps apart from the machine, and from each other.

use kiln_exec::Isolation;

use super::{Check, Mark, Trouble};
use crate::doctor::facts::{Facts, Refusal, Standing, Tool};

/// The errors of the kernel that say why.
mod errno {
    pub(super) const PERM: i32 = 1;
    pub(super) const ACCESS: i32 = 13;
    pub(super) const INVALID: i32 = 22;
    pub(super) const NO_SPACE: i32 = 28;
    pub(super) const READ_ONLY: i32 = 30;
    pub(super) const TOO_MANY_USERS: i32 = 87;
}

/// The first kernel with all calls that steps need (`mount_setattr`), and the first whose overlay shows other ids.
const OLDEST: (u32, u32) = (5, 12);
const SHIFTING: (u32, u32) = (5, 19);

/// As many ids as people are given, and images use.
const USUAL_RANGE: u64 = 65536;

/// How a container around us is started so that it lets steps have containers.
const OPEN_CONTAINER: &str = "start the container around kiln with `--privileged`, or with `--cap-add SYS_ADMIN \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined`";

/// The kernel's version.
pub(super) fn kernel(facts: &Facts) -> Check {
    let found = format!("Linux {}", facts.kernel);
    let trouble = |lost: &str, (major, minor): (u32, u32)| Trouble {
        found: found.clone(),
        lost: lost.into(),
        mend: format!("boot Linux {major}.{minor} or later"),
    };
    match version(&facts.kernel) {
        Some(version) if version < OLDEST => {
            Check::bad("kernel", Mark::Missing, trouble("nothing is built: mounts are made by newer calls", OLDEST))
        }
        Some(version) if version < SHIFTING => {
            let lost = "steps have the user ids of this machine, not their own";
            Check::bad("kernel", Mark::Degraded, trouble(lost, SHIFTING))
        }
        _ => Check::ok("kernel", found),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Filtering of system calls, without which no step runs.
pub(super) fn filter(facts: &Facts) -> Check {
    const NAME: &str = "seccomp";
    match (facts.filter.is_available, facts.filter.is_around_us) {
        (true, false) => Check::ok(NAME, "the kernel filters system calls"),
        (true, true) => Check::ok(NAME, "the kernel filters system calls, kiln's own as well"),
        (false, _) => Check::bad(
            NAME,
            Mark::Missing,
            Trouble {
                found: "the kernel does not filter system calls".into(),
                lost: "`RUN` steps: none runs without a filter".into(),
                mend: "boot a kernel with `CONFIG_SECCOMP_FILTER`".into(),
            },
        ),
    }
}

/// User namespaces: steps of root are nobody in one, and everybody else needs one to build at all.
pub(super) fn users(facts: &Facts) -> Check {
    const NAME: &str = "user namespaces";
    let Err(refusal) = &facts.users else { return Check::ok(NAME, "can be made") };
    let (found, mend) = why_no_users(facts, refusal);
    match facts.standing {
        Standing::Root => {
            let lost = "steps have the user ids of this machine: their root is its root, with few rights".into();
            Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend })
        }
        // Root of a container can build without one, if it may mount.
        Standing::RootOfSome => {
            let lost = "steps have the user ids of the container".into();
            Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend })
        }
        Standing::User { .. } => {
            let lost = "`RUN` steps of other users than root".into();
            Check::bad(NAME, Mark::Missing, Trouble { found, lost, mend }).needed()
        }
    }
}

/// What keeps steps apart from the machine; nothing where namespaces are refused and there is no other way.
pub(super) fn used(facts: &Facts) -> Option<Check> {
    const NAME: &str = "isolation";
    if facts.isolation == Isolation::Chroot {
        let found = "a chroot alone, as was asked for".to_owned();
        let lost = "what keeps steps from kiln's files, processes and network, and `/proc` in steps".to_owned();
        let mend = "unset `KILN_ISOLATION` where namespaces can be made".to_owned();
        return Some(Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend }));
    }
    // Root of a container that got no namespace is like anybody else, and may still have another root.
    let is_refused = facts.users.is_err() && matches!(facts.standing, Standing::User { .. });
    match (is_refused, facts.may_chroot) {
        (false, _) => Some(Check::ok(NAME, "namespaces")),
        (true, false) => None,
        (true, true) => {
            let found = "namespaces, which cannot be made".to_owned();
            let mend = "build what you trust with `--isolation=chroot`, or `KILN_ISOLATION=chroot`".to_owned();
            Some(Check::bad(NAME, Mark::Missing, Trouble { found, lost: "`RUN` steps".into(), mend }))
        }
    }
}

/// What of the many things that can be in the way it is, most certain first.
fn why_no_users(facts: &Facts, refusal: &Refusal) -> (String, String) {
    if let Some(mend) = &facts.way_in {
        return (refusal.why.clone(), mend.clone());
    }
    let switches = &facts.switches;
    let is_root = facts.standing == Standing::Root;
    let refused = matches!(refusal.errno, Some(errno::PERM | errno::ACCESS));
    let set = |setting: &str, value: &str| format!("run `sysctl -w {setting}={value}` as root");
    if switches.most == Some(0) {
        ("`user.max_user_namespaces` is 0".into(), set("user.max_user_namespaces", "15000"))
    } else if matches!(refusal.errno, Some(errno::NO_SPACE | errno::TOO_MANY_USERS)) {
        let most = switches.most.unwrap_or_default();
        (format!("as many as there may be exist (`user.max_user_namespaces` is {most})"), {
            set("user.max_user_namespaces", &most.saturating_mul(4).max(15000).to_string())
        })
    } else if !is_root && switches.for_anybody == Some(0) {
        ("`kernel.unprivileged_userns_clone` is 0".into(), set("kernel.unprivileged_userns_clone", "1"))
    } else if !is_root && refused && switches.apparmor == Some(1) {
        let setting = "kernel.apparmor_restrict_unprivileged_userns";
        (format!("AppArmor gives no rights in them (`{setting}` is 1)"), set(setting, "0"))
    } else if facts.container.is_some() || facts.filter.is_around_us {
        (format!("the container around kiln refuses them: {}", refusal.why), OPEN_CONTAINER.into())
    } else if refusal.errno == Some(errno::INVALID) {
        (refusal.why.clone(), "boot a kernel with `CONFIG_USER_NS`".into())
    } else {
        (refusal.why.clone(), "run kiln as root, or allow user namespaces in the machine's security settings".into())
    }
}

/// A user's range of ids, and the programs that give it. Root needs neither.
pub(super) fn ranges(facts: &Facts) -> Vec<Check> {
    let Standing::User { name, .. } = &facts.standing else { return Vec::new() };
    let checks = vec![range(facts, name), tools(facts)];
    match &facts.note {
        // What a build says counts, whatever was looked at.
        Some(note) if checks.iter().all(|check| check.mark == Mark::Ok) => {
            let found = note.strip_prefix("warning: ").unwrap_or(note).to_owned();
            let lost = "more than one user id in steps".into();
            let mend = "look at what `newuidmap` says of the ranges".into();
            vec![Check::bad("subuid and subgid", Mark::Degraded, Trouble { found, lost, mend })]
        }
        _ => checks,
    }
}

fn range(facts: &Facts, name: &str) -> Check {
    const NAME: &str = "subuid and subgid";
    let count = facts.ranges.users.min(facts.ranges.groups);
    if count >= USUAL_RANGE {
        return Check::ok(NAME, format!("{count} ids for `{name}`"));
    }
    let (mark, found) = match count {
        0 => (Mark::Missing, format!("`/etc/subuid` and `/etc/subgid` give `{name}` no ids")),
        count => (Mark::Degraded, format!("{count} ids for `{name}`")),
    };
    let lost = match count {
        0 => "files of other owners than root, `USER`, and programs that change user, as apt does".to_owned(),
        count => format!("files and users with ids above {count}"),
    };
    let mend = format!(
        "run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}` as root, with numbers that \
         nobody else has"
    );
    Check::bad(NAME, mark, Trouble { found, lost, mend })
}

fn tools(facts: &Facts) -> Check {
    const NAME: &str = "newuidmap and newgidmap";
    let tools = [("newuidmap", facts.ranges.newuidmap), ("newgidmap", facts.ranges.newgidmap)];
    let which = |state: Tool| {
        let names: Vec<&str> = tools.iter().filter(|tool| tool.1 == state).map(|tool| tool.0).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    };
    let lost = "more than one user id in steps".to_owned();
    let bad =
        |mark, found, mend: &str| Check::bad(NAME, mark, Trouble { found, lost: lost.clone(), mend: mend.to_owned() });
    if let Some(names) = which(Tool::Absent) {
        return bad(Mark::Missing, format!("{names} not in `PATH`"), "run `apt-get install uidmap` as root");
    }
    if let Some(names) = which(Tool::Powerless) {
        let mend = "run `chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap` as root";
        return bad(Mark::Missing, format!("{names} without the right to give ids"), mend);
    }
    if facts.filter.no_new_rights {
        let found = "kiln was started so that no program gains rights (`no_new_privs`)".to_owned();
        let mend = "start the container or service around kiln without `no-new-privileges`";
        return bad(Mark::Degraded, found, mend);
    }
    Check::ok(NAME, "there, with the right to give ids")
}

/// Whether layers can be stacked where the state is.
pub(super) fn overlay(facts: &Facts) -> Check {
    const NAME: &str = "overlay";
    let state = &facts.state;
    let Err(refusal) = &state.overlay else {
        return Check::ok(NAME, format!("layers are stacked on {}", state.filesystem));
    };
    let is_refused = matches!(refusal.errno, Some(errno::PERM | errno::ACCESS));
    let elsewhere = "name a directory on ext4, xfs, btrfs or tmpfs with `--state DIR`";
    let (found, mend) = match (state.filesystem.as_str(), is_refused) {
        ("overlay", false) => (
            "the state directory is on an overlay itself, which takes no other on top".to_owned(),
            "mount a volume for it (`-v kiln:/var/lib/kiln` of docker or podman), or name a directory elsewhere with \
             `--state DIR`"
                .to_owned(),
        ),
        (_, true) if matches!(facts.standing, Standing::User { .. }) => {
            (refusal.why.clone(), "run kiln as root".to_owned())
        }
        (_, true) => (refusal.why.clone(), OPEN_CONTAINER.to_owned()),
        _ => (refusal.why.clone(), elsewhere.to_owned()),
    };
    // Who may not mount at all has no containers either.
    if is_refused && facts.isolation == Isolation::Namespaces {
        return Check::bad(NAME, Mark::Missing, Trouble { found, lost: "`RUN` steps".into(), mend }).needed();
    }
    let lost = "builds are slower and take more space: layers are copied for each step".into();
    Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend })
}

/// Whether files can be shown to steps with ids of their own, which only root of the machine can have done.
pub(super) fn shifted(facts: &Facts) -> Option<Check> {
    const NAME: &str = "idmapped mounts";
    let state = &facts.state;
    let is_tried = facts.standing == Standing::Root && facts.users.is_ok();
    if !is_tried || state.overlay.is_err() {
        return None;
    }
    let Err(refusal) = &state.shifted else { return Some(Check::ok(NAME, "files are shown with the ids of steps")) };
    let lost = "steps have the user ids of this machine: their root is its root, with few rights".into();
    let mend = "name a directory on ext4, xfs, btrfs or tmpfs with `--state DIR`, on Linux 5.19 or later".into();
    Some(Check::bad(NAME, Mark::Degraded, Trouble { found: refusal.why.clone(), lost, mend }))
}

/// Which limits steps can have.
pub(super) fn groups(facts: &Facts) -> Check {
    const NAME: &str = "cgroups";
    let all = |is: &dyn Fn(&&crate::doctor::facts::Controller) -> bool| {
        facts.groups.iter().filter(is).map(|group| group.name).collect::<Vec<_>>().join(", ")
    };
    let usable = all(&|group| group.tried.is_ok());
    let unusable = all(&|group| group.tried.is_err());
    let version = facts.groups.iter().find_map(|group| group.version);
    let found = match (version, usable.as_str()) {
        (None, _) => "none that could limit a step".to_owned(),
        (Some(version), "") => format!("version {version}, and none can be used: {unusable}"),
        (Some(version), usable) => format!("version {version}: {usable}"),
    };
    let Some(refusal) = facts.groups.iter().find_map(|group| group.tried.as_ref().err()) else {
        return Check::ok(NAME, found);
    };
    let mark = if usable.is_empty() { Mark::Missing } else { Mark::Degraded };
    let lost = format!("limits of steps by {unusable}");
    Check::bad(NAME, mark, Trouble { found, lost, mend: mend_groups(facts, refusal) })
}

fn mend_groups(facts: &Facts, refusal: &Refusal) -> String {
    let delegate = "run `mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory \
         pids\\n' > /etc/systemd/system/user@.service.d/kiln.conf && systemctl daemon-reload` as root, log in anew, and \
         start builds with `systemd-run --user --scope -p Delegate=yes kiln build …`";
    let first = facts.groups.iter().any(|group| group.version == Some(1));
    match &facts.standing {
        _ if refusal.errno == Some(errno::READ_ONLY) => {
            "start the container around kiln with `--privileged`, or with `/sys/fs/cgroup` writable".into()
        }
        Standing::User { .. } | Standing::RootOfSome if first => {
            "boot with `systemd.unified_cgroup_hierarchy=1`: version 1 lends its groups to root only".into()
        }
        Standing::User { .. } | Standing::RootOfSome => delegate.into(),
        Standing::Root => {
            let missing = facts.groups.iter().filter(|group| group.version.is_none()).map(|group| group.name);
            let missing = missing.collect::<Vec<_>>();
            match missing.is_empty() {
                true => format!("look at what the kernel said: {}", refusal.why),
                false => format!(
                    "hand them down with `echo +{} > /sys/fs/cgroup/cgroup.subtree_control`, or start kiln with \
                     `systemd-run --scope -p Delegate=yes kiln build …`",
                    missing.join(" +")
                ),
            }
        }
    }
}

/// Whether a step has a network of its own.
pub(super) fn network(facts: &Facts) -> Check {
    const NAME: &str = "network";
    let network = &facts.network;
    match (&network.own, &facts.standing, network.program) {
        (Ok(()), _, _) if network.has_firewalld => {
            let pool = network.pool.as_deref().unwrap_or("10.213.64.0/20");
            let mend = format!(
                "run `firewall-cmd --permanent --zone=trusted --add-source={pool} && firewall-cmd --reload`, unless \
                 steps reach what they need"
            );
            let found = "each step has its own, and firewalld decides what of it is passed on".into();
            let lost = "downloads in steps, where firewalld's rules refuse them".into();
            Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend })
        }
        (Ok(()), Standing::User { .. }, Some(program)) => {
            Check::ok(NAME, format!("each step has its own, and {program} carries it"))
        }
        (Ok(()), _, _) => Check::ok(NAME, "each step has its own"),
        (Err(refusal), standing, _) => {
            let mend = match standing {
                Standing::User { .. } if network.program.is_none() => {
                    "run `apt-get install passt`, or `slirp4netns`, as root".to_owned()
                }
                Standing::User { .. } => "allow users `/dev/net/tun`, or run kiln as root".to_owned(),
                _ if refusal.why.contains("firewall's table") => {
                    "have that table let pass what comes from links `kiln-*` and what goes to them".to_owned()
                }
                _ if facts.container.is_some() => {
                    "start the container around kiln with `--privileged`, or with `--cap-add NET_ADMIN`".to_owned()
                }
                _ => "load what is missing with `modprobe -a veth nf_tables nft_chain_nat nft_masq nft_ct`".to_owned(),
            };
            let lost = "steps have this machine's network, and reach what listens on its loopback".into();
            Check::bad(NAME, Mark::Degraded, Trouble { found: refusal.why.clone(), lost, mend })
        }
    }
}
