//! The leak guard: what a client lends in secret is looked for in every layer that a build makes, and in its configs.
//!
//! A step is free to transform what it was lent, so this is best effort and no boundary. But what is found is kept
//! nowhere: the build fails before the layer is one.

mod forms;
mod parts;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use kiln_fs::{Found, FoundIn, Patterns};
use kiln_oci::ImageConfig;
use kiln_report::{Event, Failure, FailureKind, Reporter};
use kiln_sys::limits::refuse_core_dumps;
use kiln_sys::secret::Secret;
use serde_json::Value;

use crate::failure::environment;
use crate::job::Result;
use crate::redact::Redactor;
use crate::request::Annotation;
use crate::scratch::open_dir;
use crate::session::{Session, Watched};
pub(crate) use forms::forms;
pub(crate) use parts::{lines, passwords, telling};

/// A layer, as messages call it.
const LAYER: &str = "what the step leaves";
/// How many places a message names.
const SHOWN: usize = 5;

/// Looks for what was lent. Where nothing was, it does nothing.
pub(crate) struct Guard {
    session: Arc<dyn Session>,
    reporter: Arc<dyn Reporter>,
    /// Ids of what may be in the image.
    accepted: BTreeSet<String>,
    known: OnceLock<Known>,
}

/// What is looked for; made when it is first wanted.
struct Known {
    values: Vec<Secret>,
    redactor: Redactor,
    refused: Option<Wanted>,
    accepted: Option<Wanted>,
}

/// Patterns, and what each of them is.
struct Wanted {
    patterns: Patterns,
    meanings: Vec<Meaning>,
}

#[derive(Clone)]
struct Meaning {
    /// As in "secret `npm`".
    name: String,
    id: String,
    /// As in "in base64".
    form: &'static str,
}

/// What was found, and where.
struct Leak {
    meaning: Meaning,
    place: String,
}

impl Guard {
    /// Looks for all that a session lends, and fails for what is not accepted.
    pub(crate) fn new(session: &Arc<dyn Session>, reporter: &Arc<dyn Reporter>, accepted: &[String]) -> Self {
        Self {
            session: Arc::clone(session),
            reporter: Arc::clone(reporter),
            accepted: accepted.iter().cloned().collect(),
            known: OnceLock::new(),
        }
    }

    /// Its share of a step's key: what was made while leaks were accepted is no result for those who accept none.
    pub(crate) fn key(&self) -> Option<String> {
        let ids: Vec<&str> = self.accepted.iter().map(String::as_str).collect();
        (!ids.is_empty()).then(|| ids.join("\n"))
    }

    /// Fails when a tree that is to become a layer holds a secret.
    pub(crate) fn check_layer(&self, upper: &Path) -> Result<()> {
        self.judge(LAYER, &|wanted| {
            let found = kiln_fs::search_layer(&open_dir(upper)?, &wanted.patterns).map_err(environment)?;
            Ok(found.iter().map(|found| wanted.leak(found.pattern, place(found))).collect())
        })
    }

    /// Whether a tree that is no layer, as a cache mount, holds a secret that may not leak. One that cannot be read may.
    pub(crate) fn is_in(&self, dir: &Path) -> bool {
        let Ok(Known { refused: Some(wanted), .. }) = self.known() else { return false };
        let found = open_dir(dir).and_then(|dir| kiln_fs::search_layer(&dir, &wanted.patterns).map_err(environment));
        found.map_or(true, |found| !found.is_empty())
    }

    /// Fails when the config of an image holds a secret.
    pub(crate) fn check_config(&self, config: &ImageConfig) -> Result<()> {
        self.judge("the image's config", &|wanted| {
            let document = serde_json::to_value(config).map_err(environment)?;
            let mut leaks = Vec::new();
            each_text(&document, &mut String::new(), &mut |path, text| {
                leaks.extend(wanted.leaks(text, || format!("`{path}`")));
            });
            Ok(leaks)
        })
    }

    /// Fails when an annotation of an image holds a secret.
    pub(crate) fn check_annotations(&self, annotations: &[Annotation]) -> Result<()> {
        self.judge("the image's annotations", &|wanted| {
            let leaks = annotations.iter().flat_map(|Annotation { key, value, .. }| {
                let name = wanted.leaks(key, || "the name of an annotation".to_owned());
                name.or_else(|| wanted.leaks(value, || format!("annotation `{key}`")))
            });
            Ok(leaks.collect())
        })
    }

    /// Masks all that is lent, and these values, which a step was given.
    pub(crate) fn redactor(&self, given: &[&[u8]]) -> Result<Redactor> {
        let known = self.known()?;
        let values: Vec<&[u8]> = known.values.iter().map(Secret::expose).collect();
        if given.iter().all(|value| values.contains(value)) {
            return Ok(known.redactor.clone());
        }
        Ok(Redactor::new(values.iter().chain(given).copied()))
    }

    fn judge(&self, place: &str, search: &dyn Fn(&Wanted) -> Result<Vec<Leak>>) -> Result<()> {
        let known = self.known()?;
        if let Some(wanted) = &known.refused {
            let leaks = known.masked(search(wanted)?);
            if !leaks.is_empty() {
                return Err(refusal(place, &leaks));
            }
        }
        if let Some(wanted) = &known.accepted {
            for leak in known.masked(search(wanted)?) {
                let note = format!("warning: {} is in the image, as was allowed: {}", leak.meaning.name, leak.told());
                self.reporter.report(Event::Note(note));
            }
        }
        Ok(())
    }

    fn known(&self) -> Result<&Known> {
        if self.known.get().is_none() {
            let watched = self.session.watched()?;
            if !watched.is_empty() {
                refuse_core_dumps();
            }
            let values: Vec<Secret> = watched.iter().map(|watched| watched.value.clone()).collect();
            let redactor = Redactor::new(values.iter().map(Secret::expose));
            let (accepted, refused) = watched.into_iter().partition(|watched| self.accepted.contains(&watched.id));
            let (refused, accepted) = (Wanted::of(refused), Wanted::of(accepted));
            // Who comes second throws theirs away.
            let _ = self.known.set(Known { values, redactor, refused, accepted });
        }
        Ok(self.known.get().expect("it was just set"))
    }
}

impl Known {
    /// Takes secrets out of where they were found: a directory may be called so.
    fn masked(&self, leaks: Vec<Leak>) -> Vec<Leak> {
        let mask = |place: String| {
            let mut redactor = self.redactor.clone();
            let masked = [redactor.push(place.into_bytes()), redactor.finish()].concat();
            String::from_utf8_lossy(&masked).into_owned()
        };
        leaks.into_iter().map(|leak| Leak { place: mask(leak.place), ..leak }).collect()
    }
}

impl Wanted {
    fn of(watched: Vec<Watched>) -> Option<Self> {
        let (mut all, mut meanings) = (Vec::new(), Vec::new());
        for watched in watched {
            for part in telling(watched.value.expose()) {
                for (form, bytes) in forms(&part) {
                    all.push(bytes);
                    meanings.push(Meaning { name: watched.name(), id: watched.id.clone(), form });
                }
            }
        }
        Some(Self { patterns: Patterns::new(&all)?, meanings })
    }

    /// What is in a text, if anything.
    fn leaks(&self, text: &str, place: impl FnOnce() -> String) -> Option<Leak> {
        self.patterns.find(text.as_bytes()).map(|pattern| self.leak(pattern, place()))
    }

    fn leak(&self, pattern: usize, place: String) -> Leak {
        Leak { meaning: self.meanings[pattern].clone(), place }
    }
}

impl Leak {
    fn told(&self) -> String {
        format!("{} holds it {}", self.place, self.meaning.form)
    }
}

fn refusal(place: &str, leaks: &[Leak]) -> Failure {
    let names: BTreeSet<&str> = leaks.iter().map(|leak| leak.meaning.name.as_str()).collect();
    let ids: BTreeSet<&str> = leaks.iter().map(|leak| leak.meaning.id.as_str()).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let mut failure = Failure::new(FailureKind::Build, format!("{names} {verb} in {place}"));
    failure.causes = leaks.iter().take(SHOWN).map(Leak::told).collect();
    if leaks.len() > SHOWN {
        failure.causes.push(format!("and {} more", leaks.len() - SHOWN));
    }
    let allow: Vec<String> = ids.into_iter().map(|id| format!("--allow-leak {id}")).collect();
    let way_out = match place {
        LAYER => {
            "keep it out of the image: remove the file in the step that writes it, or write it to a `--mount=type=tmpfs`"
        }
        _ => {
            "keep it out of the image: lend it to the step that needs it by `RUN --mount=type=secret`, not by `ARG`, `ENV` or a label"
        }
    };
    failure.hint(way_out).hint(format!("if everybody who has the image may know it, build with `{}`", allow.join(" ")))
}

fn place(found: &Found) -> String {
    let path = format!("/{}", String::from_utf8_lossy(&found.path));
    match &found.place {
        FoundIn::Name => format!("the name of a file in `{}`", parent(&path)),
        FoundIn::Target => format!("the link `{path}`"),
        FoundIn::Attribute(name) => format!("the attribute `{name}` of `{path}`"),
        FoundIn::Content { line: Some(line), .. } => format!("`{path}`, line {line},"),
        FoundIn::Content { offset, line: None } => format!("`{path}`, after {offset} bytes,"),
        FoundIn::Packed(None) => format!("`{path}`, unpacked,"),
        FoundIn::Packed(Some(name)) => format!("`{name}` in the archive `{path}`"),
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty()).unwrap_or("/")
}

/// Visits every text of a document, and every name, which are told by where they are.
fn each_text(value: &Value, path: &mut String, visit: &mut dyn FnMut(&str, &str)) {
    let within = path.len();
    match value {
        Value::String(text) => visit(path, text),
        Value::Array(all) => {
            for (index, value) in all.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                each_text(value, path, visit);
                path.truncate(within);
            }
        }
        Value::Object(all) => {
            for (name, value) in all {
                visit(if path.is_empty() { "/" } else { path }, name);
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(name);
                each_text(value, path, visit);
                path.truncate(within);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests;
