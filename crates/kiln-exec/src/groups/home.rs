//! Where groups can be made: beside our own, or where somebody says.
#![expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]

use std::io;
use std::path::{Component, Path, PathBuf};

/// A hierarchy, and our own group in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) controllers: Vec<String>,
    /// Its top, as far as it can be seen.
    pub(super) top: PathBuf,
    pub(super) own: PathBuf,
}

/// Where groups are made in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) version: Version,
    pub(super) controllers: Vec<String>,
    pub(super) directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    First,
    Second,
}

/// Reads `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(super) fn hierarchies(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let (controllers, own) = line.split_once(':')?.1.split_once(':')?;
        let version = if controllers.is_empty() { Version::Second } else { Version::First };
        let controllers: Vec<String> =
            controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let (root, top) = mounts.lines().find_map(|mount| mounted(mount, version, &controllers))?;
        let own = top.join(within(own, root));
        Some(Hierarchy { version, controllers, top, own })
    };
    own.lines().filter_map(hierarchy).collect()
}

/// Where a group is below the one that is mounted. Of one that lies elsewhere, as the kernel says with `..`
/// (cgroup_namespaces(7)), nothing can be seen; what is mounted stands for it.
fn within<'a>(own: &'a str, root: &str) -> &'a Path {
    let (own, root) = (Path::new(own), Path::new(root));
    let below = own.strip_prefix(root).or_else(|_| own.strip_prefix("/")).unwrap_or(own);
    let is_below = below.components().all(|part| matches!(part, Component::Normal(_)));
    if is_below { below } else { Path::new("") }
}

/// The root and the place of a mount, if it is that of the hierarchy.
fn mounted<'a>(mount: &'a str, version: Version, names: &[String]) -> Option<(&'a str, PathBuf)> {
    let (head, tail) = mount.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, place) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let (kind, options) = (tail.next()?, tail.nth(1)?);
    let is_it = match version {
        Version::First => kind == "cgroup" && names.iter().all(|name| options.split(',').any(|option| option == name)),
        Version::Second => kind == "cgroup2",
    };
    is_it.then(|| (root, PathBuf::from(place)))
}

impl Home {
    /// Beside our own group; in the first version below it, where a group may hold both.
    pub(super) fn usual(hierarchy: &Hierarchy) -> Home {
        let Hierarchy { version, top, own, .. } = hierarchy;
        match (version, own.parent()) {
            // A group that hands controllers on may hold no processes, so ours has no room; the one it is in has.
            (Version::Second, Some(outer)) if own != top => Home::at(hierarchy, outer.to_path_buf()),
            _ => Home::at(hierarchy, own.clone()),
        }
    }

    /// In a group by its path, which is made when it is missing, and handed what its hierarchy has.
    pub(super) fn named(hierarchy: &Hierarchy, parent: &str) -> Home {
        let mut directory = hierarchy.top.clone();
        hand_down(hierarchy, &directory);
        for name in parent.split('/').filter(|name| !name.is_empty()) {
            let above = directory.clone();
            directory.push(name);
            // What cannot be made is told by what is to be made in it.
            if std::fs::create_dir(&directory).is_ok() && hierarchy.version == Version::First {
                let _ = inherit_cpuset(&above, &directory);
            }
            hand_down(hierarchy, &directory);
        }
        Home::at(hierarchy, directory)
    }

    fn at(hierarchy: &Hierarchy, directory: PathBuf) -> Home {
        let controllers = match hierarchy.version {
            Version::First => hierarchy.controllers.clone(),
            Version::Second => words(&directory.join("cgroup.subtree_control")),
        };
        Home { version: hierarchy.version, controllers, directory }
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|has| has == controller)
    }
}

/// Nobody can enter a group that has no processors or no memory, as new ones have none. Groups of other controllers are as
/// they are.
pub(super) fn inherit_cpuset(above: &Path, directory: &Path) -> io::Result<()> {
    if !directory.join("cpuset.cpus").exists() {
        return Ok(());
    }
    let inherit = |file: &str| std::fs::write(directory.join(file), std::fs::read(above.join(file))?);
    ["cpuset.cpus", "cpuset.mems"].into_iter().try_for_each(inherit)
}

/// Has a group of the second version give its controllers to those in it. One by one: it may be that only some can be.
fn hand_down(hierarchy: &Hierarchy, directory: &Path) {
    if hierarchy.version == Version::First {
        return;
    }
    let control = directory.join("cgroup.subtree_control");
    let given = words(&control);
    for name in words(&directory.join("cgroup.controllers")).iter().filter(|name| !given.contains(name)) {
        let _ = std::fs::write(&control, format!("+{name}"));
    }
}

fn words(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "31 25 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        32 25 0:28 /outer /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 25 0:29 / /nowhere/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn any_lines_about_groups_and_mounts_are_read() {
        const PARTS: &[&str] = &[
            "0::/",
            "5:cpu,cpuacct:",
            "/a",
            "/",
            ":",
            ",",
            " ",
            "\n",
            "..",
            "/../..",
            " - cgroup2 none rw",
            " - ",
            "rw,memory",
            "36 25 0:32 / /nowhere rw",
            " - cgroup cgroup rw,cpu,cpuacct",
            "\u{fffd}",
            "\0",
        ];
        let mut seed = 7u64;
        let mut next = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        for _ in 0..20_000 {
            let mut text = || (0..next(12)).map(|_| PARTS[next(PARTS.len())]).collect::<String>();
            let (own, mounts) = (text(), text());
            let found = hierarchies(&own, &mounts);
            assert!(found.len() <= own.lines().count(), "{own:?} {mounts:?}");
            for (hierarchy, home) in found.iter().map(|hierarchy| (hierarchy, Home::usual(hierarchy))) {
                assert!(home.directory.starts_with(&hierarchy.top), "{own:?} {mounts:?}");
            }
        }
    }

    #[test]
    fn our_own_groups_are_found_in_both_versions() {
        let own = "8:pids:/\n3:cpu,cpuacct:/outer/inner\n2:name=systemd:/x\n0::/user.slice/session\n";
        let found = hierarchies(own, MOUNTS);
        let homes: Vec<_> = found.iter().map(Home::usual).map(|home| home.directory).collect();
        let wanted = ["/sys/fs/cgroup/pids/", "/sys/fs/cgroup/cpu/inner", "/nowhere/unified/user.slice"];
        assert_eq!(homes, wanted.map(PathBuf::from));
        // What is mounted is a group, and ours is none in it.
        let found = hierarchies("3:cpu,cpuacct:/outermost/inner\n0::/../other/session\n", MOUNTS);
        let homes: Vec<_> = found.iter().map(Home::usual).map(|home| home.directory).collect();
        assert_eq!(homes, ["/sys/fs/cgroup/cpu/outermost/inner", "/nowhere/unified"].map(PathBuf::from));
        // At the top, as in a container, there is nothing beside.
        let found = hierarchies("0::/", MOUNTS);
        assert_eq!(Home::usual(&found[0]).directory, Path::new("/nowhere/unified"));
    }

    #[test]
    fn a_named_group_is_made_with_all_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().to_path_buf();
        let pids =
            Hierarchy { version: Version::First, controllers: vec!["pids".into()], own: top.clone(), top: top.clone() };
        let home = Home::named(&pids, "/builds/one");
        assert_eq!((home.directory.clone(), home.has("pids")), (top.join("builds/one"), true));
        assert!(home.directory.is_dir());
        assert_eq!(Home::named(&pids, "builds/one"), home);
    }

    #[test]
    fn a_group_of_the_second_version_is_handed_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        std::fs::write(dir.path().join("cgroup.subtree_control"), "cpu\n").unwrap();
        let top = dir.path().to_path_buf();
        let unified =
            Hierarchy { version: Version::Second, controllers: Vec::new(), own: top.clone(), top: top.clone() };
        Home::named(&unified, "a");
        assert_eq!(std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap(), "+memory");
    }
}
