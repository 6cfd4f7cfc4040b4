//! Expansion by example.

use super::*;

fn env() -> Env {
    let mut env = Env::new();
    for (name, value) in
        [("HOME", "/home/me"), ("EMPTY", ""), ("FILE", "/srv/www/site.tar.gz"), ("LIST", "one  two "), ("ÄÖ", "umlaut")]
    {
        env.set(name, value);
    }
    env
}

fn expand(word: &str) -> Result<String, String> {
    Lexer::new('\\').expand(word, &env()).map(|e| e.text).map_err(|e| format!("{e} @{}", &word[e.start..e.end]))
}

#[test]
fn variables_are_filled_in() {
    for (word, wanted) in [
        ("a$HOME/b", "a/home/me/b"),
        ("${HOME}x", "/home/mex"),
        ("$HOMEx$NONE", ""),
        ("$ $", "$ $"),
        ("$ÄÖ", "umlaut"),
        ("$12x$#", "x"),
        ("${NONE:-a$HOME}", "a/home/me"),
        ("${EMPTY:-d}${EMPTY-d}", "d"),
        ("${EMPTY:+s}${EMPTY+s}${NONE+s}", "s"),
        ("${HOME:?no}${EMPTY?no}", "/home/me"),
        ("${FILE#/*/}", "www/site.tar.gz"),
        ("${FILE##*/}", "site.tar.gz"),
        ("${FILE%.*}", "/srv/www/site.tar"),
        ("${FILE%%.*}", "/srv/www/site"),
        ("${FILE/w/W}", "/srv/Www/site.tar.gz"),
        ("${FILE//w/}", "/srv//site.tar.gz"),
        ("${FILE//\\//:}", ":srv:www:site.tar.gz"),
        ("${HOME/$HOME/gone}", "gone"),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(wanted), "{word}");
    }
}

#[test]
fn quotes_and_escapes_are_undone() {
    for (word, wanted) in [
        ("'$HOME' \"$HOME\"", "$HOME /home/me"),
        ("\\$HOME \\'x\\' a\\ b", "$HOME 'x' a b"),
        ("\"a\\\"b \\n \\\\ \\$\"", "a\"b \\n \\ $"),
        ("'a\\'", "a\\"),
        ("x\\", "x"),
        ("a''b\"\"", "ab"),
        ("<<EOF < a", "<<EOF < a"),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(wanted), "{word}");
    }
    assert_eq!(Lexer::new('`').expand("c:\\x `$HOME", &env()).unwrap().text, "c:\\x $HOME");
}

#[test]
fn words_split_outside_of_quotes() {
    for (word, wanted) in [
        ("a  b", vec!["a", "b"]),
        ("x$LIST", vec!["xone", "two"]),
        ("x\"$LIST\"y", vec!["xone  two y"]),
        ("'' a", vec!["a"]),
        ("80${NONE:-81} b", vec!["8081", "b"]),
        ("<< EOF", vec!["<< EOF"]),
    ] {
        assert_eq!(Lexer::new('\\').expand(word, &env()).unwrap().words, wanted, "{word}");
    }
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    for (word, wanted) in [
        ("a'b", "quote `'` is never closed @'b"),
        ("a\"b", "quote `\"` is never closed @\"b"),
        ("x${A", "`${` is never closed by `}` @${A"),
        ("x${A:-b", "`${` is never closed by `}` @${A:-b"),
        ("${A/b}", "`${` is never closed by `/` @${A/b}"),
        ("x${}", "no variable name follows `${` @${"),
        ("${A:=b}", "`:=` is no way to modify a variable @${A:="),
        ("${HOME:#b}", "`:#` is no way to modify a variable @${HOME:#"),
        ("${NONE?}", "variable `NONE` must be set @${NONE?}"),
        ("${EMPTY:?}", "variable `EMPTY` must not be empty @${EMPTY:?}"),
        ("a ${NONE:?say so} b", "variable `NONE` is missing: say so @${NONE:?say so}"),
    ] {
        assert_eq!(expand(word).unwrap_err(), wanted, "{word}");
    }
    let deep = format!("{}{}", "${A:-".repeat(101), "}".repeat(101));
    assert!(expand(&deep).unwrap_err().starts_with("variables are nested"));
    let fine = format!("{}x{}", "${A:-".repeat(100), "}".repeat(100));
    assert_eq!(expand(&fine).as_deref(), Ok("x"));
}

#[test]
fn uses_are_told_with_their_places() {
    let uses = Lexer::new('\\').expand("a$HOME ${NONE:-$EMPTY}", &env()).unwrap().uses;
    let found: Vec<_> = uses.iter().map(|u| (u.name.as_str(), u.start, u.end, u.is_set)).collect();
    assert_eq!(found, [("HOME", 1, 6, true), ("EMPTY", 15, 21, true), ("NONE", 7, 22, false)]);
}

#[test]
fn unset_variables_can_stay() {
    let lexer = Lexer { keeps_unset: true, keeps_quotes: true, ..Lexer::new('\\') };
    let word = "$NONE \"${NONE}\" ${NONE:-x} ${NONE#a} ${NONE//a/b} $HOME";
    let wanted = "$NONE \"${NONE}\" ${NONE:-x} ${NONE#a} ${NONE//a/b} /home/me";
    assert_eq!(lexer.expand(word, &env()).unwrap().text, wanted);
}

#[test]
fn values_within_values_do_not_grow_without_end() {
    let mut env = Env::default();
    env.set("A", "x".repeat(1 << 20));
    for word in ["$A$A$A$A$A", "\"$A$A$A$A$A\""] {
        let error = Lexer::new('\\').expand(word, &env).unwrap_err();
        assert!(matches!(error.kind, ExpandErrorKind::TooLong(_)), "{error:?}");
    }
    assert!(Lexer::new('\\').expand("$A$A", &env).is_ok());
}
