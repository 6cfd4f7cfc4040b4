//! From "no such file or directory" to what is missing.

use std::ffi::CString;
use std::io;

use kiln_sys::container::{Outcome, Step};
use kiln_sys::root::Root;
use rustix::io::Errno;

use crate::Error;
use crate::program;
use crate::spec::{ContainerSpec, ExitStatus};

/// As much of a program as is looked at: headers are at its front.
const HEAD: u64 = 64 << 10;

/// A command about to be run, kept to explain its failure.
#[derive(Debug)]
pub(crate) struct Attempt {
    program: String,
    cwd: String,
    candidates: Vec<CString>,
}

impl Attempt {
    pub(crate) fn new(spec: &ContainerSpec) -> Result<Attempt, Error> {
        let candidates = program::candidates(&spec.args, &spec.env)?;
        if !spec.cwd.starts_with('/') {
            return Err(Error::Cwd { cwd: spec.cwd.clone(), reason: "is not absolute" });
        }
        Ok(Attempt { program: spec.args.first().cloned().unwrap_or_default(), cwd: spec.cwd.clone(), candidates })
    }

    /// The files that are tried.
    pub(crate) fn candidates(&self) -> &[CString] {
        &self.candidates
    }

    /// Makes a status of an outcome, or the error that says why there is none.
    pub(crate) fn translate(&self, outcome: Outcome, root: &Root) -> Result<ExitStatus, Error> {
        match outcome {
            Outcome::Exited(code) => Ok(ExitStatus::Code(code)),
            Outcome::Killed(signal) => Ok(ExitStatus::Signal(signal)),
            Outcome::NotStarted { step, source, index } => Err(self.explain(step, source, index, root)),
        }
    }

    fn explain(&self, step: Step, source: io::Error, index: usize, root: &Root) -> Error {
        let errno = Errno::from_io_error(&source).unwrap_or(Errno::IO);
        match step {
            Step::EnterCwd => self.explain_cwd(errno, source),
            Step::CwdOutside => Error::Cwd { cwd: self.cwd.clone(), reason: "is outside the container's root" },
            Step::Filter => Error::NoFilter { source },
            Step::Program | Step::Interpreter | Step::Exec => {
                let reason = self.explain_program(step, errno, index, root);
                Error::Program { program: self.program.clone(), reason: reason.unwrap_or_else(|| plain(&source)) }
            }
            other => Error::Start { step: format!("{other:?}"), source },
        }
    }

    fn explain_cwd(&self, errno: Errno, source: io::Error) -> Error {
        let reason = match errno {
            Errno::NOENT => "does not exist",
            Errno::NOTDIR => "is not a directory",
            Errno::LOOP => "leads through a link of `/proc` or a loop of links",
            _ => return Error::Start { step: "EnterCwd".into(), source },
        };
        Error::Cwd { cwd: self.cwd.clone(), reason }
    }

    fn explain_program(&self, step: Step, errno: Errno, index: usize, root: &Root) -> Option<String> {
        let file = self.file(index);
        let head = || read_head(root, &file);
        Some(match (step, errno) {
            (Step::Program, Errno::NOENT) if self.program.contains('/') => "no such file or directory".into(),
            (Step::Program, Errno::NOENT) => "executable file not found in $PATH".into(),
            (Step::Program, Errno::LOOP) => "leads through a link of `/proc` or a loop of links".into(),
            (Step::Interpreter, Errno::NOENT) => missing_interpreter(&head())?,
            (Step::Interpreter, _) => format!("`{}`: {}", first_line(&head()), plain(&errno.into())),
            (Step::Exec, Errno::NOENT) => match loader(&head()) {
                Some(loader) => format!("it needs the loader `{loader}`, which is not in the image"),
                None => missing_interpreter(&head())?,
            },
            (Step::Exec, Errno::NOEXEC) => no_program(&head()),
            (Step::Exec | Step::Program, Errno::ACCESS) => no_permission(root, &file),
            (Step::Exec, Errno::PERM) => too_capable(root, &file)?,
            _ => return None,
        })
    }

    /// The path that was tried, absolute.
    fn file(&self, index: usize) -> String {
        let file = self.candidates.get(index).map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        if file.starts_with('/') { file } else { format!("{}/{file}", self.cwd.trim_end_matches('/')) }
    }
}

fn plain(source: &io::Error) -> String {
    let text = source.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Reads the front of a file. The thread that asks has no `/proc`, so the file is opened plainly: the process is dead,
/// and the root has no devices.
fn read_head(root: &Root, file: &str) -> Vec<u8> {
    use std::io::Read as _;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut head = Vec::new();
    if let Ok(opened) = root.open(file, flags) {
        // What cannot be read explains nothing.
        let _ = std::fs::File::from(opened).take(HEAD).read_to_end(&mut head);
    }
    head
}

fn first_line(head: &[u8]) -> String {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(256)]).into_owned()
}

fn missing_interpreter(head: &[u8]) -> Option<String> {
    let line = first_line(head);
    if !line.starts_with("#!") {
        return None;
    }
    Some(match line.strip_suffix('\r') {
        Some(line) => format!("`{line}` ends in a carriage return: the file has Windows line ends"),
        None => format!("`{line}`: interpreter not found in the image"),
    })
}

fn no_permission(root: &Root, file: &str) -> String {
    match root.metadata_followed(file) {
        Ok(metadata) if metadata.is_dir() => "is a directory".into(),
        Ok(metadata) if metadata.is_file() && metadata.mode & 0o111 == 0 => {
            format!("permission denied: the file is not executable (its mode is {:04o})", metadata.mode)
        }
        _ => "permission denied".into(),
    }
}

/// The kernel starts no program whose file promises it what it cannot have (capabilities(7), "safety checking").
fn too_capable(root: &Root, file: &str) -> Option<String> {
    let opened = root.open(file, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK).ok()?;
    let attribute = kiln_sys::xattr::get(&opened, "security.capability").ok()??;
    let names = capability_names(&attribute);
    (!names.is_empty()).then(|| format!("its file wants {}, which is not given here", names.join(", ")))
}

/// The names of what a file gives its program, as far as that is never given to a confined one (vfs_cap_data).
fn capability_names(attribute: &[u8]) -> Vec<&'static str> {
    const NAMES: [(u32, &str); 10] = [
        (12, "cap_net_admin"),
        (13, "cap_net_raw"),
        (19, "cap_sys_ptrace"),
        (21, "cap_sys_admin"),
        (23, "cap_sys_nice"),
        (24, "cap_sys_resource"),
        (27, "cap_mknod"),
        (29, "cap_audit_write"),
        (36, "cap_block_suspend"),
        (38, "cap_perfmon"),
    ];
    let word =
        |at: usize| attribute.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes);
    let permitted = u64::from(word(4)) | u64::from(word(12)) << 32;
    NAMES.iter().filter(|(number, _)| permitted >> number & 1 == 1).map(|(_, name)| *name).collect()
}

fn no_program(head: &[u8]) -> String {
    match elf(head) {
        Some(elf) if elf.machine != MACHINE => {
            format!(
                "exec format error: the file is built for {}, this machine is {}",
                name_of(elf.machine),
                name_of(MACHINE)
            )
        }
        Some(_) => "exec format error: the file is no program that this kernel runs".into(),
        None if head.is_empty() => "exec format error: the file is empty".into(),
        None => "exec format error: the file is neither a program nor a script that begins with `#!`".into(),
    }
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

fn name_of(machine: u16) -> String {
    match machine {
        3 => "386".into(),
        21 => "ppc64".into(),
        22 => "s390x".into(),
        40 => "arm".into(),
        62 => "amd64".into(),
        183 => "arm64".into(),
        243 => "riscv64".into(),
        other => format!("machine {other}"),
    }
}

/// What of an ELF file matters here. Numbers are read as little-endian, as both our machines write them.
struct Elf<'a> {
    machine: u16,
    loader: Option<&'a [u8]>,
}

fn elf(head: &[u8]) -> Option<Elf<'_>> {
    if head.get(..4)? != b"\x7fELF" {
        return None;
    }
    let machine = u16::try_from(number(head, 18, 2)?).ok()?;
    let is_64 = head.get(4) == Some(&2);
    let loader = if is_64 { program_interpreter(head) } else { None };
    Some(Elf { machine, loader })
}

fn program_interpreter(head: &[u8]) -> Option<&[u8]> {
    const INTERPRETER: usize = 3;
    let (table, size, count) = (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?);
    let entries = (0..count).map(|entry| table.checked_add(entry.checked_mul(size)?));
    let at = entries.flatten().find(|at| number(head, *at, 4) == Some(INTERPRETER))?;
    let (start, length) = (number(head, at.checked_add(8)?, 8)?, number(head, at.checked_add(32)?, 8)?);
    let name = head.get(start..start.checked_add(length)?)?;
    name.split(|b| *b == 0).next()
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn loader(head: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(elf(head)?.loader?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_wants_is_told_by_name() {
        // As `setcap cap_net_raw,cap_chown+ep` writes it.
        let attribute = [1, 0, 0, 2, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(capability_names(&attribute), ["cap_net_raw"]);
        assert!(capability_names(&[]).is_empty());
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let head = std::fs::read("/proc/self/exe").unwrap();
        let head = &head[..head.len().min(HEAD as usize)];
        let expected = if cfg!(target_env = "musl") { None } else { Some("ld-linux") };
        assert_eq!(loader(head).is_some_and(|loader| loader.contains("ld-linux")), expected.is_some());
        assert_eq!(elf(head).unwrap().machine, MACHINE);
    }

    #[test]
    fn broken_headers_do_not_panic() {
        let head = std::fs::read("/proc/self/exe").unwrap();
        for length in 0..200 {
            let _ = elf(&head[..length]);
        }
        let mut wild = head[..200].to_vec();
        for at in 0..200 {
            let old = std::mem::replace(&mut wild[at], 0xff);
            let _ = (elf(&wild), no_program(&wild));
            wild[at] = old;
        }
        let _ = elf(&[0xff; 4000]);
    }

    #[test]
    fn lines_of_interpreters_are_quoted() {
        let bash = missing_interpreter(b"#!/bin/bash -e\necho").unwrap();
        assert_eq!(bash, "`#!/bin/bash -e`: interpreter not found in the image");
        let windows = missing_interpreter(b"#!/bin/sh\r\necho").unwrap();
        assert_eq!(windows, "`#!/bin/sh` ends in a carriage return: the file has Windows line ends");
        assert_eq!(missing_interpreter(b"echo"), None);
    }
}
