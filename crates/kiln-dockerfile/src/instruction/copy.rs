//! `COPY` and `ADD`.

use kiln_report::{Diagnostic, Span};

use super::flags::{self, Kind};
use crate::parse::{Arguments, Instruction, Word, heredoc};

/// `COPY` or `ADD`.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Which of the two.
    pub kind: CopyKind,
    /// Paths and URLs.
    pub sources: Vec<Word>,
    /// Texts that stand in the Dockerfile.
    pub documents: Vec<Document>,
    /// Where to.
    pub dest: Word,
    /// `--from`.
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, each.
    pub exclude: Vec<Word>,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// Which of the two copying instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKind {
    /// `COPY`.
    Copy,
    /// `ADD`: takes URLs and unpacks archives too.
    Add,
}

/// A text in the Dockerfile that becomes a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The file's name: the word that ends it.
    pub name: String,
    /// The text.
    pub text: String,
    /// Whether variables in it are filled in.
    pub expand: bool,
    /// Its place.
    pub span: Span,
}

const COPY_FLAGS: [(&str, Kind); 6] = [
    ("from", Kind::Value),
    ("chown", Kind::Value),
    ("chmod", Kind::Value),
    ("link", Kind::Switch),
    ("parents", Kind::Switch),
    ("exclude", Kind::Values),
];

const ADD_FLAGS: [(&str, Kind); 7] = [
    ("chown", Kind::Value),
    ("chmod", Kind::Value),
    ("link", Kind::Switch),
    ("exclude", Kind::Values),
    ("checksum", Kind::Value),
    ("keep-git-dir", Kind::Switch),
    ("unpack", Kind::Switch),
];

/// Reads it.
pub(super) fn read(instruction: &Instruction, kind: CopyKind, diagnostics: &mut Vec<Diagnostic>) -> Option<Copy> {
    let known: &[_] = if kind == CopyKind::Add { &ADD_FLAGS } else { &COPY_FLAGS };
    let flags = flags::read(instruction, known, diagnostics);
    let words = match &instruction.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.as_slice(),
        _ => &[],
    };
    let Some((dest, sources)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        let name = &instruction.keyword.text;
        let message = match words.first() {
            Some(word) => format!("{name} `{}` has no destination", word.text),
            None => format!("{name} has no source and no destination"),
        };
        let hint = format!("write `{name} source… destination`");
        diagnostics.push(Diagnostic::error(instruction.span, message).hint(hint));
        return None;
    };
    let is_json = matches!(instruction.arguments, Arguments::Json(_));
    let is_document = |word: &&Word| !is_json && heredoc::is_start(word);
    if is_document(&dest) {
        let message = "a heredoc cannot be a destination";
        let hint = "put the path of the file to write after it";
        diagnostics.push(Diagnostic::error(dest.span, message).hint(hint));
        return None;
    }
    Some(Copy {
        kind,
        sources: sources.iter().filter(|word| !is_document(word)).cloned().collect(),
        documents: sources.iter().filter(is_document).filter_map(|word| document(word, instruction)).collect(),
        dest: dest.clone(),
        from: flags.value("from"),
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.values("exclude"),
        checksum: flags.value("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })
}

fn document(word: &Word, instruction: &Instruction) -> Option<Document> {
    let start = heredoc::start(&word.text)?;
    let found = instruction.heredocs.iter().rev().find(|heredoc| heredoc.name == start.name);
    Some(Document {
        text: found.map(|heredoc| heredoc.text()).unwrap_or_default(),
        span: found.map_or(word.span, |heredoc| heredoc.content_span),
        name: start.name,
        expand: start.expand,
    })
}
