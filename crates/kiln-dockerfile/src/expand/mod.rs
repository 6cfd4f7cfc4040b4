//! Word expansion as BuildKit does it: variables, quotes, escapes, splitting.

mod env;
mod lexer;
mod pattern;

pub use env::{Env, Layered, NoVariables, Variables};
pub use lexer::{ExpandError, ExpandErrorKind, Expansion, Lexer, VariableUse};
