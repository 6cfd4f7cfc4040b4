//! What the model makes of scripts.

use proptest::prelude::*;

use super::*;

/// One line a command: scope, words with `|` between them, what it writes to, what comes after.
fn shown(script: &str) -> Vec<String> {
    let code = Code::parse(script);
    let line = |command: &Simple| {
        let mut scopes = vec![command.scope];
        while let Some(scope) =
            scopes.last().and_then(|at| code.scopes.get(*at)).filter(|s| s.kind != ScopeKind::Script)
        {
            scopes.push(scope.parent);
        }
        let scopes: String = scopes.iter().rev().skip(1).map(|at| format!("{:?} ", code.scopes[*at].kind)).collect();
        let assignments = command.assignments.iter().map(|a| format!("{}=", a.name));
        let words: Vec<String> = assignments.chain(command.words.iter().map(|word| word.text.clone())).collect();
        let writes: String = command.writes().map(|word| format!(" >{}", word.text)).collect();
        format!("{}{}{writes} {:?}", scopes, words.join("|"), command.after)
    };
    code.commands.iter().map(line).collect()
}

#[test]
fn lists_and_pipelines_are_told_apart() {
    let script = "a b && FOO=1 c 'd e' >out 2>&1; f | g\"h\" # x\ni & echo >>\"p q\" 2>/dev/null || ! j |& k";
    let wanted = [
        "a|b And",
        "FOO=|c|d e >out End",
        "f Pipe",
        "gh End",
        "i Background",
        "echo >p q >/dev/null Or",
        "j Pipe",
        "k End",
    ];
    assert_eq!(shown(script), wanted);
}

#[test]
fn compounds_are_scopes() {
    for (script, wanted) in [
        (
            "if a; then b; elif c; then d; else e; fi && f",
            "Condition a End/Body b End/Condition c End/Body d End/Body e And/f End",
        ),
        ("while read x; do b $x; done < in", "Condition read|x End/Body b|$x End/ End"),
        ("for x in 1 2 $y; do b; done; c", "Body b End/c End"),
        ("for x\ndo b; done", "Body b End"),
        ("case $x in a|b) c;; (d) e ;; *) f; esac; g", "Case c End/Case e End/Case f End/g End"),
        ("(cd x && a) | b; { c; d; } 2>e", "Subshell cd|x And/Subshell a Pipe/b End/Braces c End/Braces d End/ >e End"),
        ("f() { a; }; function g { b; }; function h() { c; }; f", "Function a End/Function b End/Function c End/f End"),
        (
            "a $(b | c \"$(d)\") `e f`",
            "a|$(b | c \"$(d)\")|`e f` End/Substitution b Pipe/Substitution c|$(d) End/Substitution e|f End/Substitution Substitution d End",
        ),
        ("x=(1 2); ((i++)); [[ a && (b < c) ]] && d", "x= End/[[|a|b|c|]] And/d End"),
        ("cat <<A >x && b\nif true\nA\nc <<-'B'\n\tx\n\tB\nd", "cat >x And/b End/c End/d End"),
        ("diff <(a) <(b)", "diff End/Substitution a End/Substitution b End"),
        ("echo } a{b,c} {x; echo if", "echo|}|a{b,c}|{x End/echo|if End"),
        ("a \\\n  b\\\nc", "a|bc End"),
        ("then a; fi; ) }", "a End"),
        ("cat <<< $x; a <b", "cat End/a End"),
    ] {
        assert_eq!(shown(script), wanted.split('/').collect::<Vec<_>>(), "{script}");
    }
}

#[test]
fn parts_of_words_know_their_quotes_and_places() {
    let script = "e a$b\"c ${d:-e}$(f)\"'$g'\\$h$((1+2))*.x $# ${#i}";
    let code = Code::parse(script);
    let parts = |at: usize| -> Vec<String> {
        let show = |part: &Part| format!("{} {:?}", &script[part.start..part.end], part.quoting);
        code.commands[0].words[at].parts.iter().map(show).collect()
    };
    let wanted = [
        "a None",
        "$b None",
        "c  Double",
        "${d:-e} Double",
        "$(f) Double",
        "$g Single",
        "$ Escaped",
        "h None",
        "$((1+2)) None",
        "*.x None",
    ];
    assert_eq!(parts(1), wanted);
    let names: Vec<_> = code.commands[0].words.iter().flat_map(Word::variables).map(|(v, _)| v).cloned().collect();
    let pairs: Vec<_> = names.iter().map(|v| (v.name.as_str(), v.operator.as_str())).collect();
    assert_eq!(pairs, [("b", ""), ("d", ":-e"), ("#", ""), ("i", "#")]);
}

#[test]
fn what_only_prepares_a_command_is_passed_over() {
    let program = |script: &str| {
        let code = Code::parse(script);
        let words: Vec<String> = code.commands[0].program().iter().map(|word| word.text.clone()).collect();
        words.join(" ")
    };
    assert_eq!(program("A=b exec sudo -E -u x nginx -g x"), "nginx -g x");
    assert_eq!(program("env -i A=b nice -n 5 make"), "make");
    assert_eq!(program("./a=b"), "./a=b");
    assert_eq!(program("exec"), "exec");
}

#[test]
fn variables_that_a_script_sets_are_known() {
    let code = Code::parse("a=1; export b=2 c; for d in x; do read e f; done; : ${g:=3}; local h");
    let names: Vec<&str> = code.assigned.iter().map(|assignment| assignment.name.as_str()).collect();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
fn options_of_the_shell_are_seen() {
    let code = Code::parse("set -eux; a; set -o pipefail; b");
    assert_eq!((code.errexit, code.pipefail), (Some(0), Some(13)));
    assert_eq!(Code::parse("a; set -euo pipefail").pipefail, Some(3));
    assert_eq!(Code::parse("set -x; $(set -e); set +e").errexit, Some(10));
    assert_eq!(Code::parse("echo set -e").errexit, None);
}

#[test]
fn deep_and_long_scripts_take_linear_time() {
    for unit in
        ["(", "{ ", "$(", "${a:-", "if a; then ", "\"$(", "`", "fi ", "case x in ", "<<A\n", "a=(", "'", "a | ", "<("]
    {
        let start = std::time::Instant::now();
        let code = Code::parse(&unit.repeat(300_000 / unit.len()));
        drop(code);
        assert!(start.elapsed().as_secs() < 10, "{unit}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_and_every_place_is_within(script in "[a-c\"'`$(){}<>|&;#=\\\\\\[\\]é \n-]{0,60}|(if|then|fi|for|in|do|done|case|esac|x|;|;;|\\$\\(|\\)|\\{|\\}|\"| |\n|<<A|&&|é){0,40}") {
        let code = Code::parse(&script);
        let words = code.commands.iter().flat_map(|command| &command.words).chain(&code.loose);
        for word in words {
            prop_assert!(script.get(word.start..word.end).is_some());
            prop_assert!(word.parts.iter().all(|part| script.get(part.start..part.end).is_some()));
        }
        prop_assert!(code.commands.iter().all(|command| command.start <= command.end && command.end <= script.len()));
    }
}
