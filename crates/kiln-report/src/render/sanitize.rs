//! Makes bytes of strangers safe for a terminal: nothing in a log may move the cursor, rename the window or hide text.

/// What happens to escape sequences that set colours; all others go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// Colours stay, and end with the line.
    KeepColors,
    /// None stay.
    Strip,
}

const ESC: char = '\u{1b}';

/// One line of output, without control characters. Tabs stay; bytes that are no UTF-8 become `U+FFFD`.
pub fn sanitize(line: &[u8], escapes: Escapes) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut is_colored = false;
    let mut rest = text.as_ref();
    while let Some(c) = rest.chars().next() {
        let sequence = match c {
            ESC => escape_len(rest),
            // The one-character forms of `ESC [`, `ESC P`, `ESC X`, `ESC ]`, `ESC ^` and `ESC _`.
            '\u{9b}' => c.len_utf8() + csi_len(&rest[c.len_utf8()..]),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => c.len_utf8() + string_len(&rest[c.len_utf8()..]),
            _ => 0,
        };
        if sequence > 0 {
            let (taken, after) = rest.split_at(sequence);
            if escapes == Escapes::KeepColors && is_color(taken) {
                clean.push_str(taken);
                is_colored = !matches!(taken, "\u{1b}[m" | "\u{1b}[0m");
            }
            rest = after;
            continue;
        }
        if c == '\t' || !is_control(c) {
            clean.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    if is_colored {
        clean.push_str("\u{1b}[0m");
    }
    clean
}

/// Text of strangers that must stay on one line, such as a name: line breaks and tabs become blanks.
pub fn one_line(text: &str) -> String {
    let flat: String = text.trim().chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect();
    sanitize(flat.as_bytes(), Escapes::Strip)
}

/// How many bytes may be shown now without cutting a character or an escape sequence in two.
pub(super) fn complete_len(bytes: &[u8]) -> usize {
    let end = bytes.len() - incomplete_utf8(bytes);
    // Sequences that matter are short; a longer unfinished one is a string nobody waits for.
    let tail = end.saturating_sub(64);
    let Some(at) = bytes[tail..end].iter().rposition(|b| *b == 0x1b).map(|at| tail + at) else { return end };
    let text = String::from_utf8_lossy(&bytes[at..end]);
    let is_whole = is_color(&text[..escape_len(&text).min(text.len())]) || escape_len(&text) < text.len();
    if is_whole { end } else { at }
}

fn incomplete_utf8(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let lead = bytes[bytes.len() - back];
        let wanted = match lead {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 0,
        };
        return if wanted > back { back } else { 0 };
    }
    0
}

/// Whether a character does something to a terminal, or to the text around it.
pub(super) fn is_control(c: char) -> bool {
    // Marks that turn the direction of text could make a line read as another one.
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_color(sequence: &str) -> bool {
    let body = sequence.strip_prefix("\u{1b}[").and_then(|s| s.strip_suffix('m'));
    body.is_some_and(|body| body.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':'))
}

/// The length of the escape sequence `text` begins with; all of it when it does not end.
fn escape_len(text: &str) -> usize {
    let body = &text[1..];
    1 + match body.chars().next() {
        None => 0,
        Some('[') => 1 + csi_len(&body[1..]),
        Some(']' | 'P' | 'X' | '^' | '_') => 1 + string_len(&body[1..]),
        Some(' '..='/') => body.find(|c| !matches!(c, ' '..='/')).map_or(body.len(), |at| at + next_len(&body[at..])),
        Some('0'..='~') => 1,
        Some(_) => 0,
    }
}

/// Parameters, then one final character. What breaks the rules ends the sequence and is not part of it.
fn csi_len(body: &str) -> usize {
    match body.find(|c| !matches!(c, ' '..='?')) {
        None => body.len(),
        Some(at) if matches!(body[at..].chars().next(), Some('@'..='~')) => at + 1,
        Some(at) => at,
    }
}

/// A string runs until BEL or ST.
fn string_len(body: &str) -> usize {
    // One walk up to the first of them: there may be very many strings.
    let end = |(at, c): (usize, char)| match c {
        '\u{7}' | '\u{9c}' => Some(at + c.len_utf8()),
        ESC if body[at + 1..].starts_with('\\') => Some(at + 2),
        _ => None,
    };
    body.char_indices().find_map(end).unwrap_or(body.len())
}

fn next_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_the_window_is_gone() {
        for (hostile, safe) in [
            ("\u{1b}[2J\u{1b}[Hgone", "gone"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("a\u{8}\u{8}b\u{7}\u{0}c\u{7f}", "abc"),
            ("\u{9b}31mred\u{9d}0;t\u{9c}x", "redx"),
            ("\u{1b}Pq#0;2;0;0;0\u{1b}\\sixel", "sixel"),
            ("\u{1b}(Bcharset\u{1b}=keypad\u{1b}c", "charsetkeypad"),
            ("\u{1b}[?25l\u{1b}[1;2", ""),
            ("\u{1b}[3é", "é"),
            ("safe\u{202e}live", "safelive"),
            ("tab\tstays, é too", "tab\tstays, é too"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(sanitize(hostile.as_bytes(), Escapes::Strip), safe, "{hostile:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(sanitize(b"a\xffb\x9bc", Escapes::Strip), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn colours_stay_and_end_with_their_line() {
        let keep = |text: &str| sanitize(text.as_bytes(), Escapes::KeepColors);
        assert_eq!(keep("\u{1b}[31mred"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(keep("\u{1b}[1;32mok\u{1b}[0m."), "\u{1b}[1;32mok\u{1b}[0m.");
        assert_eq!(keep("\u{1b}[31;?m\u{1b}[10Ax"), "x");
    }

    #[test]
    fn a_cut_never_splits_a_character_or_a_sequence() {
        assert_eq!(complete_len("aé".as_bytes()), 3);
        assert_eq!(complete_len(&"aé".as_bytes()[..2]), 1);
        assert_eq!(complete_len(b"ab\x1b[3"), 2);
        assert_eq!(complete_len(b"ab\x1b[31m"), 7);
        assert_eq!(complete_len(b"ab\x1b[31mc"), 8);
        assert_eq!(complete_len(b"\xff\xff"), 2);
        assert_eq!(complete_len(b""), 0);
    }

    #[test]
    fn a_name_is_one_line() {
        assert_eq!(one_line("[1/2] RUN a\n\tb\u{1b}[31m\r\n"), "[1/2] RUN a  b");
    }
}
