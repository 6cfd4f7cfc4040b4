//! What is told of leaks.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Mutex;

use kiln_report::Silent;

use super::*;
use crate::session::WatchedKind;
use crate::ssh::SshAgent;

/// A client with these secrets.
struct Lent(Vec<(&'static str, &'static str)>);

impl Session for Lent {
    fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn ssh(&self, _id: &str) -> Result<Option<SshAgent>> {
        Ok(None)
    }

    fn watched(&self) -> Result<Vec<Watched>> {
        Ok(self.0.iter().map(|(id, value)| Watched::new(id, WatchedKind::Secret, value.as_bytes().into())).collect())
    }

    fn stdin(&self) -> Option<Box<dyn Read + Send>> {
        None
    }

    fn stdout(&self) -> Option<Box<dyn Write + Send>> {
        None
    }
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Reporter for Notes {
    fn report(&self, event: Event) {
        if let Event::Note(note) = event {
            self.0.lock().unwrap().push(note);
        }
    }
}

fn guard(lent: &[(&'static str, &'static str)], accepted: &[&str], reporter: Arc<dyn Reporter>) -> Guard {
    let session: Arc<dyn Session> = Arc::new(Lent(lent.to_vec()));
    Guard::new(&session, &reporter, &accepted.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>())
}

const LENT: [(&str, &str); 2] = [("npm", "TOKEN-5511-aaaa\n"), ("short", "true")];

fn config(env: &str) -> ImageConfig {
    let mut config = ImageConfig::default();
    config.config.env = vec!["PATH=/bin".into(), env.into()];
    config
}

#[test]
fn a_leak_is_told_by_id_place_and_form_and_never_by_value() {
    let layer = tempfile::tempdir().unwrap();
    std::fs::create_dir(layer.path().join("etc")).unwrap();
    std::fs::write(layer.path().join("etc/npmrc"), "a=true\nb=TOKEN-5511-aaaa\n").unwrap();
    let failure = guard(&LENT, &[], Arc::new(Silent)).check_layer(layer.path()).unwrap_err();
    assert_eq!(failure.message, "secret `npm` is in what the step leaves");
    assert_eq!(failure.causes, ["`/etc/npmrc`, line 2, holds it as it is"]);
    assert!(failure.hints[1].contains("`--allow-leak npm`"), "{:?}", failure.hints);
    assert!(!format!("{failure:?}").contains("5511"));
    let failure = guard(&LENT, &["short"], Arc::new(Silent)).check_layer(layer.path()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Build);
}

#[test]
fn a_place_that_is_called_by_a_secret_is_told_without_it() {
    let layer = tempfile::tempdir().unwrap();
    let dir = layer.path().join("TOKEN-5511-aaaa");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "TOKEN-5511-aaaa").unwrap();
    let failure = guard(&LENT, &[], Arc::new(Silent)).check_layer(layer.path()).unwrap_err();
    let places = ["the name of a file in `/` holds it as it is", "`/****/f`, line 1, holds it as it is"];
    assert_eq!(failure.causes, places);
}

#[test]
fn an_accepted_leak_is_a_warning() {
    let layer = tempfile::tempdir().unwrap();
    std::fs::write(layer.path().join("f"), "TOKEN-5511-aaaa").unwrap();
    let notes = Arc::new(Notes::default());
    guard(&LENT, &["npm"], Arc::clone(&notes) as _).check_layer(layer.path()).unwrap();
    let notes = notes.0.lock().unwrap();
    assert_eq!(*notes, ["warning: secret `npm` is in the image, as was allowed: `/f`, line 1, holds it as it is"]);
}

#[test]
fn a_config_is_searched_and_what_is_clean_passes() {
    let guard = guard(&LENT, &[], Arc::new(Silent));
    guard.check_config(&config("A=true")).unwrap();
    let failure = guard.check_config(&config("A=VE9LRU4tNTUxMS1hYWFh")).unwrap_err();
    assert_eq!(failure.message, "secret `npm` is in the image's config");
    assert_eq!(failure.causes, ["`config.Env[1]` holds it in base64"]);
    let labels = BTreeMap::from([("TOKEN-5511-aaaa".to_owned(), "x".to_owned())]);
    let mut config = config("A=b");
    config.config.labels = labels;
    let failure = guard.check_config(&config).unwrap_err();
    assert_eq!(failure.causes, ["`config.Labels` holds it as it is"]);
}

#[test]
fn annotations_are_searched() {
    let annotation = |key: &str, value: &str| crate::request::Annotation {
        on: crate::request::Annotated::Manifest,
        platform: None,
        key: key.into(),
        value: value.into(),
    };
    let guard = guard(&LENT, &[], Arc::new(Silent));
    guard.check_annotations(&[annotation("a", "true")]).unwrap();
    let all = [annotation("a", "x TOKEN-5511-aaaa"), annotation("TOKEN-5511-aaaa", "x")];
    let failure = guard.check_annotations(&all).unwrap_err();
    assert_eq!(failure.message, "secret `npm` is in the image's annotations");
    assert_eq!(failure.causes, ["annotation `a` holds it as it is", "the name of an annotation holds it as it is"]);
}

#[test]
fn nothing_is_read_when_nothing_is_lent() {
    let nowhere = Path::new("/nowhere/at/all");
    let guard = |lent: &[(&'static str, &'static str)]| guard(lent, &[], Arc::new(Silent));
    guard(&[]).check_layer(nowhere).unwrap();
    // Nor for values that are too short to be looked for.
    guard(&[("short", "true")]).check_layer(nowhere).unwrap();
    assert!(!guard(&[]).is_in(nowhere));
    assert!(guard(&LENT).check_layer(nowhere).is_err() && guard(&LENT).is_in(nowhere));
}

#[test]
fn what_is_accepted_makes_other_keys() {
    let key = |accepted: &[&str]| guard(&LENT, accepted, Arc::new(Silent)).key();
    assert_eq!(key(&[]), None);
    assert_eq!(key(&["b", "a", "b"]), key(&["a", "b"]));
    assert_ne!(key(&["a"]), key(&["b"]));
}
