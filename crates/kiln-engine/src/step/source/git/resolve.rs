//! Which commit a branch or tag stands for, as its server says.

use kiln_report::{Failure, FailureKind};

use super::Commit;
use super::command::{Git, Protocols};
use super::wanted::{Wanted, is_commit, is_hex};
use crate::job::Result;

/// Asks the server. None if it knows no such name, but there may be a commit that begins so.
pub(super) async fn ask(git: &Git, wanted: &Wanted) -> Result<Option<Commit>> {
    let url = wanted.remote.url();
    let reference = wanted.reference.as_str();
    if reference.is_empty() {
        let answer = git.answer(&["ls-remote", "--symref", "--", url, "HEAD"], Protocols::Remote).await?;
        return match of_head(&answer) {
            Some(commit) => Ok(Some(commit)),
            None => Err(Failure::new(FailureKind::Build, format!("{} has no default branch", wanted.shown()))
                .hint("name a branch, as in `….git#main`")),
        };
    }
    let peeled = format!("{reference}^{{}}");
    let answer = git.answer(&["ls-remote", "--", url, reference, &peeled], Protocols::Remote).await?;
    match of_name(&answer, reference) {
        Some(commit) => Ok(Some(commit)),
        None if is_hex(reference) && reference.len() >= SHORTEST => Ok(None),
        None => Err(unknown(wanted)),
    }
}

/// Shorter beginnings of a commit are not looked for, as git does not.
const SHORTEST: usize = 4;

/// The failure that says that there is no such reference.
pub(super) fn unknown(wanted: &Wanted) -> Failure {
    let message = format!("`{}` has no branch, tag or commit `{}`", wanted.remote.shown(), wanted.reference);
    let hint = format!("list what it has with `git ls-remote {}`", wanted.remote.shown());
    Failure::new(FailureKind::Build, message).hint(hint)
}

/// Reads what `ls-remote --symref … HEAD` printed.
fn of_head(answer: &str) -> Option<Commit> {
    let lines = || answer.lines().filter_map(|line| line.split_once('\t')).filter(|(_, name)| *name == "HEAD");
    let id = lines().map(|(id, _)| id).find(|id| is_commit(id))?;
    let name = lines().find_map(|(target, _)| target.strip_prefix("ref: "));
    Some(Commit { id: id.to_owned(), peeled: None, name: name.map(str::to_owned) })
}

/// Reads what `ls-remote` printed: a whole name goes before a branch, a branch before a tag, as for `git checkout`.
fn of_name(answer: &str, reference: &str) -> Option<Commit> {
    let id_of = |name: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(id, found)| *found == name && is_commit(id)).map(|(id, _)| id.to_owned())
    };
    let full = format!("refs/{}", reference.strip_prefix("refs/").unwrap_or(reference));
    let branch = format!("refs/heads/{reference}");
    let tag = format!("refs/tags/{reference}");
    let (id, name) = [full, branch, tag].into_iter().find_map(|name| Some((id_of(&name)?, name)))?;
    let peeled = id_of(&format!("{name}^{{}}"));
    Some(Commit { id, peeled, name: Some(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    #[test]
    fn a_branch_goes_before_a_tag_and_a_tag_is_followed_to_its_commit() {
        let lines = [
            (id('a'), "refs/heads/both"),
            (id('b'), "refs/tags/both"),
            (id('c'), "refs/tags/v1"),
            (id('d'), "refs/tags/v1^{}"),
            (id('e'), "refs/remotes/fork/heads/v1"),
        ];
        let answer: String = lines.iter().map(|(id, name)| format!("{id}\t{name}\n")).collect();
        let found = |reference: &str| of_name(&answer, reference).map(|commit| (commit.id, commit.peeled));
        assert_eq!(found("both"), Some((id('a'), None)));
        assert_eq!(found("tags/both"), Some((id('b'), None)));
        assert_eq!(found("refs/tags/v1"), Some((id('c'), Some(id('d')))));
        assert_eq!(found("v1"), Some((id('c'), Some(id('d')))));
        assert_eq!(found("v"), None);
    }

    #[test]
    fn the_default_branch_is_what_head_points_to() {
        let answer = format!("ref: refs/heads/trunk\tHEAD\n{}\tHEAD\n", id('a'));
        let commit = of_head(&answer).unwrap();
        assert_eq!((commit.id, commit.name.as_deref()), (id('a'), Some("refs/heads/trunk")));
        assert_eq!(of_head(""), None);
        assert_eq!(of_head("ref: refs/heads/gone\tHEAD\n"), None);
    }
}
