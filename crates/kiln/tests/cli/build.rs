//! `kiln build`, as far as it comes without an image: checks, scratch, standard input, the files it leaves.

use crate::Kiln;

#[test]
fn a_dockerfile_is_checked_without_being_built() {
    let kiln = Kiln::new();
    kiln.file("good/Dockerfile", "FROM scratch\nCOPY a /a\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "good"]), @"");
    kiln.file("bad/Dockerfile", "FROM scratch\nRNU make\n");
    insta::assert_snapshot!(kiln.run(&["build", "--check", "bad"]), @"");
}
