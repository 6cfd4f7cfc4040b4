//! What is not understood: exit code 2, nothing on standard output, and the way out.

use crate::Kiln;

#[test]
fn unknown_words_name_the_nearest() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["build", "--taget", "x", "."]), @"
    exit 2
    --- stderr
    error: unexpected argument '--taget' found

      tip: a similar argument exists: '--target'

    Usage: kiln build --target <STAGE> <CONTEXT>

    For more information, try '--help'.
    ");
    assert!(!kiln.run(&["build", "--squas", "."]).stderr.contains("--squash"), "what is refused is no suggestion");
    insta::assert_snapshot!(kiln.run(&["biuld", "."]), @"
    exit 2
    --- stderr
    error: unrecognized subcommand 'biuld'

      tip: some similar subcommands exist: 'builds', 'build'

    Usage: kiln [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--progress=plian", "."]), @"
    exit 2
    --- stderr
    error: invalid value 'plian' for '--progress <VIEW>': `plian` is no view: expected `auto`, `plain`, `tty`, `rawjson` or `quiet`; did you mean `plain`?

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(kiln.run(&["build", "-o", "type=ocl,dest=x", "."]), @"
    exit 2
    --- stderr
    error: invalid value 'type=ocl,dest=x' for '--output <OUTPUT>': `ocl` is no type of output; did you mean `oci`?

    For more information, try '--help'.
    ");
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["build", "--squash", "."]), @"
    exit 2
    --- stderr
    error: `--squash` is not supported yet
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--sbom=true", "."]), @"
    exit 2
    --- stderr
    error: `--sbom` is not supported yet
    hint: leave it out, or write `--sbom=false`
    ");
    insta::assert_snapshot!(kiln.run(&["run", "-it", "busybox", "sh"]), @"
    exit 2
    --- stderr
    error: `--interactive` is not supported yet
    ");
    for line in [&["bake", "-f", "x.hcl", "--print"][..], &["buildx", "bake", "app"]] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(kiln.run(line), @"
            exit 2
            --- stderr
            error: `bake` is not supported yet
            hint: build each of its targets with `kiln build`
            ");
        }
    }
    insta::assert_snapshot!(kiln.run(&["push", "-a", "app:1"]), @"
    exit 2
    --- stderr
    error: `app:1` is one image, and `--all-tags` pushes all of a repository
    hint: leave out the tag, or `--all-tags`
    ");
}

#[test]
fn values_say_what_they_should_be() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["build", "-t", "Upper", "."]), @"
    exit 2
    --- stderr
    error: invalid value 'Upper' for '--tag <NAME>': `Upper` is not an image reference: a repository name is lower case

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--secret", "src=x", "."]), @"
    exit 2
    --- stderr
    error: invalid value 'src=x' for '--secret <SECRET>': the secret has no `id`

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--secret", "id=x,src=none", "."]), @"
    exit 2
    --- stderr
    error: cannot read secret `x` from `none`
      caused by: No such file or directory (os error 2)
    hint: name a file that is there, `id=x,src=FILE`, or a variable that is set, `id=x,env=NAME`
    ");
    insta::assert_snapshot!(kiln.run(&["build", "nowhere"]), @"
    exit 2
    --- stderr
    error: cannot read the context `nowhere`
      caused by: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(kiln.run(&["build", "--progress=tty", "."]), @"
    exit 2
    --- stderr
    error: `--progress=tty` needs a terminal on standard error
    hint: use `--progress=plain`
    ");
    insta::assert_snapshot!(kiln.run(&["login", "-u", "me", "localhost:1"]), @"
    exit 2
    --- stderr
    error: there is no terminal to ask for the user name and password
    hint: use `-u NAME --password-stdin`
    ");
}

#[test]
fn values_of_limits_are_refused_with_the_flag_the_value_and_the_form() {
    let kiln = Kiln::new();
    kiln.file("context/Dockerfile", "FROM scratch\n");
    for (flag, value, form) in [
        ("--shm-size", "64x", "as in `64m`"),
        ("--shm-size", "-1m", "as in `64m`"),
        ("--shm-size", "", "as in `64m`"),
        ("--memory", "lots", "as in `64m`"),
        ("--memory-swap", "-2", "as in `64m`"),
        ("--cpu-shares", "many", "as in `512`"),
        ("--cpu-period", "10", "as in `100000`"),
        ("--cpu-quota", "10", "as in `50000`"),
        ("--cpuset-cpus", "3-1", "as in `0-3,7`"),
        ("--cpuset-mems", "all", "as in `0-3,7`"),
        ("--cgroup-parent", "/a/../b", "without `..`"),
        ("--ulimit", "nofile", "as in `nofile=1024`"),
        ("--ulimit", "nofiles=1", "did you mean `nofile`?"),
        ("--ulimit", "nofile=2:1", "as in `nofile=1024:2048`"),
        ("--ulimit", "nofile=x", "expected a number"),
        ("--add-host", "db", "as in `db:10.0.0.7`"),
        ("--add-host", "db:", "as in `db:10.0.0.7`"),
        ("--add-host", "a b:10.0.0.7", "as in `db:10.0.0.7`"),
    ] {
        for command in [&["build"][..], &["run"]] {
            let (given, image) = (format!("{flag}={value}"), if command == ["run"] { "busybox" } else { "context" });
            let answer = kiln.run(&[command, &[&given, image]].concat());
            let told = format!("invalid value '{value}' for '{flag} <");
            assert!(answer.code == 2 && answer.stdout.is_empty(), "{given}: {}", answer.stderr);
            // Of an empty value clap says that it is none.
            let is_told = answer.stderr.contains(&told) && answer.stderr.contains(form);
            assert!(is_told || value.is_empty(), "{command:?} {given}: {}", answer.stderr);
            assert!(answer.stderr.contains(flag), "{given}: {}", answer.stderr);
        }
    }
    for (limit, form) in [
        ("memory", "as in `memory=2g`"),
        ("memroy=1", "did you mean `memory`?"),
        ("cpu-period=1", "as in `100000`"),
        ("cpuset-cpus=a", "as in `0-3,7`"),
    ] {
        let answer = kiln.run(&["build", "--resource", limit, "context"]);
        assert!(answer.code == 2 && answer.stderr.contains(form), "{limit}: {}", answer.stderr);
        assert!(answer.stderr.contains(&format!("invalid value '{limit}' for '--resource <")), "{}", answer.stderr);
    }
    let named = kiln.run(&["run", "--hostname", "a b", "busybox"]);
    assert!(named.code == 2 && named.stderr.contains("'a b' for '--hostname <NAME>'"), "{}", named.stderr);
    let named = kiln.run(&["build", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=a b", "context"]);
    assert!(named.code == 2 && named.stderr.contains("`BUILDKIT_SANDBOX_HOSTNAME`"), "{}", named.stderr);
    assert!(named.stderr.contains("`a b`") && named.stderr.contains("as in `build-1.lan`"), "{}", named.stderr);
}
