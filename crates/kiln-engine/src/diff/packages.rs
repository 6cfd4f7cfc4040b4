//! Packages of two images: those their package managers list, and those that differing files tell of.

use std::collections::{BTreeMap, BTreeSet};

use kiln_fs::layer::Difference;
use kiln_sys::root::Root;

use super::{PackageChange, rpm};

/// Versions by kind and name.
type Versions = BTreeMap<(&'static str, String), String>;

/// No list of packages is larger.
const LIST: u64 = 64 << 20;
/// No description of one package is larger.
const DESCRIPTION: u64 = 1 << 20;

/// Where rpm keeps what is installed, in SQLite's format.
const RPM: [&str; 2] = ["usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite"];
/// Its databases of other formats.
const OTHER_RPM: [&str; 4] = [
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
    "usr/lib/sysimage/rpm/Packages.db",
];

/// What is known of the packages of both images.
pub(super) struct Packages<'a> {
    roots: [&'a Root; 2],
    versions: [Versions; 2],
    /// Whether a list of rpm's was read.
    lists_rpm: [bool; 2],
}

impl<'a> Packages<'a> {
    /// Reads what the package managers of both say.
    pub(super) fn installed(roots: [&'a Root; 2]) -> Self {
        let rpm = roots.map(rpm_list);
        let lists_rpm = rpm.each_ref().map(Option::is_some);
        let mut versions = roots.map(installed);
        for (found, list) in versions.iter_mut().zip(rpm) {
            add_rpm(list.unwrap_or_default(), found);
        }
        Self { roots, versions, lists_rpm }
    }

    /// Hears of a file that differs: it may belong to a package that nobody lists.
    pub(super) fn hear(&mut self, difference: &Difference) {
        let Ok(path) = std::str::from_utf8(&difference.path) else { return };
        for side in 0..2 {
            if difference.sides[side].is_none() {
                continue;
            }
            let found = python(path).or_else(|| node(path, self.roots[side]));
            if let Some((kind, name, version)) = found {
                self.versions[side].insert((kind, name), version);
            }
        }
    }

    /// What differs, and what could not be read.
    pub(super) fn told(self) -> (Vec<PackageChange>, Vec<String>) {
        let [mut ones, mut others] = self.versions;
        let names: BTreeSet<_> = ones.keys().chain(others.keys()).cloned().collect();
        let change = |key: (&'static str, String)| {
            let (before, after) = (ones.remove(&key), others.remove(&key));
            (before != after).then_some(PackageChange { kind: key.0, name: key.1, before, after })
        };
        let changes = names.into_iter().filter_map(change).collect();
        let has_rpm = |root: &Root| RPM.iter().chain(&OTHER_RPM).any(|path| root.contains(path).unwrap_or(false));
        let is_unread = |side: usize| !self.lists_rpm[side] && has_rpm(self.roots[side]);
        let note = "packages of rpm are not read: a database of this format counts as a file";
        (changes, (0..2).any(is_unread).then(|| note.to_owned()).into_iter().collect())
    }
}

/// What rpm lists, if it does in a format that is read.
fn rpm_list(root: &Root) -> Option<Vec<rpm::Package>> {
    RPM.iter().find_map(|path| rpm::list(root.read_to_limit(path, LIST).ok()?))
}

/// What dpkg and apk say is installed. A list that cannot be read says nothing.
fn installed(root: &Root) -> Versions {
    let read = |path: &str| {
        let bytes = root.read_to_limit(path, LIST).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut found = Versions::new();
    dpkg(&read("var/lib/dpkg/status"), &mut found);
    // Images without a package manager have one file for each package.
    for entry in root.read_dir("var/lib/dpkg/status.d").unwrap_or_default() {
        if let Some(name) = entry.name.to_str().filter(|name| !name.ends_with(".md5sums")) {
            dpkg(&read(&format!("var/lib/dpkg/status.d/{name}")), &mut found);
        }
    }
    for place in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        apk(&read(place), &mut found);
    }
    found
}

fn add_rpm(list: Vec<rpm::Package>, found: &mut Versions) {
    for (name, version, architecture) in list {
        // Kernels and keys are there several times.
        let names = [name.clone(), format!("{name}.{architecture}"), format!("{name}-{version}")];
        let free = names.into_iter().map(|name| ("rpm", name)).find(|key| !found.contains_key(key));
        free.map(|key| found.insert(key, version));
    }
}

fn dpkg(text: &str, found: &mut Versions) {
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let is_installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
        let (Some(name), Some(version), true) = (field("Package"), field("Version"), is_installed) else { continue };
        let mut key = ("deb", name.to_owned());
        if found.contains_key(&key) {
            key.1 = format!("{name}:{}", field("Architecture").unwrap_or_default());
        }
        found.insert(key, version.to_owned());
    }
}

fn apk(text: &str, found: &mut Versions) {
    for paragraph in text.split("\n\n") {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name));
        if let (Some(name), Some(version)) = (field("P:"), field("V:")) {
            found.insert(("apk", name.to_owned()), version.to_owned());
        }
    }
}

type Package = (&'static str, String, String);

/// `…/NAME-VERSION.dist-info`, or `….egg-info`.
fn python(path: &str) -> Option<Package> {
    let last = path.rsplit('/').next()?;
    let stem = last.strip_suffix(".dist-info").or_else(|| last.strip_suffix(".egg-info"))?;
    let mut parts = stem.split('-');
    let (name, version) = (parts.next()?, parts.next()?);
    Some(("python", name.replace('_', "-").to_lowercase(), version.to_owned()))
}

/// `…/node_modules/NAME/package.json`, or `…/node_modules/@SCOPE/NAME/package.json`.
fn node(path: &str, root: &Root) -> Option<Package> {
    let directory = path.strip_suffix("/package.json")?;
    let (_, name) = directory.rsplit_once("node_modules/")?;
    let is_package = !name.contains('/') || (name.starts_with('@') && name.matches('/').count() == 1);
    let text = root.read_to_limit(path, DESCRIPTION).ok().filter(|_| is_package)?;
    let description: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(("node", name.to_owned(), description["version"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::ops::ControlFlow;

    use super::*;

    const STATUS: &str = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7.88\nDescription: x\n Version: 9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2\n\n\
        Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2\n";

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open_ambient(dir.path()).unwrap();
        (dir, root)
    }

    fn told(ones: &[(&str, &str)], others: &[(&str, &str)]) -> (Vec<String>, usize) {
        let (one, other) = (tree(ones), tree(others));
        let mut packages = Packages::installed([&one.1, &other.1]);
        let mut hear = |difference: Difference| {
            packages.hear(&difference);
            ControlFlow::Continue(())
        };
        kiln_fs::layer::compare([&one.1, &other.1], &[], &mut hear).unwrap();
        let (changes, notes) = packages.told();
        let version = |version: Option<String>| version.unwrap_or_else(|| "-".into());
        let line = |c: PackageChange| format!("{} {} {} {}", c.kind, c.name, version(c.before), version(c.after));
        (changes.into_iter().map(line).collect(), notes.len())
    }

    #[test]
    fn versions_of_every_kind_are_told() {
        let newer = STATUS.replace("7.88", "8.0") + "\nPackage: jq\nStatus: install ok installed\nVersion: 1\n";
        let (apk, apk_newer) = ("C:Q1\nP:musl\nV:1.2\n\nP:zlib\nV:1\n", "P:musl\nV:1.3\n\nP:zlib\nV:1\n");
        let node = |version: &str| format!("{{\"name\":\"x\",\"version\":\"{version}\"}}");
        let (old, new) = (node("1.0.0"), node("1.1.0"));
        let ones = [
            ("var/lib/dpkg/status", STATUS),
            ("lib/apk/db/installed", apk),
            ("app/node_modules/@s/x/package.json", &old),
            ("app/node_modules/y/package.json", &old),
            ("app/node_modules/y/lib/package.json", "{}"),
            ("usr/lib/python3/site-packages/Some_Thing-1.0.dist-info/METADATA", ""),
        ];
        let others = [
            ("var/lib/dpkg/status", newer.as_str()),
            ("lib/apk/db/installed", apk_newer),
            ("app/node_modules/@s/x/package.json", &new),
            ("app/node_modules/y/lib/package.json", "{ }"),
            ("usr/lib/python3/site-packages/Some_Thing-1.1.dist-info/METADATA", ""),
            ("var/lib/rpm/rpmdb.sqlite", ""),
        ];
        let expected = [
            "apk musl 1.2 1.3",
            "deb curl 7.88 8.0",
            "deb jq - 1",
            "node @s/x 1.0.0 1.1.0",
            "node y 1.0.0 -",
            "python some-thing 1.0 1.1",
        ];
        assert_eq!(told(&ones, &others), (expected.map(str::to_owned).to_vec(), 1));
        assert_eq!(told(&ones, &ones), (vec![], 0));
    }

    #[test]
    fn rpm_s_list_is_read_and_what_is_in_other_formats_is_said() {
        let (empty, full) = (tree(&[]), tree(&[("var/lib/rpm/rpmdb.sqlite", "")]));
        fs::write(full.0.path().join("var/lib/rpm/rpmdb.sqlite"), rpm::tests::installed()).unwrap();
        let (changes, notes) = Packages::installed([&empty.1, &full.1]).told();
        let told: Vec<_> = changes.iter().map(|change| (change.kind, &*change.name, change.after.as_deref())).collect();
        assert_eq!(told, [("rpm", "lib", Some("0.9-1")), ("rpm", "tool", Some("1:2.1-3"))]);
        assert!(notes.is_empty(), "{notes:?}");
        for place in OTHER_RPM {
            let other = tree(&[(place, "x")]);
            assert_eq!(Packages::installed([&empty.1, &other.1]).told().1.len(), 1, "{place}");
        }
    }
}
