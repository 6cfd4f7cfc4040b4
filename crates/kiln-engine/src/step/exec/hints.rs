//! Reads the last words of a failed step for the way out.

use kiln_exec::ExitStatus;
use kiln_sys::userns::is_machine_root;

/// Where a step can do nearly all that the machine can.
const HOST_IDS: &str = "or use `kiln build --userns=host`";

/// What shells and tools say of a file they cannot make, the path in quotes or before a colon.
const NO_DIRECTORY: [&str; 3] = ["nonexistent directory", "Directory nonexistent", "No such file or directory"];

/// Ways out of a failure, most telling first.
pub(super) fn for_failure(status: ExitStatus, lines: &[String]) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(directory) = lines.iter().rev().find_map(|line| missing_directory(line)) {
        hints.push(format!(
            "make the directory first: put `WORKDIR {directory}` or `RUN mkdir -p {directory}` before this step"
        ));
    }
    if lines.iter().any(|line| line.contains("mknod") && line.contains("Operation not permitted")) {
        hints.push(format!("leave the device nodes out, as containers get theirs when they run; {HOST_IDS}"));
    }
    let gives =
        |line: &String| ["chown", "set user id", "set group id", "setuid"].iter().any(|name| line.contains(name));
    if lines.iter().any(|line| gives(line) && line.contains("Invalid argument")) {
        hints.push(match is_machine_root() {
            true => format!("use ids up to 2147483647, as a step has no others; {HOST_IDS}"),
            false => "use ids that you have: `kiln doctor` says how many, and how to get more".to_owned(),
        });
    }
    if lines.iter().any(|line| line.contains("Value too large for defined data type")) {
        hints.push(format!("files of ids above 2147483647 are out of a step's reach; {HOST_IDS}"));
    }
    match status {
        ExitStatus::Code(127) => {
            hints.push("install the missing program in an earlier step, or check its spelling and `PATH`".into())
        }
        ExitStatus::Code(126) if lines.iter().any(|line| line.ends_with("Operation not permitted")) => {
            hints.push(format!(
                "start a program whose file has no capabilities that steps lack (`getcap` shows them; Debian's `ping` wants \
                 cap_net_raw), {HOST_IDS}"
            ));
        }
        ExitStatus::Code(126) => {
            hints.push("make the file executable with `chmod +x`, or check that it is built for this platform".into())
        }
        ExitStatus::Code(137) | ExitStatus::Signal(9) => {
            hints.push("look whether the machine ran out of memory: the process was killed".into());
        }
        _ => {}
    }
    hints
}

/// The directory a redirection wanted to write into: `can't create /app/v: nonexistent directory`.
fn missing_directory(line: &str) -> Option<&str> {
    let creating =
        ["can't create ", "cannot create "].iter().find_map(|verb| line.split_once(verb).map(|(_, rest)| rest));
    let is_bash = line.contains("bash: ") || line.contains(": line ");
    let bash = line.strip_suffix(": No such file or directory").filter(|_| is_bash);
    let bash = bash.and_then(|rest| rest.rsplit(": ").next());
    if !NO_DIRECTORY.iter().any(|text| line.contains(text)) {
        return None;
    }
    let path = creating.map(|rest| rest.split(": ").next().unwrap_or(rest)).or(bash)?;
    let path = path.trim_matches(['\'', '"', '`']);
    let (directory, _) = path.rsplit_once('/')?;
    (directory.starts_with('/') && !directory.contains(char::is_whitespace)).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_wants_is_no_question_of_its_mode() {
        let hints = |line: &str| for_failure(ExitStatus::Code(126), &[line.to_owned()]);
        assert!(hints("/bin/sh: 1: ping: Operation not permitted")[0].contains("capabilities that steps lack"));
        assert!(hints("/bin/sh: 1: ./x: Permission denied")[0].contains("chmod +x"));
    }

    #[test]
    fn ids_that_steps_lack_are_told_whoever_gives_them() {
        for line in ["chown: /f: Invalid argument", "su: cannot set user id: Invalid argument"] {
            assert!(for_failure(ExitStatus::Code(1), &[line.to_owned()])[0].contains("use ids"), "{line}");
        }
    }

    #[test]
    fn a_missing_directory_is_read_from_what_shells_say() {
        for (line, directory) in [
            ("/bin/sh: can't create /app/version.txt: nonexistent directory", Some("/app")),
            ("/bin/sh: 1: cannot create /app/x/v: Directory nonexistent", Some("/app/x")),
            ("bash: line 1: /srv/a: No such file or directory", Some("/srv")),
            ("cat: can't open 'x': No such file or directory", None),
            ("ls: /etc/q: No such file or directory", None),
            ("can't create relative: nonexistent directory", None),
            ("all fine", None),
        ] {
            assert_eq!(missing_directory(line), directory, "{line}");
        }
    }
}
