//! How layers are packed for others, and what a packed layer is called.

use std::collections::BTreeMap;

use kiln_fs::compress::{Compression, Toc};
use kiln_oci::{Descriptor, Digest, MediaType};
use kiln_report::{Failure, FailureKind};

use crate::job::Result;
use crate::request::{CachePlace, CacheTo, CompressionKind, LayerOptions, Output};

/// Says of a blob in the store how kiln packed it. Never leaves the store.
const PACKED_AS: &str = "kiln.packed-as";
/// The digest of all that comes out of a blob, where that is not the layer's own tar alone. Never leaves the store.
const UNPACKED: &str = "containerd.io/uncompressed";
/// The digest of the table of an eStargz layer.
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The size of all that comes out of an eStargz layer.
const UNPACKED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    /// The compression of new layers.
    pub(crate) compression: Compression,
    /// Whether layers that came packed otherwise are packed anew.
    pub(crate) force: bool,
    /// Whether what kiln has packed with gzip before, at any level, serves as well.
    pub(crate) or_gzip: bool,
}

impl Packing {
    /// How well a blob serves: less is better, none not at all. One of ours was packed this very way; one that came from
    /// elsewhere is the layer's own, and only another is made of it when it is not of the kind that is wanted by force.
    pub(crate) fn fit(self, blob: &Descriptor) -> Option<u8> {
        match blob.annotations.get(PACKED_AS) {
            Some(ours) if *ours == self.mark() => Some(0),
            Some(_) => (self.or_gzip && kind_of_blob(blob) == Some(Kind::Gzip)).then_some(1),
            None if kind_of_blob(blob) == Some(kind_of(self.compression)) => Some(1),
            None => (!self.force).then_some(2),
        }
    }

    /// Names the bytes that come out.
    fn mark(self) -> String {
        format!("{:?} {}", self.compression, Compression::REVISION)
    }

    /// Completes the descriptor of a blob that was packed this way.
    pub(crate) fn described(self, mut blob: Descriptor, toc: Option<(&Toc, &Digest, u64)>) -> Descriptor {
        blob.annotations.insert(PACKED_AS.into(), self.mark());
        if let Some((toc, unpacked, size)) = toc {
            blob.annotations.insert(TOC_DIGEST.into(), toc.digest.to_string());
            blob.annotations.insert(UNPACKED_SIZE.into(), size.to_string());
            blob.annotations.insert(UNPACKED.into(), unpacked.to_string());
        }
        blob
    }

    /// What a blob packed this way is.
    pub(crate) fn media_type(self) -> &'static str {
        match kind_of(self.compression) {
            Kind::None => MediaType::OCI_LAYER,
            Kind::Gzip | Kind::Estargz => MediaType::OCI_LAYER_GZIP,
            Kind::Zstd => MediaType::OCI_LAYER_ZSTD,
        }
    }
}

/// Whether a layer came as this blob: kiln did not make it of files.
pub(crate) fn is_from_elsewhere(blob: &Descriptor) -> bool {
    !blob.annotations.contains_key(PACKED_AS)
}

/// The digest of what comes out of a blob, when it is another than that of the layer's tar.
pub(crate) fn own_diff_id(blob: &Descriptor) -> Option<Digest> {
    blob.annotations.get(UNPACKED)?.parse().ok()
}

/// All the ways layers have to be packed for these outputs; none need be for the local store. When only caches want
/// them packed, the first says how.
pub(crate) fn packings(outputs: &[Output], caches: &[CacheTo]) -> Result<Vec<Packing>> {
    let mut found: Vec<Packing> = Vec::new();
    for output in outputs {
        if let Some(packing) = packing_for(output)?
            && !found.contains(&packing)
        {
            found.push(packing);
        }
    }
    let for_others = caches.iter().find(|cache| cache.place != CachePlace::Inline);
    if let Some(cache) = for_others.filter(|_| found.is_empty()) {
        found.push(packing_of(&cache.layers)?);
    }
    Ok(found)
}

/// How an output wants layers packed, if it does.
pub(crate) fn packing_for(output: &Output) -> Result<Option<Packing>> {
    match output {
        Output::Image { image, push, naming, .. } => {
            // Only by its manifest's digest can it be named.
            let has_manifest = *push || naming.has_digest() || image.has_wishes();
            has_manifest.then(|| packing_of(&image.layers)).transpose()
        }
        Output::Oci { image, .. } | Output::Docker { image, .. } => packing_of(&image.layers).map(Some),
        // Nothing is gained by compressing what goes to the next program, nor by packing once more what is packed.
        Output::Load { image, .. } => {
            let or_gzip = image.layers.compression.is_none();
            let compression = image.layers.compression.or(Some(CompressionKind::Uncompressed));
            let packing = packing_of(&LayerOptions { compression, ..image.layers.clone() })?;
            Ok(Some(Packing { or_gzip, ..packing }))
        }
        Output::Tar { .. } | Output::Local { .. } | Output::CacheOnly => Ok(None),
    }
}

/// How layers are packed by these options.
pub(crate) fn packing_of(options: &LayerOptions) -> Result<Packing> {
    let level = |most: u8| match options.level.map(u8::try_from) {
        None => Ok(None),
        Some(Ok(level)) if level <= most => Ok(Some(level)),
        _ => Err(Failure::new(FailureKind::Usage, format!("`compression-level` goes from 0 to {most}"))),
    };
    let compression = match options.compression.unwrap_or(CompressionKind::Gzip) {
        CompressionKind::Uncompressed => Compression::None,
        CompressionKind::Gzip => Compression::Gzip { level: level(9)? },
        CompressionKind::Estargz => Compression::Estargz { level: level(9)?.unwrap_or(Compression::GZIP_LEVEL) },
        CompressionKind::Zstd => Compression::Zstd { level: level(22)?.unwrap_or(Compression::ZSTD_LEVEL) },
    };
    Ok(Packing { compression, force: options.force, or_gzip: false })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Gzip,
    Estargz,
    Zstd,
}

fn kind_of(compression: Compression) -> Kind {
    match compression {
        Compression::None => Kind::None,
        Compression::Gzip { .. } => Kind::Gzip,
        Compression::Estargz { .. } => Kind::Estargz,
        Compression::Zstd { .. } => Kind::Zstd,
    }
}

fn kind_of_blob(blob: &Descriptor) -> Option<Kind> {
    match blob.media_type.as_str() {
        MediaType::OCI_LAYER | MediaType::DOCKER_LAYER => Some(Kind::None),
        MediaType::OCI_LAYER_GZIP | MediaType::DOCKER_LAYER_GZIP if blob.annotations.contains_key(TOC_DIGEST) => {
            Some(Kind::Estargz)
        }
        MediaType::OCI_LAYER_GZIP | MediaType::DOCKER_LAYER_GZIP => Some(Kind::Gzip),
        MediaType::OCI_LAYER_ZSTD | MediaType::DOCKER_LAYER_ZSTD => Some(Kind::Zstd),
        _ => None,
    }
}

/// The same content under OCI's or Docker's name for it. Of what the store knows of it, only the table of eStargz is told.
pub(crate) fn spelled(blob: &Descriptor, is_oci: bool) -> Descriptor {
    let name = match (kind_of_blob(blob), is_oci) {
        (Some(Kind::None), true) => MediaType::OCI_LAYER,
        (Some(Kind::Gzip | Kind::Estargz), true) => MediaType::OCI_LAYER_GZIP,
        (Some(Kind::Zstd), true) => MediaType::OCI_LAYER_ZSTD,
        (Some(Kind::None), false) => MediaType::DOCKER_LAYER,
        (Some(Kind::Gzip | Kind::Estargz), false) => MediaType::DOCKER_LAYER_GZIP,
        (Some(Kind::Zstd), false) => MediaType::DOCKER_LAYER_ZSTD,
        (None, _) => return blob.clone(),
    };
    let is_told = |key: &str| is_oci && matches!(key, TOC_DIGEST | UNPACKED_SIZE);
    let told = blob.annotations.iter().filter(|(key, _)| is_told(key));
    let annotations: BTreeMap<_, _> = told.map(|(key, value)| (key.clone(), value.clone())).collect();
    Descriptor { media_type: name.into(), urls: Vec::new(), annotations, ..blob.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Dest, ImageOptions, Naming};

    fn image(push: bool) -> Output {
        Output::Image { image: ImageOptions::default(), push, store: true, naming: Naming::default() }
    }

    fn kept_as(compression: CompressionKind) -> Output {
        let layers = LayerOptions { compression: Some(compression), ..LayerOptions::default() };
        let image = ImageOptions { layers, ..ImageOptions::default() };
        Output::Image { image, push: false, store: true, naming: Naming::default() }
    }

    fn oci(compression: Option<CompressionKind>) -> Output {
        let layers = LayerOptions { compression, ..LayerOptions::default() };
        Output::Oci { image: ImageOptions { layers, ..Default::default() }, dest: Dest::Path("x".into()), tar: true }
    }

    #[test]
    fn layers_are_packed_only_for_others_and_once_for_each_way() {
        assert_eq!(packings(&[image(false), Output::CacheOnly], &[]).unwrap(), []);
        let packing = |compression| Packing { compression, force: false, or_gzip: false };
        let zstd = packing(Compression::Zstd { level: Compression::ZSTD_LEVEL });
        assert_eq!(packings(&[kept_as(CompressionKind::Zstd)], &[]).unwrap(), [zstd], "a later push sends it so");
        assert_eq!(packings(&[kept_as(CompressionKind::Estargz)], &[]).unwrap(), []);
        let outputs = [image(true), oci(Some(CompressionKind::Zstd)), oci(None), oci(Some(CompressionKind::Zstd))];
        assert_eq!(packings(&outputs, &[]).unwrap(), [packing(Compression::default()), zstd]);
        let failure = packing_of(&LayerOptions { level: Some(10), ..LayerOptions::default() }).unwrap_err();
        assert_eq!(failure.message, "`compression-level` goes from 0 to 9");
    }

    #[test]
    fn what_came_packed_stays_so_and_ours_is_as_it_was_asked_for() {
        let gzip =
            |level| Packing { compression: Compression::Gzip { level: Some(level) }, force: false, or_gzip: false };
        let zstd = Packing { compression: Compression::Zstd { level: 3 }, force: false, or_gzip: false };
        let came = Descriptor::of(MediaType::DOCKER_LAYER_GZIP, b"x");
        let ours = gzip(2).described(came.clone(), None);
        assert_eq!((gzip(2).fit(&ours), gzip(9).fit(&ours), zstd.fit(&ours)), (Some(0), None, None));
        assert_eq!((gzip(9).fit(&came), zstd.fit(&came)), (Some(1), Some(2)));
        let load =
            |layers| packing_for(&Output::Load { image: ImageOptions { layers, ..Default::default() }, into: None });
        assert_eq!(load(LayerOptions::default()).unwrap().unwrap().fit(&ours), Some(1), "a daemon takes what is there");
        let compression = Some(CompressionKind::Uncompressed);
        assert_eq!(load(LayerOptions { compression, ..Default::default() }).unwrap().unwrap().fit(&ours), None);
        let by_force = Packing { force: true, ..zstd };
        assert_eq!((by_force.fit(&came), Packing { force: true, ..gzip(9) }.fit(&came)), (None, Some(1)));
    }

    #[test]
    fn the_store_s_own_notes_are_not_told_to_others() {
        let toc = Toc { digest: Digest::sha256(b"json"), tar: Vec::new() };
        let packing = Packing { compression: Compression::Estargz { level: 2 }, force: false, or_gzip: false };
        let blob = Descriptor::of(packing.media_type(), b"x");
        let blob = packing.described(blob, Some((&toc, &Digest::sha256(b"all"), 7)));
        assert_eq!(own_diff_id(&blob), Some(Digest::sha256(b"all")));
        assert_eq!(packing.fit(&blob), Some(0));
        let told = spelled(&blob, true);
        assert_eq!(told.annotations.keys().collect::<Vec<_>>(), [TOC_DIGEST, UNPACKED_SIZE]);
        assert_eq!(packing.fit(&told), Some(1), "it is known for what it is when it comes back");
        let docker = spelled(&blob, false);
        assert_eq!((docker.media_type.as_str(), docker.annotations.len()), (MediaType::DOCKER_LAYER_GZIP, 0));
    }
}
