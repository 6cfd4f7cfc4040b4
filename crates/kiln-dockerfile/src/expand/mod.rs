//! Word expansion as BuildKit does it: variables, quotes, escapes, splitting.

mod env;
mod error;
mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

pub use env::{Env, Layered, NoVariables, Variables};
pub use error::{ExpandError, ExpandErrorKind};
pub use lexer::{Expansion, Lexer, VariableUse};
