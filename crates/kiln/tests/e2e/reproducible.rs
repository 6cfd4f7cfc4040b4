//! The same image again: by other hands, in other places, at other times.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use crate::project::{Project, Run, run};

/// Runs commands without a base image: the shell is mounted, so that its version is in no layer.
const DOCKERFILE: &str = "FROM scratch AS tools\nCOPY busybox /bin/busybox\n\
    FROM scratch AS made\nWORKDIR /w\nENV A=b\n\
    RUN --mount=type=bind,from=tools,source=/bin,target=/t [\"/t/busybox\", \"sh\", \"-c\", \"/t/busybox mkdir -p /out/d && \
    echo x >/out/d/f && /t/busybox ln /out/d/f /out/d/g && /t/busybox touch /out/d/now\"]\n\
    FROM made\nCOPY . /src/\nCOPY --from=made /out /copied\nCOPY --chown=7:8 --chmod=604 src/a /a\nADD src/run.sh /\n\
    HEALTHCHECK CMD true\nCMD [\"/a\"]\n";

/// One of several ways to have and build the same project.
struct Way {
    names: Vec<&'static str>,
    umask: &'static str,
    zone: &'static str,
    jobs: &'static str,
    directory: &'static str,
    mtime: u64,
    is_linked: bool,
}

fn ways() -> [Way; 2] {
    let names = vec!["src/a", "src/b", "src/run.sh", "src/deep/c"];
    let reversed = names.iter().rev().copied().collect();
    [
        Way { names, umask: "022", zone: "UTC", jobs: "1", directory: "one", mtime: 1_000_000_000, is_linked: false },
        Way {
            names: reversed,
            umask: "077",
            zone: "Asia/Tokyo",
            jobs: "8",
            directory: "another/place",
            mtime: 1_700_000_000,
            is_linked: true,
        },
    ]
}

/// Brings the machine's static shell.
pub(crate) fn busybox(to: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox-static is installed"), to).unwrap();
}

/// The project as this way has it; gives its context.
fn lay_out(project: &Project, way: &Way) -> PathBuf {
    let context = project.path().join(way.directory);
    let mask = u32::from_str_radix(way.umask, 8).unwrap();
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode & !mask)).unwrap();
    for name in &way.names {
        let path = context.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // `a` and `b` hold the same, and may be one file.
        let is_second = way.is_linked && matches!(*name, "src/a" | "src/b") && context.join("src/b").exists();
        match is_second {
            true => fs::hard_link(context.join("src/b"), &path).unwrap(),
            false => fs::write(&path, if *name == "src/run.sh" { "#!/bin/sh\n" } else { "x\n" }).unwrap(),
        }
        mode(&path, if *name == "src/run.sh" { 0o777 } else { 0o666 });
        let time = UNIX_EPOCH + Duration::new(way.mtime, 123);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    symlink("a", context.join("src/link")).unwrap();
    fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    busybox(&context.join("busybox"));
    fs::write(context.join(".dockerignore"), "layout\nDockerfile\n.dockerignore\n").unwrap();
    for directory in ["src/deep", "src", ""] {
        mode(&context.join(directory), 0o777);
    }
    context
}

/// The digest of the manifest in a layout directory.
pub(crate) fn digest(layout: &Path) -> String {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn build(project: &Project, way: &Way, args: &[&str]) -> String {
    let context = lay_out(project, way);
    let layout = project.path().join("layout");
    let mut command = Command::new("/bin/sh");
    let script = format!("umask {}; exec \"$@\"", way.umask);
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "--state"]).arg(project.state());
    command.args(["build", "--progress=plain", "--jobs", way.jobs]).args(args);
    command.arg("-o").arg(format!("type=oci,tar=false,dest={}", layout.display())).arg(context);
    command.env_remove("SOURCE_DATE_EPOCH").env("TZ", way.zone).current_dir(project.path()).stdin(Stdio::null());
    run(&mut command).ok();
    digest(&layout)
}

#[test]
fn one_digest_whoever_builds_where_and_when() {
    let mut digests = Vec::new();
    for args in [&["--reproducible"][..], &["--reproducible", "--source-date-epoch", "1234567890"]] {
        let [one, other] = ways().map(|way| {
            std::thread::sleep(Duration::from_millis(1100));
            build(&Project::bare(), &way, args)
        });
        assert_eq!(one, other, "{args:?}");
        digests.push(one);
    }
    assert_ne!(digests[0], digests[1], "the time is in it");
    let [one, other] = ways().map(|way| build(&Project::bare(), &way, &["--source-date-epoch=0"]));
    assert_ne!(one, other, "this test could not fail");
}

/// What `tar -tv` says of a layer of a layout, base first.
fn listing(layout: &Path, at: usize) -> String {
    let read = |digest: &str| {
        let path = layout.join("blobs").join(digest.replace(':', "/"));
        (path.clone(), serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap_or_default())
    };
    let (_, manifest) = read(&digest(layout));
    let (layer, _) = read(manifest["layers"][at]["digest"].as_str().unwrap());
    run(Command::new("tar").args(["--utc", "--full-time", "-tvf"]).arg(layer)).ok().stdout
}

#[test]
fn new_layers_are_rewritten_and_those_of_the_base_are_not() {
    let project = Project::bare();
    let file = |name: &str, secs: u64| {
        project.file(name, "x");
        let time = UNIX_EPOCH + Duration::from_secs(secs);
        fs::File::open(project.context().join(name)).unwrap().set_modified(time).unwrap();
    };
    file("new", 2_000_000_000);
    file("old", 5);
    project.dockerfile("FROM scratch\nCOPY new /\n").kiln(&["build", "-q", "-t", "base", "context"]).ok();
    project.dockerfile("FROM base\nCOPY new old /d/\n");
    let layout = project.path().join("layout");
    let to_layout = format!("type=oci,tar=false,compression=uncompressed,dest={}", layout.display());
    let flags = ["build", "--source-date-epoch", "100", "--rewrite-timestamp", "-t", "app", "-o"];
    project.kiln(&[&flags[..], &[&to_layout, "-o", "type=image", "context"]].concat()).ok();
    assert!(listing(&layout, 0).contains("2033-05-18"), "the base is as it was");
    let top = listing(&layout, 1);
    assert!(top.matches("1970-01-01 00:01:40").count() == 2 && top.contains("1970-01-01 00:00:05"), "{top}");
    // The store has what the archive has: what leaves it later is the same image.
    let layout = format!("oci:{}", layout.display());
    project.kiln(&["diff", "-q", "app", &layout]).ok();
    project.kiln(&["save", "-o", "app.tar", "app"]).ok();
    project.kiln(&["diff", "-q", "docker-archive:app.tar", &layout]).ok();
    assert_eq!(project.inspect("app")["Created"], "1970-01-01T00:01:40Z");
    // Without a time there is nothing to rewrite to.
    project.build(&["--rewrite-timestamp"]).ok().says("times are not rewritten");
    let exact = ["--timestamp", "100", "-o", &to_layout];
    project.build(&exact).ok();
    let all = listing(&project.path().join("layout"), 1);
    assert_eq!((all.matches("00:01:40").count(), all.lines().count()), (3, 3), "{all}");
}

#[test]
fn trees_have_the_time_that_stands_for_all() {
    let project = Project::bare();
    project.file("d/f", "x").dockerfile("FROM scratch\nCOPY d /d\n");
    let out = project.tree(&["--build-arg", "SOURCE_DATE_EPOCH=77"]);
    for path in ["d", "d/f"] {
        assert_eq!(fs::metadata(out.join(path)).unwrap().mtime(), 77, "{path}");
    }
    project.build(&["-o", "type=tar,dest=out.tar,source-date-epoch=78"]).ok();
    let listed =
        run(Command::new("tar").args(["--utc", "--full-time", "-tvf"]).arg(project.path().join("out.tar"))).ok();
    assert_eq!(listed.stdout.matches("1970-01-01 00:01:18").count(), 2, "{}", listed.stdout);
}

#[test]
fn a_context_that_has_a_time_lends_it() {
    let project = Project::bare();
    let server = kiln_testkit::GitServer::start();
    let repository = server.repository("app.git", &[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("f", "x")]);
    let time = repository.git(&["log", "-1", "--format=%ct"]).trim().parse::<i64>().unwrap();
    let built =
        project.kiln(&["build", "-q", "-t", "app", "--build-arg", "SOURCE_DATE_EPOCH=context", &server.url("app.git")]);
    built.ok();
    let created = |project: &Project| project.inspect("app")["Created"].as_str().unwrap().to_owned();
    let seconds = run(Command::new("date").args(["-u", "+%s", "-d", &created(&project)])).ok().stdout;
    assert_eq!(seconds.trim(), time.to_string());
    // A tar on standard input: its newest file.
    project
        .file("Dockerfile", "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL at=$SOURCE_DATE_EPOCH\nCOPY f /\n")
        .file("f", "x");
    for (name, secs) in [("f", 1234), ("Dockerfile", 999)] {
        let file = fs::File::open(project.context().join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    }
    let tar = Command::new("tar")
        .args(["-C", project.context().to_str().unwrap(), "-c", "f", "Dockerfile"])
        .output()
        .unwrap();
    project
        .kiln_with_input(&["build", "-q", "-t", "app", "--build-arg", "SOURCE_DATE_EPOCH=context", "-"], &tar.stdout)
        .ok();
    assert_eq!(created(&project), "1970-01-01T00:20:34Z");
    assert_eq!(project.inspect("app")["Config"]["Labels"]["at"], "1234");
}

fn verify(project: &Project, args: &[&str]) -> Run {
    project.kiln(&[&["verify", "--progress=plain"], args].concat())
}

#[test]
fn what_is_not_the_same_again_is_named_with_its_step_and_cause() {
    let project = Project::new();
    let steady = "FROM busybox AS made\nRUN mkdir /out && echo x >/out/same\nFROM scratch\nCOPY --from=made /out /\n";
    project.dockerfile(steady);
    let same = verify(&project, &["--reproducible", "context"]).ok();
    assert!(same.stdout.starts_with("reproducible: sha256:"), "{}", same.stdout);
    project.dockerfile(
        "FROM busybox AS made\nRUN mkdir /out && date +%s >/out/date\nRUN echo x >/tmp/unused-$(date +%N)\n\
         FROM busybox\nCOPY --from=made /out /\nRUN head -c 8 /dev/urandom | md5sum >/id; echo x >/var.log.$(date +%s%N)\n",
    );
    let answer = verify(&project, &["--reproducible", "context"]).fails(1);
    let told = &answer.stdout;
    let line = |of: &str| told.lines().find(|line| line.starts_with(of)).unwrap_or_else(|| panic!("{told}")).to_owned();
    let date = line("/date: content");
    assert!(date.contains("[made 2/3] RUN mkdir /out") && date.contains("line 2"), "{date}");
    assert!(date.contains("a time written into it"), "{date}");
    let id = line("/id: content");
    assert!(id.contains("line 6") && id.contains("an id made up at random"), "{id}");
    assert!(line("/var.log.").contains("a name that differs"), "{told}");
    assert!(!told.contains("unused") && !told.contains("only"), "{told}");
    // Without one time for all, times are told, once.
    project.dockerfile(steady);
    let told = verify(&project, &["context"]).fails(1).stdout;
    assert!(told.contains("only its time") && told.contains("hint: build with `--reproducible`"), "{told}");
}

#[test]
fn an_image_is_built_again_from_its_record() {
    let project = Project::new();
    project.file("f", "x").dockerfile("FROM busybox\nARG V\nARG TOKEN\nCOPY f /\nRUN echo $V >/v\nLABEL a=b\n");
    let built = ["--reproducible", "--build-arg", "V=1", "--build-arg", "TOKEN=hush", "--label", "c=d"];
    project.build(&built).ok();
    let before = fs::read_dir(project.state().join("layers")).map(Iterator::count).unwrap_or_default();
    verify(&project, &["app"]).fails(2).says("--build-arg TOKEN=VALUE");
    let answer = verify(&project, &["--build-arg", "TOKEN=hush", "--format=json", "app"]).ok();
    let told: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(
        (&told["is_reproducible"], &told["platforms"][0]["images"][0]),
        (&true.into(), &project.inspect("app")["Id"])
    );
    project.file("f", "y");
    let told = verify(&project, &["--build-arg", "TOKEN=hush", "app"]).fails(1).stdout;
    assert!(told.contains("/f: content") && told.contains("COPY f /"), "{told}");
    verify(&project, &["busybox:none"]).fails(2).says("no such image");
    assert!(before > 0, "layers are looked for in the wrong place");
    // What was made for comparison is in nobody's way.
    let listed = project.kiln(&["images", "-q"]).ok().stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
}
