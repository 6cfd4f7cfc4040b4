//! Who kiln is on this machine: root of it, or of a user namespace that it enters first.

use std::ffi::OsStr;

use kiln_exec::rootless::{NoRange, Obstacle, Standing};
use kiln_exec::{Error, Isolation};
use kiln_report::Failure;

use crate::failure::environment;
use crate::job::Result;

/// Becomes root of a user namespace where the user is not the machine's root; to be done first, while the process has one
/// thread. Programs that it takes are looked for in `path`. Gives what there is to say about it once a step runs.
pub fn become_root(path: Option<&OsStr>, isolation: Isolation) -> Result<Option<String>> {
    match kiln_exec::rootless::enter(path, isolation) {
        Ok(Standing::AsBefore | Standing::Confined | Standing::Range) => Ok(None),
        Ok(Standing::Single { user, why }) => Ok(Some(single(&user, &why))),
        Err(error) => Err(blocked(error)),
    }
}

fn single(user: &str, why: &NoRange) -> String {
    let way_out = match why {
        NoRange::NoEntry { .. } | NoRange::Refused { .. } => {
            format!("run `{}` as root, with numbers that nobody else has", more_ids(user))
        }
        NoRange::NoProgram(_) => "install the package `uidmap` (`shadow-utils` on Fedora)".to_owned(),
    };
    format!(
        "warning: steps have one user id, since {why}; `USER`, `chown` and tools that change user (apt among them) do not \
         work: {way_out}"
    )
}

fn more_ids(user: &str) -> String {
    format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}")
}

fn blocked(error: Error) -> Failure {
    let hint = match &error {
        Error::NoUserNamespace { obstacle, .. } => way_past(*obstacle),
        _ => None,
    };
    let chroot = hint.filter(|_| kiln_exec::rootless::may_chroot()).map(|_| CHROOT);
    hint.into_iter().chain(chroot).fold(environment(error), Failure::hint)
}

/// The way out that is left to root of a container.
pub(crate) const CHROOT: &str =
    "build what you trust with `--isolation=chroot`, by which steps are not confined any more than kiln is";

fn way_past(obstacle: Obstacle) -> Option<&'static str> {
    Some(match obstacle {
        Obstacle::Count => "raise the limit as root: `sysctl -w user.max_user_namespaces=15000`",
        Obstacle::Switch => "switch them on as root: `sysctl -w kernel.unprivileged_userns_clone=1`",
        Obstacle::AppArmor => {
            "allow them as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give kiln an AppArmor \
             profile with `userns,`"
        }
        Obstacle::Filter => {
            "start the container that kiln is in so that it may make user namespaces: with docker \
             `--security-opt seccomp=unconfined`, in a pod `hostUsers: false` and `seccompProfile: Unconfined`"
        }
        Obstacle::Unknown => "run kiln as root, or look what limits user namespaces here",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_is_told_with_its_cause_and_the_way_to_more() {
        let none = single("anna", &NoRange::NoEntry { file: "/etc/subuid", user: "anna".into() });
        assert!(none.contains("`/etc/subuid` sets no ids aside for `anna`"), "{none}");
        assert!(none.contains("100000-165535 anna` as root, with numbers"), "{none}");
        assert!(single("anna", &NoRange::NoProgram("newuidmap")).contains("`uidmap`"));
    }
}
