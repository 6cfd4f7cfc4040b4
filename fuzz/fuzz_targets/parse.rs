//! Any text has a tree that loses no byte, and findings that point into it.
#![no_main]

use kiln_dockerfile::{Instruction, detect_syntax, frontend, parse, parse_shape};
use kiln_report::Span;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, diagnostics) = parse(text);
    let is_in = |span: Span| assert!(text.get(span.range()).is_some(), "{span:?}");
    let printed: String = file.items.iter().map(|item| &text[item.span.range()]).collect();
    assert_eq!(printed, text);
    diagnostics.iter().for_each(|diagnostic| is_in(diagnostic.span));
    file.instructions().for_each(|instruction| instruction_is_in(instruction, &is_in));
    let (shape, _) = parse_shape(text);
    assert_eq!(shape.dump(), file.dump());
    detect_syntax(text).iter().for_each(|word| is_in(word.span));
    let _ = frontend(text, None);
});

fn instruction_is_in(instruction: &Instruction, is_in: &impl Fn(Span)) {
    is_in(instruction.span);
    is_in(instruction.keyword.span);
    for flag in &instruction.flags {
        is_in(flag.span);
        is_in(flag.name.span);
        flag.value.iter().for_each(|value| is_in(value.span));
    }
    for heredoc in &instruction.heredocs {
        is_in(heredoc.content_span);
        is_in(heredoc.end_span);
    }
}
