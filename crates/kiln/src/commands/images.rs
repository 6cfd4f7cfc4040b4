//! `kiln images`.

use std::time::SystemTime;

use clap::Args;
use kiln_engine::ImageSummary;
use kiln_oci::{Digest, Reference};
use kiln_report::{Failure, FailureKind};
use serde_json::{Value, json};

use crate::setting::Setting;
use crate::ui::age::{go_time, since, size};
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::table::table;
use crate::ui::template::{Missing, Template};

const NONE: &str = "<none>";

/// List the images of the local store
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only this repository, or this name with its tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    only: Option<String>,

    /// List all images, as is done anyway
    #[arg(short, long)]
    all: bool,

    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,

    /// Print the images of each name, platform by platform
    #[arg(long, conflicts_with_all = ["quiet", "format", "digests"])]
    tree: bool,

    /// Print digests, too
    #[arg(long)]
    digests: bool,

    /// Print each image by a template such as `{{.Repository}}`, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// A line of the list: an image by one of its names.
struct Line<'a> {
    image: &'a ImageSummary,
    repository: String,
    tag: String,
    digest: String,
}

/// Lists, newest first.
pub(crate) fn run(args: &ImagesArgs, setting: &Setting) -> Outcome {
    let images = setting.engine()?.images()?;
    let lines = lines(&images, args.only.as_deref())?;
    stdout::print(&show(&lines, args, SystemTime::now())?)?;
    Ok(0)
}

fn lines<'a>(images: &'a [ImageSummary], only: Option<&str>) -> Result<Vec<Line<'a>>, Failure> {
    let lines: Vec<Line<'_>> = images.iter().flat_map(lines_of).collect();
    let Some(only) = only else { return Ok(lines) };
    let wanted: Reference = only.parse().map_err(|e| Failure::from_error(FailureKind::Usage, &e))?;
    let has_tag = only.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let is_wanted = |line: &Line<'_>| {
        line.repository == wanted.familiar_name() && (!has_tag || Some(&line.tag) == wanted.tag.as_ref())
    };
    Ok(lines.into_iter().filter(is_wanted).collect())
}

fn lines_of(image: &ImageSummary) -> Vec<Line<'_>> {
    let digest_of = |repository: &str| {
        let found = image.digests.iter().filter_map(|name| name.split_once('@')).find(|(name, _)| *name == repository);
        found.map_or_else(|| NONE.to_owned(), |(_, digest)| digest.to_owned())
    };
    let named = image.names.iter().filter_map(|name| name.rsplit_once(':')).map(|(repository, tag)| Line {
        image,
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: digest_of(repository),
    });
    let mut lines: Vec<Line<'_>> = named.collect();
    if lines.is_empty() {
        // Pulled by digest, or without a name since another image took it.
        let by_digest = image.digests.iter().filter_map(|name| name.split_once('@'));
        lines.extend(by_digest.map(|(repository, digest)| Line {
            image,
            repository: repository.to_owned(),
            tag: NONE.to_owned(),
            digest: digest.to_owned(),
        }));
    }
    if lines.is_empty() {
        lines.push(Line { image, repository: NONE.to_owned(), tag: NONE.to_owned(), digest: NONE.to_owned() });
    }
    lines
}

fn show(lines: &[Line<'_>], args: &ImagesArgs, now: SystemTime) -> Result<String, Failure> {
    let id = |line: &Line<'_>| match args.no_trunc {
        true => line.image.id.to_string(),
        false => line.image.id.short().to_owned(),
    };
    if args.quiet {
        let mut ids: Vec<String> = lines.iter().map(id).collect();
        ids.dedup();
        return Ok(ids.iter().map(|id| format!("{id}\n")).collect());
    }
    if args.tree {
        return Ok(as_tree(lines, args.no_trunc));
    }
    let value = |line: &Line<'_>| value(line, id(line), now);
    match args.format.as_deref() {
        Some("json") => Ok(lines.iter().map(|line| format!("{}\n", value(line))).collect()),
        Some(format) if format != "table" => by_template(format, lines.iter().map(value), Missing::Wrong),
        _ => Ok(as_table(lines, args.digests, &id, now)),
    }
}

/// One line for each value.
pub(crate) fn by_template(
    format: &str,
    values: impl Iterator<Item = Value>,
    missing: Missing,
) -> Result<String, Failure> {
    let wrong = |error| Failure::from_error(FailureKind::Usage, &error);
    let template = Template::parse(format).map_err(wrong)?;
    values.map(|value| Ok(template.render(&value, missing).map_err(wrong)? + "\n")).collect()
}

fn as_table(lines: &[Line<'_>], with_digests: bool, id: &dyn Fn(&Line<'_>) -> String, now: SystemTime) -> String {
    let row = |repository: &str, tag: &str, digest: &str, rest: [&str; 3]| {
        let mut cells = vec![repository.to_owned(), tag.to_owned()];
        if with_digests {
            cells.push(digest.to_owned());
        }
        cells.extend(rest.map(str::to_owned));
        cells
    };
    let mut rows = vec![row("REPOSITORY", "TAG", "DIGEST", ["IMAGE ID", "CREATED", "SIZE"])];
    rows.extend(lines.iter().map(|line| {
        let rest = [&id(line), &since(line.image.created.as_deref(), now), &size(line.image.size, 3)];
        row(&line.repository, &line.tag, &line.digest, rest.map(String::as_str))
    }));
    table(&rows)
}

/// Each name, and below it what it stands for.
fn as_tree(lines: &[Line<'_>], is_whole: bool) -> String {
    let shown = |id: &Digest| if is_whole { id.to_string() } else { id.short().to_owned() };
    let row = |name: String, id: &Digest, bytes: u64| vec![name, shown(id), size(bytes, 3)];
    let mut rows = vec![["IMAGE", "ID", "SIZE"].map(str::to_owned).to_vec()];
    for line in lines {
        let image = line.image;
        rows.push(row(format!("{}:{}", line.repository, line.tag), &image.id, image.size));
        match image.members.as_slice() {
            [] => rows.push(row(format!("└─ {}", image.platform), &image.id, image.size)),
            [all @ .., last] => {
                rows.extend(all.iter().map(|one| row(format!("├─ {}", one.platform), &one.id, one.size)));
                rows.push(row(format!("└─ {}", last.platform), &last.id, last.size));
            }
        }
    }
    table(&rows)
}

/// What templates see: docker's fields.
fn value(line: &Line<'_>, id: String, now: SystemTime) -> Value {
    let created = line.image.created.as_deref();
    json!({
        "Containers": "N/A",
        "CreatedAt": go_time(created),
        "CreatedSince": since(created, now),
        "Digest": line.digest,
        "ID": id,
        "Repository": line.repository,
        "SharedSize": "N/A",
        "Size": size(line.image.size, 3),
        "Tag": line.tag,
        "UniqueSize": "N/A",
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use clap::Parser;
    use kiln_engine::ImageMember;
    use kiln_oci::Platform;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: ImagesArgs,
    }

    fn image(names: &[&str], digests: &[&str], size: u64) -> ImageSummary {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ImageSummary {
            id: Digest::sha256(names.concat()),
            names: texts(names),
            digests: texts(digests),
            created: Some("1970-01-01T00:00:00Z".into()),
            size,
            platform: Platform::linux("amd64"),
            labels: [].into(),
            members: Vec::new(),
        }
    }

    fn shown(typed: &str) -> String {
        let images = [
            image(&["busybox:latest", "localhost:5000/busybox:1"], &["busybox@sha256:d1"], 4_262_000),
            image(&[], &[], 0),
            image(&[], &["app@sha256:d2"], 117_000_000),
        ];
        let args = Typed::parse_from(std::iter::once("images").chain(typed.split_whitespace())).args;
        let lines = lines(&images, args.only.as_deref()).unwrap();
        show(&lines, &args, UNIX_EPOCH + Duration::from_secs(7200)).unwrap_or_else(|failure| failure.to_string())
    }

    #[test]
    fn the_table_is_docker_s() {
        insta::assert_snapshot!(shown(""), @"
        REPOSITORY               TAG       IMAGE ID       CREATED       SIZE
        busybox                  latest    f9bfe5e7df44   2 hours ago   4.26MB
        localhost:5000/busybox   1         f9bfe5e7df44   2 hours ago   4.26MB
        <none>                   <none>    e3b0c44298fc   2 hours ago   0B
        app                      <none>    e3b0c44298fc   2 hours ago   117MB
        ");
        insta::assert_snapshot!(shown("--digests localhost:5000/busybox"), @"
        REPOSITORY               TAG       DIGEST    IMAGE ID       CREATED       SIZE
        localhost:5000/busybox   1         <none>    f9bfe5e7df44   2 hours ago   4.26MB
        ");
    }

    #[test]
    fn the_tree_has_the_platforms_of_each_name() {
        let mut index = image(&["app:1"], &[], 30);
        index.members = ["linux/amd64", "linux/arm/v7"]
            .map(|platform| ImageMember {
                id: Digest::sha256(platform),
                platform: platform.parse().unwrap(),
                created: None,
                size: 15,
            })
            .to_vec();
        let images = [index, image(&["one:1"], &[], 15)];
        insta::assert_snapshot!(as_tree(&lines(&images, None).unwrap(), false), @"
        IMAGE             ID             SIZE
        app:1             d2bb92ca7c6d   30B
        ├─ linux/amd64    baf0239e48ff   15B
        └─ linux/arm/v7   35df9beb9b1c   15B
        one:1             d07c442e934b   15B
        └─ linux/amd64    d07c442e934b   15B
        ");
    }

    #[test]
    fn ids_are_listed_once() {
        insta::assert_snapshot!(shown("-q"), @"
        f9bfe5e7df44
        e3b0c44298fc
        ");
        assert_eq!(shown("-q busybox:1"), "");
        assert!(shown("-q --no-trunc busybox:latest").starts_with("sha256:"));
    }

    #[test]
    fn formats_are_json_and_templates() {
        insta::assert_snapshot!(shown("--format {{.Repository}}:{{.Tag}}={{.Size}}"), @"
        busybox:latest=4.26MB
        localhost:5000/busybox:1=4.26MB
        <none>:<none>=0B
        app:<none>=117MB
        ");
        insta::assert_snapshot!(shown("--format json busybox").replace(Digest::sha256("busybox:latestlocalhost:5000/busybox:1").short(), "ID"), @r#"{"Containers":"N/A","CreatedAt":"1970-01-01 00:00:00 +0000 UTC","CreatedSince":"2 hours ago","Digest":"sha256:d1","ID":"ID","Repository":"busybox","SharedSize":"N/A","Size":"4.26MB","Tag":"latest","UniqueSize":"N/A"}"#);
        assert_eq!(shown("--format {{.Repository"), "`{{` is not closed");
    }
}
