//! `kiln build` for real: from nothing and from busybox, with everything it leaves on streams and in files.

use crate::{Kiln, stable};

#[test]
fn a_dockerfile_is_checked_without_being_built() {
    let kiln = Kiln::new();
    kiln.file("good/Dockerfile", "FROM scratch\nCOPY a /a\n");
    kiln.file("good/a", "");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "good"]), @"
    exit 0
    --- stdout
    Check complete, no warnings found.
    ");
    kiln.file("bad/Dockerfile", "FROM scratch\nRNU make\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "bad"]), @"
    exit 1
    --- stderr
    error: `RNU` is no instruction
     --> bad/Dockerfile:2:1
      |
    2 | RNU make
      | ^^^
    hint: did you mean `RUN`?

    error: `bad/Dockerfile` cannot be built
    ");
    kiln.file("odd/Dockerfile", "FROM scratch as base\nLABEL a=b\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "odd"]), @"
    exit 1
    --- stdout
    Check complete, 1 warning has been found!

    warning[FromAsCasing]: `as` is not in the case of `FROM`
     --> odd/Dockerfile:1:14
      |
    1 | FROM scratch as base
      |              ^^
    hint: write `AS`
    ");
    insta::assert_snapshot!(kiln.run_with_input(&["build", "--check", "-"], b"FROM scratch\nRUN a\nENVY x\n").code, @"1");
}

#[test]
fn a_missing_dockerfile_is_named() {
    let kiln = Kiln::new();
    kiln.file("ctx/a", "");
    insta::assert_snapshot!(stable(&kiln.run(&["build", "ctx"])), @"
    exit 1
    --- stderr
    #1 [internal] load build definition from Dockerfile
    #1 ERROR: cannot read the Dockerfile `Dockerfile`: no such file in the build context

    error: cannot read the Dockerfile `Dockerfile`
      caused by: no such file in the build context
    hint: write a `Dockerfile` into the build context, or name another file with `-f`
    ");
}

#[test]
fn a_build_is_told_as_buildkit_tells_it_and_a_second_one_is_cached() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY a /a\nENV X=y\n");
    kiln.file("ctx/a", "hello\n");
    insta::assert_snapshot!(stable(&kiln.run(&["build", "-t", "app:1", "-t", "localhost:1/app", "ctx"])), @"
    exit 0
    --- stderr
    #1 [internal] load build definition from Dockerfile
    #1 DONE Ns

    #2 [internal] load .dockerignore
    #2 DONE Ns

    #3 [internal] load build context
    #3 DONE Ns

    #4 [1/1] COPY a /a
    #4 miss: first build
    #4 DONE Ns

    #5 exporting to image
    #5 writing image sha256:HEX done
    #5 naming to docker.io/library/app:1 done
    #5 naming to localhost:1/app:latest done
    #5 DONE Ns
    built docker.io/library/app:1, localhost:1/app:latest (HEX)
    ");
    insta::assert_snapshot!(stable(&kiln.run(&["build", "-t", "app:1", "ctx"])), @"
    exit 0
    --- stderr
    #1 [internal] load build definition from Dockerfile
    #1 DONE Ns

    #2 [internal] load .dockerignore
    #2 DONE Ns

    #3 [internal] load build context
    #3 DONE Ns

    #4 [1/1] COPY a /a
    #4 CACHED

    #5 exporting to image
    #5 writing image sha256:HEX done
    #5 naming to docker.io/library/app:1 done
    #5 DONE Ns
    built docker.io/library/app:1 (HEX)
    ");
}

#[test]
fn ids_and_metadata_are_left_where_asked() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY a /a\n");
    let a = kiln.file("ctx/a", "hello\n");
    let args = ["build", "-q", "-t", "app", "--iidfile", "iid", "--metadata-file", "meta", "ctx"];
    let answer = kiln.run(&args);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
    let id = std::fs::read_to_string(kiln.path().join("iid")).unwrap();
    assert_eq!(answer.stdout, format!("{id}\n"));
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(kiln.path().join("meta")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.config.digest"], id);
    assert_eq!(meta["image.name"], "docker.io/library/app:latest");
    assert_eq!(kiln.run(&["inspect", "-f", "{{.Id}}", "app"]).stdout, answer.stdout);

    std::fs::remove_file(a).unwrap();
    assert_eq!(kiln.run(&args).code, 1);
    assert!(!kiln.path().join("iid").exists(), "the id of an earlier build is no answer");
}

#[test]
fn data_goes_to_stdout_and_comes_back_as_a_context() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY . /\n");
    kiln.file("ctx/a", "hello\n");
    let output = kiln.command(&["build", "-o", "-", "ctx"]).output().unwrap();
    assert!(output.status.success() && output.stdout.len() >= 1024 && output.stdout[257..262] == *b"ustar");
    let again = kiln.run_with_input(&["build", "--progress=quiet", "-t", "again", "-"], &output.stdout);
    assert!(again.code == 0 && again.stdout.starts_with("sha256:"), "{again}");
    let files = kiln.run(&["build", "-o", "out", "-f", "ctx/Dockerfile", "ctx"]);
    assert_eq!(std::fs::read_to_string(kiln.path().join("out/a")).unwrap(), "hello\n", "{files}");
}

#[test]
fn a_dockerfile_comes_on_stdin() {
    let Some(kiln) = Kiln::that_builds() else { return };
    let answer = kiln.run_with_input(&["build", "-q", "-"], b"FROM scratch\nLABEL a=b\n");
    assert!(answer.code == 0 && answer.stdout.starts_with("sha256:"), "{answer}");
    kiln.file("ctx/a", "hello\n");
    let answer = kiln.run_with_input(&["build", "-q", "-f", "-", "ctx"], b"FROM scratch\nCOPY a /\n");
    assert!(answer.code == 0 && answer.stdout.starts_with("sha256:"), "{answer}");
}

#[test]
fn a_missing_source_says_what_hides_it() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY main.go /\n");
    kiln.file("ctx/.dockerignore", "# nothing of Go\n*.go\n");
    kiln.file("ctx/main.go", "");
    let answer = stable(&kiln.run(&["build", "ctx"]));
    assert!(answer.starts_with("exit 1\n"), "{answer}");
    insta::assert_snapshot!(answer.split_once("\nerror: ").expect("an error").1, @"
    cannot copy `main.go`: it is left out of the build context `ctx` by the pattern `*.go` at .dockerignore:2
     --> Dockerfile:2:1
      |
    2 | COPY main.go /
      | ^^^^^^^^^^^^^^
    hint: remove or narrow the pattern, or take files back in with `!` below it
    ");
}

#[test]
fn a_failed_step_shows_its_line_its_output_and_its_code() {
    let Some(kiln) = Kiln::with_busybox() else { return };
    kiln.file(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY --from=tools / /\nRUN echo one && \\\n    echo two && \\\n    exit 3\n",
    );
    insta::assert_snapshot!(stable(&kiln.run(&["build", "--build-context", "tools=root", "ctx"])), @r"
    exit 1
    --- stderr
    #1 [internal] load build definition from Dockerfile
    #1 DONE Ns

    #2 [internal] load .dockerignore
    #2 DONE Ns

    #3 [context tools] load from client
    #3 DONE Ns

    #4 [stage-0 1/2] COPY --from=tools / /
    #4 miss: first build
    #4 DONE Ns

    #5 [stage-0 2/2] RUN echo one &&     echo two &&     exit 3
    #5 miss: first build
    #5 N one
    #5 N two
    #5 ERROR: process `/bin/sh -c echo one &&     echo two &&     exit 3` did not complete successfully: exit code: 3

    error: process `/bin/sh -c echo one &&     echo two &&     exit 3` did not complete successfully: exit code: 3
     --> Dockerfile:3:1
      |
    3 | / RUN echo one && \
    4 | |     echo two && \
    5 | |     exit 3
      | |__________^
      last output:
      | one
      | two
    hint: look at the step's files as it left them with `kiln shell HEX`
    ");
}

#[test]
fn raw_progress_is_json_for_every_event() {
    let Some(kiln) = Kiln::with_busybox() else { return };
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY --from=tools / /\nRUN echo hello\n");
    let answer = kiln.run(&["build", "--progress=rawjson", "--build-context", "tools=root", "ctx"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (0, ""));
    let lines = answer.stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let logs: Vec<String> = lines.filter_map(|line| Some(line["logs"][0]["data"].as_str()?.to_owned())).collect();
    assert_eq!(logs, ["aGVsbG8K"]);
}

#[test]
fn a_secret_is_lent_and_left_nowhere() {
    let Some(kiln) = Kiln::with_busybox() else { return };
    kiln.file(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY --from=tools / /\nRUN --mount=type=secret,id=key wc -c < /run/secrets/key\n",
    );
    kiln.file("key", "HUSH-8d1f");
    let args = ["build", "-t", "a", "--build-context", "tools=root", "--secret", "id=key,src=key", "ctx"];
    let answer = kiln.run(&args);
    assert!(answer.code == 0 && answer.stderr.contains(" 9\n"), "{answer}");
    assert!(!answer.stderr.contains("HUSH"));
    assert!(!kiln.run(&["inspect", "a"]).stdout.contains("HUSH"));
    assert_eq!(files_with(&kiln.path().join("state"), b"HUSH-8d1f"), Vec::<std::path::PathBuf>::new());
}

fn files_with(dir: &std::path::Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(files_with(&path, needle));
        } else if kind.is_file() && std::fs::read(&path).unwrap().windows(needle.len()).any(|bytes| bytes == needle) {
            found.push(path);
        }
    }
    found
}
