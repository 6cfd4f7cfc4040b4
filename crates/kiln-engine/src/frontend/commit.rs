//! The time of the commit that a directory is a checkout of.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use kiln_exec::HostCommand;

/// Git answers at once, or is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing but the repository counts, and nothing of it makes git start a program or talk to anybody. Whose directory it is
/// does not matter to what is only read.
const ENV: [(&str, &str); 11] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "safe.directory"),
    ("GIT_CONFIG_VALUE_0", "*"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("HOME", "/dev/null"),
    ("LC_ALL", "C"),
];

/// Seconds since 1970 of the commit at `HEAD`, if the directory is in that commit. What was changed since counts for nothing: its
/// files tell it.
pub(crate) async fn commit_time(host_env: Vec<(String, OsString)>, directory: &Path) -> Option<i64> {
    let env: Vec<_> = host_env.into_iter().chain(ENV.map(|(name, value)| (name.to_owned(), value.into()))).collect();
    let ask = async |what: &[&str]| {
        let args = what.iter().map(OsString::from).collect();
        let (env, cwd) = (env.clone(), directory.to_owned());
        let output = HostCommand { program: "git".into(), args, env, cwd, patience: PATIENCE }.run().await.ok()?;
        output.status.is_success().then_some(output.stdout)
    };
    ask(&["cat-file", "-e", "HEAD:./"]).await?;
    committed(&ask(&["cat-file", "commit", "HEAD"]).await?)
}

/// The time in a commit, which is the last but one word of its line `committer`.
fn committed(commit: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(commit);
    let headers = text.split("\n\n").next()?;
    let line = headers.lines().find_map(|line| line.strip_prefix("committer "))?;
    line.rsplit(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_tells_its_time() {
        let commit = "tree 1\nauthor A <a@b> 5 +0000\ncommitter B C <b c> 1700000000 +0900\n\ncommitter x 7 +0000\n";
        assert_eq!(committed(commit.as_bytes()), Some(1_700_000_000));
        for bad in ["", "tree 1\n\ncommitter B <b> 1 +0000\n", "committer B <b>", "committer B <b> x +0000"] {
            assert_eq!(committed(bad.as_bytes()), None, "{bad}");
        }
    }
}
