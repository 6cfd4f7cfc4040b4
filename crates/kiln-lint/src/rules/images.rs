//! Images that stages begin with and take from.

use std::collections::BTreeSet;

use kiln_dockerfile::expand::{Env, Lexer};
use kiln_dockerfile::instruction::Command;
use kiln_dockerfile::{Instruction, Word};
use kiln_report::Level;

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "UntaggedImage",
        aliases: &["DL3006"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "an image is named without a tag",
        why: "Without a tag an image is the one called `latest`, which is another one tomorrow, perhaps with another major version \
              of what is in it.",
        bad: "FROM debian\n",
        good: "FROM debian:12\n",
        check: untagged,
    },
    Rule {
        name: "LatestTag",
        aliases: &["DL3007"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "an image is named by the tag `latest`",
        why: "`latest` is another image tomorrow, perhaps with another major version of what is in it.",
        bad: "FROM debian:latest\n",
        good: "FROM debian:12\n",
        check: latest,
    },
    Rule {
        name: "UntrustedRegistry",
        aliases: &["DL3026"],
        level: Level::Error,
        scope: Scope::Check,
        summary: "a base comes from a registry that is not among the trusted ones",
        why: "Whoever lists trusted registries wants no image from elsewhere. Without such a list this rule finds nothing; it \
              is the key `trustedRegistries` of `.hadolint.yaml`.",
        bad: "FROM registry.example/tools/base:1\n",
        good: "FROM debian:12\n",
        check: untrusted,
    },
];

/// An image that is named in a file.
struct Image<'a> {
    instruction: &'a Instruction,
    word: &'a Word,
    /// The name with variables filled in.
    name: String,
    /// Whether a stage begins with it.
    is_base: bool,
}

impl Image<'_> {
    /// The registry and the path; the tag.
    fn parts(&self) -> (&str, Option<&str>) {
        let slash = self.name.rfind('/').map_or(0, |at| at + 1);
        match self.name[slash..].find(':') {
            Some(at) => (&self.name[..slash + at], Some(&self.name[slash + at + 1..])),
            None => (&self.name, None),
        }
    }

    fn is_pinned(&self) -> bool {
        self.name.contains('@')
    }

    fn registry(&self) -> &str {
        match self.name.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
            _ => "docker.io",
        }
    }
}

/// The images of a file. What a stage is called is none, and what depends on arguments without a default is unknown.
fn images<'a>(view: &View<'a>) -> Vec<Image<'a>> {
    let mut globals = Env::new();
    let lexer = Lexer::new(view.file.escape);
    let mut unknown = BTreeSet::new();
    for instruction in &view.preamble {
        let Some(Command::Arg(items)) = &instruction.command else { continue };
        for item in items {
            let value = item.value.as_ref().and_then(|value| lexer.expand(&value.text, &globals).ok());
            match value.filter(|value| !value.uses.iter().any(|used| !used.is_set || unknown.contains(&used.name))) {
                Some(value) => globals.set(item.key.text.as_str(), value.text),
                None => drop(unknown.insert(item.key.text.clone())),
            }
        }
    }
    let name = |word: &Word| {
        let expansion = lexer.expand(&word.text, &globals).ok()?;
        expansion.uses.iter().all(|used| used.is_set).then_some(expansion.text).filter(|name| !name.is_empty())
    };
    let mut images = Vec::new();
    for (number, stage) in view.stages.iter().enumerate() {
        let word = &stage.from.image;
        if let Some(name) =
            name(word).filter(|name| stage.base.is_none() && name != "scratch" && view.source(number, name).is_none())
        {
            images.push(Image { instruction: stage.head, word, name, is_base: true });
        }
        for instruction in &stage.body {
            let Some(Command::Copy(copy)) = &instruction.command else { continue };
            let Some(word) = &copy.from else { continue };
            // A bare name may be that of a context, which only the command line knows.
            if word.text.contains(['/', ':']) && !word.text.contains('$') {
                images.push(Image { instruction, word, name: word.text.clone(), is_base: false });
            }
        }
    }
    images
}

fn untagged(view: &View<'_>, findings: &mut Findings<'_>) {
    for image in images(view).iter().filter(|image| !image.is_pinned() && image.parts().1.is_none()) {
        let message = format!("`{}` has no tag, so it is whatever `latest` is", image.name);
        let hint = format!("name a version: `{}:…`", image.name);
        findings.report(image.instruction, image.word.span, message, hint);
    }
}

fn latest(view: &View<'_>, findings: &mut Findings<'_>) {
    for image in images(view).iter().filter(|image| !image.is_pinned() && image.parts().1 == Some("latest")) {
        let message = format!("`{}` is another image tomorrow", image.name);
        let hint = format!("name a version: `{}:…`", image.parts().0);
        findings.report(image.instruction, image.word.span, message, hint);
    }
}

fn untrusted(view: &View<'_>, findings: &mut Findings<'_>) {
    let trusted = &findings.settings().trusted_registries;
    if trusted.is_empty() {
        return;
    }
    for image in images(view).iter().filter(|image| image.is_base) {
        let registry = image.registry();
        if trusted.iter().any(|pattern| matches(pattern, registry)) {
            continue;
        }
        let message = format!("`{}` comes from `{registry}`, which is not among the trusted registries", image.name);
        findings.report(image.instruction, image.word.span, message, format!("use one of `{}`", trusted.join("`, `")));
    }
}

/// Whether a registry is meant by a name, in which `*` may stand at either end.
fn matches(pattern: &str, registry: &str) -> bool {
    let pattern = if pattern == "hub.docker.com" { "docker.io" } else { pattern };
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => registry.ends_with(end),
        (_, Some(start)) => registry.starts_with(start),
        _ => registry == pattern,
    }
}
