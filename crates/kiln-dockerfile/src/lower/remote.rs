//! What `ADD` fetches: files from the web, and git repositories.

use std::collections::BTreeMap;

use kiln_graph::Edge;
use kiln_graph::llb::{FileActionCopy, OpKind, SourceOp};
use kiln_oci::Digest;
use kiln_report::Diagnostic;

use super::Fetch;
use super::copy::{Action, Copying};
use super::git::Repository;
use super::stage::{Fail, Stage, Vertex};
use super::urls::file_name;
use crate::instruction::CopyKind;
use crate::parse::Word;
use crate::path;

impl Stage<'_, '_, '_> {
    /// A file from the web.
    pub(super) fn download(&mut self, copying: &Copying<'_>, source: &Word) -> Result<Action, Fail> {
        must_be_add(copying, source)?;
        let filename = file_name(&source.text);
        must_be_usable(&filename, source)?;
        let mut attrs = BTreeMap::from([
            ("http.filename".to_owned(), filename.clone()),
            ("http.perm".to_owned(), "0600".to_owned()),
        ]);
        if let Some(checksum) = &copying.filled.checksum {
            let digest: Result<Digest, _> = checksum.text.parse();
            let digest = digest.map_err(|error| Box::new(Diagnostic::error(checksum.span, error.to_string())))?;
            attrs.insert("http.checksum".to_owned(), digest.to_string());
        }
        let from = self.fetched(copying, (source, SourceOp { identifier: source.text.clone(), attrs }));
        let copy = FileActionCopy {
            src: path::absolute("/", &filename),
            attempt_unpack_docker_compatibility: copying.filled.copy.unpack.unwrap_or(false),
            ..copying.template.clone()
        };
        Ok(Action { from, copy })
    }

    /// A tree of a git repository.
    pub(super) fn repository(&mut self, copying: &Copying<'_>, source: &Word) -> Result<Action, Fail> {
        must_be_add(copying, source)?;
        let mut repository = Repository::read(&source.text).map_err(|wrong| {
            let span = source.part(wrong.at.start, wrong.at.end);
            Box::new(Diagnostic::error(span, wrong.message).hint(wrong.hint))
        })?;
        match (copying.filled.copy.keep_git_dir, repository.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => {
                let message = format!("`keep-git-dir` is {query} in the URL and {flag} in the flag");
                return Err(Box::new(Diagnostic::error(source.span, message).hint("leave one of them out")));
            }
            (flag, query) => repository.keep_git_dir = query.or(flag),
        }
        let mut blamed = source;
        if let Some(flag) = &copying.filled.checksum {
            if let Some(query) = repository.checksum.as_ref().filter(|query| **query != flag.text) {
                let message = format!("the commit is `{query}` in the URL and `{}` in `--checksum`", flag.text);
                return Err(Box::new(Diagnostic::error(flag.span, message).hint("leave one of them out")));
            }
            repository.checksum = Some(flag.text.clone());
            blamed = flag;
        }
        if let Some((message, hint)) = repository.complaint() {
            return Err(Box::new(Diagnostic::error(blamed.span, message).hint(hint)));
        }
        let op = SourceOp { identifier: repository.identifier(), attrs: repository.attrs() };
        let from = self.fetched(copying, (source, op));
        Ok(Action { from, copy: FileActionCopy { src: "/".to_owned(), ..copying.template.clone() } })
    }

    fn fetched(&mut self, copying: &Copying<'_>, (source, op): (&Word, SourceOp)) -> Option<Edge> {
        if !self.is_guessed(source.span) {
            self.all.fetches.push(Fetch { op: op.clone(), span: copying.step.span() });
        }
        let (name, span) = (copying.name.clone(), Some(copying.step.span()));
        Some(self.add(OpKind::Source(op), Vec::new(), Vertex { name, span, ..Vertex::default() }))
    }
}

/// The longest name that a file can have.
const LONGEST_NAME: usize = 255;

/// Fails for a name that no file can have.
fn must_be_usable(name: &str, source: &Word) -> Result<(), Fail> {
    let why = if name.contains('\0') {
        "the name in this URL has a zero byte, and no file's can".to_owned()
    } else if name.len() > LONGEST_NAME {
        format!("the name in this URL has {} bytes, and a file's can have {LONGEST_NAME}", name.len())
    } else {
        return Ok(());
    };
    Err(Box::new(Diagnostic::error(source.span, why).hint("fetch it by another URL, or with RUN")))
}

fn must_be_add(copying: &Copying<'_>, source: &Word) -> Result<(), Fail> {
    match copying.filled.copy.kind {
        CopyKind::Add => Ok(()),
        CopyKind::Copy => {
            let error = Diagnostic::error(source.span, format!("COPY cannot fetch `{}`", source.text));
            Err(Box::new(error.hint("use ADD for URLs and git repositories")))
        }
    }
}
