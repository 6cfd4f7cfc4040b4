//! Caches within images: a member of the image's config that says which steps its layers are the results of.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_graph::Edge;
use kiln_image::{BlobSource, limits};
use kiln_oci::{Descriptor, Digest, Manifest, MediaType};

use crate::cache::Cache;
use crate::failure::Context as _;
use crate::failure::registry;
use crate::job::Result;
use crate::remote::format::{CacheConfig, CacheLayer, DIFF_ID};
use crate::remote::manifest::no_cache;
use crate::remote::records::Packed;
use crate::remote::{Names, Story};

/// What an image's config says of its cache: the records of steps whose layers are all among these, base first.
pub(super) fn write(cache: &Cache, (story, names): (&Story, &Names), diff_ids: &[Digest]) -> String {
    let named = |diff_id: &Digest| Descriptor::new(MediaType::OCI_LAYER, diff_id.clone(), 0);
    let layers: Vec<Descriptor> = diff_ids.iter().map(named).collect();
    let mut packed = Packed::of_image(&layers);
    packed.sign();
    for (vertex, key, shape) in story.keys() {
        for (output, snapshot) in cache.kept(&key).into_iter().flatten().enumerate() {
            // A layer whose digest nobody wanted is in no image.
            let Some(diff_ids) = cache.diff_ids(&snapshot) else { continue };
            if packed.selection((&key, output), &diff_ids) {
                let edge = Edge { vertex: vertex.clone(), output };
                let records = names.records(&edge, &mut packed);
                records.into_iter().for_each(|record| packed.select(record, &diff_ids));
            }
        }
        packed.shape(&shape);
    }
    story.contents().iter().for_each(|(fact, digest)| packed.content(fact, digest));
    let records = serde_json::to_vec(&packed.config.records).expect("plain data serialises");
    STANDARD.encode(records)
}

/// The cache within an image.
pub(super) async fn of_image(
    manifest: &Manifest,
    blobs: &dyn BlobSource,
) -> Result<Vec<(CacheConfig, Vec<Descriptor>)>> {
    let reader = blobs.fetch(&manifest.config).await.map_err(registry)?;
    let bytes = reader.bytes("read the config of the image", limits::CONFIG).await.map_err(registry)?;
    let config = kiln_image::validate_config(manifest, bytes).map_err(registry)?.into_parts().1;
    let text = config.cache.as_deref().ok_or_else(|| no_cache("the image carries none"))?;
    let doing = || "the cache in the image's config is not valid".to_owned();
    let records = STANDARD.decode(text).or_build(doing)?;
    let mut layers = Vec::new();
    let mut described = Vec::new();
    for (index, (layer, diff_id)) in manifest.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
        layers.push(CacheLayer { blob: layer.digest.clone(), parent: index as i64 - 1, annotations: None });
        let mut layer = layer.clone();
        layer.annotations.insert(DIFF_ID.into(), diff_id.to_string());
        described.push(layer);
    }
    let records = serde_json::from_slice(&records).or_build(doing)?;
    Ok(vec![(CacheConfig { layers, records }, described)])
}
