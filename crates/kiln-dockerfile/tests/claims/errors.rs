//! What is wrong with a file: all of it, at once.

use super::*;

fn errors(text: &str) -> Vec<String> {
    File::new(text).errors()
}

#[test]
fn all_that_is_wrong_with_one_instruction_is_told() {
    assert_eq!(errors("FROM scratch\nEXPOSE b a 80\n"), ["`b` is no port", "`a` is no port"]);
    assert_eq!(errors("FROM scratch\nENV A=${ B=1 C=${\n").len(), 2);
    assert_eq!(errors("FROM scratch\nENV A=1 b c\n"), ["`b` in ENV has no `=`", "`c` in ENV has no `=`"]);
    assert_eq!(errors("FROM scratch\nENV A=1 # b c\n"), ["`#` in ENV has no `=`"]);
    assert_eq!(errors("FROM scratch\nADD --chown=${ --chmod=9 ${ /\n").len(), 2);
    assert_eq!(errors("FROM scratch\nCOPY --link --chown=me --chmod=9 a /\n").len(), 2);
    let run = "RUN --mount=type=tmpfs,target=/ --mount=type=bnid,mode=x,ro=y --network=host x";
    assert_eq!(errors(&format!("FROM scratch\n{run}\n")).len(), 5);
    assert_eq!(errors("FROM scratch\nHEALTHCHECK --interval=1 --retries=x CDM x\n").len(), 3);
}

#[test]
fn an_error_at_a_typographic_dash_says_how_the_flag_is_written() {
    for (text, flag) in [
        ("FROM \u{2013}platform=linux/amd64 scratch\n", "--platform=linux/amd64"),
        ("FROM scratch\nHEALTHCHECK \u{2014}interval=5s CMD x\n", "--interval=5s"),
        ("FROM scratch\nCOPY \u{2013}-from=a\n", "--from=a"),
    ] {
        let (_, errors) = parse(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let is_told = errors[0].hints.iter().any(|hint| hint.starts_with(&format!("write `{flag}` with two hyphens")));
        assert!(is_told, "{errors:?}");
    }
}

#[test]
fn errors_of_all_instructions_are_told_at_once_in_the_order_of_the_file() {
    let text = "FROM scratch\nCOPY --from=1 a /\nEXPOSE x\nFROM scratch AS b\nCOPY --from=b a /\nVOLUME $A\n";
    let wanted = [
        "there is no stage number 2",
        "stage `b` takes from itself",
        "volume `$A` is empty once its variables are filled in",
    ];
    assert_eq!(errors(&text.replace("--from=1", "--from=2")), wanted);
}

#[test]
fn what_can_be_known_without_an_image_is_told_before_any_is_asked_about() {
    let checksum = format!("sha256:{}", "a".repeat(64));
    let text = format!(
        "FROM busybox\nVOLUME $ITS_OWN\nADD --checksum={checksum} $URL /\n\
         RUN --mount=type=tmpfs,target=. x\nEXPOSE x\n"
    );
    let text = text.as_str();
    let (file, _) = parse(text);
    let wrong = lower(&file, &File::new(text).options, &ImageFacts::new()).unwrap_err();
    assert_eq!(wrong.iter().map(|error| error.message.as_str()).collect::<Vec<_>>(), ["`x` is no port"]);
    let text = text.replace("EXPOSE x\n", "");
    let (file, _) = parse(&text);
    let asked = lower(&file, &File::new(&text).options, &ImageFacts::new());
    assert!(matches!(asked, Ok(Lowering::NeedsImages(_))));
}

#[test]
fn what_follows_from_an_error_is_not_told() {
    let text = "ARG A=${\nFROM $A\nENV B=${C:?}\nVOLUME $B\nSTOPSIGNAL $B\n";
    assert_eq!(errors(text).len(), 2);
}
