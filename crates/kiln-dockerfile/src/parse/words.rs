//! Splits arguments: words between white space, words with quotes, keys and values.

use kiln_report::Diagnostic;

use super::flags::is_separator;
use super::lines::Slice;
use super::{Pair, PairForm, Word};

/// Splits at white space, whatever stands between.
pub(crate) fn plain(rest: Slice<'_>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < rest.text.len() {
        let length = rest.text[at..].find(is_separator).unwrap_or(rest.text.len() - at);
        words.push(rest.part(at, at + length).word());
        at += length;
        at += rest.text[at..].find(|c| !is_separator(c)).unwrap_or(rest.text.len() - at);
    }
    words
}

/// Splits at white space outside of quotes; quotes and escapes stay.
pub(crate) fn quoted(rest: Slice<'_>, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = rest.text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| rest.part(start, at).word()));
            continue;
        }
        start.get_or_insert(at);
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // Nothing can be escaped between single quotes.
            _ if c == escape && quote != Some('\'') => drop(chars.next()),
            _ => {}
        }
    }
    words.extend(start.map(|start| rest.from(start).word()));
    // An escape character that ends the line escapes nothing.
    if let Some(last) = words.last_mut().filter(|word| ends_in_lone_escape(&word.text, escape)) {
        last.text.pop();
        last.span.end -= escape.len_utf8();
    }
    words.retain(|word| !word.text.is_empty());
    words
}

fn ends_in_lone_escape(text: &str, escape: char) -> bool {
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape && quote != Some('\'') && chars.next().is_none() => return true,
            _ => {}
        }
    }
    false
}

/// Reads `key=value …`, or `key value` of old.
pub(crate) fn pairs(rest: Slice<'_>, keyword: &str, escape: char) -> Result<Vec<Pair>, Vec<Diagnostic>> {
    let words = quoted(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.text.contains('=') {
        return old_pair(rest, keyword).map(|pair| vec![pair]).map_err(|error| vec![error]);
    }
    let pair = |word: &Word| {
        let Some(at) = word.text.find('=') else {
            let message = format!("`{}` in {keyword} has no `=`", word.text);
            let hint = match word.text.starts_with('#') {
                true => "put the comment on a line of its own, above the instruction",
                false => "write `key=value`, and quote a value that has spaces: `key=\"a b\"`",
            };
            return Err(Diagnostic::error(word.span, message).hint(hint));
        };
        Ok(Pair { key: piece(word, 0, at), value: piece(word, at + 1, word.text.len()), form: PairForm::Equals })
    };
    // What follows a comment that is none was meant for a part of it.
    let comment = words.iter().position(|word| word.text.starts_with('#') && !word.text.contains('='));
    let (pairs, wrong): (Vec<_>, Vec<_>) =
        words[..comment.map_or(words.len(), |at| at + 1)].iter().map(pair).partition(Result::is_ok);
    if wrong.is_empty() {
        Ok(pairs.into_iter().flatten().collect())
    } else {
        Err(wrong.into_iter().filter_map(Result::err).collect())
    }
}

fn piece(word: &Word, start: usize, end: usize) -> Word {
    Word { text: word.text[start..end].to_owned(), span: word.part(start, end) }
}

fn old_pair(rest: Slice<'_>, keyword: &str) -> Result<Pair, Diagnostic> {
    let end = rest.text.find(is_separator).unwrap_or(rest.text.len());
    let value = rest.text[end..].find(|c| !is_separator(c)).map(|skip| rest.from(end + skip));
    let Some(value) = value else {
        let message = format!("{keyword} `{}` has no value", rest.text);
        let hint = format!("write `{keyword} {}=value`", rest.text);
        return Err(Diagnostic::error(rest.span(), message).hint(hint));
    };
    Ok(Pair { key: rest.part(0, end).word(), value: value.word(), form: PairForm::Space })
}

#[cfg(test)]
mod tests {
    use super::super::lines::{Line, Lines, join};
    use super::*;

    fn line(text: &str) -> Line {
        let mut lines = Lines::starting(text, 0);
        let first = lines.next().unwrap();
        join(first, &mut lines, '\\').line
    }

    fn texts(words: Vec<Word>) -> Vec<String> {
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn quotes_hold_words_together_and_stay() {
        for (text, wanted) in [
            ("a b", vec!["a", "b"]),
            ("a=\"b c\" d='e f'", vec!["a=\"b c\"", "d='e f'"]),
            ("a=b\\ c \\\"d e", vec!["a=b\\ c", "\\\"d", "e"]),
            ("a='b\\' c", vec!["a='b\\'", "c"]),
            ("a=\"b\\\" c\" d", vec!["a=\"b\\\" c\"", "d"]),
            ("\"\" x", vec!["\"\"", "x"]),
            ("a=\"open b", vec!["a=\"open b"]),
            ("a b\\\\", vec!["a", "b\\\\"]),
        ] {
            assert_eq!(texts(quoted(line(text).all(), '\\')), wanted, "{text}");
        }
        assert_eq!(texts(quoted(line("a b`").all(), '`')), ["a", "b"]);
    }

    #[test]
    fn plain_words_end_at_white_space_only() {
        assert_eq!(texts(plain(line("a  \"b\tc\"").all())), ["a", "\"b", "c\""]);
    }

    #[test]
    fn pairs_of_both_forms() {
        let read = |text: &str| pairs(line(text).all(), "ENV", '\\');
        let new = read("a=b c=\"d e\"").unwrap();
        assert_eq!((new[1].key.text.as_str(), new[1].value.text.as_str()), ("c", "\"d e\""));
        let old = read("a  b c=d").unwrap();
        assert_eq!((old[0].value.text.as_str(), old[0].form), ("b c=d", PairForm::Space));
        assert!(read("a").is_err() && read("a=b c").is_err());
    }
}
