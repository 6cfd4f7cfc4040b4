//! The tree as BuildKit's own parser prints it, for comparison with it.

use super::{Arguments, Dockerfile, Flag, Instruction, Pair, PairForm, Word};
use crate::instruction::Keyword;
use crate::quote::{quoted, quoted_list};

impl Dockerfile {
    /// The tree in the parenthesised form of BuildKit's parser, one instruction a line: keyword in lower case, flags,
    /// arguments in quotes. Heredocs are no part of it.
    ///
    /// ```
    /// let (file, _) = kiln_dockerfile::parse_shape("FROM scratch\nCOPY --link [\"a b\", \"/\"]\n");
    /// assert_eq!(file.dump(), "(from \"scratch\")\n(copy [\"--link\"] \"a b\" \"/\")");
    /// ```
    pub fn dump(&self) -> String {
        let lines: Vec<String> = self.instructions().map(|i| format!("({})", instruction(i))).collect();
        lines.join("\n")
    }
}

fn instruction(instruction: &Instruction) -> String {
    let mut out = instruction.keyword.text.to_lowercase();
    if !instruction.flags.is_empty() {
        let flags: Vec<String> = instruction.flags.iter().map(flag).collect();
        out.push(' ');
        out.push_str(&quoted_list(&flags));
    }
    match Keyword::of(&instruction.keyword.text) {
        Some(_) => push_arguments(&mut out, &instruction.arguments),
        // What is no instruction has one empty argument.
        None => push(&mut out, ""),
    }
    out.trim().to_owned()
}

fn flag(flag: &Flag) -> String {
    match &flag.value {
        Some(value) => format!("--{}={}", flag.name.text, value.text),
        None => format!("--{}", flag.name.text),
    }
}

fn push_arguments(out: &mut String, arguments: &Arguments) {
    match arguments {
        Arguments::None => {}
        Arguments::Text(word) => push(out, &word.text),
        Arguments::Words(words) | Arguments::Json(words) => words.iter().for_each(|word: &Word| push(out, &word.text)),
        Arguments::Pairs(pairs) => pairs.iter().for_each(|pair| push_pair(out, pair)),
        Arguments::Typed(kind, rest) => {
            push(out, &kind.text);
            push_arguments(out, rest);
        }
        Arguments::Trigger(inner) => {
            out.push_str(" (");
            out.push_str(&instruction(inner));
            out.push(')');
        }
    }
}

fn push_pair(out: &mut String, pair: &Pair) {
    push(out, &pair.key.text);
    push(out, &pair.value.text);
    push(out, if pair.form == PairForm::Equals { "=" } else { "" });
}

fn push(out: &mut String, text: &str) {
    out.push(' ');
    out.push_str(&quoted(text));
}
