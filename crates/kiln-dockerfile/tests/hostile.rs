//! Hostile texts: reading them takes time and memory by their length, and what is made of them has a limit.
//!
//! No clock is asked. Work that is not linear takes hours with texts this long, and whoever runs the tests ends it.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]

use std::sync::Arc;

use kiln_dockerfile::expand::{Env, Lexer};
use kiln_dockerfile::{
    Breadth, CheckConfig, Dockerfile, ImageFacts, LowerOptions, Lowering, all_errors, check, lower, parse,
};
use kiln_report::{Diagnostic, Level, SourceFile};

const MEGA: usize = 1_000_000;

/// Parses, checks and lowers; gives what was wrong.
fn all(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let (file, mut errors) = parse(text);
    assert_eq!(file.items.last().map(|item| item.span.end), Some(text.len()));
    check(&file, &CheckConfig::default());
    let options = LowerOptions::new(Arc::new(SourceFile::new("f", text)));
    if errors.is_empty() {
        errors.extend(lower(&file, &options, &ImageFacts::new()).err().unwrap_or_default());
    } else {
        errors = all_errors(&file, &options, errors, Breadth::All);
    }
    (file, errors)
}

/// The most memory this process ever held, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says it");
    let kibibytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok());
    kibibytes.expect("it is a number") >> 10
}

#[test]
fn lines_of_ten_megabytes_are_read() {
    for text in [
        format!("FROM scratch\nRUN {}", "x".repeat(10 * MEGA)),
        format!("FROM scratch\nENV {}", "A=1 ".repeat(MEGA / 2)),
        format!("FROM scratch\nCMD {}", "[".repeat(10 * MEGA)),
        format!("FROM scratch\nRUN {}", "<".repeat(10 * MEGA)),
    ] {
        all(&text);
    }
    assert!(peak() < 4_000, "{} MiB", peak());
}

#[test]
fn a_hundred_thousand_of_everything_are_read() {
    let n = 100_000;
    for text in [
        format!("FROM scratch\n{}", "LABEL a=b\n".repeat(n)),
        format!("FROM scratch\nRUN {}", "x \\\n".repeat(n)),
        format!("FROM scratch\nRUN {}", "x \\\n# note\n\n".repeat(n)),
        format!("FROM scratch\n{}", "COPY <<E\nE\n".repeat(n)),
        format!("FROM scratch\nRUN cat {}\n{}", "<<A ".repeat(n / 10), "A\n".repeat(n / 10)),
        format!("FROM scratch\nRUN {}", "<<A ".repeat(n)),
        format!("FROM scratch\n{}", "WHAT ever\n".repeat(n / 2)),
        format!("FROM scratch\n{}", "ENV a\n".repeat(n)),
        format!("FROM scratch\n{}", "ENV A$B=1\n".repeat(n / 10)),
        format!("FROM scratch\nRUN {}", "--mount=type=bind ".repeat(n / 10)),
        format!("FROM scratch\nRUN --bad {} x", "--mount=type=bnid ".repeat(n / 10)),
        format!("FROM scratch\nEXPOSE {}", "x ".repeat(n)),
        format!("FROM a\nVOLUME {}", "$A ".repeat(n)),
        format!("FROM a\nENV A\nVOLUME {}", "$A ".repeat(n)),
        format!("FROM scratch\n{}", "WORKDIR a\n".repeat(n / 50)),
        format!("FROM scratch\n{}", (0..n / 100).map(|i| format!("ARG A{i}=x\nRUN x\n")).collect::<String>()),
        format!("FORM scratch\n{}", "FROM scratch\nEXPOSE x\n".repeat(n / 10)),
        format!("FROM scratch\n{}", "COPY --from=zzz a b\n".repeat(n / 10)),
        "FROM scratch AS b\n".repeat(n / 10),
        "ONBUILD ".repeat(n),
        "ARG A=${A}x\n".repeat(n / 10),
        "# x\n".repeat(n),
        "\\\n".repeat(n),
    ] {
        all(&text);
    }
    assert!(peak() < 4_000, "{} MiB", peak());
}

#[test]
fn a_tree_grows_as_its_text_does() {
    let pieces =
        ["RUN a \\\n b\n", "COPY --link a b /\n", "ENV A=b C=\"d e\"\n", "RUN <<E\nx\nE\n", "CMD [\"a\", \"b\"]\n"];
    for piece in pieces {
        let size = |n: usize| {
            let (file, _) = parse(&format!("FROM a\n{}", piece.repeat(n)));
            // Places take more digits the further back they are.
            format!("{file:?}").replace(|c: char| c.is_ascii_digit(), "").len()
        };
        let (once, twice) = (size(1_000), size(2_000));
        assert!(twice <= once * 2, "{piece:?}: {once} and {twice}");
    }
}

#[test]
fn nested_variables_end_in_an_error_and_not_in_the_stack() {
    for (open, close) in [("${A:-", "}"), ("\"${A:-", "}\""), ("${A#", "}"), ("${A//", "/}")] {
        let word = format!("{}x{}", open.repeat(MEGA), close.repeat(MEGA));
        let error = Lexer::new('\\').expand(&word, &Env::new()).unwrap_err();
        assert_eq!(error.to_string(), "variables are nested more than 100 deep", "{open}");
    }
    let (_, errors) = all(&format!("FROM scratch\nENV A={}\n", "${A:-".repeat(MEGA)));
    assert_eq!(errors.len(), 1);
}

#[test]
fn variables_that_double_with_every_line_are_stopped() {
    let doubling: String = (1..64).map(|n| format!("ENV A{n}=$A{0}$A{0}\n", n - 1)).collect();
    let args: String = (1..64).map(|n| format!("ARG A{n}=$A{0}$A{0}\n", n - 1)).collect();
    let many = |line: &str| format!("FROM scratch\nENV A={}\n{}", "x".repeat(MEGA), line.repeat(5_000));
    for text in [
        format!("FROM scratch\nENV A0=0123456789\n{doubling}"),
        format!("ARG A0=0123456789\n{args}FROM scratch\n"),
        format!("FROM scratch\nARG A0=0123456789\n{args}"),
        many("ENV B=$A\n"),
        many("RUN true\n"),
        (0..5_000).fold(format!("ARG A={}\n", "x".repeat(MEGA)), |text, n| text + &format!("ARG B{n}=$A\n"))
            + "FROM scratch",
    ] {
        let (_, errors) = all(&text);
        let head: String = text.chars().take(30).collect();
        let is_told = |error: &&Diagnostic| error.message.contains("bytes") || error.message.contains("MiB");
        assert!(errors.iter().any(|error| is_told(&error)), "{head:?}: {:?}", errors.first());
        assert!(peak() < 4_000, "{head:?}: {} MiB", peak());
    }
}

#[test]
fn what_is_long_and_harmless_is_lowered() {
    let text = format!("FROM scratch\n{}", "ENV A=b\nRUN true\n".repeat(2_000));
    let (file, errors) = parse(&text);
    assert!(errors.iter().all(|error| error.level != Level::Error));
    let options = LowerOptions::new(Arc::new(SourceFile::new("f", text.as_str())));
    assert!(matches!(lower(&file, &options, &ImageFacts::new()), Ok(Lowering::Done(_))));
}
