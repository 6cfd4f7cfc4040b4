//! Results into what runs containers on this machine: docker, podman or containerd.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_exec::{ExitStatus, HostCommand};
use kiln_image::Docker;
use kiln_image::archive::{ArchiveImage, Format, write};
use kiln_image::{BlobSource, Either};
use kiln_oci::{Descriptor, Digest, Reference};
use kiln_report::{Event, Failure, FailureKind, Reporter};

use crate::blobs::StoreBlobs;
use crate::engine::Engine;
use crate::export::archive::{documents, write_archive};
use crate::export::{Made, OutFile};
use crate::failure::{Context as _, registry};
use crate::job::{Job, Result};
use crate::progress::Work;
use crate::request::{BuildRequest, Daemon, ImageOptions, Naming, Output};

/// Where docker listens when nobody says otherwise.
const DOCKER: &str = "unix:///var/run/docker.sock";
/// Where containerd listens when nobody says otherwise.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Its programs, the better one first.
const CONTAINERD_PROGRAMS: [&str; 2] = ["nerdctl", "ctr"];
/// How long a program may take to read an image.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How much of an archive is under way to docker.
const WINDOW: usize = 1 << 20;

/// How the daemons of this machine are reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Daemons {
    /// `DOCKER_HOST`.
    pub(crate) docker: Option<String>,
    /// All of the environment that podman's and containerd's programs get.
    pub(crate) env: Vec<(String, OsString)>,
}

impl Daemons {
    fn docker(&self) -> Result<Docker> {
        Docker::at(self.docker.as_deref().unwrap_or(DOCKER)).map_err(registry)
    }

    #[expect(clippy::disallowed_methods, reason = "the machine's own programs and sockets are looked for")]
    async fn has(&self, daemon: Daemon) -> bool {
        match daemon {
            Daemon::Docker => match self.docker() {
                Ok(docker) => docker.is_there().await,
                Err(_) => false,
            },
            Daemon::Podman => self.has_program("podman"),
            Daemon::Containerd => {
                Path::new(self.containerd()).exists()
                    && CONTAINERD_PROGRAMS.into_iter().any(|name| self.has_program(name))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the machine's own programs and sockets are looked for")]
    fn has_program(&self, name: &str) -> bool {
        let path = self.variable("PATH").unwrap_or(OsStr::new(""));
        std::env::split_paths(path).any(|dir| dir.join(name).is_file())
    }

    /// Its programs know the variable, too.
    fn containerd(&self) -> &OsStr {
        self.variable("CONTAINERD_ADDRESS").unwrap_or(OsStr::new(CONTAINERD))
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    async fn run(&self, program: &str, args: &[&OsStr]) -> Result<()> {
        let command = HostCommand {
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: self.env.clone(),
            cwd: "/".into(),
            patience: PATIENCE,
        };
        let output = command.run().await.or_environment(|| format!("cannot load the image with `{program}`"))?;
        if output.status == ExitStatus::Code(0) {
            return Ok(());
        }
        let mut failure = Failure::new(FailureKind::Environment, format!("`{program}` did not take the image"));
        failure.causes.extend(String::from_utf8_lossy(&output.stderr).trim().lines().last().map(str::to_owned));
        Err(failure)
    }
}

/// Finds out what outputs that load are loaded into, before a build packs layers for it. Where nothing runs that could
/// take an image, and none was asked for by name, it only goes into the local store.
pub(crate) async fn settle(
    engine: &Engine,
    mut request: BuildRequest,
    reporter: &dyn Reporter,
) -> Result<BuildRequest> {
    let daemons = engine.daemons();
    for output in &mut request.outputs {
        let Output::Load { image, into } = output else { continue };
        match *into {
            Some(daemon) if daemons.has(daemon).await => {}
            Some(daemon) => return Err(absent(daemon, &daemons)),
            None => *into = any(&daemons).await,
        }
        if into.is_none() {
            let text = "no docker, podman or containerd answers here: the image is in kiln's own store only";
            reporter.report(Event::Note(text.to_owned()));
            let (image, naming) = (std::mem::take(image), Naming::default());
            *output = Output::Image { image, push: false, store: true, naming };
        }
    }
    Ok(request)
}

async fn any(daemons: &Daemons) -> Option<Daemon> {
    for daemon in [Daemon::Docker, Daemon::Podman, Daemon::Containerd] {
        if daemons.has(daemon).await {
            return Some(daemon);
        }
    }
    None
}

fn absent(daemon: Daemon, daemons: &Daemons) -> Failure {
    let (message, hint) = match daemon {
        Daemon::Docker => {
            let place = daemons.docker.as_deref().unwrap_or(DOCKER);
            (format!("docker does not answer at `{place}`"), "start it, or name its socket with `DOCKER_HOST`")
        }
        Daemon::Podman => ("there is no `podman` in `PATH`".into(), "install it, or load into something else"),
        Daemon::Containerd => (
            format!(
                "there is no containerd at `{}`, or neither `nerdctl` nor `ctr` in `PATH`",
                daemons.containerd().display()
            ),
            "start it or name its socket with `CONTAINERD_ADDRESS`, and install one of them",
        ),
    };
    Failure::new(FailureKind::Environment, message).hint(hint)
}

/// Loads an image into a daemon that was found before.
pub(crate) async fn load(
    job: &Arc<Job>,
    made: &[Made],
    names: &[Reference],
    into: Daemon,
    options: &ImageOptions,
) -> Result<Descriptor> {
    let work = Work::start(&job.reporter, format!("importing to {into}"));
    let loaded = async {
        let (documents, root) = documents(made, options)?;
        let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
        let images =
            [ArchiveImage { descriptor: root.clone(), names: names.iter().map(ToString::to_string).collect() }];
        let from = Either(&documents, &blobs);
        match into {
            Daemon::Docker => {
                let docker = job.daemons.docker()?;
                match made {
                    [only] => {
                        // Docker knows an image by its config, or by its manifest when containerd keeps it.
                        let ids = [root.digest.clone(), only.config.digest()];
                        into_docker(&docker, (&ids, names), &images, &from, &work).await?;
                    }
                    _ => stream(&docker, &images, &from).await?,
                }
            }
            Daemon::Podman | Daemon::Containerd => through_file(job, into, &images, &from).await?,
        }
        Ok(root)
    };
    let loaded = loaded.await;
    work.end(loaded)
}

/// What docker has needs only its names.
async fn into_docker(
    docker: &Docker,
    (ids, names): (&[Digest], &[Reference]),
    images: &[ArchiveImage],
    from: &dyn BlobSource,
    work: &Work,
) -> Result<()> {
    for id in ids {
        if docker.has(id).await.map_err(registry)? {
            work.part(format!("image {id} is there already"));
            for name in names {
                docker.name(id, name).await.map_err(registry)?;
            }
            return Ok(());
        }
    }
    stream(docker, images, from).await
}

async fn stream(docker: &Docker, images: &[ArchiveImage], from: &dyn BlobSource) -> Result<()> {
    let (mut writer, reader) = tokio::io::duplex(WINDOW);
    let writing = async {
        let written = write(Format::Docker, images, from, &mut writer).await;
        drop(writer);
        written
    };
    let (written, loaded) = tokio::join!(writing, docker.load(reader));
    // When docker hangs up the writer only knows that; what docker says is the reason.
    loaded.map_err(registry)?;
    written.map_err(registry)
}

async fn through_file(job: &Job, into: Daemon, images: &[ArchiveImage], from: &dyn BlobSource) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("load-").tempdir().or_environment(|| "cannot make a directory".into())?;
    let path = dir.path().join("image.tar");
    write_archive(Format::Docker, images, from, OutFile::replacing(&path)?).await?;
    let (daemons, path) = (&job.daemons, path.as_os_str());
    let text = OsStr::new;
    match into {
        Daemon::Podman => daemons.run("podman", &[text("load"), text("--quiet"), text("--input"), path]).await,
        _ if daemons.has_program("nerdctl") => daemons.run("nerdctl", &[text("load"), text("--input"), path]).await,
        _ => daemons.run("ctr", &[text("images"), text("import"), path]).await,
    }
}
