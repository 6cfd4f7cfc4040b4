//! The forms in which bytes are looked for.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes as they are, and as they look encoded within something larger; each once, with words that say which it is.
pub(crate) fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![("as it is", bytes.to_vec())];
    let mut add = |name, form: Vec<u8>| {
        if forms.iter().all(|(_, known)| *known != form) {
            forms.push((name, form));
        }
    };
    for shift in 0..3 {
        add("in base64", base64(&STANDARD_NO_PAD, bytes, shift));
        add("in base64", base64(&URL_SAFE_NO_PAD, bytes, shift));
    }
    let lower = hex(bytes);
    add("in hex", lower.to_ascii_uppercase().into());
    add("in hex", lower.into());
    // Which signs are left alone differs from program to program.
    for unreserved in ["-._~", "-._~/", "-_.!~*'()"] {
        let percent = percent(bytes, unreserved);
        add("encoded for a URL", lowered(&percent));
        add("encoded for a URL", percent);
    }
    add("escaped for JSON", escaped(bytes));
    forms
}

/// The digits that are certain when so many unknown bytes come before, modulo three, and others after.
fn base64(engine: &impl Engine, bytes: &[u8], shift: usize) -> Vec<u8> {
    let shifted = [vec![0; shift], bytes.to_vec()].concat();
    let digits = engine.encode(&shifted).into_bytes();
    let (from, to) = ((shift * 8).div_ceil(6), shifted.len() * 8 / 6);
    digits[from..to].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn percent(bytes: &[u8], unreserved: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte.is_ascii_alphanumeric() || unreserved.as_bytes().contains(byte) {
            true => text.push(*byte),
            false => text.extend(format!("%{byte:02X}").into_bytes()),
        }
    }
    text
}

/// Percent-encoded bytes with small digits.
fn lowered(percent: &[u8]) -> Vec<u8> {
    let mut left = 0;
    let lower = |byte: &u8| {
        left = if *byte == b'%' { 3 } else { usize::saturating_sub(left, 1) };
        if left > 0 { byte.to_ascii_lowercase() } else { *byte }
    };
    percent.iter().map(lower).collect()
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            0..0x20 => text.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => text.push(*byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"s3cr\xfft/+ \"q\\";

    fn is_found(text: &[u8], form: &str) -> bool {
        let holds = |bytes: &[u8]| text.windows(bytes.len()).any(|window| window == bytes);
        forms(SECRET).iter().any(|(name, bytes)| *name == form && holds(bytes))
    }

    #[test]
    fn base64_is_found_wherever_it_begins_and_ends() {
        for before in 0..6 {
            for after in 0..4 {
                let whole = [&b"######"[..before], SECRET, &b"&&&&"[..after]].concat();
                assert!(is_found(STANDARD_NO_PAD.encode(&whole).as_bytes(), "in base64"), "{before} {after}");
                assert!(is_found(URL_SAFE_NO_PAD.encode(&whole).as_bytes(), "in base64"), "{before} {after}");
            }
        }
    }

    #[test]
    fn other_encodings_are_found_in_both_cases() {
        assert!(is_found(b"x73336372ff742f2b2022715cx", "in hex"));
        assert!(is_found(b"x73336372FF742F2B2022715Cx", "in hex"));
        assert!(is_found(b"?t=s3cr%FFt%2F%2B%20%22q%5C&", "encoded for a URL"));
        assert!(is_found(b"?t=s3cr%fft/%2b%20%22q%5c&", "encoded for a URL"));
        assert!(is_found(b"{\"t\":\"s3cr\xfft/+ \\\"q\\\\\"}", "escaped for JSON"));
        assert!(is_found(SECRET, "as it is") && !is_found(b"s3cret", "as it is"));
    }

    #[test]
    fn a_form_that_looks_like_another_is_there_once() {
        let names: Vec<&str> = forms(b"jklmnopq").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["as it is", "in base64", "in base64", "in base64", "in hex", "in hex"]);
    }
}
