//! Standard input of a build: a Dockerfile, or a context that is told apart from one by its first bytes.

use std::io::{self, Cursor, IsTerminal, Read};

use kiln_engine::{Context, DockerfileSource};
use kiln_report::{Failure, FailureKind};

use crate::args::build::BuildPlan;

/// No Dockerfile is larger.
const MAX_DOCKERFILE: u64 = 16 << 20;
/// A tar header.
const BLOCK: usize = 512;

/// Reads what the plan expects on standard input, and returns what the engine may still read from it.
pub(crate) fn settle(plan: &mut BuildPlan) -> Result<Option<Box<dyn Read + Send>>, Failure> {
    let is_context = matches!(plan.request.context, Context::Stdin);
    if !is_context && !plan.is_dockerfile_on_stdin {
        return Ok(None);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(
            usage("standard input is a terminal").hint("send a Dockerfile or a tar to it: `kiln build - < FILE`")
        );
    }
    settle_from(plan, Box::new(stdin))
}

fn settle_from(plan: &mut BuildPlan, mut input: Box<dyn Read + Send>) -> Result<Option<Box<dyn Read + Send>>, Failure> {
    if plan.is_dockerfile_on_stdin {
        plan.request.dockerfile = DockerfileSource::Text(read_text(input)?);
        return Ok(None);
    }
    let mut start = Vec::new();
    input.by_ref().take(BLOCK as u64).read_to_end(&mut start).map_err(cannot_read)?;
    let is_archive = is_archive(&start);
    let whole = Cursor::new(start).chain(input);
    if is_archive {
        return Ok(Some(Box::new(whole)));
    }
    match &plan.request.dockerfile {
        DockerfileSource::InContext(name) => {
            return Err(usage(format!("standard input is no tar, so there is no `{name}` in it")));
        }
        DockerfileSource::Several(_) => return Err(usage("standard input is no tar, so there are no files in it")),
        DockerfileSource::Remote(_) => return Err(usage("standard input is no tar, and the Dockerfile is elsewhere")),
        DockerfileSource::Default | DockerfileSource::Path(_) | DockerfileSource::Text(_) => {}
    }
    plan.request.context = Context::Empty;
    plan.request.dockerfile = DockerfileSource::Text(read_text(whole)?);
    Ok(None)
}

fn read_text(input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    input.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(usage(format!("the Dockerfile on standard input is larger than {} MiB", MAX_DOCKERFILE >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| usage("what comes on standard input is neither a Dockerfile nor a tar"))
}

/// Whether bytes begin a tar or a compressed file.
fn is_archive(start: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    MAGIC.iter().any(|magic| start.starts_with(magic)) || is_tar_header(start)
}

/// A tar header carries the sum of its bytes, its own field counted as blanks; old tars have no other mark.
fn is_tar_header(block: &[u8]) -> bool {
    if block.len() < BLOCK {
        return false;
    }
    let field = &block[148..156];
    let digits: String = field.iter().map(|b| char::from(*b)).filter(|c| c.is_digit(8)).collect();
    let sum: u32 =
        block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
    u32::from_str_radix(&digits, 8) == Ok(sum)
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

fn cannot_read(error: io::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Environment, "cannot read standard input");
    failure.causes.push(error.to_string());
    failure
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{Command, Environment, parse};

    fn plan(line: &str) -> BuildPlan {
        let Command::Build(args) = parse(line.split(' ').map(OsString::from).collect()).unwrap().command else {
            panic!("a build");
        };
        args.plan(&Environment::default()).unwrap()
    }

    fn tar_header() -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..4].copy_from_slice(b"file");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    #[test]
    fn a_tar_is_handed_on_whole() {
        let mut bytes = tar_header();
        bytes.extend(b"more");
        let mut plan = plan("kiln build -f a/D -");
        let mut rest = settle_from(&mut plan, Box::new(Cursor::new(bytes.clone()))).unwrap().expect("a context");
        let mut read = Vec::new();
        rest.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert!(matches!(plan.request.context, Context::Stdin));
    }

    #[test]
    fn compressed_tars_are_known_by_their_first_bytes() {
        for magic in [&b"\x1f\x8b\x08"[..], b"BZh9", b"\xfd7zXZ\0\0", b"\x28\xb5\x2f\xfd\x00"] {
            assert!(is_archive(magic));
        }
        assert!(!is_archive(b"FROM busybox\n") && !is_archive(&[b'x'; BLOCK]) && !is_archive(&[0; BLOCK]));
    }

    #[test]
    fn a_dockerfile_alone_is_a_build_without_files() {
        for line in ["kiln build -", "kiln build -f - ."] {
            let mut plan = plan(line);
            assert!(settle_from(&mut plan, Box::new(&b"FROM scratch\n"[..])).unwrap().is_none());
            assert!(matches!(&plan.request.dockerfile, DockerfileSource::Text(text) if text == "FROM scratch\n"));
            assert_eq!(matches!(plan.request.context, Context::Empty), line.ends_with("build -"), "{line}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        let of =
            |line: &str, bytes: &'static [u8]| settle_from(&mut plan(line), Box::new(bytes)).err().unwrap().message;
        assert_eq!(of("kiln build -", b"\xff\xfe"), "what comes on standard input is neither a Dockerfile nor a tar");
        assert_eq!(of("kiln build -f D -", b"FROM a"), "standard input is no tar, so there is no `D` in it");
    }
}
