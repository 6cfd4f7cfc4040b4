//! The record of a build: what was asked for, what became of each step and why. Never a secret.

mod recipe;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use kiln_dockerfile::check::sounds_secret;
use kiln_graph::{Definition, VertexId};
use kiln_oci::{Digest, Hasher, Platform};
use kiln_report::{Failure, without_credentials};
use kiln_solver::{Account, Fate, KeyParts, MissReason, Setting};
use kiln_store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::BuildResult;
use crate::arrival::place_of;
use crate::failure::environment;
use crate::job::{Patience, Result};
use crate::redact::Redactor;
use crate::request::{BuildRequest, Pull};
pub use recipe::Recipe;

/// One build, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its name.
    pub id: String,
    /// When it began, in milliseconds since 1970.
    pub started: u64,
    /// How long it took.
    pub time: Duration,
    /// What was built: builds of equal targets can be compared.
    pub target: BuildTarget,
    /// How.
    pub options: BuildOptions,
    /// How it ended.
    pub outcome: BuildOutcome,
    /// The steps, inputs first.
    pub steps: Vec<StepRecord>,
    /// The Dockerfile's text; empty when it was not read, or is very long.
    pub dockerfile: String,
    /// How to do it again, if that can be known.
    #[serde(default)]
    pub recipe: Option<Recipe>,
}

/// What a build is a build of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildTarget {
    /// A name for the directory and the Dockerfile, as steps are known by.
    pub project: String,
    /// The context's directory; empty for one from standard input.
    pub context: String,
    /// The Dockerfile's name.
    pub dockerfile: String,
    /// The stage that was asked for.
    pub stage: Option<String>,
    /// The platforms, with commas between them.
    pub platform: String,
}

/// What was asked for that can make steps run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOptions {
    /// Build arguments.
    pub build_args: BTreeMap<String, Setting>,
    /// Whether no cached result was to be used.
    pub no_cache: bool,
    /// Stages whose cached results were not to be used.
    pub no_cache_filter: Vec<String>,
    /// Whether base images were looked up at their registry.
    pub pull: bool,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildOutcome {
    /// It made what was asked for.
    Done {
        /// The image's id, if there is an image.
        image: Option<Digest>,
        /// The ids of the images that an index is of.
        #[serde(default)]
        images: Vec<Digest>,
        /// The image's names, in full.
        names: Vec<String>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
    },
    /// It was stopped.
    Canceled,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// What people call it.
    pub name: String,
    /// Positions of the steps it reads.
    pub inputs: Vec<usize>,
    /// What became of it.
    pub fate: Fate,
    /// Why it ran.
    pub reason: Option<MissReason>,
    /// Whether it ran and gave what it gave before.
    pub is_same: bool,
    /// How long it ran.
    pub time: Duration,
    /// How often it was tried, if more than once.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// First and last line of its instruction, from 1.
    pub lines: Option<(usize, usize)>,
    /// The ingredients of its key, without the names of files.
    pub parts: Option<KeyParts>,
}

/// So much of an id is shown to people.
const SHORT: usize = 12;

impl BuildRecord {
    /// The part of its name that people are shown.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..SHORT).unwrap_or(&self.id)
    }

    /// Whether every step was found, so that nothing ran.
    pub fn is_cached(&self) -> bool {
        let is_found = |step: &StepRecord| step.parts.is_none() || matches!(step.fate, Fate::Cached | Fate::NotNeeded);
        matches!(self.outcome, BuildOutcome::Done { .. }) && self.steps.iter().all(is_found)
    }

    /// What a build that found everything found.
    fn state(&self) -> Option<String> {
        let BuildOutcome::Done { image, names, .. } = self.is_cached().then_some(&self.outcome)? else { return None };
        let mut hasher = Hasher::new();
        image.iter().for_each(|image| hasher.field(image.as_str().as_bytes()));
        names.iter().for_each(|name| hasher.field(name.as_bytes()));
        let last = self.steps.iter().filter_map(|step| step.parts.as_ref()?.digest.as_ref());
        last.for_each(|digest| hasher.field(digest.as_str().as_bytes()));
        Some(hasher.finish().short().to_owned())
    }
}

impl BuildTarget {
    /// A short name for it.
    fn key(&self) -> String {
        let mut hasher = Hasher::new();
        for field in [&self.project, self.stage.as_deref().unwrap_or_default(), &self.platform] {
            hasher.field(field.as_bytes());
        }
        hasher.finish().short().to_owned()
    }
}

/// Longer Dockerfiles are not kept.
const LONGEST_DOCKERFILE: usize = 64 << 10;

/// What a record may take when it is unpacked; more is none of ours.
const LARGEST: usize = 64 << 20;

/// The record of a build that is going on. It is written when the build ends; one that is dropped was stopped.
pub(crate) struct Draft {
    store: Store,
    begun: Instant,
    record: BuildRecord,
    /// Private values that names and messages may bring.
    private: Vec<String>,
    is_written: bool,
}

impl Draft {
    pub(crate) fn new(store: Store, request: &BuildRequest, platforms: &[Platform]) -> Self {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let context = place_of(&request.context);
        let id = Digest::sha256(format!("{context} {} {}", started.as_nanos(), std::process::id()));
        let record = BuildRecord {
            id: id.hex()[..25].to_owned(),
            started: u64::try_from(started.as_millis()).unwrap_or_default(),
            time: Duration::ZERO,
            target: BuildTarget {
                project: String::new(),
                context,
                dockerfile: String::new(),
                stage: request.target.clone(),
                platform: platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(","),
            },
            options: options(request),
            outcome: BuildOutcome::Canceled,
            steps: Vec::new(),
            dockerfile: String::new(),
            recipe: Recipe::of(request),
        };
        let private = request.build_args.iter().filter(|(name, _)| is_private(name)).map(|(_, value)| value.clone());
        Self { store, begun: Instant::now(), record, private: private.collect(), is_written: false }
    }

    /// The build's own name.
    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    /// The same in the shape of buildx: builder, node, id.
    pub(crate) fn reference(&self) -> String {
        format!("kiln/local/{}", self.record.id)
    }

    /// Learns what is built.
    pub(crate) fn know(&mut self, project: &str, definition: &Definition) {
        self.record.target.project = project.to_owned();
        if let Some(source) = definition.sources().first() {
            self.record.target.dockerfile = source.name().to_owned();
            if source.text().len() <= LONGEST_DOCKERFILE {
                self.record.dockerfile = source.text().to_owned();
            }
        }
    }

    /// Learns what became of the steps.
    pub(crate) fn steps(&mut self, definition: &Definition, patience: &Patience, accounts: Vec<Account>) {
        let step = |account: Account| StepRecord {
            lines: lines(definition, &account.id),
            attempts: patience.attempts(&account.id.0),
            name: account.name,
            inputs: account.inputs,
            fate: account.fate,
            reason: account.reason,
            is_same: account.is_same,
            time: account.time,
            parts: account.parts,
        };
        self.record.steps = accounts.into_iter().map(step).collect();
    }

    /// Writes it down. A record that cannot be written is lost, and nothing else.
    pub(crate) fn end(mut self, outcome: &Result<BuildResult>) {
        self.record.outcome = match outcome {
            Ok(BuildResult { image_id: image, images, names, .. }) => {
                BuildOutcome::Done { image: image.clone(), images: images.clone(), names: names.clone() }
            }
            Err(failure) => BuildOutcome::Failed { message: message(failure) },
        };
        self.write();
    }

    fn write(&mut self) {
        self.is_written = true;
        self.record.time = self.begun.elapsed();
        let Some(value) = pack(&self.record, &self.private) else { return };
        let build = kiln_store::Build {
            id: self.record.id.clone(),
            target: self.record.target.key(),
            state: self.record.state(),
            value,
        };
        let _ = self.store.builds().put(&build);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_written {
            self.write();
        }
    }
}

/// First and last line of the instruction that a vertex was made of.
pub(crate) fn lines(definition: &Definition, vertex: &VertexId) -> Option<(usize, usize)> {
    let (index, span) = definition.vertex(vertex)?.meta.source?;
    let source = definition.sources().get(index)?;
    Some((source.position(span.start).0, source.position(span.end.max(span.start + 1) - 1).0))
}

/// All builds that can be read, newest first.
pub(crate) fn list(store: &Store) -> Result<Vec<BuildRecord>> {
    let builds = store.builds().list().map_err(environment)?;
    Ok(builds.iter().filter_map(|build| unpack(&build.value)).collect())
}

fn pack(record: &BuildRecord, private: &[String]) -> Option<Vec<u8>> {
    let text = if private.is_empty() {
        serde_json::to_string(record).ok()?
    } else {
        let mut value = serde_json::to_value(record).ok()?;
        mask(&mut value, &Redactor::new(private.iter().map(String::as_bytes)));
        value.to_string()
    };
    zstd::bulk::compress(without_credentials(&text).as_bytes(), 1).ok()
}

/// Masks private values in all texts.
fn mask(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => {
            let mut redactor = redactor.clone();
            let mut shown = redactor.push(std::mem::take(text).into_bytes());
            shown.extend(redactor.finish());
            *text = String::from_utf8_lossy(&shown).into_owned();
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask(value, redactor)),
        Value::Object(fields) => fields.values_mut().for_each(|value| mask(value, redactor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn unpack(value: &[u8]) -> Option<BuildRecord> {
    serde_json::from_slice(&zstd::bulk::decompress(value, LARGEST).ok()?).ok()
}

/// Whether the values of a variable are for nobody's eyes: what sounds secret, and proxies, which may have passwords.
fn is_private(name: &str) -> bool {
    sounds_secret(name) || name.to_ascii_lowercase().ends_with("_proxy")
}

fn options(request: &BuildRequest) -> BuildOptions {
    let setting = |(name, value): (&String, &String)| {
        let setting = if is_private(name) { Setting::hidden(value) } else { Setting::shown(value) };
        (name.clone(), setting)
    };
    BuildOptions {
        build_args: request.build_args.iter().map(setting).collect(),
        no_cache: request.no_cache,
        no_cache_filter: request.no_cache_filter.clone(),
        pull: matches!(request.pull, Pull::Always | Pull::Newer),
    }
}

fn message(failure: &Failure) -> String {
    let causes = std::iter::once(&failure.message).chain(&failure.causes);
    causes.cloned().collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(request: &BuildRequest) -> BuildRecord {
        let dir = tempfile::tempdir().unwrap();
        let mut draft = draft_in(Store::open(&dir.path().join("state")).unwrap(), request);
        draft.is_written = true;
        draft.record.clone()
    }

    fn draft_in(store: Store, request: &BuildRequest) -> Draft {
        Draft::new(store, request, &[Platform::linux("amd64")])
    }

    fn step(fate: Fate, parts: Option<KeyParts>) -> StepRecord {
        StepRecord {
            name: "[1/1] RUN x".into(),
            inputs: vec![],
            fate,
            reason: None,
            is_same: false,
            time: Duration::from_micros(1500),
            attempts: None,
            lines: Some((2, 3)),
            parts,
        }
    }

    #[test]
    fn values_that_sound_private_are_not_in_the_record() {
        let args = [("API_TOKEN", "one"), ("https_proxy", "two"), ("VERSION", "three")];
        let build_args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut record = record(&BuildRequest { build_args, ..BuildRequest::default() });
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains("three") && !text.contains("\"one") && !text.contains("\"two"), "{text}");
        assert_eq!(unpack(&pack(&record, &[]).unwrap()).unwrap(), record);
        record.dockerfile = "a \"quoted\" value".to_owned();
        let shown = unpack(&pack(&record, &["\"quoted\"".to_owned(), "steps".to_owned()]).unwrap()).unwrap();
        assert_eq!(shown.dockerfile, "a **** value");
    }

    #[test]
    fn a_build_is_cached_when_nothing_that_lasts_ran() {
        let mut record = record(&BuildRequest::default());
        let parts = || Some(KeyParts::default());
        record.steps = vec![step(Fate::Ran, None), step(Fate::NotNeeded, parts()), step(Fate::Cached, parts())];
        assert!(!record.is_cached(), "it was canceled");
        record.outcome = BuildOutcome::Done { image: None, images: vec![], names: vec![] };
        assert!(record.is_cached() && record.state().is_some());
        record.steps.push(step(Fate::Ran, parts()));
        assert!(!record.is_cached() && record.state().is_none());
    }

    #[test]
    fn a_build_that_is_dropped_is_recorded_as_canceled() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let ids = [(); 2].map(|()| {
            let draft = draft_in(store.clone(), &BuildRequest::default());
            draft.record.id.clone()
        });
        let failure = Failure::new(kiln_report::FailureKind::Build, "no");
        draft_in(store.clone(), &BuildRequest::default()).end(&Err(failure));
        let builds = list(&store).unwrap();
        assert_eq!(builds[0].outcome, BuildOutcome::Failed { message: "no".into() });
        assert!(builds[1..].iter().all(|build| build.outcome == BuildOutcome::Canceled));
        assert_eq!([builds[2].id.clone(), builds[1].id.clone()], ids);
    }
}
