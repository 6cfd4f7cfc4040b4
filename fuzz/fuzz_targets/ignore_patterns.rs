//! Any ignore file is read; any pattern matches, does not, or is refused, in bounded time.
#![no_main]

use kiln_dockerfile::parse_ignore;
use kiln_fs::pattern::{PatternSet, glob_match};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, path) = input;
    let rules = parse_ignore(text);
    let texts: Vec<&str> = rules.iter().map(|rule| rule.pattern.as_str()).collect();
    if let Ok(set) = PatternSet::new(&texts) {
        let decided = set.decided_by(path);
        assert!(decided.is_none_or(|at| at < texts.len()));
        assert!(!set.matches(path) || decided.is_some());
    }
    for text in texts {
        let _ = glob_match(text, path.as_bytes());
    }
});
