//! `--ssh default|ID[=SOCKET|KEY[,KEY]]`: where an agent for ssh is, or the keys that stand for one.

use std::path::PathBuf;

use super::Environment;
use super::value::{Wrong, fields};

/// The agent that is meant when none is named; BuildKit's word.
const DEFAULT: &str = "default";

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshArg {
    id: String,
    paths: Vec<PathBuf>,
}

impl SshArg {
    /// Reads the value of `--ssh`.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        let paths = if paths.is_empty() { Vec::new() } else { fields(paths)? };
        if let Some(raw) = paths.iter().find(|path| path.starts_with("raw=")) {
            return Err(Wrong(format!("`{raw}` is not supported: an agent is asked for keys and signatures only")));
        }
        let id = if id.is_empty() { DEFAULT } else { id };
        Ok(Self { id: id.to_owned(), paths: paths.into_iter().map(PathBuf::from).collect() })
    }

    /// Which paths are meant in this environment.
    pub(crate) fn resolve(self, environment: &Environment) -> Result<(String, Vec<PathBuf>), Wrong> {
        let Self { id, paths } = self;
        if !paths.is_empty() {
            return Ok((id, paths));
        }
        match environment.raw("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
            Some(socket) => Ok((id, vec![socket.into()])),
            None => Err(Wrong(format!(
                "`{id}` names no socket or key, and `SSH_AUTH_SOCK` is not set; start an agent, or write `{id}=FILE`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str, socket: &str) -> Result<(String, Vec<PathBuf>), String> {
        let environment = Environment::from([("SSH_AUTH_SOCK", socket)]);
        SshArg::parse(text).and_then(|arg| arg.resolve(&environment)).map_err(|Wrong(why)| why)
    }

    #[test]
    fn every_form_finds_its_paths() {
        for (text, id, paths) in [
            ("default", "default", &["/agent"][..]),
            ("", "default", &["/agent"]),
            ("github", "github", &["/agent"]),
            ("default=/s", "default", &["/s"]),
            ("a=k1,k2", "a", &["k1", "k2"]),
            ("a=\"k,1\",k2", "a", &["k,1", "k2"]),
        ] {
            let paths = paths.iter().map(PathBuf::from).collect();
            assert_eq!(meaning(text, "/agent"), Ok((id.to_owned(), paths)), "{text}");
        }
    }

    #[test]
    fn without_an_agent_it_says_what_to_do() {
        assert!(meaning("default", "").unwrap_err().contains("`SSH_AUTH_SOCK` is not set"));
        assert!(meaning("a=/s,raw=true", "").unwrap_err().contains("raw=true"));
    }
}
