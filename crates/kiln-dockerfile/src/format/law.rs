//! Whether a formatted file says what it said before.

use super::Style;
use crate::instruction::Keyword;
use crate::parse::{Arguments, Dockerfile, Heredoc, Instruction, ItemKind, Pair, Word, detect_syntax, parse};

/// Whether `after` means what `file`, which was read from `before`, means.
pub(super) fn is_same(file: &Dockerfile, before: &str, after: &str, style: Style) -> bool {
    let (formatted, errors) = parse(after);
    let syntax = |text: &str| detect_syntax(text).map(|word| word.text);
    errors.is_empty()
        && syntax(before) == syntax(after)
        && directives(file).eq(directives(&formatted))
        && comment_count(file, before) == comment_count(&formatted, after)
        && file.instructions().count() == formatted.instructions().count()
        && file.instructions().zip(formatted.instructions()).all(|(a, b)| same(a, b, style))
}

fn directives(file: &Dockerfile) -> impl Iterator<Item = (&str, &str)> {
    file.items.iter().filter_map(|item| match &item.kind {
        ItemKind::Directive(directive) => Some((directive.name.text.as_str(), directive.value.text.as_str())),
        _ => None,
    })
}

/// How many lines are comments, within instructions or outside.
fn comment_count(file: &Dockerfile, text: &str) -> usize {
    let is_comment = |line: &&str| line.trim_start_matches('\u{feff}').trim_start().starts_with('#');
    let all = text.split('\n').filter(is_comment).count();
    let heredocs = file.instructions().flat_map(|instruction| &instruction.heredocs);
    let inner = |heredoc: &Heredoc| {
        let lines = [&text[heredoc.content_span.range()], &text[heredoc.end_span.range()]];
        lines.iter().flat_map(|lines| lines.split('\n')).filter(is_comment).count()
    };
    all - heredocs.map(inner).sum::<usize>()
}

fn same(a: &Instruction, b: &Instruction, style: Style) -> bool {
    let keyword = Keyword::of(&a.keyword.text);
    let flags = |i: &Instruction| -> Vec<(String, Option<String>)> {
        let flag =
            |flag: &crate::parse::Flag| (flag.name.text.clone(), flag.value.as_ref().map(|value| value.text.clone()));
        i.flags.iter().map(flag).collect()
    };
    let heredocs = |a: &Heredoc, b: &Heredoc| (&a.name, &a.content, a.expand) == (&b.name, &b.content, b.expand);
    keyword == Keyword::of(&b.keyword.text)
        && flags(a) == flags(b)
        && a.comments == b.comments
        && a.heredocs.len() == b.heredocs.len()
        && a.heredocs.iter().zip(&b.heredocs).all(|(a, b)| heredocs(a, b))
        && same_arguments(&a.arguments, &b.arguments, style)
        && (keyword != Some(Keyword::Onbuild) || trigger(a) == trigger(b))
}

fn trigger(instruction: &Instruction) -> &str {
    instruction.line.text()[instruction.keyword.text.len()..].trim_start()
}

fn same_arguments(a: &Arguments, b: &Arguments, style: Style) -> bool {
    let texts = |words: &[Word]| -> Vec<String> { words.iter().map(|word| word.text.clone()).collect() };
    match (a, b) {
        (Arguments::None, Arguments::None) => true,
        (Arguments::Text(a), Arguments::Text(b)) => match style.command_indent {
            None => a.text == b.text,
            Some(_) => a.text.split_whitespace().eq(b.text.split_whitespace()),
        },
        (Arguments::Words(a), Arguments::Words(b)) => same_words(&texts(a), &texts(b)),
        (Arguments::Json(a), Arguments::Json(b)) => texts(a) == texts(b),
        (Arguments::Pairs(a), Arguments::Pairs(b)) => {
            let parts = |pair: &Pair| (pair.key.text.clone(), pair.value.text.clone(), pair.form);
            a.iter().map(parts).eq(b.iter().map(parts))
        }
        (Arguments::Typed(kind, a), Arguments::Typed(other, b)) => {
            kind.text.eq_ignore_ascii_case(&other.text) && same_arguments(a, b, style)
        }
        (Arguments::Trigger(a), Arguments::Trigger(b)) => same(a, b, Style::default()),
        _ => false,
    }
}

/// Whether words are the same, but for the case of an `AS`.
fn same_words(a: &[String], b: &[String]) -> bool {
    let same = |(a, b): (&String, &String)| a == b || a.eq_ignore_ascii_case("as") && b == "AS";
    a.len() == b.len() && a.iter().zip(b).all(same)
}
