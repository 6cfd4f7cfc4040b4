//! `kiln imagetools`: images in registries and layouts, looked at and joined without being fetched.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_engine::{Attested, CombineRequest, CombineSource, Depth, ImagePlace, RemoteImage, Said, Single};
use kiln_oci::{Descriptor, Platform};
use kiln_report::render::{Escapes, sanitize};
use kiln_report::{Failure, FailureKind};
use serde_json::{Value, json};

use super::images::by_template;
use crate::args::value::go_bool;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::template::{Known, Missing};
use crate::ui::{run as ui_run, stdout};

/// Look at images in registries, and join them
#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    Create(CreateArgs),
    Inspect(InspectArgs),
    Annotate(AnnotateArgs),
}

/// Make one image of images that are in registries
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The images: names, digests, descriptors in JSON, or `oci-layout://DIR[:TAG]`
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,

    /// Read a source from a file
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// Name the result, which is pushed there
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<ImagePlace>,

    /// Add the sources to what the first name stands for
    #[arg(long)]
    append: bool,

    /// Print the result instead of pushing it
    #[arg(long)]
    dry_run: bool,

    /// Add an annotation: `index:KEY=VALUE`, or `manifest-descriptor[PLATFORM]:KEY=VALUE`
    #[arg(long, value_name = "TYPE:KEY=VALUE")]
    annotation: Vec<String>,

    /// Keep only these platforms; several are separated by commas
    #[arg(short, long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,

    /// Make an index of one source, too, instead of a copy
    #[arg(long, value_name = "BOOL", value_parser = go_bool, default_value = "true", num_args = 0..=1,
          default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    prefer_index: bool,

    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Add annotations to the index that a name stands for
#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// The image
    #[arg(value_name = "NAME")]
    name: ImagePlace,

    /// Add an annotation: `index:KEY=VALUE`, or `manifest-descriptor[PLATFORM]:KEY=VALUE`
    #[arg(long, value_name = "TYPE:KEY=VALUE", required = true)]
    annotation: Vec<String>,

    /// Print the result instead of pushing it
    #[arg(long)]
    dry_run: bool,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Show what a name stands for in its registry, or an `oci-layout://DIR[:TAG]`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The image
    #[arg(value_name = "NAME")]
    name: ImagePlace,

    /// Print by a template such as `{{.Manifest.Digest}}` or `{{json .Image}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Print the document as the registry has it
    #[arg(long, conflicts_with = "format")]
    raw: bool,
}

/// Does what was asked for.
pub(crate) fn run(command: &ImagetoolsCommand, setting: &Setting) -> Outcome {
    match command {
        ImagetoolsCommand::Create(args) => create(args, setting),
        ImagetoolsCommand::Inspect(args) => inspect(args, setting),
        ImagetoolsCommand::Annotate(args) => annotate_in_place(args, setting),
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

fn create(args: &CreateArgs, setting: &Setting) -> Outcome {
    let request = request(args)?;
    let engine = setting.engine()?;
    let progress = Progress::start(args.progress, &setting.environment)?;
    let made = ui_run::block_on(engine.combine(&request, progress.reporter()));
    progress.finish();
    let made = made?;
    if args.dry_run {
        stdout::print(&(String::from_utf8_lossy(&made.bytes).into_owned() + "\n"))?;
        return Ok(0);
    }
    if let Some(path) = &args.metadata_file {
        let repositories: BTreeSet<String> = args.tag.iter().map(ImagePlace::repository).collect();
        let names = repositories.into_iter().collect::<Vec<_>>().join(",");
        let value = json!({ "containerimage.descriptor": made.descriptor, "image.name": names });
        let text = serde_json::to_string_pretty(&value).expect("plain data serialises");
        std::fs::write(path, text).map_err(|error| {
            let mut failure = Failure::new(FailureKind::Environment, format!("cannot write `{}`", path.display()));
            failure.causes.push(error.to_string());
            failure
        })?;
    }
    Ok(0)
}

/// The image is made anew of itself.
fn annotate_in_place(args: &AnnotateArgs, setting: &Setting) -> Outcome {
    let args = CreateArgs {
        sources: vec![args.name.to_string()],
        tag: vec![args.name.clone()],
        annotation: args.annotation.clone(),
        dry_run: args.dry_run,
        progress: args.progress,
        file: Vec::new(),
        append: false,
        platform: Vec::new(),
        prefer_index: true,
        metadata_file: None,
    };
    create(&args, setting)
}

/// A source as it is typed.
enum Typed {
    Name(ImagePlace),
    Descriptor(Said),
}

fn request(args: &CreateArgs) -> Result<CombineRequest, Failure> {
    let mut typed = Vec::new();
    if args.append {
        let first = args.tag.first().ok_or_else(|| usage("there is no name to append to").hint("name it with `-t`"))?;
        typed.push(Typed::Name(first.clone()));
    }
    for path in &args.file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let mut failure = usage(format!("cannot read `{}`", path.display()));
            failure.causes.push(error.to_string());
            failure
        })?;
        typed.push(source(text.trim())?);
    }
    for text in &args.sources {
        typed.push(source(text)?);
    }
    if typed.len() == usize::from(args.append) {
        return Err(usage("there are no sources").hint("name images of registries"));
    }
    if args.tag.is_empty() && !args.dry_run {
        return Err(usage("the result has no name").hint("name it with `-t`, or look at it with `--dry-run`"));
    }
    let mut request = CombineRequest {
        sources: placed(typed, &args.tag)?,
        names: if args.dry_run { Vec::new() } else { args.tag.clone() },
        platforms: args.platform.clone(),
        single: if args.prefer_index { Single::Index } else { Single::Copy },
        ..CombineRequest::default()
    };
    args.annotation.iter().try_for_each(|text| annotate(&mut request, text))?;
    Ok(request)
}

fn source(text: &str) -> Result<Typed, Failure> {
    let wrong = |why: String| {
        let failure = usage(format!("`{text}` is no source: {why}"));
        failure.hint("write a name, a digest, or a descriptor in JSON")
    };
    if text.starts_with('{') {
        let said: Said = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        return match said.digest {
            Some(_) => Ok(Typed::Descriptor(said)),
            None => Err(wrong("it has no `digest`".into())),
        };
    }
    if let Ok(digest) = text.parse() {
        return Ok(Typed::Descriptor(Said { digest: Some(digest), ..Said::default() }));
    }
    text.parse().map(Typed::Name).map_err(|failure: Failure| wrong(failure.message))
}

/// Finds the repositories of sources that do not say theirs: the only one that is named at all.
fn placed(typed: Vec<Typed>, tags: &[ImagePlace]) -> Result<Vec<CombineSource>, Failure> {
    let named = typed.iter().filter_map(|typed| match typed {
        Typed::Name(place) => Some(place),
        Typed::Descriptor(_) => None,
    });
    let places: Vec<&ImagePlace> = named.chain(tags).collect();
    let repositories: BTreeSet<String> = places.iter().map(|place| place.repository()).collect();
    let only = places.first().filter(|_| repositories.len() == 1).map(|only| (*only).clone());
    let place = |typed| match typed {
        Typed::Name(place) => Ok(CombineSource { place, said: Said::default() }),
        Typed::Descriptor(said) => match (&only, &said.digest) {
            (Some(only), Some(digest)) => Ok(CombineSource { place: only.at(digest.clone()), said }),
            _ => Err(usage("a digest does not tell its repository").hint("write `REPOSITORY@DIGEST`")),
        },
    };
    typed.into_iter().map(place).collect()
}

fn annotate(request: &mut CombineRequest, text: &str) -> Result<(), Failure> {
    let wrong = |why: &str| usage(format!("cannot use `--annotation {text}`: {why}"));
    let way_out = "write `index:KEY=VALUE` or `manifest-descriptor:KEY=VALUE`";
    let (place, rest) = text.split_once(':').filter(|(place, _)| !place.contains('=')).unwrap_or(("manifest", text));
    let (key, value) =
        rest.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| wrong("expected `KEY=VALUE`"))?;
    let (kind, platform) = match place.split_once('[') {
        Some((kind, platform)) => (kind, Some(platform.strip_suffix(']').ok_or_else(|| wrong("`[` is not closed"))?)),
        None => (place, None),
    };
    let platform: Option<Platform> =
        platform.map(str::parse).transpose().map_err(|error: kiln_oci::PlatformError| wrong(&error.to_string()))?;
    match (kind, platform) {
        ("index", None) => {
            request.annotations.insert(key.to_owned(), value.to_owned());
        }
        ("manifest-descriptor", platform) => {
            request.entry_annotations.push((platform, key.to_owned(), value.to_owned()));
        }
        ("index", Some(_)) => return Err(wrong("an index has no platform").hint(way_out)),
        ("manifest", _) => return Err(wrong("the manifests stay as they are").hint(way_out)),
        _ => return Err(wrong("there is no such place").hint(way_out)),
    }
    Ok(())
}

fn inspect(args: &InspectArgs, setting: &Setting) -> Outcome {
    let format = args.format.as_deref().filter(|format| !is_whole(format));
    let depth = match format {
        None => Depth::Name,
        Some(format) if format.contains("SBOM") || format.contains("Provenance") => Depth::Attestations,
        Some(_) => Depth::Configs,
    };
    let image = ui_run::block_on(setting.engine()?.look(&args.name, depth))?;
    let text = match format {
        _ if args.raw => String::from_utf8_lossy(&image.document.bytes).into_owned(),
        Some(format) => by_template(format, std::iter::once(value(&args.name, (&image, depth))), GO)?,
        None => overview(&args.name, &image),
    };
    stdout::print(&text)?;
    Ok(0)
}

/// `{{.Manifest}}` alone is the overview.
fn is_whole(format: &str) -> bool {
    let inner = format.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    format.is_empty() || inner.is_some_and(|inner| inner.trim() == ".Manifest")
}

/// Lines of keys and values, some of which strangers wrote: none of them ends its line.
fn lines(indent: &str, pairs: &[(&str, String)]) -> String {
    let clean = |text: &str| sanitize(text.as_bytes(), Escapes::Strip).replace(['\n', '\r'], " ");
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (clean(key), clean(value))).collect();
    let width = pairs.iter().map(|(key, _)| key.len() + 2).max().unwrap_or_default();
    pairs.iter().map(|(key, value)| format!("{indent}{:width$}{value}\n", format!("{key}:"))).collect()
}

fn overview(name: &ImagePlace, image: &RemoteImage) -> String {
    let Descriptor { media_type, digest, .. } = &image.document.descriptor;
    let head = [("Name", name.to_string()), ("MediaType", media_type.to_string()), ("Digest", digest.to_string())];
    let mut text = lines("", &head);
    let Some(index) = &image.index else { return text };
    text.push_str("\nManifests:\n");
    let entry = |entry: &Descriptor| {
        let mut pairs =
            vec![("Name", name.at(entry.digest.clone()).to_string()), ("MediaType", entry.media_type.to_string())];
        pairs.extend(entry.platform.as_ref().map(|platform| ("Platform", platform.to_string())));
        let mut text = lines("  ", &pairs);
        if !entry.annotations.is_empty() {
            let annotations: Vec<(&str, String)> =
                entry.annotations.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            text.push_str(&format!("  Annotations:\n{}", lines("    ", &annotations)));
        }
        text
    };
    text + &index.manifests.iter().map(entry).collect::<Vec<_>>().join("\n")
}

/// The fields that buildx's templates have, in documents that leave out what they do not need.
const GO: Missing = Missing::WireName(Known {
    fields: "Name Manifest Image SBOM Provenance SPDX AdditionalSPDXs SLSA SchemaVersion Manifests MediaType Digest Size \
             URLs Annotations Data Platform ArtifactType Created Author Architecture Variant OS OSVersion OSFeatures \
             Config RootFS History User ExposedPorts Env Entrypoint Cmd Volumes WorkingDir Labels StopSignal ArgsEscaped \
             Type DiffIDs CreatedBy Comment EmptyLayer",
    maps: "Labels Annotations ExposedPorts Volumes SBOM Provenance SPDX AdditionalSPDXs SLSA",
});

/// What templates see: buildx's fields.
fn value(name: &ImagePlace, (image, depth): (&RemoteImage, Depth)) -> Value {
    let attested = &image.attested;
    let descriptor = &image.document.descriptor;
    let manifest = match &image.index {
        None => json!(descriptor),
        Some(index) => {
            let mut manifest = json!(index);
            manifest["digest"] = json!(descriptor.digest);
            manifest["size"] = json!(descriptor.size);
            manifest
        }
    };
    let is_single = image.configs.len() == 1;
    let image = match image.configs.as_slice() {
        [(_, only)] => json!(only),
        several => several.iter().map(|(platform, config)| (platform.to_string(), json!(config))).collect(),
    };
    let mut value = json!({ "name": name.to_string(), "manifest": manifest, "image": image });
    if depth == Depth::Attestations {
        let of_all = |what: fn(&Attested) -> Option<Value>| -> Value {
            let found =
                attested.iter().filter_map(|(platform, attested)| Some((platform.to_string(), what(attested)?)));
            let mut found: serde_json::Map<String, Value> = found.collect();
            match is_single {
                true => found.values_mut().next().map_or_else(|| json!({}), Value::take),
                false => Value::Object(found),
            }
        };
        value["SBOM"] = of_all(software);
        value["Provenance"] = of_all(|attested| Some(json!({ "SLSA": attested.provenance.as_ref()? })));
    }
    value
}

/// Lists of software: the first by itself, others beside it.
fn software(attested: &Attested) -> Option<Value> {
    let (first, rest) = attested.software.split_first()?;
    let mut value = json!({ "SPDX": first });
    if !rest.is_empty() {
        value["AdditionalSPDXs"] = json!(rest);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kiln_oci::Digest;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn typed(line: &str) -> Result<CombineRequest, String> {
        let args = Line::parse_from(std::iter::once("create").chain(line.split_whitespace())).args;
        request(&args).map_err(|failure| failure.message)
    }

    #[test]
    fn sources_are_names_digests_and_descriptors() {
        let digest = Digest::sha256("x");
        let line = format!("-t r/a:1 r/a:2 {digest} {{\"digest\":\"{digest}\",\"platform\":{{\"os\":\"linux\"}}}}");
        let request = typed(&line).unwrap();
        let names: Vec<String> = request.sources.iter().map(|source| source.place.to_string()).collect();
        let by_digest = format!("docker.io/r/a@{digest}");
        assert_eq!(names, ["docker.io/r/a:2", &by_digest, &by_digest]);
        assert_eq!(request.sources[2].said.platform.as_ref().unwrap().os, "linux");
        assert_eq!(typed(&format!("-t r/a r/b {digest}")).unwrap_err(), "a digest does not tell its repository");
        assert!(typed("-t a {}").unwrap_err().contains("it has no `digest`"));
        assert!(typed("-t a b:c:d").unwrap_err().contains("is no source"));
    }

    #[test]
    fn what_is_missing_is_told() {
        for (line, said) in [
            ("-t a", "there are no sources"),
            ("-t a --append", "there are no sources"),
            ("a", "the result has no name"),
            ("--append a", "there is no name to append to"),
        ] {
            assert_eq!(typed(line).unwrap_err(), said, "{line}");
        }
        assert_eq!(typed("--append -t a:1 -t b:1 c").unwrap().sources[0].place.to_string(), "docker.io/library/a:1");
        assert!(typed("--dry-run -t a b").unwrap().names.is_empty());
        assert_eq!(typed("--prefer-index=false -t a b").unwrap().single, Single::Copy);
    }

    #[test]
    fn annotations_are_of_the_index_and_its_entries() {
        let line = "-t a b --annotation index:k=v:w --annotation manifest-descriptor[linux/arm64]:x=y";
        let request = typed(line).unwrap();
        assert_eq!(request.annotations["k"], "v:w");
        let arm64 = Some(Platform::linux("arm64"));
        assert_eq!(request.entry_annotations, [(arm64, "x".to_owned(), "y".to_owned())]);
        for (text, said) in [
            ("k=v", "the manifests stay as they are"),
            ("index[linux/arm64]:k=v", "an index has no platform"),
            ("index:k", "expected `KEY=VALUE`"),
            ("nowhere:k=v", "there is no such place"),
            ("manifest-descriptor[linux:k=v", "`[` is not closed"),
        ] {
            let failure = typed(&format!("-t a b --annotation {text}")).unwrap_err();
            assert!(failure.contains(said), "{failure}");
        }
    }
}
