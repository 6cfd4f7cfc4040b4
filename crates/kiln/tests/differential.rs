//! Builds the cases of `tests/differential` and compares with what BuildKit was recorded to make and say, and with buildah.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the test reads its own settings, starts the comparing script and says why it skips"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is missing for the comparison, or the registry's address.
fn ready(tools: &[&str]) -> Result<String, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the steps of the cases need root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if let Some(tool) = tools.iter().find(|tool| !is_there(tool)) {
        return Err(format!("`{tool}` is not installed"));
    }
    std::env::var("KILN_TEST_REGISTRY")
        .map_err(|_| "KILN_TEST_REGISTRY does not name a registry with the base images".to_owned())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Cases that are built with this machine's buildah too; each shows something that it does as BuildKit does.
const BY_BUILDAH: [&str; 5] = ["args", "copy-chown", "env-expand", "multi-stage", "whiteouts"];

/// Runs one of the scripts and wants it to say that `wanted` took part and nothing differs.
fn same(script: &str, arguments: &[&str], wanted: &str) {
    let output = Command::new(root().join("scripts").join(script))
        .args(["--kiln", env!("CARGO_BIN_EXE_kiln")])
        .args(arguments)
        .output()
        .expect("the comparing script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let wanted = format!("{wanted}, 0 unaccepted differences");
    assert!(said.contains(&wanted), "all took part:\n{said}");
}

fn skips(missing: Result<String, String>) -> Option<String> {
    match missing {
        Ok(registry) => Some(registry),
        Err(reason) => {
            assert!(std::env::var_os("KILN_TEST_REQUIRE").is_none(), "cannot compare: {reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn count(folder: &str) -> usize {
    let folder = root().join("crates/kiln/tests/differential").join(folder);
    std::fs::read_dir(folder).expect("the cases are there").count()
}

#[test]
fn kiln_makes_the_images_that_buildkit_was_recorded_to_make() {
    let Some(registry) = skips(ready(&["python3"])) else { return };
    same("compare.py", &["--registry", &registry], &format!("{} cases", count("cases")));
}

#[test]
fn buildah_and_kiln_make_the_same_images() {
    let Some(registry) = skips(ready(&["python3", "buildah", "runc", "umoci"])) else { return };
    let arguments = [&["--registry", registry.as_str(), "--live", "buildah"], &BY_BUILDAH[..]].concat();
    same("compare.py", &arguments, &format!("{} cases", BY_BUILDAH.len()));
}

#[test]
fn kiln_refuses_warns_and_answers_as_buildkit_was_recorded_to() {
    let Some(_) = skips(ready(&["python3"])) else { return };
    let verdicts = count("refusals") + count("checks") + count("calls");
    same("verdicts.py", &[], &format!("{verdicts} verdicts"));
}

/// The list of accepted differences is data with reasons, and the cases are whole.
#[test]
fn every_case_has_a_dockerfile_and_every_accepted_difference_a_reason() {
    let folder = root().join("crates/kiln/tests/differential");
    for case in std::fs::read_dir(folder.join("cases")).expect("the cases are there") {
        let case = case.expect("a readable folder").path();
        assert!(case.join("Dockerfile").is_file(), "`{}` has no Dockerfile", case.display());
        let name = case.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        let recording = folder.join("recorded").join(name + ".json");
        assert!(recording.is_file(), "`{}` is not recorded: `scripts/compare.py --record`", case.display());
    }
    let text = std::fs::read_to_string(folder.join("accepted.json")).expect("the list is there");
    let rules: Vec<serde_json::Value> = serde_json::from_str(&text).expect("it is JSON");
    for rule in rules {
        let reason = rule["reason"].as_str().unwrap_or_default();
        assert!(reason.len() > 20, "{rule} has no reason worth the name");
    }
}
