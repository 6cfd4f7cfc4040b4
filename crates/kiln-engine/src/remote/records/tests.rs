//! The format as others see it, and what is known again of what was written.

use std::collections::BTreeMap;

use kiln_oci::MediaType;
use serde_json::json;

use super::*;

fn key(name: &str) -> CacheKey {
    CacheKey(Digest::sha256(name))
}

fn blob(name: &str) -> Descriptor {
    let mut blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, name.as_bytes());
    let diff_id = Digest::sha256(format!("{name}, unpacked")).to_string();
    blob.annotations = BTreeMap::from([(DIFF_ID.into(), diff_id), (CREATED.into(), "2026-01-02T03:04:05Z".into())]);
    blob
}

fn fact(selector: &str) -> ContentFact {
    ContentFact { input: key("stage"), output: 0, selector: selector.into() }
}

fn packed() -> Packed {
    let mut packed = Packed::default();
    packed.result((&key("copy"), 0), &[blob("base"), blob("copied")]);
    packed.result((&key("run"), 0), &[blob("base"), blob("copied"), blob("made")]);
    packed.result((&key("run"), 1), &[blob("written")]);
    packed.result((&key("scratch"), 0), &[]);
    packed.shape(&Digest::sha256("shape"));
    packed.content(&fact("/out"), &Digest::sha256("files"));
    packed.content(&fact("/o?t"), &Digest::sha256("files"));
    packed
}

fn reread(packed: &Packed) -> Result<Known> {
    let text = serde_json::to_string(&packed.config).unwrap();
    Known::read(&serde_json::from_str(&text).unwrap(), &packed.layers)
}

#[test]
fn the_wire_is_buildkits() {
    let digest = |text: &str| Digest::sha256(text).to_string();
    let output = |name: &str, output: usize| output_digest(&key(name).0, output).to_string();
    let at = "2026-01-02T03:04:05Z";
    let expected = json!({
        "layers": [
            {"blob": digest("base"), "parent": -1},
            {"blob": digest("copied")},
            {"blob": digest("made"), "parent": 1},
            {"blob": digest("written"), "parent": -1},
        ],
        "records": [
            {"digest": output("copy", 0), "layers": [{"layer": 1, "createdAt": at}]},
            {"digest": output("run", 0), "layers": [{"layer": 2, "createdAt": at}]},
            {"digest": output("run", 1), "layers": [{"layer": 3, "createdAt": at}]},
            {"digest": digest("shape")},
            {"digest": output("stage", 0)},
            {"digest": digest("files"), "inputs": [[{"selector": "/out", "link": 4}, {"selector": "/o?t", "link": 4}]]},
        ],
    });
    assert_eq!(serde_json::to_value(&packed().config).unwrap(), expected);
}

#[test]
fn what_was_written_is_known_again() {
    let known = reread(&packed()).unwrap();
    let outputs = known.outputs(&key("run"));
    let blobs = |layers: &[Layer]| layers.iter().map(|layer| layer.blob.digest.clone()).collect::<Vec<_>>();
    assert_eq!(outputs.len(), 2);
    assert_eq!(blobs(outputs[0]), ["base", "copied", "made"].map(|name| blob(name).digest));
    assert_eq!(outputs[1][0].diff_id, Digest::sha256("written, unpacked"));
    assert!(known.outputs(&key("scratch")).is_empty() && known.outputs(&key("other")).is_empty());
    assert_eq!(known.content(&fact("/out")), Some(&Digest::sha256("files")));
    assert_eq!(known.content(&fact("/o?t")), Some(&Digest::sha256("files")));
    assert_eq!(known.content(&fact("/other")), None);
    assert!(known.has_shape(&Digest::sha256("shape")) && !known.has_shape(&Digest::sha256("files, shaped")));
    assert_eq!(known.len(), 3);
}

#[test]
fn an_images_cache_has_only_what_its_layers_make_up() {
    let layers = ["base", "copied", "made"].map(blob);
    let mut packed = Packed::of_image(&layers);
    let digests = |names: &[&str]| names.iter().map(|name| blob(name).digest).collect::<Vec<_>>();
    packed.selection((&key("below"), 0), &digests(&["base", "copied"]));
    packed.selection((&key("linked"), 0), &digests(&["made"]));
    packed.selection((&key("elsewhere"), 0), &digests(&["base", "other"]));
    let known = reread(&packed).unwrap();
    assert_eq!(known.outputs(&key("below"))[0].len(), 2);
    assert_eq!(known.outputs(&key("linked"))[0][0].blob.digest, blob("made").digest);
    assert!(known.outputs(&key("elsewhere")).is_empty());
}

#[test]
fn a_result_with_a_layer_nobody_describes_does_not_count() {
    let mut packed = packed();
    packed.layers.retain(|layer| layer.digest != blob("copied").digest);
    packed.layers[1].annotations.clear();
    let known = reread(&packed).unwrap();
    assert_eq!((known.len(), known.unusable()), (1, 2));
    assert_eq!(known.outputs(&key("run")).len(), 0, "the first output is gone, so all are");
}

#[test]
fn a_cache_that_contradicts_itself_is_refused() {
    let layer = |parent: i64| json!({"blob": Digest::sha256("base"), "parent": parent});
    let record = json!({"digest": Digest::sha256("x"), "layers": [{"layer": 0}]});
    for (layers, record, said) in [
        (json!([]), record.clone(), "there is no layer 0"),
        (json!([layer(0)]), record.clone(), "stands on itself"),
        (json!([layer(7)]), record, "there is no layer 7"),
        (json!([]), json!({"digest": Digest::sha256("x"), "inputs": [[{"link": 9}]]}), "leads to record 9"),
        (json!([]), json!({"digest": Digest::sha256("x"), "chains": [{"layers": [3]}]}), "there is no layer 3"),
    ] {
        let config = serde_json::from_value(json!({"layers": layers, "records": [record]})).unwrap();
        let failure = Known::read(&config, &[blob("base")]).unwrap_err();
        assert!(failure.message.contains(said), "{failure}");
    }
}
