//! `kiln fmt`.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::Kiln;

const MESSY: &str = "from a\nrun  x  \n";
const TIDY: &str = "FROM a\nRUN x\n";

fn text(kiln: &Kiln, name: &str) -> String {
    std::fs::read_to_string(kiln.path().join(name)).unwrap()
}

#[test]
fn a_file_is_formatted_in_place_and_keeps_its_mode_and_owner() {
    let kiln = Kiln::new();
    let path = kiln.file("Dockerfile", MESSY);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), Some(54321)).unwrap();
    }
    let before = path.metadata().unwrap();
    let answer = kiln.run(&["fmt"]);
    assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.as_str()), (0, "", "formatted `Dockerfile`\n"));
    assert_eq!(text(&kiln, "Dockerfile"), TIDY);
    let after = path.metadata().unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_eq!(std::fs::read_dir(kiln.path()).unwrap().count(), 1, "something was left behind");
    let again = kiln.run(&["fmt", "."]);
    assert_eq!((again.code, again.stderr.as_str()), (0, ""));
    assert_eq!(path.metadata().unwrap().ino(), after.ino(), "a file that stays the same is not written");
}

#[test]
fn standard_input_goes_to_standard_output() {
    let kiln = Kiln::new();
    let answer = kiln.run_with_input(&["fmt", "-"], b"\xef\xbb\xbffrom a\r\nrun x");
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "\u{feff}FROM a\r\nRUN x\r\n"));
    let same = kiln.run_with_input(&["fmt", "-"], TIDY.as_bytes());
    assert_eq!((same.code, same.stdout.as_str()), (0, TIDY));
}

#[test]
fn check_names_what_would_change_and_diff_shows_it_and_neither_writes() {
    let kiln = Kiln::new();
    kiln.file("a/Dockerfile", MESSY);
    kiln.file("b.Dockerfile", TIDY);
    let check = kiln.run(&["fmt", "--check", "a", "b.Dockerfile"]);
    assert_eq!((check.code, check.stdout.as_str()), (1, "a/Dockerfile\n"));
    assert_eq!(kiln.run(&["fmt", "--check", "b.Dockerfile"]).code, 0);
    let wanted = "--- a/Dockerfile\n+++ a/Dockerfile\n@@ -1,2 +1,2 @@\n-from a\n-run  x  \n+FROM a\n+RUN x\n";
    let diff = kiln.run(&["fmt", "--diff", "a"]);
    assert_eq!((diff.code, diff.stdout.as_str()), (0, wanted));
    let both = kiln.run(&["fmt", "--diff", "--check", "a"]);
    assert_eq!((both.code, both.stdout.as_str()), (1, wanted));
    assert_eq!(text(&kiln, "a/Dockerfile"), MESSY);
}

#[test]
fn commands_are_indented_only_when_asked() {
    let kiln = Kiln::new();
    let text = "FROM a\nRUN x && \\\n  y\n";
    assert_eq!(kiln.run_with_input(&["fmt", "-"], text.as_bytes()).stdout, text);
    let indented = kiln.run_with_input(&["fmt", "--indent=4", "-"], text.as_bytes());
    assert_eq!(indented.stdout, "FROM a\nRUN x && \\\n    y\n");
}

#[test]
fn a_link_stays_one_and_the_file_behind_it_is_formatted() {
    let kiln = Kiln::new();
    kiln.file("real/file", MESSY);
    symlink("real/file", kiln.path().join("Dockerfile")).unwrap();
    let answer = kiln.run(&["fmt"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, "formatted `DIR/real/file`\n"));
    assert!(kiln.path().join("Dockerfile").is_symlink());
    assert_eq!(text(&kiln, "real/file"), TIDY);
}

#[test]
fn a_file_that_cannot_be_formatted_says_why_and_does_not_keep_others_from_it() {
    let kiln = Kiln::new();
    kiln.file("broken", "FROM a\nRUM x\n");
    kiln.file("good", MESSY);
    std::fs::write(kiln.path().join("binary"), b"FROM a\n\xff\xfe\0").unwrap();
    let answer = kiln.run(&["fmt", "broken", "binary", "good"]);
    assert_eq!(answer.code, 1);
    for part in [
        "`broken` cannot be formatted",
        "did you mean `RUN`?",
        "`binary` is not UTF-8 text",
        "binary:2:1",
        "formatted `good`",
    ] {
        assert!(answer.stderr.contains(part), "{part}: {}", answer.stderr);
    }
    assert_eq!(text(&kiln, "broken"), "FROM a\nRUM x\n");
    assert_eq!(text(&kiln, "good"), TIDY);
}

#[test]
fn what_cannot_be_read_or_replaced_is_refused_by_name() {
    let kiln = Kiln::new();
    let path = kiln.file("Dockerfile", MESSY);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let read_only = kiln.run(&["fmt"]);
    assert_eq!(read_only.code, 3);
    assert!(read_only.stderr.contains("`DIR/Dockerfile` is read-only"), "{}", read_only.stderr);
    assert!(read_only.stderr.contains("hint: run `chmod u+w DIR/Dockerfile` first"), "{}", read_only.stderr);
    assert_eq!(text(&kiln, "Dockerfile"), MESSY);
    let missing = kiln.run(&["fmt", "nowhere"]);
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("cannot read `nowhere`"), "{}", missing.stderr);
    std::fs::create_dir(kiln.path().join("empty")).unwrap();
    let empty = kiln.run(&["fmt", "empty"]);
    assert_eq!(empty.code, 2);
    assert!(empty.stderr.contains("there is no Dockerfile in `empty`"), "{}", empty.stderr);
}
