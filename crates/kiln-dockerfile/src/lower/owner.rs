//! Owners and permissions: `--chown` and `--chmod`.

use kiln_graph::llb::{ChownOpt, NamedUserOpt, UserKind, UserOpt};

/// Reads `user[:group]`; names are looked up in the input of that index.
pub(super) fn owner(text: &str, input: i64) -> ChownOpt {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    ChownOpt { user: Some(one(user, input)), group: group.map(|group| one(group, input)) }
}

fn one(text: &str, input: i64) -> UserOpt {
    let user = match number(text) {
        Some(id) => UserKind::ById(id),
        None => UserKind::ByName(NamedUserOpt { name: text.to_owned(), input }),
    };
    UserOpt { user: Some(user) }
}

fn number(text: &str) -> Option<u32> {
    match text {
        "" | "root" => Some(0),
        _ => text.parse().ok(),
    }
}

/// The first name in `user[:group]` that is no number.
pub(super) fn named(text: &str) -> Option<&str> {
    text.splitn(2, ':').find(|part| number(part).is_none())
}

/// Permissions as `--chmod` gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// `0755`.
    Octal(i32),
    /// `u=rwX,go=rX`.
    Symbolic(String),
}

/// Reads permissions.
pub(super) fn mode(text: &str) -> Option<Mode> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let value = i32::from_str_radix(text, 8).ok()?;
        return (value <= 0o7777).then_some(Mode::Octal(value));
    }
    text.split(',').all(is_clause).then(|| Mode::Symbolic(text.to_owned()))
}

/// `ugoa` any number of times, then once or more an operator and what it applies.
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    actions.starts_with(['+', '-', '=']) && actions.chars().all(|c| "+-=rwxXstugo".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_root_are_ids_and_the_rest_are_names() {
        let name =
            |name: &str, input| UserOpt { user: Some(UserKind::ByName(NamedUserOpt { name: name.into(), input })) };
        let id = |id| UserOpt { user: Some(UserKind::ById(id)) };
        assert_eq!(owner("app", 0), ChownOpt { user: Some(name("app", 0)), group: None });
        assert_eq!(owner("1000:root", 0), ChownOpt { user: Some(id(1000)), group: Some(id(0)) });
        assert_eq!(owner("0:wheel", -1), ChownOpt { user: Some(id(0)), group: Some(name("wheel", -1)) });
        assert_eq!((named("1:app"), named("root:5"), named("a:b")), (Some("app"), None, Some("a")));
    }

    #[test]
    fn modes_are_octal_or_symbolic() {
        assert_eq!(mode("0755"), Some(Mode::Octal(0o755)));
        assert_eq!(mode("7777"), Some(Mode::Octal(0o7777)));
        for good in ["u=rwX,go=rX", "+x", "a-w", "u+x-w", "go=", "g=u"] {
            assert_eq!(mode(good), Some(Mode::Symbolic(good.into())), "{good}");
        }
        for bad in ["10000", "888", "u", "x", "u=q", ",", "u+x,", "rwx", "07x"] {
            assert_eq!(mode(bad), None, "{bad}");
        }
    }
}
