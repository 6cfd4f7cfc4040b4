//! Builds that are killed, and state directories that were damaged: the next build is right, and nothing is left.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, Run};

/// Kills of the short version; `scripts/crash.sh` does as many as it is told.
const KILLS: u32 = 10;

/// Several stages, a copy of many files, steps with a cache mount.
fn large(project: &Project) {
    for number in 0..400 {
        project.file(&format!("src/d{}/f{number}", number % 20), format!("{number}\n").repeat(50));
    }
    project.dockerfile(
        "FROM busybox AS files\nCOPY src /src\nRUN find /src -type f | sort | xargs cat | sha256sum >/sum\n\
         FROM busybox AS tool\nRUN --mount=type=cache,target=/c mkdir -p /c/x && echo x >/c/x/y && sleep 0.1 && echo tool >/tool\n\
         FROM busybox\nCOPY --from=files /sum /sum\nCOPY --from=tool /tool /tool\nCOPY --from=files /src/d1 /d1\n\
         RUN --mount=type=cache,target=/c sleep 0.1 && cat /sum /tool >/all\n",
    );
}

/// All of a tree that counts, as one text.
fn tree_of(dir: &Path) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            match path.symlink_metadata().unwrap() {
                found if found.is_dir() => open.push(path),
                found if found.is_symlink() => lines.push(format!("{name} -> {:?}", fs::read_link(&path).unwrap())),
                found => lines.push(format!("{name} {:o} {:?}", found.mode(), fs::read(&path).unwrap())),
            }
        }
    }
    lines.sort_unstable();
    lines.join("\n")
}

fn start(project: &Project, out: &Path) -> Child {
    let mut command = project.command();
    let output = format!("type=oci,dest={}", out.display());
    command.args(["build", "-q", "-t", "app", "-o", &output, project.context().to_str().unwrap()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Processes whose root or command line speaks of this project, the test itself left out.
fn processes(project: &Project) -> Vec<String> {
    let name = project.path().display().to_string();
    let own = std::process::id().to_string();
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let all = all.filter(|entry| {
        let pid = entry.file_name().to_string_lossy().into_owned();
        pid.bytes().all(|byte| byte.is_ascii_digit()) && pid != own
    });
    let speaks = |path: std::path::PathBuf| {
        let commands = fs::read(path.join("cmdline")).unwrap_or_default();
        let mounts = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        String::from_utf8_lossy(&commands).contains(&name) || mounts.contains(&name)
    };
    all.filter(|entry| speaks(entry.path())).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
fn nothing_runs(project: &Project) {
    let since = Instant::now();
    while !processes(project).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(5), "still there: {:?}", processes(project));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn fsck(project: &Project) -> Run {
    project.kiln(&["fsck", "--deep"])
}

#[test]
fn a_build_killed_anywhere_is_followed_by_a_right_one() {
    let project = Project::new();
    large(&project);
    let whole = Instant::now();
    let golden = tree_of(&project.tree(&[]));
    let mut whole = whole.elapsed();
    let state = project.state();
    let mut landed = 0;
    for kill in 0..KILLS {
        // So that no step is cached.
        project.kiln(&["prune", "-af"]).ok();
        let out = project.path().join("image.tar");
        let mut child = start(&project, &out);
        std::thread::sleep(whole * (kill * 7 % KILLS) / KILLS);
        landed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_runs(&project);
        if out.exists() {
            let list = std::process::Command::new("tar").arg("tf").arg(&out).output().unwrap();
            assert!(
                list.status.success() && String::from_utf8_lossy(&list.stdout).contains("oci-layout"),
                "half a file"
            );
            fs::remove_file(&out).unwrap();
        }
        fsck(&project).ok();
        let again = Instant::now();
        let built = project.tree(&[]);
        whole = again.elapsed().max(Duration::from_millis(200));
        assert!(tree_of(&built) == golden, "another tree after kill {kill}");
        fs::remove_dir_all(built).unwrap();
        fsck(&project).ok();
    }
    assert!(landed >= KILLS / 2, "{landed} of {KILLS} builds were killed");
    project.kiln(&["rmi", "busybox"]).ok();
    project.kiln(&["prune", "-af"]).ok();
    let kept: u64 = walk(&state).iter().filter_map(|path| path.symlink_metadata().ok()).map(|file| file.len()).sum();
    assert!(kept <= 1 << 20, "{kept} bytes are left: {:?}", walk(&state));
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => all.push(entry.path()),
            }
        }
    }
    all
}

#[test]
fn layers_that_were_deleted_are_made_again_with_a_warning() {
    let project = Project::new();
    project.file("f", "f").dockerfile("FROM busybox\nCOPY f /f\nRUN echo x >/x\n");
    project.build(&[]).ok();
    let layers: Vec<_> = fs::read_dir(project.state().join("layers")).unwrap().map(|l| l.unwrap().path()).collect();
    let made = layers.iter().find(|layer| layer.join("fs/x").exists()).unwrap();
    fs::remove_dir_all(made).unwrap();
    let run = project
        .build(&[])
        .ok()
        .says("is gone from the state directory; forgotten with it: image `docker.io/library/app:latest`");
    assert_eq!(run.cached(), 2, "{}", run.stderr);
    assert_eq!(project.sh("cat /x"), "x\n");
    fsck(&project).ok();
    project.build(&[]).ok().never_says("warning");
}

#[test]
fn fsck_names_what_is_broken_and_a_build_makes_what_it_took_out() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo x >/x\n");
    project.build(&[]).ok();
    let config = project.inspect("app")["Id"].as_str().unwrap().replace("sha256:", "");
    fs::write(project.state().join("blobs/sha256").join(&config), "rotten").unwrap();
    let report = project.kiln(&["fsck"]).fails(1).stdout;
    let expected = format!(
        "blob sha256:{config}: its bytes are not what its digest says\n  would be lost: image `docker.io/library/app:latest`\n1 problem; checked"
    );
    assert!(report.starts_with(&expected), "{report}");
    let json = project.kiln(&["fsck", "--format", "json"]).fails(1).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["problems"][0]["kind"], "blob");
    project.kiln(&["fsck", "--repair"]).ok();
    project.kiln(&["fsck"]).ok();
    assert_eq!(project.build(&[]).ok().cached(), 2);
    assert_eq!(project.sh("cat /x"), "x\n");
}

#[test]
fn a_packed_layer_that_rotted_is_thrown_out_and_made_again() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo x >/x\n");
    let dest = format!("type=oci,dest={}", project.path().join("out.tar").display());
    project.build(&["-o", &dest]).ok();
    let blobs: Vec<_> = walk(&project.state().join("blobs"));
    for blob in blobs {
        let mut bytes = fs::read(&blob).unwrap();
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            continue;
        }
        *bytes.last_mut().unwrap() ^= 1;
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, bytes).unwrap();
        let failed = project.build(&["-o", &dest]).fails(3);
        failed.says("has changed on the disk and was thrown out: run the command again");
        project.build(&["-o", &dest]).ok();
    }
    fsck(&project).ok();
}

#[test]
fn a_kept_layer_that_rotted_is_fetched_anew_when_it_is_unpacked_again() {
    let Ok(registry) = std::env::var("KILN_TEST_REGISTRY") else {
        kiln_testkit::skip("`KILN_TEST_REGISTRY` names no registry with the base images");
        return;
    };
    let project = Project::new();
    project.dockerfile(&format!("FROM {registry}/busybox\nRUN echo x >/x\n"));
    project.build(&[]).ok();
    let mut rotted = 0;
    for blob in walk(&project.state().join("blobs")) {
        let mut bytes = fs::read(&blob).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            *bytes.last_mut().unwrap() ^= 1;
            fs::remove_file(&blob).unwrap();
            fs::write(&blob, bytes).unwrap();
            rotted += 1;
        }
    }
    assert!(rotted > 0);
    for layer in fs::read_dir(project.state().join("layers")).unwrap() {
        fs::remove_dir_all(layer.unwrap().path()).unwrap();
    }
    assert_eq!(project.build(&[]).ok().cached(), 0);
    assert_eq!(project.sh("cat /x"), "x\n");
}

#[test]
fn a_damaged_database_is_told_with_the_way_out() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo x >/x\n");
    let _ = fs::remove_file(project.state().join("kiln.db-wal"));
    fs::write(project.state().join("kiln.db"), [0x55; 8192]).unwrap();
    for args in [["images", "-q"], ["build", project.context().to_str().unwrap()]] {
        project.kiln(&args).fails(3).says("is damaged").says("hint: run `kiln fsck --repair`");
    }
    project.kiln(&["fsck"]).fails(1);
    project.kiln(&["fsck", "--repair"]).ok();
    project.kiln(&["fsck"]).ok();
    project.kiln(&["images"]).ok();
}

/// A build whose step ignores every signal it can, and never ends.
const STUBBORN: &str =
    "FROM busybox\nCOPY src /src\nRUN trap '' INT TERM HUP; (sleep 300) & find /src | wc -l; sleep 300; sleep 300\n";

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[track_caller]
fn ends_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let since = Instant::now();
    let status = child.wait().unwrap();
    assert!(since.elapsed() < limit, "{:?}", since.elapsed());
    status.code()
}

#[test]
fn a_build_stopped_anywhere_gives_the_prompt_back_and_kills_what_it_started() {
    use rustix::process::Signal;
    let project = Project::new();
    large(&project);
    project.dockerfile(STUBBORN);
    for (round, (sent, code)) in [(Signal::INT, 130), (Signal::TERM, 143)].into_iter().cycle().take(8).enumerate() {
        let mut child = start(&project, &project.path().join("image.tar"));
        // Not before it listens: a process that has hardly begun dies of the signal itself.
        std::thread::sleep(Duration::from_millis(150 + 130 * round as u64));
        signal(&child, sent);
        let ended = ends_within(&mut child, Duration::from_secs(2));
        assert!(ended.is_none_or(|ended| ended == code), "{ended:?} after {sent:?}");
        nothing_runs(&project);
        fsck(&project).ok();
    }
    // A registry that takes the call and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    project.dockerfile(&format!("FROM {}/base\n", silent.local_addr().unwrap()));
    let mut child = start(&project, &project.path().join("image.tar"));
    drop(silent.accept().unwrap());
    let kept = silent.accept();
    signal(&child, Signal::INT);
    assert_eq!(ends_within(&mut child, Duration::from_secs(2)), Some(130));
    drop(kept);
    // A reader of the output who never reads: the second signal ends what the first could not at once.
    project.dockerfile("FROM busybox\n");
    let mut command = project.command();
    command.args(["build", "-q", "-o", "-", project.context().to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "more than a pipe holds");
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, Signal::INT);
    assert_eq!(ends_within(&mut child, Duration::from_millis(700)), Some(130));
}

/// What runs in a mount namespace of its own, on a small disk that is there for it alone.
const SMALL_DISK: &str = r#"
set -u
mount -t tmpfs -o size=12m kiln-small "$STATE" || exit 99
failed=0
prune() { rm -f "$STATE/filler"; "$KILN" --state "$STATE" prune -af >"$LOG" 2>&1 || { cat "$LOG"; exit 1; }; }
for room in 0 100 400 1000 2000 4000 6000 8000; do
  [ "$room" = 0 ] || prune
  free=$(stat -f -c %a "$STATE"); block=$(stat -f -c %S "$STATE")
  fill=$(( free * block / 1024 - room )); [ "$fill" -gt 0 ] && dd if=/dev/zero of="$STATE/filler" bs=1024 count="$fill" 2>/dev/null
  "$@" --build-arg ROOM=$room "$CONTEXT" >"$LOG" 2>&1; code=$?
  [ "$code" = 0 ] && continue
  failed=$((failed + 1))
  [ "$code" = 3 ] && grep -q 'no space' "$LOG" && grep -q 'kiln prune' "$LOG" || { echo "room $room: exit $code"; cat "$LOG"; exit 1; }
  grep -q panicked "$LOG" && { cat "$LOG"; exit 1; }
  rm -f "$STATE/filler"
  "$KILN" --state "$STATE" fsck --deep || exit 1
  "$@" --build-arg ROOM=$room "$CONTEXT" >"$LOG" 2>&1 || { echo "room $room: after freeing space"; cat "$LOG"; exit 1; }
done
[ "$failed" -ge 4 ] || { echo "only $failed builds met a full disk"; exit 1; }
"#;

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let project = Project::bare();
    fs::create_dir_all(project.state()).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    fs::copy(busybox, project.context().join("busybox")).unwrap();
    project.dockerfile(
        "FROM scratch\nARG ROOM\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"dd\", \"if=/dev/urandom\", \"of=/a\", \"bs=1k\", \"count=1500\"]\n\
         COPY busybox /again\n",
    );
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", SMALL_DISK, "sh", kiln, "--state"]).arg(project.state());
    command.args(["build", "--progress=plain", "-t", "app"]);
    command.env("STATE", project.state()).env("CONTEXT", project.context()).env("KILN", kiln);
    command.env("LOG", project.path().join("log")).env("DOCKER_CONFIG", project.path());
    crate::project::run(&mut command).ok();
}
