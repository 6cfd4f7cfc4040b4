//! A text that is worked on: read whole from a file or standard input, and replaced whole.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use kiln_engine::{BuildRequest, Context, Gathered};
use kiln_report::{Failure, FailureKind};

/// No Dockerfile is larger.
const MAX_SIZE: u64 = 16 << 20;
/// What a Dockerfile is called in its directory; the first that is there counts, as in a build.
const NAMES: [&str; 3] = ["Containerfile", "Dockerfile", "dockerfile"];

/// A text and where it came from.
#[derive(Debug)]
pub(crate) struct TextFile {
    name: String,
    text: String,
    /// `None` for standard input.
    path: Option<PathBuf>,
}

impl TextFile {
    /// Reads what is named: a file, the Dockerfile of a directory, or standard input for `-`.
    pub(crate) fn read(name: &Path) -> Result<Self, Failure> {
        if name == Path::new("-") {
            return Self::read_stdin();
        }
        let (path, text) = if name.is_dir() { in_directory(name)? } else { (name.to_owned(), read_text(name)?) };
        Ok(Self { name: path.display().to_string(), text, path: Some(path) })
    }

    fn read_stdin() -> Result<Self, Failure> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let failure = Failure::new(FailureKind::Usage, "standard input is a terminal");
            return Err(failure.hint("send a Dockerfile to it, or name a file"));
        }
        Ok(Self { name: "<stdin>".to_owned(), text: text_of(stdin, "standard input")?, path: None })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The text as it was read.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it came from standard input.
    pub(crate) fn is_stdin(&self) -> bool {
        self.path.is_none()
    }

    /// Replaces the file's text, whole or not at all; mode and owner stay. Gives the name of the file that was written,
    /// which is another one than was named when there were links.
    pub(crate) fn replace(&self, text: &str) -> Result<String, Failure> {
        let path = self.path.as_deref().expect("standard input is never replaced");
        let real = path.canonicalize().map_err(|error| cannot("write", path, &error))?;
        let metadata = real.metadata().map_err(|error| cannot("write", &real, &error))?;
        self.check(&real, &metadata)?;
        write(&real, &metadata, text).map_err(|error| cannot("write", &real, &error))?;
        let is_link = path.is_symlink();
        Ok(if is_link { real.display().to_string() } else { self.name.clone() })
    }

    fn check(&self, real: &Path, metadata: &Metadata) -> Result<(), Failure> {
        let shown = real.display();
        if !metadata.is_file() {
            let failure =
                Failure::new(FailureKind::Usage, format!("`{shown}` is no regular file, and cannot be changed"));
            return Err(failure.hint("use `-` to read from standard input and write to standard output"));
        }
        if metadata.permissions().readonly() {
            let failure = Failure::new(FailureKind::Environment, format!("`{shown}` is read-only"));
            return Err(failure.hint(format!("run `chmod u+w {shown}` first")));
        }
        if read_text(real)? != self.text {
            let failure = Failure::new(FailureKind::Environment, format!("`{shown}` has changed in the meantime"));
            return Err(failure.hint("run the command again"));
        }
        Ok(())
    }
}

fn write(path: &Path, metadata: &Metadata, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir)?;
    new.write_all(text.as_bytes())?;
    let file: &File = new.as_file();
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    file.set_permissions(metadata.permissions())?;
    file.sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Reads the Dockerfile of a directory as a build does: a link in it leads nowhere outside.
fn in_directory(dir: &Path) -> Result<(PathBuf, String), Failure> {
    if !NAMES.iter().any(|name| dir.join(name).is_file()) {
        let message = format!("there is no Dockerfile in `{}`", dir.display());
        return Err(Failure::new(FailureKind::Usage, message).hint("name the file"));
    }
    let request = BuildRequest { context: Context::Dir(dir.to_owned()), ..BuildRequest::default() };
    let found = Gathered::here(request).dockerfile()?;
    let path = Path::new(found.name());
    // The name as it would be typed.
    Ok((path.strip_prefix(".").unwrap_or(path).to_owned(), found.text().to_owned()))
}

/// Reads a file of text that is no larger than a Dockerfile may be.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
    text_of(file, &format!("`{}`", path.display()))
}

fn text_of(input: impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    input.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|error| {
        let mut failure = Failure::new(FailureKind::Environment, format!("cannot read {name}"));
        failure.causes.push(error.to_string());
        failure
    })?;
    if bytes.len() as u64 > MAX_SIZE {
        let message = format!("{name} is larger than {} MiB", MAX_SIZE >> 20);
        return Err(Failure::new(FailureKind::Build, message));
    }
    String::from_utf8(bytes).map_err(|error| Failure::not_utf8(name.trim_matches('`'), &error))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::NotFound => FailureKind::Usage,
        _ => FailureKind::Environment,
    };
    let mut failure = Failure::new(kind, format!("cannot {what} `{}`", path.display()));
    failure.causes.push(error.to_string());
    failure
}
