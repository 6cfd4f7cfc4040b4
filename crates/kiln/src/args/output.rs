//! `-o/--output`: a path, `-`, or `type=…` with attributes, and what they ask of the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_engine::{CompressionKind, Daemon, Dest, ImageOptions, LayerOptions, Naming, OtherFiles, Output};
use kiln_oci::Reference;

use super::annotation;
use super::value::{Wrong, attributes, did_you_mean, fields, go_bool};

const TYPES: [&str; 7] = ["image", "registry", "oci", "docker", "tar", "local", "cacheonly"];

/// Attributes that mean something to BuildKit and are refused here, each with a way out.
const REFUSED: [(&str, &str); 5] = [
    ("attestation-prefix", "leave it out: there are no attestations"),
    ("attestation-inline", "leave it out: there are no attestations"),
    ("registry.insecure", "leave it out: nothing is pushed"),
    ("compatibility-version", "leave it out: digests are kiln's own"),
    ("context", "name docker's socket with `DOCKER_HOST`"),
];

/// Attributes that ask for what is done anyway: layers that may not be redistributed stay where their URLs say.
const HARMLESS: [&str; 3] = ["unpack", "oci-artifact", "prefer-nondist-layers"];

/// An output, and the times it is to have.
#[derive(Debug, Clone)]
pub(crate) struct OutputArg {
    pub(crate) output: Output,
    pub(crate) times: OutputTimes,
}

/// The times an output is to have. All outputs of a build have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OutputTimes {
    pub(crate) epoch: Option<i64>,
    pub(crate) rewrite: bool,
}

impl OutputTimes {
    fn take(attributes: &mut Attributes) -> Result<Self, Wrong> {
        let rewrite = attributes.flag("rewrite-timestamp")?.unwrap_or(false);
        let Some(text) = attributes.filled("source-date-epoch") else { return Ok(Self { epoch: None, rewrite }) };
        let epoch = epoch(&text).map_err(|Wrong(why)| Wrong(format!("`source-date-epoch={text}`: {why}")))?;
        Ok(Self { epoch: Some(epoch), rewrite })
    }
}

/// Reads the value of `--output`, and the times that it asks for.
pub(crate) fn arg(text: &str) -> Result<OutputArg, Wrong> {
    let output = parse(text)?;
    let is_path = fields(text)?.iter().all(|field| !field.starts_with("type="));
    let times = if is_path { OutputTimes::default() } else { OutputTimes::take(&mut Attributes::read(text)?)? };
    Ok(OutputArg { output, times })
}

/// Reads the value of `--output`, but for times.
pub(crate) fn parse(text: &str) -> Result<Output, Wrong> {
    let first = fields(text)?;
    if let [only] = first.as_slice()
        && !only.starts_with("type=")
    {
        return match only.as_str() {
            "" => Err(Wrong("the destination is empty".into())),
            "-" => Ok(Output::Tar { dest: Dest::Stdout, platform_split: None }),
            path => Ok(Output::Local { dest: path.into(), others: OtherFiles::Keep, platform_split: None }),
        };
    }
    let mut attributes = Attributes::read(text)?;
    let kind = attributes.take("type").ok_or_else(|| Wrong("the output has no `type`".into()))?;
    OutputTimes::take(&mut attributes)?;
    let output = match kind.as_str() {
        "image" => image(&mut attributes, false)?,
        "registry" => image(&mut attributes, true)?,
        "oci" => oci(&mut attributes)?,
        "docker" => docker(&mut attributes)?,
        "tar" => {
            let dest = attributes.dest()?.unwrap_or(Dest::Stdout);
            Output::Tar { dest, platform_split: attributes.flag("platform-split")? }
        }
        "local" => local(&mut attributes)?,
        "cacheonly" => Output::CacheOnly,
        other => return Err(Wrong(format!("`{other}` is no type of output{}", did_you_mean(other, TYPES)))),
    };
    attributes.refuse_rest(&kind)?;
    Ok(output)
}

/// The image under the request's names at its registry, and in the local store.
pub(crate) fn pushed() -> Output {
    Output::Image { image: ImageOptions::default(), push: true, store: true, naming: Naming::default() }
}

/// Reads the value of `--load`: what to load into, or whether to.
pub(crate) fn load(text: &str) -> Result<Load, Wrong> {
    match text {
        "docker" => Ok(Load::Into(Some(Daemon::Docker))),
        "podman" => Ok(Load::Into(Some(Daemon::Podman))),
        "containerd" => Ok(Load::Into(Some(Daemon::Containerd))),
        other => match go_bool(other) {
            Ok(true) => Ok(Load::Into(None)),
            Ok(false) => Ok(Load::No),
            Err(_) => Err(Wrong("expected `docker`, `podman` or `containerd`".into())),
        },
    }
}

/// What `--load` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Into(Option<Daemon>),
    No,
}

fn image(attributes: &mut Attributes, is_registry: bool) -> Result<Output, Wrong> {
    let push = attributes.flag("push")?.unwrap_or(is_registry);
    let store = attributes.flag("store")?.unwrap_or(true);
    let may_be_insecure = attributes.flag("registry.insecure")?.unwrap_or(false);
    let naming = Naming {
        by_digest: attributes.flag("push-by-digest")?.unwrap_or(false),
        canonical: attributes.flag("name-canonical")?.unwrap_or(false),
        dangling_prefix: attributes.filled("dangling-name-prefix"),
        // BuildKit misspells it, and scripts have to.
        dangling_when_nameless: attributes.flag("danging-name-empty-only")?.unwrap_or(false),
    };
    if let Some(prefix) = naming.dangling_prefix.as_deref()
        && prefix.parse::<Reference>().is_err()
    {
        return Err(Wrong(format!("`dangling-name-prefix={prefix}` is no name of an image")));
    }
    let image = ImageOptions { may_be_insecure, ..attributes.image()? };
    Ok(Output::Image { image, push, store, naming })
}

fn oci(attributes: &mut Attributes) -> Result<Output, Wrong> {
    let tar = attributes.flag("tar")?.unwrap_or(true);
    let dest = attributes.dest()?.unwrap_or(Dest::Stdout);
    Ok(Output::Oci { dest: in_shape(dest, tar)?, image: attributes.image()?, tar })
}

/// Without `dest`, docker's exporter loads the image.
fn docker(attributes: &mut Attributes) -> Result<Output, Wrong> {
    let tar = attributes.flag("tar")?.unwrap_or(true);
    let image = attributes.image()?;
    match attributes.dest()? {
        None if tar => Ok(Output::Load { image, into: None }),
        dest => Ok(Output::Docker { dest: in_shape(dest.unwrap_or(Dest::Stdout), tar)?, image, tar }),
    }
}

fn in_shape(dest: Dest, tar: bool) -> Result<Dest, Wrong> {
    match dest {
        Dest::Stdout if !tar => Err(Wrong("a layout directory needs `dest=DIR`".into())),
        dest => Ok(dest),
    }
}

fn local(attributes: &mut Attributes) -> Result<Output, Wrong> {
    let others = match attributes.take("mode").as_deref() {
        None | Some("" | "copy") => OtherFiles::Keep,
        Some("delete") => OtherFiles::Delete,
        Some(other) => return Err(Wrong(format!("`mode={other}`: expected `copy` or `delete`"))),
    };
    let platform_split = attributes.flag("platform-split")?;
    match attributes.dest()? {
        Some(Dest::Path(dest)) => Ok(Output::Local { dest, others, platform_split }),
        Some(Dest::Stdout) => Err(Wrong("a directory cannot be written to standard output; use `type=tar`".into())),
        None => Err(Wrong("`type=local` needs `dest=DIR`".into())),
    }
}

/// The attributes of a value, each taken once.
#[derive(Clone)]
pub(super) struct Attributes(BTreeMap<String, String>);

impl Attributes {
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        Ok(Self(attributes(text)?.into_iter().collect()))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// One that is more than nothing.
    pub(super) fn filled(&mut self, key: &str) -> Option<String> {
        self.take(key).filter(|value| !value.is_empty())
    }

    /// Whether there is one.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Wrong> {
        let Some(text) = self.take(key) else { return Ok(None) };
        go_bool(&text).map(Some).map_err(|Wrong(why)| Wrong(format!("`{key}={text}`: {why}")))
    }

    /// Reads a switch without taking it.
    pub(super) fn peek_flag(&self, key: &str) -> Result<Option<bool>, Wrong> {
        Self(self.0.clone()).flag(key)
    }

    /// One that nobody took.
    pub(super) fn into_first_key(self) -> Option<String> {
        self.0.into_keys().next()
    }

    fn dest(&mut self) -> Result<Option<Dest>, Wrong> {
        match self.take("dest").as_deref() {
            None => Ok(None),
            Some("") => Err(Wrong("`dest` is empty".into())),
            Some("-") => Ok(Some(Dest::Stdout)),
            Some(path) => Ok(Some(Dest::Path(PathBuf::from(path)))),
        }
    }

    fn names(&mut self) -> Result<Vec<Reference>, Wrong> {
        let Some(names) = self.take("name") else { return Ok(Vec::new()) };
        let name = |name: &str| {
            let name: Reference = name.trim().parse().map_err(|e| Wrong(format!("{e}")))?;
            match name.digest {
                Some(_) => Err(Wrong(format!("`{}` cannot name a new image: it has a digest", name.familiar()))),
                None => Ok(name),
            }
        };
        names.split(',').map(name).collect()
    }

    fn image(&mut self) -> Result<ImageOptions, Wrong> {
        let (names, layers) = (self.names()?, self.layers()?);
        if layers.oci_media_types == Some(false) && self.peek_flag("oci-artifact")? == Some(true) {
            return Err(Wrong("`oci-artifact=true` needs OCI media types; leave out `oci-mediatypes=false`".into()));
        }
        let annotations = self.0.iter().filter_map(|(key, value)| annotation::of_attribute(key, value));
        let annotations = annotations.collect::<Result<_, _>>()?;
        self.0.retain(|key, value| annotation::of_attribute(key, value).is_none());
        Ok(ImageOptions { names, layers, annotations, may_be_insecure: false })
    }

    pub(super) fn layers(&mut self) -> Result<LayerOptions, Wrong> {
        let compression = match self.take("compression").as_deref() {
            None => None,
            Some("uncompressed") => Some(CompressionKind::Uncompressed),
            Some("gzip") => Some(CompressionKind::Gzip),
            Some("zstd") => Some(CompressionKind::Zstd),
            Some("estargz") => Some(CompressionKind::Estargz),
            Some(other) => {
                let near = did_you_mean(other, ["uncompressed", "gzip", "estargz", "zstd"]);
                return Err(Wrong(format!("`{other}` is no compression{near}")));
            }
        };
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => Some(level(&text, compression)?),
        };
        let force = self.flag("force-compression")?.unwrap_or(false);
        let oci_media_types = self.flag("oci-mediatypes")?;
        if compression == Some(CompressionKind::Estargz) && oci_media_types == Some(false) {
            return Err(Wrong("`compression=estargz` needs OCI media types; leave out `oci-mediatypes=false`".into()));
        }
        Ok(LayerOptions { compression, level, force, oci_media_types })
    }

    fn refuse_rest(mut self, kind: &str) -> Result<(), Wrong> {
        // What is switched off is not asked for.
        let is_off =
            |key: &str, value: &str| REFUSED.iter().any(|(name, _)| *name == key) && go_bool(value) == Ok(false);
        self.0.retain(|key, value| !HARMLESS.contains(&key.as_str()) && !is_off(key, value));
        let Some(key) = self.0.into_keys().next() else { return Ok(()) };
        if let Some((_, way_out)) = REFUSED.iter().find(|(name, _)| *name == key) {
            return Err(Wrong(format!("`{key}` is not supported for `type={kind}`; {way_out}")));
        }
        // tidy: table
        const KNOWN: [&str; 18] = [
            "type",
            "dest",
            "name",
            "push",
            "push-by-digest",
            "registry.insecure",
            "name-canonical",
            "dangling-name-prefix",
            "danging-name-empty-only",
            "store",
            "tar",
            "mode",
            "platform-split",
            "compression",
            "compression-level",
            "force-compression",
            "oci-mediatypes",
            "annotation.KEY",
        ];
        let near = if KNOWN.contains(&key.as_str()) { String::new() } else { did_you_mean(&key, KNOWN) };
        Err(Wrong(format!("`type={kind}` has no `{key}`{near}")))
    }
}

/// Seconds since 1970.
pub(crate) fn epoch(text: &str) -> Result<i64, Wrong> {
    text.parse().map_err(|_| Wrong("expected seconds since 1970".into()))
}

fn level(text: &str, compression: Option<CompressionKind>) -> Result<u32, Wrong> {
    let most = match compression {
        Some(CompressionKind::Uncompressed) => return Err(Wrong("a plain tar has no compression level".into())),
        Some(CompressionKind::Zstd) => 22,
        Some(CompressionKind::Gzip | CompressionKind::Estargz) | None => 9,
    };
    match text.parse() {
        Ok(level) if level <= most => Ok(level),
        _ => Err(Wrong(format!("`{text}` is no compression level: expected 0 to {most}"))),
    }
}

#[cfg(test)]
mod tests;
