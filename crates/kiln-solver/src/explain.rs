//! Why a step ran although steps are cached: the ingredients of its key, then and now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kiln_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::key::Part;
use crate::parts::{Files, InputPart, KeyParts, Setting};

/// Why a step had to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissReason {
    /// Nothing is known of it: it never ran to its end here.
    FirstBuild,
    /// Nothing is known of it, and it stands where one stood that now stands elsewhere.
    NewInstruction,
    /// It is to do something else.
    CommandChanged,
    /// A build argument has another value, is new, or is gone.
    ArgChanged(Change),
    /// An environment variable has another value, is new, or is gone.
    EnvChanged(Change),
    /// What it reads has changed.
    FilesChanged {
        /// What people call the input they are in.
        input: String,
        /// The first of the changed files by name, where they are listed.
        files: Vec<FileChange>,
        /// How many changed; 0 where they are not listed.
        count: usize,
    },
    /// The name of its image leads to another one.
    BaseMoved {
        /// The name.
        reference: String,
        /// What it led to.
        old: Digest,
        /// What it leads to.
        new: Digest,
    },
    /// Its mounts are others.
    MountChanged,
    /// It is to run on another platform.
    PlatformChanged,
    /// Another setting has changed: the network, the user.
    OptionChanged(Change),
    /// Its definition has changed in a way that has no name.
    StepChanged,
    /// It was told not to use the cache.
    NoCacheAsked,
    /// Nothing has changed, but its result is gone.
    ResultPruned,
    /// Nothing has changed, but its result was broken and had to be forgotten.
    ResultLost,
    /// What it builds upon is another.
    InputChanged {
        /// What people call the input.
        input: String,
    },
    /// Several of its own ingredients have changed, each reason enough.
    Several(Vec<MissReason>),
}

impl MissReason {
    /// Each of several, or it alone.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Several(reasons) => reasons,
            only => std::slice::from_ref(only),
        }
    }
}

/// A setting that has another value, is new, or is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub name: String,
    /// What it was, unless it was not.
    pub old: Option<Setting>,
    /// What it is, unless it is not.
    pub new: Option<Setting>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(Setting::Shown(old)), Some(Setting::Shown(new))) => {
                write!(f, "{} {} → {}", self.name, quoted(old), quoted(new))
            }
            (Some(_), Some(_)) => write!(f, "{} changed", self.name),
            (None, Some(_)) => write!(f, "{} is new", self.name),
            (_, None) => write!(f, "{} is gone", self.name),
        }
    }
}

/// Nothing can be seen of an empty value.
fn quoted(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}

/// A file that is another, is new, or is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Where it is in what is read.
    pub path: String,
    /// What became of it.
    pub became: Became,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It has another content, mode, owner or attribute.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let became = match self.became {
            Became::Changed => "changed",
            Became::Added => "is new",
            Became::Removed => "is gone",
        };
        write!(f, "{} {became}", self.path)
    }
}

/// So many changed files are named; of the others there is only the number.
const NAMED: usize = 100;

/// Says what made the new key differ from the old one: all that the step itself brought, else what it inherited.
pub fn explain(old: &KeyParts, new: &KeyParts) -> MissReason {
    let mut own = own_changes(old, new);
    own.extend(files_changed(old, new));
    if own.len() > 1 {
        return MissReason::Several(own);
    }
    own.pop()
        .or_else(|| input_changed(old, new))
        .or_else(|| (old.digest != new.digest).then_some(MissReason::StepChanged))
        .unwrap_or(MissReason::ResultPruned)
}

/// Of several sets of ingredients the one that a new set differs least from; of equals the first.
pub fn nearest<'a>(sets: &'a [KeyParts], new: &KeyParts) -> Option<&'a KeyParts> {
    sets.iter().min_by_key(|old| distance(old, new))
}

/// How many ingredients differ, and how many files.
fn distance(old: &KeyParts, new: &KeyParts) -> (usize, usize) {
    let whole = [old.command != new.command, old.platform != new.platform, old.base != new.base];
    let whole = whole.iter().chain([&(old.mounts != new.mounts)]).filter(|differs| **differs).count();
    let named = [(&old.args, &new.args), (&old.env, &new.env), (&old.options, &new.options)];
    let named: usize = named.map(|(old, new)| differences(old, new).len()).iter().sum();
    let pairs = old.inputs.iter().zip(&new.inputs).filter(|(old, new)| old.part != new.part);
    let inputs = pairs.clone().count() + old.inputs.len().abs_diff(new.inputs.len());
    let files = pairs.map(|(old, new)| changed_files(&old.files, &new.files).len()).sum();
    let ingredients = whole + named + inputs;
    (ingredients.max(usize::from(old.digest != new.digest)), files)
}

/// What the step does, and with what settings, as far as that has changed.
fn own_changes(old: &KeyParts, new: &KeyParts) -> Vec<MissReason> {
    if let (Some(old), Some(new)) = (&old.base, &new.base)
        && old.reference == new.reference
        && old.digest != new.digest
    {
        let (old, new, reference) = (old.digest.clone(), new.digest.clone(), new.reference.clone());
        return vec![MissReason::BaseMoved { reference, old, new }];
    }
    let is_other = old.command != new.command || old.base != new.base;
    // Steps that run nothing have no platform.
    let is_elsewhere = old.platform != new.platform && !is_other;
    let whole = [
        (is_other, MissReason::CommandChanged),
        (is_elsewhere, MissReason::PlatformChanged),
        (old.mounts != new.mounts, MissReason::MountChanged),
    ];
    let mut changes: Vec<_> = whole.into_iter().filter(|(has, _)| *has).map(|(_, reason)| reason).collect();
    changes.extend(differences(&old.args, &new.args).into_iter().map(MissReason::ArgChanged));
    changes.extend(differences(&old.env, &new.env).into_iter().map(MissReason::EnvChanged));
    let is_in_both = |change: &Change| change.old.is_some() && change.new.is_some();
    let options = differences(&old.options, &new.options).into_iter().filter(is_in_both);
    changes.extend(options.map(MissReason::OptionChanged));
    changes
}

fn files_changed(old: &KeyParts, new: &KeyParts) -> Vec<MissReason> {
    let pairs = old.inputs.iter().zip(&new.inputs);
    let changed = pairs.filter(|(_, new)| matches!(new.part, Part::Content(_))).filter(|(o, n)| o.part != n.part);
    let reason = |(old, new): (&InputPart, &InputPart)| {
        let is_listed = !old.files.is_empty() && !new.files.is_empty();
        let mut files = if is_listed { changed_files(&old.files, &new.files) } else { Vec::new() };
        let count = files.len();
        files.truncate(NAMED);
        MissReason::FilesChanged { input: new.name.clone(), files, count }
    };
    changed.map(reason).collect()
}

fn input_changed(old: &KeyParts, new: &KeyParts) -> Option<MissReason> {
    let named = |input: &InputPart| MissReason::InputChanged { input: input.name.clone() };
    let pairs = old.inputs.iter().zip(&new.inputs);
    let other = pairs.clone().find(|(old, new)| old.part != new.part).map(|(_, new)| new);
    let shared = pairs.len();
    other.or_else(|| new.inputs.get(shared)).or_else(|| old.inputs.get(shared)).map(named)
}

/// Settings whose value differs, or that only one side has; by name.
fn differences(old: &BTreeMap<String, Setting>, new: &BTreeMap<String, Setting>) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change =
        |name: &String| Change { name: name.clone(), old: old.get(name).cloned(), new: new.get(name).cloned() };
    names.into_iter().filter(|name| old.get(*name) != new.get(*name)).map(change).collect()
}

fn changed_files(old: &Files, new: &Files) -> Vec<FileChange> {
    let became = |path: &String| match (old.get(path), new.get(path)) {
        (None, _) => Became::Added,
        (_, None) => Became::Removed,
        _ => Became::Changed,
    };
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    let other = new.iter().filter(|(path, print)| old.get(*path) != Some(print)).map(|(path, _)| path);
    let mut files: Vec<FileChange> =
        gone.chain(other).map(|path| FileChange { path: path.clone(), became: became(path) }).collect();
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    files
}

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstBuild => f.write_str("first build"),
            Self::NewInstruction => f.write_str("first build (new instruction)"),
            Self::CommandChanged => f.write_str("command changed"),
            Self::ArgChanged(change) => write!(f, "ARG {change}"),
            Self::EnvChanged(change) => write!(f, "ENV {change}"),
            Self::FilesChanged { input, files, count } => match files.as_slice() {
                [] if input.starts_with("[internal]") => f.write_str("files changed"),
                [] => write!(f, "files changed in {}", short_name(input)),
                [only] => write!(f, "{}{only}", place_of_files(input)),
                [first, ..] => write!(f, "{}{first} ({count} files in all)", place_of_files(input)),
            },
            Self::BaseMoved { reference, old, new } => {
                write!(f, "base moved: {reference} {} → {}", old.short(), new.short())
            }
            Self::MountChanged => f.write_str("mounts changed"),
            Self::PlatformChanged => f.write_str("platform changed"),
            Self::OptionChanged(change) => write!(f, "{change}"),
            Self::StepChanged => f.write_str("step changed"),
            Self::NoCacheAsked => f.write_str("no cache asked for"),
            Self::ResultPruned => f.write_str("result pruned"),
            Self::ResultLost => f.write_str("result lost"),
            Self::InputChanged { input } => write!(f, "input changed: {}", short_name(input)),
            Self::Several(reasons) => {
                let is_variable = |reason: &Self| matches!(reason, Self::ArgChanged(_) | Self::EnvChanged(_));
                let what = if reasons.iter().all(is_variable) { "variables" } else { "changes" };
                let Some(first) = reasons.first() else { return Ok(()) };
                write!(f, "{first} ({} {what} in all)", reasons.len())
            }
        }
    }
}

/// What stands before the names of files of a named context: `c: ` for those of `[context c] load`.
pub fn place_of_files(input: &str) -> String {
    let name = short_name(input).strip_prefix("[context ").and_then(|rest| rest.strip_suffix(']'));
    name.map(|name| format!("{name}: ")).unwrap_or_default()
}

/// The part of a step's name that tells it apart: `[build 2/4]` of `[build 2/4] RUN go build`.
pub fn short_name(name: &str) -> &str {
    let end = name.starts_with('[').then(|| name.find(']')).flatten();
    end.map_or(name, |end| &name[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::CacheKey;
    use crate::parts::Base;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, Setting> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Setting::shown(value))).collect()
    }

    fn listed(files: &[(&str, u64)]) -> Files {
        files.iter().map(|(path, print)| ((*path).to_owned(), *print)).collect()
    }

    fn input(name: &str, part: Part) -> InputPart {
        InputPart { name: name.to_owned(), part, files: Files::new() }
    }

    fn named(name: &str, key: &str) -> InputPart {
        input(name, Part::Definition { key: CacheKey(Digest::sha256(key)), output: 0 })
    }

    fn content(value: &str, files: &[(&str, u64)]) -> InputPart {
        InputPart {
            files: listed(files),
            ..input("[internal] load build context", Part::Content(Digest::sha256(value)))
        }
    }

    fn base(reference: &str, digest: &str) -> Option<Base> {
        Some(Base { reference: reference.to_owned(), digest: Digest::sha256(digest) })
    }

    fn parts() -> KeyParts {
        KeyParts {
            identity: "app build 3".to_owned(),
            command: Some("RUN make".to_owned()),
            args: settings(&[("VERSION", "1")]),
            env: settings(&[("PATH", "/bin")]),
            mounts: vec!["cache /root".to_owned()],
            platform: Some("linux/amd64".to_owned()),
            base: base("busybox", "1"),
            options: settings(&[("network", "none")]),
            digest: Some(Digest::sha256("all")),
            inputs: vec![named("[build 2/4] COPY . .", "copy"), content("ctx", &[("a", 1), ("b", 1)])],
            ..KeyParts::default()
        }
    }

    fn after(change: impl FnOnce(&mut KeyParts)) -> String {
        let mut new = parts();
        change(&mut new);
        explain(&parts(), &new).to_string()
    }

    #[test]
    fn each_ingredient_is_named() {
        assert_eq!(after(|_| ()), "result pruned");
        assert_eq!(after(|p| p.command = Some("RUN make all".to_owned())), "command changed");
        assert_eq!(after(|p| p.args = settings(&[("VERSION", "2")])), "ARG VERSION 1 → 2");
        assert_eq!(after(|p| p.args = settings(&[("VERSION", "1"), ("A", "")])), "ARG A is new");
        assert_eq!(after(|p| p.args = settings(&[("VERSION", "")])), "ARG VERSION 1 → \"\"");
        assert_eq!(after(|p| p.args.clear()), "ARG VERSION is gone");
        let private = |p: &mut KeyParts| drop(p.args.insert("VERSION".to_owned(), Setting::hidden("3")));
        assert_eq!(after(private), "ARG VERSION changed");
        assert_eq!(after(|p| p.env = settings(&[("PATH", "/sbin")])), "ENV PATH /bin → /sbin");
        assert_eq!(after(|p| p.mounts.clear()), "mounts changed");
        assert_eq!(after(|p| p.platform = None), "platform changed");
        let other_step = |p: &mut KeyParts| (p.platform, p.command) = (None, Some("WORKDIR /a".to_owned()));
        assert_eq!(after(other_step), "command changed");
        assert_eq!(after(|p| p.options = settings(&[("network", "host")])), "network none → host");
        let hosts = |p: &mut KeyParts| drop(p.options.insert("hosts".to_owned(), Setting::hidden("db")));
        assert_eq!(after(hosts), "result pruned", "an older version kept none to compare with");
        assert_eq!(after(|p| p.digest = None), "step changed");
        assert_eq!(after(|p| p.base = base("busybox", "2")), "base moved: busybox 6b86b273ff34 → d4735e3a265e");
        assert_eq!(after(|p| p.base = base("debian", "2")), "command changed");
    }

    #[test]
    fn a_changed_file_is_named_where_files_are_listed() {
        assert_eq!(after(|p| p.inputs[1] = content("new", &[])), "files changed");
        let stage = |p: &mut KeyParts| p.inputs[1] = input("[build 2/2] RUN make", content("new", &[]).part);
        assert_eq!(after(stage), "files changed in [build 2/2]");
        assert_eq!(after(|p| p.inputs[1] = content("new", &[("a", 1), ("b", 2)])), "b changed");
        assert_eq!(after(|p| p.inputs[1] = content("new", &[("b", 2), ("c", 1)])), "a is gone (3 files in all)");
        assert_eq!(after(|p| p.inputs[1] = content("new", &[("a", 1), ("b", 1)])), "files changed");
    }

    #[test]
    fn an_input_is_named_by_its_place_and_only_when_its_part_changed() {
        assert_eq!(after(|p| p.inputs[0] = named("[build 2/5] COPY . .", "new")), "input changed: [build 2/5]");
        assert_eq!(after(|p| p.inputs[0] = named("[build 2/5] COPY . .", "copy")), "result pruned");
        assert_eq!(after(|p| p.inputs.push(named("tools", "t"))), "input changed: tools");
        assert_eq!(after(|p| p.inputs.truncate(0)), "input changed: [build 2/4]");
    }

    #[test]
    fn own_causes_come_before_inherited_ones() {
        let both = |p: &mut KeyParts| {
            p.inputs[0] = named("[build 2/4] COPY . .", "new");
            p.inputs[1] = content("new", &[("a", 2), ("b", 1)]);
        };
        assert_eq!(after(both), "a changed");
        assert_eq!(after(|p| (both(p), p.command = None).1), "command changed (2 changes in all)");
    }

    #[test]
    fn all_own_causes_are_told_and_in_a_line_the_first_and_how_many() {
        let variables = |p: &mut KeyParts| {
            p.args = settings(&[("VERSION", "2"), ("NEW", "1")]);
            p.env = settings(&[("PATH", "/sbin")]);
        };
        assert_eq!(after(variables), "ARG NEW is new (3 variables in all)");
        let mut new = parts();
        variables(&mut new);
        new.command = Some("RUN other".to_owned());
        new.inputs[1] = content("new", &[("a", 1), ("b", 2)]);
        let told = explain(&parts(), &new);
        let each: Vec<String> = told.each().iter().map(ToString::to_string).collect();
        let wanted = ["command changed", "ARG NEW is new", "ARG VERSION 1 → 2", "ENV PATH /bin → /sbin", "b changed"];
        assert_eq!(each, wanted);
        assert_eq!(told.to_string(), "command changed (5 changes in all)");
        assert_eq!(MissReason::StepChanged.each(), [MissReason::StepChanged]);
    }

    #[test]
    fn files_of_other_places_are_told_with_the_place() {
        let other = |files: &[(&str, u64)]| {
            let name = "[context c] load from client".to_owned();
            InputPart { name, ..content(&format!("{files:?}"), files) }
        };
        let with = |input: InputPart| KeyParts { inputs: vec![input], ..parts() };
        let told = |new| explain(&with(other(&[("f", 1), ("g", 1)])), &with(other(new))).to_string();
        assert_eq!(told(&[("f", 2), ("g", 1)]), "c: f changed");
        assert_eq!(told(&[("f", 2)]), "c: f changed (2 files in all)");
    }

    #[test]
    fn the_nearest_of_several_sets_gives_the_smallest_reason() {
        let set = |version: &str, files: &[(&str, u64)]| {
            let mut parts = parts();
            parts.args = settings(&[("VERSION", version)]);
            parts.inputs[1] = content(&format!("{files:?}"), files);
            parts
        };
        let sets = [
            set("2", &[("a", 2), ("b", 2), ("c", 2)]),
            set("1", &[("a", 1), ("b", 1), ("c", 1)]),
            set("3", &[("a", 1), ("b", 1), ("c", 1)]),
        ];
        let reason = |new: &KeyParts| explain(nearest(&sets, new).expect("there are some"), new).to_string();
        assert_eq!(reason(&set("1", &[("a", 2), ("b", 1), ("c", 1)])), "a changed", "not ARG VERSION 2 → 1");
        assert_eq!(reason(&set("2", &[("a", 1), ("b", 2), ("c", 2)])), "a changed");
        assert_eq!(reason(&set("4", &[("a", 1), ("b", 1), ("c", 1)])), "ARG VERSION 1 → 4", "the newer of equals");
        assert_eq!(reason(&sets[2]), "result pruned");
        assert_eq!(nearest(&[], &sets[0]), None);
        let mut other = sets[1].clone();
        other.digest = None;
        assert_eq!(reason(&other), "step changed");
    }

    #[test]
    fn parts_survive_being_kept() {
        let kept = serde_json::to_vec(&parts()).expect("plain data");
        assert_eq!(serde_json::from_slice::<KeyParts>(&kept).expect("what was written"), parts());
    }
}
