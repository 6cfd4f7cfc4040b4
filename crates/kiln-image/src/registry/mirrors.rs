//! Mirrors that were passed over, and why: told once, and again when nobody else has it either.

use std::error::Error as _;
use std::sync::{Mutex, MutexGuard};

use kiln_oci::Reference;

use super::RegistryClient;
use crate::settings::Place;
use crate::{Error, ErrorKind};

/// What is known of mirrors that did not give what was wanted.
#[derive(Default)]
pub(super) struct PassedOver(Mutex<Vec<Passed>>);

struct Passed {
    /// The repository; the registry alone when it cannot be reached.
    name: String,
    why: String,
    is_told: bool,
}

impl RegistryClient {
    /// Mirrors that were passed over since this was asked last, each with the reason.
    pub fn passed_over(&self) -> Vec<String> {
        let mut known = self.0.passed_over.lock();
        let told = |passed: &mut Passed| {
            passed.is_told = true;
            format!("mirror `{}` is passed over: {}", passed.name, passed.why)
        };
        known.iter_mut().filter(|passed| !passed.is_told).map(told).collect()
    }

    /// Notes why a mirror is passed over.
    pub(super) fn pass_over(&self, mirror: &Place, error: &Error) {
        self.host(&mirror.registry).note(error);
        let is_out = error.kind() == ErrorKind::Network;
        let name = if is_out { mirror.registry.clone() } else { mirror.name() };
        let mut known = self.0.passed_over.lock();
        if !known.iter().any(|passed| passed.name == name) {
            known.push(Passed { name, why: reason(error), is_told: false });
        }
    }

    /// Says in the error of the registry itself what its mirrors had to say.
    pub(super) fn after_mirrors(&self, error: Error, reference: &Reference) -> Error {
        let Ok(settings) = self.0.http.settings() else { return error };
        let places = |by_digest| settings.places(&reference.registry, &reference.repository, by_digest);
        let mirrors: Vec<Place> = [true, false].into_iter().filter_map(|kind| places(kind).ok()).flatten().collect();
        let known = self.0.passed_over.lock();
        let is_one =
            |passed: &&Passed| mirrors.iter().any(|place| passed.name == place.registry || passed.name == place.name());
        known.iter().filter(is_one).fold(error, |error, passed| error.after_mirror(&passed.name, &passed.why))
    }
}

impl PassedOver {
    fn lock(&self) -> MutexGuard<'_, Vec<Passed>> {
        self.0.lock().expect("no thread panics while it holds this")
    }
}

/// Why, without what was being done.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    let own = text.split_once("`: ").map_or(text.as_str(), |(_, why)| why).to_owned();
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(own, |text, cause| format!("{text}: {cause}"))
}
