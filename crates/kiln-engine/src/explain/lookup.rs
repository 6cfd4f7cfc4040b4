//! Finds a build by what people call it: its id or the beginning of it, how far back it is, or the image it made.

use kiln_oci::Reference;
use kiln_report::{Failure, FailureKind};

use crate::job::Result;
use crate::record::{BuildOutcome, BuildRecord};

/// What a build's id is written behind, in the shape of buildx: builder and node.
const NODE: &str = "kiln/local/";

/// Fewer digits than these are no beginning of an id.
const SHORTEST: usize = 3;

/// The position of the build that is meant; the newest if nothing is said.
pub(crate) fn find(builds: &[BuildRecord], wanted: Option<&str>) -> Result<usize> {
    if builds.is_empty() {
        let failure = Failure::new(FailureKind::Build, "no build is recorded yet");
        return Err(failure.hint("build something with `kiln build`"));
    }
    let Some(wanted) = wanted else { return Ok(0) };
    if let Some(offset) = wanted.strip_prefix('^') {
        return by_offset(builds, wanted, offset);
    }
    let id = wanted.strip_prefix(NODE).unwrap_or(wanted);
    if id.len() >= SHORTEST {
        let mut found = (0..builds.len()).filter(|at| builds[*at].id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(at), None) => return Ok(at),
            (Some(_), Some(_)) => {
                let failure = Failure::new(FailureKind::Usage, format!("several builds begin with `{id}`"));
                return Err(failure.hint("write more of the id; `kiln builds` lists them"));
            }
            _ => {}
        }
    }
    (0..builds.len()).find(|at| made(&builds[*at], wanted)).ok_or_else(|| unknown(builds, wanted))
}

fn by_offset(builds: &[BuildRecord], wanted: &str, offset: &str) -> Result<usize> {
    let failure = |message: String| Failure::new(FailureKind::Usage, message);
    let wrong = || failure(format!("`{wanted}` is no build: expected a number, as in `^1`, the one before the last"));
    let offset: usize = if offset.is_empty() { 1 } else { offset.parse().map_err(|_| wrong())? };
    if offset < builds.len() {
        return Ok(offset);
    }
    let message = format!("there is no build `{wanted}`: {} are recorded", builds.len());
    Err(failure(message).hint("run `kiln builds` for a list"))
}

/// Whether a build made the image of this name or id.
fn made(build: &BuildRecord, wanted: &str) -> bool {
    let BuildOutcome::Done { image, images, names } = &build.outcome else { return false };
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_id = digits.len() >= SHORTEST && image.iter().chain(images).any(|image| image.hex().starts_with(digits));
    let name = wanted.parse::<Reference>().map(|name| name.to_string());
    is_id || name.is_ok_and(|wanted| names.contains(&wanted))
}

fn unknown(builds: &[BuildRecord], wanted: &str) -> Failure {
    let failure = Failure::new(FailureKind::Build, format!("no build or image `{wanted}` is recorded"));
    let images = builds.iter().flat_map(|build| match &build.outcome {
        BuildOutcome::Done { names, .. } => names.as_slice(),
        _ => &[],
    });
    let short = |name: &String| Some(name.parse::<Reference>().ok()?.familiar().trim_end_matches(":latest").to_owned());
    let images: Vec<String> = images.filter_map(short).collect();
    let known = builds.iter().map(|build| build.id.as_str()).chain(images.iter().map(String::as_str));
    let part = |name: &str| wanted.len() >= SHORTEST && name.contains(wanted);
    let near = kiln_dockerfile::nearest(wanted, known.clone()).or_else(|| known.clone().find(|name| part(name)));
    match near {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("run `kiln builds` for a list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::story::tests::build;

    #[test]
    fn builds_are_found_by_id_offset_and_image() {
        let image = |id: &str, name: &str| {
            let names = vec![format!("docker.io/library/{name}:latest")];
            let image = Some(kiln_oci::Digest::sha256(id));
            BuildRecord { outcome: BuildOutcome::Done { image, images: vec![], names }, ..build(id, &[]) }
        };
        let id = kiln_oci::Digest::sha256("def333").to_string();
        let builds = [image("abc111", "web"), image("abc222", "app"), image("def333", "app")];
        let found = |wanted| find(&builds, wanted).map_err(|failure| format!("{failure} ({})", failure.hints.join("")));
        for (wanted, at) in [
            (None, 0),
            (Some("^0"), 0),
            (Some("^1"), 1),
            (Some("^"), 1),
            (Some("abc2"), 1),
            (Some("kiln/local/def333"), 2),
            (Some("app"), 1),
            (Some("docker.io/library/web"), 0),
            (Some(&id[..19]), 2),
        ] {
            assert_eq!(found(wanted), Ok(at), "{wanted:?}");
        }
        for (wanted, why) in [
            ("^3", "there is no build `^3`: 3 are recorded (run `kiln builds` for a list)"),
            ("^x", "`^x` is no build: expected a number, as in `^1`, the one before the last ()"),
            ("abc", "several builds begin with `abc` (write more of the id; `kiln builds` lists them)"),
            ("weeb", "no build or image `weeb` is recorded (did you mean `web`?)"),
            ("other", "no build or image `other` is recorded (run `kiln builds` for a list)"),
        ] {
            assert_eq!(found(Some(wanted)).unwrap_err(), why);
        }
        assert!(find(&[], None).is_err());
    }
}
