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
