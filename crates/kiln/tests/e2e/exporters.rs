//! All that an output may be asked for: forms, compressions, annotations, and directories that fight back.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::project::{Project, run};

fn project() -> Project {
    let project = Project::new();
    let dockerfile = "FROM busybox\nCOPY f /f\nRUN mkdir -p /d/e && echo x > /d/e/x && chown 5:6 /d/e/x\n";
    project.file("f", "content").dockerfile(dockerfile);
    project
}

/// The only entry of a layout's index, and the manifest it leads to.
fn layout(dir: &Path) -> (Value, Value) {
    let json = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let entry = json(dir.join("index.json"))["manifests"][0].clone();
    let manifest = json(blob(dir, &entry));
    (entry, manifest)
}

fn blob(dir: &Path, descriptor: &Value) -> PathBuf {
    dir.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

#[test]
fn outputs_of_one_build_have_each_its_own_compression() {
    let project = project();
    let dir = |kind: &str| project.path().join(kind);
    let kinds = ["uncompressed", "gzip", "estargz", "zstd"];
    let outputs = kinds.map(|kind| {
        format!("type=oci,tar=false,dest={},compression={kind},force-compression=true", dir(kind).display())
    });
    let mut args: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output]).collect();
    args.extend(["-o", "type=image"]);
    project.build(&args).ok();
    for (kind, suffix) in kinds.iter().zip(["tar", "tar+gzip", "tar+gzip", "tar+zstd"]) {
        let (_, manifest) = layout(&dir(kind));
        for layer in manifest["layers"].as_array().unwrap() {
            assert!(layer["mediaType"].as_str().unwrap().ends_with(suffix), "{kind}: {layer}");
            let has_table = !layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].is_null();
            assert_eq!(has_table, *kind == "estargz", "{kind}: {layer}");
        }
    }
    let config = |kind: &str| layout(&dir(kind)).1["config"]["digest"].clone();
    assert_eq!((config("gzip"), config("uncompressed")), (config("zstd"), config("zstd")));
    assert_ne!(config("estargz"), config("gzip"), "its layers' digests cover the table");
    assert_eq!(config("gzip"), project.inspect("app")["Id"]);
    // What the config says is what a reader of plain gzip finds.
    let (_, manifest) = layout(&dir("estargz"));
    let config: Value = serde_json::from_slice(&fs::read(blob(&dir("estargz"), &manifest["config"])).unwrap()).unwrap();
    for (layer, diff_id) in
        manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
    {
        let sum = format!("gzip -dc {} | sha256sum", blob(&dir("estargz"), layer).display());
        let sum = run(Command::new("sh").args(["-c", &sum])).ok().stdout;
        assert_eq!(diff_id.as_str().unwrap(), format!("sha256:{}", sum.split_whitespace().next().unwrap()));
    }
    let other = Project::bare();
    other.dockerfile("FROM base\nRUN [\"/bin/cat\", \"/d/e/x\"]\n");
    let base = format!("base=oci-layout://{}", dir("estargz").display());
    other.build(&["--build-context", &base]).ok();
}

#[test]
fn a_layer_s_form_does_not_depend_on_builds_before() {
    let (project, dir) = (project(), tempfile::tempdir().unwrap());
    let build = |level: u32| {
        let out = dir.path().join(format!("{level}-{}", fs::read_dir(dir.path()).unwrap().count()));
        project.build(&["-o", &format!("type=oci,tar=false,dest={},compression-level={level}", out.display())]).ok();
        layout(&out).1["layers"].clone()
    };
    let (one, nine, again) = (build(1), build(9), build(1));
    assert_eq!(one, again);
    assert_ne!(one, nine);
}

#[test]
fn annotations_are_on_the_documents_they_are_for() {
    let project = project();
    let dir = project.path().join("layout");
    let out = format!("type=docker,tar=false,dest={},annotation.a=b,annotation-manifest-descriptor.c=d", dir.display());
    project.build(&["-o", &out, "--annotation", "manifest:e=f", "--annotation", "manifest[linux/s390x]:g=h"]).fails(2);
    project.build(&["-o", &out, "--annotation", "manifest:e=f"]).ok();
    let (entry, manifest) = layout(&dir);
    assert_eq!(manifest["annotations"], serde_json::json!({"a": "b", "e": "f"}));
    assert_eq!(entry["annotations"]["c"], "d");
    project.build(&["--annotation", "index:a=b"]).fails(2).says("has none");
}

#[test]
fn an_annotated_image_of_the_store_is_pushed_with_its_annotations() {
    let Some(registry) = kiln_testkit::Registry::start() else { return };
    let project = project();
    let name = format!("{}/annotated:1", registry.host());
    let context = project.context();
    let meta = project.path().join("meta.json");
    let args = ["build", "-t", &name, "--annotation", "who=me", "--metadata-file", meta.to_str().unwrap()];
    run(project.command().args(args).arg(&context)).ok();
    project.kiln(&["push", &name]).ok();
    let dir = project.path().join("pulled");
    let meta: Value = serde_json::from_slice(&fs::read(meta).unwrap()).unwrap();
    let by_digest = format!("{}/annotated@{}", registry.host(), meta["containerimage.digest"].as_str().unwrap());
    let other = Project::bare();
    other.dockerfile(&format!("FROM {by_digest}\n"));
    other.build(&["-o", &format!("type=oci,tar=false,dest={}", dir.display())]).ok();
}

#[test]
fn an_image_of_the_store_is_saved_as_it_was_asked_for() {
    let project = project();
    let archive = project.path().join("saved.tar");
    let context = project.context();
    let args = ["build", "-t", "app", "-o", "type=image,compression=zstd", "--annotation", "who=me"];
    run(project.command().args(args).arg(&context)).ok();
    project.kiln(&["save", "-o", archive.to_str().unwrap(), "app"]).ok();
    let dir = project.path().join("saved");
    fs::create_dir(&dir).unwrap();
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&dir)).ok();
    let (_, manifest) = layout(&dir);
    assert_eq!(manifest["annotations"], serde_json::json!({"who": "me"}));
    let last = manifest["layers"].as_array().unwrap().last().unwrap();
    assert_eq!(last["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    let other = Project::bare();
    other.kiln(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(other.inspect("app")["Id"], project.inspect("app")["Id"]);
    assert_eq!(other.inspect("app")["Size"], project.inspect("app")["Size"], "built or loaded, it is as large");
}

#[test]
fn a_push_by_digest_leaves_no_tag() {
    let Some(registry) = kiln_testkit::Registry::start() else { return };
    let project = project();
    let meta = project.path().join("meta.json");
    let out = format!("type=image,name={}/untagged,push=true,push-by-digest=true", registry.host());
    let args = ["build", "-o", &out, "--metadata-file", meta.to_str().unwrap()];
    run(project.command().args(args).arg(project.context())).ok();
    let meta: Value = serde_json::from_slice(&fs::read(meta).unwrap()).unwrap();
    assert_eq!(meta["image.name"], format!("{}/untagged", registry.host()));
    let other = Project::bare();
    other.kiln(&["pull", &format!("{}/untagged:latest", registry.host())]).fails(1);
    let by_digest = format!("{}/untagged@{}", registry.host(), meta["containerimage.digest"].as_str().unwrap());
    other.kiln(&["pull", &by_digest]).ok();
}

#[test]
fn nothing_in_the_way_leads_out_of_a_directory() {
    let project = project();
    let (out, outside) = (project.path().join("out"), project.path().join("outside"));
    fs::create_dir_all(out.join("d")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    // A link where the result has a directory, one where it has a file, a pipe, a name shared with a file outside.
    symlink(&outside, out.join("d/e")).unwrap();
    symlink(outside.join("kept"), out.join("f")).unwrap();
    symlink("/etc", out.join("etc")).unwrap();
    run(Command::new("mkfifo").arg(out.join("root"))).ok();
    fs::create_dir(out.join("bin")).unwrap();
    fs::hard_link(outside.join("kept"), out.join("bin/busybox")).unwrap();
    fs::write(out.join("mine"), "mine").unwrap();
    let passwd = fs::read("/etc/passwd").unwrap();
    project.build(&["-o", out.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read("/etc/passwd").unwrap(), passwd);
    assert_eq!(fs::read_to_string(out.join("d/e/x")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(out.join("f")).unwrap(), "content");
    let kind = |name: &str| fs::symlink_metadata(out.join(name)).unwrap().file_type();
    assert!(kind("etc").is_dir() && kind("root").is_dir() && kind("d/e").is_dir() && !kind("root").is_fifo());
    assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "mine", "other files stay");
    let owner = fs::metadata(out.join("d/e/x")).unwrap();
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!((owner.uid(), owner.gid()), ours, "nobody here knows the image's users");
}

#[test]
fn builds_into_one_directory_at_once_do_not_mix() {
    let project = Project::new();
    let files = |name: &str, script: &str| {
        let text = format!("FROM busybox AS files\nRUN {script}\nFROM scratch\nCOPY --from=files /o /\n");
        project.file(name, text);
    };
    // What is a directory for one is a file, a link or nothing for the other.
    files("a", "mkdir -p /o/x/y /o/a && for n in $(seq 300); do echo a >/o/x/$n; done && ln -s x /o/l && echo a >/o/w");
    files("b", "mkdir -p /o/l/y /o/b && for n in $(seq 300); do echo b >/o/l/$n; done && ln -s l /o/w && echo b >/o/x");
    let build = |file: &str, out: &str| {
        let mut command = project.command();
        let out = format!("type=local,dest={out},mode=delete");
        command.args(["build", "-q", "-f", project.context().join(file).to_str().unwrap(), "-o", &out]);
        command.arg(project.context()).spawn().unwrap()
    };
    let list =
        |out: &str| run(Command::new("find").arg(project.path().join(out)).args(["-printf", "%P %y %l\n"])).stdout;
    let alone = ["a", "b"].map(|file| {
        assert!(build(file, file).wait().unwrap().success());
        list(file).lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    });
    for _ in 0..5 {
        for mut build in ["a", "b", "a", "b"].map(|file| build(file, "out")) {
            assert!(build.wait().unwrap().success());
        }
        let together = list("out").lines().map(str::to_owned).collect();
        assert!(alone.contains(&together), "{together:?}");
    }
}

#[test]
fn an_image_without_a_name_takes_the_place_of_the_one_before_in_a_layout() {
    let project = project();
    let dir = project.path().join("layout");
    let out = format!("type=oci,tar=false,dest={}", dir.display());
    let build = |args: &[&str]| {
        let context = project.context();
        let args = [&["build", "-q", "-o", &out, context.to_str().unwrap()], args].concat();
        project.kiln(&args).ok();
        let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let names = index["manifests"].as_array().unwrap().iter();
        let tag = |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].clone();
        names.map(tag).collect::<Vec<_>>()
    };
    assert_eq!(build(&[]), ["latest"]);
    project.file("f", "other");
    assert_eq!(build(&[]), ["latest"]);
    assert_eq!(build(&["-t", "app:1"]), ["latest", "1"]);
    project.file("f", "third");
    assert_eq!(build(&[]), ["1", "latest"]);
}

#[test]
fn files_that_are_not_the_result_s_go_only_where_that_is_allowed() {
    let project = project();
    let delete = |dest: &str, allowed: &[&str]| {
        let mut command = project.command();
        command.current_dir(project.path()).args(["build", "--progress", "plain"]).args(allowed);
        run(command.args(["-o", &format!("type=local,dest={dest},mode=delete")]).arg(project.context()))
    };
    let (out, outside) = (project.path().join("out"), project.path().join("outside"));
    fs::create_dir_all(out.join("d/old/deep")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    fs::write(out.join("old"), "").unwrap();
    symlink(&outside, out.join("link")).unwrap();
    symlink("/", project.path().join("away")).unwrap();
    for dest in [".", "..", "away/tmp", "/var/tmp"] {
        delete(dest, &[]).fails(2).says("--allow=buildx.local.delete");
    }
    delete("out", &[]).ok();
    assert!(out.join("d/e/x").exists() && out.join("f").exists());
    assert!(!out.join("old").exists() && !out.join("d/old").exists() && !out.join("link").is_symlink());
    assert!(outside.join("kept").exists());
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("old"), "").unwrap();
    delete(elsewhere.path().to_str().unwrap(), &["--allow=buildx.local.delete"]).ok();
    assert!(elsewhere.path().join("f").exists() && !elsewhere.path().join("old").exists());
}
