//! Verdicts on what builds use beside the kernel: the state directory, emulators, agents and logins.

use kiln_report::render::decimal_size;

use super::{Check, Mark, Trouble};
use crate::doctor::facts::{Agent, Emulation, Facts, State};

/// What a build of a usual size takes.
const LITTLE_SPACE: u64 = 2_000_000_000;

/// The place of images and the cache.
pub(super) fn state(facts: &Facts) -> Check {
    const NAME: &str = "state directory";
    let State { path, exists, owner, filesystem, free, writable, .. } = &facts.state;
    let place = path.display();
    let is_new = if *exists { "" } else { ", not there yet" };
    let found = format!("`{place}`, {} free on {filesystem}{is_new}", decimal_size(*free));
    if let Err(refusal) = writable {
        let found = format!("`{place}` cannot be written: {}", refusal.why);
        let mend = "name a directory you can write to with `--state DIR` or `KILN_STATE`".into();
        return Check::bad(NAME, Mark::Missing, Trouble { found, lost: "all that keeps something".into(), mend });
    }
    if let Some(owner) = owner {
        let found = format!("`{place}` belongs to the user with id {owner}");
        let mend = "use it as that user, or name another with `--state DIR` or `KILN_STATE`".into();
        let lost = "what is in it for its owner, whom files of this user are in the way of".into();
        return Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend });
    }
    if *free < LITTLE_SPACE {
        let mend = "free space with `kiln prune --all`, or name another disk with `--state DIR`".into();
        return Check::bad(NAME, Mark::Degraded, Trouble { found, lost: "builds of larger images".into(), mend });
    }
    Check::ok(NAME, found)
}

/// The platforms that steps can run on.
pub(super) fn emulators(facts: &Facts) -> Check {
    const NAME: &str = "platforms";
    let which = |is: &dyn Fn(&Emulation) -> bool| {
        let names = facts.platforms.iter().filter(|(_, emulation)| is(emulation)).map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let native = which(&|emulation| *emulation == Emulation::Native);
    let emulated = which(&|emulation| *emulation == Emulation::Emulated);
    let found = if emulated.is_empty() { native } else { format!("{native}; emulated: {emulated}") };
    let lost = |names: &str| format!("`RUN` steps for {names}");
    let unfixed = facts.platforms.iter().find_map(|(_, emulation)| match emulation {
        Emulation::Unfixed(interpreter) => Some(interpreter),
        _ => None,
    });
    if let Some(interpreter) = unfixed {
        let lost = lost(&which(&|emulation| matches!(emulation, Emulation::Unfixed(_))));
        let found = format!("{found}; `{interpreter}` is registered without the flag `F`");
        let mend = "register it with `F`, as `apt-get install qemu-user-static` does".into();
        return Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend });
    }
    let missing = which(&|emulation| *emulation == Emulation::Missing);
    if missing.is_empty() {
        return Check::ok(NAME, found);
    }
    let mend = "run `apt-get install qemu-user-static`, or `docker run --privileged --rm tonistiigi/binfmt --install all`, \
                as root of the machine";
    Check::bad(NAME, Mark::Degraded, Trouble { found, lost: lost(&missing), mend: mend.into() })
}

/// The agent that `--ssh default` lends.
pub(super) fn agent(facts: &Facts) -> Check {
    const NAME: &str = "ssh agent";
    let mend = "run `eval $(ssh-agent) && ssh-add`, or lend a key with `--ssh default=FILE`".to_owned();
    let lost = "`--ssh default`".to_owned();
    match &facts.agent {
        Agent::Listens(socket) => Check::ok(NAME, format!("listens on `{}`", socket.display())),
        Agent::NotNamed => {
            let found = "`SSH_AUTH_SOCK` is not set".into();
            Check::bad(NAME, Mark::Missing, Trouble { found, lost, mend })
        }
        Agent::Silent(socket, why) => {
            let found = format!("`{}` does not answer: {why}", socket.display());
            Check::bad(NAME, Mark::Missing, Trouble { found, lost, mend })
        }
    }
}

/// The file of logins, and the programs it counts on.
pub(super) fn logins(facts: &Facts) -> Check {
    const NAME: &str = "registry logins";
    let logins = &facts.logins;
    let file = logins.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let Some(_) = &logins.file else { return Check::ok(NAME, "no place for them: `HOME` is not set") };
    if let Some(why) = &logins.broken {
        let mend = format!("mend `{file}`, or move it away and run `kiln login`");
        let lost = "pulls and pushes that need a login".into();
        return Check::bad(NAME, Mark::Degraded, Trouble { found: why.clone(), lost, mend });
    }
    let absent: Vec<&str> =
        logins.helpers.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| name.as_str()).collect();
    if !absent.is_empty() {
        let programs: Vec<String> = absent.iter().map(|name| format!("`docker-credential-{name}`")).collect();
        let programs = programs.join(" and ");
        let found = format!("`{file}` names {programs}, not in `PATH`");
        let mend = format!("install {programs}, or take the name out of `{file}` and run `kiln login`");
        let lost = "pulls and pushes whose logins are kept there".into();
        return Check::bad(NAME, Mark::Degraded, Trouble { found, lost, mend });
    }
    match (logins.exists, logins.helpers.is_empty()) {
        (false, _) => Check::ok(NAME, format!("none yet: there is no `{file}`")),
        (true, true) => Check::ok(NAME, format!("in `{file}`")),
        (true, false) => {
            let names: Vec<&str> = logins.helpers.iter().map(|(name, _)| name.as_str()).collect();
            Check::ok(NAME, format!("in `{file}`, and kept by {}", names.join(", ")))
        }
    }
}
