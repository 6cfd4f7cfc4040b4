//! Whose ids steps have: those of a user namespace of their own, and the state directory as it is seen from there.
//!
//! Where kiln is the machine's root, these are ids of nobody. Where it is in a user namespace itself, they are its own.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use kiln_exec::{Isolation, User};
use kiln_report::{Event, Reporter};
use kiln_store::{Stacking, Store};
use kiln_sys::mount::{Bind, Overlay, Shifted, bind_path_detached, bind_shifted};
use kiln_sys::root::Root;
use kiln_sys::userns::{UserNamespace, is_machine_root};

use crate::failure::Context as _;
use crate::job::Result;

/// Made by the first step that runs, for all of them.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    sight: OnceLock<Sight>,
    /// Said by the first step.
    note: Option<String>,
    isolation: Isolation,
}

/// How the files of steps are mounted.
#[derive(Debug, Clone)]
pub(crate) enum Sight {
    /// As they are: the root of a step is that of the host.
    Host,
    /// With the ids of a user namespace.
    Own(Arc<Shifted>),
    /// As they are, in a user namespace that has the ids of ours.
    Nested(Arc<UserNamespace>),
    /// As they are, and not mounted: steps have no namespaces.
    Plain,
}

/// The way out where layers cannot be stacked.
const ELSEWHERE: &str = "name a state directory on another filesystem with `--state`, or have layers copied with \
     `KILN_SNAPSHOTTER=native`";

/// The way out where there are too many of them.
const FEWER: &str =
    "make fewer layers: join instructions, or go on `FROM scratch` with a `COPY --from` of all there is";

/// What is said where steps have no namespaces.
const UNCONFINED: &str = "warning: steps run with `--isolation=chroot`: they see the processes and the network of this machine, have \
     no `/proc` and no `/sys`, and can do what kiln can; secrets are in files; build nothing that you do not trust";

impl Ids {
    /// What keeps steps apart.
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// With something to say when the first step runs.
    pub(crate) fn new(note: Option<String>, isolation: Isolation) -> Self {
        Self { sight: OnceLock::new(), note, isolation }
    }

    /// Finds out what this machine and the file system of the state directory can do, once; says so if it is less.
    pub(crate) fn sight(&self, store: &Store, reporter: &Arc<dyn Reporter>) -> Sight {
        let sight = self.sight.get_or_init(|| {
            if let Some(note) = &self.note {
                reporter.report(Event::Note(note.clone()));
            }
            if self.isolation == Isolation::Chroot {
                reporter.report(Event::Note(UNCONFINED.to_owned()));
                return Sight::Plain;
            }
            let made = if is_machine_root() { own(&store.root(), store.stacking()) } else { nested() };
            made.unwrap_or_else(|error| {
                let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
                let text = format!("warning: steps run with the user ids of this machine: {error}{why}");
                reporter.report(Event::Note(text));
                Sight::Host
            })
        });
        sight.clone()
    }
}

/// Makes the namespace, and tries it on what every state directory has.
pub(crate) fn own(state: &Path, stacking: Stacking) -> std::result::Result<Sight, kiln_sys::Error> {
    let shifted = Shifted::new(state, Arc::new(UserNamespace::new()?))?;
    let lowers = vec![state.join("empty"), state.join("layers")];
    if stacking == Stacking::Overlay {
        Overlay { lowers, upper: None, userxattr: false }.mount_shifted(&shifted)?;
    }
    Ok(Sight::Own(Arc::new(shifted)))
}

/// Makes a namespace that owns nothing, as ours owns what containers are made of.
fn nested() -> std::result::Result<Sight, kiln_sys::Error> {
    Ok(Sight::Nested(Arc::new(UserNamespace::nested()?)))
}

impl Sight {
    /// The namespace.
    pub(crate) fn users(&self) -> Option<&Arc<UserNamespace>> {
        match self {
            Self::Host | Self::Plain => None,
            Self::Own(shifted) => Some(shifted.users()),
            Self::Nested(users) => Some(users),
        }
    }

    /// Whether steps see copies of their files, and nothing is mounted for them.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Says when a step cannot run as a user, whose ids it would not have.
    pub(crate) fn admit(&self, user: &User) -> std::result::Result<(), kiln_sys::Error> {
        let Self::Nested(users) = self else { return Ok(()) };
        [user.uid, user.gid].into_iter().try_for_each(|id| users.on_host(id).map(drop))
    }

    /// Mounts an overlay of the state directory nowhere: it is gone with its descriptor.
    pub(crate) fn mount(&self, overlay: &Overlay) -> Result<OwnedFd> {
        let mount = match self {
            Self::Host | Self::Nested(_) | Self::Plain => overlay.mount_detached(),
            Self::Own(shifted) => overlay.mount_shifted(shifted),
        };
        let way_out = match &mount {
            Err(kiln_sys::Error::TooManyLayers { .. }) => FEWER,
            _ => ELSEWHERE,
        };
        let mount = mount.or_environment(|| "cannot mount a step's files".into());
        mount.map_err(|failure| failure.hint(way_out))
    }

    /// Clones the mount of a part of the state directory.
    pub(crate) fn bind(&self, path: &Path, bind: Bind) -> Result<OwnedFd> {
        let mount = match self {
            Self::Host | Self::Nested(_) => bind_path_detached(path, bind),
            Self::Own(shifted) => shifted.bind(path, bind),
            Self::Plain => Root::open_ambient(path).map(Root::into_fd),
        };
        mount.or_environment(|| format!("cannot mount `{}`", path.display()))
    }

    /// Clones the mount of any path of the machine.
    pub(crate) fn bind_of_host(&self, path: &Path, bind: Bind) -> std::result::Result<OwnedFd, kiln_sys::Error> {
        match self {
            Self::Host | Self::Nested(_) => bind_path_detached(path, bind),
            Self::Plain => Root::open_ambient(path).map(Root::into_fd),
            Self::Own(shifted) => bind_shifted(path, bind, shifted.users()),
        }
    }
}
