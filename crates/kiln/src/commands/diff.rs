//! `kiln diff`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use kiln_engine::{
    Aspect, DiffRequest, Differences, FieldChange, FileDifference, HistoryChange, Ignored, ImageDiff, LayerChange,
    PackageChange, PlatformChange,
};
use kiln_oci::Platform;
use kiln_report::render::{Escapes, sanitize};

use crate::setting::Setting;
use crate::ui::age::size;
use crate::ui::exit::{Exit, Outcome};
use crate::ui::progress::{Choice, Progress};
use crate::ui::{run as ui_run, stdout};

/// Say what two images differ in: config, steps, layers, packages and files
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The first image: a name or id, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE
    #[arg(value_name = "BEFORE")]
    before: String,

    /// The second image
    #[arg(value_name = "AFTER")]
    after: String,

    /// Let something not count; several are separated by commas
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    ignore: Vec<IgnoredArg>,

    /// Let nothing count but what a container sees: as --ignore mtime,created,history,layers
    #[arg(long)]
    semantic: bool,

    /// Compare the images for this platform alone; several are separated by commas [default: all]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,

    /// List the files of added and removed directories, too
    #[arg(short, long)]
    all: bool,

    /// Print nothing; the exit code says whether they differ
    #[arg(short, long)]
    quiet: bool,

    /// How the answer is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What need not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IgnoredArg {
    Mtime,
    Mode,
    Owner,
    Xattr,
    Content,
    Created,
    History,
    Layers,
}

impl From<IgnoredArg> for Ignored {
    fn from(typed: IgnoredArg) -> Self {
        match typed {
            IgnoredArg::Mtime => Self::File(Aspect::Mtime),
            IgnoredArg::Mode => Self::File(Aspect::Mode),
            IgnoredArg::Owner => Self::File(Aspect::Owner),
            IgnoredArg::Xattr => Self::File(Aspect::Attributes),
            IgnoredArg::Content => Self::File(Aspect::Content),
            IgnoredArg::Created => Self::Created,
            IgnoredArg::History => Self::History,
            IgnoredArg::Layers => Self::Layers,
        }
    }
}

/// Compares; the exit code is 1 when something differs, and more when that cannot be said.
pub(crate) fn run(args: &DiffArgs, setting: &Setting) -> Outcome {
    compare(args, setting).map_err(Exit::without_answer)
}

fn compare(args: &DiffArgs, setting: &Setting) -> Outcome {
    let semantic = [IgnoredArg::Mtime, IgnoredArg::Created, IgnoredArg::History, IgnoredArg::Layers];
    let semantic = semantic.into_iter().filter(|_| args.semantic);
    let request = DiffRequest {
        images: [args.before.clone(), args.after.clone()],
        platforms: args.platform.clone(),
        ignored: args.ignore.iter().copied().chain(semantic).map(Ignored::from).collect(),
        stops_early: args.quiet,
    };
    let engine = setting.engine()?;
    let progress = Progress::start(Choice::Quiet, &setting.environment)?;
    let diff = ui_run::block_on(engine.diff(&request, progress.reporter()));
    progress.finish();
    let diff = diff?;
    if !args.quiet {
        stdout::print(&match args.format {
            Format::Text => tell_all(&diff, args.all),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&diff).expect("plain data serialises")),
        })?;
    }
    Ok(u8::from(!diff.is_empty()))
}

/// The differences of all platforms as text, each under its name when there are several.
fn tell_all(Differences { platforms, alone }: &Differences, is_all: bool) -> String {
    let mut text = String::new();
    section(&mut text, "platforms", alone.iter().map(platform));
    let has_names = platforms.len() + alone.len() > 1;
    for diff in platforms {
        let told = tell(diff, is_all);
        match has_names && !told.is_empty() {
            false => text.push_str(&told),
            true => section(&mut text, &diff.platform, told.lines().map(str::to_owned)),
        }
    }
    text
}

/// The difference as text: nothing when there is none.
fn tell(diff: &ImageDiff, is_all: bool) -> String {
    let mut text = String::new();
    section(&mut text, "config", diff.config.iter().map(field));
    section(&mut text, "history", diff.history.iter().map(step));
    section(&mut text, "layers", diff.layers.iter().map(layer));
    section(&mut text, "packages", diff.packages.iter().map(package));
    section(&mut text, &format!("files: {}", counts(&diff.files)), files(&diff.files, is_all).into_iter());
    for note in &diff.notes {
        writeln!(text, "note: {note}").expect("writing to a string");
    }
    text
}

fn section(text: &mut String, heading: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    writeln!(text, "{heading}").expect("writing to a string");
    for line in lines {
        // Names are strangers' words: none may look like another line, or move the cursor.
        let line = line.replace(['\n', '\r'], " ");
        writeln!(text, "  {}", sanitize(line.as_bytes(), Escapes::Strip)).expect("writing to a string");
    }
}

/// `-` when only the first image has it, `+` when only the second, `~` when both do.
fn sign<T>(before: Option<&T>, after: Option<&T>) -> &'static str {
    match (before, after) {
        (_, None) => "-",
        (None, _) => "+",
        _ => "~",
    }
}

fn change<T: ToString>(before: Option<&T>, after: Option<&T>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{} → {}", before.to_string(), after.to_string()),
        (one, other) => one.or(other).map(T::to_string).unwrap_or_default(),
    }
}

pub(super) fn field(FieldChange { field, before, after }: &FieldChange) -> String {
    let sign = sign(before.as_ref(), after.as_ref());
    format!("{sign} {field}: {}", change(before.as_ref(), after.as_ref())).trim_end_matches([' ', ':']).to_owned()
}

pub(super) fn step(HistoryChange { step, before, after, created }: &HistoryChange) -> String {
    let sign = sign(before.as_ref(), after.as_ref());
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "no time".into());
    let times = created.as_ref().map(|[before, after]| format!(": {} → {}", time(before), time(after)));
    format!("{sign} {step}{}", times.unwrap_or_default())
}

fn platform(PlatformChange { platform, before, after }: &PlatformChange) -> String {
    format!("{} {platform} {}", sign(before.as_ref(), after.as_ref()), change(before.as_ref(), after.as_ref()))
}

pub(super) fn layer(LayerChange { diff_id, before, after }: &LayerChange) -> String {
    let place = |at: &usize| (at + 1).to_string();
    let (before, after) = (before.as_ref().map(place), after.as_ref().map(place));
    let sign = sign(before.as_ref(), after.as_ref());
    format!("{sign} {diff_id}, layer {}", change(before.as_ref(), after.as_ref()))
}

fn package(PackageChange { kind, name, before, after }: &PackageChange) -> String {
    format!("{} {kind} {name} {}", sign(before.as_ref(), after.as_ref()), change(before.as_ref(), after.as_ref()))
}

/// `2 added (3kB), 1 changed`.
fn counts(files: &[FileDifference]) -> String {
    let [mut added, mut removed, mut changed] = [(0, 0); 3];
    for FileDifference { before, after, .. } in files {
        let (counted, look) = match (before, after) {
            (None, look) => (&mut added, look),
            (look, None) => (&mut removed, look),
            _ => (&mut changed, &None),
        };
        *counted = (counted.0 + 1, counted.1 + look.as_ref().map_or(0, |look| look.size));
    }
    let parts = [("added", added), ("removed", removed), ("changed", changed)].into_iter().filter(|(_, (n, _))| *n > 0);
    let told = parts.map(|(what, (n, bytes))| match what {
        "changed" => format!("{n} changed"),
        _ => format!("{n} {what} ({})", size(bytes, 3)),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// A line for each file; what is in a directory that came or went as a whole is only counted, unless all is wanted.
fn files(files: &[FileDifference], is_all: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = files;
    while let Some((file, after)) = rest.split_first() {
        rest = after;
        let whole = file.before.as_ref().xor(file.after.as_ref()).filter(|look| look.kind == "directory");
        let mut line = file_line(file);
        if whole.is_some() {
            let inside = format!("{}/", file.path);
            let count = after.iter().take_while(|other| other.path.starts_with(&inside)).count();
            line.push('/');
            if !is_all && count > 0 {
                let bytes =
                    after[..count].iter().filter_map(|f| f.before.as_ref().or(f.after.as_ref())).map(|f| f.size).sum();
                write!(line, ", {count} in it, {}", size(bytes, 3)).expect("writing to a string");
                rest = &after[count..];
            }
        }
        lines.push(line);
    }
    lines
}

pub(super) fn file_line(file: &FileDifference) -> String {
    let (before, after) = (file.before.as_ref(), file.after.as_ref());
    let sign = sign(before, after);
    let (Some(before), Some(after)) = (before, after) else {
        return format!("{sign} {}", file.path);
    };
    let aspect = |aspect: &&'static str| {
        let values = match *aspect {
            "kind" => Some((before.kind.to_owned(), after.kind.to_owned())),
            "mode" => Some((before.mode.clone(), after.mode.clone())),
            "owner" => Some((format!("{}:{}", before.uid, before.gid), format!("{}:{}", after.uid, after.gid))),
            "content" if before.size != after.size => Some((size(before.size, 3), size(after.size, 3))),
            _ => None,
        };
        values.map_or_else(|| (*aspect).to_owned(), |(before, after)| format!("{aspect} {before} → {after}"))
    };
    let aspects: Vec<String> = file.differs.iter().map(aspect).collect();
    format!("{sign} {}: {}", file.path, aspects.join(", "))
}

#[cfg(test)]
mod tests {
    use kiln_engine::FileLook;

    use super::*;

    fn look(kind: &'static str, mode: &str, size: u64) -> Option<FileLook> {
        Some(FileLook { kind, mode: mode.into(), uid: 0, gid: 0, size, mtime: 0 })
    }

    fn file(path: &str, before: Option<FileLook>, after: Option<FileLook>, differs: &[&'static str]) -> FileDifference {
        FileDifference { path: path.into(), differs: differs.to_vec(), before, after }
    }

    fn changed() -> ImageDiff {
        let text = |text: &str| Some(text.to_owned());
        let field = |field: &str, before, after| FieldChange { field: field.into(), before, after };
        let step = |step: &str, before, after, created| HistoryChange { step: step.into(), before, after, created };
        ImageDiff {
            config: vec![field("Env.A", text("1"), text("2")), field("Volumes./v", None, text(""))],
            history: vec![
                step("RUN a", Some(1), None, None),
                step("RUN b\n\u{1b}[2Jc", Some(2), Some(1), Some([text("2024"), None])),
            ],
            layers: vec![LayerChange { diff_id: kiln_oci::Digest::sha256("x"), before: Some(0), after: Some(1) }],
            packages: vec![PackageChange { kind: "deb", name: "curl".into(), before: text("7"), after: text("8") }],
            files: vec![
                file("/etc/passwd", look("file", "0644", 10), look("file", "0600", 1200), &["content", "mode"]),
                file("/new", None, look("directory", "0755", 0), &[]),
                file("/new/a", None, look("file", "0644", 2000), &[]),
                file("/new/a\u{1b}]0;x\u{7}b", None, look("file", "0644", 1), &[]),
                file("/newer", None, look("file", "0644", 0), &[]),
                file("/old", look("link", "0777", 3), None, &[]),
            ],
            notes: vec!["something was not read".into()],
            ..ImageDiff::default()
        }
    }

    #[test]
    fn what_differs_is_told_and_nothing_moves_the_cursor() {
        insta::assert_snapshot!(tell(&changed(), false), @"
        config
          ~ Env.A: 1 → 2
          + Volumes./v
        history
          - RUN a
          ~ RUN b c: 2024 → no time
        layers
          ~ sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, layer 1 → 2
        packages
          ~ deb curl 7 → 8
        files: 4 added (2kB), 1 removed (3B), 1 changed
          ~ /etc/passwd: content 10B → 1.2kB, mode 0644 → 0600
          + /new/, 2 in it, 2kB
          + /newer
          - /old
        note: something was not read
        ");
        assert!(tell(&changed(), true).contains("  + /new/a\n  + /new/ab\n"));
        assert_eq!(tell(&ImageDiff::default(), false), "");
    }
}
