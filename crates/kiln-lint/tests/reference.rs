//! The reference of checks in the documents is the one the rules make.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

#[test]
fn the_reference_of_checks_is_up_to_date() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/checks.md");
    let made = kiln_lint::reference::document();
    if std::fs::read_to_string(&kept).unwrap_or_default() != made {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checks.md");
        std::fs::write(&new, made).unwrap();
        panic!("rules have changed: run `cp {} docs/reference/checks.md`", new.display());
    }
}
