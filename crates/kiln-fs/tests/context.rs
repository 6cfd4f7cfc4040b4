//! Claims about contexts as people ask about them: what a build sees, what it does not, and why.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use kiln_fs::{Error, Presence, SourceTree, probe, survey, verdict};
use support::{Scratch, context, spec, tree};

fn seen(tree: &SourceTree) -> (Vec<String>, Vec<String>) {
    let survey = survey(tree).unwrap();
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    let sent = survey.sent.iter().map(|sent| format!("{} {:?} {}", text(&sent.path), sent.kind, sent.size));
    let left_out = survey
        .left_out
        .iter()
        .map(|left| format!("{}{} by {}", text(&left.path), if left.is_dir { "/" } else { "" }, left.rule));
    (sent.collect(), left_out.collect())
}

#[test]
fn a_survey_shows_what_is_sent_sorted_and_what_is_left_out_with_the_pattern() {
    let dir = Scratch::new();
    let src = dir.dir(
        "src",
        &["b=12", "a/z=1", "a/b.log=123", "empty/", "l->b", "node_modules/x/y", "keep/no", "keep/yes=1234"],
    );
    let tree = context(&src, &["**/*.log", "node_modules", "keep", "!keep/yes"]);
    let (sent, left_out) = seen(&tree);
    assert_eq!(sent, ["a/z Regular 1", "b Regular 2", "empty Directory 0", "keep/yes Regular 4", "l Symlink 0"]);
    assert_eq!(left_out, ["a/b.log by 0", "keep/no by 2", "node_modules/ by 1"]);
}

#[test]
fn a_verdict_names_the_pattern_that_had_the_last_word() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["a.md", "README.md", "b", "docs/x", "docs/deep/keep", "link->docs"]);
    let tree = context(&src, &["*.md", "!README.md", "docs", "!docs/deep/keep"]);
    let judged = |path: &str| {
        let verdict = verdict(&tree, path.as_bytes()).unwrap();
        (String::from_utf8(verdict.path).unwrap(), verdict.is_dir, verdict.is_hidden, verdict.rule)
    };
    assert_eq!(judged("a.md"), ("a.md".into(), false, true, Some(0)));
    assert_eq!(judged("./README.md"), ("README.md".into(), false, false, Some(1)));
    assert_eq!(judged("b"), ("b".into(), false, false, None));
    assert_eq!(judged("docs"), ("docs".into(), true, true, Some(2)));
    assert_eq!(judged("docs/deep/keep"), ("docs/deep/keep".into(), false, false, Some(3)));
    assert_eq!(judged("link/x"), ("docs/x".into(), false, true, Some(2)));
    assert_eq!(judged("."), (String::new(), true, false, None));
    let Err(Error::NotFound { similar, ignored_by: None, .. }) = verdict(&tree, b"READ.md") else { panic!() };
    assert_eq!(similar, ["README.md"]);
}

#[test]
fn a_probe_says_what_a_copy_would_find() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["a.txt", "b.env", "d/x", "h/x", "k/no", "k/yes", "empty/", "link->d"]);
    let tree = context(&src, &["*.env", "h", "k", "!k/yes"]);
    let hidden = |rule: usize, pattern: &str| Presence::Hidden(rule, pattern.to_owned());
    let cases = [
        ("a.txt", Presence::Present),
        ("/d/", Presence::Present),
        (".", Presence::Present),
        ("empty", Presence::Present),
        ("link/x", Presence::Present),
        ("*.txt", Presence::Present),
        ("k", Presence::Present),
        ("k/yes", Presence::Present),
        ("k/no", hidden(2, "k")),
        ("b.env", hidden(0, "*.env")),
        ("h", hidden(1, "h")),
        ("h/x", hidden(1, "h")),
        ("*.env", hidden(0, "*.env")),
        ("*.none", Presence::Unmatched),
        ("d/nope", Presence::Missing(vec![])),
        ("a.tx", Presence::Missing(vec!["a.txt".into()])),
    ];
    for (path, wanted) in cases {
        assert_eq!(probe(&tree, &spec(path, "/", |_| {})).unwrap(), wanted, "{path}");
    }
}

#[test]
fn a_probe_sees_what_parents_would_choose() {
    let dir = Scratch::new();
    let tree = tree(&dir.dir("src", &["a/b/c.txt", "a/d"]));
    let probed = |include: &str, required: &[&str]| {
        let required = required.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let spec = spec("/", "/", |spec| {
            spec.include = vec![include.to_owned()];
            spec.required_paths = required;
        });
        probe(&tree, &spec).unwrap()
    };
    assert_eq!(probed("a/*/c.txt", &[]), Presence::Present);
    assert_eq!(probed("a/*/none", &[]), Presence::Unmatched);
    assert_eq!(probed("a/d", &["/a/d"]), Presence::Present);
    assert_eq!(probed("a/e", &["/a/e"]), Presence::Missing(vec!["a/b".into(), "a/d".into()]));
}
