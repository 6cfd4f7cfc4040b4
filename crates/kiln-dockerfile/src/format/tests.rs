//! What formatting does, and the laws it keeps.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]

use std::path::Path;
use std::sync::Arc;

use kiln_oci::{Digest, ImageConfig};
use kiln_report::SourceFile;
use proptest::prelude::*;

use super::*;
use crate::lower::{ImageFacts, LowerOptions, Lowered, Lowering, ResolvedImage, lower};

fn formatted(text: &str) -> String {
    format(text, Style::default()).unwrap()
}

fn indented(text: &str, width: usize) -> String {
    format(text, Style { command_indent: Some(width) }).unwrap()
}

#[test]
fn keywords_are_in_upper_case_and_words_one_space_apart() {
    for (text, wanted) in [
        ("  from   a  as  b", "FROM a AS b\n"),
        ("FROM a\ncopy  --from=b   --link  x\ty  /z ", "FROM a\nCOPY --from=b --link x y /z\n"),
        ("FROM a\nrun   a   b  ", "FROM a\nRUN a   b\n"),
        ("FROM a\nENV  A=1   B=\"x  y\"\nENV C   d  e", "FROM a\nENV A=1 B=\"x  y\"\nENV C d  e\n"),
        ("FROM a\nCMD   [ \"a\",\"b c\" ,\"\\\"\" ]", "FROM a\nCMD [\"a\", \"b c\", \"\\\"\"]\n"),
        ("FROM a\nHEALTHCHECK  --interval=5s  cmd  x  y", "FROM a\nHEALTHCHECK --interval=5s CMD x  y\n"),
        ("FROM a\nonbuild   run   a  b  ", "FROM a\nONBUILD run   a  b  \n"),
    ] {
        assert_eq!(formatted(text), wanted, "{text:?}");
    }
}

#[test]
fn blank_lines_are_single_and_part_stages() {
    let text = "\n\nFROM a\n\n \n\nRUN x\n# the second\n# stage\nFROM b\nFROM c\n\n\n";
    assert_eq!(formatted(text), "FROM a\n\nRUN x\n\n# the second\n# stage\nFROM b\n\nFROM c\n");
}

#[test]
fn a_blank_line_that_keeps_a_comment_from_being_a_directive_stays() {
    assert_eq!(formatted("\n\n# escape=`\nFROM a\nRUN x \\\n y\n"), "\n# escape=`\nFROM a\nRUN x \\\n y\n");
}

#[test]
fn lists_over_several_lines_are_indented_by_four() {
    let text = "FROM a\nENV A=1 \\  \n  # two\n\n      B=2   \\\n\tC=3\nCOPY --link   \\\n x \\\n y /z\n";
    let wanted = "FROM a\nENV A=1 \\\n    # two\n    B=2 \\\n    C=3\nCOPY --link \\\n    x \\\n    y /z\n";
    assert_eq!(formatted(text), wanted);
}

#[test]
fn the_text_of_a_command_is_not_touched() {
    let text = "FROM a\nRUN  --network=none  \\\n  a   \\   \n\n # why\n  && b \\\n\tc  \nCMD x \\\n  y\n";
    let wanted = "FROM a\nRUN --network=none \\\n  a   \\\n  # why\n  && b \\\n\tc\nCMD x \\\n  y\n";
    assert_eq!(formatted(text), wanted);
}

#[test]
fn commands_are_indented_anew_on_demand_but_not_within_quotes() {
    let text = "FROM a\nRUN a  \\\n  && b 'it \\\n is' \\\n# c\n\t&& d\\\ne\n";
    let wanted = "FROM a\nRUN a \\\n    && b 'it \\\n is' \\\n    # c\n    && d\\\ne\n";
    assert_eq!(indented(text, 4), wanted);
    let backtick = "# escape=`\nFROM a\nRUN a `\n  b\n";
    assert_eq!(indented(backtick, 4), backtick);
}

#[test]
fn heredocs_stay_to_the_byte() {
    let text = "FROM a\nrun  <<A   cat <<-'B' \n x  \r\n\n\n# no\nA\n\tt  \n\tB\ncopy  <<E  /e\n  y\nE";
    let wanted = "FROM a\nRUN <<A   cat <<-'B'\n x  \r\n\n\n# no\nA\n\tt  \n\tB\nCOPY <<E /e\n  y\nE\n";
    assert_eq!(formatted(text), wanted);
}

#[test]
fn line_breaks_are_those_of_most_lines_and_a_mark_at_the_front_stays() {
    assert_eq!(formatted("\u{feff}FROM a\r\nRUN x \\\r\n  y\n"), "\u{feff}FROM a\r\nRUN x \\\r\n  y\r\n");
    assert_eq!(formatted("FROM a\nRUN x\r\nRUN y\n"), "FROM a\nRUN x\nRUN y\n");
}

#[test]
fn a_continuation_that_leads_nowhere_goes_and_its_comments_stay() {
    assert_eq!(formatted("FROM a\nRUN x \\\n"), "FROM a\nRUN x\n");
    assert_eq!(formatted("FROM a\nRUN x \\\n  # y\n\n"), "FROM a\nRUN x\n# y\n");
}

#[test]
fn white_space_that_says_something_stays() {
    for text in [
        "FROM a\nENV \\  --x=1\n",
        "FROM a\nCOPY <<\"a  b\" /x\na  b\n",
        "FROM a\nRUN x \\\u{a0}\nRUN y\n",
        "FROM a\nCOPY --from=a\u{a0}--link y /\n",
        "FROM a\nENV A=b\\\u{b}\nRUN y\n",
    ] {
        assert_eq!(formatted(text), text);
    }
}

#[test]
fn a_file_with_errors_is_not_formatted() {
    let errors = format("FROM a\nRUM x\n", Style::default()).unwrap_err();
    assert!(errors[0].message.contains("RUM"));
}

/// What is built, without places and with names and history free of white space's whims.
fn built(text: &str) -> Option<(Lowered, Vec<String>)> {
    let source = Arc::new(SourceFile::new("f", text));
    let (file, _) = parse(text);
    let options = LowerOptions::new(source);
    let mut facts = ImageFacts::new();
    loop {
        match lower(&file, &options, &facts).ok()? {
            Lowering::Done(mut lowered) => {
                let steps = std::mem::take(&mut lowered.config.history);
                let created = steps.iter().map(|step| step.created_by.clone().unwrap_or_default());
                let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
                return Some((*lowered, created.map(words).collect()));
            }
            Lowering::NeedsImages(wanted) => wanted.iter().for_each(|request| {
                let config = ImageConfig { platform: request.platform.clone(), ..ImageConfig::default() };
                let digest = Digest::sha256(&request.reference);
                let identifier = format!("docker-image://{}", request.reference);
                let image = ResolvedImage { digest, identifier, config, is_local: false };
                facts.insert(request.reference.clone(), request.platform.clone(), image);
            }),
        }
    }
}

/// The laws: the same again, the same meaning, and the same build to the last digest.
fn assert_lawful(text: &str) {
    let (file, errors) = parse(text);
    if !errors.is_empty() {
        return;
    }
    let style = Style::default();
    let once = rewrite(&file, text, style);
    assert!(law::is_same(&file, text, &once, style), "another meaning:\n{text:?}\n{once:?}");
    assert_eq!(rewrite(&parse(&once).0, &once, style), once, "not stable: {text:?}");
    let (before, after) = (built(text), built(&once));
    assert_eq!(before.is_some(), after.is_some(), "only one can be built:\n{text:?}\n{once:?}");
    if let (Some((before, history)), Some((after, new_history))) = (before, after) {
        assert_eq!(before.root, after.root, "another graph:\n{text:?}\n{once:?}");
        assert_eq!(before.config, after.config, "another config:\n{text:?}\n{once:?}");
        assert_eq!(history, new_history, "another history:\n{text:?}\n{once:?}");
    }
    let indented = Style { command_indent: Some(2) };
    let once = rewrite(&file, text, indented);
    assert!(law::is_same(&file, text, &once, indented), "another meaning indented:\n{text:?}\n{once:?}");
    assert_eq!(rewrite(&parse(&once).0, &once, indented), once, "not stable indented: {text:?}");
}

#[test]
fn the_corpus_means_the_same_when_formatted() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path().join("Dockerfile")).unwrap();
        count += usize::from(parse(&text).1.is_empty());
        assert_lawful(&text);
    }
    assert!(count > 40, "only {count} cases could be formatted");
}

const WORDS: &[&str] = &[
    "a",
    "\"b  c\"",
    "'d  e'",
    "\"open",
    "A=1",
    "B='x  y'",
    "C=\"p \\\n  q\"",
    "=",
    "$A",
    "#x",
    "é",
    "\\\\",
    "\\ ",
    "`",
    "[\"a\" ,\"b\"]",
    "[",
    "]",
    ",",
    "80/tcp",
    "/",
    "CMD",
    "as",
    "--x=1",
    "--from=a",
    "--mount=type=cache,target=/x",
    "--",
    "&&",
    "<<E",
    "|",
];

const GAPS: &[&str] = &[
    " ",
    "  ",
    "\t",
    "\u{a0}",
    "\u{b}",
    " \\\n",
    "\\\n",
    " \\ \t\n   ",
    " \\\r\n\t",
    " \\\n# c\n  ",
    " \\\n\n \n  #d  \n",
    " \\\n \\\n ",
    " `\n  ",
    "\r",
];

const KEYWORDS: &[&str] = &[
    "run",
    "RUN",
    "Copy",
    "ADD",
    "ENV",
    "env",
    "ARG",
    "LABEL",
    "USER",
    "WORKDIR",
    "EXPOSE",
    "VOLUME",
    "CMD",
    "ENTRYPOINT",
    "HEALTHCHECK",
    "ONBUILD RUN",
    "onbuild",
    "STOPSIGNAL",
    "MAINTAINER",
    "FROM",
    "SHELL",
];

const BETWEEN: &[&str] = &["\n", "\n\n\n", "\r\n", "  \n", "\n# note \n", "\n  #note\n", "\n\u{b}\n", "\\\n", "\nE\n"];

const STARTS: &[&str] = &[
    "FROM a\n",
    "",
    "\n\nFROM a\n",
    "# escape=`\nfrom a\n",
    "\n# escape=`\nFROM a\n",
    "\u{feff}FROM a\r\n",
    "#!/x\n # syntax=y\nFROM a\n",
];

fn text() -> impl Strategy<Value = String> {
    let pick = |from: &'static [&'static str]| prop::sample::select(from);
    let word = (pick(GAPS), pick(WORDS)).prop_map(|(gap, word)| format!("{gap}{word}"));
    let line = (
        pick(KEYWORDS),
        prop::collection::vec(word, 0..5),
        pick(&["", "", " ", "\u{a0}", " \\", "\t\\ "]),
        pick(BETWEEN),
    )
        .prop_map(|(keyword, words, tail, between)| format!("{keyword}{}{tail}{between}", words.concat()));
    (pick(STARTS), prop::collection::vec(line, 0..5)).prop_map(|(start, lines)| format!("{start}{}", lines.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn any_file_means_the_same_when_formatted(text in text()) {
        assert_lawful(&text);
    }
}

#[test]
fn a_line_of_very_many_words_is_formatted_in_time() {
    let started = std::time::Instant::now();
    for words in [" A=1", " \\\n\\\nA=1", " \\\n# x\nA=1"] {
        formatted(&format!("FROM a\nENV{}\n", words.repeat(100_000)));
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn very_many_comments_in_a_row_are_formatted_in_time() {
    let started = std::time::Instant::now();
    let text = format!("FROM a\n{}RUN b\n", "# x\n".repeat(200_000));
    assert_eq!(formatted(&text), text);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
