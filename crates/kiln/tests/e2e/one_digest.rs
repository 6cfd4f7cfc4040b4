//! One digest, whoever builds where and how: each way differs from the first in what must not count.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use kiln_testkit::skip;

use crate::project::{Project, Run, have, run};
use crate::reproducible::{busybox, digest};

/// Runs commands without a base image: the shell is mounted, so that its version is in no layer.
const DOCKERFILE: &str = "FROM scratch AS tools\nCOPY busybox /bin/busybox\n\
    FROM scratch AS made\nWORKDIR /w\nENV A=b\n\
    RUN --mount=type=bind,from=tools,source=/bin,target=/t [\"/t/busybox\", \"sh\", \"-c\", \"/t/busybox mkdir -p /out/d && \
    echo x >/out/d/f && /t/busybox ln /out/d/f /out/d/g && /t/busybox touch /out/d/now\"]\n\
    FROM made\nCOPY . /src/\nCOPY --from=made /out /copied\nCOPY --chown=7:8 --chmod=604 src/a /a\nADD src/run.sh /\n\
    HEALTHCHECK CMD true\nCMD [\"/a\"]\n";

/// One of several ways to have and build the same project.
#[derive(Clone)]
struct Way {
    names: Vec<&'static str>,
    umask: &'static str,
    zone: &'static str,
    language: &'static str,
    /// Steps at once, and threads.
    jobs: &'static str,
    directory: &'static str,
    mtime: u64,
    is_linked: bool,
    owner: u32,
    has_attributes: bool,
}

impl Way {
    fn first() -> Self {
        Self {
            names: vec!["src/a", "src/b", "src/run.sh", "src/deep/c"],
            umask: "022",
            zone: "UTC",
            language: "C",
            jobs: "1",
            directory: "one",
            mtime: 1_000_000_000,
            is_linked: false,
            owner: 0,
            has_attributes: false,
        }
    }

    /// Another in everything.
    fn last() -> Self {
        Self {
            names: Self::first().names.into_iter().rev().collect(),
            umask: "077",
            zone: "Asia/Tokyo",
            language: "tr_TR.UTF-8",
            jobs: "8",
            directory: "another/place",
            mtime: 1_700_000_000,
            is_linked: true,
            owner: 1234,
            has_attributes: true,
        }
    }
}

/// Ways that differ from the first in one thing each, and one in all.
fn ways() -> Vec<(&'static str, Way)> {
    let (first, last) = (Way::first, Way::last());
    vec![
        ("order", Way { names: last.names.clone(), ..first() }),
        ("umask", Way { umask: last.umask, ..first() }),
        ("zone", Way { zone: last.zone, language: last.language, ..first() }),
        ("two jobs", Way { jobs: "2", ..first() }),
        ("eight jobs", Way { jobs: last.jobs, ..first() }),
        ("directory", Way { directory: last.directory, ..first() }),
        ("time", Way { mtime: last.mtime, ..first() }),
        ("links", Way { is_linked: true, ..first() }),
        ("owner", Way { owner: last.owner, ..first() }),
        ("attributes", Way { has_attributes: true, ..first() }),
        ("all", last),
    ]
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
    for name in ["src/a", "src/deep", "src/link", "src/run.sh", "busybox"] {
        let path = context.join(name);
        lchown(&path, Some(way.owner), Some(way.owner)).unwrap();
        if way.has_attributes && name != "src/link" {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, "user.from", b"afar", flags).unwrap();
        }
    }
    context
}

/// A command that builds into a layout beside the context, in the way's surroundings.
fn command(project: &Project, way: &Way, args: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = format!("umask {}; exec \"$@\"", way.umask);
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "build", "--progress=plain", "--jobs", way.jobs]);
    command.arg("-o").arg(format!("type=oci,tar=false,dest={}", project.path().join("layout").display())).args(args);
    command.env_remove("SOURCE_DATE_EPOCH").env("TZ", way.zone).env("LANG", way.language).env("LC_ALL", way.language);
    command.env("RAYON_NUM_THREADS", way.jobs).current_dir(project.path()).stdin(Stdio::null());
    command
}

fn build(project: &Project, way: &Way, args: &[&str]) -> String {
    let context = lay_out(project, way);
    run(command(project, way, args).arg("--state").arg(project.state()).arg(context)).ok();
    digest(&project.path().join("layout"))
}

#[test]
fn one_digest_whoever_builds_where_and_when() {
    let of = |way: &Way, args: &[&str]| build(&Project::bare(), way, args);
    let first = of(&Way::first(), &["--reproducible"]);
    // What is made of whole seconds must not be the same by chance.
    std::thread::sleep(Duration::from_millis(1100));
    for (what, way) in ways() {
        assert_eq!(of(&way, &["--reproducible"]), first, "{what}");
    }
    let timed = ["--reproducible", "--source-date-epoch", "1234567890"];
    let [one, other] = [Way::first(), Way::last()].map(|way| of(&way, &timed));
    assert!(one == other && one != first, "the time is in it");
    // Each of these would be seen.
    let first = of(&Way::first(), &["--source-date-epoch=0"]);
    for (what, way) in ways() {
        if ["umask", "time", "attributes"].contains(&what) {
            assert_ne!(of(&way, &["--source-date-epoch=0"]), first, "{what}");
        }
    }
}

#[test]
fn one_digest_on_any_file_system() {
    let first = build(&Project::bare(), &Way::first(), &["--reproducible"]);
    for kind in ["tmpfs", "ext4", "btrfs", "xfs"] {
        let project = Project::bare();
        let Some(mount) = file_system(&project, kind) else { continue };
        let context = lay_out(&project, &Way::first());
        // Mounted where nobody else sees it, and gone with the last process.
        let script = format!("set -e; {mount} || exit 77; cp -a \"$CONTEXT\" mnt/context; exec \"$@\"");
        let build = command(&project, &Way::first(), &["--reproducible", "--state=mnt/state", "mnt/context"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", &script, "sh"]).arg(build.get_program()).args(build.get_args());
        command.env("CONTEXT", context).env_remove("SOURCE_DATE_EPOCH").current_dir(project.path());
        let built = run(command.stdin(Stdio::null()));
        if built.code == 77 {
            skip(&format!("{kind} cannot be mounted: {}", built.stderr.trim()));
            continue;
        }
        built.ok();
        assert_eq!(digest(&project.path().join("layout")), first, "{kind}");
    }
}

/// The command that mounts a new file system at `mnt`.
fn file_system(project: &Project, kind: &str) -> Option<String> {
    fs::create_dir(project.path().join("mnt")).unwrap();
    if kind == "tmpfs" {
        return Some("mount -t tmpfs tmpfs mnt".to_owned());
    }
    let make = format!("mkfs.{kind}");
    if !have(&make) {
        return None;
    }
    let image = project.path().join("image");
    fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    run(Command::new(make).arg("-q").arg(&image)).ok();
    Some("mount -o loop image mnt".to_owned())
}

#[test]
fn one_digest_from_any_cache() {
    let way = Way::first();
    let project = Project::bare();
    let context = lay_out(&project, &way);
    let cache = project.path().join("cache").display().to_string();
    let (to, from) =
        (format!("--cache-to=type=local,mode=max,dest={cache}"), format!("--cache-from=type=local,src={cache}"));
    let build = |project: &Project, args: &[&str]| -> (Run, String) {
        let _ = fs::remove_dir_all(project.path().join("layout"));
        let built = run(command(project, &way, args).arg("--state").arg(project.state()).arg(&context)).ok();
        (built, digest(&project.path().join("layout")))
    };
    let (_, first) = build(&project, &["--reproducible", &to]);
    let (warm, again) = build(&project, &["--reproducible"]);
    assert!(warm.cached() > 3 && again == first, "{}", warm.stderr);
    assert_eq!(build(&project, &["--reproducible", "--no-cache"]).1, first, "without cache");
    let other = Project::bare();
    let (imported, of_cache) = build(&other, &["--reproducible", &from]);
    assert!(imported.cached() > 3 && of_cache == first, "{}", imported.stderr);
    // After a build in which all counts, some steps are there already.
    let third = Project::bare();
    assert_ne!(build(&third, &[]).1, first, "times count");
    assert_eq!(build(&third, &["--reproducible"]).1, first, "after another build");
}

#[test]
fn a_checkout_has_the_time_of_its_commit() {
    let project = Project::bare();
    let server = kiln_testkit::GitServer::start();
    let files = [
        ("Dockerfile", "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL at=$SOURCE_DATE_EPOCH\nCOPY f /\n"),
        ("f", "x"),
        ("in/Dockerfile", "FROM scratch\n"),
        (".gitignore", "out\n"),
    ];
    let repository = server.repository("app.git", &files);
    let time = repository.git(&["log", "-1", "--format=%ct"]).trim().to_owned();
    let checkout = project.path().join("checkout");
    run(Command::new("git").args(["clone", "-q", "--depth=1", &server.url("app.git")]).arg(&checkout)).ok();
    // Whose it is does not matter.
    run(Command::new("chown").args(["-R", "1234:1234"]).arg(&checkout)).ok();
    let layout = project.path().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let built = |args: &[&str]| {
        let _ = fs::remove_dir_all(&layout);
        project
            .kiln(&[&["build", "--progress=plain", "-t", "app", "-o", &output, "-o", "type=image"], args].concat())
            .ok();
        let label = project.inspect("app")["Config"]["Labels"]["at"].as_str().map(str::to_owned);
        (label, digest(&layout))
    };
    let here = checkout.to_str().unwrap();
    let (label, first) = built(&["--reproducible", here]);
    assert_eq!(label.as_ref(), Some(&time));
    assert_eq!(built(&["--reproducible", &server.url("app.git")]).1, first, "as from its server");
    assert_eq!(built(&["--build-arg", "SOURCE_DATE_EPOCH=context", here]).0.as_ref(), Some(&time));
    fs::write(checkout.join("f"), "changed").unwrap();
    assert_eq!(built(&["--reproducible", here]).0.as_ref(), Some(&time), "of what is checked out, changed or not");
    // What is in no commit has no time.
    fs::create_dir(checkout.join("out")).unwrap();
    for name in ["Dockerfile", "f"] {
        fs::copy(checkout.join(name), checkout.join("out").join(name)).unwrap();
    }
    let out = checkout.join("out");
    assert_eq!(built(&["--reproducible", out.to_str().unwrap()]).0.as_deref(), Some("0"));
    let clock =
        project.kiln(&["build", "--progress=plain", "--build-arg", "SOURCE_DATE_EPOCH=context", out.to_str().unwrap()]);
    clock.ok().says("`SOURCE_DATE_EPOCH=context` names nothing that has a time");
    // A named context, of a directory and of a server.
    for place in [here.to_owned(), server.url("app.git")] {
        let named = format!("src={place}");
        let (label, _) =
            built(&["--build-arg", "SOURCE_DATE_EPOCH=src", "--build-context", &named, out.to_str().unwrap()]);
        assert_eq!(label.as_ref(), Some(&time), "{place}");
    }
}

#[test]
fn a_checkout_that_is_asked_for_its_time_starts_nothing() {
    let project = Project::bare();
    let server = kiln_testkit::GitServer::start();
    server.repository("app.git", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let (checkout, marker) = (project.path().join("checkout"), project.path().join("marker"));
    run(Command::new("git").args(["clone", "-q", &server.url("app.git")]).arg(&checkout)).ok();
    let script = project.path().join("script");
    fs::write(&script, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let (program, alias) = (script.display().to_string(), format!("!{}", script.display()));
    let transport = format!("ext::{program}");
    let set = |name: &str, value: &str| {
        drop(run(Command::new("git").arg("-C").arg(&checkout).args(["config", name, value])).ok())
    };
    for name in ["core.fsmonitor", "core.pager", "core.sshCommand", "gpg.program", "core.alternateRefsCommand"] {
        set(name, &program);
    }
    for (name, value) in [
        ("log.showSignature", "true"),
        ("alias.cat-file", &alias),
        ("remote.origin.url", &transport),
        ("remote.origin.promisor", "true"),
        ("extensions.partialClone", "origin"),
        ("core.repositoryFormatVersion", "1"),
    ] {
        set(name, value);
    }
    let build = || project.kiln(&["build", "-q", "-t", "app", "--reproducible", checkout.to_str().unwrap()]).ok();
    build();
    assert_ne!(project.inspect("app")["Created"], "1970-01-01T00:00:00Z");
    // What is missing is not fetched, either.
    let objects = checkout.join(".git/objects");
    fs::remove_dir_all(&objects).unwrap();
    fs::create_dir(&objects).unwrap();
    build();
    assert_eq!(project.inspect("app")["Created"], "1970-01-01T00:00:00Z");
    assert!(!marker.exists());
}

#[test]
fn a_wrong_time_is_told_with_where_it_is_from() {
    let project = Project::bare();
    project.dockerfile("FROM scratch AS base\nLABEL a=b\n");
    let build = |value: &str| {
        let mut command = project.command();
        run(command.args(["build", "--progress=plain", "context"]).env("SOURCE_DATE_EPOCH", value))
    };
    for value in ["noon", "1.5", " 5", "99999999999999999999", "999999999999999"] {
        let told = format!("`SOURCE_DATE_EPOCH={value}` of a build argument or the environment is no time");
        build(value).fails(1).says(&told);
    }
    build("base").fails(1).says("takes the time of a stage").says("Dockerfile:1");
    project.dockerfile("# a comment\nARG SOURCE_DATE_EPOCH=noon\nFROM scratch\nLABEL a=b\n");
    project.build(&[]).fails(1).says("`SOURCE_DATE_EPOCH=noon` is no time").says("Dockerfile:2");
}
