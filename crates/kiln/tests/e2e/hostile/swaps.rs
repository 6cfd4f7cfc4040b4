//! Owners of contexts and destinations who swap files and directories for links while kiln works on them. Whatever comes of
//! a build, what the links lead to is neither read nor changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_testkit::{Forge, ForgedImage};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::attack::{Attack, SECRET};
use crate::project::run;

/// How long each kind of build is done under attack.
const ATTACK: Duration = Duration::from_secs(6);

/// A name in the directory that is attacked, and what of the canary the link leads to that takes its place.
type Pair<'a> = (&'a str, &'a str);

/// A name, a link that takes its place and gives it back, and where that leads.
struct Swap {
    name: PathBuf,
    link: PathBuf,
    target: PathBuf,
}

impl Swap {
    fn new(name: PathBuf, link: PathBuf, target: PathBuf) -> Self {
        symlink(&target, &link).unwrap();
        Self { name, link, target }
    }

    fn swap(&self) {
        // The work itself may have taken one away, or put something in the link's place.
        let _ = renameat_with(CWD, &self.name, CWD, &self.link, RenameFlags::EXCHANGE);
        let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if !is_link(&self.name) && !is_link(&self.link) {
            let fresh = self.link.with_extension("fresh");
            let _ = symlink(&self.target, &fresh);
            let _ = renameat_with(CWD, &fresh, CWD, &self.link, RenameFlags::EXCHANGE)
                .or_else(|_| renameat_with(CWD, &fresh, CWD, &self.link, RenameFlags::empty()));
            let _ = fs::remove_file(&fresh).or_else(|_| fs::remove_dir_all(&fresh));
        }
    }
}

/// Does work again and again, and says how often; meanwhile names turn into links to the canary, and back.
fn under_attack(attack: &Attack, directory: &Path, pairs: &[Pair<'_>], work: &mut dyn FnMut()) -> usize {
    let (links, canary) = (attack.project.path().join("links"), PathBuf::from(attack.canary()));
    fs::create_dir(&links).unwrap();
    let swap = |(at, (name, target)): (usize, &Pair<'_>)| {
        Swap::new(directory.join(name), links.join(at.to_string()), canary.join(target))
    };
    let swaps: Vec<Swap> = pairs.iter().enumerate().map(swap).collect();
    let is_over = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0_u64.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                swaps.iter().for_each(Swap::swap);
                // Pauses, some of them long, and in both states: some of what is attacked must end well, or there is nothing to
                // look at.
                let pause = if turn % 5511 == 0 { 200 } else { turn / 501 % 10 };
                if turn % 501 == 0 {
                    std::thread::sleep(Duration::from_millis(pause));
                }
            }
        });
        // Ends the thread when work panics, too.
        let _end = EndOf(&is_over);
        let start = Instant::now();
        while start.elapsed() < ATTACK {
            work();
            rounds += 1;
        }
    });
    rounds
}

struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nothing below a path holds what the canary does.
fn is_clean(path: &Path) {
    let found = run(Command::new("grep").args(["-rlaF", SECRET]).arg(path));
    assert_eq!(found.stdout, "", "the canary was read");
}

/// A context whose names are those of the canary.
fn attacked() -> Attack {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    attack.project.file("f", "own").file("d/secret", "own").file("d/sub/secret2", "own").file("e/f", "own");
    attack
}

/// Builds Dockerfiles of a context that changes meanwhile, in turn; what they make, and what is kept of it, is the context's.
fn builds(pairs: &[Pair<'_>], dockerfiles: &[&str]) {
    let attack = attacked();
    attack.project.file(".dockerignore", "own\n");
    let (out, context) = (attack.project.path().join("out.tar"), attack.project.context());
    let output = format!("type=tar,dest={}", out.display());
    let (mut turn, mut built, mut failed) = (0, 0, String::new());
    let rounds = under_attack(&attack, &context, pairs, &mut || {
        let text = dockerfiles[turn % dockerfiles.len()];
        turn += 1;
        // It may fail; what was made must be the context's own.
        let run = attack.build_with(text, &["-o", &output]);
        if run.code == 0 {
            built += 1;
            is_clean(&out);
        } else {
            failed = run.stderr;
        }
    });
    assert!(rounds > 2 * dockerfiles.len() && built > 0, "{built} builds of {rounds} show nothing\n{failed}");
    is_clean(&attack.project.state());
}

#[test]
fn copies_of_a_context_that_is_swapped_hold_nothing_of_the_machine() {
    // A context that changes while it is read is refused as a whole: of one name at a time most is seen.
    builds(
        &[("d", "")],
        &[
            "FROM scratch\nCOPY . /all/\n",
            "FROM scratch\nADD d /d/\n",
            "FROM scratch\nCOPY d/secret d/sub/secret2 /x/\n",
            "FROM scratch\nCOPY --parents d/s* /x/\n",
        ],
    );
    builds(
        &[("f", "secret"), (".dockerignore", "secret"), ("e/f", "secret")],
        &["FROM scratch\nCOPY . /all/\n", "FROM scratch\nCOPY f /f\n", "FROM scratch\nADD e/f f /x/\n"],
    );
}

#[test]
fn mounts_of_a_context_that_is_swapped_show_nothing_of_the_machine() {
    builds(
        &[("d", "")],
        &[
            "FROM evil\nRUN --mount=target=/c cp -r /c /copy; cat /c/d/secret /c/d/sub/secret2 >/seen; true\n",
            "FROM evil\nRUN --mount=source=d,target=/c cp -r /c /copy; cat /c/secret /c/sub/secret2 >/seen; true\n",
            "FROM evil\nRUN --mount=target=/c,rw cp -r /c /copy; rm -rf /c/d; echo pwned >/c/d/secret; true\n",
        ],
    );
    builds(
        &[("f", "secret")],
        &[
            "FROM evil\nRUN --mount=source=f,target=/c cat /c >/seen; true\n",
            "FROM evil\nRUN --mount=target=/c,rw cat /c/f >/seen; echo pwned >/c/f; true\n",
        ],
    );
}

#[test]
fn a_dockerfile_that_is_swapped_is_never_another_s() {
    let attack = attacked();
    attack.project.dockerfile("FROM scratch\nCOPY f /f\n");
    let context = attack.project.context();
    let path = context.to_str().unwrap();
    let mut turn = 0;
    let rounds = under_attack(&attack, &context, &[("Dockerfile", "secret"), (".dockerignore", "secret")], &mut || {
        // A message would show the line that is no instruction; that it does not is seen wherever a command ends.
        let args: &[&[&str]] = &[&["check", path], &["build", "-q", path], &["check", path], &["lock", path]];
        attack.kiln(args[turn % args.len()]);
        turn += 1;
    });
    assert!(rounds > 20, "{rounds} rounds show nothing");
}

#[test]
fn an_export_into_a_directory_that_is_swapped_stays_in_it() {
    let attack = attacked();
    let tree = Forge::new().file("f", "new").dir("d").file("d/secret", "new").file("d/new", "new").dir("d/sub");
    let tree = tree.file("d/sub/secret2", "new").dir("e").dir("e/sub").file("e/sub/secret2", "new").file("e/f", "new");
    attack.image(ForgedImage::new().layer(tree.link("l", "d").end()));
    let dest = attack.project.path().join("out");
    let [keep, delete] = ["copy", "delete"].map(|mode| format!("type=local,mode={mode},dest={}", dest.display()));
    let build = |output: &str| attack.build_with("FROM evil\n", &["--allow=buildx.local.delete", "-o", output]);
    build(&keep).ok();
    // None of them lies in another: what is swapped in a directory that is a link just then is the canary itself.
    let pairs = [("f", "secret"), ("d", ""), ("e/sub", "sub"), ("e/f", "secret"), ("l", "")];
    let (mut turn, mut built) = (0, 0);
    let rounds = under_attack(&attack, &dest, &pairs, &mut || {
        fs::write(dest.join("old"), "deleted").unwrap();
        built += usize::from(build(if turn % 2 == 0 { &keep } else { &delete }).code == 0);
        turn += 1;
    });
    // That the canary is as it was is seen at the end of each attack.
    assert!(rounds > 10 && built > 0, "{built} exports of {rounds} show nothing");
}
