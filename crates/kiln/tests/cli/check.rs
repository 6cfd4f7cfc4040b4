//! `kiln check`: formats, exit codes, settings, and no network.

use crate::Kiln;

const ODD: &str = "FROM scratch as base\nCMD run it\n";

#[test]
fn findings_go_to_standard_output_and_the_sum_to_standard_error() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", ODD);
    insta::assert_snapshot!(kiln.run(&["check"]), @r#"
    exit 0
    --- stdout
    warning[FromAsCasing]: `as` is not in the case of `FROM`
     --> Dockerfile:1:14
      |
    1 | FROM scratch as base
      |              ^^
    hint: write `AS`

    warning[JSONArgsRecommended]: CMD in shell form: signals go to the shell and not to the program
     --> Dockerfile:2:5
      |
    2 | CMD run it
      |     ^^^^^^
    hint: write the arguments as a JSON array: `CMD ["program", "argument"]`

    --- stderr
    2 findings in 1 file: 2 warnings
    "#);
    kiln.file("Dockerfile", "FROM scratch\nCMD [\"/run\"]\n");
    insta::assert_snapshot!(kiln.run(&["check"]), @"
    exit 0
    --- stderr
    nothing found in 1 file
    ");
}

#[test]
fn every_command_and_format_tells_all_errors_at_once_in_the_order_of_the_file() {
    let kiln = Kiln::new();
    let broken = "RUN --netwrok=none --mount=type=bnid x\nEXPOSE a b\nCOPY --from=3 a /\n";
    kiln.file("ctx/Dockerfile", &format!("FROM scratch\n{broken}"));
    let places = |text: &str, before: &str| -> Vec<String> {
        let is_other = |c: char| !c.is_ascii_digit();
        let places =
            text.split(before).skip(1).filter_map(|rest| rest.trim_start_matches(is_other).split(is_other).next());
        places.map(str::to_owned).collect()
    };
    let wanted = ["2", "2", "3", "3", "4"];
    for command in [&["build", "ctx"][..], &["build", "--check", "ctx"], &["build", "--call=outline", "ctx"]] {
        let answer = kiln.run(command);
        assert_eq!(
            (answer.code, places(&answer.stderr, "Dockerfile:")),
            (1, wanted.map(str::to_owned).into()),
            "{answer}"
        );
    }
    for (format, before) in [
        ("tty", "Dockerfile:"),
        ("github", "Dockerfile,line="),
        ("sarif", "\"startLine\":"),
        ("json", "\"start\":"),
        ("checkstyle", "<error line=\""),
    ] {
        let answer = kiln.run(&["check", "ctx", "--format", format]);
        assert_eq!((answer.code, places(&answer.stdout, before)), (1, wanted.map(str::to_owned).into()), "{answer}");
    }
}

#[test]
fn names_of_rules_that_there_are_not_are_told_where_they_stand() {
    let kiln = Kiln::new();
    kiln.file(".hadolint.yaml", "ignored:\n  - DL3008\n  - StageNameCase\n");
    kiln.file(
        "Dockerfile",
        "# check=skip=JSONArgRecommended\nFROM scratch\n# hadolint ignore=Nothing\nCMD [\"/run\"]\n",
    );
    let answer = kiln.run(&["check"]);
    for text in [".hadolint.yaml:3:5\n", "rule `StageNameCase` has no meaning here", "did you mean `StageNameCasing`?"]
    {
        assert!(answer.stderr.contains(text), "{text}: {answer}");
    }
    for text in [
        "no rule is called `JSONArgRecommended`\n --> Dockerfile:1:14\n",
        "did you mean `JSONArgsRecommended`?",
        "no rule is called `Nothing`\n --> Dockerfile:3:19\n",
        "list the rules with `kiln check --list-rules`",
    ] {
        assert!(answer.stdout.contains(text), "{text}: {answer}");
    }
    kiln.file(".hadolint.yaml", "no-color: true\nno-fail: perhaps\n");
    let answer = kiln.run(&["check"]);
    assert!(answer.code == 2 && answer.stderr.contains(".hadolint.yaml:2:10\n"), "{answer}");
}

#[test]
fn files_directories_and_standard_input_are_checked() {
    let kiln = Kiln::new();
    kiln.file("a/Containerfile", ODD);
    kiln.file("b.Dockerfile", "FROM scratch\nCMD [\"/run\"]\n");
    let answer = kiln.run(&["check", "a", "b.Dockerfile", "--format=github"]);
    insta::assert_snapshot!(answer, @r#"
    exit 0
    --- stdout
    ::warning file=a/Containerfile,line=1,endLine=1,col=14,endColumn=16,title=FromAsCasing::`as` is not in the case of `FROM`%0Ahint: write `AS`
    ::warning file=a/Containerfile,line=2,endLine=2,col=5,endColumn=11,title=JSONArgsRecommended::CMD in shell form: signals go to the shell and not to the program%0Ahint: write the arguments as a JSON array: `CMD ["program", "argument"]`
    --- stderr
    2 findings in 2 files: 2 warnings
    "#);
    let answer = kiln.run_with_input(&["check", "-", "--format=github"], ODD.as_bytes());
    assert!(answer.stdout.starts_with("::warning file=<stdin>,line=1,"), "{answer}");
    insta::assert_snapshot!(kiln.run(&["check", "nowhere"]), @"
    exit 2
    --- stderr
    error: cannot read `nowhere`
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn errors_of_the_language_end_with_1_and_warnings_only_when_asked() {
    let kiln = Kiln::new();
    let code = |args: &[&str], text: &str| {
        kiln.file("Dockerfile", text);
        kiln.run(&[&["check"], args].concat()).code
    };
    let strict = format!("# check=error=true\n{ODD}");
    assert_eq!(code(&[], ODD), 0);
    assert_eq!(code(&["--error"], ODD), 1);
    assert_eq!(code(&["--fail-on", "warning"], ODD), 1);
    assert_eq!(code(&["--fail-on", "never", "--error"], ODD), 0);
    assert_eq!(code(&["--error", "--ignore", "FromAsCasing,DL3025"], ODD), 0);
    assert_eq!(code(&[], &strict), 1);
    assert_eq!(code(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"], &strict), 0);
    assert_eq!(code(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"], ODD), 1);
    assert_eq!(code(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=frob"], ODD), 2);
    assert_eq!(code(&["--fail-on", "never"], "FROM scratch\nRNU a\n"), 1);
    assert_eq!(code(&["--fail-on", "high"], ODD), 2);
    assert_eq!(code(&["--ignore", "FromAsCasin"], ODD), 2);
    assert_eq!(code(&["--format", "yaml"], ODD), 2);
}

#[test]
fn broken_files_are_told_whole_and_in_every_format() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "FROM scratch\nRNU make\nCOPY a\n");
    insta::assert_snapshot!(kiln.run(&["check"]), @"
    exit 1
    --- stdout
    error: `RNU` is no instruction
     --> Dockerfile:2:1
      |
    2 | RNU make
      | ^^^
    hint: did you mean `RUN`?

    error: COPY `a` has no destination
     --> Dockerfile:3:1
      |
    3 | COPY a
      | ^^^^^^
    hint: write `COPY source… destination`

    --- stderr
    2 findings in 1 file: 2 errors
    ");
    for format in ["json", "sarif", "github", "checkstyle"] {
        let answer = kiln.run(&["check", "--format", format]);
        assert_eq!((answer.code, answer.stdout.contains("RNU")), (1, true), "{answer}");
    }
}

#[test]
fn programs_read_json_and_sarif() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", ODD);
    let json: serde_json::Value = serde_json::from_str(&kiln.run(&["check", "--format=json"]).stdout).unwrap();
    assert_eq!(json["findings"][1]["rule"], "JSONArgsRecommended");
    assert_eq!(json["findings"][1]["aliases"], serde_json::json!(["DL3025"]));
    assert_eq!(json["findings"][1]["range"]["start"], serde_json::json!({"line": 2, "column": 5, "byte": 25}));
    let sarif: serde_json::Value = serde_json::from_str(&kiln.run(&["check", "--format=sarif"]).stdout).unwrap();
    let run = &sarif["runs"][0];
    assert_eq!(run["results"][0]["ruleId"], "FromAsCasing");
    let rule = run["results"][0]["ruleIndex"].as_u64().unwrap();
    let help = run["tool"]["driver"]["rules"][rule as usize]["help"]["markdown"].as_str().unwrap();
    assert!(help.starts_with("# FromAsCasing\n"), "{help}");
}

#[test]
fn comments_switch_rules_off_by_any_name() {
    let kiln = Kiln::new();
    for text in [
        "FROM scratch\n# hadolint ignore=DL3025\nCMD run it\n",
        "FROM scratch\n# check=skip=JSONArgsRecommended\nCMD run it\n",
        "# hadolint global ignore=DL3025\nFROM scratch\nCMD run it\n",
        "# check=skip=DL3025\nFROM scratch\nCMD run it\n",
    ] {
        kiln.file("Dockerfile", text);
        let answer = kiln.run(&["check", "--error"]);
        assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{text}{answer}");
    }
}

#[test]
fn hadolints_configuration_is_found_and_followed() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", ODD);
    kiln.file("home.yaml", "");
    let config = kiln.file(".hadolint.yaml", "ignored: [DL3025]\noverride:\n  error: [FromAsCasing]\n");
    insta::assert_snapshot!(kiln.run(&["check"]), @"
    exit 1
    --- stdout
    error[FromAsCasing]: `as` is not in the case of `FROM`
     --> Dockerfile:1:14
      |
    1 | FROM scratch as base
      |              ^^
    hint: write `AS`

    --- stderr
    1 finding in 1 file: 1 error
    ");
    std::fs::rename(config, kiln.path().join("other.yaml")).unwrap();
    assert_eq!(kiln.run(&["check"]).code, 0);
    assert_eq!(kiln.run(&["check", "--config", "other.yaml"]).code, 1);
    kiln.file(".config/hadolint.yml", "failure-threshold: warning\n");
    assert_eq!(kiln.run(&["check"]).code, 1);
    kiln.file(".hadolint.yml", "failure-threshold: warning\nno-fail: true\nformat: github\n");
    let answer = kiln.run(&["check"]);
    assert_eq!((answer.code, answer.stdout.starts_with("::warning ")), (0, true), "{answer}");
    assert_eq!(kiln.run(&["build", "--check", "."]).code, 1, "a build has settings of its own");
}

#[test]
fn what_a_configuration_means_to_nobody_is_told_with_its_line() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "FROM scratch\nCMD [\"/run\"]\n");
    kiln.file(".hadolint.yaml", "ignored: [DL3025]\nignore: [DL3008]\n");
    insta::assert_snapshot!(kiln.run(&["check"]), @"
    exit 0
    --- stderr
    warning: key `ignore` has no meaning here
     --> .hadolint.yaml:2:1
      |
    2 | ignore: [DL3008]
      | ^^^^^^
    hint: did you mean `ignored`?
    nothing found in 1 file
    ");
    kiln.file(".hadolint.yaml", "ignored:\n  DL3025: true\n");
    insta::assert_snapshot!(kiln.run(&["check"]), @"
    exit 2
    --- stderr
    error: expected sequence start at line 2, column 3
     --> .hadolint.yaml:2:3
      |
    2 |   DL3025: true
      |   ^^^^^^

    error: cannot use the configuration `.hadolint.yaml`
    ");
    insta::assert_snapshot!(kiln.run(&["check", "--config", "none.yaml"]), @"
    exit 2
    --- stderr
    error: cannot read `none.yaml`
      caused by: No such file or directory (os error 2)
    ");
    // A file without an end is not read into memory.
    insta::assert_snapshot!(kiln.run(&["check", "--config", "/dev/zero"]), @"
    exit 1
    --- stderr
    error: `/dev/zero` is larger than 16 MiB
    ");
}

#[test]
fn images_are_not_asked_about_and_all_stages_are_checked() {
    let kiln = Kiln::new();
    let text = "FROM 127.0.0.1:1/unreachable AS unused\nENV a b\nFROM 127.0.0.1:1/other\nARG SOURCE\nCOPY $SORUCE /\n";
    kiln.file("Dockerfile", text);
    let rules = |args: &[&str]| {
        let answer = kiln.run(&[&["check", "--format=github"], args].concat());
        let title = |line: &str| line.split("title=").nth(1).unwrap().split(':').next().unwrap().to_owned();
        let build = |title: &String| title == "LegacyKeyValueFormat" || title == "UndefinedVar";
        answer.stdout.lines().map(title).filter(build).collect::<Vec<_>>()
    };
    assert_eq!(rules(&[]), ["LegacyKeyValueFormat", "UndefinedVar"]);
    assert_eq!(rules(&["--target", "unused"]), ["LegacyKeyValueFormat"]);
    assert_eq!(rules(&["--target", "1"]), ["UndefinedVar"]);
}

#[test]
fn rules_are_listed_and_explained() {
    let kiln = Kiln::new();
    let list = kiln.run(&["check", "--list-rules"]).stdout;
    assert!(list.lines().any(|line| line.starts_with("JSONArgsRecommended ") && line.contains("DL3025")), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&kiln.run(&["check", "--list-rules", "--format=json"]).stdout).unwrap();
    assert!(json.as_array().unwrap().len() >= 22);
    let reference = kiln.run(&["check", "--list-rules", "--format=markdown"]).stdout;
    assert!(reference.contains("\n## JSONArgsRecommended\n"), "{reference}");
    insta::assert_snapshot!(kiln.run(&["check", "--explain", "dl3025"]), @r#"
    exit 0
    --- stdout
    # JSONArgsRecommended

    warning; BuildKit has it too; also known as `DL3025`: CMD or ENTRYPOINT goes through a shell, which gets the signals. Runs in every build, in `kiln build --check` and in `kiln check`.

    In the shell form the first process of the container is `/bin/sh`. It does not pass signals on, so the program is not told to stop and is killed after a timeout. A JSON array starts the program itself. Who wants the shell can say so with `SHELL`, or write `CMD ["sh", "-c", "…"]`.

    Found:

    ```dockerfile
    FROM alpine:3.20
    CMD my-server --port 80
    ```

    Not found:

    ```dockerfile
    FROM alpine:3.20
    CMD ["my-server", "--port", "80"]
    ```

    Switch it off with `# check=skip=JSONArgsRecommended`, at the top of the file or above one instruction.
    "#);
    insta::assert_snapshot!(kiln.run(&["check", "--explain", "JsonArgRecommended"]), @"
    exit 2
    --- stderr
    error: no rule is called `JsonArgRecommended`
    hint: did you mean `JSONArgsRecommended`?
    ");
}

#[test]
fn one_mistake_is_one_finding() {
    let kiln = Kiln::new();
    let count = |text: &str| {
        kiln.file("Dockerfile", text);
        kiln.run(&["check", "--format=github"]).stdout.lines().count()
    };
    assert_eq!(count("ARG VERSION=1\nFROM busybox:$VERSIN\n"), 1);
    assert_eq!(count("FROM busybox:1 AS build\nFROM biuld\n"), 1);
    assert_eq!(count("FROM busybox:1 AS build\nFROM busybox:1\nCOPY --from=biuld /a /b\n"), 1);
    assert_eq!(count("FROM scratch\nCOPY Dockerfile ./ # all of it\n"), 1);
}

#[test]
fn unsafe_fixes_want_a_fix_to_be_asked_for() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", ODD);
    let answer = kiln.run(&["check", "--unsafe-fixes"]);
    assert!(answer.code == 2 && answer.stderr.contains("--fix"), "{answer}");
}
