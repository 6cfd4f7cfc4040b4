//! COPY and ADD.

use kiln_dockerfile::Instruction;
use kiln_dockerfile::instruction::{Command, Copy, CopyKind};
use kiln_report::{Edit, Level, Safety};

use super::packages;
use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::shell::Call;
use crate::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "AddInsteadOfCopy",
        aliases: &["DL3020"],
        level: Level::Error,
        scope: Scope::Check,
        summary: "ADD is used where COPY does the same",
        why: "ADD fetches URLs and unpacks archives, depending on what its source is. Where that is not wanted, COPY says so, and \
              keeps doing so when the file becomes an archive.",
        bad: "FROM debian:12\nADD app.py /srv/\n",
        good: "FROM debian:12\nCOPY app.py /srv/\n",
        check: add,
    },
    Rule {
        name: "CopyManyToOne",
        aliases: &["DL3021"],
        level: Level::Warning,
        scope: Scope::Build,
        summary: "several sources are copied to a path that is not written as a directory",
        why: "When the last path does not end in `/` and is no directory yet, each source becomes the file of that name, and the \
              last one stays. Classic builders refuse it.",
        bad: "FROM debian:12\nCOPY a.txt b.txt /srv\n",
        good: "FROM debian:12\nCOPY a.txt b.txt /srv/\n",
        check: many_to_one,
    },
    Rule {
        name: "CopyFromUnknownStage",
        aliases: &["DL3022"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "COPY takes from a name that no stage above has",
        why: "A name that is no stage's is taken for an image's, and pulled from Docker Hub. Most of the time a stage has been \
              renamed, or stands further below. A context that is named on the command line is meant on purpose; switch \
              the rule off for it.",
        bad: "FROM golang:1.23 AS build\nRUN make\nFROM debian:12\nCOPY --from=builder /app /app\n",
        good: "FROM golang:1.23 AS build\nRUN make\nFROM debian:12\nCOPY --from=build /app /app\n",
        check: from_unknown,
    },
    Rule {
        name: "CopyFromItself",
        aliases: &["DL3023"],
        level: Level::Error,
        scope: Scope::Check,
        summary: "COPY takes from the stage it stands in",
        why: "A stage cannot take from itself while it is made. The name is taken for an image's, which is hardly meant.",
        bad: "FROM debian:12 AS app\nCOPY --from=app /a /b\n",
        good: "FROM debian:12 AS build\nFROM debian:12 AS app\nCOPY --from=build /a /b\n",
        check: from_itself,
    },
    Rule {
        name: "CopyToRelativePath",
        aliases: &["DL3045"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "COPY goes to a relative path, and no WORKDIR says where that is",
        why: "Without a WORKDIR the files land wherever the base image happens to be, mostly in `/`, and elsewhere after its next \
              release.",
        bad: "FROM debian:12\nCOPY . .\n",
        good: "FROM debian:12\nWORKDIR /app\nCOPY . .\n",
        check: to_relative,
    },
    Rule {
        name: "CopyWholeFilesystem",
        aliases: &["DL3067"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "all of another stage or image is copied over this one",
        why: "The layer then has a second copy of everything, tools and caches included, and replaces files of the base it lies on. \
              Begin with that image instead, or copy what is needed. Into `scratch` it is a way to make one layer of many, \
              and is let pass.",
        bad: "FROM golang:1.23 AS build\nRUN make\nFROM debian:12\nCOPY --from=build / /\n",
        good: "FROM golang:1.23 AS build\nRUN make\nFROM debian:12\nCOPY --from=build /out/ /usr/local/\n",
        check: whole,
    },
    Rule {
        name: "CopyBeforeInstall",
        aliases: &[],
        level: Level::Info,
        scope: Scope::Check,
        summary: "dependencies are installed after all of the source was copied",
        why: "Every change of any file makes everything after the COPY run again, also the installation of dependencies that \
              have not changed. Copied on their own first, the files that list them keep its result cached.",
        bad: "FROM node:22\nWORKDIR /app\nCOPY . .\nRUN npm ci\n",
        good: "FROM node:22\nWORKDIR /app\nCOPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .\n",
        check: before_install,
    },
];

/// All COPYs and ADDs, each with the numbers of its stage and of itself in it.
fn copies<'v, 'a>(view: &'v View<'a>) -> impl Iterator<Item = (usize, usize, &'a Instruction, &'a Copy)> + use<'v, 'a> {
    view.stages.iter().enumerate().flat_map(|(number, stage)| {
        stage.body.iter().enumerate().filter_map(move |(index, instruction)| match &instruction.command {
            Some(Command::Copy(copy)) => Some((number, index, *instruction, &**copy)),
            _ => None,
        })
    })
}

/// Whether a source is a URL or a git repository.
pub(super) fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|start| source.starts_with(start))
}

fn is_archive(source: &str) -> bool {
    let name = source.to_lowercase();
    let ends = ["tar", "gz", "tgz", "bz2", "tbz", "tbz2", "xz", "txz", "lzma", "tlz", "zst", "tzst", "z"];
    ends.iter().any(|end| name.rsplit('.').next() == Some(*end)) || name.contains(".tar")
}

fn add(view: &View<'_>, findings: &mut Findings<'_>) {
    for (_, _, instruction, copy) in copies(view).filter(|(.., copy)| copy.kind == CopyKind::Add) {
        let does_more = |source: &str| is_remote(source) || is_archive(source) || source.contains('$');
        let has_own_flag = copy.checksum.is_some() || copy.keep_git_dir.is_some() || copy.unpack.is_some();
        if has_own_flag || copy.sources.iter().any(|source| does_more(&source.text)) {
            continue;
        }
        let first = copy.sources.first().map_or("a heredoc", |source| &source.text);
        let message = format!("ADD does nothing for `{first}` that COPY would not do");
        findings.report(instruction, instruction.keyword.span, message, "write COPY");
        let is_lower = instruction.keyword.text.starts_with('a');
        let text = if is_lower { "copy" } else { "COPY" }.to_owned();
        // An archive by another name would no longer be unpacked.
        findings.mend(packages::fix("write COPY", Edit { span: instruction.keyword.span, text }, Safety::Unsafe));
    }
}

fn many_to_one(view: &View<'_>, findings: &mut Findings<'_>) {
    for (_, _, instruction, copy) in copies(view) {
        let dest = &copy.dest.text;
        let is_directory = dest.ends_with(['/', '\\'])
            || dest.contains('$')
            || [".", ".."].contains(&dest.as_str())
            || dest.ends_with("/.");
        // A comment that is none is told about as such.
        let has_comment = copy.sources.iter().any(|source| source.text.starts_with('#'));
        if copy.sources.len() + copy.documents.len() < 2 || is_directory || has_comment {
            continue;
        }
        let message = format!("several sources become one file, unless `{dest}` is a directory already");
        findings.report(instruction, copy.dest.span, message, format!("write `{dest}/`"));
        let span = kiln_report::Span::new(copy.dest.span.end, copy.dest.span.end);
        if copy.dest.span.end - copy.dest.span.start == dest.len() {
            findings.mend(packages::fix("end it with `/`", Edit { span, text: "/".to_owned() }, Safety::Safe));
        }
    }
}

fn from_unknown(view: &View<'_>, findings: &mut Findings<'_>) {
    for (number, _, instruction, copy) in copies(view) {
        let Some(from) = &copy.from else { continue };
        let name = from.text.as_str();
        let is_image = name.contains(['/', ':', '@', '$', '.']) || name.is_empty();
        let is_number = name.bytes().all(|b| b.is_ascii_digit());
        let is_own = view.stages[number].from.stage_name().is_some_and(|own| own == name.to_lowercase());
        if is_image || is_number || is_own || view.source(number, name).is_some() {
            continue;
        }
        let message = match view.stage(name) {
            Some(_) => format!("stage `{name}` stands further below, so `{name}` is pulled as an image"),
            None => format!("no stage is called `{name}`, so it is pulled as an image"),
        };
        let hint = match view.stage(name) {
            Some(_) => "move that stage above this one".to_owned(),
            None => "name a stage above, or write the image with its tag".to_owned(),
        };
        findings.report(instruction, from.span, message, hint);
    }
}

fn from_itself(view: &View<'_>, findings: &mut Findings<'_>) {
    for (number, _, instruction, copy) in copies(view) {
        let Some(from) = &copy.from else { continue };
        let is_own = view.stages[number].from.stage_name().is_some_and(|own| own == from.text.to_lowercase());
        // An earlier stage of the same name is meant then.
        if is_own && view.source(number, &from.text).is_none() {
            let message = format!("`{}` is the stage that this stands in", from.text);
            findings.report(instruction, from.span, message, "take from another stage");
        }
    }
}

fn to_relative(view: &View<'_>, findings: &mut Findings<'_>) {
    let placed = view.since(|instruction| matches!(instruction.command, Some(Command::Workdir(_))));
    for (number, index, instruction, copy) in copies(view) {
        // A comment that is none is told about as such.
        if copy.sources.iter().any(|source| source.text.starts_with('#')) {
            continue;
        }
        let dest = copy.dest.text.trim_matches(['"', '\'']);
        let has_drive = dest.as_bytes().get(1) == Some(&b':');
        if dest.starts_with(['/', '$', '\\']) || has_drive {
            continue;
        }
        if !placed.holds(number, index) {
            let message = format!("`{dest}` is wherever the base image's working directory is");
            findings.report(instruction, copy.dest.span, message, "put a WORKDIR before it, or write an absolute path");
        }
    }
}

fn whole(view: &View<'_>, findings: &mut Findings<'_>) {
    for (number, _, instruction, copy) in copies(view) {
        let is_root = |path: &str| ["/", "/.", "/*"].contains(&path);
        let (Some(from), true) = (&copy.from, is_root(&copy.dest.text)) else { continue };
        let mut base = number;
        while let Some(next) = view.stages[base].base {
            base = next;
        }
        let into_scratch = view.stages[base].from.image.text == "scratch";
        // What is built from nothing has only what was put there.
        let from_scratch = view.source(number, &from.text).is_some_and(|s| view.stages[s].from.image.text == "scratch");
        if into_scratch || from_scratch {
            continue;
        }
        if let Some(source) = copy.sources.iter().find(|source| is_root(&source.text)) {
            let message = format!("all of `{}` is copied over this stage", from.text);
            findings.report(instruction, source.span, message, "copy only what is needed");
        }
    }
}

/// Who installs dependencies, by what words, and which files say what they are.
const INSTALLERS: [(&str, &[&str], &str); 12] = [
    ("npm", &["ci", "install", "i"], "package.json package-lock.json"),
    ("yarn", &["install"], "package.json yarn.lock"),
    ("pnpm", &["install", "i", "fetch"], "package.json pnpm-lock.yaml"),
    ("bun", &["install"], "package.json bun.lock"),
    ("pip", &["install"], "requirements.txt"),
    ("pip3", &["install"], "requirements.txt"),
    ("pipenv", &["install", "sync"], "Pipfile Pipfile.lock"),
    ("uv", &["sync"], "pyproject.toml uv.lock"),
    ("go", &["mod"], "go.mod go.sum"),
    ("cargo", &["fetch"], "Cargo.toml Cargo.lock"),
    ("bundle", &["install"], "Gemfile Gemfile.lock"),
    ("composer", &["install"], "composer.json composer.lock"),
];

/// The files that say what a command installs, when it installs dependencies.
fn manifests(call: &Call<'_>) -> Option<&'static str> {
    let (_, words, files) = INSTALLERS.iter().find(|(name, ..)| *name == call.name)?;
    let operands = call.operands(&["--prefix", "-C", "--cwd"]);
    let Some(subcommand) = operands.first() else { return (call.name == "yarn").then_some(*files) };
    let is_it = words.contains(&subcommand.text.as_str())
        && match call.name {
            // Named packages need no file, and `.` is the source itself.
            "npm" | "yarn" | "pnpm" | "bun" => operands.len() == 1 && !call.has('g', &["global"]),
            "go" => operands.get(1).is_some_and(|word| word.text == "download"),
            "pip" | "pip3" => call.value(&["-r", "--requirement"]).is_some() && !call.has('e', &["editable"]),
            _ => true,
        };
    is_it.then_some(*files)
}

fn before_install(view: &View<'_>, findings: &mut Findings<'_>) {
    for (number, stage) in view.stages.iter().enumerate() {
        let steps = view.steps_of(number);
        let is_all =
            |copy: &Copy| copy.from.is_none() && copy.sources.iter().any(|s| [".", "./", "/"].contains(&&*s.text));
        let whole = stage.body.iter().enumerate().find_map(|(index, instruction)| match &instruction.command {
            Some(Command::Copy(copy)) if is_all(copy) => Some((index, *instruction)),
            _ => None,
        });
        let Some((copied, instruction)) = whole else { continue };
        let mut first = None;
        for step in steps {
            let found = step
                .scripts
                .iter()
                .find_map(|script| Some((script, script.code.calls().find(|call| manifests(call).is_some())?)));
            if let Some((script, call)) = found {
                first = Some((step, script, call));
                break;
            }
        }
        // A step with mounts reads its files from one, or keeps what it fetched in one.
        let late = first.filter(|(step, ..)| step.index > copied && step.mounts.is_empty());
        let Some((_, script, call)) = late else { continue };
        let files = manifests(&call).unwrap_or_default();
        let command = &script.text[call.words[0].start..call.words[call.words.len() - 1].end];
        let message = format!("after this, `{command}` runs again whenever any file changes");
        let hint = format!("copy `{files}` first and install, then copy the rest");
        let span = instruction.line.span(0, instruction.line.text().trim_end().len());
        findings.report(instruction, span, message, hint);
    }
}
