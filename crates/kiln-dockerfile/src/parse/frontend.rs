//! Which language a file asks for, and whether it is the one built in.

use kiln_report::{Diagnostic, Span};

use super::Word;
use super::directive::name_and_value;
use crate::check::rules::UNKNOWN_SYNTAX;
use crate::suggest;

/// The language a file asks for; it is the one built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// As the file, or the user, calls it.
    pub name: String,
    /// Said when it may have what the built-in language has not.
    pub warning: Option<Diagnostic>,
}

/// The newest minor version of the language, of major version 1, that this one is like.
const MINOR: u32 = 26;
/// Images of the language that is built in. Other registries than Docker's have copies of them.
const IMAGES: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];
/// Tags of theirs without a number.
const CHANNELS: [&str; 6] = ["latest", "labs", "experimental", "master", "master-labs", "master-experimental"];
/// BuildKit's own name for the language that is built into it.
const INTERNAL: &str = "dockerfile.v0";

/// The language that a file's syntax line asks for, or `wanted` in place of it. An error when it is not built in.
///
/// ```
/// let found = kiln_dockerfile::frontend("# syntax=docker/dockerfile:1\nFROM scratch\n", None);
/// assert_eq!(found.unwrap().unwrap().name, "docker/dockerfile:1");
/// assert!(kiln_dockerfile::frontend("# syntax=example.com/other\nFROM scratch\n", None).is_err());
/// ```
pub fn frontend(text: &str, wanted: Option<&str>) -> Result<Option<Frontend>, Box<Diagnostic>> {
    let wanted = wanted.and_then(|wanted| wanted.split_whitespace().next());
    let (word, is_line) = match (wanted, detect_syntax(text)) {
        (Some(wanted), _) => (Word { text: wanted.to_owned(), span: Span::default() }, false),
        (None, Some(word)) => (word, true),
        (None, None) => return Ok(None),
    };
    let (image, tag) = image_and_tag(&word.text);
    if image != INTERNAL && !IMAGES.contains(&without_host(image)) {
        return Err(Box::new(foreign(&word, image, is_line)));
    }
    let warning = tag.and_then(|tag| newer(&word, tag));
    Ok(Some(Frontend { name: word.text, warning }))
}

fn foreign(word: &Word, image: &str, is_line: bool) -> Diagnostic {
    let name = &word.text;
    let message = match is_line {
        true => format!("this file is in the language of `{name}`; only `docker/dockerfile` is built in"),
        false => format!("`BUILDKIT_SYNTAX` asks for the language of `{name}`; only `docker/dockerfile` is built in"),
    };
    let error = Diagnostic::error(word.span, message);
    if let Some(near) = suggest::nearest(without_host(image), IMAGES) {
        return error.hint(format!("did you mean `{near}`?"));
    }
    error.hint(match is_line {
        true => "remove the line, or read the file as a Dockerfile: `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`",
        false => "leave `BUILDKIT_SYNTAX` out, or set it to `docker/dockerfile:1`",
    })
}

/// What is said of a tag that is not known.
fn newer(word: &Word, tag: &str) -> Option<Diagnostic> {
    let version = version(tag);
    if CHANNELS.contains(&tag) || matches!(version, Some((1, minor)) if minor.is_none_or(|minor| minor <= MINOR)) {
        return None;
    }
    let message = match version {
        Some(_) => format!("`{}` is not built in; the file is read as `docker/dockerfile:1.{MINOR}`", word.text),
        None => format!("`{}` has no known version; the file is read as `docker/dockerfile:1.{MINOR}`", word.text),
    };
    Some(Diagnostic::warning(UNKNOWN_SYNTAX, word.span, message).hint("write `docker/dockerfile:1`"))
}

/// `1`, `1.7`, `1.7.0-labs`, `1.7.0-rc1`: major and minor number.
fn version(tag: &str) -> Option<(u32, Option<u32>)> {
    let numbers = tag.split_once('-').map_or(tag, |(numbers, _)| numbers);
    let numbers: Vec<u32> = numbers.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    Some((*numbers.first()?, numbers.get(1).copied()))
}

/// An image's name and its tag; what a digest names has no tag that counts.
fn image_and_tag(name: &str) -> (&str, Option<&str>) {
    if let Some((name, _)) = name.split_once('@') {
        return (image_and_tag(name).0, None);
    }
    match name.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => (image, Some(tag)),
        _ => (name, None),
    }
}

fn without_host(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => image,
    }
}

/// The image a file wants as its frontend, with its place: from `# syntax=`, `// syntax=` or JSON.
///
/// A first line `#!…` is passed over.
pub fn detect_syntax(text: &str) -> Option<Word> {
    let bom = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut start = bom;
    if text[start..].starts_with("#!") {
        start = text[start..].find('\n').map_or(text.len(), |at| start + at + 1);
    }
    let body = &text[start..];
    ["#", "//"].iter().find_map(|prefix| syntax_line(body, start, prefix)).or_else(|| syntax_json(body, start))
}

fn syntax_line(body: &str, start: usize, prefix: &str) -> Option<Word> {
    let mut seen: Vec<String> = Vec::new();
    let mut at = start;
    for raw in body.split_inclusive('\n') {
        let (name, value) = name_and_value(raw.strip_prefix(prefix)?.trim())?;
        let name = name.to_ascii_lowercase();
        if seen.contains(&name) {
            return None;
        }
        if name == "syntax" {
            let offset = at + (value.as_ptr() as usize - raw.as_ptr() as usize);
            let image = value.split(' ').next().unwrap_or(value);
            return Some(Word { text: image.to_owned(), span: Span::new(offset, offset + image.len()) });
        }
        seen.push(name);
        at += raw.len();
    }
    None
}

fn syntax_json(body: &str, start: usize) -> Option<Word> {
    if !body.trim_start().starts_with('{') {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    let text = value.get("syntax")?.as_str()?.to_owned();
    Some(Word { text, span: Span::new(start, start + body.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_own_language_is_built_in_by_all_its_names() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker/dockerfile:1.26.0-rc1",
            "docker.io/docker/dockerfile:latest",
            "docker/dockerfile-upstream:master-labs",
            "dockerfile.v0",
            "docker/dockerfile:experimental",
            "mirror.example:5000/docker/dockerfile:1",
            "docker/dockerfile:9@sha256:ab",
        ] {
            let found = frontend(&format!("# syntax={name}\nFROM a"), None);
            assert_eq!(found, Ok(Some(Frontend { name: name.to_owned(), warning: None })));
        }
        assert_eq!(frontend("FROM a", None), Ok(None));
        assert_eq!(frontend("FROM a", Some(" ")), Ok(None));
    }

    #[test]
    fn a_version_that_is_not_known_is_read_with_a_warning() {
        for name in
            ["docker/dockerfile:99", "docker/dockerfile:1.99", "docker/dockerfile:next", "docker/dockerfile:2-labs"]
        {
            let warning = frontend(&format!("#syntax={name}"), None).unwrap().unwrap().warning.expect(name);
            assert_eq!((warning.span, warning.message.contains("1.26")), (Span::new(8, 8 + name.len()), true));
        }
    }

    #[test]
    fn another_language_is_an_error_that_names_the_line_and_the_way_out() {
        let text = "#!/usr/bin/env x\n# syntax=example.com/front:1 y\nFROM a";
        let error = frontend(text, None).unwrap_err();
        assert_eq!(&text[error.span.range()], "example.com/front:1");
        assert!(error.hints[0].contains("BUILDKIT_SYNTAX=docker/dockerfile:1"), "{error:?}");
        assert!(frontend(text, Some("docker/dockerfile:1")).is_ok());
        let error = frontend("FROM a", Some("other/dockerfile")).unwrap_err();
        assert!(error.message.contains("`BUILDKIT_SYNTAX`") && error.span == Span::default(), "{error:?}");
        let near = frontend("# syntax=docker/dockerflie:1", None).unwrap_err();
        assert_eq!(near.hints, ["did you mean `docker/dockerfile`?"]);
        for text in ["// syntax=a/b\n", "{\"syntax\": \"a/b\"}"] {
            assert!(frontend(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn the_frontend_is_found_in_all_its_spellings() {
        for (text, wanted) in [
            ("# syntax=docker/dockerfile:1\nFROM x", Some("docker/dockerfile:1")),
            ("\u{feff}#SYNTAX = a/b  \r\n", Some("a/b")),
            ("# escape=`\n# syntax=a", Some("a")),
            ("#!/usr/bin/env x\n# syntax=a extra words", Some("a")),
            ("// syntax=hcl/front\n", Some("hcl/front")),
            ("{\"syntax\": \"j\"}", Some("j")),
            ("# note\n# syntax=a", None),
            ("\n# syntax=a", None),
            ("FROM x\n# syntax=a", None),
        ] {
            let found = detect_syntax(text);
            assert_eq!(found.as_ref().map(|w| w.text.as_str()), wanted, "{text:?}");
            if let Some(word) = found.filter(|_| !text.starts_with('{')) {
                assert_eq!(&text[word.span.range()], word.text);
            }
        }
    }
}
