//! What is not understood: exit code 2, nothing on standard output, and the way out.

use crate::Kiln;

#[test]
fn unknown_words_name_the_nearest() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["build", "--taget", "x", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["biuld", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "--progress=plian", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "-o", "type=ocl,dest=x", "."]), @"");
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["build", "--cache-to", "type=local,dest=x", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "--sbom=true", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["run", "-it", "busybox", "sh"]), @"");
}

#[test]
fn values_say_what_they_should_be() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["build", "-t", "Upper", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "--secret", "src=x", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "--secret", "id=x,src=none", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "nowhere"]), @"");
    insta::assert_snapshot!(kiln.run(&["build", "--progress=tty", "."]), @"");
    insta::assert_snapshot!(kiln.run(&["login", "-u", "me", "localhost:1"]), @"");
}

#[test]
fn a_home_is_needed_only_when_nothing_else_says_where() {
    let kiln = Kiln::new();
    // Root has a place of its own.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let output = kiln.command(&["images"]).env_remove("HOME").env_remove("KILN_STATE").output().unwrap();
    insta::assert_snapshot!(kiln.answer(output), @"");
}
