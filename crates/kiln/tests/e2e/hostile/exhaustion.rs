//! Steps that take all there is: memory, processes, output, the disk.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use kiln_testkit::ForgedImage;

use super::attack::{Attack, MOST_MEMORY, watch};
use crate::project::run;

#[test]
fn builds_that_take_all_they_can_end_by_their_limit_and_others_go_on() {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    let evil = format!("evil=oci-layout://{}:t", attack.project.path().join("evil").display());
    let start = |name: &str, step: &str| {
        let context = attack.project.path().join(name);
        fs::create_dir(&context).unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM evil\nRUN {step}\n")).unwrap();
        let log = context.join("log");
        let mut command = attack.project.command();
        command.args(["build", "--progress=plain", "-m", "48m", "--cpuset-cpus", "0", "--build-context", &evil]);
        command.arg(context).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        (command.spawn().unwrap(), log)
    };
    let builds = [
        start("honest", "echo honest"),
        start("output", "head -c 20000000 /dev/zero; yes | head -c 2000000; exit 7"),
        start("memory", "tail /dev/zero"),
        start("storm", "storm() { storm | storm & }; storm; sleep 60"),
    ];
    let watches = builds.map(|(child, log)| (std::thread::spawn(move || watch(child)), log));
    let [honest, output, memory, storm] = watches.map(|(watched, log)| {
        let (code, most) = watched.join().unwrap();
        let said = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
        assert!(most <= MOST_MEMORY, "{} MiB of memory\n{said}", most >> 20);
        (code, said)
    });
    assert_eq!(honest.0, 0, "{}", honest.1);
    assert!(output.0 == 1 && output.1.contains("exit code: 7"), "{}", output.0);
    for (code, said) in [memory, storm] {
        if said.contains("steps are not limited as asked") {
            kiln_testkit::skip("this machine has no control groups to limit memory with");
            return;
        }
        assert!(code == 1 && said.contains("killed by the memory limit of 50.33MB"), "{code} {said}");
    }
    attack.build("FROM evil\nRUN true\n").ok();
}

/// What runs in a mount namespace of its own, on a small disk that is there for it alone. `kept` is built first; then each
/// way to fill the disk is tried, and `kept` must be there, and nothing else be needed than to prune.
const SMALL_DISK: &str = r#"
set -u
mount -t tmpfs -o size=16m,nr_inodes=3000 kiln-small "$STATE" || exit 99
kiln() { "$KILN" --state "$STATE" "$@" >"$LOG" 2>&1; }
build() { kiln build --progress=plain --build-context "evil=oci-layout://$EVIL:t" "$@" "$CONTEXT"; }
fail() { echo "$file: $*"; cat "$LOG"; exit 1; }
file=kept; build -t kept -f "$CONTEXT/kept" || fail "exit $?"
for file in "$CONTEXT"/fill-*; do
  build --no-cache -t victim -f "$file"; code=$?
  grep -q panicked "$LOG" && fail "panicked"
  [ "$code" = 3 ] && grep -q '^error.*no space' "$LOG" && grep -q 'kiln prune' "$LOG" || fail "exit $code"
  kiln fsck --deep || fail "fsck after it"
  kiln inspect kept || fail "what was kept is gone"
  kiln image rm victim
  kiln prune -af || fail "a full disk is not pruned"
  build -t after -f "$CONTEXT/after" || fail "no build is possible afterwards"
  kiln run --rm kept cat /kept && grep -q kept "$LOG" || fail "what was kept does not run"
done
"#;

#[test]
fn steps_that_fill_the_disk_are_told_and_what_was_kept_is_there() {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    let project = &attack.project;
    fs::create_dir_all(project.state()).unwrap();
    project.file("kept", "FROM evil\nRUN echo kept >/kept\n").file("after", "FROM evil\nRUN echo after >/after\n");
    project.file("large", vec![1; 20 << 20]);
    let fills = [
        ("step", "FROM evil\nRUN yes >/big\n"),
        // It does not tell: what comes after the step meets the full disk.
        ("silently", "FROM evil\nRUN yes >/big 2>/dev/null; true\n"),
        ("cache", "FROM evil\nRUN --mount=type=cache,target=/c yes >/c/big\n"),
        ("names", "FROM evil\nRUN i=0; while touch /f$i; do i=$((i+1)); done; exit 9\n"),
        ("copy", "FROM evil\nCOPY large /large\n"),
        ("mount", "FROM evil\nRUN --mount=target=/c,rw true\n"),
    ];
    for (name, text) in fills {
        project.file(&format!("fill-{name}"), text);
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", SMALL_DISK]);
    command.env("STATE", project.state()).env("CONTEXT", project.context()).env("KILN", env!("CARGO_BIN_EXE_kiln"));
    command.env("LOG", project.path().join("log")).env("DOCKER_CONFIG", project.path());
    run(command.env("EVIL", project.path().join("evil"))).ok();
}
