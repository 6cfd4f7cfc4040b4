//! Texts in quotes as Go writes them, because they stand so in image histories and in BuildKit's own output.

use std::fmt::Write as _;

/// A text in double quotes; what cannot be printed is escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c if c.is_ascii() => write!(out, "\\x{:02x}", c as u32).expect("writing to a string"),
            c if is_printable(c) => out.push(c),
            c if c <= '\u{ffff}' => write!(out, "\\u{:04x}", c as u32).expect("writing to a string"),
            c => write!(out, "\\U{:08x}", c as u32).expect("writing to a string"),
        }
    }
    out.push('"');
    out
}

/// `["a" "b"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// Letters, marks, numbers, punctuation and symbols: what the standard library, too, does not escape. Marks it escapes
/// only at the front of a text.
fn is_printable(c: char) -> bool {
    let mut bytes = [b'a', 0, 0, 0, 0];
    let length = 1 + c.encode_utf8(&mut bytes[1..]).len();
    std::str::from_utf8(&bytes[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_printed_is_escaped() {
        for (text, wanted) in [
            ("a \"b\" \\ 'c'", r#""a \"b\" \\ 'c'""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}\u{1}\u{7f}", r#""\a\b\f\n\r\t\v\x01\x7f""#),
            ("é 한 e\u{301} 😀", "\"é 한 e\u{301} 😀\""),
            ("\u{301}", "\"\u{301}\""),
            ("\u{80}\u{a0}\u{ad}\u{200b}\u{feff}\u{2028}", r#""\u0080\u00a0\u00ad\u200b\ufeff\u2028""#),
            ("\u{e0001}\u{10ffff}", r#""\U000e0001\U0010ffff""#),
        ] {
            assert_eq!(quoted(text), wanted);
        }
        assert_eq!(quoted_list(&["a".into(), "b\n".into()]), r#"["a" "b\n"]"#);
    }
}
