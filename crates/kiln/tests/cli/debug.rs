//! `kiln debug`: trees and expansions for other programs.

use crate::Kiln;

#[test]
fn a_tree_is_printed_as_buildkits_parser_prints_it() {
    let kiln = Kiln::new();
    kiln.file("Dockerfile", "FROM scratch\nCOPY --link a /\nHELLO world\n");
    let wanted = "(from \"scratch\")\n(copy [\"--link\"] \"a\" \"/\")\n(hello \"\")\n";
    assert_eq!(kiln.run(&["debug", "parse", "Dockerfile"]).stdout, wanted);
    let answer = kiln.run_with_input(&["debug", "parse", "-"], b"\xef\xbb\xbfRUN a\r\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "(run \"a\")\n"));
}

#[test]
fn a_text_without_shape_is_refused_with_all_its_places() {
    let kiln = Kiln::new();
    kiln.file("D", "FROM a\nENV x\nLABEL a=b c\n");
    insta::assert_snapshot!(kiln.run(&["debug", "parse", "D"]), @"
    exit 1
    --- stderr
    error: ENV `x` has no value
     --> D:2:5
      |
    2 | ENV x
      |     ^
    hint: write `ENV x=value`

    error: `c` in LABEL has no `=`
     --> D:3:11
      |
    3 | LABEL a=b c
      |           ^
    hint: write `key=value`, and quote a value that has spaces: `key=\"a b\"`

    error: cannot parse `D`
    ");
    assert_eq!(kiln.run(&["debug", "parse", "none"]).code, 2);
}

#[test]
fn words_are_expanded_one_answer_a_question() {
    let questions = br#"{"env":["A=x y","B"],"in":"a$A${B:-z}"} {"env":["A=x y"],"words":true,"in":"a$A b"}
{"in":"${A"}"#;
    insta::assert_snapshot!(Kiln::new().run_with_input(&["debug", "expand"], questions), @r#"
    exit 0
    --- stdout
    {"out":"ax yz"}
    {"out":["ax","y","b"]}
    {"error":"`${` is never closed by `}`"}
    "#);
    let answer = Kiln::new().run_with_input(&["debug", "expand"], br#"{"out":1}"#);
    assert!(answer.code == 2 && answer.stderr.contains("unknown field `out`"), "{answer}");
}

#[test]
fn ignore_says_for_each_path_whether_the_patterns_leave_it_out() {
    let questions = br#"{"patterns":["*.md","!README.md"],"path":"README.md"} {"patterns":["a/**"],"path":"a/b/c"}
        {"patterns":["[z-a]"],"path":"x"}"#;
    insta::assert_snapshot!(Kiln::new().run_with_input(&["debug", "ignore"], questions), @r#"
    exit 0
    --- stdout
    {"out":false}
    {"out":true}
    {"error":"pattern `[z-a]` is not usable: brackets, ranges or escapes do not fit together"}
    "#);
}
