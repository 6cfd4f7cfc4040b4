//! Disks that are full: told as such, whatever was being written, with what is free and the way out.

use std::path::Path;

use kiln_report::render::decimal_size;
use kiln_report::{Failure, FailureKind};

/// With less than this free hardly anything can be written.
const NOTHING: u64 = 64 << 10;

/// Bytes that are free for us on the file system of a path. None when it cannot be asked.
#[expect(clippy::disallowed_methods, reason = "the state directory and outputs are what whoever runs us names")]
pub(crate) fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    // Some file systems do not count their files.
    let has_names = found.f_files == 0 || found.f_favail > 0;
    Some(if has_names { found.f_bavail.saturating_mul(found.f_frsize) } else { 0 })
}

/// Whether nothing more can be written there.
pub(crate) fn is_full(path: &Path) -> bool {
    free(path).is_some_and(|free| free < NOTHING)
}

/// Refuses to begin what cannot fit.
pub(crate) fn require(state: &Path, needed: u64, what: &str) -> Result<(), Failure> {
    match free(state) {
        Some(free) if free < needed => {
            let (needed, free) = (decimal_size(needed), decimal_size(free));
            let message = format!("no space for {what}: {needed} needed, {free} free in `{}`", state.display());
            Err(Failure::new(FailureKind::Environment, message).hint(way_out(state)))
        }
        _ => Ok(()),
    }
}

/// Tells a failure that comes from a full disk as what it is.
pub(crate) fn explain(failure: Failure, state: &Path) -> Failure {
    let texts = || std::iter::once(&failure.message).chain(&failure.causes);
    if failure.message.starts_with("no space") || !texts().any(|text| says_full(text)) {
        return failure;
    }
    blame(failure, state)
}

/// Puts the full disk before a failure that it caused.
pub(crate) fn blame(failure: Failure, state: &Path) -> Failure {
    let is_output = failure.message.starts_with("cannot write");
    let free = free(state).map(|free| format!(": {} free in `{}` now", decimal_size(free), state.display()));
    let message = match is_output {
        true => "no space left for the output".to_owned(),
        false => format!("no space left for the build{}", free.unwrap_or_default()),
    };
    let hint =
        if is_output { "free space where the output is written, or write it elsewhere".into() } else { way_out(state) };
    let causes = std::iter::once(failure.message).chain(failure.causes).collect();
    Failure { kind: FailureKind::Environment, message, causes, hints: vec![hint], ..failure }
}

/// What the kernel and SQLite say of full disks and used-up quotas.
fn says_full(text: &str) -> bool {
    ["os error 28)", "os error 122)", "database or disk is full"].iter().any(|sign| text.contains(sign))
}

fn way_out(state: &Path) -> String {
    let state = state.display();
    format!(
        "free space with `kiln prune`, or with `--all` all that is cached in `{state}`, or name another disk with `--state`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_whatever_was_being_written() {
        let state = Path::new("/");
        let failed = |message: &str, cause: &str| {
            let failure = Failure::new(FailureKind::Build, message);
            explain(Failure { causes: vec![cause.to_owned()], ..failure }, state)
        };
        let full = std::io::Error::from_raw_os_error(28).to_string();
        let told = failed("cannot copy `f`", &full);
        assert!(told.message.starts_with("no space left for the build: "), "{}", told.message);
        assert_eq!((told.kind, told.causes), (FailureKind::Environment, vec!["cannot copy `f`".into(), full.clone()]));
        assert_eq!(failed("cannot write `out.tar`", &full).message, "no space left for the output");
        assert_eq!(failed("cannot copy `f`", "permission denied").kind, FailureKind::Build);
        assert!(require(state, u64::MAX, "layer x").unwrap_err().message.starts_with("no space for layer x: "));
        assert!(require(state, 0, "layer x").is_ok());
    }
}
