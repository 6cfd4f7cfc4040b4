//! `kiln lock` and `kiln build --locked`.

use std::fs;

use kiln_testkit::{FileServer, GitServer, Registry, Repository};

use crate::project::{Project, Run};

/// A registry, a web server and a git server, with something of each.
struct Sources {
    registry: Registry,
    files: FileServer,
    git: GitServer,
    repository: Repository,
    pusher: Project,
}

impl Sources {
    fn start() -> Option<Self> {
        let (registry, files, git) = (Registry::start()?, FileServer::start(), GitServer::start());
        let repository = git.repository("app", &[("version", "git 1\n")]);
        let sources = Self { registry, files, git, repository, pusher: Project::new() };
        sources.publish("1");
        Some(sources)
    }

    fn image(&self) -> String {
        format!("{}/team/base:v1", self.registry.host())
    }

    fn publish(&self, version: &str) {
        let dockerfile = format!("FROM busybox\nRUN echo image {version} > /version\n");
        self.pusher.dockerfile(&dockerfile);
        let (name, context) = (self.image(), self.pusher.context());
        self.pusher.kiln(&["build", "-q", "-t", &name, "--push", context.to_str().unwrap()]).ok();
        self.files.put("/f", format!("web {version}\n"));
        self.repository.commit(&[("version", &format!("git {version}\n")), ("other", version)]);
    }

    fn dockerfile(&self) -> String {
        let url = format!("http://{}/f", self.files.host());
        format!(
            "# syntax=docker/dockerfile:1\nFROM {} AS base\nADD {url} /web\nADD {}#main /git/\n\
             RUN cat /version /web /git/version > /all\n",
            self.image(),
            self.git.url("app")
        )
    }

    fn asked(&self) -> usize {
        self.files.requests().len() + self.git.requests().len()
    }
}

fn lock(project: &Project, flags: &[&str]) -> Run {
    let context = project.context();
    project.kiln(&[&["lock", context.to_str().unwrap()], flags].concat())
}

fn all(project: &Project, flags: &[&str]) -> String {
    fs::read_to_string(project.tree(flags).join("all")).unwrap()
}

fn text(project: &Project) -> String {
    fs::read_to_string(project.context().join("kiln.lock")).unwrap()
}

#[test]
fn a_locked_build_takes_what_names_stood_for_until_the_lock_is_updated() {
    let Some(sources) = Sources::start() else { return };
    let project = Project::bare();
    project.dockerfile(&sources.dockerfile());
    let locked = lock(&project, &[]).ok().stdout;
    assert!(
        locked.contains("4 names are locked") && locked.contains(&format!("+ {}  sha256:", sources.image())),
        "{locked}"
    );
    let first = text(&project);
    assert!(first.contains("\"docker/dockerfile:1\": \"built in\"") && first.contains(" refs/heads/main\""), "{first}");
    let one = "image 1\nweb 1\ngit 1\n";
    assert_eq!(all(&project, &["--locked"]), one);
    sources.publish("2");
    let asked = sources.asked();
    assert_eq!(all(&project, &["--locked", "--no-cache"]), one);
    assert_eq!(sources.asked(), asked, "what is locked and here needs no server");
    assert_eq!(all(&project, &["--locked", "--offline", "--no-cache"]), one);
    assert_eq!(all(&project, &[]), "image 2\nweb 2\ngit 2\n", "a lock counts only when it is asked for");
    assert!(lock(&project, &[]).ok().stdout.contains("nothing changed"));
    assert_eq!(text(&project), first);
    // Only the image, then all.
    let changed = lock(&project, &["--update", &sources.image()]).ok().stdout;
    assert!(
        changed.contains(&format!("~ {}  sha256:", sources.image())) && changed.contains(", 1 changed"),
        "{changed}"
    );
    assert_eq!(all(&project, &["--locked"]), "image 2\nweb 1\ngit 1\n");
    let changed = lock(&project, &["--update"]).ok().stdout;
    assert!(changed.contains(" → ") && changed.contains(", 2 changed"), "{changed}");
    assert_eq!(all(&project, &["--locked"]), "image 2\nweb 2\ngit 2\n");
    lock(&project, &["--update", "busybux"]).fails(2).says("is not in the lock");
    // The lock serves a machine that has nothing, and a server that gives something else is found out.
    let other = Project::bare();
    other.dockerfile(&sources.dockerfile()).file("kiln.lock", text(&project));
    assert_eq!(all(&other, &["--locked"]), "image 2\nweb 2\ngit 2\n");
    sources.publish("3");
    let third = Project::bare();
    third.dockerfile(&sources.dockerfile()).file("kiln.lock", text(&project));
    third.build(&["--locked"]).fails(1).says("Dockerfile:3").says("kiln lock --update");
}

#[test]
fn what_is_not_locked_is_refused_before_anybody_is_asked() {
    let Some(sources) = Sources::start() else { return };
    let project = Project::bare();
    project.dockerfile(&sources.dockerfile());
    project.build(&["--locked"]).fails(1).says("there is no lock of this Dockerfile").says("`kiln lock`");
    lock(&project, &[]).ok();
    lock(&project, &["--check"]).ok();
    let url = sources.files.put("/g", "x");
    let git = sources.git.url("app");
    let more = format!(
        "FROM base\nADD {url} /g\nADD {git}#other /o\nCOPY --from=no.example/tool:1 /x /\nRUN --mount=from=no.example/m:1,target=/m x\n"
    );
    project.dockerfile(&format!("{}{more}", sources.dockerfile()));
    let asked = sources.asked();
    let context = format!("ctx={git}#third");
    let refused = project.build(&["--locked", "--build-context", &context]).fails(1).never_says("load metadata");
    refused
        .says("5 names of this build are not locked")
        .says(&format!("`{url}` is not in"))
        .says("Dockerfile:8")
        .says("`no.example/tool:1`")
        .says("`no.example/m:1`")
        .says("#third` is not in")
        .says("`kiln lock --update`");
    lock(&project, &["--check"]).fails(1).says("4 names of this build are not locked");
    assert_eq!(sources.asked(), asked);
    project.kiln(&["build", "--locked", &git]).fails(2).says("name a commit");
    // What says itself what it is needs no lock.
    let commit = sources.repository.git(&["rev-parse", "HEAD"]);
    project.dockerfile(&format!("{}ADD {git}#{commit} /pinned/\n", sources.dockerfile())).build(&["--locked"]).ok();
}

#[test]
fn all_stages_are_locked_with_their_arguments_and_each_dockerfile_by_itself() {
    let Some(sources) = Sources::start() else { return };
    let project = Project::bare();
    let base = sources.image();
    let (name, _) = base.rsplit_once(':').unwrap();
    project.dockerfile(&format!("ARG TAG\nFROM {name}:$TAG AS unused\nFROM scratch\nCOPY kiln.lock /\n"));
    project.file("x.Dockerfile", format!("FROM {base}\n"));
    lock(&project, &["--build-arg", "TAG=v1"]).ok();
    let other = project.context().join("x.Dockerfile");
    lock(&project, &["-f", other.to_str().unwrap()]).ok();
    let found: serde_json::Value = serde_json::from_str(&text(&project)).unwrap();
    for dockerfile in ["Dockerfile", "x.Dockerfile"] {
        let digest = found["dockerfiles"][dockerfile]["images"][&base].as_str().unwrap_or_default();
        assert!(digest.starts_with("sha256:"), "{found:#}");
    }
    project.build(&["--locked", "--target=unused", "--build-arg", "TAG=v1"]).ok();
    project.build(&["--locked", "--target=unused", "--build-arg", "TAG=v2"]).fails(1).says(":v2` is not in");
    let only = lock(&project, &["--target=1", "--build-arg", "TAG=v1"]).ok().stdout;
    assert!(only.contains("0 names are locked") && only.contains(&format!("- {base}")), "{only}");
}

/// Pushes images that differ by a word: of each name one, and `both` of two platforms.
fn publish_all(pusher: &Project, registry: &Registry, word: &str) {
    let push = |name: &str, args: &[&str]| {
        let (name, context) = (format!("{}/all/{name}:1", registry.host()), pusher.context());
        let flags = ["build", "-q", "-t", &name, "--push", context.to_str().unwrap()];
        pusher.kiln(&[&flags[..], args].concat()).ok();
    };
    for name in ["base", "copied", "mounted", "named"] {
        pusher.dockerfile(&format!("FROM busybox\nRUN echo {name} {word} >/is\n"));
        push(name, &[]);
    }
    for architecture in ["amd64", "arm64"] {
        pusher.file(architecture, format!("{architecture} {word}\n"));
    }
    pusher.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /is\n");
    push("both", &["--platform=linux/amd64,linux/arm64"]);
}

#[test]
fn images_are_locked_wherever_they_are_named_and_for_all_platforms() {
    let Some(registry) = Registry::start() else { return };
    let (pusher, project) = (Project::new(), Project::bare());
    publish_all(&pusher, &registry, "one");
    let host = registry.host();
    let dockerfile = format!(
        "FROM {host}/all/both:1 AS both\nFROM scratch AS other\nCOPY --from=both /is /both\n\
         FROM {host}/all/base:1\nCOPY --from={host}/all/copied:1 /is /copied\nCOPY --from=named /is /named\n\
         RUN --mount=from={host}/all/mounted:1,target=/m cat /is /copied /m/is /named >/all\n"
    );
    project.dockerfile(&dockerfile);
    let named = format!("named=docker-image://{host}/all/named:1");
    lock(&project, &["--build-context", &named]).ok();
    let found: serde_json::Value = serde_json::from_str(&text(&project)).unwrap();
    let images = found["dockerfiles"]["Dockerfile"]["images"].as_object().unwrap();
    let names: Vec<_> = images.keys().map(|name| name.strip_prefix(&host).unwrap()).collect();
    assert_eq!(names, ["/all/base:1", "/all/both:1", "/all/copied:1", "/all/mounted:1", "/all/named:1"]);
    publish_all(&pusher, &registry, "two");
    // A machine that has nothing takes what the lock says, for each platform.
    let other = Project::bare();
    other.dockerfile(&dockerfile).file("kiln.lock", text(&project));
    let flags = ["--locked", "--build-context", &named];
    assert_eq!(all(&other, &flags), "base one\ncopied one\nmounted one\nnamed one\n");
    for architecture in ["amd64", "arm64"] {
        let platform = format!("--platform=linux/{architecture}");
        let tree = other.tree(&["--locked", "--target=other", &platform, "--build-context", &named]);
        assert_eq!(fs::read_to_string(tree.join("both")).unwrap(), format!("{architecture} one\n"));
    }
    // Nobody is asked about a name that is not in it: here nobody would answer.
    drop(registry);
    let third = Project::bare();
    let more = format!("{dockerfile}COPY --from={host}/all/new:1 /is /new\n");
    third.dockerfile(&more).file("kiln.lock", text(&project));
    third
        .build(&flags)
        .fails(1)
        .says(&format!("image `{host}/all/new:1` is not in"))
        .says("Dockerfile:8")
        .never_says("load metadata");
}

#[test]
fn an_image_that_no_registry_has_is_locked_by_its_id() {
    let project = Project::new();
    project.dockerfile("FROM busybox\n");
    lock(&project, &[]).ok();
    let id = project.inspect("busybox")["Id"].as_str().unwrap().to_owned();
    assert!(text(&project).contains(&format!("\"busybox:latest\": \"{id}\"")));
    lock(&project, &["--update"]).ok();
    project.build(&["--locked", "--offline"]).ok();
    project.kiln(&["build", "-q", "-t", "busybox", "--label", "a=b", project.context().to_str().unwrap()]).ok();
    project.build(&["--locked", "--offline"]).fails(3).says("busybox:latest").says("Dockerfile:1");
}
