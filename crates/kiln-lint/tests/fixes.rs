//! What each fix does to a file, and that safe fixes change nothing about what is built.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use kiln_dockerfile::{ImageFacts, LowerOptions, Lowered, Lowering, ResolvedImage, lower, parse};
use kiln_lint::{Consent, Fixed, Scope, Settings, fix, lint};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::{Diagnostic, SourceFile};
use proptest::prelude::*;

/// What these find was meant to build something else than it does.
const MEANT: [&str; 3] = ["InlineCommentInInstruction", "BrokenJSONArray", "CopyManyToOne"];
const AUTHORS: &str = "org.opencontainers.image.authors";

fn lowered(text: &str) -> Result<Box<Lowered>, Vec<Diagnostic>> {
    let (file, errors) = parse(text);
    if !errors.is_empty() {
        return Err(errors);
    }
    let options = LowerOptions::new(Arc::new(SourceFile::new("f", text)));
    let mut facts = ImageFacts::new();
    loop {
        let wanted = match lower(&file, &options, &facts)? {
            Lowering::Done(lowered) => return Ok(lowered),
            Lowering::NeedsImages(wanted) => wanted,
        };
        for request in &wanted {
            let config = ImageConfig { platform: request.platform.clone(), ..ImageConfig::default() };
            let digest = Digest::sha256(&request.reference);
            let identifier = format!("docker-image://{}", request.reference);
            facts.insert(
                request.reference.clone(),
                request.platform.clone(),
                ResolvedImage { digest, identifier, config, is_local: false },
            );
        }
    }
}

fn found(text: &str, ignored: &[&str]) -> Vec<Diagnostic> {
    let (file, errors) = parse(text);
    if !errors.is_empty() {
        return errors;
    }
    let mut settings = Settings { scope: Scope::Build, ..Settings::default() };
    settings.ignored.extend(ignored.iter().map(|rule| (*rule).to_owned()));
    let mut all = lint(&file, &settings);
    all.extend(lowered(text).map_or_else(|errors| errors, |lowered| lowered.warnings));
    all
}

fn fixed(text: &str, consent: Consent, ignored: &[&str]) -> Fixed {
    fix(text, consent, |text| Ok::<_, Infallible>(found(text, ignored))).unwrap_or_else(|never| match never {})
}

/// The text with all fixes, and with the safe ones only.
fn both(text: &str) -> (String, String) {
    (fixed(text, Consent::All, &[]).text, fixed(text, Consent::Safe, &[]).text)
}

#[test]
fn safe_fixes_do_what_they_say() {
    for (text, wanted) in [
        ("FROM a as b\n", "FROM a AS b\n"),
        ("from a AS b\nrun x\n", "from a as b\nrun x\n"),
        ("FROM a\nrun x\nCMD [\"y\"]\n", "FROM a\nRUN x\nCMD [\"y\"]\n"),
        (
            "FROM a AS Base\nFROM BASE AS Next\nCOPY --from=Base x y\nRUN --mount=from=Base,target=/x z\n",
            "FROM a AS base\nFROM base AS next\nCOPY --from=base x y\nRUN --mount=from=base,target=/x z\n",
        ),
        ("FROM a\nRUN x \\\r\n\r\n  \r\n  y\r\n", "FROM a\nRUN x \\\r\n  y\r\n"),
        ("FROM a\nMAINTAINER A \"B\" $c\n", "FROM a\nLABEL org.opencontainers.image.authors=\"A \\\"B\\\" \\$c\"\n"),
        ("# escape=`\nFROM a\nMAINTAINER `x\n", "# escape=`\nFROM a\nLABEL org.opencontainers.image.authors=\"``x\"\n"),
        ("FROM a\nENV a   b c\nENV d e\n", "FROM a\nENV a=\"b c\"\nENV d=e\n"),
        ("FROM a\nLABEL a b \"c d\"\n", "FROM a\nLABEL a=b\\ \"c d\"\n"),
        ("FROM a\nEXPOSE 53/UDP 8080:80/TCP\n", "FROM a\nEXPOSE 53/udp 80/tcp\n"),
        ("FROM --platform=$TARGETPLATFORM  a\n", "FROM a\n"),
        ("FROM a\nCOPY x y # z\n", "FROM a\n# z\nCOPY x y\n"),
        ("FROM a\nWORKDIR /x # here\n", "FROM a\n# here\nWORKDIR /x\n"),
        ("FROM a\nCMD [\"x\"] # go\n", "FROM a\n# go\nCMD [\"x\"]\n"),
        ("FROM a\nCMD [\"x\", 'y',\n", "FROM a\nCMD [\"x\", \"y\"]\n"),
        ("FROM a\nEXPOSE 80 # web\n", "FROM a\n# web\nEXPOSE 80\n"),
    ] {
        let result = fixed(text, Consent::Safe, &[]);
        assert_eq!(result.text, wanted, "{text}");
        assert!(!result.made.is_empty() && result.left.is_empty(), "{text}: {:?}", result.left);
    }
}

#[test]
fn what_somebody_should_look_at_is_fixed_on_demand_only() {
    for (text, wanted) in [
        ("FROM a\nCMD nginx -g 'daemon off;'\n", "FROM a\nCMD [\"nginx\", \"-g\", \"daemon off;\"]\n"),
        ("FROM a\nENTRYPOINT exec x\n", "FROM a\nENTRYPOINT [\"x\"]\n"),
        ("ARG VERSION=1\nFROM a:${VERSOIN}\n", "ARG VERSION=1\nFROM a:${VERSION}\n"),
        ("FROM a\nENV HOME_DIR=/x\nWORKDIR $HOMEDIR/y\n", "FROM a\nENV HOME_DIR=/x\nWORKDIR $HOME_DIR/y\n"),
        ("FROM a\nWORKDIR app\n", "FROM a\nWORKDIR /app\n"),
    ] {
        assert_eq!(both(text), (wanted.to_owned(), text.to_owned()));
    }
}

#[test]
fn what_cannot_be_fixed_without_loss_is_left_alone() {
    for text in [
        "FROM a\nENV a \\\n# why\n  b\n",
        "FROM a\nMAINTAINER a \\\n# why\n  b\n",
        "FROM a\nCMD a && b\n",
        "FROM a\nCMD cd /x\n",
        "FROM a\nENV a it's b\n",
        "FROM a\nLABEL A=1\nLABEL a b \"c\n",
        "FROM a AS x\nFROM b AS x\n",
        "FROM a\nENV SECRET_KEY=x\n",
        "FROM a\nWORKDIR ../x\n",
        "FROM a\nARG P=80/TCP\nEXPOSE $P\n",
        "FROM a\nUSER x # check=skip=all\n",
    ] {
        assert_eq!(both(text), (text.to_owned(), text.to_owned()));
        assert!(!found(text, &[]).is_empty(), "{text}");
    }
}

#[test]
fn a_rule_that_is_switched_off_fixes_nothing() {
    let text = "FROM a\n# check=skip=LegacyKeyValueFormat\nENV a b\n";
    assert_eq!(fixed(text, Consent::All, &[]).text, text);
}

/// What is built must be the same to the last digest, but for the author, who becomes a label. Comments that were taken
/// for arguments are another matter: there the image becomes what was meant.
fn assert_same_build(text: &str) {
    let result = fixed(text, Consent::Safe, &MEANT);
    let (Ok(mut before), after) = (lowered(text), lowered(&result.text)) else { return };
    let mut after = after.unwrap_or_else(|errors| panic!("{text:?}\n{:?}\n{errors:?}", result.text));
    assert_eq!(before.root, after.root, "another graph:\n{text:?}\n{:?}", result.text);
    if result.made.iter().any(|made| made.rule == Some("MaintainerDeprecated")) {
        let label = after.config.config.labels.remove(AUTHORS);
        assert_eq!(before.config.author.take(), label.filter(|_| after.config.author.is_none()), "{text:?}");
    }
    before.config.history.clear();
    after.config.history.clear();
    assert_eq!(before.config, after.config, "another config:\n{text:?}\n{:?}", result.text);
    let again = fixed(&result.text, Consent::Safe, &MEANT);
    assert_eq!(again.text, result.text, "there was more to fix");
}

#[test]
fn the_destination_of_a_copy_is_no_comment() {
    for text in ["FROM a\nCOPY /d #/\n", "FROM a\nADD --link /d #x\n"] {
        assert_eq!(both(text), (text.to_owned(), text.to_owned()));
    }
}

#[test]
fn safe_fixes_of_the_languages_corpus_change_no_build() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-dockerfile/tests/corpus");
    let mut made = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path().join("Dockerfile")).unwrap();
        made += fixed(&text, Consent::Safe, &MEANT).made.len();
        assert_same_build(&text);
    }
    assert!(made > 10, "only {made} fixes were made");
}

const LINES: &[&str] = &[
    "FROM a",
    "from a as B",
    "FROM b AS c",
    "FROM B as D",
    "FROM --platform=$TARGETPLATFORM a",
    "FROM --platform=${TARGETPLATFORM} a AS Q",
    "COPY --from=B x y",
    "copy --from=D --link x y",
    "RUN --mount=type=bind,from=B,target=/t x",
    "run x \\\n\n  y",
    "RUN x \\\n # c\n\n\n  y",
    "CMD x y",
    "ENTRYPOINT exec x",
    "EXPOSE 80/TCP",
    "EXPOSE 1:2/UDP 3",
    "EXPOSE 127.0.0.1:80:80",
    "WORKDIR x",
    "workdir /x",
    "MAINTAINER a",
    "maintainer \"a\\ $b\" 'c' \\d",
    "USER a",
    "STOPSIGNAL 9",
    "ONBUILD env a b",
    "ARG V=1",
];

const VALUES: &[&str] = &[
    "a",
    "b",
    " ",
    "  ",
    "\t",
    "\"",
    "'",
    "\\",
    "\\\\",
    "$V",
    "${V}",
    "${V:-x y}",
    "${V:-\"x y\"}",
    "=",
    "#",
    "é",
    "`",
    "\u{a0}",
];

fn text() -> impl Strategy<Value = String> {
    let value = prop::collection::vec(prop::sample::select(VALUES), 1..8).prop_map(|parts| parts.concat());
    let pair = (prop::sample::select(&["ENV k ", "label l.m ", "ENV k\t", "LABEL 'k "][..]), value)
        .prop_map(|(keyword, value)| format!("{keyword}{value}"));
    let line = prop_oneof![2 => prop::sample::select(LINES).prop_map(str::to_owned), 1 => pair];
    let end = prop::sample::select(&["\n", "\r\n"][..]);
    let start = prop::sample::select(&["FROM a\n", "# escape=`\nFROM a AS B\n", "FROM a AS B\n"][..]);
    (start, prop::collection::vec((line, end), 0..8)).prop_map(|(start, lines)| {
        let lines: Vec<String> = lines.into_iter().map(|(line, end)| line + end).collect();
        format!("{start}{}", lines.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn safe_fixes_change_no_build(text in text()) {
        assert_same_build(&text);
    }
}
