//! Contexts as people and checks ask about them: what a build sees, what it does not, and why.

use std::path::Path;

use kiln_dockerfile::check::{IgnoreRule, SourceFact, ignored_source, missing_source, unfiltered_context};
use kiln_dockerfile::{CheckConfig, ContextRead, Reader};
use kiln_fs::pattern::PatternSet;
use kiln_fs::{Presence, SourceTree, Survey};
use kiln_report::{Diagnostic, Failure, FailureKind};

use crate::failure::Context as _;
use crate::frontend::{self, CONTEXT, LocalTree, Trees};
use crate::job::Result;
use crate::request::{BuildRequest, Context};
use crate::step::missing::QUIET;

/// What lies about in projects and hardly ever belongs into an image.
const WASTE: [&str; 6] = [".git", ".hg", ".svn", "node_modules", ".venv", "__pycache__"];

/// The contexts of a build, opened to be asked about.
#[derive(Debug)]
pub struct Contexts {
    trees: Trees,
}

/// Which questions a check may ask of contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContextChecks {
    /// Those that ignore rules answer alone, in no time: for builds.
    Rules,
    /// Also whether what instructions take is there.
    Sources,
    /// Also what is no mistake, and could be better.
    All,
}

/// Something a build sees of its contexts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentFile {
    /// The name of the context.
    pub context: String,
    /// The path in it; an empty directory ends in `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// Something it does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutFile {
    /// The name of the context.
    pub context: String,
    /// The path in it; a directory, with all that is in it, ends in `/`.
    pub path: String,
    /// The rule that hides it.
    pub rule: IgnoreRule,
}

/// What becomes of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVerdict {
    /// The path in its context, links followed.
    pub path: String,
    /// Whether a build sees it.
    pub is_sent: bool,
    /// The rule that decided; none when no pattern matches.
    pub rule: Option<IgnoreRule>,
    /// How many files of a directory a build sees although the directory is left out.
    pub taken_back: usize,
}

/// A context that changes because kiln keeps its state in it never comes to rest.
#[expect(clippy::disallowed_methods, reason = "the context and the state directory are what whoever runs us names")]
pub(crate) fn blame_state(failure: Failure, context: &Context, state: &Path) -> Failure {
    let Context::Dir(directory) = context else { return failure };
    let (directory, state) = (directory.canonicalize(), state.canonicalize());
    let within = directory
        .ok()
        .zip(state.ok())
        .and_then(|(directory, state)| state.strip_prefix(directory).ok().map(|within| within.display().to_string()));
    match within {
        Some(within) if failure.hints.iter().any(|hint| hint == QUIET) => {
            let hint = format!(
                "the state directory `{within}` is in the context, and builds write to it: leave it out with `.dockerignore`, or \
                 keep it elsewhere with `--state`"
            );
            Failure { hints: vec![hint], ..failure }
        }
        _ => failure,
    }
}

impl Contexts {
    /// Opens the directories a build would read, with their ignore rules. `directory` is the main context, if there is any.
    pub(crate) fn of(request: &BuildRequest, directory: Option<&Path>) -> Result<Self> {
        Ok(Self { trees: frontend::trees(request, directory)? })
    }

    /// All that a build sees, sorted by context and path.
    pub fn sent(&self) -> Result<Vec<SentFile>> {
        let mut all = Vec::new();
        for (context, tree) in &self.trees {
            all.extend(survey(tree)?.sent.into_iter().map(|sent| {
                let is_dir = sent.kind == kiln_sys::metadata::FileKind::Directory;
                SentFile { context: context.clone(), path: shown(&sent.path, is_dir), size: sent.size }
            }));
        }
        Ok(all)
    }

    /// All that it does not see, sorted by context and path. Of a directory without exceptions, only the directory.
    pub fn left_out(&self) -> Result<Vec<LeftOutFile>> {
        let mut all = Vec::new();
        for (context, tree) in &self.trees {
            all.extend(survey(tree)?.left_out.into_iter().filter_map(|left| {
                let path = shown(&left.path, left.is_dir);
                Some(LeftOutFile { context: context.clone(), path, rule: tree.rule(left.rule)? })
            }));
        }
        Ok(all)
    }

    /// What becomes of a path of a context, and by which rule.
    pub fn why(&self, context: &str, path: &str) -> Result<PathVerdict> {
        let tree = self.tree(context)?;
        let verdict = kiln_fs::verdict(tree.tree(), path.as_bytes()).map_err(|error| missing(tree, path, &error))?;
        let rule = verdict.rule.and_then(|rule| tree.rule(rule));
        let mut taken_back = 0;
        if verdict.is_hidden && verdict.is_dir {
            let inside = [verdict.path.as_slice(), b"/"].concat();
            taken_back = survey(tree)?.sent.iter().filter(|sent| sent.path.starts_with(&inside)).count();
        }
        let path = shown(&verdict.path, verdict.is_dir);
        Ok(PathVerdict { path, is_sent: !verdict.is_hidden, rule, taken_back })
    }

    /// What there is at a path that an instruction takes.
    pub fn source(&self, read: &ContextRead) -> Result<SourceFact> {
        source(self.tree(&read.context)?, read)
    }

    /// What is wrong with what instructions take from these contexts, as far as the settings want to know it.
    pub fn check(&self, reads: &[ContextRead], config: &CheckConfig, checks: ContextChecks) -> Result<Vec<Diagnostic>> {
        check(&self.trees, reads, config, checks)
    }

    fn tree(&self, name: &str) -> Result<&LocalTree> {
        let tree = self.trees.get(name).map(AsRef::as_ref);
        tree.ok_or_else(|| Failure::new(FailureKind::Usage, format!("there is no context `{name}` to look into")))
    }
}

/// Whether ignore patterns hide a path, given from the top of a context.
pub fn is_ignored(patterns: &[String], path: &str) -> Result<bool> {
    let patterns = PatternSet::new(patterns).map_err(crate::failure::build)?;
    Ok(patterns.matches(path))
}

/// The findings about `reads`, in their order.
pub(crate) fn check(
    trees: &Trees,
    reads: &[ContextRead],
    config: &CheckConfig,
    checks: ContextChecks,
) -> Result<Vec<Diagnostic>> {
    let mut findings = Findings { config, all: Vec::new() };
    for read in reads {
        let Some(tree) = trees.get(&read.context) else { continue };
        if let Some(rule) = ignored(tree, read) {
            findings.push(read, ignored_source(read, &rule));
        } else if checks >= ContextChecks::Sources && read.is_certain {
            findings.extend(read, missing_source(read, &source(tree, read)?, &tree.title()));
        }
    }
    if checks == ContextChecks::All {
        findings.unfiltered(trees, reads)?;
    }
    Ok(findings.all)
}

struct Findings<'a> {
    config: &'a CheckConfig,
    all: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn push(&mut self, read: &ContextRead, finding: Diagnostic) {
        self.extend(read, Some(finding));
    }

    fn extend(&mut self, read: &ContextRead, finding: Option<Diagnostic>) {
        let is_wanted = |finding: &Diagnostic| finding.rule.is_none_or(|rule| self.config.allows(rule, &read.comments));
        self.all.extend(finding.filter(is_wanted));
    }

    /// Looks at the first instruction that takes a whole context without any ignore file.
    fn unfiltered(&mut self, trees: &Trees, reads: &[ContextRead]) -> Result<()> {
        let is_meant = |read: &&ContextRead| read.by != Reader::Mount && read.takes_all();
        for read in reads.iter().filter(is_meant) {
            let Some(tree) = trees.get(&read.context).filter(|tree| !tree.is_filtered()) else { continue };
            let waste = waste(tree)?;
            if !waste.is_empty() {
                self.push(read, unfiltered_context(read, &waste));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The rule that hides a source of COPY or ADD, by the patterns alone. Where exceptions may bring parts of a directory
/// back, as in BuildKit, nothing is said.
fn ignored(tree: &LocalTree, read: &ContextRead) -> Option<IgnoreRule> {
    let ignore = tree.tree().ignore.as_ref().filter(|ignore| !ignore.has_exceptions())?;
    if read.by == Reader::Mount || read.context != CONTEXT {
        return None;
    }
    let index = match read.takes_all() {
        true => ignore.hides_all(),
        false => ignore.decided_by(&read.clean_path()),
    };
    tree.rule(index?)
}

fn source(tree: &LocalTree, read: &ContextRead) -> Result<SourceFact> {
    let spec = crate::step::copy_spec(&read.copy, None)?;
    let presence = kiln_fs::probe(tree.tree(), &spec);
    let presence = presence.or_environment(|| format!("cannot look for `{}` in {}", read.path, tree.title()))?;
    Ok(match presence {
        Presence::Present => SourceFact::Present,
        Presence::Missing(near) => SourceFact::Missing(near),
        Presence::Unmatched => SourceFact::Unmatched,
        Presence::Socket => SourceFact::Socket,
        Presence::Hidden(index, pattern) => {
            SourceFact::Ignored(tree.rule(index).unwrap_or(IgnoreRule { pattern, place: String::new() }))
        }
    })
}

/// What is at the top of a context that nobody wants in an image, and its bytes.
fn waste(tree: &LocalTree) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for name in WASTE {
        let Ok(root) = tree.tree().root.subroot(name) else { continue };
        let survey = kiln_fs::survey(&SourceTree::snapshot(root));
        let survey = survey.or_environment(|| format!("cannot list `{name}` in {}", tree.title()))?;
        found.push((name.to_owned(), survey.sent.iter().map(|sent| sent.size).sum()));
    }
    Ok(found)
}

fn survey(tree: &LocalTree) -> Result<Survey> {
    kiln_fs::survey(tree.tree()).or_environment(|| format!("cannot list {}", tree.title()))
}

fn missing(tree: &LocalTree, path: &str, error: &kiln_fs::Error) -> Failure {
    let kiln_fs::Error::NotFound { similar, .. } = error else {
        return Failure::from_error(FailureKind::Environment, error);
    };
    let failure = Failure::new(FailureKind::Build, format!("`{path}` is not in {}", tree.title()));
    match similar.is_empty() {
        true => failure.hint(format!("check the path; paths are relative to {}", tree.title())),
        false => failure.hint(format!("did you mean `{}`?", similar.join("` or `"))),
    }
}

fn shown(path: &[u8], is_dir: bool) -> String {
    match (path, is_dir) {
        (b"", _) => ".".to_owned(),
        (path, true) => format!("{}/", String::from_utf8_lossy(path)),
        (path, false) => String::from_utf8_lossy(path).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use kiln_dockerfile::{LowerOptions, context_reads, parse};
    use kiln_report::SourceFile;

    use super::*;

    fn found(dir: &Path, dockerfile: &str, checks: ContextChecks) -> Vec<String> {
        let (file, errors) = parse(dockerfile);
        assert!(errors.is_empty(), "{errors:?}");
        let options = LowerOptions::new(Arc::new(SourceFile::new("Dockerfile", dockerfile)));
        let request = BuildRequest { context: Context::Dir(dir.to_owned()), ..BuildRequest::default() };
        let contexts = Contexts::of(&request, Some(dir)).unwrap();
        let config = CheckConfig::of(&file).unwrap();
        let found = contexts.check(&context_reads(&file, &options), &config, checks).unwrap();
        found.iter().map(|finding| format!("{} {}", finding.rule.unwrap_or_default(), finding.message)).collect()
    }

    fn write(dir: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn a_state_directory_in_a_context_that_never_rests_is_told() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("c/kept/f", ""), ("elsewhere/f", "")]);
        let told = |state: &str, hint: &str| {
            let failure = Failure::new(FailureKind::Build, "changed").hint(hint);
            blame_state(failure, &Context::Dir(dir.path().join("c")), &dir.path().join(state)).hints.join("")
        };
        assert!(told("c/kept", QUIET).starts_with("the state directory `kept` is in the context"));
        assert_eq!(told("elsewhere", QUIET), QUIET);
        assert_eq!(told("c/kept", "something else"), "something else");
    }

    #[test]
    fn a_whole_context_with_a_repository_and_no_ignore_file_is_told_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("src/a", "a"), (".git/objects/pack", &"x".repeat(12_345)), ("node_modules/a/b", "12")]);
        let whole = "FROM scratch\nCOPY src /src\nCOPY . /\nADD ./ /again/\n";
        let wanted = "ContextNotFiltered the whole context is taken, with `.git` (12.35kB) and `node_modules` (2B)";
        assert_eq!(found(dir.path(), whole, ContextChecks::All), [wanted]);
        assert_eq!(found(dir.path(), whole, ContextChecks::Sources), [""; 0]);
        assert_eq!(found(dir.path(), "FROM scratch\nCOPY src /\n", ContextChecks::All), [""; 0]);
        let skipped = "FROM scratch\n# check=skip=ContextNotFiltered\nCOPY . /\n";
        assert_eq!(found(dir.path(), skipped, ContextChecks::All), [""; 0]);
        write(dir.path(), &[(".dockerignore", "")]);
        assert_eq!(found(dir.path(), whole, ContextChecks::All), [""; 0]);
    }

    #[test]
    fn builds_ask_the_patterns_alone_and_no_files() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[(".dockerignore", "*.env\n")]);
        let dockerfile = "FROM scratch\nCOPY gone.env gone.txt /\n";
        let ignored = "CopyIgnoredFile `gone.env` is left out by the pattern `*.env` at .dockerignore:1";
        assert_eq!(found(dir.path(), dockerfile, ContextChecks::Rules), [ignored]);
        let missing = format!("CopySourceMissing `gone.txt` is not in the build context `{}`", dir.path().display());
        assert_eq!(found(dir.path(), dockerfile, ContextChecks::Sources), [ignored, &missing]);
        // Exceptions may bring a part of anything back: only a look at the files can tell.
        write(dir.path(), &[(".dockerignore", "*.env\n!x/y\n")]);
        assert_eq!(found(dir.path(), dockerfile, ContextChecks::Rules), [""; 0]);
    }
}
