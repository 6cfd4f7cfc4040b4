//! Whose ids the layers of a state directory have: what one kind of user has written another would misread.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::fmt;
use std::path::Path;

use kiln_sys::userns::{IdMap, is_machine_root};

use crate::error::{Error, IoContext as _, Result};
use crate::store::Store;

/// The rights and ids with which layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Those of the machine's root: overlay's marks are `trusted.overlay.*`.
    Machine,
    /// Those of root of a user namespace with many ids, and others outside of it.
    Range,
    /// Those of root of a user namespace with one: owners are notes.
    Single,
    /// Those of a container's root, who has all ids and few rights: overlay's marks are `user.overlay.*`.
    Container,
}

impl Standing {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Machine, "machine"), (Self::Range, "range"), (Self::Single, "single"), (Self::Container, "container")];

    /// Ours, once we are root of whatever we are root of.
    pub fn ours() -> Result<Self> {
        if is_machine_root() {
            return Ok(Self::Machine);
        }
        let map = IdMap::of_users().context("read", Path::new("/proc/self/uid_map"))?;
        Ok(match map {
            map if map.is_single() => Self::Single,
            map if map.is_whole() => Self::Container,
            _ => Self::Range,
        })
    }

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(standing, _)| *standing == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "the machine's root",
            Self::Range => "a user with a range of ids",
            Self::Single => "a user with one id",
            Self::Container => "root of a container",
        })
    }
}

impl Store {
    /// Fails when the layers here were written with other rights and ids than these. Without layers there is nothing that
    /// could be misread.
    pub fn admit(&self, standing: Standing) -> Result<()> {
        let layout = &self.shared.layout;
        let path = layout.root().join("standing");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.context("read", &path)?,
        };
        let made = Standing::ALL.into_iter().find(|(_, word)| *word == text.trim()).map(|(made, _)| made);
        match made.filter(|made| *made != standing) {
            Some(made) if layout.has_trees()? => {
                Err(Error::OtherStanding { path: layout.root().to_owned(), made, now: standing })
            }
            None if made.is_some() => Ok(()),
            _ => {
                // On a full disk it is noted by the next one.
                let _ = std::fs::write(&path, format!("{}\n", standing.word()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_for_those_who_wrote_them_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.admit(Standing::Range).unwrap();
        store.admit(Standing::Single).unwrap();
        let lease = store.lease().unwrap();
        let layer = store.begin_layer(&lease).unwrap();
        store.publish_layer(&layer, None).unwrap();
        store.admit(Standing::Single).unwrap();
        let error = store.admit(Standing::Range).unwrap_err();
        let text = format!(
            "the layers in the state directory `{}` were written by a user with one id, and cannot be used by a user with a \
             range of ids",
            dir.path().display()
        );
        assert_eq!(error.to_string(), text);
        assert!(error.is_about_place());
    }
}
