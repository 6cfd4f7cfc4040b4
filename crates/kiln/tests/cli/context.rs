//! `kiln context ls`, and what a check says about sources: no build, no state, no root.

use crate::Kiln;

fn project() -> Kiln {
    let kiln = Kiln::new();
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "# secrets\n*.env\n!keep.env\ndocs\n!docs/deep/keep\nnode_modules\n"),
        ("prod.env", "s"),
        ("keep.env", "keep"),
        ("src/main.c", "int main;\n"),
        ("docs/deep/keep", "d"),
        ("docs/x", "x"),
        ("node_modules/a/b", "b"),
    ];
    for (name, text) in files {
        kiln.file(&format!("ctx/{name}"), text);
    }
    std::fs::create_dir(kiln.path().join("ctx/empty")).unwrap();
    kiln
}

#[test]
fn a_listing_shows_what_is_sent_with_sizes_and_ends_with_the_total() {
    insta::assert_snapshot!(project().run(&["context", "ls", "ctx"]), @"
    exit 0
    --- stdout
    PATH             SIZE
    .dockerignore    60B
    Dockerfile       22B
    docs/deep/keep   1B
    empty/           0B
    keep.env         4B
    src/main.c       10B
    --- stderr
    5 files, 97B
    ");
}

#[test]
fn names_with_control_characters_stay_on_their_line_and_off_the_terminal() {
    let kiln = Kiln::new();
    kiln.file("ctx/a\nb\u{1b}[2J", "");
    kiln.file("ctx/.dockerignore", "x\u{1b}c\n");
    kiln.file("ctx/x\u{1b}c", "");
    for (args, shown) in
        [(&["--ignored"][..], "\\u{1b}c"), (&["--why", "x\u{1b}c"], "\\u{1b}c"), (&[], "a\\nb\\u{1b}[2J")]
    {
        let answer = kiln.run(&[&["context", "ls", "ctx"], args].concat());
        assert!(!answer.stdout.contains('\u{1b}') && answer.stdout.contains(shown), "{answer}");
    }
}

#[test]
fn what_is_left_out_is_listed_with_the_rule_that_did_it() {
    insta::assert_snapshot!(project().run(&["context", "ls", "ctx", "--ignored"]), @"
    exit 0
    --- stdout
    PATH            RULE
    docs/x          .dockerignore:4: docs
    node_modules/   .dockerignore:6: node_modules
    prod.env        .dockerignore:2: *.env
    --- stderr
    3 paths left out
    ");
}

#[test]
fn a_listing_in_json_is_a_line_for_each_file() {
    let kiln = project();
    insta::assert_snapshot!(kiln.run(&["context", "ls", "ctx", "--format", "json"]), @r#"
    exit 0
    --- stdout
    {"Context":"context","Path":".dockerignore","Size":60}
    {"Context":"context","Path":"Dockerfile","Size":22}
    {"Context":"context","Path":"docs/deep/keep","Size":1}
    {"Context":"context","Path":"empty/","Size":0}
    {"Context":"context","Path":"keep.env","Size":4}
    {"Context":"context","Path":"src/main.c","Size":10}
    --- stderr
    5 files, 97B
    "#);
    insta::assert_snapshot!(kiln.run(&["context", "ls", "ctx", "--ignored", "--format=json"]).stdout, @r#"
    {"Context":"context","Path":"docs/x","Pattern":"docs","Rule":".dockerignore:4"}
    {"Context":"context","Path":"node_modules/","Pattern":"node_modules","Rule":".dockerignore:6"}
    {"Context":"context","Path":"prod.env","Pattern":"*.env","Rule":".dockerignore:2"}
    "#);
    insta::assert_snapshot!(kiln.run(&["context", "ls", "ctx", "--why=docs", "--format=json"]).stdout, @r#"{"Path":"docs/","Pattern":"docs","Rule":".dockerignore:4","Sent":false}"#);
}

#[test]
fn why_names_the_rule_that_decides_or_says_that_none_does() {
    let kiln = project();
    let why = |path: &str| kiln.run(&["context", "ls", "ctx", "--why", path]).stdout;
    let paths = [
        "prod.env",
        "keep.env",
        "src/main.c",
        "./src/../docs",
        "docs/deep/keep",
        "node_modules/a/b",
        "Dockerfile",
        ".",
    ];
    insta::assert_snapshot!(paths.map(why).concat(), @"
    `prod.env` is left out: `*.env` at .dockerignore:2 decides
    `keep.env` is sent: `!keep.env` at .dockerignore:3 decides
    `src/main.c` is sent: no pattern matches it
    `docs/` is left out: `docs` at .dockerignore:4 decides, but 1 file in it is taken back
    `docs/deep/keep` is sent: `!docs/deep/keep` at .dockerignore:5 decides
    `node_modules/a/b` is left out: `node_modules` at .dockerignore:6 decides
    `Dockerfile` is sent: no pattern matches it
    `.` is sent: no pattern matches it
    ");
    let absolute = std::fs::canonicalize(kiln.path()).unwrap().join("ctx/prod.env");
    assert!(why(absolute.to_str().unwrap()).contains("left out"));
}

#[test]
fn why_suggests_a_name_for_one_that_is_not_there() {
    insta::assert_snapshot!(project().run(&["context", "ls", "ctx", "--why", "src/mian.c"]), @"
    exit 1
    --- stderr
    error: `src/mian.c` is not in the build context `ctx`
    hint: did you mean `src/main.c`?
    ");
    insta::assert_snapshot!(project().run(&["context", "ls", "nowhere"]), @"
    exit 2
    --- stderr
    error: cannot read the context `nowhere`
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn the_dockerfiles_own_ignore_file_comes_before_the_contexts_and_containerignore_before_dockerignore() {
    let kiln = Kiln::new();
    for name in ["Dockerfile", "a", "b", "c", "d", "e"] {
        kiln.file(&format!("ctx/{name}"), "");
    }
    let left_out = |args: &[&str]| {
        let answer = kiln.run(&[&["context", "ls", "ctx", "--ignored", "--format=json"], args].concat());
        let lines = answer.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .map(|line| format!("{} {}", line["Path"].as_str().unwrap(), line["Rule"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(left_out(&[]), [""; 0]);
    kiln.file("ctx/.dockerignore", "a\n");
    assert_eq!(left_out(&[]), ["a .dockerignore:1"]);
    kiln.file("ctx/.containerignore", "b\n");
    assert_eq!(left_out(&[]), ["b .containerignore:1"]);
    kiln.file("ctx/Dockerfile.dockerignore", "c\n");
    assert_eq!(left_out(&[]), ["c Dockerfile.dockerignore:1"]);
    kiln.file("ctx/Dockerfile.containerignore", "d\n");
    assert_eq!(left_out(&[]), ["d Dockerfile.containerignore:1"]);
    kiln.file("mine", "\n e \n");
    assert_eq!(left_out(&["--ignorefile", "mine"]), ["e mine:2"]);
    kiln.file("other.Dockerfile", "");
    kiln.file("other.Dockerfile.dockerignore", "[ab]\n");
    assert_eq!(
        left_out(&["-f", "other.Dockerfile"]),
        ["a other.Dockerfile.dockerignore:1", "b other.Dockerfile.dockerignore:1"]
    );
    // An own file that is empty hides nothing, and is the one that counts.
    kiln.file("other.Dockerfile.dockerignore", "");
    assert_eq!(left_out(&["-f", "other.Dockerfile"]), [""; 0]);
    let answer = kiln.run(&["context", "ls", "ctx", "--ignorefile", "none"]);
    assert!(answer.code == 2 && answer.stderr.contains("there is no file `none`"), "{answer}");
}

#[test]
fn a_containerfiles_own_ignore_file_counts_too() {
    let kiln = Kiln::new();
    for name in ["Containerfile", "a", "b"] {
        kiln.file(&format!("ctx/{name}"), "");
    }
    kiln.file("ctx/Containerfile.dockerignore", "a\n");
    kiln.file("ctx/.dockerignore", "b\n");
    assert!(kiln.run(&["context", "ls", "ctx", "--why", "a"]).stdout.contains("Containerfile.dockerignore:1"));
}

#[test]
fn byte_order_marks_line_ends_and_comments_are_read_as_docker_reads_them() {
    let kiln = Kiln::new();
    for name in ["a", "b", "#c", "d", "e/f", "g"] {
        kiln.file(&format!("ctx/{name}"), "");
    }
    kiln.file("ctx/.dockerignore", "\u{feff}a\r\n# b\r\n #c\r\n  /d/ \r\n./x/../e\r\n\r\ng\r\n! /g\r\n.dockerignore");
    insta::assert_snapshot!(kiln.run(&["context", "ls", "ctx", "--ignored"]).stdout, @"
    PATH            RULE
    #c              .dockerignore:3: #c
    .dockerignore   .dockerignore:9: .dockerignore
    a               .dockerignore:1: a
    d               .dockerignore:4: d
    e/              .dockerignore:5: e
    ");
}

#[test]
fn a_malformed_pattern_is_shown_at_its_place() {
    let kiln = project();
    kiln.file("ctx/.dockerignore", "ok\n  a[b\n!\n");
    insta::assert_snapshot!(kiln.run(&["context", "ls", "ctx"]), @r#"
    exit 1
    --- stderr
    error: `a[b` is no pattern: brackets, ranges or escapes do not fit together
     --> .dockerignore:2:3
      |
    2 |   a[b
      |   ^^^
    hint: write `\` before a character that is meant as itself

    error: `!` is no pattern: `!` needs a pattern behind it
     --> .dockerignore:3:1
      |
    3 | !
      | ^
    hint: write behind the `!` what it takes back, or remove it

    error: cannot use the ignore rules of `.dockerignore`
    "#);
}

#[test]
fn a_named_context_has_an_ignore_file_of_its_own() {
    let kiln = project();
    kiln.file("lib/.dockerignore", "*.o\n");
    kiln.file("lib/a.c", "a");
    kiln.file("lib/a.o", "o");
    kiln.file("lib/prod.env", "p");
    let args = ["context", "ls", "ctx", "--build-context", "lib=lib"];
    insta::assert_snapshot!(kiln.run(&args), @"
    exit 0
    --- stdout
    CONTEXT   PATH             SIZE
    context   .dockerignore    60B
    context   Dockerfile       22B
    context   docs/deep/keep   1B
    context   empty/           0B
    context   keep.env         4B
    context   src/main.c       10B
    lib       .dockerignore    4B
    lib       a.c              1B
    lib       prod.env         1B
    --- stderr
    8 files, 103B
    ");
    let why = kiln.run(&[&args[..], &["--why", "lib=a.o"]].concat()).stdout;
    insta::assert_snapshot!(why, @"`a.o` is left out: `*.o` at lib/.dockerignore:1 decides");
}

#[test]
fn a_check_finds_sources_that_are_ignored_as_buildkit_does() {
    let kiln = Kiln::new();
    kiln.file(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY Dockerfile ./a/../b.env .\nADD *.env /x\n# check=skip=CopyIgnoredFile\nCOPY c.env .\n",
    );
    for name in ["a", "b.env", "c.env"] {
        kiln.file(&format!("ctx/{name}"), "");
    }
    kiln.file("ctx/.dockerignore", "*.env\nDockerfile\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "ctx"]), @"
    exit 1
    --- stdout
    Check complete, 3 warnings have been found!

    warning[CopyIgnoredFile]: `Dockerfile` is left out by the pattern `Dockerfile` at .dockerignore:2
     --> ctx/Dockerfile:2:6
      |
    2 | COPY Dockerfile ./a/../b.env .
      |      ^^^^^^^^^^
    hint: remove or narrow the pattern, or take files back in with `!` below .dockerignore:2

    warning[CopyIgnoredFile]: `./a/../b.env` is left out by the pattern `*.env` at .dockerignore:1
     --> ctx/Dockerfile:2:17
      |
    2 | COPY Dockerfile ./a/../b.env .
      |                 ^^^^^^^^^^^^
    hint: remove or narrow the pattern, or take files back in with `!` below .dockerignore:1

    warning[CopyIgnoredFile]: `*.env` is left out by the pattern `*.env` at .dockerignore:1
     --> ctx/Dockerfile:3:5
      |
    3 | ADD *.env /x
      |     ^^^^^
    hint: remove or narrow the pattern, or take files back in with `!` below .dockerignore:1
    ");
    // Patterns that hide some names hide no whole context; those that hide every name do.
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY . /\n");
    kiln.file("ctx/.dockerignore", ".*\n");
    assert_eq!(kiln.run(&["build", "--check", "ctx"]).code, 0);
    kiln.file("ctx/.dockerignore", "*\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "ctx"]).stdout, @"
    Check complete, 1 warning has been found!

    warning[CopyIgnoredFile]: the whole context is left out by the pattern `*` at .dockerignore:1
     --> ctx/Dockerfile:2:6
      |
    2 | COPY . /
      |      ^
    hint: remove or narrow the pattern, or take files back in with `!` below .dockerignore:1
    ");
}

#[test]
fn a_check_looks_for_sources_in_the_context_before_anything_is_built() {
    let kiln = project();
    let dockerfile = "FROM busybox AS unused\nCOPY src/mian.c docs/x /\nCOPY --from=lib a.c b.c /\n\
                      RUN --mount=source=src/main.h,target=/m true\n\
                      FROM busybox\nARG DIR=src\nCOPY $DIR/*.c $DIR/*.h docs/deep /\nCOPY $SET_BY_BASE /\n";
    kiln.file("ctx/Dockerfile", dockerfile);
    kiln.file("lib/a.c", "");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "--build-context", "lib=lib", "ctx"]), @"
    exit 1
    --- stdout
    Check complete, 5 warnings have been found!

    warning[CopySourceMissing]: `src/mian.c` is not in the build context `ctx`
     --> ctx/Dockerfile:2:6
      |
    2 | COPY src/mian.c docs/x /
      |      ^^^^^^^^^^
    hint: did you mean `src/main.c`?

    warning[CopySourceMissing]: `docs/x` is left out by the pattern `docs` at .dockerignore:4
     --> ctx/Dockerfile:2:17
      |
    2 | COPY src/mian.c docs/x /
      |                 ^^^^^^
    hint: remove or narrow the pattern, or take files back in with `!` below .dockerignore:4

    warning[CopySourceMissing]: `b.c` is not in context `lib` (`lib`)
     --> ctx/Dockerfile:3:21
      |
    3 | COPY --from=lib a.c b.c /
      |                     ^^^
    hint: did you mean `a.c`?

    warning[CopySourceMissing]: `src/main.h` is not in the build context `ctx`
     --> ctx/Dockerfile:4:13
      |
    4 | RUN --mount=source=src/main.h,target=/m true
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: did you mean `src/main.c`?

    warning[CopySourceMissing]: `src/*.h` matches nothing in the build context `ctx`
     --> ctx/Dockerfile:7:15
      |
    7 | COPY $DIR/*.c $DIR/*.h docs/deep /
      |               ^^^^^^^^
    hint: change the wildcard, or leave it out: nothing is copied for it
    ");
}
