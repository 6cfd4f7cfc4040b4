//! `kiln build`: what was typed, and the request it makes. Reads no file and no stream.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kiln_dockerfile::is_remote_context;
use kiln_engine::{
    BuildRequest, Context, DockerfileSource, Entitlement, ImageOptions, Isolation, NamedContext, NetworkMode, Output,
    Pull, Rewrite, Ulimit, UserIds,
};
use kiln_oci::{Platform, Reference};
use kiln_report::Failure;

use super::allow::{self, Allowed};
use super::annotation::{self, Annotations};
use super::cache::{self, CacheFromArg, CacheToArg};
use super::call::{Call, CallKind};
use super::later::{Flag, Later, Table, Takes, not_yet};
use super::output::{Load, OutputArg, OutputTimes};
use super::patience::PatienceArgs;
use super::resources::StepResourceArgs;
use super::secret::{SecretArg, SecretSource};
use super::ssh::SshArg;
use super::value::{self, Wrong, usage};
use super::{Environment, output};
use crate::setting::Network;
use crate::ui::progress::Choice;

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Directory with the files the Dockerfile names; `-` reads a tar or a Dockerfile from standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,

    /// Name of the image, as `name:tag`; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<Reference>,

    /// Dockerfile [default: Containerfile or Dockerfile of CONTEXT]; `-` reads it from standard input; a URL is fetched;
    /// several are read as one; one that ends in `.in` goes through cpp
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,

    /// Ignore file [default: the Dockerfile's own, else .containerignore or .dockerignore of CONTEXT]
    #[arg(long, value_name = "FILE")]
    pub(crate) ignorefile: Option<PathBuf>,

    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = value::pair)]
    pub(crate) build_arg: Vec<(String, Option<String>)>,

    /// Lend a secret to the steps that mount it: id=ID[,src=PATH|env=NAME]
    #[arg(long, value_name = "SECRET", value_parser = SecretArg::parse)]
    pub(crate) secret: Vec<SecretArg>,

    /// Accept that what is lent by this ID is in the image; without it the build fails
    #[arg(long, value_name = "ID")]
    pub(crate) allow_leak: Vec<String>,

    /// Lend an ssh agent or keys to the steps that mount it: default, or ID[=SOCKET|KEY[,KEY]]
    #[arg(long, value_name = "SSH", value_parser = SshArg::parse)]
    pub(crate) ssh: Vec<SshArg>,

    /// Allow more than usual: network.host, security.insecure, device[=NAME] or buildx.local.delete
    #[arg(long, value_name = "WHAT", value_parser = allow::parse)]
    pub(crate) allow: Vec<Allowed>,

    /// Use another context or image where the Dockerfile says NAME: a path, a URL, docker-image://…, oci-layout://…, or
    /// target:STAGE of the Dockerfile
    #[arg(long, value_name = "NAME=WHERE", value_parser = named_context)]
    pub(crate) build_context: Vec<(String, NamedContext)>,

    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::pair)]
    pub(crate) label: Vec<(String, Option<String>)>,

    /// Platform to build for, as linux/amd64; several are separated by commas
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<Platform>,

    /// Where the result goes [default: type=image]: PATH, `-`, or type=image|registry|oci|docker|tar|local|cacheonly,…
    #[arg(short, long, value_name = "OUTPUT", value_parser = output::arg)]
    pub(crate) output: Vec<OutputArg>,

    /// Push the image to the registry of its name
    #[arg(long)]
    pub(crate) push: bool,

    /// Load the image into docker, podman or containerd, too: the one that is named, or the first that is there
    #[arg(
        long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = output::load
    )]
    pub(crate) load: Option<Load>,

    /// Annotate the image, as manifest:KEY=VALUE or index:KEY=VALUE
    #[arg(long, value_name = "ANNOTATION", value_parser = annotation::parse)]
    pub(crate) annotation: Vec<Annotations>,

    /// Take results from another cache: a name, or type=registry|local|s3|azblob|gha,…; may be repeated
    #[arg(long, value_name = "CACHE", value_parser = cache::from)]
    pub(crate) cache_from: Vec<CacheFromArg>,

    /// Write results to a cache for others: a name, or type=inline|registry|local|s3|azblob|gha,…; may be repeated
    #[arg(long, value_name = "CACHE", value_parser = cache::to)]
    pub(crate) cache_to: Vec<CacheToArg>,

    /// Let the image depend on nothing but the Dockerfile, the context and the base
    #[arg(long)]
    pub(crate) reproducible: bool,

    /// The time that stands for all others, in seconds since 1970
    #[arg(long, value_name = "SECONDS", value_parser = output::epoch, allow_hyphen_values = true)]
    pub(crate) source_date_epoch: Option<i64>,

    /// Make newer files of new layers as old as that time
    #[arg(long)]
    pub(crate) rewrite_timestamp: bool,

    /// As --source-date-epoch, for all files of new layers, too
    #[arg(
        long, value_name = "SECONDS", value_parser = output::epoch, allow_hyphen_values = true,
        conflicts_with_all = ["source_date_epoch", "rewrite_timestamp"]
    )]
    pub(crate) timestamp: Option<i64>,

    /// Use no cached results
    #[arg(long)]
    pub(crate) no_cache: bool,

    /// Use no cached results of these stages; several are separated by commas
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,

    /// Run at most so many steps at once, 0 for as many as there are [default: one per core and at least 4, fewer while
    /// memory is short]
    #[arg(long, value_name = "N", value_parser = value::jobs)]
    pub(crate) jobs: Option<NonZero<usize>>,

    /// When to ask registries for base images: missing, always, newer or never [default: missing; --pull alone: always]
    #[arg(
        long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always",
        value_parser = pull
    )]
    pub(crate) pull: Option<Pull>,

    /// Ask nothing of the network: use what is here, and say what is not
    #[arg(long)]
    pub(crate) offline: bool,

    /// Take images, files and repositories as `kiln.lock` beside the Dockerfile says, and nothing that is not in it
    #[arg(long)]
    pub(crate) locked: bool,

    /// Network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE", value_parser = network, default_value = "default")]
    pub(crate) network: NetworkMode,

    /// Add a line to /etc/hosts of RUN steps
    #[arg(long, value_name = "NAME:IP", value_parser = value::host)]
    pub(crate) add_host: Vec<(String, String)>,

    /// User ids of RUN steps: default, their own; or host, which lets them make device nodes
    #[arg(long, value_name = "MODE", value_parser = userns, default_value = "default")]
    pub(crate) userns: UserIds,

    /// What keeps RUN steps apart from this machine: default (also: oci, rootless), namespaces; or chroot, next to nothing, for
    /// containers that allow no namespaces [env: KILN_ISOLATION]
    #[arg(long, value_name = "MODE", value_parser = value::isolation)]
    pub(crate) isolation: Option<Isolation>,

    /// Have programs in RUN steps trust the certificates of a file, too; nothing of it is in the image
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Vec<PathBuf>,

    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    pub(crate) shm_size: Option<u64>,

    /// Limit a resource of RUN steps, as nofile=1024:2048
    #[arg(long, value_name = "LIMIT", value_parser = value::ulimit)]
    pub(crate) ulimit: Vec<Ulimit>,

    /// What to do when a RUN step fails: stop, or open a shell in it before that
    #[arg(long, value_name = "WHAT", default_value = "stop", hide_possible_values = true)]
    pub(crate) on_failure: OnFailure,

    /// What is opened then, if not a shell: of `buildx debug`.
    #[arg(skip)]
    pub(crate) invoke: Option<String>,

    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Print nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW")]
    pub(crate) progress: Option<Choice>,

    /// Build nothing, but check the Dockerfile, as --call=check does
    #[arg(long)]
    check: bool,

    /// Build nothing, but answer: check, outline, targets or subrequests.describe; with `,format=json` as JSON
    #[arg(long, value_name = "WHAT")]
    call: Option<Call>,

    /// Build nothing, but say which steps would run and why; `=json` says it as JSON
    #[arg(
        long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text",
        value_parser = dry_run
    )]
    pub(crate) dry_run: Option<DryRun>,

    #[arg(long, hide = true)]
    provenance: Option<String>,

    #[arg(long, hide = true)]
    sbom: Option<String>,

    #[command(flatten, next_help_heading = "Limits of each RUN step")]
    resources: StepResourceArgs,

    #[command(flatten)]
    patience: PatienceArgs,

    #[command(flatten)]
    later: Later<BuildTable>,
}

#[derive(Debug)]
pub(crate) struct BuildTable;

impl Table for BuildTable {
    // tidy: table
    const REFUSED: &'static [Flag] = &[
        ("attest", None, Takes::Value),
        ("policy", None, Takes::Value),
        ("security-opt", None, Takes::Value),
        ("squash", None, Takes::Nothing),
    ];
    const HARMLESS: &'static [Flag] = &[
        ("builder", None, Takes::Value),
        ("compress", None, Takes::Nothing),
        ("disable-content-trust", None, Takes::Nothing),
        ("force-rm", None, Takes::Nothing),
        ("rm", None, Takes::Nothing),
    ];
}

/// The build argument that says which time stands for all.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What the command line of a build means.
#[derive(Debug)]
pub(crate) struct BuildPlan {
    /// The request. When the context is standard input, it is `Context::Stdin` until its first bytes are seen.
    pub(crate) request: BuildRequest,
    /// Whether the Dockerfile's text has to be read from standard input.
    pub(crate) is_dockerfile_on_stdin: bool,
    /// The secrets it may lend.
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// The paths of the agents for ssh it may lend.
    pub(crate) agents: BTreeMap<String, Vec<PathBuf>>,
    /// How progress is shown.
    pub(crate) progress: Choice,
    /// Whether outputs may delete files wherever they are.
    pub(crate) may_delete: bool,
}

/// Options that say where results go and what is told of them; they mean nothing where results are only compared.
pub(crate) const OF_RESULTS: [&str; 11] = [
    "--tag",
    "--output",
    "--push",
    "--load",
    "--iidfile",
    "--metadata-file",
    "--quiet",
    "--check",
    "--call",
    "--dry-run",
    "--on-failure",
];

impl BuildArgs {
    /// The first of `OF_RESULTS` that was typed.
    pub(crate) fn of_results(&self) -> Option<&'static str> {
        let typed = [
            !self.tag.is_empty(),
            !self.output.is_empty(),
            self.push,
            self.load.is_some(),
            self.iidfile.is_some(),
            self.metadata_file.is_some(),
            self.quiet,
            self.check,
            self.call.is_some(),
            self.dry_run.is_some(),
            self.on_failure != OnFailure::Stop,
        ];
        OF_RESULTS.into_iter().zip(typed).find_map(|(name, is_typed)| is_typed.then_some(name))
    }

    /// Whether the context or the Dockerfile is standard input.
    pub(crate) fn reads_stdin(&self) -> bool {
        self.context == "-" || self.file.iter().any(|path| path == Path::new("-"))
    }

    /// Says what was meant.
    pub(crate) fn plan(&self, environment: &Environment) -> Result<BuildPlan, Failure> {
        self.refuse_what_is_not_there()?;
        let context = context(&self.context)?;
        let is_dockerfile_on_stdin = self.file.iter().any(|path| path == Path::new("-"));
        if is_dockerfile_on_stdin && self.file.len() > 1 {
            return Err(usage("of several Dockerfiles none can be standard input"));
        }
        if is_dockerfile_on_stdin && matches!(context, Context::Stdin) {
            return Err(usage("standard input cannot be both the context and the Dockerfile"));
        }
        let build_args = self.build_args(environment);
        let times = self.times()?;
        let cache_from = self.cache_from.iter().map(|from| from.clone().resolve(environment));
        let cache_from = cache_from.collect::<Result<Vec<_>, _>>();
        let cache_from = cache_from.map_err(|Wrong(why)| usage(format!("cannot use `--cache-from`: {why}")))?;
        let cache_to = self.cache_to.iter().map(|to| to.clone().resolve(environment)).collect::<Result<Vec<_>, _>>();
        let cache_to = cache_to.map_err(|Wrong(why)| usage(format!("cannot use `--cache-to`: {why}")))?;
        let request = BuildRequest {
            dockerfile: self.dockerfile(&context)?,
            context,
            ignorefile: self.ignorefile.clone(),
            tags: self.tags()?,
            target: self.target.clone(),
            platforms: self.platforms(environment)?,
            jobs: self.jobs(environment)?,
            no_cache: self.no_cache,
            no_cache_filter: self.no_cache_filter.clone(),
            pull: self.pull.unwrap_or_default(),
            is_locked: self.locked,
            labels: self.label.iter().map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect(),
            outputs: self.outputs()?,
            contexts: self.build_context.iter().cloned().collect(),
            network: self.network,
            allowed: self.allowed(),
            accepted_leaks: self.allow_leak.clone(),
            extra_hosts: self.add_host.clone(),
            user_ids: self.userns,
            ca_certs: self.ca_cert.clone(),
            shm_size: self.shm_size.filter(|bytes| *bytes != 0),
            ulimits: self.ulimit.clone(),
            resources: self.resources.resources()?,
            timeouts: self.patience.timeouts(),
            retries: self.patience.retries(),
            // Names that stand for a time are the language's business.
            source_date_epoch: times.epoch.or_else(|| build_args.get(EPOCH).and_then(|text| text.parse().ok())),
            rewrite: match (self.timestamp, times.rewrite || self.rewrite_timestamp) {
                (Some(_), _) => Rewrite::Exactly,
                (None, true) => Rewrite::NotAfter,
                (None, false) => Rewrite::Never,
            },
            reproducible: self.reproducible,
            hostname: host_name(&build_args)?,
            cache_from: cache_from.iter().flat_map(|from| from.caches.clone()).collect(),
            cache_to: cache::all(&cache_to, &build_args),
            mounts_from: cache_from.iter().flat_map(|from| from.mounts.clone()).collect(),
            mounts_to: cache_to.iter().filter_map(|to| to.mounts.clone()).collect(),
            build_args,
        };
        let (secrets, agents) = (secrets(&self.secret, environment)?, agents(&self.ssh, environment)?);
        self.check_leaks(&secrets, &agents)?;
        let (progress, may_delete) = (self.view(environment)?, self.allow.contains(&Allowed::Deletion));
        Ok(BuildPlan { request, is_dockerfile_on_stdin, secrets, agents, progress, may_delete })
    }

    /// The values of build arguments. A time that has a flag of its own goes before all else that says it.
    fn build_args(&self, environment: &Environment) -> BTreeMap<String, String> {
        let mut args = build_args(&self.build_arg, environment);
        if let Some(epoch) = self.timestamp.or(self.source_date_epoch) {
            args.insert(EPOCH.to_owned(), epoch.to_string());
        }
        args
    }

    /// The times that outputs ask for.
    fn times(&self) -> Result<OutputTimes, Failure> {
        let mut all = self.output.iter().map(|arg| arg.times).filter(|times| *times != OutputTimes::default());
        let first = all.next().unwrap_or_default();
        match all.all(|other| other == first) {
            true => Ok(first),
            false => Err(usage("outputs of one build want different times")
                .hint("give all outputs the same `source-date-epoch` and `rewrite-timestamp`")),
        }
    }

    /// Leaks are accepted of what is lent, and handed on to nobody who did not accept them.
    fn check_leaks(
        &self,
        secrets: &BTreeMap<String, SecretSource>,
        agents: &BTreeMap<String, Vec<PathBuf>>,
    ) -> Result<(), Failure> {
        let lent = || secrets.keys().chain(agents.keys()).map(String::as_str);
        if let Some(id) = self.allow_leak.iter().find(|id| lent().all(|lent| lent != **id)) {
            let near = value::did_you_mean(id, lent());
            return Err(usage(format!("nothing is lent by the id `{id}` of `--allow-leak`{near}")));
        }
        if !self.allow_leak.is_empty() && !self.cache_to.is_empty() {
            return Err(usage(
                "`--allow-leak` and `--cache-to` do not go together: others would get the leak from the cache",
            )
            .hint("leave one of them out"));
        }
        Ok(())
    }

    fn refuse_what_is_not_there(&self) -> Result<(), Failure> {
        self.later.refuse()?;
        let is_off = |text: &str| matches!(text, "false" | "0" | "disabled=true");
        for (name, value) in [("--provenance", &self.provenance), ("--sbom", &self.sbom)] {
            if value.as_deref().is_some_and(|value| !is_off(value)) {
                return Err(not_yet(name).hint(format!("leave it out, or write `{name}=false`")));
            }
        }
        Ok(())
    }

    /// What is asked instead of a build, if anything.
    pub(crate) fn call(&self) -> Option<Call> {
        let asked = self.call.filter(|call| call.kind != CallKind::Build);
        asked.or_else(|| self.check.then(|| Call::of(CallKind::Check)))
    }

    /// Whether the network may be asked.
    pub(crate) fn network_use(&self) -> Network {
        if self.offline { Network::None } else { Network::Any }
    }

    /// Who asks for the machine's network on the command line allows it.
    fn allowed(&self) -> Vec<Entitlement> {
        let network = (self.network == NetworkMode::Host).then_some(Entitlement::NetworkHost);
        let steps = self.allow.iter().filter_map(|allowed| match allowed {
            Allowed::Step(entitlement) => Some(entitlement.clone()),
            Allowed::Deletion => None,
        });
        steps.chain(network).collect()
    }

    fn tags(&self) -> Result<Vec<Reference>, Failure> {
        match self.tag.iter().find(|tag| tag.digest.is_some()) {
            Some(tag) => Err(usage(format!("`{}` cannot name a new image: it has a digest", tag.familiar()))),
            None => Ok(self.tag.clone()),
        }
    }

    fn dockerfile(&self, context: &Context) -> Result<DockerfileSource, Failure> {
        let source = |path: &PathBuf| match context {
            Context::Stdin | Context::Remote(_) => match path.to_str() {
                Some(path) => Ok(DockerfileSource::InContext(path.to_owned())),
                None => Err(usage(format!("`{}` is not UTF-8, so the context cannot have it", path.display()))),
            },
            Context::Dir(_) | Context::Empty => Ok(DockerfileSource::Path(path.clone())),
        };
        match self.file.as_slice() {
            [] => Ok(DockerfileSource::Default),
            [path] if is_url(path) => Ok(DockerfileSource::Remote(path.to_string_lossy().into_owned())),
            [path] => source(path),
            paths => paths.iter().map(source).collect::<Result<_, _>>().map(DockerfileSource::Several),
        }
    }

    fn platforms(&self, environment: &Environment) -> Result<Vec<Platform>, Failure> {
        if !self.platform.is_empty() {
            return Ok(self.platform.clone());
        }
        environment.platforms()
    }

    fn jobs(&self, environment: &Environment) -> Result<Option<NonZero<usize>>, Failure> {
        match (self.jobs, environment.text("KILN_JOBS")) {
            (None, Some(text)) => value::jobs(text).map(Some).map_err(|e| usage(format!("`KILN_JOBS`: {e}"))),
            (typed, _) => Ok(typed),
        }
    }

    fn outputs(&self) -> Result<Vec<Output>, Failure> {
        let mut outputs: Vec<Output> = self.output.iter().map(|arg| arg.output.clone()).collect();
        if self.push {
            match outputs.iter_mut().find(|output| matches!(output, Output::Image { .. })) {
                Some(Output::Image { push, .. }) => *push = true,
                _ => outputs.push(output::pushed()),
            }
        }
        if let Some(Load::Into(wanted)) = self.load {
            match outputs.iter_mut().find(|output| matches!(output, Output::Load { .. })) {
                Some(Output::Load { into, .. }) => *into = wanted.or(*into),
                _ => outputs.push(Output::Load { image: ImageOptions::default(), into: wanted }),
            }
        }
        if outputs.is_empty() && !self.annotation.is_empty() {
            outputs.push(Output::store());
        }
        for image in outputs.iter_mut().filter_map(Output::image_mut) {
            image.annotations.extend(self.annotation.iter().flat_map(|Annotations(all)| all.clone()));
        }
        let is_tree = |output: &Output| matches!(output, Output::Local { .. } | Output::Tar { .. });
        if self.iidfile.is_some() && !outputs.is_empty() && outputs.iter().all(is_tree) {
            let failure = usage("files have no image's id to write to `--iidfile`");
            return Err(failure.hint("leave it out, or have only images written"));
        }
        let is_nameless = |image: &ImageOptions| image.names.is_empty() && self.tag.is_empty();
        if outputs.iter().any(|o| matches!(o, Output::Image { push: true, image, .. } if is_nameless(image))) {
            return Err(usage("the image has no name to push it to").hint("name it with `-t registry/name:tag`"));
        }
        if outputs.iter().filter(|output| writes_to_stdout(output)).count() > 1 {
            return Err(usage("two outputs go to standard output"));
        }
        Ok(outputs)
    }

    fn view(&self, environment: &Environment) -> Result<Choice, Failure> {
        if self.quiet {
            return Ok(Choice::Quiet);
        }
        match (self.progress, environment.text("BUILDKIT_PROGRESS")) {
            (Some(choice), _) => Ok(choice),
            (None, None) => Ok(Choice::Auto),
            (None, Some(text)) => text.parse().map_err(|e| usage(format!("`BUILDKIT_PROGRESS`: {e}"))),
        }
    }
}

/// Where the values of secrets are.
pub(crate) fn secrets(
    typed: &[SecretArg],
    environment: &Environment,
) -> Result<BTreeMap<String, SecretSource>, Failure> {
    let secrets = typed.iter().map(|secret| secret.clone().resolve(environment)).collect::<Result<_, _>>();
    secrets.map_err(|Wrong(why)| usage(format!("cannot lend a secret: {why}")))
}

/// Where agents for ssh are, or the keys that stand for them.
pub(crate) fn agents(typed: &[SshArg], environment: &Environment) -> Result<BTreeMap<String, Vec<PathBuf>>, Failure> {
    let agents = typed.iter().map(|agent| agent.clone().resolve(environment)).collect::<Result<_, _>>();
    agents.map_err(|Wrong(why)| usage(format!("cannot lend an ssh agent: {why}")))
}

/// The values of build arguments.
pub(crate) fn build_args(typed: &[(String, Option<String>)], environment: &Environment) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    // Dates are for whoever builds, not for the Dockerfile: the variable counts without `--build-arg`.
    if let Some(epoch) = environment.text(EPOCH) {
        args.insert(EPOCH.to_owned(), epoch.to_owned());
    }
    for (key, value) in typed {
        let from_environment = || environment.raw(key).map(|value| value.to_string_lossy().into_owned());
        match value.clone().or_else(from_environment) {
            Some(value) => args.insert(key.clone(), value),
            None => args.remove(key),
        };
    }
    args
}

/// The build argument that names the host of steps.
const HOST_NAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";

/// What the host of steps is called, if anybody says.
fn host_name(build_args: &BTreeMap<String, String>) -> Result<Option<String>, Failure> {
    let Some(name) = build_args.get(HOST_NAME).filter(|name| !name.is_empty()) else { return Ok(None) };
    let wrong = |Wrong(why)| usage(format!("the build argument `{HOST_NAME}` is no host name: `{name}`: {why}"));
    value::host_name(name).map(Some).map_err(wrong)
}

/// Whether an output is the program's data.
pub(crate) fn writes_to_stdout(output: &Output) -> bool {
    use kiln_engine::Dest::Stdout;
    match output {
        Output::Oci { dest, .. } | Output::Docker { dest, .. } | Output::Tar { dest, .. } => *dest == Stdout,
        Output::Image { .. } | Output::Load { .. } | Output::Local { .. } | Output::CacheOnly => false,
    }
}

fn context(text: &str) -> Result<Context, Failure> {
    if text == "-" {
        return Ok(Context::Stdin);
    }
    // A directory that is there is meant, whatever else its name could be.
    if is_remote_context(text) && !Path::new(text).is_dir() {
        return Ok(Context::Remote(text.to_owned()));
    }
    Ok(Context::Dir(text.into()))
}

fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
}

/// `name=path`, `name=docker-image://…`, `name=oci-layout://…`, `name=target:…` or `name=URL`.
pub(crate) fn named_context(text: &str) -> Result<(String, NamedContext), Wrong> {
    let Some((name, place)) = text.split_once('=').filter(|(name, place)| !name.is_empty() && !place.is_empty()) else {
        let forms = "`name=path`, `name=URL`, `name=docker-image://…`, `name=oci-layout://…` or `name=target:…`";
        return Err(Wrong(format!("expected {forms}")));
    };
    let place = if let Some(image) = place.strip_prefix("docker-image://") {
        image.parse::<Reference>().map_err(|e| Wrong(e.to_string()))?;
        NamedContext::Image(image.to_owned())
    } else if let Some(layout) = place.strip_prefix("oci-layout://") {
        oci_layout(layout)
    } else if is_remote_context(place) {
        NamedContext::Remote(place.to_owned())
    } else if let Some(stage) = place.strip_prefix("target:") {
        NamedContext::Stage(stage.to_owned())
    } else {
        NamedContext::Dir(place.into())
    };
    // Docker compares the names of contexts as it does names of stages.
    Ok((name.to_ascii_lowercase(), place))
}

/// `path`, `path:tag`, `path@digest` or `path:tag@digest`, in which the digest counts.
fn oci_layout(text: &str) -> NamedContext {
    let (place, digest) = text.split_once('@').map_or((text, None), |(place, digest)| (place, Some(digest)));
    let (path, tag) = match place.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (place, None),
    };
    let reference = digest.or(tag);
    NamedContext::OciLayout { path: path.into(), reference: reference.map(str::to_owned) }
}

/// What is done when a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    Stop,
    Shell,
}

/// How a dry run answers, if it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRun {
    Text,
    Json,
    No,
}

fn dry_run(text: &str) -> Result<DryRun, Wrong> {
    match text {
        "text" => Ok(DryRun::Text),
        "json" => Ok(DryRun::Json),
        other => match value::go_bool(other) {
            Ok(true) => Ok(DryRun::Text),
            Ok(false) => Ok(DryRun::No),
            Err(_) => Err(Wrong("expected `text` or `json`".into())),
        },
    }
}

/// When registries are asked; also in the words of buildah, and as the switch that it is with docker.
fn pull(text: &str) -> Result<Pull, Wrong> {
    const WORDS: [&str; 4] = ["missing", "always", "newer", "never"];
    match text {
        "missing" | "ifmissing" => Ok(Pull::Missing),
        "always" => Ok(Pull::Always),
        "newer" | "ifnewer" => Ok(Pull::Newer),
        "never" => Ok(Pull::Never),
        other => match value::go_bool(other) {
            Ok(true) => Ok(Pull::Always),
            Ok(false) => Ok(Pull::Missing),
            Err(_) => {
                let near = value::did_you_mean(other, WORDS);
                Err(Wrong(format!("expected `missing`, `always`, `newer` or `never`{near}")))
            }
        },
    }
}

/// The network modes of steps and containers.
pub(crate) fn network(text: &str) -> Result<NetworkMode, Wrong> {
    match text {
        "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => {
            let near = value::did_you_mean(other, ["default", "none", "host"]);
            Err(Wrong(format!("`{other}` is no network: expected `default`, `none` or `host`{near}")))
        }
    }
}

/// Whose user ids steps have.
fn userns(text: &str) -> Result<UserIds, Wrong> {
    match text {
        "default" => Ok(UserIds::Own),
        "host" => Ok(UserIds::Host),
        other => {
            let near = value::did_you_mean(other, ["default", "host"]);
            Err(Wrong(format!("`{other}` is no user namespace: expected `default` or `host`{near}")))
        }
    }
}

#[cfg(test)]
mod tests;
