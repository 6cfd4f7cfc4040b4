//! Claims about ignore patterns and wildcards.

use super::matcher::{Translation, translate};
use super::*;

fn hides(patterns: &[&str], path: &str) -> bool {
    let set = PatternSet::new(patterns).unwrap();
    let whole = set.matches(path);
    assert_eq!(walked(&set, path), whole, "walking disagrees on {patterns:?} and {path}");
    whole
}

fn walked(set: &PatternSet, path: &str) -> bool {
    let mut state = set.root();
    for parent in parents(path.as_bytes()) {
        state = set.descend(&state, parent);
    }
    assert_eq!(set.is_match(&state, path.as_bytes()), set.descend(&state, path.as_bytes()).is_match());
    set.is_match(&state, path.as_bytes())
}

#[test]
fn single_patterns_hide_what_docker_hides() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("*.log", &["a.log", ".log"], &["a/b.log", "a.logs"]),
        ("**/*.log", &["a.log", "x/y/z.log"], &["z.log2"]),
        ("node_modules", &["node_modules", "node_modules/a/b"], &["a/node_modules", "node_modules2"]),
        ("**/node_modules", &["node_modules", "a/node_modules/x"], &["anode_modules2"]),
        ("**node", &["anode", "x/anode", "node"], &["nodes"]),
        ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
        ("a/*/c", &["a/b/c", "a/b/c/d"], &["a/c", "a/b/b/c"]),
        ("a?c", &["abc", "a☃c"], &["ac", "a/c"]),
        ("a[b-d]e", &["ace", "ace/x"], &["aee", "ae"]),
        ("a[^b-d]e", &["aze"], &["abe"]),
        ("a\\*", &["a*"], &["ab"]),
        ("a(b)+{c}|$", &["a(b)+{c}|$"], &["abc"]),
        ("./a/../b/", &["b", "b/c"], &["a"]),
        ("a**/b", &["a/b", "ax/b", "a/x/y/b"], &["b"]),
        ("[[:digit:]]x", &["1x"], &["ax"]),
        ("\\d", &["7"], &["d"]),
        ("a^b", &["a^b"], &[]),
    ];
    for (pattern, hidden, shown) in cases {
        hidden.iter().for_each(|path| assert!(hides(&[pattern], path), "{pattern} must hide {path}"));
        shown.iter().for_each(|path| assert!(!hides(&[pattern], path), "{pattern} must show {path}"));
    }
}

#[test]
fn the_last_word_wins_and_children_come_back() {
    let cases: &[(&[&str], &str, bool, Option<usize>)] = &[
        (&["*.md", "!README.md"], "README.md", false, Some(1)),
        (&["*.md", "!README.md", "README*"], "README.md", true, Some(2)),
        (&["*", "!src", "src/*.tmp"], "src/a.rs", false, Some(1)),
        (&["*", "!src", "src/*.tmp"], "src/a.tmp", true, Some(2)),
        (&["docs", "!docs/keep/me.txt"], "docs/keep/me.txt", false, Some(1)),
        (&["docs", "!docs/keep/me.txt"], "docs/keep/other", true, Some(0)),
        (&["", "  ", "x"], "x", true, Some(2)),
        (&["**", "!util/web", "util/web/foo"], "util/web/foo", true, Some(2)),
        (&["!a"], "a", false, None),
        (&["a"], "b", false, None),
    ];
    for (patterns, path, hidden, decided) in cases {
        assert_eq!(hides(patterns, path), *hidden, "{patterns:?} {path}");
        assert_eq!(PatternSet::new(patterns).unwrap().decided_by(path), *decided, "{patterns:?} {path}");
    }
}

#[test]
fn an_exception_for_a_directory_does_not_reach_what_only_a_pattern_below_it_hides() {
    // At `a` nothing is hidden yet, so the exception is not asked there, and at `a/x` it does not match.
    assert!(hides(&["a/x", "!a"], "a/x"));
    assert!(!hides(&["a", "a/x", "!a"], "a/x"));
    assert!(!hides(&["a/x", "!a/*"], "a/x"));
}

#[test]
fn patterns_that_hide_every_name_are_known() {
    let hides_all = |patterns: &[&str]| PatternSet::new(patterns).unwrap().hides_all();
    assert_eq!(hides_all(&["a", "*"]), Some(1));
    assert_eq!((hides_all(&["**"]), hides_all(&["**/*"])), (Some(0), Some(0)));
    assert_eq!((hides_all(&[".*"]), hides_all(&["a", "!*"]), hides_all(&[])), (None, None, None));
}

#[test]
fn translations_are_the_reference_ones() {
    let cases = [
        ("a/b", Translation::Exact),
        ("dir/**", Translation::Prefix),
        ("**", Translation::Suffix),
        ("**/x.y", Translation::Suffix),
        ("**/**", Translation::Expression("^(.*/)?.*$".into())),
        ("**/d/*", Translation::Expression("^(.*/)?d/[^/]*$".into())),
        ("a?.b", Translation::Expression("^a[^/]\\.b$".into())),
    ];
    for (pattern, expected) in cases {
        assert_eq!(translate(pattern), expected, "{pattern}");
    }
}

#[test]
fn malformed_patterns_are_refused_with_their_place() {
    for bad in ["[", "a[", "[^", "[]a]", "[-]", "[x-]", "[a-b-c]", "\\", "[z-a]x", "a[\\"] {
        let error = PatternSet::new(&["ok", bad]).unwrap_err();
        assert_eq!((error.index, error.kind), (Some(1), PatternErrorKind::Syntax), "{bad}");
    }
    assert_eq!(PatternSet::new(&["!"]).unwrap_err().kind, PatternErrorKind::EmptyException);
}

#[test]
fn a_directory_is_pruned_only_when_nothing_below_can_come_back() {
    let cases: &[(&[&str], &str, bool)] = &[
        (&["a"], "a", true),
        (&["a", "!b"], "a", true),
        (&["a", "!a/keep"], "a", false),
        (&["a", "!a/keep"], "a/other", true),
        (&["a", "!a/*/keep"], "a/other", false),
        (&["a", "!a/*/keep"], "a/x/y", true),
        (&["*", "!src"], "target", true),
        (&["a", "!**/keep"], "a/b/c", false),
        (&["a", "!a/[x]/y"], "a/q", false),
        (&["b"], "a", false),
    ];
    for (patterns, directory, pruned) in cases {
        let set = PatternSet::new(patterns).unwrap();
        let mut state = set.root();
        for parent in parents(directory.as_bytes()) {
            state = set.descend(&state, parent);
        }
        let state = set.descend(&state, directory.as_bytes());
        assert_eq!(set.can_prune(&state, directory.as_bytes()), *pruned, "{patterns:?} {directory}");
    }
}

#[test]
fn hostile_patterns_stay_linear() {
    let path = format!("{}b", "a/".repeat(2000));
    let started = std::time::Instant::now();
    // Begin and end fit, so that the machine has to run; what cannot be found is in the middle.
    assert!(!PatternSet::new(&[format!("a{}?c*b", "/**/a*".repeat(60))]).unwrap().matches_bytes(path.as_bytes()));
    assert!(!PatternSet::new(&["*a".repeat(40) + "[^a]*a"]).unwrap().matches(&"a".repeat(3000)));
    assert!(!glob_match(&("*a".repeat(40) + "b*"), "a".repeat(3000).as_bytes()).unwrap());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn wildcards_are_those_of_filepath_match() {
    let cases = [
        ("*", "a", Ok(true)),
        ("*", "a/b", Ok(false)),
        ("a*/b", "ax/b", Ok(true)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Ok(true)),
        ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
        ("a???b", "a☺b", Ok(false)),
        ("[a-ζ]*", "α", Ok(true)),
        ("a\\*b", "a*b", Ok(true)),
        ("[\\]a]", "]", Ok(true)),
        ("*x", "xxx", Ok(true)),
        ("a[", "x", Err(())),
        ("[a-]", "a", Err(())),
        ("\\", "a", Err(())),
    ];
    for (pattern, name, expected) in cases {
        assert_eq!(glob_match(pattern, name.as_bytes()).map_err(drop), expected, "{pattern} {name}");
    }
    assert!(has_wildcards("a*") && has_wildcards("[a]") && !has_wildcards("a\\*b") && !has_wildcards("plain"));
}

#[test]
fn names_that_are_not_utf8_still_match() {
    let set = PatternSet::new(&["*.o"]).unwrap();
    assert!(set.matches_bytes(b"\xff\xfe.o"));
    assert!(PatternSet::new(&["?"]).unwrap().matches_bytes(b"\xff"));
}
