//! The checks by name, and what their findings say.
// tidy: table

use kiln_oci::Platform;
use kiln_report::{Diagnostic, Span};

use crate::suggest;

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// As in `# check=skip=NAME`.
    pub name: &'static str,
    /// What it finds, in one sentence.
    pub summary: &'static str,
    /// Whose name it is.
    pub origin: Origin,
}

/// Whose name a check has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// BuildKit has it too.
    BuildKit,
    /// Only kiln has it.
    Kiln,
}

macro_rules! rules {
    ($($constant:ident $name:literal $origin:ident $summary:literal)*) => {
        $(pub(crate) const $constant: &str = $name;)*

        /// All checks.
        pub const RULES: &[Rule] =
            &[$(Rule { name: $name, summary: $summary, origin: Origin::$origin }),*];
    };
}

rules! {
    STAGE_NAME_CASING "StageNameCasing" BuildKit "a stage's name has upper-case letters"
    FROM_AS_CASING "FromAsCasing" BuildKit "`as` and `from` are not in the same case"
    NO_EMPTY_CONTINUATION "NoEmptyContinuation" BuildKit "a blank line stands within an instruction"
    CONSISTENT_CASING "ConsistentInstructionCasing" BuildKit "a keyword is not in the case most others are in"
    DUPLICATE_STAGE "DuplicateStageName" BuildKit "two stages have one name"
    RESERVED_STAGE "ReservedStageName" BuildKit "a stage has a name that means something else"
    JSON_ARGS "JSONArgsRecommended" BuildKit "CMD or ENTRYPOINT goes through a shell, which gets the signals"
    MAINTAINER "MaintainerDeprecated" BuildKit "MAINTAINER is used, which a label has replaced"
    UNDEFINED_ARG_IN_FROM "UndefinedArgInFrom" BuildKit "FROM uses an argument that is not declared"
    RELATIVE_WORKDIR "WorkdirRelativePath" BuildKit "the first WORKDIR depends on the base image's"
    UNDEFINED_VAR "UndefinedVar" BuildKit "a variable is used that is not set"
    MULTIPLE_INSTRUCTIONS "MultipleInstructionsDisallowed" BuildKit "an instruction is overruled by a later one"
    LEGACY_PAIRS "LegacyKeyValueFormat" BuildKit "a key and its value are separated by a space"
    INVALID_BASE_PLATFORM "InvalidBaseImagePlatform" BuildKit "the base image is for another platform than the build"
    REDUNDANT_PLATFORM "RedundantTargetPlatform" BuildKit "FROM asks for the platform it would use anyway"
    SECRET_IN_ENV "SecretsUsedInArgOrEnv" BuildKit "a name sounds like a secret that would stay in the image"
    INVALID_DEFAULT_ARG "InvalidDefaultArgInFrom" BuildKit "FROM has no valid image without build arguments"
    CONST_PLATFORM "FromPlatformFlagConstDisallowed" BuildKit "FROM is bound to one platform"
    EXPOSE_CASING "ExposeProtoCasing" BuildKit "a protocol in EXPOSE has upper-case letters"
    EXPOSE_FORMAT "ExposeInvalidFormat" BuildKit "EXPOSE names an address or a port of the host"
    INLINE_COMMENT "InlineCommentInInstruction" Kiln "`#` within a line is taken for a comment, which it is not"
    UNUSED_BUILD_ARG "UnusedBuildArg" Kiln "a build argument is given that nothing declares"
}

fn did_you_mean(finding: Diagnostic, nearest: Option<String>) -> Diagnostic {
    match nearest {
        Some(nearest) => finding.hint(format!("did you mean `{nearest}`?")),
        None => finding,
    }
}

pub(crate) fn stage_name_casing(name: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(STAGE_NAME_CASING, span, format!("stage name `{name}` has upper-case letters"))
        .hint(format!("call it `{}`", name.to_lowercase()))
}

pub(crate) fn from_as_casing(from: &str, word: &str, span: Span) -> Diagnostic {
    let wanted = if from == from.to_lowercase() { "as" } else { "AS" };
    Diagnostic::warning(FROM_AS_CASING, span, format!("`{word}` is not in the case of `{from}`"))
        .hint(format!("write `{wanted}`"))
}

pub(crate) fn empty_continuation(span: Span) -> Diagnostic {
    Diagnostic::warning(NO_EMPTY_CONTINUATION, span, "a blank line stands within an instruction")
        .hint("take it out; a later version of the language will end the instruction there")
}

pub(crate) fn inconsistent_casing(keyword: &str, wanted: String, span: Span) -> Diagnostic {
    Diagnostic::warning(CONSISTENT_CASING, span, format!("`{keyword}` is not in the case of most instructions here"))
        .hint(format!("write `{wanted}`"))
}

pub(crate) fn duplicate_stage(name: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(DUPLICATE_STAGE, span, format!("another stage is called `{name}` already"))
        .hint("give each stage a name of its own")
}

pub(crate) fn reserved_stage(name: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(RESERVED_STAGE, span, format!("`{name}` means something else and should not name a stage"))
        .hint("choose another name")
}

pub(crate) fn json_args(keyword: &str, span: Span) -> Diagnostic {
    let message = format!("{keyword} in shell form: signals go to the shell and not to the program");
    Diagnostic::warning(JSON_ARGS, span, message)
        .hint(format!("write the arguments as a JSON array: `{keyword} [\"program\", \"argument\"]`"))
}

pub(crate) fn maintainer(span: Span) -> Diagnostic {
    Diagnostic::warning(MAINTAINER, span, "MAINTAINER is deprecated")
        .hint("write `LABEL org.opencontainers.image.authors=\"…\"`")
}

pub(crate) fn undefined_arg_in_from(name: &str, nearest: Option<&str>, span: Span) -> Diagnostic {
    let finding = Diagnostic::warning(UNDEFINED_ARG_IN_FROM, span, format!("argument `{name}` is not declared"));
    match nearest {
        Some(nearest) => did_you_mean(finding, Some(format!("${nearest}"))),
        None => finding.hint(format!("declare it before the first FROM with `ARG {name}=…`")),
    }
}

pub(crate) fn relative_workdir(path: &str, span: Span) -> Diagnostic {
    let message = format!("`{path}` begins wherever the base image's working directory is");
    Diagnostic::warning(RELATIVE_WORKDIR, span, message).hint("begin with an absolute path, as in `WORKDIR /app`")
}

pub(crate) fn undefined_variable(name: &str, nearest: Option<&str>, span: Span) -> Diagnostic {
    let finding = Diagnostic::warning(UNDEFINED_VAR, span, format!("variable `${name}` is not set here"));
    did_you_mean(finding, nearest.map(|nearest| format!("${nearest}")))
}

pub(crate) fn multiple_instructions(keyword: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(MULTIPLE_INSTRUCTIONS, span, format!("a later {keyword} of this stage overrules this one"))
        .hint("keep only the last one")
}

pub(crate) fn legacy_pair(keyword: &str, key: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(LEGACY_PAIRS, span, format!("`{key}` is separated from its value by a space"))
        .hint(format!("write `{keyword} {key}=value`"))
}

pub(crate) fn invalid_base_platform(image: &str, wanted: &Platform, found: &Platform, span: Span) -> Diagnostic {
    let message = format!("`{image}` is for `{found}`, but this build is for `{wanted}`");
    Diagnostic::warning(INVALID_BASE_PLATFORM, span, message)
        .hint(format!("choose an image for `{wanted}`, or build with `--platform={found}`"))
}

pub(crate) fn redundant_platform(written: &str, span: Span) -> Diagnostic {
    let message = format!("`--platform={written}` is what FROM uses anyway");
    Diagnostic::warning(REDUNDANT_PLATFORM, span, message).hint("leave it out")
}

pub(crate) fn secret_in_env(keyword: &str, name: &str, span: Span) -> Diagnostic {
    let message = format!("`{name}` sounds like a secret, and what {keyword} sets stays readable in the image");
    Diagnostic::warning(SECRET_IN_ENV, span, message)
        .hint("pass it with `--secret` and use it with `RUN --mount=type=secret`")
}

pub(crate) fn invalid_default_arg(image: &str, argument: &str, span: Span) -> Diagnostic {
    let message = format!("`{image}` is no valid image when no build argument is given");
    Diagnostic::warning(INVALID_DEFAULT_ARG, span, message)
        .hint(format!("give the argument a default before the first FROM: `ARG {argument}=…`"))
}

pub(crate) fn const_platform(platform: &str, span: Span) -> Diagnostic {
    let message = format!("this stage is bound to `{platform}` whatever is built for");
    Diagnostic::warning(CONST_PLATFORM, span, message)
        .hint("use `$BUILDPLATFORM` or `$TARGETPLATFORM`, or name the stage after its platform")
}

pub(crate) fn expose_casing(port: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(EXPOSE_CASING, span, format!("the protocol of `{port}` has upper-case letters"))
        .hint(format!("write `{}`", port.to_lowercase()))
}

pub(crate) fn expose_format(port: &str, span: Span) -> Diagnostic {
    let message = format!("`{port}` names an address or a port of the host, which EXPOSE has nothing to do with");
    Diagnostic::warning(EXPOSE_FORMAT, span, message).hint("name only the port of the container")
}

pub(crate) fn inline_comment(effect: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(INLINE_COMMENT, span, format!("`#` begins no comment within a line: {effect}"))
        .hint("put the comment on a line of its own, above the instruction")
}

pub(crate) fn unused_build_arg<'a>(name: &str, declared: impl Iterator<Item = &'a str>, span: Span) -> Diagnostic {
    let message = format!("build argument `{name}` is given, but no ARG declares it");
    let finding = Diagnostic::warning(UNUSED_BUILD_ARG, span, message);
    match suggest::nearest(name, declared) {
        Some(nearest) => did_you_mean(finding, Some(nearest.to_owned())),
        None => finding.hint(format!("declare it with `ARG {name}`, or leave `--build-arg {name}=…` out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_pascal_case() {
        let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert!(names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }
}
