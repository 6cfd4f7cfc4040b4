//! `kiln doctor`: what the machine allows.

use crate::Kiln;

#[test]
fn a_machine_that_builds_is_well_enough_and_nothing_is_left() {
    let Some(kiln) = Kiln::that_builds() else { return };
    let answer = kiln.run(&["doctor"]);
    assert_eq!(answer.code, 0, "{answer}");
    for name in ["kernel ", "seccomp ", "user namespaces ", "state directory ", "overlay ", "cgroups ", "network "] {
        assert!(answer.stdout.contains(&format!("\n{name}")), "{name}: {answer}");
    }
    assert!(answer.stdout.ends_with("\nbuilds run here\n"), "{answer}");
    assert!(!kiln.path().join("state").exists(), "a look makes nothing");
}

#[test]
fn the_document_says_what_the_table_says() {
    let kiln = Kiln::new();
    kiln.file(".docker/config.json", r#"{"credsStore":"of-nobody"}"#);
    let answer = kiln.run(&["doctor", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(document["builds"] == true, answer.code == 0, "{answer}");
    let checks = document["checks"].as_array().unwrap();
    let logins = checks.iter().find(|check| check["check"] == "registry logins").unwrap();
    assert_eq!(logins["state"], "degraded");
    assert!(logins["mend"].as_str().unwrap().contains("`docker-credential-of-nobody`"), "{logins}");
    for check in checks {
        assert_eq!(check["state"] == "ok", check["mend"].is_null(), "{check}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_is_in_the_way() {
    let kiln = Kiln::new();
    let answer = kiln.run(&["--state", "/proc/kiln", "doctor"]);
    assert_eq!(answer.code, 3, "{answer}");
    assert!(answer.stdout.contains("state directory: will not work: "), "{answer}");
    assert!(answer.stdout.contains("builds cannot run here: see "), "{answer}");
}
