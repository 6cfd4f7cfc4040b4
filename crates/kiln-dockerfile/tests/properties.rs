//! What holds for every text: no byte is lost, every place is in the file, nothing panics, nothing takes for ever.

use std::sync::Arc;

use kiln_dockerfile::expand::{Env, Lexer};
use kiln_dockerfile::{
    Arguments, Breadth, CheckConfig, Dockerfile, ImageFacts, Instruction, ItemKind, LowerOptions, Lowering,
    ResolvedImage, Word, all_errors, check, detect_syntax, lower, parse, parse_ignore,
};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::{SourceFile, Span};
use proptest::prelude::*;

/// Pieces that Dockerfiles are made of, so that random texts come near to what is one.
const PIECES: &[&str] = &[
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "USER ",
    "WORKDIR ",
    "EXPOSE ",
    "VOLUME ",
    "CMD ",
    "ENTRYPOINT ",
    "SHELL ",
    "HEALTHCHECK ",
    "ONBUILD ",
    "STOPSIGNAL ",
    "MAINTAINER ",
    "from ",
    " AS ",
    "busybox",
    "scratch",
    "--from=",
    "--mount=type=",
    "cache",
    "secret",
    "bind",
    ",target=/x",
    ",id=a",
    "--chown=",
    "--link ",
    "--parents ",
    "--platform=",
    "--chmod=",
    "--checksum=",
    "<<EOF",
    "<<-'E'",
    "EOF",
    "\n",
    "\r\n",
    "\\\n",
    "`\n",
    "\\",
    "`",
    " ",
    "\t",
    "#",
    "# escape=`\n",
    "# check=skip=all\n",
    "[\"a\", \"b\"]",
    "[",
    "]",
    "\"",
    "'",
    "$A",
    "${A",
    "${A:-",
    "${A#",
    "${A//",
    "}",
    "$",
    "=",
    "A=1",
    "/",
    "..",
    "a",
    "é",
    "\u{feff}",
    "\u{a0}",
    ":",
    "80/tcp",
    ",",
    "CMD",
    "NONE",
    "https://x/y",
    "git@h:p",
    "CMD echo",
    "&& ",
    "; ",
    "| ",
    "> /f",
];

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => ".{0,4}"]
}

/// Any jumble of pieces, or a jumble of instructions behind a `FROM`.
fn text() -> impl Strategy<Value = String> {
    let jumble = prop::collection::vec(piece(), 0..40).prop_map(|pieces| pieces.concat());
    let instruction = (prop::sample::select(&PIECES[..18]), prop::collection::vec(piece(), 0..6))
        .prop_map(|(keyword, pieces)| format!("{keyword}{}\n", pieces.concat()));
    let file = prop::collection::vec(instruction, 0..8).prop_map(|lines| format!("FROM busybox\n{}", lines.concat()));
    prop_oneof![1 => jumble, 2 => file]
}

fn assert_in(text: &str, span: Span) {
    assert!(text.get(span.range()).is_some(), "{span:?} is no part of {text:?}");
}

fn assert_words_in(text: &str, instruction: &Instruction) {
    let word = |word: &Word| assert_in(text, word.span);
    assert_in(text, instruction.span);
    word(&instruction.keyword);
    instruction.flags.iter().for_each(|flag| {
        assert_in(text, flag.span);
        word(&flag.name);
        flag.value.iter().for_each(word);
    });
    instruction.heredocs.iter().for_each(|heredoc| {
        assert_eq!(&text[heredoc.content_span.range()], heredoc.content);
        assert_in(text, heredoc.end_span);
    });
    instruction.empty_continuations.iter().for_each(|line| assert_in(text, Span::new(line.span.start, line.end)));
    arguments_in(text, &instruction.arguments);
}

fn arguments_in(text: &str, arguments: &Arguments) {
    match arguments {
        Arguments::None => {}
        Arguments::Text(word) => assert_in(text, word.span),
        Arguments::Words(words) | Arguments::Json(words) => words.iter().for_each(|word| assert_in(text, word.span)),
        Arguments::Pairs(pairs) => pairs.iter().for_each(|pair| {
            assert_in(text, pair.key.span);
            assert_in(text, pair.value.span);
        }),
        Arguments::Typed(kind, rest) => {
            assert_in(text, kind.span);
            arguments_in(text, rest);
        }
        Arguments::Trigger(inner) => assert_words_in(text, inner),
    }
}

/// All bytes of the file, put together from its items.
fn printed(file: &Dockerfile, text: &str) -> String {
    file.items.iter().map(|item| &text[item.span.range()]).collect()
}

fn facts_for(requests: &[kiln_dockerfile::ImageRequest], facts: &mut ImageFacts) {
    for request in requests {
        let image = ResolvedImage {
            digest: Digest::sha256(&request.reference),
            identifier: format!("docker-image://{}", request.reference),
            config: ImageConfig { platform: request.platform.clone(), ..ImageConfig::default() },
            is_local: false,
        };
        facts.insert(request.reference.clone(), request.platform.clone(), image);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_byte_is_lost_and_every_place_is_in_the_file(text in text()) {
        let (file, diagnostics) = parse(&text);
        prop_assert_eq!(printed(&file, &text), text.as_str());
        diagnostics.iter().for_each(|diagnostic| assert_in(&text, diagnostic.span));
        file.instructions().for_each(|instruction| assert_words_in(&text, instruction));
        for item in &file.items {
            if let ItemKind::Directive(directive) = &item.kind {
                prop_assert_eq!(&text[directive.value.span.range()], &directive.value.text);
            }
        }
    }

    #[test]
    fn a_word_of_its_own_length_is_its_own_text(text in text()) {
        let (file, _) = parse(&text);
        for instruction in file.instructions() {
            if let Arguments::Words(words) = &instruction.arguments {
                for word in words.iter().filter(|word| word.span.end - word.span.start == word.text.len()) {
                    prop_assert_eq!(&text[word.span.range()], &word.text);
                }
            }
        }
    }

    #[test]
    fn checking_and_lowering_never_panic_and_point_into_the_file(text in text()) {
        let source = Arc::new(SourceFile::new("f", text.as_str()));
        let (file, errors) = parse(&text);
        check(&file, &CheckConfig::default()).iter().for_each(|finding| assert_in(&text, finding.span));
        let options = LowerOptions::new(source);
        let mut facts = ImageFacts::new();
        for _ in 0..5 {
            match lower(&file, &options, &facts) {
                Ok(Lowering::NeedsImages(requests)) => facts_for(&requests, &mut facts),
                Ok(Lowering::Done(lowered)) => {
                    lowered.warnings.iter().for_each(|warning| assert_in(&text, warning.span));
                    prop_assert!(lowered.root.iter().all(|root| lowered.definition.vertex(&root.vertex).is_some()));
                    break;
                }
                Err(found) => {
                    found.iter().for_each(|error| assert_in(&text, error.span));
                    break;
                }
            }
        }
        prop_assert!(errors.iter().all(|error| !error.message.is_empty()));
        let all = all_errors(&file, &options, errors.clone(), Breadth::All);
        all.iter().for_each(|error| assert_in(&text, error.span));
        prop_assert!(all.is_sorted_by_key(|error| error.span) && errors.iter().all(|error| all.contains(error)));
    }

    #[test]
    fn expansion_never_panics_and_its_places_are_in_the_word(word in text(), value in ".{0,8}") {
        let mut env = Env::new();
        env.set("A", value);
        for escape in ['\\', '`'] {
            match Lexer::new(escape).expand(&word, &env) {
                Ok(expansion) => for used in expansion.uses {
                    prop_assert!(word[used.start..used.end].starts_with('$'));
                },
                Err(error) => prop_assert!(word.get(error.start..error.end).is_some()),
            }
        }
    }

    #[test]
    fn ignore_files_and_syntax_lines_never_panic(text in text()) {
        let count = text.split('\n').count();
        prop_assert!(parse_ignore(&text).iter().all(|pattern| (1..=count).contains(&pattern.line)));
        if let Some(word) = detect_syntax(&text) {
            assert_in(&text, word.span);
        }
    }
}
