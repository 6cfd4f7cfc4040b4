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
        Some((layout.sink(["docker.io/library/app:1".to_owned()]).await.unwrap(), dir))
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

/// What the engine awaits inside spawned tasks must be able to move between threads.
#[test]
fn futures_can_move_between_threads() {
    fn movable<T: Send>(future: T) {
        drop(future);
    }
    let (memory, options) = (MemoryBlobs::new(), kiln_image::CopyOptions::default());
    let image = kiln_image::testing::tiny_image(&memory, "send");
    let client = RegistryClient::new(RegistryOptions::default());
    let reference: kiln_oci::Reference = "127.0.0.1:1/app:1".parse().unwrap();
    let sink = client.sink(&reference);
    let request = kiln_image::DownloadRequest::default();
    movable(kiln_image::copy_graph(&memory, &sink, &image, &options));
    movable(kiln_image::copy_blob(&memory, &sink, &image, &options));
    movable(client.resolve(&reference));
    movable(client.push_blob(&reference, &image, &memory, None));
    movable(client.http().download(&request));
    let credential = kiln_image::Credential::IdentityToken(String::new());
    movable(kiln_image::login::verify(&client, "h", &credential));
    movable(kiln_image::login::store("x".as_ref(), "h", &credential));
    let mut out = Vec::new();
    movable(kiln_image::archive::write(kiln_image::archive::Format::Oci, &[], &memory, &mut out));
}
