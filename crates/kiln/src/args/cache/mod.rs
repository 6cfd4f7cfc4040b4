//! `--cache-from` and `--cache-to`: `type=…` with attributes, or names of images.

mod stores;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_engine::{
    CacheEntry, CacheFrom, CacheManifest, CacheMode, CachePlace, CacheTo, DEFAULT_MAX_SIZE, MountExport, MountPlace,
    MountsFrom, MountsTo, ObjectOptions,
};
use kiln_oci::Reference;

pub(crate) use stores::SECRETS;

use super::Environment;
use super::output::Attributes;
use super::value::{Wrong, bytes, did_you_mean, fields, go_bool};

const TYPES: [&str; 6] = ["inline", "registry", "local", "s3", "gha", "azblob"];

/// Lets one cache be spoken to in plain http, or without knowing who answers.
const INSECURE: &str = "registry.insecure";

const TO_LAYERS: [&str; 9] = [
    "mounts",
    "mounts-max-size",
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "ignore-error",
];

/// What stores of objects have no use for: they know no manifests.
const OF_MANIFESTS: [&str; 2] = ["oci-mediatypes", "image-manifest"];

/// A store of objects: what it is depends on the environment, too.
#[derive(Clone)]
pub(crate) struct StoreArg {
    kind: String,
    attributes: Attributes,
}

impl std::fmt::Debug for StoreArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets are among its attributes.
        f.debug_struct("StoreArg").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The values of one `--cache-from`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheFromArg {
    pub(crate) caches: Vec<CacheFrom>,
    /// Where cache mounts are beside them.
    pub(crate) mounts: Vec<MountsFrom>,
    /// What there is instead of both until the environment is known.
    store: Option<StoreArg>,
}

/// The values of one `--cache-to`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheToArg {
    pub(crate) caches: Vec<CacheTo>,
    /// Cache mounts that go along.
    pub(crate) mounts: Option<MountsTo>,
    /// What there is instead of both until the environment is known.
    store: Option<StoreArg>,
}

/// Reads the value of `--cache-from`.
pub(crate) fn from(text: &str) -> Result<CacheFromArg, Wrong> {
    if let Some(names) = names(text)? {
        let caches = names.into_iter().map(|reference| CacheFrom::Registry { reference, may_be_insecure: false });
        return Ok(with_mounts(caches.collect(), DEFAULT_MAX_SIZE));
    }
    let mut attributes = Attributes::read(text)?;
    let kind = kind(&mut attributes)?;
    if stores::STORES.contains(&kind.as_str()) {
        return Ok(CacheFromArg { store: Some(StoreArg { kind, attributes }), ..CacheFromArg::default() });
    }
    let max_size = max_size(&mut attributes)?;
    let from = match kind.as_str() {
        "registry" => {
            let may_be_insecure = attributes.flag(INSECURE)?.unwrap_or(false);
            let from = CacheFrom::Registry { reference: reference(&mut attributes)?, may_be_insecure };
            refuse_rest(attributes, "registry", &["ref", INSECURE, "mounts-max-size"])?;
            from
        }
        "local" => {
            let from = CacheFrom::Local { dir: dir(&mut attributes, "src")?, entry: entry(&mut attributes)? };
            refuse_rest(attributes, "local", &["src", "tag", "digest", "mounts-max-size"])?;
            from
        }
        "inline" => {
            let message =
                "`type=inline` is for `--cache-to`; to use the cache of an image, write `type=registry,ref=NAME`";
            return Err(Wrong(message.into()));
        }
        other => return Err(unknown(other)),
    };
    Ok(with_mounts(vec![from], max_size))
}

/// Cache mounts are looked for beside every cache.
fn with_mounts(caches: Vec<CacheFrom>, max_size: u64) -> CacheFromArg {
    let place = |cache: &CacheFrom| match cache {
        CacheFrom::Registry { reference, .. } if reference.digest.is_some() => None,
        CacheFrom::Registry { reference, may_be_insecure } => {
            Some(MountPlace::Registry { reference: reference.clone(), may_be_insecure: *may_be_insecure })
        }
        CacheFrom::Local { dir, .. } => Some(MountPlace::Layout(dir.clone())),
        CacheFrom::Objects(ObjectOptions::Actions(_)) => None,
        CacheFrom::Objects(options) => Some(MountPlace::Objects(options.clone())),
    };
    let mounts = caches.iter().filter_map(place).map(|place| MountsFrom { place, max_size }).collect();
    CacheFromArg { caches, mounts, store: None }
}

impl CacheFromArg {
    /// Adds what the environment says.
    pub(crate) fn resolve(self, environment: &Environment) -> Result<Self, Wrong> {
        let Some(StoreArg { kind, mut attributes }) = self.store else { return Ok(self) };
        let max_size = max_size(&mut attributes)?;
        let options = stores::options(&kind, &mut attributes, environment)?;
        // The same words as for `--cache-to` may be given, and some mean nothing here.
        attributes.take("mode");
        refuse_rest(attributes, &kind, &[stores::known(&kind), &["mounts-max-size"]].concat())?;
        Ok(with_mounts(vec![CacheFrom::Objects(options)], max_size))
    }
}

impl CacheToArg {
    /// Adds what the environment says.
    pub(crate) fn resolve(self, environment: &Environment) -> Result<Self, Wrong> {
        let Some(StoreArg { kind, mut attributes }) = self.store else { return Ok(self) };
        let known = stores::known(&kind);
        if let Some(key) = OF_MANIFESTS.iter().find(|key| attributes.has(key)) {
            return Err(Wrong(format!("`type={kind}` has no `{key}`: there are no manifests in it")));
        }
        let options = stores::options(&kind, &mut attributes, environment)?;
        // Outside a workflow there is no such cache, and scripts that name it are to work all the same.
        let is_elsewhere =
            matches!(&options, ObjectOptions::Actions(options) if options.url.is_none() || options.token.is_none());
        let mut arg = placed(CachePlace::Objects(options), (&kind, known), attributes)?;
        arg.caches.iter_mut().for_each(|to| to.ignore_error |= is_elsewhere);
        Ok(arg)
    }
}

fn max_size(attributes: &mut Attributes) -> Result<u64, Wrong> {
    let Some(text) = attributes.take("mounts-max-size") else { return Ok(DEFAULT_MAX_SIZE) };
    bytes(&text).map_err(|Wrong(why)| Wrong(format!("`mounts-max-size={text}`: {why}")))
}

/// `mounts=all`, or ids with semicolons between them.
fn mounts(attributes: &mut Attributes, place: &CachePlace, ignore_error: bool) -> Result<Option<MountsTo>, Wrong> {
    let max_size = max_size(attributes)?;
    let Some(text) = attributes.take("mounts") else { return Ok(None) };
    let ids: Vec<String> = match text.as_str() {
        "all" => Vec::new(),
        ids => ids.split(';').map(str::to_owned).collect(),
    };
    if ids.iter().any(String::is_empty) {
        return Err(Wrong("`mounts` names no cache mount: expected `all`, or ids with `;` between them".into()));
    }
    let place = match place {
        CachePlace::Registry { reference, may_be_insecure } => {
            MountPlace::Registry { reference: reference.clone(), may_be_insecure: *may_be_insecure }
        }
        CachePlace::Local { dir, .. } => MountPlace::Layout(dir.clone()),
        CachePlace::Objects(ObjectOptions::Actions(_)) => {
            return Err(Wrong("`type=gha` carries no cache mounts".into()));
        }
        CachePlace::Objects(options) => MountPlace::Objects(options.clone()),
        CachePlace::Inline => return Err(Wrong("an image carries no cache mounts".into())),
    };
    Ok(Some(MountsTo { place, mounts: MountExport { ids, max_size }, ignore_error }))
}

/// Reads the value of `--cache-to`.
pub(crate) fn to(text: &str) -> Result<CacheToArg, Wrong> {
    if let Some(names) = names(text)? {
        let place = |reference| plain(CachePlace::Registry { reference, may_be_insecure: false });
        let to = |reference| movable(reference).map(place);
        let caches = names.into_iter().map(to).collect::<Result<_, _>>()?;
        return Ok(CacheToArg { caches, ..CacheToArg::default() });
    }
    let mut attributes = Attributes::read(text)?;
    let kind = kind(&mut attributes)?;
    if stores::STORES.contains(&kind.as_str()) {
        return Ok(CacheToArg { store: Some(StoreArg { kind, attributes }), ..CacheToArg::default() });
    }
    let (place, known) = match kind.as_str() {
        "inline" => (CachePlace::Inline, &[][..]),
        "registry" => {
            let may_be_insecure = attributes.flag(INSECURE)?.unwrap_or(false);
            let reference = movable(reference(&mut attributes)?)?;
            (CachePlace::Registry { reference, may_be_insecure }, &["ref", INSECURE][..])
        }
        "local" => {
            let tag = tag(&mut attributes)?;
            let reset = attributes.flag("reset")?.unwrap_or(false);
            (CachePlace::Local { dir: dir(&mut attributes, "dest")?, tag, reset }, &["dest", "tag", "reset"][..])
        }
        other => return Err(unknown(other)),
    };
    if place == CachePlace::Inline {
        if attributes.take("mode").is_some_and(|mode| mode != "min") {
            return Err(Wrong("an image carries only what it consists of: `type=inline` has only `mode=min`".into()));
        }
        refuse_rest(attributes, &kind, &["mode"])?;
        return Ok(CacheToArg { caches: vec![plain(place)], ..CacheToArg::default() });
    }
    placed(place, (&kind, known), attributes)
}

/// A cache at a place, as the rest of its attributes wants it.
fn placed(place: CachePlace, (kind, known): (&str, &[&str]), mut attributes: Attributes) -> Result<CacheToArg, Wrong> {
    let ignore_error = attributes.flag("ignore-error")?.unwrap_or(false);
    let mounts = mounts(&mut attributes, &place, ignore_error)?;
    let to = CacheTo {
        place,
        mode: mode(&mut attributes)?,
        manifest: manifest(&mut attributes)?,
        layers: attributes.layers()?,
        ignore_error,
    };
    refuse_rest(attributes, kind, &[known, &TO_LAYERS].concat())?;
    Ok(CacheToArg { caches: vec![to], mounts, store: None })
}

/// Where a build writes its caches: `typed`, and into the image when a build argument asks for that.
pub(crate) fn all(typed: &[CacheToArg], build_args: &BTreeMap<String, String>) -> Vec<CacheTo> {
    let mut all: Vec<CacheTo> = typed.iter().flat_map(|to| to.caches.clone()).collect();
    let is_asked_for = build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| go_bool(value) == Ok(true));
    if is_asked_for && !all.iter().any(|to| to.place == CachePlace::Inline) {
        all.push(plain(CachePlace::Inline));
    }
    all
}

fn plain(place: CachePlace) -> CacheTo {
    CacheTo {
        place,
        mode: CacheMode::default(),
        layers: kiln_engine::LayerOptions::default(),
        manifest: CacheManifest::default(),
        ignore_error: false,
    }
}

/// The names, when there is nothing but names of images.
fn names(text: &str) -> Result<Option<Vec<Reference>>, Wrong> {
    let fields = fields(text)?;
    if fields.iter().any(|field| field.contains('=')) {
        return Ok(None);
    }
    fields.iter().map(|field| name(field)).collect::<Result<_, _>>().map(Some)
}

fn name(text: &str) -> Result<Reference, Wrong> {
    text.trim().parse().map_err(|error| Wrong(format!("{error}")))
}

fn kind(attributes: &mut Attributes) -> Result<String, Wrong> {
    attributes.take("type").filter(|kind| !kind.is_empty()).ok_or_else(|| Wrong("the cache has no `type`".into()))
}

fn unknown(kind: &str) -> Wrong {
    Wrong(format!("`{kind}` is no type of cache{}", did_you_mean(kind, TYPES)))
}

fn reference(attributes: &mut Attributes) -> Result<Reference, Wrong> {
    let text = attributes.take("ref").filter(|text| !text.is_empty());
    name(&text.ok_or_else(|| Wrong("`type=registry` needs `ref=NAME`".into()))?)
}

/// One that another cache can be written to, the next time.
fn movable(reference: Reference) -> Result<Reference, Wrong> {
    if reference.digest.is_some() {
        let message = format!("`{reference}` names one content for ever; a cache needs a tag that can move");
        return Err(Wrong(message + ": leave out the digest"));
    }
    Ok(reference)
}

fn dir(attributes: &mut Attributes, key: &str) -> Result<PathBuf, Wrong> {
    let dir = attributes.take(key).filter(|dir| !dir.is_empty());
    dir.map(PathBuf::from).ok_or_else(|| Wrong(format!("`type=local` needs `{key}=DIR`")))
}

fn entry(attributes: &mut Attributes) -> Result<CacheEntry, Wrong> {
    let tag = tag(attributes)?;
    match attributes.take("digest") {
        Some(digest) => Ok(CacheEntry::Digest(digest.parse().map_err(|error| Wrong(format!("{error}")))?)),
        None => Ok(CacheEntry::Tag(tag)),
    }
}

fn tag(attributes: &mut Attributes) -> Result<String, Wrong> {
    match attributes.take("tag") {
        Some(tag) if tag.is_empty() => Err(Wrong("`tag` is empty; without it the tag is `latest`".into())),
        tag => Ok(tag.unwrap_or_else(|| "latest".into())),
    }
}

fn mode(attributes: &mut Attributes) -> Result<CacheMode, Wrong> {
    match attributes.take("mode").as_deref() {
        None | Some("min") => Ok(CacheMode::Min),
        Some("max") => Ok(CacheMode::Max),
        Some(other) => Err(Wrong(format!("`mode={other}`: expected `min` or `max`"))),
    }
}

/// Docker's media types have no image manifest that could be a cache.
fn manifest(attributes: &mut Attributes) -> Result<CacheManifest, Wrong> {
    let is_oci = attributes.peek_flag("oci-mediatypes")?.unwrap_or(true);
    match (attributes.flag("image-manifest")?, is_oci) {
        (Some(true), false) => Err(Wrong("`image-manifest=true` needs `oci-mediatypes=true`".into())),
        (Some(true) | None, true) => Ok(CacheManifest::Image),
        (Some(false), _) | (None, false) => Ok(CacheManifest::Index),
    }
}

fn refuse_rest(attributes: Attributes, kind: &str, known: &[&str]) -> Result<(), Wrong> {
    let Some(key) = attributes.into_first_key() else { return Ok(()) };
    Err(Wrong(format!("`type={kind}` has no `{key}`{}", did_you_mean(&key, known.iter().copied()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_names_one_place() {
        for (text, wanted) in [
            ("type=local,src=c", r#"[Local { dir: "c", entry: Tag("latest") }]"#),
            ("type=local,src=c,tag=t", r#"[Local { dir: "c", entry: Tag("t") }]"#),
        ] {
            assert_eq!(format!("{:?}", from(text).unwrap().caches), wanted, "{text}");
        }
        let digest = format!("type=local,src=c,digest=sha256:{}", "a".repeat(64));
        assert!(matches!(&from(&digest).unwrap().caches[0], CacheFrom::Local { entry: CacheEntry::Digest(_), .. }));
        let several = from("app:1,localhost:5000/app:2").unwrap();
        let names: Vec<String> = several
            .caches
            .iter()
            .map(|from| match from {
                CacheFrom::Registry { reference, .. } => reference.familiar(),
                _ => panic!("names of images"),
            })
            .collect();
        assert_eq!(names, ["app:1", "localhost:5000/app:2"]);
    }

    #[test]
    fn a_place_to_write_to_has_buildkits_defaults() {
        let [to_registry] = to("localhost:5000/app:cache").unwrap().caches.try_into().unwrap();
        assert_eq!((to_registry.mode, to_registry.manifest), (CacheMode::Min, CacheManifest::Image));
        let text = "type=local,dest=c,mode=max,oci-mediatypes=false,compression=zstd,ignore-error=true,reset=true";
        let [to_dir] = to(text).unwrap().caches.try_into().unwrap();
        assert_eq!((to_dir.mode, to_dir.manifest, to_dir.ignore_error), (CacheMode::Max, CacheManifest::Index, true));
        let place = CachePlace::Local { dir: "c".into(), tag: "latest".into(), reset: true };
        assert_eq!((to_dir.place, to_dir.layers.oci_media_types), (place, Some(false)));
        // As in buildx, what is said last counts.
        let [twice] = to("type=local,dest=c,mode=max,mode=min").unwrap().caches.try_into().unwrap();
        assert_eq!(twice.mode, CacheMode::Min);
    }

    #[test]
    fn mounts_go_to_the_place_of_the_cache_and_are_looked_for_at_each() {
        let mounts = |text: &str| to(text).unwrap().mounts.unwrap();
        let all = mounts("type=local,dest=c,mounts=all,ignore-error=true");
        assert_eq!((all.place, all.ignore_error), (MountPlace::Layout("c".into()), true));
        assert_eq!(all.mounts, MountExport { ids: Vec::new(), max_size: DEFAULT_MAX_SIZE });
        let some = mounts("type=registry,ref=localhost:5000/c,mounts=pip;npm,mounts-max-size=1g");
        assert_eq!(some.mounts, MountExport { ids: vec!["pip".into(), "npm".into()], max_size: 1 << 30 });
        assert_eq!(to("type=local,dest=c").unwrap().mounts, None);
        let found = from("type=local,src=c,mounts-max-size=5m").unwrap().mounts;
        assert_eq!(found, [MountsFrom { place: MountPlace::Layout("c".into()), max_size: 5 << 20 }]);
        assert_eq!(from("app:1,app:2").unwrap().mounts.len(), 2);
        // Both of them are spoken to as the cache is.
        let insecure = "type=registry,ref=h.example/c,registry.insecure=true";
        let is_insecure = |place: &MountPlace| matches!(place, MountPlace::Registry { may_be_insecure: true, .. });
        assert!(is_insecure(&from(insecure).unwrap().mounts[0].place));
        assert!(is_insecure(&mounts(&format!("{insecure},mounts=all")).place));
        let [cache] = from(insecure).unwrap().caches.try_into().unwrap();
        assert!(matches!(cache, CacheFrom::Registry { may_be_insecure: true, .. }));
        let [cache] = to(insecure).unwrap().caches.try_into().unwrap();
        assert!(matches!(cache.place, CachePlace::Registry { may_be_insecure: true, .. }));
    }

    #[test]
    fn stores_are_known_when_the_environment_is() {
        let none = Environment::default();
        let region = Environment::from([("AWS_REGION", "r")]);
        let typed = "type=s3,bucket=b,access_key_id=i,secret_access_key=hush";
        let arg = to(&format!("{typed},mode=max,mounts=all,ignore-error=true")).unwrap();
        assert!(!format!("{arg:?}").contains("hush"));
        assert!(arg.clone().resolve(&none).unwrap_err().0.contains("AWS_REGION"));
        let arg = arg.resolve(&region).unwrap();
        assert!(matches!(arg.mounts.as_ref().unwrap().place, MountPlace::Objects(_)));
        assert_eq!((arg.caches[0].mode, arg.caches[0].ignore_error), (CacheMode::Max, true));
        assert!(!format!("{arg:?}").contains("hush"));
        let found = from(typed).unwrap().resolve(&region).unwrap();
        assert_eq!((found.caches.len(), found.mounts.len()), (1, 1));
        let elsewhere = to("type=gha").unwrap().resolve(&none).unwrap();
        assert!(elsewhere.caches[0].ignore_error, "there is no such cache outside a workflow");
        for (text, message) in [
            ("type=s3,bucket=b,region=r,bukcet=c", "`type=s3` has no `bukcet`; did you mean `bucket`?"),
            ("type=s3,bucket=b,image-manifest=true", "`type=s3` has no `image-manifest`: there are no manifests in it"),
            ("type=gha,mounts=all", "`type=gha` carries no cache mounts"),
        ] {
            assert_eq!(to(text).unwrap().resolve(&none).unwrap_err().0, message, "{text}");
        }
    }

    #[test]
    fn a_build_argument_asks_for_the_cache_in_the_image_once() {
        let args = |value: &str| BTreeMap::from([("BUILDKIT_INLINE_CACHE".to_owned(), value.to_owned())]);
        assert_eq!(all(&[], &args("1")).len(), 1);
        assert_eq!(all(&[to("type=inline").unwrap()], &args("true")).len(), 1);
        assert!(all(&[], &args("0")).is_empty());
    }

    #[test]
    fn what_is_no_cache_says_why() {
        for (text, message) in [
            ("ref=x", "the cache has no `type`"),
            ("type=,src=x", "the cache has no `type`"),
            ("type=local,src=x,tag=", "`tag` is empty; without it the tag is `latest`"),
            ("type=locla,src=x", "`locla` is no type of cache; did you mean `local`?"),
            ("type=registry", "`type=registry` needs `ref=NAME`"),
            ("type=local", "`type=local` needs `src=DIR`"),
            ("type=local,src=x,tga=y", "`type=local` has no `tga`; did you mean `tag`?"),
            ("type=registry,ref=x,registry.insecure=yes", "`registry.insecure=yes`: expected `true` or `false`"),
            ("type=local,src=x,registry.insecure=true", "`type=local` has no `registry.insecure`"),
        ] {
            assert_eq!(from(text).unwrap_err().0, message, "{text}");
        }
        for (text, message) in [
            ("type=local", "`type=local` needs `dest=DIR`"),
            ("type=local,dest=x,tag=", "`tag` is empty; without it the tag is `latest`"),
            ("type=local,dest=x,mode=all", "`mode=all`: expected `min` or `max`"),
            ("type=local,dest=x,src=y", "`type=local` has no `src`"),
            (
                "type=local,dest=x,mounts=a;;b",
                "`mounts` names no cache mount: expected `all`, or ids with `;` between them",
            ),
            ("type=registry,ref=x,reset=true", "`type=registry` has no `reset`"),
            ("type=inline,ref=x", "`type=inline` has no `ref`"),
            ("type=inline,mounts=all", "`type=inline` has no `mounts`"),
            ("type=registry,ref=x,ignore-error=maybe", "`ignore-error=maybe`: expected `true` or `false`"),
            (
                "type=local,dest=x,image-manifest=true,oci-mediatypes=false",
                "`image-manifest=true` needs `oci-mediatypes=true`",
            ),
        ] {
            assert_eq!(to(text).unwrap_err().0, message, "{text}");
        }
        let pinned = format!("app@sha256:{}", "a".repeat(64));
        for text in [format!("type=registry,ref={pinned}"), format!("app:1,{pinned}")] {
            assert!(to(&text).unwrap_err().0.contains("a tag that can move"), "{text}");
        }
        assert!(from(&pinned).is_ok());
    }
}
