//! Help: every page of it, so that a change to what people read is seen in review.

use crate::Kiln;

#[test]
fn the_front_page() {
    insta::assert_snapshot!(Kiln::new().run(&["--help"]), @"");
}

#[test]
fn no_command_is_an_error_that_helps() {
    let answer = Kiln::new().run(&[]);
    assert_eq!((answer.code, answer.stdout.as_str()), (2, ""));
    assert!(answer.stderr.contains("Usage: kiln"), "{answer}");
}

#[test]
fn build() {
    insta::assert_snapshot!(Kiln::new().run(&["build", "--help"]), @"");
}

#[test]
fn running_and_looking() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["run", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["images", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["inspect", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["history", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["version", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["completion", "-h"]).stdout, @"");
}

#[test]
fn moving_and_removing() {
    let kiln = Kiln::new();
    insta::assert_snapshot!(kiln.run(&["pull", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["push", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["tag", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["rmi", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["save", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["load", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["login", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["logout", "-h"]).stdout, @"");
    insta::assert_snapshot!(kiln.run(&["prune", "-h"]).stdout, @"");
}
