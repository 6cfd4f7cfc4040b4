//! The blob contract, for every source and sink of this crate.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicU32, Ordering};

use kiln_image::{MemoryBlobs, RegistryClient, RegistryOptions};
use kiln_testkit::Registry;

mod memory {
    use super::*;
    kiln_image::blob_suite!(async { Some((MemoryBlobs::new(), ())) });
}

mod layout {
    kiln_image::blob_suite!(async {
        let dir = tempfile::tempdir().unwrap();
        let layout = kiln_image::Layout::create(&dir.path().join("new/layout")).await.unwrap();
        Some((layout.sink(["docker.io/library/app:1".to_owned()]), dir))
    });
}

mod registry {
    use super::*;
    kiln_image::blob_suite!(async {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let registry = Registry::start()?;
        let reference = format!("{}/app{}:1", registry.host(), COUNT.fetch_add(1, Ordering::Relaxed));
        let client = RegistryClient::new(RegistryOptions::default());
        Some((client.sink(&reference.parse().unwrap()), registry))
    });
}
