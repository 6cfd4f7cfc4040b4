//! `-o/--output`: a path, `-`, or `type=…` with attributes, and what they ask of the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_engine::{CompressionKind, Dest, LayerOptions, Output};
use kiln_oci::Reference;

use super::value::{Wrong, attributes, did_you_mean, fields, go_bool};

const TYPES: [&str; 7] = ["image", "registry", "oci", "docker", "tar", "local", "cacheonly"];

/// Attributes that mean something to BuildKit and nothing here yet.
const LATER: [&str; 13] = [
    "push-by-digest",
    "registry.insecure",
    "rewrite-timestamp",
    "annotation",
    "attestation-prefix",
    "attestation-inline",
    "dangling-name-prefix",
    "name-canonical",
    "prefer-nondist-layers",
    "source-date-epoch",
    "platform-split",
    "mode",
    "compatibility-version",
];

/// Attributes that ask for what is done anyway.
const HARMLESS: [&str; 2] = ["unpack", "oci-artifact"];

/// Reads the value of `--output`.
pub(crate) fn parse(text: &str) -> Result<Output, Wrong> {
    let first = fields(text)?;
    if let [only] = first.as_slice()
        && !only.starts_with("type=")
    {
        return match only.as_str() {
            "" => Err(Wrong("the destination is empty".into())),
            "-" => Ok(Output::Tar { dest: Dest::Stdout }),
            path => Ok(Output::Local { dest: path.into() }),
        };
    }
    let mut attributes = Attributes::read(text)?;
    let kind = attributes.take("type").ok_or_else(|| Wrong("the output has no `type`".into()))?;
    let output = match kind.as_str() {
        "image" => image(&mut attributes, false)?,
        "registry" => image(&mut attributes, true)?,
        "oci" => oci(&mut attributes)?,
        "docker" => docker(&mut attributes)?,
        "tar" => Output::Tar { dest: attributes.dest()?.unwrap_or(Dest::Stdout) },
        "local" => local(&mut attributes)?,
        "cacheonly" => Output::CacheOnly,
        other => return Err(Wrong(format!("`{other}` is no type of output{}", did_you_mean(other, TYPES)))),
    };
    attributes.refuse_rest(&kind)?;
    Ok(output)
}

/// The image under the request's names in the local store, and at its registry if `push`.
pub(crate) fn image_output(push: bool) -> Output {
    Output::Image { names: Vec::new(), push, store: true, layers: LayerOptions::default() }
}

fn image(attributes: &mut Attributes, is_registry: bool) -> Result<Output, Wrong> {
    let names = attributes.names()?;
    let push = attributes.flag("push")?.unwrap_or(is_registry);
    let store = attributes.flag("store")?.unwrap_or(true);
    Ok(Output::Image { names, push, store, layers: attributes.layers()? })
}

fn oci(attributes: &mut Attributes) -> Result<Output, Wrong> {
    let tar = attributes.flag("tar")?.unwrap_or(true);
    let dest = attributes.dest()?.unwrap_or(Dest::Stdout);
    if !tar && dest == Dest::Stdout {
        return Err(Wrong("a layout directory needs `dest=DIR`".into()));
    }
    Ok(Output::Oci { names: attributes.names()?, dest, tar, layers: attributes.layers()? })
}

/// Without `dest`, docker's exporter loads the image; here that is the local store.
fn docker(attributes: &mut Attributes) -> Result<Output, Wrong> {
    if attributes.flag("tar")? == Some(false) {
        return Err(Wrong(
            "`tar=false` is not supported yet for `type=docker`; `type=oci,tar=false` writes a directory".into(),
        ));
    }
    let Some(dest) = attributes.dest()? else {
        let names = attributes.names()?;
        return Ok(Output::Image { names, push: false, store: true, layers: attributes.layers()? });
    };
    Ok(Output::Docker { names: attributes.names()?, dest, layers: attributes.layers()? })
}

fn local(attributes: &mut Attributes) -> Result<Output, Wrong> {
    match attributes.dest()? {
        Some(Dest::Path(dest)) => Ok(Output::Local { dest }),
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
        names.split(',').map(|name| name.trim().parse().map_err(|e| Wrong(format!("{e}")))).collect()
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
        let is_harmless = |key: &str, value: &str| HARMLESS.contains(&key) || (key == "mode" && value == "copy");
        self.0.retain(|key, value| !is_harmless(key, value));
        let Some(key) = self.0.into_keys().next() else { return Ok(()) };
        let family = key.split(['.', '[']).next().unwrap_or_default();
        if LATER.contains(&key.as_str()) || LATER.contains(&family) || family.starts_with("annotation-") {
            return Err(Wrong(format!("`{key}` is not supported yet for `type={kind}`")));
        }
        const KNOWN: [&str; 10] = [
            "type",
            "dest",
            "name",
            "push",
            "store",
            "tar",
            "compression",
            "compression-level",
            "force-compression",
            "oci-mediatypes",
        ];
        Err(Wrong(format!("`type={kind}` has no `{key}`{}", did_you_mean(&key, KNOWN))))
    }
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
mod tests {
    use super::*;

    #[test]
    fn every_form_asks_for_one_thing() {
        for (text, wanted) in [
            ("out", r#"Local { dest: "out" }"#),
            ("-", "Tar { dest: Stdout }"),
            ("type=local,dest=out", r#"Local { dest: "out" }"#),
            ("type=local,dest=out,mode=copy", r#"Local { dest: "out" }"#),
            ("type=tar", "Tar { dest: Stdout }"),
            ("type=tar,dest=a.tar", r#"Tar { dest: Path("a.tar") }"#),
            ("type=cacheonly", "CacheOnly"),
        ] {
            assert_eq!(format!("{:?}", parse(text).unwrap()), wanted, "{text}");
        }
    }

    #[test]
    fn images_are_named_pushed_and_stored_as_asked() {
        let Output::Image { names, push, store, layers } = parse(
            r#"type=image,"name=a,localhost:5000/b:1",push=true,store=false,compression=zstd,compression-level=19"#,
        )
        .unwrap() else {
            panic!("an image");
        };
        assert_eq!(names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:latest", "localhost:5000/b:1"]);
        assert_eq!((push, store), (true, false));
        assert_eq!((layers.compression, layers.level), (Some(CompressionKind::Zstd), Some(19)));
        assert!(matches!(parse("type=registry").unwrap(), Output::Image { push: true, store: true, .. }));
        assert!(matches!(parse("type=docker").unwrap(), Output::Image { push: false, store: true, .. }));
        assert!(matches!(parse("type=docker,dest=-").unwrap(), Output::Docker { dest: Dest::Stdout, .. }));
        assert!(matches!(parse("type=oci,dest=d,tar=false").unwrap(), Output::Oci { tar: false, .. }));
    }

    #[test]
    fn what_is_no_output_says_why() {
        for (text, message) in [
            ("", "the destination is empty"),
            ("dest=x,name=y", "the output has no `type`"),
            ("type=imgae", "`imgae` is no type of output; did you mean `image`?"),
            ("type=oci,dset=x", "`type=oci` has no `dset`; did you mean `dest`?"),
            ("type=local", "`type=local` needs `dest=DIR`"),
            ("type=local,dest=-", "a directory cannot be written to standard output; use `type=tar`"),
            ("type=oci,tar=false", "a layout directory needs `dest=DIR`"),
            ("type=image,push=maybe", "`push=maybe`: expected `true` or `false`"),
            ("type=image,compression=gzpi", "`gzpi` is no compression; did you mean `gzip`?"),
            ("type=image,compression=gzip,compression-level=10", "`10` is no compression level: expected 0 to 9"),
            ("type=image,annotation.a=b", "`annotation.a` is not supported yet for `type=image`"),
            ("type=image,rewrite-timestamp=true", "`rewrite-timestamp` is not supported yet for `type=image`"),
            ("type=local,dest=x,mode=delete", "`mode` is not supported yet for `type=local`"),
        ] {
            assert_eq!(parse(text).unwrap_err().0, message, "{text}");
        }
    }
}
