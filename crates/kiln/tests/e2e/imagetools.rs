//! `kiln imagetools` on layouts and registries alike, and on what is attested of images.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_testkit::Registry;
use serde_json::{Value, json};

use crate::project::{Project, Run};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A layout with an image by this name, and what its index says of it.
fn layout(project: &Project, name: &str) -> (PathBuf, Value) {
    let dir = project.path().join("layout");
    let out = format!("type=oci,tar=false,dest={}", dir.display());
    project.kiln(&["build", "-q", "-t", name, "-o", &out, project.context().to_str().unwrap()]).ok();
    let index = read(&dir.join("index.json"));
    let entry = index["manifests"].as_array().unwrap().last().unwrap().clone();
    (dir, entry)
}

fn project() -> Project {
    let project = Project::bare();
    project.file("f", "content").dockerfile("FROM scratch\nCOPY f /f\n");
    project
}

/// Writes a blob, and says what it is.
fn blob(layout: &Path, media_type: &str, text: &str) -> Value {
    let digest = kiln_oci::Digest::sha256(text);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), text).unwrap();
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": text.len() })
}

fn imagetools(project: &Project, args: &[&str]) -> Run {
    project.kiln(&[&["imagetools"], args].concat())
}

#[test]
fn images_go_from_layouts_to_registries_and_back() {
    let Some(registry) = Registry::start() else { return };
    let project = project();
    let (dir, one) = layout(&project, "app:1");
    project.file("f", "other");
    let (_, two) = layout(&project, "app:2");
    let here = |tag: &str| format!("oci-layout://{}{tag}", dir.display());
    let there = format!("{}/from-layout:1", registry.host());
    imagetools(&project, &["create", "-t", &there, "--prefer-index=false", &here(":1")]).ok();
    let shown = imagetools(&project, &["inspect", "--format", "{{.Manifest.Digest}}", &there]).ok().stdout;
    assert_eq!(shown.trim(), one["digest"]);
    let back = format!("oci-layout://{}:both", project.path().join("back").display());
    imagetools(&project, &["create", "-t", &back, &there, &here(":2")]).ok().says("copying");
    let text = imagetools(&project, &["inspect", &back]).ok().stdout;
    assert!([&one, &two].iter().all(|entry| text.contains(entry["digest"].as_str().unwrap())), "{text}");
    let tags = read(&project.path().join("back/index.json"));
    assert_eq!(tags["manifests"].as_array().unwrap().len(), 1, "only what was named is pointed at: {tags}");
    Project::bare().kiln(&["pull", &there]).ok();
}

#[test]
fn annotations_are_added_to_those_that_are_there() {
    let project = project();
    let (dir, _) = layout(&project, "app:1");
    let name = format!("oci-layout://{}:1", dir.display());
    imagetools(&project, &["annotate", "--annotation", "index:a=b", &name]).ok();
    imagetools(&project, &["annotate", "--annotation", "index:c=d", &name]).ok();
    let annotate = ["annotate", "--annotation", "manifest-descriptor:e=f", "--dry-run", &name];
    let dry: Value = serde_json::from_str(&imagetools(&project, &annotate).ok().stdout).unwrap();
    assert_eq!(dry["annotations"], json!({ "a": "b", "c": "d" }));
    assert_eq!(dry["manifests"][0]["annotations"], json!({ "e": "f" }));
    imagetools(&project, &["annotate", &name]).fails(2);
}

#[test]
fn nothing_points_at_an_image_that_is_not_all_there() {
    let project = project();
    let (dir, entry) = layout(&project, "app:1");
    let name = |tag: &str| format!("oci-layout://{}:{tag}", dir.display());
    imagetools(&project, &["create", "-t", &name("index"), &name("1")]).ok();
    let digest = entry["digest"].as_str().unwrap();
    fs::remove_file(dir.join("blobs").join(digest.replace(':', "/"))).unwrap();
    let before = fs::read(dir.join("index.json")).unwrap();
    imagetools(&project, &["create", "-t", &name("again"), &name("index")]).fails(1).says("lacks").says(digest);
    assert_eq!(fs::read(dir.join("index.json")).unwrap(), before);
}

#[test]
fn what_is_attested_of_an_image_is_shown() {
    let project = project();
    let (dir, image) = layout(&project, "app:1");
    let statement = |kind: &str, predicate: Value| {
        let text =
            json!({ "_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "predicate": predicate });
        let mut layer = blob(&dir, "application/vnd.in-toto+json", &text.to_string());
        layer["annotations"] = json!({ "in-toto.io/predicate-type": kind });
        layer
    };
    let software = json!({ "packages": [{ "name": "busybox", "versionInfo": "1.36" }] });
    let layers = [
        statement("https://spdx.dev/Document", software.clone()),
        statement("https://slsa.dev/provenance/v1", json!({ "runDetails": { "builder": { "id": "here" } } })),
    ];
    let config = blob(&dir, "application/vnd.oci.image.config.v1+json", "{}");
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers });
    let mut attestation = blob(&dir, OCI, &manifest.to_string());
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"
    });
    let mut entry = image.clone();
    entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [entry, attestation] });
    let mut root = blob(&dir, kind, &index.to_string());
    root["annotations"] = json!({ "org.opencontainers.image.ref.name": "attested" });
    let top = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [image, root] });
    fs::write(dir.join("index.json"), top.to_string()).unwrap();

    let show = |tag: &str, format: &str| {
        let name = format!("oci-layout://{}:{tag}", dir.display());
        imagetools(&project, &["inspect", "--format", format, &name]).ok().stdout.trim().to_owned()
    };
    assert_eq!(show("attested", "{{json .SBOM.SPDX}}"), software.to_string());
    let listed = show("attested", r#"{{range .SBOM.SPDX.packages}}{{.name}}@{{.versionInfo}}{{"\n"}}{{end}}"#);
    assert_eq!(listed, "busybox@1.36");
    assert_eq!(show("attested", "{{.Provenance.SLSA.runDetails.builder.id}}"), "here");
    for format in ["{{json .SBOM}}", "{{json .Provenance}}"] {
        assert_eq!(show("1", format), "{}");
    }
    assert_eq!(show("1", "{{json .SBOM.SPDX}}"), "null");
    assert_eq!(show("1", "{{.Image.Author}} {{.Image.Config.Labels.none}}"), "<no value> <no value>");
    let name = format!("oci-layout://{}:1", dir.display());
    imagetools(&project, &["inspect", "--format", "{{.Image.Autor}}", &name]).fails(2).says("no field `Autor`");
    let full = format!("oci-layout://{}:docker.io/library/app:1", dir.display());
    imagetools(&project, &["inspect", &full]).ok();
    assert!(!show("attested", "{{json .}}").contains("SBOM"));
}
