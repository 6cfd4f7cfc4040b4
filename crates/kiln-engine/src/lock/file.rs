//! The lock file: where it lies, and its text. One name a line, sorted, so that differences are easy to read.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use kiln_report::{Failure, FailureKind};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::LockChange;
use super::wants::Kind;
use crate::failure::{Context as _, build};
use crate::frontend::{open_root, read_text, settled};
use crate::job::Result;
use crate::request::{BuildRequest, Context, DockerfileSource};

/// What locks are called; they lie beside their Dockerfile.
const NAME: &str = "kiln.lock";

/// What a Dockerfile is called that has no name.
const NAMELESS: &str = "-";

/// The form that is written; another one is not read.
const VERSION: u32 = 1;

/// No lock is larger.
const LARGEST: u64 = 16 << 20;

/// What a Dockerfile's names stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    #[serde(default, deserialize_with = "once_each", skip_serializing_if = "BTreeMap::is_empty")]
    syntax: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "once_each", skip_serializing_if = "BTreeMap::is_empty")]
    images: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "once_each", skip_serializing_if = "BTreeMap::is_empty")]
    downloads: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "once_each", skip_serializing_if = "BTreeMap::is_empty")]
    repositories: BTreeMap<String, String>,
}

/// All of a file: a section for each Dockerfile beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default, deserialize_with = "once_each")]
    dockerfiles: BTreeMap<String, Section>,
}

/// What is the same in all forms.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

impl Section {
    /// What a name stands for.
    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<&str> {
        self.of(kind).get(name).map(String::as_str)
    }

    /// Says what a name stands for.
    pub(super) fn set(&mut self, kind: Kind, name: String, value: String) {
        match kind {
            Kind::Syntax => &mut self.syntax,
            Kind::Image => &mut self.images,
            Kind::Download => &mut self.downloads,
            Kind::Repository => &mut self.repositories,
        }
        .insert(name, value);
    }

    fn of(&self, kind: Kind) -> &BTreeMap<String, String> {
        match kind {
            Kind::Syntax => &self.syntax,
            Kind::Image => &self.images,
            Kind::Download => &self.downloads,
            Kind::Repository => &self.repositories,
        }
    }

    /// All names, by kind, and what they stand for.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        Kind::ALL.into_iter().flat_map(|kind| self.of(kind).iter().map(move |(name, at)| (kind, &**name, &**at)))
    }

    /// What is different in a newer one.
    pub(super) fn changes(&self, newer: &Self) -> Vec<LockChange> {
        let gone = self.entries().filter(|(kind, name, _)| newer.get(*kind, name).is_none());
        let gone =
            gone.map(|(_, name, old)| LockChange { name: name.to_owned(), old: Some(old.to_owned()), new: None });
        let other = newer.entries().filter(|(kind, name, new)| self.get(*kind, name) != Some(new));
        let other = other.map(|(kind, name, new)| LockChange {
            name: name.to_owned(),
            old: self.get(kind, name).map(str::to_owned),
            new: Some(new.to_owned()),
        });
        let mut changes: Vec<LockChange> = gone.chain(other).collect();
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        changes
    }
}

/// Where a Dockerfile's lock is, and what it holds.
#[derive(Debug)]
pub(crate) struct Home {
    /// The file, for people; a path of this machine unless the context came from elsewhere.
    pub(crate) path: PathBuf,
    /// What the Dockerfile is called in it.
    name: String,
    file: Option<File>,
}

impl Home {
    /// Finds the lock beside a build's Dockerfile. `directory` is the main context, if there is any.
    pub(crate) fn find(request: &BuildRequest, directory: Option<&Path>) -> Result<Self> {
        let root = directory.map(open_root).transpose()?;
        let dockerfile = settled(request, root.as_ref())?;
        let (beside, name) = beside(&dockerfile);
        let is_in_context = matches!(first(&dockerfile), DockerfileSource::InContext(_) | DockerfileSource::Text(_));
        let (path, text) = match (&root, directory) {
            (Some(root), Some(directory)) if is_in_context => {
                let within = beside.join(NAME);
                let text = read_text(root, &within.to_string_lossy())?;
                let is_here = matches!(request.context, Context::Dir(_));
                (if is_here { directory.join(&within) } else { within }, text)
            }
            _ => {
                let path = beside.join(NAME);
                let text = read(&path)?;
                (path, text)
            }
        };
        let file = text.map(|text| parse(&path, &text)).transpose()?;
        Ok(Self { path, name, file })
    }

    /// What the lock holds for the Dockerfile; nothing if there is none.
    pub(crate) fn section(&self) -> Option<&Section> {
        self.file.as_ref()?.dockerfiles.get(&self.name)
    }

    /// The failure that says that there is nothing for the Dockerfile.
    pub(crate) fn missing(&self) -> Failure {
        let (path, name) = (self.path.display(), &self.name);
        if name == NAMELESS {
            let failure = Failure::new(FailureKind::Build, "a Dockerfile that is no file of the context has no lock");
            return failure.hint("write it to a file, lock that with `kiln lock -f FILE`, and build it with `-f FILE`");
        }
        let failure = |message| Failure::new(FailureKind::Build, message);
        match &self.file {
            None => {
                failure(format!("there is no lock of this Dockerfile: no `{path}`")).hint("make one with `kiln lock`")
            }
            Some(file) => {
                let others: Vec<String> = file.dockerfiles.keys().map(|other| format!("`{other}`")).collect();
                let others = if others.is_empty() { "is empty".into() } else { format!("is of {}", others.join(", ")) };
                failure(format!("there is no lock of `{name}` in `{path}`, which {others}"))
                    .hint("add one with `kiln lock` and the same `-f`")
            }
        }
    }

    /// Writes the lock with another section, whole or not at all.
    #[expect(clippy::disallowed_methods, reason = "it stands beside the Dockerfile that whoever runs us names")]
    pub(super) fn write(self, section: Section) -> Result<()> {
        let mut file = self.file.unwrap_or(File { version: VERSION, dockerfiles: BTreeMap::new() });
        file.dockerfiles.insert(self.name, section);
        let text = format!("{}\n", serde_json::to_string_pretty(&file).expect("plain data serialises"));
        let doing = || format!("cannot write `{}`", self.path.display());
        let beside = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut fresh = tempfile::Builder::new().prefix(".kiln.lock-").tempfile_in(beside).or_environment(doing)?;
        fresh.write_all(text.as_bytes()).or_environment(doing)?;
        let mode = std::fs::metadata(&self.path)
            .map_or(0o644, |found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()));
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o777);
        fresh.as_file().set_permissions(permissions).or_environment(doing)?;
        fresh.persist(&self.path).map(drop).or_environment(doing)
    }
}

/// Of several Dockerfiles the first.
fn first(dockerfile: &DockerfileSource) -> &DockerfileSource {
    match dockerfile {
        DockerfileSource::Several(all) => all.first().map_or(dockerfile, first),
        one => one,
    }
}

/// The directory of a Dockerfile, and what it is called there.
fn beside(dockerfile: &DockerfileSource) -> (PathBuf, String) {
    let of = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (path.parent().map(Path::to_owned).unwrap_or_default(), name)
    };
    match dockerfile {
        DockerfileSource::Path(path) => of(path),
        DockerfileSource::InContext(path) => of(Path::new(path)),
        DockerfileSource::Text(_) | DockerfileSource::Remote(_) | DockerfileSource::Default => {
            (PathBuf::new(), NAMELESS.to_owned())
        }
        DockerfileSource::Several(all) => {
            let names: Vec<String> = all.iter().map(|one| beside(one).1).collect();
            (beside(first(dockerfile)).0, names.join("+"))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it stands beside the Dockerfile that whoever runs us names")]
fn read(path: &Path) -> Result<Option<String>> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).or_environment(|| format!("cannot read `{}`", path.display())),
    }
}

fn parse(path: &Path, text: &str) -> Result<File> {
    let unreadable = |error: serde_json::Error| {
        let failure = Failure { message: format!("cannot read `{}`", path.display()), ..build(&error) };
        Failure { causes: vec![error.to_string()], ..failure }
            .hint("mend it, or remove it and write it anew with `kiln lock`")
    };
    // Another form may have other fields.
    let Form { version } = serde_json::from_str(text).map_err(unreadable)?;
    if version == VERSION {
        return serde_json::from_str(text).map_err(unreadable);
    }
    let message = format!("`{}` is of version {version}, and this kiln reads version {VERSION}", path.display());
    Err(Failure::new(FailureKind::Build, message).hint("use the kiln that wrote it, or remove it and write it anew"))
}

/// A map that has each name once: of two values for one name, as merges may leave them, nobody knows which is meant.
fn once_each<'de, D, V>(text: D) -> std::result::Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Once<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Once<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("names and what they stand for")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some(name) = entries.next_key::<String>()? {
                if found.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("`{name}` is there twice")));
                }
                found.insert(name, entries.next_value()?);
            }
            Ok(found)
        }
    }

    text.deserialize_map(Once(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(dir: &Path, dockerfile: DockerfileSource) -> Home {
        let context = Context::Dir(dir.to_owned());
        Home::find(&BuildRequest { context, dockerfile, ..BuildRequest::default() }, Some(dir)).unwrap()
    }

    #[test]
    fn each_dockerfile_has_a_section_of_its_own_and_each_name_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut section = Section::default();
        section.set(Kind::Image, "b:1".into(), "sha256:2".into());
        section.set(Kind::Image, "a:1".into(), "sha256:1".into());
        let own = || DockerfileSource::InContext("Dockerfile".into());
        let other = || DockerfileSource::Path(dir.path().join("x.Dockerfile"));
        assert!(home(dir.path(), own()).section().is_none());
        assert!(home(dir.path(), own()).missing().message.contains("no `"));
        home(dir.path(), own()).write(section.clone()).unwrap();
        home(dir.path(), other()).write(Section::default()).unwrap();
        assert_eq!(home(dir.path(), own()).section(), Some(&section));
        assert_eq!(home(dir.path(), other()).section(), Some(&Section::default()));
        let third = home(dir.path(), DockerfileSource::InContext("third".into())).missing();
        assert!(third.message.ends_with("which is of `Dockerfile`, `x.Dockerfile`"), "{third:?}");
        let typed = home(dir.path(), DockerfileSource::Text(String::new())).missing();
        assert!(typed.message.contains("no file") && typed.hints[0].contains("`kiln lock -f FILE`"), "{typed:?}");
        let text = std::fs::read_to_string(dir.path().join("kiln.lock")).unwrap();
        let wanted = "        \"a:1\": \"sha256:1\",\n        \"b:1\": \"sha256:2\"\n";
        assert!(text.contains(wanted) && text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn differences_are_told_by_name() {
        let section = |entries: &[(&str, &str)]| {
            let mut section = Section::default();
            entries.iter().for_each(|(name, at)| section.set(Kind::Image, (*name).into(), (*at).into()));
            section
        };
        let changes =
            section(&[("a", "1"), ("b", "1"), ("d", "1")]).changes(&section(&[("b", "2"), ("c", "1"), ("d", "1")]));
        let told: Vec<_> = changes.iter().map(|c| (c.name.as_str(), c.old.as_deref(), c.new.as_deref())).collect();
        assert_eq!(told, [("a", Some("1"), None), ("b", Some("1"), Some("2")), ("c", None, Some("1"))]);
    }

    #[test]
    fn a_lock_of_another_form_is_refused() {
        let refused = |text: &str| parse(Path::new("kiln.lock"), text).unwrap_err().to_string();
        for newer in [r#"{"version": 2}"#, r#"{"version": 2, "stages": {}}"#] {
            assert!(refused(newer).contains("is of version 2, and this kiln reads version 1"), "{}", refused(newer));
        }
        assert!(refused(r#"{"version": 1, "dockerfiles": {"D": {"image": {}}}}"#).contains("cannot read `kiln.lock`"));
        assert!(refused("{").contains("cannot read"));
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_with_its_line() {
        let causes = |text: &str| parse(Path::new("kiln.lock"), text).unwrap_err().causes.join("");
        let twice = "{\"version\": 1, \"dockerfiles\": {\"D\": {\"images\": {\n\"a:1\": \"x\",\n\"b:1\": \"x\",\n\"a:1\": \"y\"}}}}";
        assert!(causes(twice).starts_with("`a:1` is there twice at line 4"), "{}", causes(twice));
        assert!(
            causes("{\"version\": 1, \"dockerfiles\": {\"D\": {},\n\"D\": {}}}")
                .contains("`D` is there twice at line 2")
        );
        assert!(causes("{\"version\": 1,\n\"version\": 1}").contains("line 2"));
        assert!(
            causes("{\"version\": 1, \"dockerfiles\": {\"D\": {\"images\": {},\n\"images\": {}}}}").contains("line 2")
        );
    }

    #[test]
    fn a_lock_is_written_beside_and_put_in_its_place_whole() {
        let dir = tempfile::tempdir().unwrap();
        let own = || DockerfileSource::InContext("Dockerfile".into());
        home(dir.path(), own()).write(Section::default()).unwrap();
        let path = dir.path().join("kiln.lock");
        let (old, before) = (std::fs::read(&path).unwrap(), std::fs::File::open(&path).unwrap());
        let mut section = Section::default();
        section.set(Kind::Image, "a:1".into(), "sha256:1".into());
        home(dir.path(), own()).write(section).unwrap();
        // Who had it open reads what was there, to the end.
        assert_eq!(std::io::read_to_string(before).unwrap().into_bytes(), old);
        assert_ne!(std::fs::read(&path).unwrap(), old);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}
