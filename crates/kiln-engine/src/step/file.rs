//! File steps: `COPY`, `ADD`, `WORKDIR`, and whatever else changes files without running a process.

mod edits;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kiln_fs::copy::ModeChange;
use kiln_fs::{CopySpec, Reading};
use kiln_graph::llb::{ChownOpt, FileAction, FileActionCopy, FileActionKind, FileOp, UserKind, UserOpt};
use kiln_oci::{Digest, Hasher};
use kiln_report::{Failure, FailureKind};
use kiln_solver::{CacheMap, Files, InputKey, KeyParts, Step};
use kiln_store::{ActiveSnapshot, Snapshot};
use kiln_sys::root::Root;
use prost::Message as _;

use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::failure::Context as _;
use crate::frontend::LocalTree;
use crate::job::{Readings, Result};
use crate::scratch::{Scratch, open_dir};
use crate::step::missing::{Doing, QUIET};
use crate::step::{Opened, Place};
use edits::Stamp;

/// How long a context is taken to be as it was read. Files that change meanwhile are noticed one by one.
const FRESH: Duration = Duration::from_secs(1);

/// One file vertex.
#[derive(Clone)]
pub(crate) struct FileStep {
    pub(crate) place: Place,
    pub(crate) op: FileOp,
}

#[async_trait]
impl Step<Artifact, Failure> for FileStep {
    async fn cache_map(&self) -> Result<CacheMap> {
        let mut hasher = self.place.layer_hasher("file");
        hasher.field(&self.op.encode_to_vec());
        let inputs = (0..self.place.inputs).map(|input| self.input_key(input)).collect();
        Ok(self.place.cache_map(hasher.finish(), inputs, KeyParts::default()))
    }

    async fn content_digest(&self, input: usize, result: &Artifact) -> Result<Digest> {
        let (step, artifact) = (self.clone(), result.clone());
        blocking(move || step.digest(input, &artifact).map_err(|failure| step.place.blame(failure))).await
    }

    async fn listing(&self, input: usize, result: &Artifact) -> Files {
        // Snapshots would have to be read through, and contexts are what people change.
        let Artifact::Tree(tree) = result else { return Files::new() };
        let (step, tree) = (self.clone(), Arc::clone(tree));
        blocking(move || step.readings(input, &tree))
            .await
            .map_or_else(|_| Files::new(), |readings| readings.each.iter().flat_map(Reading::prints).collect())
    }

    fn shows(&self, input: usize) -> bool {
        self.copies(input).all(is_plain)
    }

    async fn run(&self, inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        let step = self.clone();
        let outputs = blocking(move || {
            let mut work = Work { step: &step, inputs: &inputs, slots: Vec::new() };
            work.run().map_err(|failure| step.place.blame(failure))
        })
        .await?;
        self.place.made(&outputs);
        Ok(outputs.into_iter().map(Artifact::Snapshot).collect())
    }
}

impl FileStep {
    /// An input that is only copied from counts by what is copied; one that is changed, by who it is.
    fn input_key(&self, input: usize) -> InputKey {
        let copies: Vec<&FileActionCopy> = self.copies(input).collect();
        if copies.is_empty() || self.op.actions.iter().any(|action| action.input == input as i64) {
            return InputKey::Definition;
        }
        InputKey::Content { selector: self.selector(input) }
    }

    fn selector(&self, input: usize) -> String {
        let mut hasher = Hasher::new();
        for copy in self.copies(input) {
            hasher.field(&selection(copy).encode_to_vec());
        }
        format!("copy {}", hasher.finish())
    }

    fn copies(&self, input: usize) -> impl Iterator<Item = &FileActionCopy> {
        self.op.actions.iter().filter(move |action| action.secondary_input == input as i64).filter_map(|action| {
            match &action.action {
                Some(FileActionKind::Copy(copy)) => Some(copy),
                _ => None,
            }
        })
    }

    fn digest(&self, input: usize, artifact: &Artifact) -> Result<Digest> {
        if let Artifact::Tree(tree) = artifact {
            return Ok(joined(self.readings(input, tree)?.each.iter().map(Reading::digest)));
        }
        let opened = self.place.open(artifact)?;
        let digest = |copy: &FileActionCopy| {
            // Snapshots are read once: their files are not worth a place in the cache of digests.
            let digest = kiln_fs::digest_copy(opened.tree(), &copy_spec(copy, None)?, &kiln_fs::NoCache);
            digest.map_err(|error| Doing::copy(&copy.src, &copy.dest).failure(&error, &opened))
        };
        let digests: Vec<Digest> = self.copies(input).map(digest).collect::<Result<_>>()?;
        Ok(joined(&digests))
    }

    /// What this step's copies read of a context. It is looked at once in a build: what is copied is what the key says.
    fn readings(&self, input: usize, tree: &Arc<LocalTree>) -> Result<Readings> {
        match self.place.job.seen.get(tree.name(), &self.selector(input)) {
            Some(readings) => Ok(readings),
            None => self.read(input, tree),
        }
    }

    /// The same when it is time to copy. If that is long after the key was made, files may have been touched and still be
    /// what they were.
    fn readings_now(&self, input: usize, tree: &Arc<LocalTree>) -> Result<Readings> {
        let before = self.readings(input, tree)?;
        if before.time.elapsed() < FRESH {
            return Ok(before);
        }
        let now = self.read(input, tree)?;
        if now.each.iter().map(Reading::digest).eq(before.each.iter().map(Reading::digest)) {
            return Ok(now);
        }
        let what = self.copies(input).map(|copy| copy.src.as_str()).collect::<Vec<_>>().join("`, `");
        let failure = Failure::new(FailureKind::Build, format!("`{what}` changed while it was copied"));
        Err(failure.hint(QUIET))
    }

    fn read(&self, input: usize, tree: &Arc<LocalTree>) -> Result<Readings> {
        let cache = self.place.job.store.stat_cache();
        let read = |copy: &FileActionCopy| {
            let reading = kiln_fs::read_copy(tree.tree(), &copy_spec(copy, None)?, &cache);
            let opened = Opened::Tree(Arc::clone(tree));
            reading.map_err(|error| Doing::copy(&copy.src, &copy.dest).failure(&error, &opened))
        };
        let each = self.copies(input).map(read).collect::<Result<_>>()?;
        let readings = Readings { each, time: Instant::now() };
        self.place.job.seen.put(tree.name(), &self.selector(input), readings.clone());
        Ok(readings)
    }
}

/// The digest of what several copies read.
fn joined<'d>(digests: impl IntoIterator<Item = &'d Digest>) -> Digest {
    let mut hasher = Hasher::new();
    digests.into_iter().for_each(|digest| hasher.field(digest.as_str().as_bytes()));
    hasher.finish()
}

/// Whether all that counts of what is read is in what is made: modes, owners, names, and archives as they are.
fn is_plain(copy: &FileActionCopy) -> bool {
    let has_mode = copy.mode >= 0 || !copy.mode_str.is_empty();
    let is_wild = copy.allow_wildcard && copy.src.contains(['*', '?', '[', '\\']);
    !(has_mode || copy.owner.is_some() || is_wild || copy.attempt_unpack_docker_compatibility)
}

/// What of a copy decides which files are read: equal selections of one input read the same.
fn selection(copy: &FileActionCopy) -> FileActionCopy {
    FileActionCopy {
        dest: String::new(),
        owner: None,
        mode: 0,
        mode_str: String::new(),
        timestamp: 0,
        create_dest_path: false,
        always_replace_existing_dest_paths: false,
        ..copy.clone()
    }
}

/// The actions of one step, done in order. A slot holds what an action made until a later one goes on from it.
struct Work<'a> {
    step: &'a FileStep,
    inputs: &'a [Artifact],
    slots: Vec<Option<Tree>>,
}

/// A tree being written.
struct Tree {
    // Before what it has mounted.
    root: Root,
    /// Whether something was put beneath the mount.
    is_stale: Cell<bool>,
    scratch: Scratch<ActiveSnapshot>,
}

impl Tree {
    fn mount(scratch: Scratch<ActiveSnapshot>) -> Result<Self> {
        Ok(Self { root: scratch.open()?, is_stale: Cell::new(false), scratch })
    }

    /// Shows all that is there.
    fn renew(self) -> Result<Self> {
        if !self.is_stale.get() {
            return Ok(self);
        }
        drop(self.root);
        Self::mount(self.scratch)
    }
}

impl Work<'_> {
    fn run(&mut self) -> Result<Vec<Snapshot>> {
        for action in &self.step.op.actions {
            let tree = self.begin(action)?;
            self.act(action, &tree)?;
            self.slots.push(Some(tree));
        }
        let mut outputs: Vec<(i64, usize)> = self
            .step
            .op
            .actions
            .iter()
            .enumerate()
            .filter(|(_, a)| a.output >= 0)
            .map(|(i, a)| (a.output, i))
            .collect();
        outputs.sort_unstable();
        let trees: Vec<Tree> = outputs.iter().filter_map(|(_, slot)| self.slots[*slot].take()).collect();
        for tree in &trees {
            self.step.place.job.guard.check_layer(&tree.scratch.changes()?)?;
        }
        trees.into_iter().map(commit).collect()
    }

    /// Where an action writes: a new tree on an input, or the tree an earlier action made.
    fn begin(&mut self, action: &FileAction) -> Result<Tree> {
        let inputs = self.inputs.len() as i64;
        if action.input >= inputs {
            let slot = usize::try_from(action.input - inputs).ok().and_then(|slot| self.slots.get_mut(slot));
            let message = "a file step goes on twice from one action, which is not supported yet";
            let tree = slot.and_then(Option::take).ok_or_else(|| Failure::new(FailureKind::Build, message))?;
            return tree.renew();
        }
        let parent = match usize::try_from(action.input) {
            Ok(index) => Some(self.inputs[index].snapshot()?),
            Err(_) => None,
        };
        let job = &self.step.place.job;
        Tree::mount(Scratch::upon(&job.store, parent, &job.lease)?)
    }

    fn act(&self, action: &FileAction, tree: &Tree) -> Result<()> {
        let stamp = |owner: Option<&ChownOpt>, time: i64| {
            Ok::<_, Failure>(Stamp { owner: self.owner(owner, tree)?, time: stamp(time) })
        };
        match &action.action {
            Some(FileActionKind::Copy(copy)) => self.copy(action, copy, tree),
            Some(FileActionKind::MkDir(op)) => {
                let stamp = stamp(op.owner.as_ref(), op.timestamp)?;
                edits::make_dir(&tree.root, &op.path, op.mode as u32, op.make_parents, stamp)
            }
            Some(FileActionKind::MkFile(op)) => {
                let stamp = stamp(op.owner.as_ref(), op.timestamp)?;
                edits::make_file(&tree.root, &op.path, op.mode as u32, &op.data, stamp)
            }
            Some(FileActionKind::Symlink(op)) => {
                let stamp = stamp(op.owner.as_ref(), op.timestamp)?;
                edits::make_symlink(&tree.root, &op.oldpath, &op.newpath, stamp)
            }
            Some(FileActionKind::Rm(op)) if op.allow_wildcard && op.path.contains(['*', '?', '[']) => {
                Err(edits::no_wildcards(&op.path))
            }
            Some(FileActionKind::Rm(op)) => edits::remove(&tree.root, &op.path, op.allow_not_found),
            None => Err(Failure::new(FailureKind::Build, "a file step has an action kiln does not know")),
        }
    }

    fn copy(&self, action: &FileAction, copy: &FileActionCopy, tree: &Tree) -> Result<()> {
        let nothing = Artifact::Snapshot(Snapshot::scratch());
        let source = match usize::try_from(action.secondary_input) {
            Ok(index) => self.inputs.get(index),
            Err(_) => Some(&nothing),
        };
        let source = source
            .ok_or_else(|| Failure::new(FailureKind::Build, "a copy from an earlier action is not supported yet"))?;
        let opened = self.step.place.open(source)?;
        let owner = self.owner(copy.owner.as_ref(), tree)?;
        let limits = self.step.place.job.registry.limits();
        let spec = CopySpec { limits, ..copy_spec(copy, owner)? };
        let upper = tree.scratch.is_stacked().then(|| open_dir(&tree.scratch.upper_dir())).transpose()?;
        let target = kiln_fs::Target { root: &tree.root, upper: upper.as_ref() };
        let stats = match self.reading(action, source)? {
            Some((readings, place)) => readings.each[place].copy_upon(opened.tree(), target, &spec),
            None => kiln_fs::copy_upon(opened.tree(), target, &spec),
        };
        let stats = stats.map_err(|error| Doing::copy(&copy.src, &copy.dest).failure(&error, &opened))?;
        tree.is_stale.set(stats.is_beneath);
        Ok(())
    }

    /// What an action reads of a context, among what the step does.
    fn reading(&self, action: &FileAction, source: &Artifact) -> Result<Option<(Readings, usize)>> {
        let (Artifact::Tree(tree), Ok(input)) = (source, usize::try_from(action.secondary_input)) else {
            return Ok(None);
        };
        let before = self.step.op.actions.iter().take_while(|other| !std::ptr::eq(*other, action));
        let is_copy = |other: &&FileAction| matches!(other.action, Some(FileActionKind::Copy(_)));
        let place = before.filter(is_copy).filter(|other| other.secondary_input == action.secondary_input).count();
        Ok(Some((self.step.readings_now(input, tree)?, place)))
    }

    /// The numbers of an owner, names looked up in the tree that is written.
    fn owner(&self, owner: Option<&ChownOpt>, tree: &Tree) -> Result<Option<(u32, u32)>> {
        let Some(owner) = owner else { return Ok(None) };
        let name = |option: Option<&UserOpt>| match option.and_then(|o| o.user.as_ref()) {
            Some(UserKind::ByName(named)) => Some(named.name.clone()),
            Some(UserKind::ById(id)) => Some(id.to_string()),
            None => None,
        };
        let Some(user) = name(owner.user.as_ref()) else { return Ok(None) };
        let text = match name(owner.group.as_ref()) {
            Some(group) => format!("{user}:{group}"),
            None => user.clone(),
        };
        let found =
            kiln_exec::resolve_owner(&tree.root, &text).or_build(|| format!("cannot give files to `{text}`"))?;
        Ok(Some(found))
    }
}

fn commit(tree: Tree) -> Result<Snapshot> {
    let Tree { root, scratch, .. } = tree;
    // What is mounted cannot be kept.
    drop(root);
    scratch.commit()
}

fn stamp(time: i64) -> Option<i64> {
    (time >= 0).then_some(time)
}

/// A copy of the graph as kiln-fs reads it.
pub(crate) fn copy_spec(copy: &FileActionCopy, owner: Option<(u32, u32)>) -> Result<CopySpec> {
    let mode = match (copy.mode_str.as_str(), copy.mode) {
        ("", mode) if mode < 0 => None,
        ("", mode) => Some(ModeChange::Octal(mode as u32 & 0o7777)),
        (text, _) => Some(text.parse::<ModeChange>().or_build(|| "cannot change modes".into())?),
    };
    Ok(CopySpec {
        src: copy.src.clone(),
        dest: copy.dest.clone(),
        owner,
        mode,
        // Only a plain number is for the directories on the way too.
        parents_mode: (copy.mode_str.is_empty() && copy.mode >= 0).then_some(copy.mode as u32),
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required_paths: copy.required_paths.clone(),
        unpack_archives: copy.attempt_unpack_docker_compatibility,
        limits: kiln_fs::Limits::default(),
        always_replace: copy.always_replace_existing_dest_paths,
        timestamp: stamp(copy.timestamp),
        on_host: false,
    })
}
