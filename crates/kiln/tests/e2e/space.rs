//! What builds leave, and what becomes of it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::project::{Project, Run, run};

/// Bytes of disk of all that is there.
pub(crate) fn disk(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).map_or(0, |file| file.blocks() * 512);
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    own + below
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .map(|entry| disk(&entry.path()))
        .sum::<u64>()
}

fn limited(project: &Project, most: &str) -> Run {
    let mut command = project.command();
    command.args(["build", "-t", "app", "--progress=plain", project.context().to_str().unwrap()]);
    run(command.env("KILN_GC_MAX_USED_SPACE", most))
}

#[test]
fn du_says_what_a_build_left_and_why_it_is_kept() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox AS make\nRUN --mount=type=cache,id=pip,target=/c head -c 3000000 /dev/urandom >/made; echo x >/c/x\n\
         FROM busybox\nCOPY --from=make /made /made\n",
    );
    project.build(&["-t", "app"]).ok();
    let things = |args: &[&str]| -> Vec<serde_json::Value> {
        let all = project.kiln(&[&["du", "--format", "json"], args].concat()).ok().stdout;
        all.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = things(&[]);
    let step = |name: &str| all.iter().find(|thing| thing["Description"].as_str().unwrap().contains(name)).unwrap();
    let (made, copied, mount) = (step("RUN --mount"), step("COPY --from"), step("cache mount"));
    assert_eq!((&made["Reclaimable"], &copied["Reclaimable"]), (&true.into(), &false.into()));
    let mounts = project.kiln(&["du", "--filter", "type=exec.cachemount", "--format", "{{.ID}}"]).ok().stdout;
    assert_eq!(Some(mounts.trim()), mount["ID"].as_str());
    let why = |thing: &serde_json::Value| project.kiln(&["du", "--why", thing["ID"].as_str().unwrap()]).ok().stdout;
    assert!(why(made).contains("RUN --mount") && why(made).contains("context"), "{}", why(made));
    assert!(why(made).contains("`kiln prune` removes it"), "{}", why(made));
    assert!(why(copied).contains("held by image docker.io/library/app:latest"), "{}", why(copied));
    project.kiln(&["du", "--why", "nonsense"]).fails(1).says("`nonsense`");
    project.kiln(&["du", "--filter", "tipe=x"]).fails(2).says("did you mean `type`?");

    let layers = || disk(&project.state().join("layers"));
    let before = layers();
    project.kiln(&["prune", "--dry-run", "--verbose"]).ok();
    assert_eq!(layers(), before);
    let pruned = project.kiln(&["prune", "-f", "--filter", "description~=RUN --mount"]).ok();
    assert!(pruned.stdout.contains(made["ID"].as_str().unwrap()), "{}", pruned.stdout);
    let gone = before - layers();
    assert!(
        (2_900_000..3_100_000).contains(&gone) && pruned.stdout.contains("space: 3.0"),
        "{gone}: {}",
        pruned.stdout
    );
    project.kiln(&["prune", "-f", "--max-used-space", "1"]).ok();
    assert_eq!(things(&["--filter", "mutable"]), [] as [serde_json::Value; 0]);
    // What the image needs is there. Which facts about it were forgotten to save room is chance.
    assert!(project.build(&["-t", "app"]).ok().cached() >= 1, "the base, which an image has");
}

#[test]
fn why_names_the_build_that_runs() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,id=slow,target=/c touch /c/x && sleep 60\n");
    let mut command = project.command();
    command.args(["build", project.context().to_str().unwrap()]).stderr(Stdio::null());
    let mut build = command.spawn().unwrap();
    let since = Instant::now();
    let mount = loop {
        let found = project.kiln(&["du", "--filter", "inuse,type=exec.cachemount", "--format", "{{.ID}}"]).ok().stdout;
        if !found.is_empty() {
            break found.trim().to_owned();
        }
        assert!(since.elapsed() < Duration::from_secs(30), "the step never came");
    };
    let why = project.kiln(&["du", "--why", &mount]).ok().stdout;
    let pruned = project.kiln(&["prune", "-af"]).ok().stdout;
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(why.contains(&format!("held by process {}", build.id())), "{why}");
    assert!(!pruned.contains(&mount), "{pruned}");
}

#[test]
fn builds_one_after_another_stay_below_the_limit_and_the_last_stay_cached() {
    let project = Project::new();
    const MOST: u64 = 20 << 20;
    for round in 0..24 {
        project.dockerfile(&format!(
            "FROM busybox AS make\nRUN head -c 1500000 /dev/urandom >/made # {round}\nFROM busybox\nCOPY --from=make /made /\n"
        ));
        let build = limited(&project, "20m").ok();
        assert!(!build.stderr.contains("warning"), "{}", build.stderr);
        let used = disk(&project.state());
        assert!(used <= MOST, "{used} bytes after {round} builds");
    }
    assert_eq!(limited(&project, "20m").ok().cached(), 3);
    assert!(disk(&project.state()) > MOST / 2, "no more goes than must");
    limited(&project, "1m").ok().never_says("warning");
    project.dockerfile("FROM busybox\nRUN head -c 100000 /dev/urandom >/made\n");
    limited(&project, "1m").ok().says("warning: images with names take").says("KILN_GC_MAX_USED_SPACE");
    limited(&project, "much").fails(2).says("KILN_GC_MAX_USED_SPACE");
}

#[test]
fn builds_and_prunes_at_once_give_right_images() {
    let project = Project::new();
    let until = Instant::now() + Duration::from_secs(5);
    let build = |number: usize| {
        let context = project.path().join(format!("context{number}"));
        fs::create_dir(&context).unwrap();
        let mut round = 0;
        while round < 2 || Instant::now() < until {
            let variant = (number + round) % 3;
            let text = format!(
                "FROM busybox AS a\nRUN echo {variant} >/a && head -c 200000 /dev/zero >/fill\n\
                 FROM busybox\nCOPY --from=a /a /b\nRUN cat /b /b >/c\n"
            );
            fs::write(context.join("Dockerfile"), text).unwrap();
            let out = context.join(format!("out{round}"));
            let mut command = project.command();
            command.args(["build", "-o", out.to_str().unwrap(), context.to_str().unwrap()]);
            run(command.env("KILN_GC_MAX_USED_SPACE", "3m")).ok();
            assert_eq!(fs::read_to_string(out.join("c")).unwrap(), format!("{variant}\n{variant}\n"));
            fs::remove_dir_all(out).unwrap();
            round += 1;
        }
    };
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || build(number));
        }
        for args in [&["prune", "-af"][..], &["prune", "-f", "--max-used-space", "1"], &["du", "--verbose"]] {
            let project = &project;
            scope.spawn(move || {
                while Instant::now() < until {
                    project.kiln(args).ok();
                }
            });
        }
    });
    project.kiln(&["prune", "-af"]).ok();
    let left = |dir: &str| fs::read_dir(project.state().join(dir)).unwrap().count();
    assert_eq!((left("work"), left("tmp"), left("leases"), left("cache-mounts")), (0, 0, 0, 0));
}
