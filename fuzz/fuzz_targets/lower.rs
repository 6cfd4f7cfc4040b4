//! Any file is checked and lowered, or refused, without a panic; places are in the file, and the graph is whole.
#![no_main]

use std::sync::Arc;

use kiln_dockerfile::{
    Breadth, CheckConfig, ImageFacts, LowerOptions, Lowering, ResolvedImage, all_errors, check, lower, parse,
};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::{Level, SourceFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, diagnostics) = parse(text);
    check(&file, &CheckConfig::default()).iter().for_each(|found| assert!(text.get(found.span.range()).is_some()));
    let options = LowerOptions::new(Arc::new(SourceFile::new("f", text)));
    if diagnostics.iter().any(|diagnostic| diagnostic.level == Level::Error) {
        let all = all_errors(&file, &options, diagnostics, Breadth::All);
        all.iter().for_each(|error| assert!(text.get(error.span.range()).is_some()));
        return;
    }
    let mut facts = ImageFacts::new();
    for _ in 0..4 {
        match lower(&file, &options, &facts) {
            Ok(Lowering::NeedsImages(requests)) => {
                for request in requests {
                    let image = ResolvedImage {
                        is_local: false,
                        digest: Digest::sha256(&request.reference),
                        identifier: format!("docker-image://{}", request.reference),
                        config: ImageConfig { platform: request.platform.clone(), ..ImageConfig::default() },
                    };
                    facts.insert(request.reference, request.platform, image);
                }
            }
            Ok(Lowering::Done(lowered)) => {
                assert!(lowered.root.iter().all(|root| lowered.definition.vertex(&root.vertex).is_some()));
                return;
            }
            Err(found) => {
                found.iter().for_each(|error| assert!(text.get(error.span.range()).is_some()));
                return;
            }
        }
    }
});
