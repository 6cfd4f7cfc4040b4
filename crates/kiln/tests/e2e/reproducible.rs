//! The same image again: by other hands, in other places, at other times.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::project::{Project, Run, have, run};

/// Brings the machine's static shell.
pub(crate) fn busybox(to: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox-static is installed"), to).unwrap();
}

/// The digest of the manifest in a layout directory.
pub(crate) fn digest(layout: &Path) -> String {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
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
fn names_and_contents_tell_the_cause() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN mkdir -p /app/__pycache__ /var/log && cat /proc/sys/kernel/random/uuid >/app/__pycache__/m.cpython-311.pyc && \\\n\
         cat /proc/uptime >/var/log/made && seq 100 | shuf >/app/list && date +%s >/app/when\n",
    );
    let told = verify(&project, &["--reproducible", "context"]).fails(1).stdout;
    for (file, cause) in [
        ("/app/__pycache__/m.cpython-311.pyc: ", "compiled Python with the time of its source"),
        ("/app/list: ", "the same lines in another order"),
        ("/app/when: ", "a time written into it"),
        ("/var/log/made: ", "a log"),
    ] {
        let line = told.lines().find(|line| line.starts_with(file)).unwrap_or_else(|| panic!("{file} {told}"));
        assert!(line.contains("line 2") && line.ends_with(cause), "{line}");
    }
    assert_eq!(told.lines().filter(|line| line.starts_with("hint: ")).count(), 4, "{told}");
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

#[test]
fn what_an_image_was_built_from_and_is_not_there_any_more_is_told() {
    let project = Project::new();
    project.file("f", "x").dockerfile("FROM busybox\nCOPY f /\n").build(&["--reproducible"]).ok();
    verify(&project, &["app"]).ok();
    project.dockerfile("FROM busybox\nCOPY f /\nLABEL a=b\n");
    let told = verify(&project, &["app"]).fails(1).stdout;
    assert!(told.contains("note: the Dockerfile has changed since the image was built"), "{told}");
    project.dockerfile("FROM busybox\nCOPY f /\n");
    project.file("f", "y");
    let told = verify(&project, &["app"]).fails(1).stdout;
    assert!(told.contains("/f: content") && told.contains("the context has another file now"), "{told}");
    fs::remove_file(project.context().join("f")).unwrap();
    verify(&project, &["app"]).fails(2).says("cannot copy `f`: it is not in the build context");
    project.file("f", "x");
    // The base under its name is another one now.
    project.kiln(&["tag", "app", "busybox"]).ok();
    let told = verify(&project, &["app"]).fails(1).stdout;
    assert!(told.contains("note: `docker.io/library/busybox:latest` has other layers than"), "{told}");
    project.kiln(&["rmi", "busybox"]).ok();
    let offline = ["--offline", "app"];
    verify(&project, &offline).fails(3).says("Dockerfile:1").says("busybox");
    let moved = project.path().join("moved");
    fs::rename(project.context(), &moved).unwrap();
    verify(&project, &["app"]).fails(2).says("cannot open the build context");
    // One that nobody built here.
    fs::rename(moved, project.context()).unwrap();
    let archive = project.path().join("app.tar");
    project.kiln(&["save", "-o", archive.to_str().unwrap(), "app"]).ok();
    let elsewhere = Project::bare();
    let place = format!("docker-archive:{}", archive.display());
    verify(&elsewhere, &[&place]).fails(2).says("no build is recorded that made");
}

#[test]
fn what_was_lent_to_a_build_is_lent_again() {
    let project = Project::new();
    project.file("token", "hush");
    let mount = "RUN --mount=type=secret,id=t,required test -s /run/secrets/t && echo x >/made\n";
    project.dockerfile(&format!("FROM busybox\n{mount}"));
    let secret = format!("id=t,src={}", project.context().join("token").display());
    project.build(&["--reproducible", "--secret", &secret]).ok();
    verify(&project, &["app"])
        .fails(2)
        .says("secret `t` was not given")
        .says("Dockerfile:2")
        .says("--secret id=t,src=FILE");
    verify(&project, &["--secret", &secret, "app"]).ok();
    if !have("ssh-keygen") {
        return;
    }
    project.dockerfile("FROM busybox\nRUN --mount=type=ssh,required echo x >/made\n");
    let key = project.path().join("key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
    let lent = format!("default={}", key.display());
    project.build(&["--reproducible", "--ssh", &lent]).ok();
    verify(&project, &["app"]).fails(2).says("ssh agent `default` was not given").says("--ssh default");
    verify(&project, &["--ssh", &lent, "app"]).ok();
}
