//! What the command line of a build means.

use std::ffi::OsString;

use kiln_engine::Daemon;

use super::*;
use crate::args::{Command, parse};

fn plan_in(environment: Environment, line: &str) -> Result<BuildPlan, String> {
    let typed = std::iter::once("kiln build").chain(Some(line)).flat_map(|part| part.split(' ')).map(OsString::from);
    match parse(typed.collect()).map_err(|e| e.to_string())?.command {
        Command::Build(args) => args.plan(&environment).map_err(|failure| failure.to_string()),
        other => panic!("{other:?}"),
    }
}

fn plan(line: &str) -> BuildPlan {
    plan_in(Environment::default(), line).unwrap()
}

fn refusal(line: &str) -> String {
    plan_in(Environment::default(), line).unwrap_err()
}

#[test]
fn a_plain_build_asks_for_little() {
    let plan = plan("-t app .");
    assert_eq!(plan.request.tags[0].to_string(), "docker.io/library/app:latest");
    assert!(matches!(plan.request.context, Context::Dir(dir) if dir == Path::new(".")));
    assert!(matches!(plan.request.dockerfile, DockerfileSource::Default));
    assert!(plan.request.outputs.is_empty() && plan.request.build_args.is_empty());
    assert_eq!(plan.progress, Choice::Auto);
}

#[test]
fn the_dockerfile_is_where_docker_looks_for_it() {
    assert!(matches!(plan("-f a/D .").request.dockerfile, DockerfileSource::Path(path) if path == Path::new("a/D")));
    assert!(matches!(plan("-f a/D -").request.dockerfile, DockerfileSource::InContext(path) if path == "a/D"));
    assert!(plan("-f - .").is_dockerfile_on_stdin);
    assert!(matches!(plan("-f a -f b .").request.dockerfile, DockerfileSource::Several(all) if all.len() == 2));
    assert_eq!(refusal("-f a -f - ."), "of several Dockerfiles none can be standard input");
    assert_eq!(refusal("-f - -"), "standard input cannot be both the context and the Dockerfile");
}

#[test]
fn the_number_of_jobs_is_typed_or_of_the_environment() {
    let jobs = |environment, line| plan_in(environment, line).map(|plan| plan.request.jobs.map(NonZero::get));
    let three = || Environment::from([("KILN_JOBS", "3")]);
    assert_eq!(jobs(Environment::default(), "."), Ok(None));
    assert_eq!(jobs(three(), "."), Ok(Some(3)));
    assert_eq!(jobs(three(), "--jobs 1 ."), Ok(Some(1)));
    assert_eq!(jobs(three(), "--jobs 0 ."), Ok(Some(usize::MAX)));
    let many = Environment::from([("KILN_JOBS", "many")]);
    let wrong = "`KILN_JOBS`: expected a number of steps, or 0 for as many as there are";
    assert_eq!(jobs(many, "."), Err(wrong.to_owned()));
    assert!(refusal("--jobs=-1 .").contains("expected a number of steps"));
}

#[test]
fn build_arguments_without_a_value_come_from_the_environment() {
    let environment = || Environment::from([("A", "from env"), ("EMPTY", ""), ("SOURCE_DATE_EPOCH", "12")]);
    let request =
        plan_in(environment(), "--build-arg A --build-arg B=x=y --build-arg C --build-arg EMPTY .").unwrap().request;
    let args: Vec<_> = request.build_args.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(args, [("A", "from env"), ("B", "x=y"), ("EMPTY", ""), ("SOURCE_DATE_EPOCH", "12")]);
    assert_eq!(request.source_date_epoch, Some(12));
    let request = plan_in(environment(), "--build-arg SOURCE_DATE_EPOCH=7 .").unwrap().request;
    assert_eq!(request.source_date_epoch, Some(7));
}

#[test]
fn a_time_for_all_is_said_in_many_ways() {
    let environment = || Environment::from([("SOURCE_DATE_EPOCH", "12")]);
    let of = |line: &str| {
        let request = plan_in(environment(), line).unwrap().request;
        (request.source_date_epoch, request.build_args["SOURCE_DATE_EPOCH"].clone(), request.rewrite)
    };
    let said = |epoch, arg: &str, rewrite| (Some(epoch), arg.to_owned(), rewrite);
    assert_eq!(of("."), said(12, "12", Rewrite::Never));
    assert_eq!(of("--source-date-epoch=-7 --rewrite-timestamp ."), said(-7, "-7", Rewrite::NotAfter));
    assert_eq!(of("--timestamp 7 ."), said(7, "7", Rewrite::Exactly));
    // An output's is not for steps.
    let output = "-o type=oci,dest=x,source-date-epoch=9,rewrite-timestamp=true -o type=tar,dest=y .";
    assert_eq!(of(output), said(9, "12", Rewrite::NotAfter));
    assert_eq!(
        refusal("-o type=oci,dest=x,source-date-epoch=9 -o type=tar,dest=y,source-date-epoch=8 ."),
        "outputs of one build want different times"
    );
    let context = plan("--build-arg SOURCE_DATE_EPOCH=context --reproducible .").request;
    assert_eq!((context.source_date_epoch, context.reproducible), (None, true));
}

#[test]
fn named_contexts_have_five_forms() {
    let of = |place: &str| plan(&format!("--build-context Base={place} .")).request.contexts.remove("base").unwrap();
    assert!(matches!(of("../x"), NamedContext::Dir(path) if path == Path::new("../x")));
    assert!(matches!(of("docker-image://a:1"), NamedContext::Image(image) if image == "a:1"));
    for (text, wanted) in
        [("d", None), ("d:v1", Some("v1")), ("d@sha256:0", Some("sha256:0")), ("d:v1@sha256:0", Some("sha256:0"))]
    {
        let NamedContext::OciLayout { path, reference } = of(&format!("oci-layout://{text}")) else {
            panic!("a layout")
        };
        assert_eq!((path.as_path(), reference.as_deref()), (Path::new("d"), wanted));
    }
    assert!(refusal("--build-context base=docker-image://A:1 .").contains("is not an image reference"));
    assert!(matches!(of("https://x/y.git"), NamedContext::Remote(url) if url == "https://x/y.git"));
    assert!(matches!(of("target:x"), NamedContext::Stage(stage) if stage == "x"));
    assert!(refusal("--build-context base .").contains("expected `name=path`"));
}

#[test]
fn pull_is_a_switch_a_word_of_podman_s_or_one_of_buildah_s() {
    for (flags, wanted) in [
        ("", Pull::Missing),
        ("--pull", Pull::Always),
        ("--pull=true", Pull::Always),
        ("--pull=false", Pull::Missing),
        ("--pull=ifmissing", Pull::Missing),
        ("--pull=ifnewer", Pull::Newer),
        ("--pull=never", Pull::Never),
    ] {
        assert_eq!(plan(format!("{flags} .").trim_start()).request.pull, wanted, "{flags}");
    }
    assert!(refusal("--pull=nver .").contains("did you mean `never`?"));
}

#[test]
fn push_and_load_are_about_the_image() {
    assert!(matches!(plan("--push -t a .").request.outputs[..], [Output::Image { push: true, store: true, .. }]));
    assert!(matches!(plan("--load -t a .").request.outputs[..], [Output::Load { into: None, .. }]));
    let podman = plan("--load=podman -o type=docker -t a .").request.outputs;
    assert!(matches!(podman[..], [Output::Load { into: Some(Daemon::Podman), .. }]));
    assert!(plan("--load=false .").request.outputs.is_empty());
    let both = plan("--push -o type=image,store=false -o out -t a .").request.outputs;
    assert!(matches!(both[..], [Output::Image { push: true, store: false, .. }, Output::Local { .. }]));
    assert_eq!(refusal("--push ."), "the image has no name to push it to");
    assert_eq!(refusal("-o - -o type=oci ."), "two outputs go to standard output");
}

#[test]
fn the_view_is_chosen_by_flag_then_environment() {
    let choice = |line| plan_in(Environment::from([("BUILDKIT_PROGRESS", "plain")]), line).unwrap().progress;
    assert_eq!([choice("."), choice("--progress=tty ."), choice("-q .")], [Choice::Plain, Choice::Tty, Choice::Quiet]);
    let wrong = plan_in(Environment::from([("BUILDKIT_PROGRESS", "pretty")]), ".").unwrap_err();
    assert!(wrong.starts_with("`BUILDKIT_PROGRESS`: "), "{wrong}");
}

#[test]
fn platforms_come_from_the_flag_or_docker_s_default() {
    let of = |line| {
        plan_in(Environment::from([("DOCKER_DEFAULT_PLATFORM", "linux/arm64")]), line).unwrap().request.platforms
    };
    assert_eq!(of("."), [Platform::linux("arm64")]);
    assert_eq!(of("--platform linux/amd64,linux/s390x .").len(), 2);
    assert!(refusal("--platform linux/ .").contains("is not a platform"));
}

#[test]
fn contexts_may_be_elsewhere() {
    let of = |line: &str| plan(line).request;
    let request = of("-f build/Dockerfile https://github.com/a/b.git#v1:dir");
    assert!(matches!(request.context, Context::Remote(url) if url == "https://github.com/a/b.git#v1:dir"));
    assert!(matches!(request.dockerfile, DockerfileSource::InContext(name) if name == "build/Dockerfile"));
    assert!(matches!(of("github.com/a/b").context, Context::Remote(_)));
    assert!(matches!(of("./github.com/a/b").context, Context::Dir(_)));
}

#[test]
fn what_kiln_lacks_is_refused_by_name() {
    for (line, name) in
        [("--squash .", "--squash"), ("--provenance=mode=max .", "--provenance"), ("--sbom=true .", "--sbom")]
    {
        assert_eq!(refusal(line), format!("`{name}` is not supported yet"), "{line}");
    }
    plan("--provenance=false --sbom=false --builder default --rm --force-rm --squash=false .");
}

#[test]
fn secrets_are_found_before_the_build_begins() {
    let plan = plan_in(Environment::from([("T", "x")]), "--secret id=a,env=T --secret id=b,src=f .").unwrap();
    assert_eq!(plan.secrets.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(refusal("--secret id=a,env=T ."), "cannot lend a secret: the environment has no variable `T`");
}

#[test]
fn a_new_image_has_no_digest_yet() {
    let pinned = format!("-t a@sha256:{} .", "0".repeat(64));
    assert!(refusal(&pinned).contains("cannot name a new image"));
}

#[test]
fn what_steps_may_take_is_said_as_to_docker() {
    let resources = plan("-m 1g --memory-swap -1 -c 512 --cpu-quota 5000 --cpuset-cpus 0-1 .").request.resources;
    assert_eq!((resources.memory, resources.memory_and_swap), (Some(1 << 30), Some(-1)));
    assert_eq!(
        (resources.cpu_shares, resources.cpu_quota, resources.cpus.as_deref()),
        (Some(512), Some(5000), Some("0-1"))
    );
}
