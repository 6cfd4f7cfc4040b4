//! What the findings of the language's checks say.
// tidy: table

use kiln_oci::Platform;
use kiln_report::{Diagnostic, Span};

use super::arrays::Fault;
use crate::instruction::Keyword;
use crate::suggest;

pub(crate) const STAGE_NAME_CASING: &str = "StageNameCasing";
pub(crate) const FROM_AS_CASING: &str = "FromAsCasing";
pub(crate) const NO_EMPTY_CONTINUATION: &str = "NoEmptyContinuation";
pub(crate) const CONSISTENT_CASING: &str = "ConsistentInstructionCasing";
pub(crate) const DUPLICATE_STAGE: &str = "DuplicateStageName";
pub(crate) const RESERVED_STAGE: &str = "ReservedStageName";
pub(crate) const JSON_ARGS: &str = "JSONArgsRecommended";
pub(crate) const MAINTAINER: &str = "MaintainerDeprecated";
pub(crate) const UNDEFINED_ARG_IN_FROM: &str = "UndefinedArgInFrom";
pub(crate) const RELATIVE_WORKDIR: &str = "WorkdirRelativePath";
pub(crate) const UNDEFINED_VAR: &str = "UndefinedVar";
pub(crate) const MULTIPLE_INSTRUCTIONS: &str = "MultipleInstructionsDisallowed";
pub(crate) const LEGACY_PAIRS: &str = "LegacyKeyValueFormat";
pub(crate) const INVALID_BASE_PLATFORM: &str = "InvalidBaseImagePlatform";
pub(crate) const REDUNDANT_PLATFORM: &str = "RedundantTargetPlatform";
pub(crate) const SECRET_IN_ENV: &str = "SecretsUsedInArgOrEnv";
pub(crate) const INVALID_DEFAULT_ARG: &str = "InvalidDefaultArgInFrom";
pub(crate) const CONST_PLATFORM: &str = "FromPlatformFlagConstDisallowed";
pub(crate) const DEFINITION_DESCRIPTION: &str = "InvalidDefinitionDescription";
pub(crate) const EXPOSE_CASING: &str = "ExposeProtoCasing";
pub(crate) const EXPOSE_FORMAT: &str = "ExposeInvalidFormat";
pub(crate) const INLINE_COMMENT: &str = "InlineCommentInInstruction";
pub(crate) const UNKNOWN_SYNTAX: &str = "UnknownSyntaxVersion";
pub(crate) const UNUSED_BUILD_ARG: &str = "UnusedBuildArg";
pub(crate) const COPY_IGNORED: &str = "CopyIgnoredFile";
pub(crate) const COPY_SOURCE_MISSING: &str = "CopySourceMissing";
pub(crate) const CONTEXT_NOT_FILTERED: &str = "ContextNotFiltered";
pub(crate) const MISSPELT_STAGE: &str = "MisspeltStage";
pub(crate) const BROKEN_ARRAY: &str = "BrokenJSONArray";
pub(crate) const BROKEN_TRIGGER: &str = "BrokenTrigger";
pub(crate) const TYPOGRAPHIC_DASH: &str = "TypographicDash";
pub(crate) const EMPTY_RUN: &str = "EmptyRun";
pub(crate) const SEVERAL_USERS: &str = "SeveralUsers";

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

/// Of a command that was meant for an array.
pub(crate) fn json_args_of_broken_array(keyword: &str, span: Span) -> Diagnostic {
    Diagnostic { hints: vec!["mend the array: it is no JSON as it is".to_owned()], ..json_args(keyword, span) }
}

pub(crate) fn broken_array(keyword: Keyword, fault: Fault, text: &str, span: Span) -> Diagnostic {
    let inner = text.trim_matches(['\'', '"', '“', '”', '„', '‘', '’']);
    let quote = || format!("JSON has straight double quotes only: write `\"{inner}\"`");
    let (what, hint) = match fault {
        Fault::Unclosed => ("`]` is missing behind this".to_owned(), "close the array with `]`".to_owned()),
        Fault::TrailingComma => ("a comma ends the array".to_owned(), "leave the last comma out".to_owned()),
        Fault::MissingComma => ("a comma is missing before this".to_owned(), "put commas between strings".to_owned()),
        Fault::SingleQuotes => (format!("`{text}` is in single quotes"), quote()),
        Fault::TypographicQuotes => (format!("`{text}` is in typographic quotes"), quote()),
        Fault::Unquoted => (format!("`{text}` is not in double quotes"), quote()),
        Fault::OpenQuote => ("a quote is never closed".to_owned(), "close it with `\"`".to_owned()),
        Fault::Escape => (format!("`{text}` is no escape of JSON"), "write `\\\\` for a backslash".to_owned()),
        Fault::TextBehind => (
            format!("`{text}` stands behind the array"),
            "leave it out, or write the whole line without `[`".to_owned(),
        ),
    };
    let effect = match keyword {
        Keyword::Add | Keyword::Copy | Keyword::Volume => "each word is taken for a path",
        _ => "the shell gets the whole line",
    };
    Diagnostic::warning(BROKEN_ARRAY, span, format!("{what}: this is no JSON array, and {effect}")).hint(hint)
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

/// `pair` is how it is written now.
pub(crate) fn legacy_pair(keyword: &str, key: &str, pair: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(LEGACY_PAIRS, span, format!("`{key}` is separated from its value by a space"))
        .hint(format!("write `{keyword} {pair}`"))
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

pub(crate) fn invalid_default_arg(image: &str, argument: &str, nearest: Option<&str>, span: Span) -> Diagnostic {
    let message = format!("`{image}` is no valid image when no build argument is given");
    let finding = Diagnostic::warning(INVALID_DEFAULT_ARG, span, message);
    match nearest {
        Some(nearest) => did_you_mean(finding, Some(format!("${nearest}"))),
        None => finding.hint(format!("give the argument a default before the first FROM: `ARG {argument}=…`")),
    }
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

pub(crate) fn definition_description(keyword: &str, name: &str, span: Span) -> Diagnostic {
    let message = format!("the comment above this {keyword} does not describe it");
    Diagnostic::warning(DEFINITION_DESCRIPTION, span, message)
        .hint(format!("begin it with the name, as in `# {name} is …`, or put a `#` line below it"))
}

pub(crate) fn inline_comment(effect: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(INLINE_COMMENT, span, format!("`#` begins no comment within a line: {effect}"))
        .hint("put the comment on a line of its own, above the instruction")
}

/// `error` is what is wrong with the trigger's text.
pub(crate) fn broken_trigger(error: &Diagnostic, span: Span) -> Diagnostic {
    let message = format!("whatever is based on this image cannot be built: {}", error.message);
    Diagnostic { hints: error.hints.clone(), ..Diagnostic::warning(BROKEN_TRIGGER, span, message) }
}

pub(crate) fn typographic_dash(word: &str, flag: &str, span: Span) -> Diagnostic {
    let message = format!("`{word}` is no flag: it begins with a dash that is no hyphen");
    Diagnostic::warning(TYPOGRAPHIC_DASH, span, message).hint(format!("write `{flag}`"))
}

pub(crate) fn empty_run(span: Span) -> Diagnostic {
    Diagnostic::warning(EMPTY_RUN, span, "RUN has nothing to run")
        .hint("put a command behind it, or end the line with a backslash if the next line is one")
}

pub(crate) fn several_users(text: &str, span: Span) -> Diagnostic {
    Diagnostic::warning(SEVERAL_USERS, span, format!("USER takes all of `{text}` for one name"))
        .hint("write one user, as in `USER app`, or a user and a group, as in `USER app:www`")
}

pub(crate) fn misspelt_stage(image: &str, stage: &str, span: Span) -> Diagnostic {
    let message = format!("no stage is called `{image}`, so it is taken for an image");
    did_you_mean(Diagnostic::warning(MISSPELT_STAGE, span, message), Some(stage.to_owned()))
}

pub(crate) fn unused_build_arg<'a>(name: &str, declared: impl Iterator<Item = &'a str>, span: Span) -> Diagnostic {
    let message = format!("build argument `{name}` is given, but no ARG declares it");
    let finding = Diagnostic::warning(UNUSED_BUILD_ARG, span, message);
    match suggest::nearest(name, declared) {
        Some(nearest) => did_you_mean(finding, Some(nearest.to_owned())),
        None => finding.hint(format!("declare it with `ARG {name}`, or leave `--build-arg {name}=…` out")),
    }
}
