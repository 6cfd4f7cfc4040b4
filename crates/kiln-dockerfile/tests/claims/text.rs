//! Lines, directives, forms and heredocs; and where errors point.

use std::sync::Arc;

use kiln_dockerfile::{Arguments, ImageFacts, Instruction, LowerOptions, detect_syntax, lower, parse};
use kiln_report::SourceFile;

/// The instructions of a text that has nothing wrong.
fn instructions(text: &str) -> Vec<Instruction> {
    let (file, diagnostics) = parse(text);
    assert!(diagnostics.is_empty(), "{text:?}: {diagnostics:?}");
    file.instructions().cloned().collect()
}

/// The last instruction's text, flags and all.
fn last(text: &str) -> Instruction {
    instructions(&format!("FROM scratch\n{text}")).pop().unwrap()
}

fn arguments(instruction: &Instruction) -> String {
    match &instruction.arguments {
        Arguments::Text(word) => word.text.clone(),
        Arguments::Json(words) => format!("{:?}", words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    }
}

/// What each error marks, and its message and hints. What needs variables filled in is told when all else is right.
fn errors(text: &str) -> Vec<(&str, String)> {
    let (file, mut diagnostics) = parse(text);
    if diagnostics.is_empty() {
        let options = LowerOptions::new(Arc::new(SourceFile::new("Dockerfile", text)));
        diagnostics.extend(lower(&file, &options, &ImageFacts::new()).err().unwrap_or_default());
    }
    let shown = |d: &kiln_report::Diagnostic| format!("{}; {}", d.message, d.hints.join("; "));
    diagnostics.iter().map(|d| (&text[d.span.range()], shown(d))).collect()
}

#[test]
fn instructions_are_read_in_any_case_and_behind_white_space() {
    for text in ["RUN echo hello world", "run echo hello world", "\t Run\techo hello world  "] {
        assert_eq!(arguments(&last(text)), "echo hello world", "{text:?}");
    }
}

#[test]
fn comments_between_continued_lines_are_no_part_of_the_instruction() {
    for text in [
        "RUN echo hello \\\n# c\nworld",
        "RUN echo \\\n  # c\n#c\nhello world",
        "RUN echo hello \\ \t\r\n# c\r\nworld\r\n",
    ] {
        assert_eq!(arguments(&last(text)), "echo hello world", "{text:?}");
    }
    assert_eq!(arguments(&last("RUN echo \\\n\n\nx")), "echo x");
    assert_eq!(last("RUN echo \\\n\n\nx").empty_continuations.len(), 2);
    assert_eq!(arguments(&last("RUN echo a # no comment")), "echo a # no comment");
}

#[test]
fn directives_stand_only_at_the_top_and_their_keys_are_in_any_case() {
    for text in ["# escape=`\n", "#ESCAPE = `\n", "  #\tEscape=`  \r\n", "# syntax=docker/dockerfile:1\n# escape=`\n"] {
        assert_eq!(parse(&format!("{text}FROM a")).0.escape, '`', "{text:?}");
    }
    for text in
        ["\n# escape=`\n", "# note\n# escape=`\n", "ARG A\n# escape=`\n", "# unknown=x\n# escape=`\n", "# escape\n"]
    {
        assert_eq!(parse(&format!("{text}FROM a")).0.escape, '\\', "{text:?}");
    }
}

#[test]
fn a_directive_that_is_set_twice_is_an_error_at_its_second_place() {
    let text = "# escape=`\n# ESCAPE=`\nFROM a";
    let (_, diagnostics) = parse(text);
    assert_eq!((diagnostics.len(), diagnostics[0].span.start), (1, 13));
    assert!(diagnostics[0].message.contains("`escape` is set twice"));
}

#[test]
fn a_byte_order_mark_and_a_shebang_stand_above_the_directives() {
    for top in ["\u{feff}", "#!/usr/bin/env -S docker build -f\n", "\u{feff}#!/usr/bin/env kiln\r\n"] {
        let text = format!("{top}# escape=`\nFROM a\nRUN x `\n y\n");
        assert_eq!(parse(&text).0.escape, '`', "{text:?}");
        assert_eq!(arguments(instructions(&text).last().unwrap()), "x  y");
        assert_eq!(detect_syntax(&format!("{top}# syntax=a/b\n")).unwrap().text, "a/b");
    }
    // Anywhere else it is a comment, and ends them.
    assert_eq!(parse("# syntax=a\n#!x\n# escape=`\nFROM a").0.escape, '\\');
}

#[test]
fn what_looks_like_json_and_is_none_is_shell_form() {
    assert_eq!(arguments(&last(r#"RUN ["a", "b\\c"]"#)), r#"["a", "b\\c"]"#);
    for text in [r#"["c:\windows"]"#, "['a']", "[ -f x ] && y", r#"["a"] x"#, r#"["a",]"#] {
        assert!(matches!(last(&format!("RUN {text}")).arguments, Arguments::Text(word) if word.text == text), "{text}");
    }
}

#[test]
fn heredocs_of_every_form_are_read() {
    let text = "RUN 3<<A <<-\"B\" cat <<'C'\na$x\nA\n\tb\n\tB\nc\\\nC\n";
    let found = last(text).heredocs;
    let parts: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.descriptor, h.expand, h.text())).collect();
    let wanted =
        [("A", 3, true, "a$x\n".to_owned()), ("B", 0, false, "b\n".to_owned()), ("C", 0, false, "c\\\n".to_owned())];
    assert_eq!(parts, wanted);
    for text in ["RUN echo a<<EOF", "RUN echo \"<<EOF\"", "RUN [\"<<EOF\"]", "RUN x <<<EOF"] {
        assert!(last(text).heredocs.is_empty(), "{text}");
    }
    assert_eq!(last("ONBUILD COPY <<E /x\ny\nE\n").heredocs.len(), 1);
}

#[test]
fn every_error_of_a_file_is_told_at_once_and_marks_what_is_wrong() {
    let marks = |text: &'static str| errors(text).into_iter().map(|(mark, _)| mark).collect::<Vec<_>>();
    for (text, wanted) in [
        ("FROM a\nRNU x\nCOPY --form=b c /\nENV d\n", vec!["RNU", "form", "d"]),
        ("FROM a\nRUN \\\n  --mnt=type=bind \\\n# note\n  x\nLABEL a=b \\\n\n  c\n", vec!["mnt", "c"]),
        ("FROM a\nRUN <<A <<B\nFROM inside\nA\nRNU\nB\nRNU x\n", vec!["RNU"]),
        ("FROM a\nRUN <<A cat <<'B'\nA\nx\n", vec!["<<'B'"]),
        ("# escape=`\nFROM a\nRUN --network=`\nhots x\nCOPY `\n  --lnk a /\n", vec!["hots", "lnk"]),
        ("FROM a\r\nRNU x\r\nENV a=b \\\r\n  é c=d\r\n", vec!["RNU", "é"]),
        ("\u{feff}FORM a\r\nENV é=b ü\r\n", vec!["FORM", "ü"]),
        ("FROM a\nHEALTHCHECK --retries=x \\\n CMD y\nONBUILD \\\n COPY --lnk a /\n", vec!["x"]),
    ] {
        assert_eq!(marks(text), wanted, "{text:?}");
    }
}

#[test]
fn what_is_nearly_right_is_met_with_what_was_meant() {
    for (text, meant) in [
        ("CPOY a /", "`COPY`"),
        ("ENTRYPONT x", "`ENTRYPOINT`"),
        ("COPY --form=x a /", "`--from`"),
        ("RUN --mont=type=bind x", "`--mount`"),
        ("RUN --mount=type=cahce,target=/x y", "`cache`"),
        ("RUN --mount=type=cache,taget=/x y", "`target`"),
        ("RUN --network=hst x", "`host`"),
    ] {
        let text = format!("FROM scratch\n{text}\n");
        let found = errors(&text);
        assert!(found.len() == 1 && found[0].1.contains(&format!("did you mean {meant}?")), "{text}: {found:?}");
    }
}

#[test]
fn a_line_that_was_meant_to_be_continued_is_known_by_the_line_above() {
    let found = errors("FROM a\nRUN apt-get update &&\n    apt-get install x\n");
    assert!(found[0].1.contains("end the line above with a backslash"), "{found:?}");
    let found = errors("FROM a\nRUN <<EOF\nx\n  EOF\n");
    assert!(found[0].1.contains("before or behind `EOF`"), "{found:?}");
}
