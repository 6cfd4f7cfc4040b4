//! `kiln check --fix`.

use super::Kiln;

const ODD: &str = "FROM scratch as base\r\nENV a b c\r\nCMD run it\r\n";
const SAFE: &str = "FROM scratch AS base\r\nENV a=\"b c\"\r\nCMD run it\r\n";

fn text(kiln: &Kiln, name: &str) -> String {
    std::fs::read_to_string(kiln.path().join(name)).unwrap()
}

#[test]
fn safe_fixes_are_made_and_shown_and_the_rest_is_found_as_before() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", ODD);
    let answer = kiln.run(&["check", "--fix", "--format=github"]);
    assert_eq!(text(&kiln, "Dockerfile"), SAFE);
    insta::assert_snapshot!(answer.to_string().replace('\r', ""), @r#"
    exit 0
    --- stdout
    ::warning file=Dockerfile,line=3,endLine=3,col=5,endColumn=11,title=JSONArgsRecommended::CMD in shell form: signals go to the shell and not to the program%0Ahint: write the arguments as a JSON array: `CMD ["program", "argument"]`
    --- stderr
    --- Dockerfile
    +++ Dockerfile
    @@ -1,3 +1,3 @@
    -FROM scratch as base
    -ENV a b c
    +FROM scratch AS base
    +ENV a="b c"
     CMD run it
    fixed 2 findings in `Dockerfile`: 1 FromAsCasing, 1 LegacyKeyValueFormat
    1 finding can be fixed with `--unsafe-fixes`; look at the result
    1 finding in 1 file: 1 warning
    "#);
    let again = kiln.run(&["check", "--fix", "--format=github"]);
    assert_eq!(again.stdout, answer.stdout);
    assert!(again.stderr.starts_with("fixed 0 findings in `Dockerfile`\n"), "{}", again.stderr);
}

#[test]
fn unsafe_fixes_are_made_on_demand() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "FROM scratch\nCMD run it\n");
    let answer = kiln.run(&["check", "--fix", "--unsafe-fixes"]);
    assert_eq!(text(&kiln, "Dockerfile"), "FROM scratch\nCMD [\"run\", \"it\"]\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{answer}");
    assert!(answer.stderr.contains("fixed 1 finding in `Dockerfile`: 1 JSONArgsRecommended\n"), "{answer}");
}

#[test]
fn a_dry_run_writes_nothing_and_prints_a_patch() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "FROM scratch as base\n");
    let patch = "--- Dockerfile\n+++ Dockerfile\n@@ -1 +1 @@\n-FROM scratch as base\n+FROM scratch AS base\n";
    for args in [&["check", "--diff"][..], &["check", "--fix", "--dry-run"]] {
        let answer = kiln.run(args);
        assert_eq!((answer.code, answer.stdout.as_str()), (0, patch), "{answer}");
        assert_eq!(answer.stderr, "would fix 1 finding in `Dockerfile`: 1 FromAsCasing\n");
    }
    assert_eq!(kiln.run(&["check", "--diff", "--error"]).code, 1, "what is there now is not fixed");
    assert_eq!(text(&kiln, "Dockerfile"), "FROM scratch as base\n");
}

#[test]
fn standard_input_is_mended_onto_standard_output() {
    let kiln = Kiln::new();
    let answer = kiln.run_with_input(&["check", "--fix", "-"], ODD.as_bytes());
    assert_eq!((answer.code, answer.stdout.as_str()), (0, SAFE));
    assert!(
        answer.stderr.starts_with("fixed 2 findings in `<stdin>`: 1 FromAsCasing, 1 LegacyKeyValueFormat\n"),
        "{answer}"
    );
}

#[test]
fn a_broken_file_is_left_as_it_is_and_its_errors_are_told() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "from a\nRUM x\n");
    let answer = kiln.run(&["check", "--fix", "--format=github"]);
    assert_eq!(answer.code, 1);
    assert!(answer.stdout.contains("`RUM` is no instruction"), "{answer}");
    assert_eq!(text(&kiln, "Dockerfile"), "from a\nRUM x\n");
}
