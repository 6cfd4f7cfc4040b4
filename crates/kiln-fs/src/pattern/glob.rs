//! Go's `filepath.Match`: the wildcards of COPY and ADD sources.

use super::program::decode;
use super::{PatternError, PatternErrorKind};

/// Says whether `name` matches the shell pattern, as Go's `filepath.Match` does on Unix.
///
/// `*` is any run without `/`, `?` one character other than `/`, `[a-z]` and `[^a-z]` a class, `\` takes away meaning.
///
/// ```
/// assert_eq!(kiln_fs::pattern::glob_match("*.go", b"main.go"), Ok(true));
/// assert_eq!(kiln_fs::pattern::glob_match("*.go", b"cmd/main.go"), Ok(false));
/// assert!(kiln_fs::pattern::glob_match("[", b"x").is_err());
/// ```
pub fn glob_match(pattern: &str, name: &[u8]) -> Result<bool, PatternError> {
    match_bytes(pattern.as_bytes(), name).map_err(|kind| PatternError {
        pattern: pattern.to_owned(),
        index: None,
        kind,
    })
}

/// Says whether a name holds wildcards that are not escaped.
pub fn has_wildcards(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Says whether the pattern is well formed.
pub(super) fn check(pattern: &str) -> Result<(), PatternErrorKind> {
    match_bytes(pattern.as_bytes(), b".").map(drop)
}

fn match_bytes(mut pattern: &[u8], mut name: &[u8]) -> Result<bool, PatternErrorKind> {
    while !pattern.is_empty() {
        let (has_star, chunk, rest) = scan_chunk(pattern);
        pattern = rest;
        if has_star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        // Only the last star ever needs another try: earlier ones have taken the least they can.
        match match_chunk(chunk, name)? {
            Some(rest) if rest.is_empty() || !pattern.is_empty() => {
                name = rest;
                continue;
            }
            _ => {}
        }
        let mut moved_on = false;
        if has_star {
            for skip in 0..name.len() {
                if name[skip] == b'/' {
                    break;
                }
                let Some(rest) = match_chunk(chunk, &name[skip + 1..])? else { continue };
                if pattern.is_empty() && !rest.is_empty() {
                    continue;
                }
                name = rest;
                moved_on = true;
                break;
            }
        }
        if moved_on {
            continue;
        }
        // A mismatch still has to say when the rest of the pattern is malformed.
        while !pattern.is_empty() {
            let (_, chunk, rest) = scan_chunk(pattern);
            pattern = rest;
            match_chunk(chunk, b"")?;
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Splits off leading stars and the text up to the next star.
fn scan_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|b| **b == b'*').count();
    let body = &pattern[stars..];
    let mut in_class = false;
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'\\' if at + 1 < body.len() => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    (stars > 0, &body[..at], &body[at..])
}

/// Matches a star-free chunk at the start of `name`; the rest of the name when it fits.
///
/// Goes on through the chunk after a mismatch, only to find syntax errors.
fn match_chunk<'a>(mut chunk: &[u8], mut name: &'a [u8]) -> Result<Option<&'a [u8]>, PatternErrorKind> {
    let mut failed = false;
    while let Some(&head) = chunk.first() {
        failed = failed || name.is_empty();
        match head {
            b'[' => {
                let (fits, rest) = match_class(&chunk[1..], if failed { None } else { Some(name) })?;
                chunk = rest;
                failed = failed || !fits;
                name = if failed { name } else { &name[decode(name).1..] };
            }
            b'?' => {
                failed = failed || name[0] == b'/';
                name = if failed { name } else { &name[decode(name).1..] };
                chunk = &chunk[1..];
            }
            _ => {
                let escape = usize::from(head == b'\\');
                let &wanted = chunk.get(escape).ok_or(PatternErrorKind::Syntax)?;
                failed = failed || name[0] != wanted;
                name = if failed { name } else { &name[1..] };
                chunk = &chunk[escape + 1..];
            }
        }
    }
    Ok(if failed { None } else { Some(name) })
}

/// Matches the first character of `name` against a class, after its `[`.
fn match_class<'a>(mut chunk: &'a [u8], name: Option<&[u8]>) -> Result<(bool, &'a [u8]), PatternErrorKind> {
    let c = name.map(|name| decode(name).0);
    let negated = chunk.first() == Some(&b'^');
    if negated {
        chunk = &chunk[1..];
    }
    let mut fits = false;
    let mut is_first = true;
    loop {
        if !is_first && chunk.first() == Some(&b']') {
            return Ok((fits != negated, &chunk[1..]));
        }
        is_first = false;
        let (low, rest) = class_char(chunk)?;
        let (high, rest) = if rest.first() == Some(&b'-') { class_char(&rest[1..])? } else { (low, rest) };
        chunk = rest;
        fits = fits || c.is_some_and(|c| low <= c && c <= high);
    }
}

fn class_char(chunk: &[u8]) -> Result<(u32, &[u8]), PatternErrorKind> {
    let escape = match chunk.first() {
        None | Some(b'-' | b']') => return Err(PatternErrorKind::Syntax),
        Some(b'\\') => 1,
        Some(_) => 0,
    };
    let rest = &chunk[escape..];
    let (c, width) = decode(rest);
    let rest = &rest[width..];
    // Every range is closed by `]`, so a character can never be the last byte of a pattern.
    if width == 0 || rest.is_empty() || (c == char::REPLACEMENT_CHARACTER as u32 && width == 1) {
        return Err(PatternErrorKind::Syntax);
    }
    Ok((c, rest))
}
