//! Builds the cases of `tests/differential/cases` with buildah and with kiln and compares trees and configs.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the test reads its own settings, starts the comparing script and says why it skips"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is missing for the comparison, or the registry's address.
fn ready() -> Result<String, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("building with buildah's oci isolation needs root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if let Some(tool) = ["python3", "buildah", "runc", "umoci"].into_iter().find(|tool| !is_there(tool)) {
        return Err(format!("`{tool}` is not installed"));
    }
    std::env::var("KILN_TEST_REGISTRY")
        .map_err(|_| "KILN_TEST_REGISTRY does not name a registry with the base images".to_owned())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn buildah_and_kiln_make_the_same_images() {
    let registry = match ready() {
        Ok(registry) => registry,
        Err(reason) => {
            assert!(std::env::var_os("KILN_TEST_REQUIRE").is_none(), "cannot compare: {reason}");
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let output = Command::new(root().join("scripts/compare.py"))
        .args(["--kiln", env!("CARGO_BIN_EXE_kiln"), "--registry", &registry])
        .output()
        .expect("the comparing script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let cases = std::fs::read_dir(root().join("crates/kiln/tests/differential/cases")).expect("the cases are there");
    let wanted = format!("{} cases, 0 unaccepted differences", cases.count());
    assert!(said.contains(&wanted), "all cases took part:\n{said}");
}

/// The list of accepted differences is data with reasons, and the cases are whole.
#[test]
fn every_case_has_a_dockerfile_and_every_accepted_difference_a_reason() {
    let folder = root().join("crates/kiln/tests/differential");
    for case in std::fs::read_dir(folder.join("cases")).expect("the cases are there") {
        let case = case.expect("a readable folder").path();
        assert!(case.join("Dockerfile").is_file(), "`{}` has no Dockerfile", case.display());
    }
    let text = std::fs::read_to_string(folder.join("accepted.json")).expect("the list is there");
    let rules: Vec<serde_json::Value> = serde_json::from_str(&text).expect("it is JSON");
    for rule in rules {
        let reason = rule["reason"].as_str().unwrap_or_default();
        assert!(reason.len() > 20, "{rule} has no reason worth the name");
    }
}
