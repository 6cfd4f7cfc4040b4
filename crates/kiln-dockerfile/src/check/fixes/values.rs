//! Values written in another way: quoted, as JSON, as a comment.

use kiln_report::{Fix, Safety, Span};

use super::{edit, fix, is_exact};
use crate::parse::{Instruction, Pair, Word, name_and_value};

/// `key value` as `key=value`, quoted where it must be.
pub(in crate::check) fn pair_of_old(instruction: &Instruction, pair: &Pair, escape: char) -> Option<Fix> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if instruction.line.is_continued() || !pair.key.text.chars().all(is_plain) {
        return None;
    }
    let text = format!("{}={}", pair.key.text, as_one_word(&pair.value.text, escape)?);
    let span = Span::new(pair.key.span.start, pair.value.span.end);
    Some(fix(format!("write `{text}`"), Safety::Safe, vec![edit(span, text)]))
}

/// A value such that white space does not end it; its quotes and variables mean what they meant.
fn as_one_word(value: &str, escape: char) -> Option<String> {
    let has = |c: char| value.contains(c);
    if !value.contains(char::is_whitespace) {
        return Some(value.to_owned());
    }
    if !has('"') && !has('\'') && !has(escape) {
        return Some(format!("\"{value}\""));
    }
    // What may be quoted within braces is another matter.
    if value.contains("${") || value.ends_with(escape) {
        return None;
    }
    let (mut out, mut quote) = (String::new(), None);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => out.push(escape),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        out.push(c);
        if c == escape && quote != Some('\'') {
            out.extend(chars.next());
        }
    }
    quote.is_none().then_some(out)
}

/// The label that has replaced `MAINTAINER`.
pub(in crate::check) fn label_of_maintainer(instruction: &Instruction, name: &Word, escape: char) -> Option<Fix> {
    let keyword = &instruction.keyword;
    let is_lower = keyword.text.starts_with(|c: char| c.is_ascii_lowercase());
    let mut value = String::new();
    for c in name.text.chars() {
        if matches!(c, '"' | '$') || c == escape {
            value.push(escape);
        }
        value.push(c);
    }
    let label = if is_lower { "label" } else { "LABEL" };
    let text = format!("org.opencontainers.image.authors=\"{value}\"");
    let edits = vec![edit(keyword.span, label), edit(name.span, text)];
    (is_exact(name) && is_exact(keyword)).then(|| fix("make it a label", Safety::Safe, edits))
}

/// Moves what was meant for a comment to a line of its own above the instruction. `at` is where it begins.
pub(in crate::check) fn comment_above(instruction: &Instruction, at: usize) -> Option<Fix> {
    let line = &instruction.line;
    if line.is_continued() {
        return None;
    }
    let start = line.span(0, 1).start;
    let (before, comment) = line.text().split_at_checked(at.checked_sub(start)?)?;
    let comment = comment.trim_end();
    // At the top of the file it might be taken for a directive.
    let is_directive = name_and_value(comment.trim_start_matches('#').trim()).is_some();
    if !comment.starts_with('#') || is_directive {
        return None;
    }
    let above = edit(Span::new(start, start), format!("{comment}\n"));
    let gone = edit(Span::new(start + before.trim_end().len(), start + line.text().len()), "");
    Some(fix("move the comment above the instruction", Safety::Safe, vec![above, gone]))
}

/// What only a shell knows as the name of a command.
const BUILTINS: [&str; 20] = [
    ".", ":", "alias", "cd", "command", "eval", "exit", "export", "if", "for", "case", "while", "until", "read", "set",
    "source", "trap", "ulimit", "umask", "wait",
];

/// A command as a JSON array, when a shell would only split it. Without a shell, signals go to the program, and
/// ENTRYPOINT gets the arguments of CMD; so somebody should look at it.
pub(in crate::check) fn json_command(command: &Word) -> Option<Fix> {
    let mut words = shell_words(&command.text)?;
    if words.first().is_some_and(|word| word == "exec") {
        words.remove(0);
    }
    let program = words.first()?;
    if program.contains('=') || BUILTINS.contains(&program.as_str()) {
        return None;
    }
    let array: Vec<String> = words.iter().map(|word| serde_json::json!(word).to_string()).collect();
    let text = format!("[{}]", array.join(", "));
    is_exact(command).then(|| fix(format!("write `{text}`"), Safety::Unsafe, vec![edit(command.span, text)]))
}

/// The words of a command; `None` when a shell would do more than split it.
fn shell_words(text: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '$' | '`' | '\\' | '!') => return None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, c) if c.is_alphanumeric() || "_@%+=:,./-".contains(c) => word.get_or_insert_default().push(c),
            _ => return None,
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_one_word_that_means_the_same() {
        for (value, wanted) in [
            ("a", Some("a")),
            ("a b", Some("\"a b\"")),
            ("$A  b", Some("\"$A  b\"")),
            ("\"a b\"", Some("\"a b\"")),
            ("a \"b c\" d", Some("a\\ \"b c\"\\ d")),
            ("a\\ b c", Some("a\\ b\\ c")),
            ("it's a", None),
            ("a ${B:-'c d'}", None),
            ("a b\\", None),
        ] {
            assert_eq!(as_one_word(value, '\\').as_deref(), wanted, "{value}");
        }
    }

    #[test]
    fn only_commands_without_a_shells_syntax_are_split() {
        let split = |text: &str| shell_words(text).map(|words| words.join("|"));
        assert_eq!(split("nginx -g 'daemon off;'").as_deref(), Some("nginx|-g|daemon off;"));
        assert_eq!(split("a \"b c\"d  ''").as_deref(), Some("a|b cd|"));
        for text in
            ["a $B", "a && b", "a > b", "a \"$B\"", "a *", "~/a", "a; b", "a 'b", "a # b", "a \\ b", "(a)", "a {b,c}"]
        {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
