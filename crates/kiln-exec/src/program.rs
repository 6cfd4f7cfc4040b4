//! Which files a command may mean: the search through `PATH`, by the container's environment.

use std::ffi::CString;

use crate::Error;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lists the files to try for a command, best first.
pub(crate) fn candidates(args: &[String], env: &[String]) -> Result<Vec<CString>, Error> {
    let program = args.first().ok_or(Error::NoCommand)?;
    if program.is_empty() {
        return Err(Error::Program { program: String::new(), reason: "the name is empty".into() });
    }
    if program.contains('/') {
        return strings("the command", std::slice::from_ref(program));
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    // An empty entry is the working directory, as for a shell.
    let directories = path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    let files: Vec<String> =
        directories.map(|directory| format!("{}/{program}", directory.trim_end_matches('/'))).collect();
    strings("the command", &files)
}

/// Makes strings for the kernel.
pub(crate) fn strings(what: &'static str, texts: &[String]) -> Result<Vec<CString>, Error> {
    texts.iter().map(|text| CString::new(text.as_str()).map_err(|_| Error::Nul { what })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str], env: &[&str]) -> Vec<String> {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = candidates(&own(args), &own(env)).unwrap();
        found.into_iter().map(|file| file.into_string().unwrap()).collect()
    }

    #[test]
    fn names_are_searched_and_paths_are_not() {
        assert_eq!(of(&["sh"], &["PATH=/a:/b/"]), ["/a/sh", "/b/sh"]);
        assert_eq!(of(&["sh"], &["PATH=/a", "X=1", "PATH=/b"]), ["/b/sh"]);
        assert_eq!(of(&["sh"], &["PATH=:/a"]), ["./sh", "/a/sh"]);
        assert_eq!(of(&["sh"], &["PATH=/"]), ["/sh"]);
        assert_eq!(of(&["./sh"], &["PATH=/a"]), ["./sh"]);
        assert_eq!(of(&["/bin/sh"], &[]), ["/bin/sh"]);
        assert_eq!(of(&["sh"], &["HOME=/"]).len(), 6);
    }

    #[test]
    fn what_cannot_be_a_command_is_refused() {
        assert!(matches!(candidates(&[], &[]), Err(Error::NoCommand)));
        assert!(matches!(candidates(&[String::new()], &[]), Err(Error::Program { .. })));
        let error = candidates(&["a\0b".into()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "the command contains a NUL byte");
    }
}
