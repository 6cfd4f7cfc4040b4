//! `--secret [type=file|env,]id=ID[,src=PATH|env=NAME]`: where the value of a secret is.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Environment;
use super::value::{Wrong, attributes, did_you_mean};

/// Where a secret's value is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file, read when a step asks for it.
    File(PathBuf),
    /// Here: it came from the environment.
    Value(OsString),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretArg {
    id: String,
    kind: Option<Kind>,
    file: Option<PathBuf>,
    variable: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Env,
}

impl SecretArg {
    /// Reads the value of `--secret`.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
        for (key, value) in attributes(text)? {
            match key.as_str() {
                "id" => id = Some(value),
                "type" => kind = Some(kind_of(&value)?),
                "src" | "source" => file = Some(PathBuf::from(value)),
                "env" => variable = Some(value),
                other => {
                    let near = did_you_mean(other, ["id", "type", "src", "source", "env"]);
                    return Err(Wrong(format!("`{other}` is no part of a secret{near}")));
                }
            }
        }
        // `type=env,src=NAME` names a variable, too.
        if kind == Some(Kind::Env) && variable.is_none() {
            variable = file.take().map(|path| path.to_string_lossy().into_owned());
        }
        if file.is_some() && variable.is_some() {
            return Err(Wrong("give `src` or `env`, not both".into()));
        }
        match id.filter(|id| !id.is_empty()) {
            Some(id) => Ok(Self { id, kind, file, variable }),
            None => Err(Wrong("the secret has no `id`".into())),
        }
    }

    /// What it means in this environment. A secret without a source is the variable of its name, else the file.
    pub(crate) fn resolve(self, environment: &Environment) -> Result<(String, SecretSource), Wrong> {
        let Self { id, kind, file, variable } = self;
        let source = match (kind, file, variable) {
            (_, Some(path), _) => SecretSource::File(path),
            (_, None, Some(name)) => variable_named(&name, environment)?,
            (Some(Kind::Env), None, None) => variable_named(&id, environment)?,
            (Some(Kind::File), None, None) => SecretSource::File(PathBuf::from(&id)),
            (None, None, None) => {
                variable_named(&id, environment).unwrap_or_else(|_| SecretSource::File(PathBuf::from(&id)))
            }
        };
        Ok((id, source))
    }
}

fn kind_of(text: &str) -> Result<Kind, Wrong> {
    match text {
        "file" => Ok(Kind::File),
        "env" => Ok(Kind::Env),
        other => Err(Wrong(format!("`{other}` is no type of secret: expected `file` or `env`"))),
    }
}

fn variable_named(name: &str, environment: &Environment) -> Result<SecretSource, Wrong> {
    match environment.raw(name) {
        Some(value) => Ok(SecretSource::Value(value.to_owned())),
        None => Err(Wrong(format!("the environment has no variable `{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str) -> Result<(String, SecretSource), Wrong> {
        let environment = Environment::from([("TOKEN", "hush"), ("other", "x")]);
        SecretArg::parse(text)?.resolve(&environment)
    }

    #[test]
    fn every_form_finds_its_source() {
        let file = |path: &str| SecretSource::File(path.into());
        let value = |text: &str| SecretSource::Value(text.into());
        for (text, id, source) in [
            ("id=a,src=f", "a", file("f")),
            ("type=file,id=a,source=f", "a", file("f")),
            ("type=file,id=TOKEN", "TOKEN", file("TOKEN")),
            ("id=a,env=TOKEN", "a", value("hush")),
            ("type=env,id=a,env=TOKEN", "a", value("hush")),
            ("type=env,id=a,src=TOKEN", "a", value("hush")),
            ("type=env,id=TOKEN", "TOKEN", value("hush")),
            ("id=TOKEN", "TOKEN", value("hush")),
            ("id=a", "a", file("a")),
            (r#"id=a,"src=x,y""#, "a", file("x,y")),
        ] {
            assert_eq!(meaning(text), Ok((id.to_owned(), source)), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_says_why() {
        for (text, message) in [
            ("src=f", "the secret has no `id`"),
            ("id=a,env=NOT_SET", "the environment has no variable `NOT_SET`"),
            ("id=a,scr=f", "`scr` is no part of a secret; did you mean `src`?"),
            ("type=vault,id=a", "`vault` is no type of secret: expected `file` or `env`"),
            ("id=a,src=f,env=TOKEN", "give `src` or `env`, not both"),
            ("a", "`a` has no value: expected `key=value`"),
        ] {
            assert_eq!(meaning(text).unwrap_err().0, message, "{text}");
        }
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        assert!(!format!("{:?}", meaning("id=TOKEN").unwrap()).contains("hush"));
    }
}
