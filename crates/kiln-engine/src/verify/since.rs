//! What is another than it was when an image was built, as far as the record of that build tells.

use kiln_solver::{Base, KeyParts};

use super::again::Again;
use crate::record::BuildRecord;

/// The Dockerfile, and base images whose names stand for others now.
pub(super) fn since(record: &BuildRecord, again: &Again) -> Vec<String> {
    let then = bases(record.steps.iter().filter_map(|step| step.parts.as_ref()));
    notes((&record.dockerfile, &then), (&again.dockerfile, &again.bases))
}

/// The base images of steps.
pub(super) fn bases<'a>(parts: impl Iterator<Item = &'a KeyParts>) -> Vec<Base> {
    parts.filter_map(|parts| parts.base.clone()).collect()
}

fn notes((then, bases_then): (&str, &[Base]), (now, bases_now): (&str, &[Base])) -> Vec<String> {
    // Long texts are in no record, and private values of others are masked.
    let is_known = !then.is_empty() && !then.contains("****");
    let dockerfile =
        (is_known && then != now).then(|| "the Dockerfile has changed since the image was built".to_owned());
    let is_other = |base: &&Base| {
        let mut known = bases_then.iter().filter(|known| known.reference == base.reference).peekable();
        known.peek().is_some() && known.all(|known| known.digest != base.digest)
    };
    let others = bases_now.iter().filter(is_other);
    let others = others.map(|base| format!("`{}` has other layers than when the image was built", base.reference));
    dockerfile.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;

    use super::*;

    #[test]
    fn what_changed_is_told_and_what_is_not_known_is_not() {
        let bases = |all: &[(&str, &str)]| -> Vec<Base> {
            let base =
                |(name, digest): &(&str, &str)| Base { reference: (*name).to_owned(), digest: Digest::sha256(digest) };
            all.iter().map(base).collect()
        };
        let then = bases(&[("a:1", "x"), ("b:1", "y"), ("two-platforms:1", "v"), ("two-platforms:1", "w")]);
        let now = bases(&[("a:1", "x"), ("b:1", "z"), ("new:1", "u"), ("two-platforms:1", "w")]);
        assert_eq!(notes(("F", &then), ("F", &now)), ["`b:1` has other layers than when the image was built"]);
        assert_eq!(notes(("F", &then), ("G", &then)), ["the Dockerfile has changed since the image was built"]);
        for unknown in ["", "A ****"] {
            assert!(notes((unknown, &then), ("G", &then)).is_empty());
        }
    }
}
