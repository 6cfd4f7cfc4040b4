//! Whose ids steps have: those of a user namespace of their own, and the state directory as it is seen from there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use kiln_report::{Event, Reporter};
use kiln_store::Store;
use kiln_sys::mount::{Bind, Overlay, Shifted, bind_path_detached, bind_shifted};
use kiln_sys::userns::UserNamespace;

use crate::failure::Context as _;
use crate::job::Result;

/// Made by the first step that runs, for all of them.
#[derive(Debug, Default)]
pub(crate) struct Ids(OnceLock<Sight>);

/// How the files of steps are mounted.
#[derive(Debug, Clone)]
pub(crate) enum Sight {
    /// As they are: the root of a step is that of the host.
    Host,
    /// With the ids of a user namespace.
    Own(Arc<Shifted>),
}

/// The ids of a process that is in no user namespace.
const ALL: &str = "0 0 4294967295";

impl Ids {
    /// Finds out what this machine and the file system of the state directory can do, once; says so if it is less.
    pub(crate) fn sight(&self, store: &Store, reporter: &Arc<dyn Reporter>) -> Sight {
        let sight = self.0.get_or_init(|| {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            // Another user than the host's root has no ids to give, nor rights that a step could have.
            if !rustix::process::geteuid().is_root() || !map.split_whitespace().eq(ALL.split(' ')) {
                return Sight::Host;
            }
            own(&store.root()).unwrap_or_else(|error| {
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
fn own(state: &Path) -> std::result::Result<Sight, kiln_sys::Error> {
    let shifted = Shifted::new(state, Arc::new(UserNamespace::new()?))?;
    let lowers = vec![state.join("empty"), state.join("layers")];
    Overlay { lowers, upper: None, userxattr: false }.mount_shifted(&shifted)?;
    Ok(Sight::Own(Arc::new(shifted)))
}

impl Sight {
    /// The namespace.
    pub(crate) fn users(&self) -> Option<&Arc<UserNamespace>> {
        match self {
            Self::Host => None,
            Self::Own(shifted) => Some(shifted.users()),
        }
    }

    /// Mounts an overlay of the state directory nowhere: it is gone with its descriptor.
    pub(crate) fn mount(&self, overlay: &Overlay) -> Result<OwnedFd> {
        let mount = match self {
            Self::Host => overlay.mount_detached(),
            Self::Own(shifted) => overlay.mount_shifted(shifted),
        };
        mount.or_environment(|| "cannot mount a step's files".into())
    }

    /// Clones the mount of a part of the state directory.
    pub(crate) fn bind(&self, path: &Path, bind: Bind) -> Result<OwnedFd> {
        let mount = match self {
            Self::Host => bind_path_detached(path, bind),
            Self::Own(shifted) => shifted.bind(path, bind),
        };
        mount.or_environment(|| format!("cannot mount `{}`", path.display()))
    }

    /// Clones the mount of any path of the machine.
    pub(crate) fn bind_of_host(&self, path: &Path, bind: Bind) -> std::result::Result<OwnedFd, kiln_sys::Error> {
        match self {
            Self::Host => bind_path_detached(path, bind),
            Self::Own(shifted) => bind_shifted(path, bind, shifted.users()),
        }
    }
}
