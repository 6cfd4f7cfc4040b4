//! Layers to registries while the build goes on, each as soon as it is packed. What leads to them is pushed at the end: a
//! build that fails leaves nothing that anybody can find.

use std::sync::{Arc, Mutex, PoisonError};

use kiln_image::{CopyOptions, RegistryClient, copy_blob};
use kiln_oci::{Descriptor, Reference};
use kiln_report::Reporter;
use tokio::task::JoinSet;

use crate::blobs::StoreBlobs;
use crate::export::push::{meter, near};
use crate::job::{Images, Result};
use crate::packing::{Packing, packing_for};
use crate::progress::Work;
use crate::registry::Registry;
use crate::request::{BuildRequest, Output};

/// Uploads layers that will be pushed.
pub(crate) struct Early {
    reporter: Arc<dyn Reporter>,
    images: Arc<Images>,
    blobs: StoreBlobs,
    /// Each repository once for each way of packing, and who speaks to it.
    places: Vec<(Reference, Packing, RegistryClient)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Stopped when they are dropped.
    uploads: JoinSet<()>,
    /// What is told of each place where something was begun.
    told: Vec<(Reference, Work)>,
}

impl Early {
    /// Knows where the request's images will be pushed.
    pub(crate) fn new(
        request: &BuildRequest,
        blobs: StoreBlobs,
        (registry, reporter, images): (Arc<Registry>, Arc<dyn Reporter>, Arc<Images>),
    ) -> Result<Self> {
        let mut places: Vec<(Reference, Packing, RegistryClient)> = Vec::new();
        for output in &request.outputs {
            let Output::Image { image, push: true, .. } = output else { continue };
            let Some(packing) = packing_for(output)? else { continue };
            for name in request.tags.iter().chain(&image.names) {
                let mut known = places.iter().map(|(other, way, _)| (other.name(), *way));
                if !known.any(|known| known == (name.name(), packing)) {
                    let client = registry.client_for(&name.registry, image.may_be_insecure);
                    places.push((name.clone(), packing, client));
                }
            }
        }
        Ok(Self { reporter, images, blobs, places, state: Mutex::default() })
    }

    /// Begins to upload a layer that was just finished; `find` knows it packed.
    pub(crate) fn offer(&self, find: impl Fn(Packing) -> Option<Descriptor>) {
        for (name, packing, client) in &self.places {
            let Some(blob) = find(*packing) else { continue };
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.told.iter().any(|(told, _)| told == name) {
                let work = Work::start(&self.reporter, format!("pushing layers to {}", name.name()));
                state.told.push((name.clone(), work));
            }
            let progress = state.told.iter().find(|(told, _)| told == name).map(|(_, work)| meter(work));
            let origins = self.images.origins();
            let sink = client.sink(name).with_origins(near(name, &origins));
            let (blobs, options) = (self.blobs.clone(), CopyOptions { progress, ..CopyOptions::default() });
            // Who pushes the manifest meets the same trouble, and tells it.
            state.uploads.spawn(async move { drop(copy_blob(&blobs, &sink, &blob, &options).await) });
        }
    }

    /// Waits for what was begun.
    pub(crate) async fn settle(&self) {
        let State { mut uploads, told } =
            std::mem::take(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner));
        while uploads.join_next().await.is_some() {}
        for (_, work) in told {
            let _ = work.end(Ok(()));
        }
    }
}
