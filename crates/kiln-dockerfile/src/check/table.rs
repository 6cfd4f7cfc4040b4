//! The checks of the language: their names, their reasons, their examples.
// tidy: table

use super::rules as r;

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// As in `# check=skip=NAME`.
    pub name: &'static str,
    /// Names by which users of other linters know it.
    pub aliases: &'static [&'static str],
    /// Whose name it is.
    pub origin: Origin,
    /// Whether it runs unasked.
    pub status: Status,
    /// What it finds, in one sentence.
    pub summary: &'static str,
    /// Why that matters, in a paragraph for its page of the reference.
    pub why: &'static str,
    /// A Dockerfile in which it finds something.
    pub bad: &'static str,
    /// The same, mended: it finds nothing.
    pub good: &'static str,
}

/// Whose name a check has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// BuildKit has it too.
    BuildKit,
    /// Only kiln has it.
    Kiln,
}

/// Whether a check runs unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Stable,
    /// Only with `# check=experimental=NAME`.
    Experimental,
}

/// A check of BuildKit's that other linters do not have.
const BUILDKIT: Rule = Rule {
    name: "",
    aliases: &[],
    origin: Origin::BuildKit,
    status: Status::Stable,
    summary: "",
    why: "",
    bad: "",
    good: "",
};

/// All checks.
pub const RULES: &[Rule] = &[
    Rule {
        name: r::STAGE_NAME_CASING,
        summary: "a stage's name has upper-case letters",
        why: "Names of stages are compared without their case, so `Build` and `build` are one stage. Written in lower case \
              throughout, nobody has to know that.",
        bad: "FROM scratch AS Build\n",
        good: "FROM scratch AS build\n",
        ..BUILDKIT
    },
    Rule {
        name: r::FROM_AS_CASING,
        summary: "`as` and `from` are not in the same case",
        why: "`FROM` and `AS` are keywords of one line. In one case they are easy to tell from the names between them.",
        bad: "FROM scratch as build\n",
        good: "FROM scratch AS build\n",
        ..BUILDKIT
    },
    Rule {
        name: r::NO_EMPTY_CONTINUATION,
        summary: "a blank line stands within an instruction",
        why: "After a `\\` the instruction goes on, even over a blank line. That is easily taken for its end, and BuildKit \
              has announced that it will become an error.",
        bad: "FROM alpine:3.20\nRUN echo one && \\\n\n    echo two\n",
        good: "FROM alpine:3.20\nRUN echo one && \\\n    echo two\n",
        ..BUILDKIT
    },
    Rule {
        name: r::CONSISTENT_CASING,
        summary: "a keyword is not in the case most others are in",
        why: "Keywords may be written in either case. One case in a file lets the eye find them; upper case is usual.",
        bad: "FROM alpine:3.20\nRun echo one\nRUN echo two\n",
        good: "FROM alpine:3.20\nRUN echo one\nRUN echo two\n",
        ..BUILDKIT
    },
    Rule {
        name: r::DUPLICATE_STAGE,
        aliases: &["DL3024"],
        summary: "two stages have one name",
        why: "What comes after takes from the last stage of the name, and so does `--target`. The other one can hardly be \
              reached, which is seldom what was meant.",
        bad: "FROM alpine:3.20 AS build\nFROM debian:12 AS build\n",
        good: "FROM alpine:3.20 AS build\nFROM debian:12 AS package\n",
        ..BUILDKIT
    },
    Rule {
        name: r::RESERVED_STAGE,
        summary: "a stage has a name that means something else",
        why: "`scratch` is the empty image and `context` the build context. A stage of that name cannot be used by it.",
        bad: "FROM alpine:3.20 AS scratch\n",
        good: "FROM alpine:3.20 AS base\n",
        ..BUILDKIT
    },
    Rule {
        name: r::JSON_ARGS,
        aliases: &["DL3025"],
        summary: "CMD or ENTRYPOINT goes through a shell, which gets the signals",
        why: "In the shell form the first process of the container is `/bin/sh`. It does not pass signals on, so the program \
              is not told to stop and is killed after a timeout. A JSON array starts the program itself. Who wants the \
              shell can say so with `SHELL`, or write `CMD [\"sh\", \"-c\", \"…\"]`.",
        bad: "FROM alpine:3.20\nCMD my-server --port 80\n",
        good: "FROM alpine:3.20\nCMD [\"my-server\", \"--port\", \"80\"]\n",
        ..BUILDKIT
    },
    Rule {
        name: r::MAINTAINER,
        aliases: &["DL4000"],
        summary: "MAINTAINER is used, which a label has replaced",
        why: "`MAINTAINER` sets a field that hardly any tool shows. The label of the OCI image specification is read by \
              registries, and can be changed without a new build.",
        bad: "FROM scratch\nMAINTAINER jane@example.com\n",
        good: "FROM scratch\nLABEL org.opencontainers.image.authors=\"jane@example.com\"\n",
        ..BUILDKIT
    },
    Rule {
        name: r::UNDEFINED_ARG_IN_FROM,
        summary: "FROM uses an argument that is not declared",
        why: "`FROM` sees the predefined platform arguments and those declared before the first `FROM`. Anything else is \
              empty, which is often a misspelt name.",
        bad: "ARG VERSION=3.20\nFROM alpine:3${VERSOIN}\n",
        good: "ARG VERSION=3.20\nFROM alpine:${VERSION}\n",
        ..BUILDKIT
    },
    Rule {
        name: r::RELATIVE_WORKDIR,
        aliases: &["DL3000"],
        summary: "the first WORKDIR depends on the base image's",
        why: "A relative path begins at the directory before, and for the first `WORKDIR` of a stage that is the base \
              image's. When the base changes it, files land elsewhere.",
        bad: "FROM scratch\nWORKDIR app\n",
        good: "FROM scratch\nWORKDIR /app\n",
        ..BUILDKIT
    },
    Rule {
        name: r::UNDEFINED_VAR,
        summary: "a variable is used that is not set",
        why: "A variable that neither `ARG` nor `ENV` nor the base image sets is empty, without an error. Arguments \
              declared before the first `FROM` count only for `FROM`, until the stage declares them again. When the base \
              image is not at hand, only names are told that are nearly one of the file's own.",
        bad: "FROM scratch\nARG SOURCE=app\nCOPY $SORUCE /\n",
        good: "FROM scratch\nARG SOURCE=app\nCOPY $SOURCE /\n",
        ..BUILDKIT
    },
    Rule {
        name: r::MULTIPLE_INSTRUCTIONS,
        aliases: &["DL3012", "DL4003", "DL4004"],
        summary: "an instruction is overruled by a later one",
        why: "An image has one command, one entry point and one health check: the last of a stage. The others do nothing.",
        bad: "FROM scratch\nENTRYPOINT [\"/one\"]\nENTRYPOINT [\"/two\"]\n",
        good: "FROM scratch\nENTRYPOINT [\"/two\"]\n",
        ..BUILDKIT
    },
    Rule {
        name: r::LEGACY_PAIRS,
        summary: "a key and its value are separated by a space",
        why: "`ENV key value` takes all of the rest for the value, so it sets one variable only, and quotes mean something \
              else than after `=`.",
        bad: "FROM scratch\nENV MODE fast\n",
        good: "FROM scratch\nENV MODE=fast\n",
        ..BUILDKIT
    },
    Rule {
        name: r::INVALID_BASE_PLATFORM,
        summary: "the base image is for another platform than the build",
        why: "Programs of another platform do not start, or only under emulation. An image that exists for one platform \
              only is taken as it is, so the mismatch shows first when a step runs. It takes the base image's config to \
              tell, so a build says it, and a check does not. Examples: a base that exists for `arm64` only.",
        bad: "FROM arm64-only:1\n",
        good: "FROM multi-platform:1\n",
        ..BUILDKIT
    },
    Rule {
        name: r::REDUNDANT_PLATFORM,
        summary: "FROM asks for the platform it would use anyway",
        why: "The platform that is built for is what `FROM` uses when nothing is said.",
        bad: "FROM --platform=$TARGETPLATFORM alpine:3.20\n",
        good: "FROM alpine:3.20\n",
        ..BUILDKIT
    },
    Rule {
        name: r::SECRET_IN_ENV,
        summary: "a name sounds like a secret that would stay in the image",
        why: "What `ENV` sets is in the image's config, and what `ARG` was given is in its history. Whoever can pull the \
              image can read both. A secret that a step mounts leaves nothing behind.",
        bad: "FROM alpine:3.20\nARG NPM_TOKEN\n",
        good: "FROM alpine:3.20\nRUN --mount=type=secret,id=npm ls /run/secrets/npm\n",
        ..BUILDKIT
    },
    Rule {
        name: r::INVALID_DEFAULT_ARG,
        summary: "FROM has no valid image without build arguments",
        why: "Without `--build-arg` the name of the image is empty or broken. With a default in `ARG` the file builds as it \
              is, and says what is usual.",
        bad: "ARG TAG\nFROM alpine:${TAG}\n",
        good: "ARG TAG=3.20\nFROM alpine:${TAG}\n",
        ..BUILDKIT
    },
    Rule {
        name: r::CONST_PLATFORM,
        aliases: &["DL3029"],
        summary: "FROM is bound to one platform",
        why: "A platform written into the file is used whatever the build is for, so an image for several platforms has the \
              same programs in all of them. Where a stage is one platform's on purpose, its name may say so, and then \
              this check is content.",
        bad: "FROM --platform=linux/amd64 alpine:3.20 AS base\n",
        good: "FROM --platform=$BUILDPLATFORM alpine:3.20 AS base\n",
        ..BUILDKIT
    },
    Rule {
        name: r::DEFINITION_DESCRIPTION,
        status: Status::Experimental,
        summary: "a comment above ARG or FROM is no description of it",
        why: "`kiln build --call=outline` and `--call=targets` show the comment right above an `ARG` or a named `FROM` when \
              its first word is the name. Another comment there may be a description that went wrong; with an empty `#` \
              line below it, it is none.",
        bad: "# check=experimental=InvalidDefinitionDescription\n# which version\nARG VERSION=1\nFROM scratch\n",
        good: "# check=experimental=InvalidDefinitionDescription\n# VERSION is what is installed\nARG VERSION=1\nFROM scratch\n",
        ..BUILDKIT
    },
    Rule {
        name: r::EXPOSE_CASING,
        summary: "a protocol in EXPOSE has upper-case letters",
        why: "Protocols are written in lower case everywhere else, and `80/TCP` and `80/tcp` are two keys to some tools.",
        bad: "FROM scratch\nEXPOSE 80/TCP\n",
        good: "FROM scratch\nEXPOSE 80/tcp\n",
        ..BUILDKIT
    },
    Rule {
        name: r::EXPOSE_FORMAT,
        summary: "EXPOSE names an address or a port of the host",
        why: "`EXPOSE` tells which port the program listens on. Addresses and ports of the host are chosen by who runs the \
              container; written here they mean nothing, and BuildKit has announced that they will become an error.",
        bad: "FROM scratch\nEXPOSE 127.0.0.1:8080:80\n",
        good: "FROM scratch\nEXPOSE 80\n",
        ..BUILDKIT
    },
    Rule {
        name: r::COPY_IGNORED,
        summary: "a source of COPY or ADD is left out of the context by an ignore rule",
        why: "What an ignore file leaves out is not there for the build, so the step fails, or copies less than it says. It \
              is told in every build, and, as in BuildKit, not where the ignore file has exceptions: they may bring a part \
              of a directory back. Examples: a `.dockerignore` with the pattern `*.env`.",
        bad: "FROM scratch\nCOPY config.env /\n",
        good: "FROM scratch\nCOPY config.example /\n",
        ..BUILDKIT
    },
    Rule {
        name: r::BROKEN_TRIGGER,
        origin: Origin::Kiln,
        summary: "an ONBUILD keeps an instruction that cannot be read",
        why: "What ONBUILD keeps is read when another image is built on this one, and only then it fails, for somebody else.",
        bad: "FROM alpine:3.20\nONBUILD RNU make\n",
        good: "FROM alpine:3.20\nONBUILD RUN make\n",
        ..BUILDKIT
    },
    Rule {
        name: r::TYPOGRAPHIC_DASH,
        origin: Origin::Kiln,
        summary: "a flag begins with a dash that is no hyphen",
        why: "Word processors and web pages turn two hyphens into one dash. With it, a flag is a word like others: COPY takes it \
              for a source, and RUN for a program.",
        bad: "FROM alpine:3.20\nCOPY \u{2013}chown=1 app /\n",
        good: "FROM alpine:3.20\nCOPY --chown=1 app /\n",
        ..BUILDKIT
    },
    Rule {
        name: r::EMPTY_RUN,
        origin: Origin::Kiln,
        summary: "a RUN has no command",
        why: "The shell is started with nothing to do, and a layer with nothing in it is made. Most often the command stands on \
              the next line, and the backslash is missing.",
        bad: "FROM alpine:3.20\nRUN\n",
        good: "FROM alpine:3.20\nRUN make\n",
        ..BUILDKIT
    },
    Rule {
        name: r::SEVERAL_USERS,
        origin: Origin::Kiln,
        summary: "a USER has several words",
        why: "USER takes the whole line for one name. The build goes on, and the next step, or the container, finds no such user.",
        bad: "FROM alpine:3.20\nUSER app www\n",
        good: "FROM alpine:3.20\nUSER app:www\n",
        ..BUILDKIT
    },
    Rule {
        name: r::MISSPELT_STAGE,
        origin: Origin::Kiln,
        summary: "an image is named that is nearly a stage above",
        why: "A name that no stage has is an image's, and is pulled: at best there is none, at worst it is somebody else's. Names \
              with a tag, a digest or a slash are taken for images, and so are well-known ones.",
        bad: "FROM alpine:3.20 AS build\nFROM scratch\nCOPY --from=biuld /app /\n",
        good: "FROM alpine:3.20 AS build\nFROM scratch\nCOPY --from=build /app /\n",
        ..BUILDKIT
    },
    Rule {
        name: r::BROKEN_ARRAY,
        origin: Origin::Kiln,
        summary: "arguments begin like a JSON array and are none",
        why: "An array that JSON cannot read is no error: the shell gets the whole line, and COPY, ADD and VOLUME take its \
              words for paths. Strings are in double quotes, a comma stands between them and none behind the last.",
        bad: "FROM alpine:3.20\nENTRYPOINT [\"nginx\", '-g',]\n",
        good: "FROM alpine:3.20\nENTRYPOINT [\"nginx\", \"-g\"]\n",
        ..BUILDKIT
    },
    Rule {
        name: r::INLINE_COMMENT,
        origin: Origin::Kiln,
        summary: "`#` within a line is taken for a comment, which it is not",
        why: "A comment is a line that begins with `#`. Behind an instruction, `#` and all that follows are arguments: \
              `COPY a ./ # the app` copies `a`, `./`, `#` and `the` to `app`.",
        bad: "FROM scratch\nCOPY package.json ./ # for the cache\n",
        good: "FROM scratch\n# for the cache\nCOPY package.json ./\n",
        ..BUILDKIT
    },
    Rule {
        name: r::UNUSED_BUILD_ARG,
        origin: Origin::Kiln,
        summary: "a build argument is given that nothing declares",
        why: "A value that no `ARG` declares reaches no step, without an error. Often the name is misspelt, or the `ARG` is \
              missing. Examples: a build with `--build-arg VERSION=2`.",
        bad: "FROM scratch\nARG VERSOIN=1\n",
        good: "FROM scratch\nARG VERSION=1\n",
        ..BUILDKIT
    },
    Rule {
        name: r::COPY_SOURCE_MISSING,
        origin: Origin::Kiln,
        summary: "a path that is copied or mounted is not in its context",
        why: "The step will fail, possibly after many others. A check looks at the files, so it can say so at once, with the \
              name that was probably meant or the ignore rule that hides it; a wildcard that matches nothing fails no step, \
              and copies nothing. Examples: a context with `package.json`.",
        bad: "FROM scratch\nCOPY packge.json /\n",
        good: "FROM scratch\nCOPY package.json /\n",
        ..BUILDKIT
    },
    Rule {
        name: r::CONTEXT_NOT_FILTERED,
        origin: Origin::Kiln,
        summary: "the whole context is copied, with what nobody wants in an image",
        why: "The history of a repository and installed packages make the image larger, may hold secrets, and change more \
              often than the sources, so the step and all after it run again. An ignore file keeps them out. Examples: a \
              context with `.git` and without an ignore file.",
        bad: "FROM scratch\nCOPY . /app\n",
        good: "FROM scratch\nCOPY src /app/src\n",
        ..BUILDKIT
    },
    Rule {
        name: r::UNKNOWN_SYNTAX,
        origin: Origin::Kiln,
        summary: "`# syntax=` names a version of the language that is not built in",
        why: "The language is built in, whatever version a file asks for. A version that came later may know instructions \
              and flags that are refused here, so it is told; `docker/dockerfile:1` never is.",
        bad: "# syntax=docker/dockerfile:99\nFROM scratch\n",
        good: "# syntax=docker/dockerfile:1\nFROM scratch\n",
        ..BUILDKIT
    },
];

/// The check with a name.
pub(crate) fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_oci::{Digest, ImageConfig, Platform};
    use kiln_report::{Diagnostic, SourceFile};

    use super::*;
    use crate::check::{IgnoreRule, SourceFact, ignored_source, missing_source, unfiltered_context};
    use crate::{
        CheckConfig, ContextRead, ImageFacts, LowerOptions, Lowering, ResolvedImage, check, context_reads, lower, parse,
    };

    /// What the checks find, those that need images and build arguments too.
    fn found(rule: &Rule, text: &str) -> Vec<&'static str> {
        let (file, errors) = parse(text);
        assert!(errors.is_empty(), "{text}: {errors:?}");
        let mut options = LowerOptions::new(Arc::new(SourceFile::new("Dockerfile", text)));
        if rule.name == r::UNUSED_BUILD_ARG {
            options.build_args.insert("VERSION".into(), "2".into());
        }
        let mut found = check(&file, &CheckConfig::of(&file).unwrap());
        let mut facts = ImageFacts::new();
        loop {
            match lower(&file, &options, &facts) {
                Ok(Lowering::NeedsImages(wanted)) => {
                    for image in wanted {
                        facts.insert(&image.reference, image.platform.clone(), base(&image.reference));
                    }
                }
                Ok(Lowering::Done(lowered)) => {
                    found.extend(lowered.warnings);
                    break;
                }
                Err(errors) => panic!("{text}: {errors:?}"),
            }
        }
        found.extend(context_reads(&file, &options).iter().filter_map(|read| in_context(rule, read)));
        found.iter().filter_map(|finding| finding.rule).collect()
    }

    /// What a context would have to say, for the rules that ask it.
    fn in_context(rule: &Rule, read: &ContextRead) -> Option<Diagnostic> {
        match (rule.name, read.path.as_str()) {
            (r::COPY_IGNORED, "config.env") => {
                let hides = IgnoreRule { pattern: "*.env".into(), place: ".dockerignore:1".into() };
                Some(ignored_source(read, &hides))
            }
            (r::COPY_SOURCE_MISSING, "package.json") => missing_source(read, &SourceFact::Present, "the context"),
            (r::COPY_SOURCE_MISSING, _) => missing_source(read, &SourceFact::Missing(Vec::new()), "the context"),
            (r::CONTEXT_NOT_FILTERED, _) if read.takes_all() => Some(unfiltered_context(read, &[(".git".into(), 1)])),
            _ => None,
        }
    }

    fn base(name: &str) -> ResolvedImage {
        let platform = match name.starts_with("arm64") {
            true if Platform::host().architecture == "arm64" => "linux/amd64".parse().unwrap(),
            true => "linux/arm64".parse().unwrap(),
            false => Platform::host(),
        };
        let digest = Digest::sha256(name);
        let identifier = format!("docker-image://{name}@{digest}");
        ResolvedImage {
            digest,
            identifier,
            config: ImageConfig { platform, ..ImageConfig::default() },
            is_local: false,
        }
    }

    #[test]
    fn every_check_finds_its_bad_example_and_nobody_minds_the_good_one() {
        for rule in RULES.iter().filter(|rule| ![r::INVALID_DEFAULT_ARG, r::UNKNOWN_SYNTAX].contains(&rule.name)) {
            assert!(found(rule, rule.bad).contains(&rule.name), "{}: nothing found in\n{}", rule.name, rule.bad);
            assert_eq!(found(rule, rule.good), [""; 0], "{}: found in\n{}", rule.name, rule.good);
        }
    }

    #[test]
    fn a_base_without_a_default_is_found_although_it_cannot_be_built() {
        let rule = find(r::INVALID_DEFAULT_ARG).unwrap();
        let names = |text| check(&parse(text).0, &CheckConfig::default()).len();
        assert_eq!((names(rule.bad), names(rule.good)), (1, 0));
    }

    #[test]
    fn an_unknown_version_of_the_language_is_found_before_the_file_is_parsed() {
        let rule = find(r::UNKNOWN_SYNTAX).unwrap();
        let warns = |text| crate::frontend(text, None).unwrap().unwrap().warning.and_then(|warning| warning.rule);
        assert_eq!((warns(rule.bad), warns(rule.good)), (Some(rule.name), None));
    }

    #[test]
    fn names_are_unique_and_in_pascal_case_and_each_has_a_page() {
        let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert!(names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('_')));
        assert!(RULES.iter().all(|rule| !rule.summary.is_empty() && rule.why.ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }
}
