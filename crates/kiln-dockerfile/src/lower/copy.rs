//! `COPY` and `ADD`.

use kiln_graph::Edge;
use kiln_graph::llb::{FileAction, FileActionCopy, FileActionKind, FileOp, MergeInput, MergeOp, OpKind, SourceOp};
use kiln_report::{Diagnostic, without_credentials};

use super::git::is_git;
use super::names;
use super::owner::{self, Mode};
use super::plan::Step;
use super::stage::{Fail, Layer, Stage, Vertex};
use super::urls::is_http;
use crate::expand::{Layered, Lexer};
use crate::instruction::{Copy, CopyKind};
use crate::parse::Word;
use crate::path;

/// A copying instruction with its variables filled in.
pub(super) struct Filled<'s> {
    pub(super) copy: &'s Copy,
    sources: Vec<Word>,
    dest: Word,
    chown: Option<Word>,
    chmod: Option<Word>,
    pub(super) checksum: Option<Word>,
}

/// What every source of an instruction is copied by.
pub(super) struct Copying<'s> {
    pub(super) step: &'s Step<'s>,
    pub(super) filled: Filled<'s>,
    /// What all actions share.
    pub(super) template: FileActionCopy,
    /// The step's name.
    pub(super) name: String,
    /// Where what was meant for sources ends, when a comment that is none follows.
    pub(super) sources_end: Option<usize>,
}

/// One action: what is copied, and from where.
pub(super) struct Action {
    pub(super) from: Option<Edge>,
    pub(super) copy: FileActionCopy,
}

impl Stage<'_, '_, '_> {
    pub(super) fn copy(&mut self, step: &Step<'_>, copy: &Copy) -> Result<(), Fail> {
        let first = self.all.errors.len();
        let Some(filled) = self.fill(copy) else { return Ok(()) };
        let keyword = if copy.kind == CopyKind::Add { "ADD" } else { "COPY" };
        let mut history = keyword.to_owned();
        let flags = [("--chown", &filled.chown), ("--chmod", &filled.chmod)];
        history.push_str(if copy.parents { " --parents" } else { "" });
        for (flag, value) in flags {
            history.extend(value.iter().map(|value| format!(" {flag}={}", value.text)));
        }
        let shown = self.copy_name(step, copy);
        let name = self.name_step(&shown);
        let template = self.template(&filled);
        let sources_end = self.sources_end(step);
        let copying = Copying { step, filled, template, name, sources_end };
        let mut actions = Vec::new();
        for source in &copying.filled.sources {
            history.push_str(&format!(" {}", without_credentials(&source.text)));
            let action = self.source_action(&copying, source);
            actions.extend(self.tell(action));
        }
        let Copying { filled, template, name, .. } = copying;
        for document in &copy.documents {
            history.push_str(&format!(" <<{}", document.name));
            let text = if document.expand { self.fill_document(document) } else { Ok(document.text.clone()) };
            let Some(text) = self.tell(text) else { continue };
            let from = Some(self.document(&document.name, 0o644, text));
            let src = path::absolute("/", &document.name);
            actions.push(Action { from, copy: FileActionCopy { src, ..template.clone() } });
        }
        if self.all.errors.len() > first {
            return Ok(());
        }
        history.push_str(&format!(" {}", filled.dest.text));
        if copy.link {
            self.link(step, actions, &shown, name);
        } else {
            let base = self.state.root.clone();
            let vertex =
                Vertex { name, span: Some(step.span()), ignore_cache: self.ignores_cache(), ..Vertex::default() };
            self.state.root = Some(self.add_actions(base, actions, vertex));
        }
        self.record(format!("{history} # buildkit"), Layer::Made);
        Ok(())
    }

    /// Its name; `--from` shows what its arguments, which are the whole file's, stand for.
    fn copy_name(&self, step: &Step<'_>, copy: &Copy) -> String {
        let lexer = self.all.cx.lexer;
        if copy.from.as_ref().is_some_and(|from| from.text.contains('$')) {
            let env = Layered { over: &self.state.env, under: &self.all.cx.globals.env };
            return names::shown(lexer, step.text(), &env);
        }
        names::shown(lexer, step.text(), &self.state.env)
    }

    /// Adds the files as a tree of their own and lays it over what there is, so that the base can change alone.
    fn link(&mut self, step: &Step<'_>, actions: Vec<Action>, shown: &str, name: String) {
        let (span, ignore_cache) = (Some(step.span()), self.ignores_cache());
        let copied = self.add_actions(None, actions, Vertex { name, span, ignore_cache, ..Vertex::default() });
        let Some(base) = self.state.root.clone() else {
            self.state.root = Some(copied);
            return;
        };
        let name = self.name_same_step(&format!("LINK {shown}"));
        let inputs = vec![MergeInput { input: 0 }, MergeInput { input: 1 }];
        let op = OpKind::Merge(MergeOp { inputs });
        let vertex = Vertex { name, span, ignore_cache, ..Vertex::default() };
        self.state.root = Some(self.add(op, vec![base, copied], vertex));
    }

    /// Chains actions into one operation on `base`.
    fn add_actions(&mut self, base: Option<Edge>, actions: Vec<Action>, vertex: Vertex<'_>) -> Edge {
        let mut inputs: Vec<Edge> = base.iter().cloned().collect();
        let sources: Vec<i64> =
            actions.iter().map(|action| action.from.as_ref().map_or(-1, |edge| index_of(&mut inputs, edge))).collect();
        let count = inputs.len() as i64;
        let last = actions.len().saturating_sub(1);
        let chain = actions.into_iter().zip(sources).enumerate().map(|(at, (action, secondary_input))| FileAction {
            input: match at {
                0 => base.as_ref().map_or(-1, |_| 0),
                _ => count + at as i64 - 1,
            },
            secondary_input,
            output: if at == last { 0 } else { -1 },
            action: Some(FileActionKind::Copy(action.copy)),
        });
        let op = OpKind::File(FileOp { actions: chain.collect() });
        self.add(op, inputs, vertex)
    }

    /// Fills variables in; nothing if any cannot be.
    fn fill<'s>(&mut self, copy: &'s Copy) -> Option<Filled<'s>> {
        let first = self.all.errors.len();
        let mut word = |word: &Word| self.filled(word).map(|text| Word { text, span: word.span });
        let mut flag = |flag: &Option<Word>| flag.as_ref().and_then(&mut word).filter(|word| !word.text.is_empty());
        let (chown, chmod, checksum) = (flag(&copy.chown), flag(&copy.chmod), flag(&copy.checksum));
        let sources = copy.sources.iter().filter_map(&mut word).collect();
        let dest = word(&copy.dest)?;
        if self.all.errors.len() > first {
            return None;
        }
        let filled = Filled { copy, sources, dest, chown, chmod, checksum };
        self.tell(check_checksum(&filled))?;
        Some(filled)
    }

    /// In a document only variables and escapes are undone; quotes are text.
    fn fill_document(&mut self, document: &crate::instruction::Document) -> Result<String, Fail> {
        let word = Word { text: document.text.clone(), span: document.span };
        let lexer = Lexer { ignores_quotes: true, ..Lexer::new('\\') };
        self.expand_as(lexer, &word).map(|expansion| expansion.text)
    }

    /// What all actions of an instruction share.
    fn template(&mut self, filled: &Filled<'_>) -> FileActionCopy {
        let dest = match filled.dest.text.as_str() {
            "" | "." => "./",
            dest => dest,
        };
        let has_base = self.state.root.is_some() && !filled.copy.link;
        let owner = match &filled.chown {
            Some(chown) => {
                self.tell(check_owner(chown, filled.copy.link));
                Some(owner::owner(&chown.text, if has_base { 0 } else { -1 }))
            }
            None => None,
        };
        let (mode, mode_str) = match &filled.chmod {
            Some(word) => match owner::mode(&word.text) {
                // As text it is not for the parents: a linked layer would lay theirs over the image's directories.
                Some(Mode::Octal(mode)) if filled.copy.link => (0, format!("{mode:04o}")),
                Some(Mode::Octal(mode)) => (mode, String::new()),
                Some(Mode::Symbolic(text)) => (0, text),
                None => {
                    let error = Diagnostic::error(word.span, format!("`{}` is no way to set permissions", word.text));
                    self.all.errors.push(error.hint("use octal digits up to `7777`, or letters as in `u=rwX,go=rX`"));
                    (-1, String::new())
                }
            },
            None => (-1, String::new()),
        };
        FileActionCopy {
            dest: path::absolute_keeping_slash(&self.state.dir, dest),
            owner,
            mode,
            mode_str,
            exclude_patterns: filled.copy.exclude.iter().map(|word| word.text.clone()).collect(),
            create_dest_path: true,
            timestamp: -1,
            ..FileActionCopy::default()
        }
    }

    fn source_action(&mut self, copying: &Copying<'_>, source: &Word) -> Result<Action, Fail> {
        if is_git(&source.text) {
            return self.repository(copying, source);
        }
        if is_http(&source.text) {
            return self.download(copying, source);
        }
        let Copying { step, filled, template, .. } = copying;
        let from = match step.from {
            Some(node) => self.all.root_of(node),
            None => Some(self.build_context()),
        };
        let (src, include_patterns, required_paths) =
            if filled.copy.parents { with_parents(&source.text) } else { (source.text.clone(), vec![], vec![]) };
        let copy = FileActionCopy {
            src: path::absolute("/", &src),
            include_patterns,
            required_paths,
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack_docker_compatibility: filled.copy.unpack.unwrap_or(filled.copy.kind == CopyKind::Add),
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..template.clone()
        };
        self.note_source(copying, source, &copy);
        Ok(Action { from, copy })
    }

    /// The build context.
    pub(super) fn build_context(&mut self) -> Edge {
        let op = OpKind::Source(SourceOp { identifier: "local://context".to_owned(), attrs: Default::default() });
        let name = "[internal] load build context".to_owned();
        self.add(op, Vec::new(), Vertex { name, ..Vertex::default() })
    }
}

fn index_of(inputs: &mut Vec<Edge>, edge: &Edge) -> i64 {
    let at = inputs.iter().position(|input| input == edge).unwrap_or_else(|| {
        inputs.push(edge.clone());
        inputs.len() - 1
    });
    at as i64
}

fn check_checksum(filled: &Filled<'_>) -> Result<(), Fail> {
    let Some(checksum) = &filled.checksum else { return Ok(()) };
    let (message, hint) = match filled.sources.as_slice() {
        [source] if filled.copy.documents.is_empty() => {
            if is_http(&source.text) || is_git(&source.text) {
                return Ok(());
            }
            let message = format!("`--checksum` is for what is fetched, and `{}` is a local path", source.text);
            (message, "leave it out, or name a URL")
        }
        _ => ("`--checksum` is for a single source".to_owned(), "write one ADD for each source that has a checksum"),
    };
    Err(Box::new(Diagnostic::error(checksum.span, message).hint(hint)))
}

fn check_owner(chown: &Word, is_link: bool) -> Result<(), Fail> {
    let Some(name) = owner::named(&chown.text).filter(|_| is_link) else { return Ok(()) };
    let message = format!("`{name}` cannot be looked up: a linked layer knows nothing of the image below it");
    Err(Box::new(Diagnostic::error(chown.span, message).hint("use numbers in `--chown`, or leave `--link` out")))
}

/// What `--parents` makes of a source: where it begins, what is taken, and what must be there.
fn with_parents(source: &str) -> (String, Vec<String>, Vec<String>) {
    let (parent, pattern) = source.split_once("/./").unwrap_or(("/", source));
    let pattern = path::absolute("/", pattern);
    let is_literal = !has_wildcards(parent) && !has_wildcards(&pattern);
    let required = is_literal.then(|| path::absolute("/", &format!("{parent}/{pattern}")));
    (parent.to_owned(), vec![pattern.trim_start_matches('/').to_owned()], required.into_iter().collect())
}

fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_keep_what_follows_the_pivot() {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (source, src, include, required) in [
            ("a/b.txt", "/", "a/b.txt", vec!["/a/b.txt"]),
            ("x/./y/*.txt", "x", "y/*.txt", vec![]),
            ("x/./y/z", "x", "y/z", vec!["/x/y/z"]),
            ("./a", "/", "a", vec!["/a"]),
        ] {
            let wanted = (src.to_owned(), vec![include.to_owned()], strings(&required));
            assert_eq!(with_parents(source), wanted, "{source}");
        }
    }
}
