//! Commands that need no image: what they print, and where.

use std::process::Stdio;

use crate::Kiln;

#[test]
fn version_is_said_in_every_form() {
    let kiln = Kiln::new();
    let version = env!("CARGO_PKG_VERSION");
    assert!(kiln.run(&["version"]).stdout.starts_with(&format!("kiln {version} linux/")));
    assert_eq!(kiln.run(&["--version"]).stdout, format!("kiln {version}\n"));
    assert_eq!(kiln.run(&["version", "-f", "{{.Version}}"]).stdout, format!("{version}\n"));
    assert!(kiln.run(&["version", "--format", "json"]).stdout.contains(&format!(r#""Version":"{version}""#)));
}

#[test]
fn completion_knows_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let answer = Kiln::new().run(&["completion", shell]);
        assert!(answer.code == 0 && answer.stdout.contains("no-cache-filter"), "{shell}: {}", answer.code);
    }
}

#[test]
fn an_empty_store_is_a_heading() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["images"]), @"
    exit 0
    --- stdout
    REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
    ");
    insta::assert_snapshot!(kiln.run(&["image", "ls", "-q"]), @"exit 0");
}

#[test]
fn prune_asks_first() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run_with_input(&["prune"], b"n\n"), @"
    exit 0
    --- stderr
    WARNING! This will remove every image without a name and every result that nothing needs.
    Are you sure you want to continue? [y/N]
    ");
    insta::assert_snapshot!(kiln.run_with_input(&["system", "prune"], b"y\n").stdout, @"Total reclaimed space: 0B");
    insta::assert_snapshot!(kiln.run(&["builder", "prune", "-a", "-f"]), @"
    exit 0
    --- stdout
    Total reclaimed space: 0B
    ");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let kiln = Kiln::new();
    let mut child = kiln.command(&["completion", "zsh"]).spawn().unwrap();
    drop(child.stdout.take());
    let answer = kiln.answer(child.wait_with_output().unwrap());
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
}

#[test]
fn a_full_disk_is_the_machines_fault() {
    let kiln = Kiln::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = kiln.command(&["completion", "bash"]).stdout(Stdio::from(full)).output().unwrap();
    insta::assert_snapshot!(kiln.answer(output), @"
    exit 3
    --- stderr
    error: cannot write to standard output
      caused by: No space left on device (os error 28)
    ");
}
