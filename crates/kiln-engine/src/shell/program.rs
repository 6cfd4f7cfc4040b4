//! Which program is a shell, and a command as one would type it.

use kiln_sys::metadata::FileKind;
use kiln_sys::root::Root;

/// Programs that people type commands into.
const SHELLS: [&str; 9] = ["bash", "sh", "ash", "dash", "zsh", "ksh", "mksh", "yash", "fish"];

/// Where one usually is, the most comfortable first.
const PLACES: [&[&str]; 8] = [
    &["/bin/bash"],
    &["/usr/bin/bash"],
    &["/bin/sh"],
    &["/usr/bin/sh"],
    &["/bin/busybox", "sh"],
    &["/usr/bin/busybox", "sh"],
    &["/busybox/sh"],
    &["/busybox/busybox", "sh"],
];

/// A shell in a tree: the one that `args` is a command of, if it is one, else any.
pub(super) fn shell(root: &Root, args: &[String], env: &[String]) -> Option<Vec<String>> {
    let own = args.first().filter(|program| is_shell(program));
    let own =
        own.and_then(|program| if program.contains('/') { Some(program.clone()) } else { search(root, program, env) });
    let usual = PLACES.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    own.map(|program| vec![program]).into_iter().chain(usual).find(|words| is_program(root, &words[0]))
}

fn is_shell(program: &str) -> bool {
    SHELLS.contains(&program.rsplit('/').next().unwrap_or(program))
}

fn search(root: &Root, program: &str, env: &[String]) -> Option<String> {
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="))?;
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    directories.map(|directory| format!("{directory}/{program}")).find(|file| is_program(root, file))
}

fn is_program(root: &Root, path: &str) -> bool {
    root.metadata_followed(path).is_ok_and(|file| file.kind == FileKind::Regular && file.mode & 0o111 != 0)
}

/// A command for a shell's `eval`: what was written for a shell as it was written, other words quoted where they must be.
pub(super) fn typed(args: &[String]) -> String {
    match args {
        [shell, flags @ .., script]
            if is_shell(shell) && flags.last().is_some_and(|flag| flag.starts_with('-') && flag.ends_with('c')) =>
        {
            script.clone()
        }
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn own(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_step_s_own_shell_goes_first_and_what_is_none_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let program = |path: &str, mode: u32| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let root = Root::open_ambient(dir.path()).unwrap();
        let found = |args: &[&str]| shell(&root, &own(args), &own(&["PATH=/opt/bin:/bin"]));
        assert_eq!(found(&["/bin/sh", "-c", "x"]), None);
        program("bin/busybox", 0o755);
        assert_eq!(found(&[]), Some(own(&["/bin/busybox", "sh"])));
        program("bin/sh", 0o755);
        program("bin/bash", 0o644);
        program("opt/bin/zsh", 0o755);
        assert_eq!(found(&["/bin/bash", "-c", "x"]), Some(own(&["/bin/sh"])));
        assert_eq!(found(&["zsh", "-c", "x"]), Some(own(&["/opt/bin/zsh"])));
        assert_eq!(found(&["/usr/bin/python3", "-c", "x"]), Some(own(&["/bin/sh"])));
    }

    #[test]
    fn a_command_is_typed_as_it_was_written() {
        assert_eq!(typed(&own(&["/bin/sh", "-c", "a 'b' && c"])), "a 'b' && c");
        assert_eq!(typed(&own(&["/bin/bash", "-o", "pipefail", "-ec", "a | b"])), "a | b");
        assert_eq!(typed(&own(&["make", "it", "a b", "it's", ""])), r"make it 'a b' 'it'\''s' ''");
        assert_eq!(typed(&own(&["python3", "-c", "x = 1"])), "python3 -c 'x = 1'");
    }
}
