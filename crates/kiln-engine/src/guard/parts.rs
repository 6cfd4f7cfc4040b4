//! What of a secret gives it away: all of it, and in files with more than that the tokens, passwords and keys.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Shorter values are in too many places by chance. White space does not count.
const SHORTEST: usize = 8;
/// Up to here a value that stands alone is looked for whole, beyond it by pieces.
const LONG: usize = 64;
/// Bytes of a piece.
const PIECE: usize = 32;
/// How many pieces of one value are looked for.
const MOST_PIECES: usize = 16;
/// Up to here a text of several words is looked for whole.
const LONGEST_TEXT: usize = 4096;
/// How many lines are looked for.
const MOST_LINES: usize = 200;

/// Words of names whose values are secret.
const SECRET: [&str; 13] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "secret",
    "auth",
    "authorization",
    "bearer",
    "basic",
    "key",
    "apikey",
];
/// Words that make a name harmless again.
const HARMLESS: [&str; 12] =
    ["public", "file", "path", "id", "type", "name", "url", "uri", "endpoint", "version", "method", "authority"];

/// The parts of a value that are nowhere by chance.
pub(crate) fn telling(value: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let value = value.trim_ascii();
    let text =
        std::str::from_utf8(value).ok().filter(|text| text.contains(char::is_whitespace) && !text.contains('\0'));
    let mut parts: Vec<Cow<'_, [u8]>> = Vec::new();
    if let Ok(text) = std::str::from_utf8(value) {
        let words = named(text).chain(passwords(text)).chain(last_of_few(text)).chain(lone_tokens(text));
        parts.extend(words.flat_map(|word| pieces(word.as_bytes())).map(Cow::from));
        // In JSON a key is one line, whose breaks are written out.
        let unfolded = text.replace("\\n", "\n");
        for key in private_keys(&unfolded) {
            parts.extend(decoded(key).map(Cow::from));
            parts.push(key.as_bytes().to_vec().into());
        }
    }
    match text {
        Some(text) if text.len() <= LONGEST_TEXT => parts.push(value.into()),
        Some(_) if !parts.is_empty() => {}
        _ => parts.extend(pieces(value).map(Cow::from)),
    }
    parts.retain(|part| part.iter().filter(|byte| !byte.is_ascii_whitespace()).count() >= SHORTEST);
    parts.sort();
    parts.dedup();
    parts
}

/// The lines of a value that are long enough to be told from others.
pub(crate) fn lines(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = value.trim_ascii().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| line.len() >= SHORTEST).take(MOST_LINES)
}

/// A long value gives itself away by its second half: what many have in common, as the header of a token, comes first.
fn pieces(value: &[u8]) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    if value.len() <= LONG {
        return Box::new(std::iter::once(value));
    }
    let half = &value[value.len() / 2..];
    let step = half.len().div_ceil(PIECE).div_ceil(MOST_PIECES);
    Box::new(half.chunks_exact(PIECE).step_by(step))
}

/// What stands between the marks of private keys. It is looked for whole: much of it is the public key.
fn private_keys(text: &str) -> Vec<&str> {
    let blocks = text.split("-----BEGIN ").skip(1);
    let body = |block| -> Option<&str> {
        let (kind, rest) = str::split_once(block, "-----")?;
        kind.ends_with("PRIVATE KEY").then(|| rest.split("-----END").next().unwrap_or(rest).trim())
    };
    blocks.filter_map(body).collect()
}

/// A key as other formats hold it.
fn decoded(key: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = key.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').collect();
    STANDARD_NO_PAD.decode(digits).ok()
}

/// The values of names that sound secret, however they are written: `name=value`, `"name": "value"`, `name value`,
/// `<name>value</name>`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let separators = |c: char| c.is_whitespace() || "\"'=:<>,;|()[]".contains(c);
    let pairs = text.lines().flat_map(move |line| {
        let words: Vec<&str> = line.split(separators).filter(|word| !word.is_empty()).collect();
        // In XML `key="…"` says what something is called.
        let is_one = |name: &str| is_secret(name) && !(name == "key" && line.trim_start().starts_with('<'));
        let names = words.iter().enumerate().filter(|(_, word)| is_one(word));
        let value = |(at, _)| words.get(at + 1).filter(|word| **word != "value").or_else(|| words.get(at + 2)).copied();
        let followers: Vec<&str> = names.filter_map(value).collect();
        followers
    });
    // What a value has of the signs that part names from values is its own.
    let assigned = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=').or_else(|| line.split_once(": "))?;
        let value = value.trim().trim_end_matches(',').trim_matches(['"', '\'']);
        (is_secret(name.rsplit([' ', ':']).next()?) && !value.contains(char::is_whitespace)).then_some(value)
    });
    pairs.chain(assigned).filter(|value| !value.starts_with(['$', '%', '/', '{']) && !value.starts_with("-----"))
}

/// Whether a value of this name is secret.
fn is_secret(name: &str) -> bool {
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for c in name.chars() {
        if before.is_lowercase() && c.is_uppercase() {
            words.push(' ');
        }
        words.push(if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
        before = c;
    }
    let sounds = |word: &str| {
        let ends = ["token", "password", "passwd", "secret"];
        SECRET.contains(&word) || ends.iter().any(|end| word.ends_with(end))
    };
    let is_harmless = words.split(' ').any(|word| HARMLESS.contains(&word));
    let is_name = name.len() <= LONG && !name.starts_with('/') && !name.contains("-----");
    is_name && !is_harmless && words.split(' ').any(sounds)
}

/// The passwords of URLs.
pub(crate) fn passwords(text: &str) -> impl Iterator<Item = &str> {
    kiln_report::logins(text).map(|login| login.split_once(':').map_or(login, |(_, password)| password))
}

/// A password behind a name: on a line of its own, or behind a colon.
fn last_of_few(text: &str) -> Option<&str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).map(str::trim).collect();
    match lines.as_slice() {
        [line] if !line.contains("://") => line.rsplit_once(':').map(|(_, last)| last),
        [_, .., last] if lines.len() <= 4 && lines.iter().all(|line| !line.contains([' ', '=', ':'])) => Some(last),
        _ => None,
    }
}

/// Lines that are one long word of letters and digits. Those of certificates are no secrets.
fn lone_tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut is_block = false;
    text.lines().map(str::trim).filter(move |line| {
        if line.starts_with("-----") {
            is_block = line.starts_with("-----BEGIN");
        }
        let is_word = line.len() >= 16 && line.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
        let is_mixed = line.contains(|c: char| c.is_ascii_digit()) && line.contains(|c: char| c.is_ascii_alphabetic());
        !is_block && is_word && is_mixed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> Vec<String> {
        telling(value.as_bytes()).iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    #[test]
    fn short_values_are_not_looked_for() {
        for short in ["", "true", "8080", "passwd\n", "a b c d\n"] {
            assert_eq!(found(short), [""; 0], "{short}");
        }
        assert_eq!(found(" 12345678\n"), ["12345678"]);
    }

    #[test]
    fn secrets_are_found_in_the_files_that_tools_keep_them_in() {
        for (file, secret) in [
            (
                "registry=https://npm.acme.dev/\n//npm.acme.dev/:_authToken=npm_x1\"y2z\nalways-auth=true\n",
                "npm_x1\"y2z",
            ),
            ("[default]\naws_access_key_id = AKIA0001\naws_secret_access_key = wJ/K7+MDENG/bPx\n", "wJ/K7+MDENG/bPx"),
            ("machine git.acme.dev login bot password hunter2hunter2\n", "hunter2hunter2"),
            ("{\"auths\":{\"ghcr.io\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "dXNlcjpwYXNz"),
            ("{\n  \"auths\": {\n    \"x\": { \"identitytoken\": \"abcdef-123\" }\n}}", "abcdef-123"),
            ("<server>\n<id>central</id>\n<password>s3cr3t-pw</password>\n</server>", "s3cr3t-pw"),
            ("https://bot:ghp_0123456789@github.com\nhttps://x@y.dev/\n", "ghp_0123456789"),
            ("proxy = http://bot:pa/ss@w0rd?x@proxy.acme.dev:3128/\n", "pa/ss@w0rd?x"),
            ("Authorization: Bearer eyJh.bGci.Oi12\n", "eyJh.bGci.Oi12"),
            ("user\nlong-enough\n", "long-enough"),
            ("db.acme.dev:5432:app:me:s3cr3t-pw", "s3cr3t-pw"),
            ("export TOKEN='ab=cd:ef=gh'\n", "ab=cd:ef=gh"),
            ("<add key=\"Password\" value=\"s3cr3t-pw\" />", "s3cr3t-pw"),
            ("# one a line\nglpat-aaaa1111bbbb2222\nglpat-cccc3333dddd4444\n", "glpat-cccc3333dddd4444"),
        ] {
            let found = found(file);
            assert!(found.iter().any(|part| part == secret), "{secret}: {found:?}");
        }
    }

    #[test]
    fn what_is_not_secret_of_such_files_is_not_looked_for() {
        for file in [
            "registry=https://npm.acme.dev/\n//npm.acme.dev/:_authToken=${NPM_TOKEN}\n",
            "[default]\nregion = eu-central-1\noutput = json-format\naws_access_key_id = AKIA0123456789ABCDEF\n",
            "client-certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURQ\nkey_file: /etc/ssl/key.pem\n",
        ] {
            assert_eq!(found(file), [file.trim()], "{file}");
        }
    }

    #[test]
    fn of_long_values_the_second_half_counts() {
        let token = format!("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.{}", "0123456789abcdef".repeat(20));
        let parts = found(&token);
        assert!(parts.iter().all(|part| part.len() == PIECE && !part.contains("eyJ")), "{parts:?}");
        let large = (0..600_000_u32).map(|n| (n * 7 % 251) as u8).collect::<Vec<_>>();
        assert!(telling(&large).len() <= MOST_PIECES);
    }

    #[test]
    fn keys_are_looked_for_whole_as_text_and_decoded_and_certificates_are_not() {
        let body: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37)).collect();
        let digits = base64::engine::general_purpose::STANDARD.encode(&body);
        let wrapped: Vec<&str> =
            (0..digits.len()).step_by(64).map(|at| &digits[at..digits.len().min(at + 64)]).collect();
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", wrapped.join("\n"));
        let key = pem("RSA PRIVATE KEY");
        let wanted = [key.trim().as_bytes(), wrapped.join("\n").as_bytes(), &body].map(<[u8]>::to_vec);
        let bundle = format!("{key}{}", pem("CERTIFICATE").repeat(20));
        assert!(wanted.iter().all(|part| telling(key.as_bytes()).iter().any(|found| **found == **part)));
        let found = telling(bundle.as_bytes());
        assert!(found.len() == 2 && found.iter().all(|found| wanted[1..].iter().any(|part| **found == **part)));
        let certificate = pem("CERTIFICATE");
        assert_eq!(telling(certificate.as_bytes()), [certificate.trim().as_bytes()]);
    }

    #[test]
    fn a_key_within_json_is_the_key_and_what_all_keys_begin_with_is_not() {
        let digits = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC0123456789abcdef";
        let pem = format!("-----BEGIN PRIVATE KEY-----\\n{digits}\\n-----END PRIVATE KEY-----\\n");
        for break_ in ["", "\n"] {
            let file = format!("{{\"private_key\": \"{pem}\",{break_} \"client_email\": \"a@b.dev\"}}");
            let found = telling(format!("{file}{}", " ".repeat(LONGEST_TEXT)).as_bytes()).len();
            let parts = telling(file.as_bytes());
            let has = |wanted: &[u8]| parts.iter().any(|part| **part == *wanted);
            assert!(has(digits.as_bytes()) && has(&STANDARD_NO_PAD.decode(digits).unwrap()), "{parts:?}");
            assert!(parts.iter().all(|part| !part.starts_with(b"-----") && **part != *b"client_email"), "{parts:?}");
            assert!(found >= 2);
        }
    }

    #[test]
    fn lines_that_could_be_anything_are_left_out() {
        assert_eq!(lines(b"short\r\n12345678\n\n123456789\n").collect::<Vec<_>>(), [&b"12345678"[..], b"123456789"]);
    }
}
