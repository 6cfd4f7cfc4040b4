//! Where results go: archives others read, trees, files that scripts rely on.

use std::fs;
use std::process::Command;

use crate::project::{Project, have, run};

fn project() -> Project {
    let project = Project::new();
    project.file("f", "content").dockerfile("FROM busybox\nCOPY f /f\nLABEL who=me\nCMD [\"cat\", \"/f\"]\n");
    project
}

#[test]
fn archives_are_read_by_skopeo() {
    let project = project();
    if !have("skopeo") {
        return;
    }
    for (kind, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let file = project.path().join(format!("{kind}.tar"));
        project.build(&["-o", &format!("type={kind},dest={}", file.display())]).ok();
        let target = format!("{transport}:{}", file.display());
        let config = run(Command::new("skopeo").args(["inspect", "--config", &target])).ok().stdout;
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["config"]["Labels"]["who"], "me", "{kind}");
        let copy = format!("dir:{}", project.path().join(format!("{kind}-copy")).display());
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &target, &copy])).ok();
    }
}

#[test]
fn archives_on_standard_output_are_the_same_bytes_twice() {
    let project = project();
    let args = ["build", "-q", "-o", "type=oci,dest=-"];
    let archive = || {
        let out = project.command().args(args).arg(project.context()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let first = archive();
    assert!(first.len() > 10_000);
    assert_eq!(first, archive());
}

#[test]
fn an_archive_that_grew_with_its_layers_is_that_of_the_cached_build() {
    let project = Project::new();
    // What does not shrink; the second layer is the first again.
    let noise: Vec<u8> =
        (0_u64..1 << 19).flat_map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n).to_le_bytes()).collect();
    project.file("noise", &noise).dockerfile("FROM busybox\nCOPY noise /n\nCOPY noise /n\nRUN echo more > /more\n");
    let archive = |name: &str| {
        let file = project.path().join(name);
        project.build(&["-o", &format!("type=oci,dest={}", file.display())]).ok();
        (fs::read(&file).unwrap(), run(Command::new("tar").arg("-tf").arg(&file)).ok().stdout)
    };
    let (grown, names) = archive("grown.tar");
    let mut once: Vec<&str> = names.lines().collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.lines().count(), "a member is there twice: {names}");
    assert!(grown == archive("cached.tar").0);
    let out = project
        .command()
        .args(["build", "-q", "-t", "app", "-o", "type=oci,dest=-"])
        .arg(project.context())
        .output()
        .unwrap();
    assert!(grown.len() > noise.len() && grown == out.stdout);
}

#[test]
fn trees_come_as_a_directory_or_a_tar() {
    let project = project();
    let out = project.tree(&[]);
    assert_eq!(fs::read_to_string(out.join("f")).unwrap(), "content");
    let tar = project.path().join("tree.tar");
    project.build(&["--output", &format!("type=tar,dest={}", tar.display())]).ok();
    let names = run(Command::new("tar").arg("-tf").arg(&tar)).ok().stdout;
    assert!(names.lines().any(|n| n.trim_start_matches("./") == "f") && names.contains("bin/busybox"), "{names}");
}

#[test]
fn compression_is_what_was_asked_for() {
    let project = project();
    for (compression, suffix) in
        [("uncompressed", "tar"), ("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("estargz", "tar+gzip")]
    {
        let dir = project.path().join(compression);
        let out = format!("type=oci,tar=false,dest={},compression={compression},force-compression=true", dir.display());
        project.build(&["-o", &out]).ok();
        let index: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.join("blobs").join(digest)).unwrap()).unwrap();
        for layer in manifest["layers"].as_array().unwrap() {
            assert!(layer["mediaType"].as_str().unwrap().ends_with(suffix), "{layer}");
        }
    }
}

#[test]
fn files_and_quiet_output_name_the_image() {
    let project = project();
    let (iid, meta) = (project.path().join("iid"), project.path().join("meta.json"));
    project.build(&["--iidfile", iid.to_str().unwrap(), "--metadata-file", meta.to_str().unwrap()]).ok();
    let id = fs::read_to_string(iid).unwrap();
    assert_eq!(project.inspect("app")["Id"], id.as_str());
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(meta).unwrap()).unwrap();
    assert_eq!(meta["containerimage.config.digest"], id.as_str());
    assert_eq!(meta["image.name"], "docker.io/library/app:latest");
    assert!(meta["buildx.build.ref"].is_string() && meta["buildx.build.warnings"].is_null());
    let quiet = project.build(&["-q"]).ok();
    assert_eq!((quiet.stdout.trim(), quiet.stderr.as_str()), (id.as_str(), ""));
}

#[test]
fn files_for_scripts_say_what_was_written_and_found() {
    let project = Project::new();
    project.dockerfile("FROM busybox AS Base\nCMD true\n");
    let (iid, meta, out) = (project.path().join("iid"), project.path().join("meta"), project.path().join("out"));
    let (iid, meta) = (iid.to_str().unwrap(), meta.to_str().unwrap());
    let build = |output: &str| {
        let mut command = project.command();
        command.args(["build", "--iidfile", iid, "--metadata-file", meta, "-o", output]).arg(project.context());
        let ran = run(command.env("BUILDX_METADATA_WARNINGS", "1"));
        let meta: serde_json::Value =
            fs::read(meta).map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default();
        (ran, fs::read_to_string(iid), meta)
    };
    let (ran, id, meta) = build(&format!("type=oci,dest={}", out.display()));
    ran.ok();
    assert_eq!(meta["containerimage.config.digest"], id.unwrap().as_str());
    assert_eq!(meta["containerimage.descriptor"]["digest"], meta["containerimage.digest"]);
    assert_eq!(meta["containerimage.descriptor"]["platform"]["os"], "linux");
    let warnings = meta["buildx.build.warnings"].as_array().unwrap();
    assert!(!warnings.is_empty() && warnings.iter().all(|w| w["short"].is_string() && w["range"].is_array()));
    let (ran, _, meta) = build(&format!("type=oci,\"name=app:1,app:2\",dest={}", out.display()));
    ran.ok();
    assert_eq!(meta["image.name"], "docker.io/library/app:1,docker.io/library/app:2");
    let (ran, id, meta) = build("type=cacheonly");
    ran.ok();
    assert_eq!((id.unwrap().as_str(), &meta["containerimage.digest"]), ("", &serde_json::Value::Null));
    let (ran, ..) = build(out.with_extension("dir").to_str().unwrap());
    ran.fails(2).says("--iidfile");
    let tree = format!("type=local,dest={}", out.with_extension("tree").display());
    let ran = project.build(&["--iidfile", iid, "-o", &tree, "-o", "type=image"]);
    ran.ok();
    assert!(fs::read_to_string(iid).unwrap().starts_with("sha256:"), "one of the outputs is an image");
}

#[test]
fn saved_images_load_into_another_store() {
    let project = project();
    project.build(&[]).ok();
    let file = project.path().join("saved.tar");
    project.kiln(&["save", "-o", file.to_str().unwrap(), "app"]).ok();
    let other = Project::bare();
    other.kiln(&["load", "-i", file.to_str().unwrap()]).ok();
    assert_eq!(other.inspect("app")["Id"], project.inspect("app")["Id"]);
    assert_eq!(other.kiln(&["run", "--rm", "app"]).ok().stdout, "content");
}
