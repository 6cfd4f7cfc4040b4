//! Manifests and configs that lie, or are too much.

use std::fs;
use std::time::{Duration, Instant};

use kiln_testkit::{Forge, ForgedImage, HttpServer, Reply};
use serde_json::{Value, json};

use super::attack::Attack;

fn clean() -> ForgedImage {
    ForgedImage::new().layer(Forge::new().file("f", "f").end())
}

fn documents(secret: &str) -> Vec<(&'static str, ForgedImage, &'static str)> {
    let outside = format!("sha256:../../../../../../../..{secret}");
    let other = "application/vnd.oci.image.index.v1+json";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar";
    let again = |list: &Value| Value::from(vec![list[0].clone(); 10_000]);
    vec![
        (
            "a digest that is a path",
            clean().manifest(move |m| m["layers"][0]["digest"] = json!(outside)),
            "is not a digest",
        ),
        (
            "a wrong size",
            clean().manifest(|m| m["layers"][0]["size"] = json!(m["layers"][0]["size"].as_u64().unwrap() + 1)),
            "size mismatch",
        ),
        ("a negative size", clean().manifest(|m| m["layers"][0]["size"] = json!(-1)), "integer `-1`"),
        ("another type than announced", clean().manifest(move |m| m["mediaType"] = json!(other)), "calls itself"),
        ("two documents in one", clean().manifest(|m| m["manifests"] = json!([])), "both `manifests` and"),
        ("values of other types", clean().config(|c| c["config"]["Env"] = json!("notalist")), "not valid"),
        ("a history that is none", clean().config(|c| c["history"] = json!(-1)), "not valid"),
        (
            "fewer layers than in the config",
            clean().config(|c| c["rootfs"]["diff_ids"] = json!([])),
            "it names 0 layers",
        ),
        (
            "a layer that is not what the config says",
            clean().config(|c| c["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "0".repeat(64))])),
            "sha256:00000000",
        ),
        (
            "a huge config",
            clean().config(|c| c["config"]["Labels"] = json!({"a": "x".repeat(9 << 20)})),
            "over the limit of 8 MiB",
        ),
        ("a huge manifest", clean().manifest(|m| m["annotations"] = json!({"a": "x".repeat(5 << 20)})), "limit"),
        (
            "a config without bottom",
            clean()
                .config_bytes([br#"{"config":{"x":"#.as_slice(), &[b'['; 200_000], &[b']'; 200_000], b"}}"].concat()),
            "config",
        ),
        (
            "too many layers",
            clean()
                .manifest(move |m| m["layers"] = again(&m["layers"]))
                .config(move |c| c["rootfs"]["diff_ids"] = again(&c["rootfs"]["diff_ids"])),
            "10000 layers is over the limit",
        ),
        (
            "a layer that is elsewhere",
            clean().manifest(move |m| {
                m["layers"][0]["mediaType"] = json!(foreign);
                m["layers"][0]["digest"] = json!(format!("sha256:{}", "1".repeat(64)));
                m["layers"][0]["urls"] = json!(["http://169.254.169.254/latest/meta-data/"]);
            }),
            "not found",
        ),
    ]
}

#[test]
fn documents_that_lie_or_are_too_much_are_refused_by_name() {
    for attack in Attack::by_everybody() {
        for (name, image, said) in documents(&attack.secret()) {
            attack.image(image);
            let start = Instant::now();
            let run = attack.build("FROM evil\nCOPY Dockerfile /x\n");
            assert!(run.code == 1 && run.stderr.contains(said), "{name}: {}", run.stderr);
            assert!(start.elapsed() < Duration::from_secs(10), "{name} took {:?}", start.elapsed());
        }
        assert_eq!(attack.kiln(&["images", "-q"]).stdout, "");
        assert_eq!(attack.kiln(&["fsck"]).code, 0);
    }
}

#[test]
fn a_layout_moves_no_name_of_ours_and_its_labels_are_only_words() {
    let attack = Attack::new();
    attack.build_with("FROM scratch\nCOPY Dockerfile /\n", &["-t", "t"]).ok();
    let id = attack.project.inspect("t")["Id"].clone();
    let label = "binary:///bin/sh\u{1b}]0;PWNED\u{7}\u{1b}[2J";
    attack.image(clean().config(move |c| {
        c["config"]["Labels"] = json!({"containerd.io/restart.loguri": label});
        c["history"] = json!([{"created_by": format!("RUN {label}")}]);
    }));
    attack.build("FROM evil\nCOPY Dockerfile /x\n").ok();
    assert_eq!(attack.project.inspect("t")["Id"], id);
    for args in [&["history", "--no-trunc", "app"][..], &["inspect", "app"], &["history", "app"]] {
        let shown = attack.kiln(args).ok().stdout;
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{args:?}: {shown:?}");
    }
}

#[test]
fn a_pin_is_kept_by_bases_copies_and_downloads() {
    let attack = Attack::new();
    let layout = attack.project.path().join("evil");
    attack.image(clean());
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap()[7..].to_owned();
    let bytes = fs::read(layout.join("blobs/sha256").join(manifest)).unwrap();
    // A registry that has one image under whatever digest it is asked for.
    let registry = HttpServer::start(move |request| match request.path.contains("/manifests/") {
        true => Reply::bytes(bytes.clone()).with("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
        false => Reply::status(if request.path == "/v2/" { 200 } else { 404 }),
    });
    let wanted = "5".repeat(64);
    let pinned = format!("{}/img@sha256:{wanted}", registry.host());
    for dockerfile in [
        format!("FROM {pinned}\nCOPY Dockerfile /x\n"),
        format!("FROM scratch\nCOPY --from={pinned} /f /f\n"),
        format!("FROM scratch\nADD --checksum=sha256:{wanted} {} /f\n", registry.url("/v2/")),
    ] {
        attack.build(&dockerfile).fails(1).says(&wanted[..12]);
    }
    assert_eq!(attack.kiln(&["images", "-q"]).stdout, "");
}
