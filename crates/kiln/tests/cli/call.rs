//! `kiln build --call`: what buildx answers, without building and without a registry.

use crate::Kiln;

const STAGES: &str = "# TAG is the version\nARG TAG=1\n# build compiles it\nFROM 127.0.0.1:1/tools:$TAG AS build\n\
                      RUN --mount=type=secret,id=npm,required --mount=type=cache,target=/c make\n\nFROM scratch\n\
                      COPY --from=build /app /\n";

fn json(kiln: &Kiln, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&kiln.run(args).stdout).unwrap()
}

#[test]
fn targets_and_what_they_can_be_given_are_listed() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", STAGES);
    insta::assert_snapshot!(kiln.run(&["build", "--call=targets", "."]), @"
    exit 0
    --- stdout
    TARGET    DESCRIPTION
    build     compiles it
    (default)
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--call=outline", "--build-arg", "TAG=2", "."]), @"
    exit 0
    --- stdout
    BUILD ARG   VALUE   DESCRIPTION
    TAG         2       is the version

    SECRET   REQUIRED
    npm      true

    CACHE
    /c
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--call=outline", "--target=build", "."]), @"
    exit 0
    --- stdout
    TARGET:      build
    DESCRIPTION: compiles it

    BUILD ARG   VALUE   DESCRIPTION
    TAG         1       is the version

    SECRET   REQUIRED
    npm      true

    CACHE
    /c
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--call=subrequests.describe", "."]), @"
    exit 0
    --- stdout
    NAME                 VERSION DESCRIPTION
    outline              1.0.0   Show what the target can be given
    targets              1.0.0   List the stages that can be built
    lint                 1.0.0   Check the Dockerfile
    subrequests.describe 1.0.0   List what can be asked
    ");
    let targets = json(&kiln, &["build", "--call=targets,format=json", "."]);
    assert_eq!(targets["targets"][0]["base"], "127.0.0.1:1/tools:$TAG");
    let outline = json(&kiln, &["build", "--call=outline,format=json", "."]);
    assert_eq!(outline["secrets"][0]["location"]["ranges"][0]["start"]["line"], 5);
}

#[test]
fn a_check_answers_in_buildx_s_fields() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "FROM scratch as a\nCMD \\\n  \\\n\n  run\n");
    let answer = kiln.run(&["build", "--call=check,format=json", "."]);
    assert_eq!(answer.code, 1);
    let value: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let lines = |at: usize| {
        let range = &value["warnings"][at]["location"]["ranges"][0];
        (
            value["warnings"][at]["ruleName"].as_str().unwrap(),
            range["start"]["line"].clone(),
            range["end"]["line"].clone(),
        )
    };
    let number = |line: u64| serde_json::json!(line);
    assert_eq!(lines(0), ("FromAsCasing", number(1), number(1)));
    assert_eq!(lines(1), ("NoEmptyContinuation", number(5), number(5)));
    assert_eq!(lines(2), ("JSONArgsRecommended", number(2), number(5)));
    assert_eq!(value["sources"][0]["filename"], "Dockerfile");
    assert_eq!(kiln.run(&["build", "--call=check,format=json,ignorestatus=true", "."]).code, 0);
    kiln.file("Dockerfile", "FROM scratch\nRNU a\n");
    let broken = json(&kiln, &["build", "--call=lint,format=json", "."]);
    assert_eq!(broken["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    kiln.file("Dockerfile", "# check=error=true\nFROM scratch as a\n");
    let strict = json(&kiln, &["build", "--call=check,format=json", "."]);
    assert!(strict["buildError"]["message"].as_str().unwrap().ends_with("FromAsCasing"), "{strict}");
}

#[test]
fn a_check_looks_at_all_stages_or_at_those_of_the_target() {
    let kiln = Kiln::new();
    kiln.file(
        "Dockerfile",
        "FROM 127.0.0.1:1/a AS one\nENV a b\nFROM scratch AS two\nCOPY --from=three / /\nFROM scratch AS three\n",
    );
    let code = |args: &[&str]| {
        let answer = kiln.run(&[&["build", "--check"], args].concat());
        (
            answer.code,
            answer.stdout.contains("LegacyKeyValueFormat"),
            answer.stderr.contains("`three` is defined only below"),
        )
    };
    assert_eq!(code(&["."]), (1, true, true));
    kiln.file("Dockerfile", "FROM 127.0.0.1:1/a AS one\nENV a b\nFROM scratch AS two\nCOPY a /\n");
    assert_eq!(code(&["."]), (1, true, false));
    assert_eq!(code(&["--target=one", "."]), (1, true, false));
    assert!(!code(&["--target=two", "."]).1);
    assert!(!code(&["--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all", "."]).1);
}

#[test]
fn what_cannot_be_called_is_refused() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", STAGES);
    insta::assert_snapshot!(kiln.run(&["build", "--call=outlines", "."]), @"
    exit 2
    --- stderr
    error: invalid value 'outlines' for '--call <WHAT>': `outlines` is nothing to call: expected `build`, `check`, `outline`, `targets`, `subrequests.describe`; did you mean `outline`?

    For more information, try '--help'.
    ");
    assert_eq!(kiln.run(&["build", "--call=outline", "--target=none", "."]).code, 1);
}
