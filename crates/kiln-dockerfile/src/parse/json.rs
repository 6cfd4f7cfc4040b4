//! Reads a JSON array of strings, telling apart what is no JSON and what is JSON but no array of strings.

use super::Word;
use super::lines::Slice;

/// What an argument that begins with `[` turned out to be.
#[derive(Debug)]
pub(crate) enum Array {
    /// An array of strings.
    Strings(Vec<Word>),
    /// An array with something else in it; the range of the first such thing.
    Mixed(usize, usize),
    /// No JSON: it is a shell command that happens to begin like one.
    NotJson,
}

/// Nesting beyond this, the outermost array not counted, is taken for no JSON at all, as Go does.
const MAX_DEPTH: usize = 9_999;

/// Reads `slice` as a JSON array.
pub(crate) fn array(slice: Slice<'_>) -> Array {
    let mut reader = Reader { text: slice.text, at: 0 };
    reader.skip_space();
    reader.elements(&slice).unwrap_or(Array::NotJson)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn elements(&mut self, slice: &Slice<'_>) -> Option<Array> {
        let (mut words, mut mixed) = (Vec::new(), None);
        self.take(b'[')?;
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return self.end(Array::Strings(words));
        }
        loop {
            let start = self.at;
            if self.peek()? == b'"' {
                let text = self.string()?;
                words.push(Word { text, span: slice.span_of(start, self.at) });
            } else {
                self.value()?;
                mixed = mixed.or(Some((start, self.at)));
            }
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return None,
            }
            self.skip_space();
        }
        self.at += 1;
        self.end(mixed.map_or(Array::Strings(words), |(start, end)| Array::Mixed(start, end)))
    }

    fn end(&mut self, array: Array) -> Option<Array> {
        self.skip_space();
        (self.at == self.text.len()).then_some(array)
    }

    /// Passes over one value of any kind, without recursion: what is open is kept in a list.
    fn value(&mut self) -> Option<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.skip_space();
            match self.peek()? {
                b'[' | b'{' if open.len() == MAX_DEPTH => return None,
                b'[' | b'{' => {
                    let bracket = self.peek()?;
                    self.at += 1;
                    self.skip_space();
                    let close = if bracket == b'[' { b']' } else { b'}' };
                    if self.peek()? != close {
                        open.push(close);
                        self.key(close)?;
                        continue;
                    }
                    self.at += 1;
                }
                b'"' => drop(self.string()?),
                _ => self.scalar()?,
            }
            if self.close(&mut open)? {
                return Some(());
            }
        }
    }

    /// After a value: closes what ends here. Says whether everything is closed.
    fn close(&mut self, open: &mut Vec<u8>) -> Option<bool> {
        while let Some(&close) = open.last() {
            self.skip_space();
            match self.peek()? {
                b',' => {
                    self.at += 1;
                    self.skip_space();
                    self.key(close)?;
                    return Some(false);
                }
                byte if byte == close => {
                    self.at += 1;
                    open.pop();
                }
                _ => return None,
            }
        }
        Some(true)
    }

    /// The key of an object's member, when in an object.
    fn key(&mut self, close: u8) -> Option<()> {
        if close == b'}' {
            self.string()?;
            self.skip_space();
            self.take(b':')?;
        }
        Some(())
    }

    fn scalar(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        for word in ["true", "false", "null"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Some(());
            }
        }
        let length = rest.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(rest.len());
        let number = rest[..length].parse::<f64>().ok()?;
        (is_number(&rest[..length]) && number.is_finite()).then(|| self.at += length)
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            text.push_str(&rest[..plain]);
            self.at += plain + 1;
            match rest.as_bytes()[plain] {
                b'"' => return Some(text),
                b'\\' => text.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return None,
        })
    }

    /// `\uXXXX`, two of them for what lies beyond; a lone half becomes the replacement character.
    fn unicode(&mut self) -> Option<char> {
        let high = self.hex()?;
        if let Some(c) = char::from_u32(high) {
            return Some(c);
        }
        let before = self.at;
        if (0xD800..0xDC00).contains(&high) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.hex()?;
            if (0xDC00..0xE000).contains(&low) {
                return char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
            }
            self.at = before;
        }
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

/// JSON's own grammar of numbers: `-1`, `0.5`, `1e9`; not `01`, `.5`, `1.`.
fn is_number(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::super::lines::{Lines, join};
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, &'static str> {
        let mut lines = Lines::starting(text, 0);
        let first = lines.next().unwrap();
        let joined = join(first, &mut lines, '\\');
        match array(joined.line.all()) {
            Array::Strings(words) => Ok(words.into_iter().map(|w| w.text).collect()),
            Array::Mixed(..) => Err("mixed"),
            Array::NotJson => Err("not json"),
        }
    }

    #[test]
    fn arrays_of_strings_are_read_with_their_escapes() {
        for (text, wanted) in [
            (r#"["a","b c"]"#, vec!["a", "b c"]),
            (r#"[ "a" , "" ] "#, vec!["a", ""]),
            ("[]", vec![]),
            (r#"["\"\\\/\b\f\n\r\t"]"#, vec!["\"\\/\u{8}\u{c}\n\r\t"]),
            (r#"["\u00e9\ud83d\ude00\ud800x"]"#, vec!["é😀\u{fffd}x"]),
        ] {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_json_but_no_strings_is_told_from_what_is_no_json() {
        for text in [r#"["a",1]"#, "[null]", r#"[{"a":[1,{}]},"b"]"#, "[[]]", "[-0.5e+3,true]"] {
            assert_eq!(read(text), Err("mixed"), "{text}");
        }
        for text in
            [r#"["a"#, "['a']", r#"["a",]"#, r#"["a"] x"#, r#"["c:\windows"]"#, "[ -f x ]", "[01]", "[1.]", "[1e999]"]
        {
            assert_eq!(read(text), Err("not json"), "{text}");
        }
        assert_eq!(read(&"[".repeat(100_000)), Err("not json"));
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!((read(&nested(10_000)), read(&nested(10_001))), (Err("mixed"), Err("not json")));
    }
}
