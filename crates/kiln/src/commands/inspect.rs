//! `kiln inspect`.

use std::collections::BTreeMap;

use clap::Args;
use kiln_engine::ImageDetails;
use kiln_oci::{ContainerConfig, Descriptor, Digest, Empty, Healthcheck, Platform};
use kiln_report::Failure;
use serde::Serialize;

use super::images::by_template;
use super::rmi::all_or;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::template::Missing;

/// Print all that is known of images, as JSON
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The images: names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Print each image by a template such as `{{.Id}}` or `{{json .Config}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// The platform, when a name stands for several images [default: the machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Kind of object; images are all there is
    #[arg(long, hide = true, value_name = "KIND", value_parser = ["image"])]
    r#type: Option<String>,
}

/// Prints those that are there; fails when one is not.
pub(crate) fn run(args: &InspectArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let (mut found, mut failures): (Vec<ImageDetails>, Vec<Failure>) = (Vec::new(), Vec::new());
    for name in &args.images {
        match engine.inspect(name, args.platform.as_ref()) {
            Ok(image) => found.push(image),
            Err(failure) => failures.push(failure),
        }
    }
    let images: Vec<Inspected<'_>> = found.iter().map(Inspected::of).collect();
    let text = match args.format.as_deref() {
        None | Some("json") => to_json(&images),
        Some(format) => by_template(format, images.iter().map(|image| serde_json::json!(image)), Missing::NoValue)?,
    };
    stdout::print(&text)?;
    all_or(failures)
}

/// Docker indents by four blanks.
fn to_json(images: &[Inspected<'_>]) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    images.serialize(&mut serializer).expect("plain data serialises");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// An image in docker's fields and their order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected<'a> {
    id: &'a Digest,
    repo_tags: &'a [String],
    repo_digests: &'a [String],
    parent: &'a str,
    comment: &'a str,
    created: Option<&'a str>,
    docker_version: &'a str,
    author: &'a str,
    config: InspectedConfig<'a>,
    architecture: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    os: &'a str,
    size: u64,
    #[serde(rename = "RootFS")]
    root_fs: InspectedRootFs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor: Option<&'a Descriptor>,
}

/// The config; what templates ask for is there even when it is empty.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: &'a BTreeMap<String, Empty>,
    env: &'a [String],
    cmd: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<&'a Healthcheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args_escaped: Option<bool>,
    volumes: Option<&'a BTreeMap<String, Empty>>,
    working_dir: &'a str,
    entrypoint: Option<&'a [String]>,
    on_build: Option<&'a [String]>,
    labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<&'a [String]>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedRootFs<'a> {
    r#type: &'a str,
    layers: &'a [Digest],
}

impl<'a> Inspected<'a> {
    fn of(image: &'a ImageDetails) -> Self {
        let ImageDetails { summary, config, manifest, .. } = image;
        Self {
            id: &summary.id,
            repo_tags: &summary.names,
            repo_digests: &summary.digests,
            parent: "",
            comment: config.history.last().and_then(|step| step.comment.as_deref()).unwrap_or_default(),
            created: config.created.as_deref(),
            docker_version: "",
            author: config.author.as_deref().unwrap_or_default(),
            config: InspectedConfig::of(&config.config),
            architecture: &config.platform.architecture,
            variant: config.platform.variant.as_deref(),
            os: &config.platform.os,
            size: summary.size,
            root_fs: InspectedRootFs { r#type: &config.rootfs.kind, layers: &config.rootfs.diff_ids },
            descriptor: manifest.as_ref(),
        }
    }
}

impl<'a> InspectedConfig<'a> {
    fn of(config: &'a ContainerConfig) -> Self {
        Self {
            user: &config.user,
            exposed_ports: &config.exposed_ports,
            env: &config.env,
            cmd: config.cmd.as_deref(),
            healthcheck: config.healthcheck.as_ref(),
            args_escaped: config.args_escaped,
            volumes: Some(&config.volumes).filter(|volumes| !volumes.is_empty()),
            working_dir: &config.working_dir,
            entrypoint: config.entrypoint.as_deref(),
            on_build: Some(config.on_build.as_slice()).filter(|triggers| !triggers.is_empty()),
            labels: Some(&config.labels).filter(|labels| !labels.is_empty()),
            stop_signal: config.stop_signal.as_deref(),
            shell: config.shell.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_engine::ImageSummary;
    use kiln_oci::{ImageConfig, RootFs};

    use super::*;

    fn image() -> ImageDetails {
        let config = ContainerConfig {
            user: "app".into(),
            env: vec!["PATH=/bin".into()],
            cmd: Some(vec!["sh".into(), "-c".into(), "a && b".into()]),
            labels: [("a.b".to_owned(), "c".to_owned())].into(),
            exposed_ports: [("80/tcp".to_owned(), Empty {})].into(),
            ..ContainerConfig::default()
        };
        let id: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        ImageDetails {
            summary: ImageSummary {
                id: id.clone(),
                names: vec!["app:1".into()],
                digests: vec![],
                created: None,
                size: 42,
                platform: Platform::linux("amd64"),
                labels: [].into(),
                members: Vec::new(),
            },
            config: ImageConfig {
                created: Some("2024-01-18T22:29:46.5Z".into()),
                platform: Platform::linux("amd64"),
                config,
                rootfs: RootFs { diff_ids: vec![id], ..RootFs::default() },
                ..ImageConfig::default()
            },
            manifest: None,
            layer_sizes: vec![42],
        }
    }

    #[test]
    fn the_fields_are_docker_s() {
        insta::assert_snapshot!(to_json(&[Inspected::of(&image())]), @r#"
        [
            {
                "Id": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
                "RepoTags": [
                    "app:1"
                ],
                "RepoDigests": [],
                "Parent": "",
                "Comment": "",
                "Created": "2024-01-18T22:29:46.5Z",
                "DockerVersion": "",
                "Author": "",
                "Config": {
                    "User": "app",
                    "ExposedPorts": {
                        "80/tcp": {}
                    },
                    "Env": [
                        "PATH=/bin"
                    ],
                    "Cmd": [
                        "sh",
                        "-c",
                        "a && b"
                    ],
                    "Volumes": null,
                    "WorkingDir": "",
                    "Entrypoint": null,
                    "OnBuild": null,
                    "Labels": {
                        "a.b": "c"
                    }
                },
                "Architecture": "amd64",
                "Os": "linux",
                "Size": 42,
                "RootFS": {
                    "Type": "layers",
                    "Layers": [
                        "sha256:1111111111111111111111111111111111111111111111111111111111111111"
                    ]
                }
            }
        ]
        "#);
        assert_eq!(to_json(&[]), "[]\n");
    }

    #[test]
    fn templates_find_what_is_empty_too() {
        let image = image();
        let values = || std::iter::once(serde_json::json!(Inspected::of(&image)));
        let show = |format| by_template(format, values(), Missing::NoValue).unwrap();
        assert_eq!(show("{{.Config.User}} {{.Config.WorkingDir}}|{{index .Config.Labels \"a.b\"}}"), "app |c\n");
        assert_eq!(show("{{.RootFS.Type}} {{len .RootFS.Layers}} {{json .Config.Entrypoint}}"), "layers 1 null\n");
    }
}
