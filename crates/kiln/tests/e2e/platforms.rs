//! Several platforms in one build: one index, each part of it made where it can be.

use std::path::Path;
use std::process::Command;

use kiln_testkit::Registry;
use serde_json::Value;

use crate::project::{Project, have, run};

/// Needs no machine but this one: the build stage runs here, and only writes for others.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN echo shared >/shared\nARG TARGETARCH\n\
    ARG TARGETVARIANT\nRUN echo $TARGETARCH$TARGETVARIANT >/arch\nFROM scratch\nCOPY --from=build /shared /arch /\n";

const ALL: &str = "linux/amd64,linux/arm64,linux/arm/v7";

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn platforms(index: &Value) -> Vec<String> {
    let platform = |entry: &Value| {
        let parts = ["os", "architecture", "variant"].map(|part| entry["platform"][part].as_str());
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    };
    index["manifests"].as_array().unwrap().iter().map(platform).collect()
}

fn blob(layout: &Path, digest: &Value) -> Value {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    json(&std::fs::read(layout.join("blobs/sha256").join(hex)).unwrap())
}

#[test]
fn a_cross_build_gives_an_index_in_the_order_of_the_request_and_runs_shared_steps_once() {
    let project = Project::new();
    project.dockerfile(CROSS);
    let (layout, ids) = (project.path().join("layout"), project.path().join("iid"));
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let metadata = project.path().join("metadata");
    let (iidfile, metadata_file) = (ids.to_str().unwrap(), metadata.to_str().unwrap());
    let built =
        project.build(&["--platform", ALL, "-o", &output, "--iidfile", iidfile, "--metadata-file", metadata_file]).ok();
    let ran = built.stderr.lines().filter(|line| line.contains("] RUN echo shared")).count();
    assert_eq!(ran, 1, "{}", built.stderr);
    built.says("[linux/amd64->arm64 build 3/3]");
    let root = json(&std::fs::read(layout.join("index.json")).unwrap())["manifests"][0].clone();
    assert_eq!(root["mediaType"], "application/vnd.oci.image.index.v1+json");
    let index = blob(&layout, &root["digest"]);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    let configs = index["manifests"].as_array().unwrap().iter().map(|entry| {
        let config = blob(&layout, &blob(&layout, &entry["digest"])["config"]["digest"]);
        (config["architecture"].as_str().unwrap().to_owned(), config["variant"].as_str().map(str::to_owned))
    });
    let (amd64, arm64, arm) = (("amd64".into(), None), ("arm64".into(), None), ("arm".into(), Some("v7".into())));
    assert_eq!(configs.collect::<Vec<_>>(), [amd64, arm64, arm]);
    assert_eq!(std::fs::read_to_string(&ids).unwrap(), root["digest"].as_str().unwrap());
    let metadata = json(&std::fs::read(&metadata).unwrap());
    assert_eq!(metadata["containerimage.digest"], root["digest"]);
    assert!(metadata["containerimage.config.digest"].is_null(), "{metadata}");
}

#[test]
fn one_platform_gives_a_manifest_and_several_never_fit_docker_s_archive() {
    let project = Project::new();
    project.dockerfile(CROSS);
    let archive = |kind: &str| format!("type={kind},dest={}", project.path().join("out.tar").display());
    project.build(&["--platform", "linux/arm64,linux/arm64/v8", "-o", &archive("docker")]).ok();
    project.build(&["--platform", ALL, "-o", &archive("docker")]).fails(2).says("holds one platform only");
}

#[test]
fn files_of_several_platforms_are_in_a_directory_each() {
    let project = Project::new();
    project.dockerfile(CROSS);
    let tree = project.tree(&["--platform", ALL]);
    for (directory, arch) in [("linux_amd64", "amd64\n"), ("linux_arm64", "arm64\n"), ("linux_arm_v7", "armv7\n")] {
        assert_eq!(std::fs::read_to_string(tree.join(directory).join("arch")).unwrap(), arch);
    }
    let tar = project.path().join("files.tar");
    project.build(&["--platform", ALL, "-o", &format!("type=tar,dest={}", tar.display())]).ok();
    let listed = run(Command::new("tar").args(["-tf", tar.to_str().unwrap()])).ok().stdout;
    let directories: Vec<&str> = listed.lines().filter(|line| line.ends_with('/')).collect();
    assert_eq!(directories, ["linux_amd64/", "linux_arm64/", "linux_arm_v7/"]);
    assert!(listed.contains("linux_arm_v7/arch"), "{listed}");
}

#[test]
fn a_name_of_the_store_stands_for_all_platforms() {
    let project = Project::new();
    project.dockerfile(CROSS);
    project.build(&["--platform", ALL]).ok();
    let shown = project.kiln(&["images", "app", "--format", "{{.Repository}} {{.ID}}"]).ok().stdout;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let tree = project.kiln(&["images", "--tree", "app"]).ok().stdout;
    assert!(["linux/amd64", "linux/arm64", "linux/arm/v7"].iter().all(|one| tree.contains(one)), "{tree}");
    let of = |platform: &str| {
        let text = project.kiln(&["inspect", "--platform", platform, "app"]).ok().stdout;
        json(text.as_bytes())[0].clone()
    };
    assert_eq!(of("linux/arm64")["Architecture"], "arm64");
    assert_eq!(of("linux/arm/v7")["Variant"], "v7");
    assert_eq!(project.inspect("app")["Architecture"], of("linux/amd64")["Architecture"]);
    project.kiln(&["inspect", "--platform", "linux/s390x", "app"]).fails(1).says("for `linux/amd64`, `linux/arm64`");
    let member = of("linux/arm64")["Id"].as_str().unwrap().to_owned();
    assert_eq!(project.inspect(&member)["Architecture"], "arm64");
    // Each stage takes the image for its own platform.
    project.dockerfile("FROM app\nCOPY --from=app /arch /again\n");
    let tree = project.tree(&["--platform", "linux/arm64,linux/arm/v7"]);
    assert_eq!(std::fs::read_to_string(tree.join("linux_arm64/again")).unwrap(), "arm64\n");
    assert_eq!(std::fs::read_to_string(tree.join("linux_arm_v7/again")).unwrap(), "armv7\n");
    project.dockerfile(CROSS).build(&["--platform", ALL]).ok();
    project.kiln(&["tag", "app", "other"]).ok();
    project.kiln(&["rmi", "app"]).ok();
    project.kiln(&["prune", "--all", "-f"]).ok();
    assert_eq!(project.inspect("other")["Architecture"], "amd64");
    project.kiln(&["fsck", "--deep"]).ok();
    project.kiln(&["rmi", "other"]).ok();
    project.kiln(&["prune", "--all", "-f"]).ok();
    let left = project.kiln(&["images", "--format", "{{.Repository}}"]).ok().stdout;
    assert_eq!(left, "busybox\n");
}

#[test]
fn several_platforms_travel_by_archive() {
    let project = Project::new();
    project.dockerfile(CROSS).build(&["--platform", ALL]).ok();
    let archive = project.path().join("app.tar");
    project.kiln(&["save", "-o", archive.to_str().unwrap(), "app"]).ok();
    let other = Project::bare();
    other.kiln(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(other.inspect("app")["Id"], project.inspect("app")["Id"]);
    let one = project.path().join("one.tar");
    project.kiln(&["save", "--platform", "linux/arm64", "-o", one.to_str().unwrap(), "app"]).ok();
    let third = Project::bare();
    third.kiln(&["load", "-i", one.to_str().unwrap()]).ok();
    assert_eq!(third.inspect("app")["Architecture"], "arm64");
    let fourth = Project::bare();
    let load = |platform: &str| fourth.kiln(&["load", "--platform", platform, "-i", archive.to_str().unwrap()]);
    load("linux/s390x").fails(1).says("`linux/arm64`").says("--platform");
    load("linux/arm64").ok();
    assert_eq!(fourth.inspect("app")["Architecture"], "arm64");
    if have("skopeo") {
        let source = format!("docker-archive:{}", archive.display());
        let text = run(Command::new("skopeo").args(["inspect", "--config", &source])).ok().stdout;
        assert_eq!(json(text.as_bytes())["architecture"], "amd64", "who knows no index finds the machine's");
    }
}

#[test]
fn several_platforms_travel_through_a_registry() {
    let Some(registry) = Registry::start() else { return };
    let name = format!("{}/team/cross:v1", registry.host());
    let project = Project::new();
    project.dockerfile(CROSS);
    let context = project.context();
    let context = context.to_str().unwrap();
    project.kiln(&["build", "--platform", ALL, "-t", &name, "--push", context]).ok();
    let raw = |name: &str| {
        let text = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", name])).ok().stdout;
        json(text.as_bytes())
    };
    if have("skopeo") {
        let index = raw(&format!("docker://{name}"));
        assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    }
    let other = Project::bare();
    other.kiln(&["pull", "--all-platforms", &name]).ok();
    let again = format!("{}/team/again:v1", registry.host());
    other.kiln(&["tag", &name, &again]).ok();
    other.kiln(&["push", &again]).ok();
    let third = Project::bare();
    third.kiln(&["pull", "--platform", "linux/arm64,linux/arm/v7", &again]).ok();
    let tree = third.kiln(&["images", "--tree"]).ok().stdout;
    assert!(tree.contains("linux/arm64") && tree.contains("linux/arm/v7") && !tree.contains("amd64"), "{tree}");
    // What is taken of the same index is added to what is here.
    let has_all = |project: &Project| {
        let tree = project.kiln(&["images", "--tree"]).ok().stdout;
        ["linux/amd64", "linux/arm64", "linux/arm/v7"].iter().all(|platform| tree.contains(platform))
    };
    let pulled = other.kiln(&["pull", "--platform", "linux/arm64", &name]).ok();
    assert!(pulled.stdout.contains("up to date"), "{}", pulled.stdout);
    assert!(has_all(&other));
    let adding = Project::bare();
    for platform in ["linux/arm/v7", "linux/amd64", "linux/arm64"] {
        adding.kiln(&["pull", "--platform", platform, &name]).ok();
    }
    assert!(has_all(&adding));
    assert_eq!(adding.inspect(&name)["Id"], other.inspect(&name)["Id"]);
    // One index is another image for each platform.
    let fourth = Project::bare();
    fourth.dockerfile(&format!("FROM {again}\nCOPY --from={again} /arch /again\n"));
    let files = fourth.tree(&["--platform", ALL]);
    for (directory, arch) in [("linux_amd64", "amd64\n"), ("linux_arm64", "arm64\n"), ("linux_arm_v7", "armv7\n")] {
        let read = |name: &str| std::fs::read_to_string(files.join(directory).join(name)).unwrap();
        assert_eq!([read("arch"), read("again")], [arch, arch]);
    }
    // A name that lacks platforms of its index is pushed as what is here.
    let part = format!("{}/team/part:v1", registry.host());
    third.kiln(&["tag", &again, &part]).ok();
    third.kiln(&["push", &part]).ok();
    third.kiln(&["push", "--platform", "linux/arm64", &again]).ok();
    third.kiln(&["pull", "--platform", "linux/s390x", &part]).fails(1).says("`linux/arm64`");
    if have("skopeo") {
        let docker = |name: &str| raw(&format!("docker://{name}"));
        assert_eq!(platforms(&docker(&part)), ["linux/arm64", "linux/arm/v7"]);
        assert!(docker(&again)["config"].is_object());
    }
}

#[test]
fn caches_of_several_platforms_serve_each_of_them() {
    let Some(registry) = Registry::start() else { return };
    let project = Project::new();
    project.dockerfile(
        "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETARCH\nRUN echo $TARGETARCH >/arch\n\
        FROM scratch\nCOPY --from=build /arch /arch\n",
    );
    let context = project.context();
    let context = context.to_str().unwrap();
    let build = ["build", "--progress=plain", "--platform", "linux/amd64,linux/arm64"];
    let name = |text: &str| format!("{}/team/cached:{text}", registry.host());
    let (inline, whole) = (name("inline"), format!("type=registry,mode=max,ref={}", name("cache")));
    let to = ["--cache-to", "type=inline", "--cache-to", &whole, "-t", &inline, "--push", context];
    project.kiln(&[&build[..], &to].concat()).ok();
    for from in [format!("type=registry,ref={inline}"), format!("type=registry,ref={}", name("cache"))] {
        project.kiln(&["rmi", &inline]).ok();
        project.kiln(&["prune", "--all", "-f"]).ok();
        let built = project.kiln(&[&build[..], &["--cache-from", &from, "-t", &inline, context]].concat()).ok();
        assert!(built.cached() >= 2, "{from}\n{}", built.stderr);
    }
}

#[test]
fn images_of_registries_are_joined_without_being_fetched() {
    let Some(registry) = Registry::start() else { return };
    let project = Project::new();
    project.dockerfile(CROSS);
    let context = project.context();
    let context = context.to_str().unwrap();
    let name = |text: &str| format!("{}/team/{text}", registry.host());
    let pushed = |platform: &str, name: &str| {
        project.kiln(&["build", "--platform", platform, "-t", name, "--push", context]).ok();
    };
    let (one, two, all) = (name("one:1"), name("two:1"), name("all:1"));
    pushed("linux/amd64", &one);
    pushed("linux/arm64", &two);
    let other = Project::bare();
    let raw = |name: &str| other.kiln(&["imagetools", "inspect", "--raw", name]).ok().stdout;
    let shown = |name: &str| json(raw(name).as_bytes());
    let dry = other.kiln(&["imagetools", "create", "--dry-run", &one, &two]).ok().stdout;
    other.kiln(&["buildx", "imagetools", "create", "-t", &all, &one, &two]).ok().says("copying sha256:");
    assert_eq!(dry.trim(), raw(&all));
    assert_eq!(platforms(&shown(&all)), ["linux/amd64", "linux/arm64"]);
    // What it names is there, and whole.
    Project::bare().kiln(&["pull", "--all-platforms", &all]).ok();
    pushed("linux/arm/v7", &name("all:arm"));
    let create = |args: &[&str]| other.kiln(&[&["imagetools", "create"], args].concat()).ok();
    create(&["--append", "-t", &all, "--annotation", "index:made=here", &name("all:arm")]);
    assert_eq!(platforms(&shown(&all)), ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    assert_eq!(shown(&all)["annotations"]["made"], "here");
    let less = name("less:1");
    create(&["-t", &less, "-p", "linux/arm64,linux/arm/v7", &all]);
    assert_eq!(platforms(&shown(&less)), ["linux/arm64", "linux/arm/v7"]);
    assert_eq!(shown(&less)["annotations"]["made"], "here");
    let copy = name("copy:1");
    create(&["-t", &copy, "--prefer-index=false", &two]);
    assert_eq!(shown(&copy), shown(&two));
    let by = |format: &str| other.kiln(&["imagetools", "inspect", "--format", format, &all]).ok().stdout;
    assert!(by("{{.Manifest.Digest}} {{.Manifest.MediaType}}").starts_with("sha256:"));
    assert_eq!(by("{{range .Image}}{{.Architecture}} {{end}}").trim(), "amd64 arm arm64");
    let text = other.kiln(&["imagetools", "inspect", &all]).ok().stdout;
    assert!(text.contains(&format!("Name:      {all}")) && text.contains("Platform:  linux/arm/v7"), "{text}");
    other.kiln(&["imagetools", "create", "-t", &all, &name("nosuch:1")]).fails(1).says("nosuch");
}

/// A busybox for arm64, where the kernel can run it.
fn emulated() -> Option<std::path::PathBuf> {
    let found = std::env::var_os("KILN_TEST_ARM64").map(std::path::PathBuf::from);
    let Some(program) = found.filter(|_| cfg!(target_arch = "x86_64")) else {
        kiln_testkit::skip("no emulator: `scripts/emulator.sh start` names what `KILN_TEST_ARM64` is to be");
        return None;
    };
    assert_eq!(run(Command::new(&program).args(["uname", "-m"])).ok().stdout, "aarch64\n");
    Some(program)
}

#[test]
fn steps_of_another_platform_run_by_an_emulator() {
    let Some(program) = emulated() else { return };
    let project = Project::new();
    project.file("busybox", std::fs::read(program).unwrap());
    let base = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n";
    project.dockerfile(base);
    project.kiln(&["build", "--platform", "linux/arm64", "-t", "arm", project.context().to_str().unwrap()]).ok();
    project.file(
        "Dockerfile.base",
        "FROM busybox AS base-amd64\nFROM --platform=linux/arm64 arm AS base-arm64\n\
        FROM base-$TARGETARCH\nRUN uname -m | tr a-z A-Z >/machine\n",
    );
    let layout = project.path().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let file = project.context().join("Dockerfile.base");
    let built = ["-f", file.to_str().unwrap(), "--platform", "linux/amd64,linux/arm64"];
    project.build(&[&built[..], &["-o", &output]].concat()).ok();
    let tree = project.tree(&built);
    assert_eq!(std::fs::read_to_string(tree.join("linux_amd64/machine")).unwrap(), "X86_64\n");
    assert_eq!(std::fs::read_to_string(tree.join("linux_arm64/machine")).unwrap(), "AARCH64\n");
    if have("skopeo") {
        let source = format!("oci:{}", layout.display());
        let index = run(Command::new("skopeo").args(["inspect", "--raw", &source])).ok().stdout;
        assert_eq!(platforms(&json(index.as_bytes())), ["linux/amd64", "linux/arm64"]);
    }
    project.build(&built).ok();
    let machine =
        |platform: &str| project.kiln(&["run", "--rm", "--platform", platform, "app", "cat", "/machine"]).ok().stdout;
    assert_eq!([machine("linux/arm64"), machine("linux/amd64")], ["AARCH64\n", "X86_64\n"]);
}

#[test]
fn a_step_that_nothing_runs_is_told_before_it_begins_and_only_when_it_is_needed() {
    let project = Project::new();
    // No machine that runs tests has an emulator for this.
    project.dockerfile("FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\nRUN [\"/y\"]\n");
    let failed = project.build(&["--platform", "linux/loong64"]);
    if failed.stderr.contains("exec format") || failed.code == 1 {
        return kiln_testkit::skip("something is registered for loong64");
    }
    failed.fails(3).says("no emulator is registered").says("qemu-user-static").says("linux/loong64");
    // Of several platforms, too, and before the steps of any.
    let both = "FROM --platform=$BUILDPLATFORM busybox AS first\nRUN echo ran\n\
        FROM scratch\nCOPY --from=first /bin /bin\nRUN [\"/y\"]\n";
    project.dockerfile(both);
    let failed = project.build(&["--platform", "linux/amd64,linux/loong64"]);
    failed.fails(3).says("no emulator is registered").says("Dockerfile:5").never_says("RUN echo ran");
    project.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    project.build(&["--platform", "linux/loong64"]).ok();
}
