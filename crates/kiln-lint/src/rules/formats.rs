//! Forms that values of labels have.

/// Whether a key is of the form that Docker recommends, and not in a namespace of its own.
pub(super) fn is_label_key(key: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let has_double = ["..", "--", ".-", "-."].iter().any(|double| key.contains(double));
    let is_reserved =
        ["com.docker.", "io.docker.", "org.dockerproject."].iter().any(|namespace| key.starts_with(namespace));
    key.chars().all(is_plain) && is_end(key.chars().next()) && is_end(key.chars().last()) && !has_double && !is_reserved
}

/// Whether a text is an absolute URL.
pub(super) fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    is_scheme && !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)
}

/// Whether a text is a time as in RFC 3339.
pub(super) fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00";
    let fits = |(byte, wanted): (&u8, &u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'T' => b"Tt ".contains(byte),
        _ => byte == wanted,
    };
    if bytes.len() <= shape.len() || !bytes.iter().zip(shape).all(fits) {
        return false;
    }
    let number = |at: usize| u32::from(bytes[at] - b'0') * 10 + u32::from(bytes[at + 1] - b'0');
    let is_date = (1..=12).contains(&number(5)) && (1..=31).contains(&number(8));
    let is_clock = number(11) < 24 && number(14) < 60 && number(17) <= 60;
    let rest = &text[shape.len()..];
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    is_date && is_clock && (["Z", "z"].contains(&zone) || is_offset(zone.as_bytes()))
}

fn is_offset(zone: &[u8]) -> bool {
    matches!(zone, [b'+' | b'-', a, b, b':', c, d] if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()))
}

/// Whether a text is an expression of SPDX ids. That the ids exist is not looked up, only that they can be ids.
pub(super) fn is_license(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut depth, mut wants_id) = (0usize, true);
    for word in spaced.split_whitespace() {
        match word {
            "(" if wants_id => depth += 1,
            ")" if !wants_id && depth > 0 => depth -= 1,
            "AND" | "OR" | "WITH" if !wants_id => wants_id = true,
            id if wants_id && id.chars().all(|c| c.is_ascii_alphanumeric() || ".-+:".contains(c)) => wants_id = false,
            _ => return false,
        }
    }
    depth == 0 && !wants_id
}

/// Whether a text is a commit's hash, long or short.
pub(super) fn is_commit(text: &str) -> bool {
    [7, 40, 64].contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a text is a semantic version.
pub(super) fn is_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_list = |list: &str| {
        list.split('.').all(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(is_list)
        && build.is_none_or(is_list)
}

/// Whether a text is an address for mail.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_domain = domain.contains('.') && domain.split('.').all(|label| !label.is_empty());
    !local.is_empty() && is_domain && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        type Table = (fn(&str) -> bool, &'static [&'static str], &'static [&'static str]);
        let tables: [Table; 7] = [
            (
                is_label_key,
                &["a", "org.example.a-b", "maintainer", "v2"],
                &["A", "a_b", "a..b", "a.", "-a", "com.docker.x", ""],
            ),
            (is_url, &["https://a.b/c", "http://a"], &["a.b", "https://", "https:///x", "https://a b", ""]),
            (
                is_time,
                &["2026-01-02T03:04:05Z", "2026-01-02 03:04:05.123+01:00"],
                &[
                    "2026-01-02",
                    "2026-13-02T03:04:05Z",
                    "2026-01-02T03:04:05",
                    "2026-01-02T03:04:05+1",
                    "é026-01-02T03:04:05Z",
                ],
            ),
            (
                is_license,
                &[
                    "MIT",
                    "Apache-2.0 OR (MIT AND BSD-3-Clause)",
                    "GPL-2.0+ WITH Classpath-exception-2.0",
                    "LicenseRef-x",
                ],
                &["Apache License", "MIT OR", "(MIT", "MIT)", "MIT, BSD", ""],
            ),
            (is_commit, &["3f78685", "3f786850e387550fdab836ed7e6dc881de23001b"], &["main", "3f7868", "3f7868z"]),
            (is_version, &["1.2.3", "0.0.1-rc.1+b.2"], &["1.2", "v1.2.3", "01.2.3", "1.2.3-", ""]),
            (is_email, &["a@b.c"], &["a", "a@b", "@b.c", "a b@c.d", "a@b..c"]),
        ];
        for (is_it, good, bad) in tables {
            assert!(good.iter().all(|text| is_it(text)), "{good:?}");
            assert!(bad.iter().all(|text| !is_it(text)), "{bad:?}");
        }
    }
}
