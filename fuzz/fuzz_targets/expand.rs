//! Any word is expanded or refused; places are in the word, and what comes out is bounded.
#![no_main]

use kiln_dockerfile::expand::{Env, Lexer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, bool, bool, bool)| {
    let (word, value, keeps_quotes, keeps_unset, is_backtick) = input;
    let mut env = Env::new();
    env.set("A", value);
    env.set("EMPTY", "");
    let escape = if is_backtick { '`' } else { '\\' };
    let lexer = Lexer { keeps_quotes, keeps_escapes: keeps_quotes, keeps_unset, ..Lexer::new(escape) };
    match lexer.expand(word, &env) {
        Ok(expansion) => {
            // Pieces that stand where nothing does are the only way to grow beyond what variables hold.
            assert!(expansion.text.len() <= (word.len() + 1) * (word.len() + value.len() + 1) * 2);
            expansion.uses.iter().for_each(|used| assert!(word[used.start..used.end].starts_with('$')));
        }
        Err(error) => assert!(word.get(error.start..error.end).is_some() && !error.to_string().is_empty()),
    }
});
