//! Which file is read, and in which language, before a word of it counts.

use crate::Kiln;

const GOOD: &str = "FROM scratch\nCOPY a /a\n";
const COMPLETE: &str = "Check complete, no warnings found.\n";

#[test]
fn containerfile_is_looked_up_before_dockerfile() {
    let kiln = Kiln::new();
    kiln.file("ctx/a", "");
    kiln.file("ctx/dockerfile", GOOD);
    assert_eq!(kiln.run(&["build", "--check", "ctx"]).stdout, COMPLETE);
    kiln.file("ctx/Dockerfile", "DOCKERFILE\n");
    assert!(kiln.run(&["build", "--check", "ctx"]).stderr.contains(" ctx/Dockerfile:1:1"));
    kiln.file("ctx/Containerfile", GOOD);
    assert_eq!(kiln.run(&["build", "--check", "ctx"]).stdout, COMPLETE);
    assert!(kiln.run(&["build", "--check", "-f", "ctx/Dockerfile", "ctx"]).stderr.contains("`DOCKERFILE`"));
}

#[test]
fn several_files_are_one_and_each_finding_names_its_own() {
    let kiln = Kiln::new();
    kiln.file("ctx/a", "");
    kiln.file("base.df", "\u{feff}# syntax=docker/dockerfile:1\r\nFROM scratch AS base");
    kiln.file("app.df", "\u{feff}# syntax=docker/dockerfile:1\nFROM base\nCOPY a /a\n");
    assert_eq!(kiln.run(&["build", "--check", "-f", "base.df", "-f", "app.df", "ctx"]).stdout, COMPLETE);
    kiln.file("app.df", "FROM base\nCPOY a /a\n");
    kiln.file("more.df", "RUN <<EOF\nopen\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "-f", "base.df", "-f", "app.df", "-f", "more.df", "ctx"]), @r#"
    exit 1
    --- stderr
    error: `CPOY` is no instruction
     --> app.df:2:1
      |
    2 | CPOY a /a
      | ^^^^
    hint: did you mean `COPY`?

    error: heredoc `EOF` never ends
     --> more.df:1:5
      |
    1 | RUN <<EOF
      |     ^^^^^
    hint: put `EOF` alone on a line after the last line of the text

    error: `base.df`, `app.df`, `more.df` cannot be built
    "#);
}

#[test]
fn files_that_disagree_about_the_escape_character_are_refused() {
    let kiln = Kiln::new();
    kiln.file("a", "FROM scratch\n");
    kiln.file("b", "# escape=`\nENV A=`$x\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "-f", "a", "-f", "b", "."]), @r#"
    exit 1
    --- stderr
    error: the escape character is a backtick here, a backslash above
     --> b:1:1
      |
    1 | # escape=`
      | ^
    hint: begin all of the files with the same `# escape=` line

    error: `a`, `b` cannot be built
    "#);
}

#[test]
fn a_name_that_ends_in_in_goes_through_cpp() {
    let kiln = Kiln::new();
    kiln.file("a", "");
    kiln.file("part.in", "COPY a /a\n");
    kiln.file("Containerfile.in", "# note\n#define BASE scratch\nFROM BASE\n#include \"part.in\"\n");
    let answer = kiln.run(&["build", "--check", "-f", "Containerfile.in", "."]);
    if std::path::Path::new("/usr/bin/cpp").exists() {
        assert_eq!(answer.stdout, COMPLETE, "{answer}");
    }
    let mut without = kiln.command(&["build", "--check", "-f", "Containerfile.in", "."]);
    let answer = kiln.answer(without.env("PATH", "/nowhere").output().unwrap());
    insta::assert_snapshot!(answer, @r#"
    exit 3
    --- stderr
    error: cannot preprocess `Containerfile.in`
      caused by: there is no program `cpp` on this machine
    hint: install it, as with `apt-get install cpp`, or write the file without `.in`
    "#);
}

#[test]
fn a_shebang_stands_above_directives_and_they_count() {
    let kiln = Kiln::new();
    kiln.file("a", "");
    kiln.file(
        "Dockerfile",
        "#!/usr/bin/env -S kiln build -f\n# check=skip=FromAsCasing\nFROM scratch as x\nCOPY a /\n",
    );
    assert_eq!(kiln.run(&["build", "--check", "."]).stdout, COMPLETE);
    kiln.file("Dockerfile", "#!/usr/bin/env kiln\n# escape=`\nFROM scratch\nCOPY `\n a /\n");
    assert_eq!(kiln.run(&["build", "--check", "."]).stdout, COMPLETE);
}

#[test]
fn another_language_is_refused_at_its_line() {
    let kiln = Kiln::new();
    kiln.file("a", "");
    kiln.file("Dockerfile", &format!("# syntax=example.com/other:1\n{GOOD}"));
    insta::assert_snapshot!(kiln.run(&["build", "--check", "."]), @r#"
    exit 1
    --- stderr
    error: this file is in the language of `example.com/other:1`; only `docker/dockerfile` is built in
     --> Dockerfile:1:10
      |
    1 | # syntax=example.com/other:1
      |          ^^^^^^^^^^^^^^^^^^^
    hint: remove the line, or read the file as a Dockerfile: `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`

    error: `Dockerfile` cannot be built
    "#);
    let arg = "BUILDKIT_SYNTAX=docker/dockerfile:1";
    assert_eq!(kiln.run(&["build", "--check", "--build-arg", arg, "."]).stdout, COMPLETE);
    kiln.file("Dockerfile", GOOD);
    insta::assert_snapshot!(kiln.run(&["build", "--check", "--build-arg", "BUILDKIT_SYNTAX=foo/bar", "."]), @r#"
    exit 1
    --- stderr
    error: `BUILDKIT_SYNTAX` asks for the language of `foo/bar`; only `docker/dockerfile` is built in
     --> Dockerfile:1:1
      |
    1 | FROM scratch
      | ^
    hint: leave `BUILDKIT_SYNTAX` out, or set it to `docker/dockerfile:1`

    error: `Dockerfile` cannot be built
    "#);
}

#[test]
fn dockers_language_is_built_in_and_an_unknown_version_of_it_is_a_warning() {
    let kiln = Kiln::new();
    kiln.file("a", "");
    for line in
        ["# syntax=docker/dockerfile:1.7-labs", "# syntax = docker.io/docker/dockerfile:1", "# syntax=dockerfile.v0"]
    {
        kiln.file("Dockerfile", &format!("{line}\n{GOOD}"));
        assert_eq!(kiln.run(&["build", "--check", "."]).stdout, COMPLETE, "{line}");
    }
    kiln.file("Dockerfile", &format!("# syntax=docker/dockerfile:99\n{GOOD}"));
    insta::assert_snapshot!(kiln.run(&["build", "--check", "."]), @"
    exit 1
    --- stdout
    Check complete, 1 warning has been found!

    warning[UnknownSyntaxVersion]: `docker/dockerfile:99` is not built in; the file is read as `docker/dockerfile:1.26`
     --> Dockerfile:1:10
      |
    1 | # syntax=docker/dockerfile:99
      |          ^^^^^^^^^^^^^^^^^^^^
    hint: write `docker/dockerfile:1`
    ");
}

#[test]
fn a_build_says_once_that_its_language_is_built_in() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("a", "");
    kiln.file("Dockerfile", &format!("# syntax=docker/dockerfile:99\n{GOOD}"));
    let answer = kiln.run(&["build", "--progress", "plain", "."]);
    assert_eq!((answer.code, answer.stderr.matches("is built in").count()), (0, 1), "{answer}");
    assert!(answer.stderr.contains("UnknownSyntaxVersion"), "{answer}");
}
