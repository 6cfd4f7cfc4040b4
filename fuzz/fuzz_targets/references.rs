//! A name of an image is refused, or says the same when it is written and read again.
#![no_main]

use kiln_oci::{Descriptor, Digest, Document, ImageConfig, MediaType, Platform, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (name, digest, bytes) = input;
    if let Ok(reference) = name.parse::<Reference>() {
        let text = reference.to_string();
        assert_eq!(text.parse::<Reference>().as_ref(), Ok(&reference), "{text}");
        let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_whitespace);
        assert!(reference.repository.split('/').all(is_name), "{text}");
        assert_eq!(reference.familiar().parse::<Reference>().as_ref(), Ok(&reference), "{}", reference.familiar());
    }
    if let Ok(digest) = digest.parse::<Digest>() {
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(platform) = name.parse::<Platform>() {
        let _ = platform.normalized().to_string();
    }
    for kind in [MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST] {
        let _ = Document::parse(&MediaType::new(kind), bytes.to_vec());
    }
    let _ = serde_json::from_slice::<ImageConfig>(bytes);
    let _ = serde_json::from_slice::<Descriptor>(bytes);
});
