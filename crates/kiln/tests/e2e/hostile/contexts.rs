//! Contexts that want files of the machine, or have what cannot be read.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_testkit::{Forge, ForgedImage};

use super::attack::{Attack, printed};
use crate::project::{Run, run};

/// Builds what comes on standard input.
#[track_caller]
fn sent(attack: &Attack, bytes: &[u8], args: &[&str]) -> Run {
    let path = attack.project.path().join("stdin");
    fs::write(&path, bytes).unwrap();
    attack.run(attack.project.command().arg("build").args(args).arg("-").stdin(fs::File::open(path).unwrap()))
}

#[test]
fn a_context_that_is_sent_reads_nothing_of_the_machine() {
    for attack in Attack::by_everybody() {
        let secret = attack.secret();
        let up = format!("../../../../../../../..{secret}");
        let plain = "FROM scratch\nCOPY . /\n";
        // Files that lead to the canary, as the Dockerfile, beside it, or as what says what is ignored.
        for link in [&secret, &up] {
            sent(&attack, &Forge::new().link("Dockerfile", link).end(), &[]).fails(1);
            let tar = Forge::new().link(".dockerignore", link).file("Dockerfile", plain).end();
            assert!(sent(&attack, &tar, &[]).code <= 1);
            let tar = Forge::new().link("l", link).file("Dockerfile", "FROM scratch\nCOPY l /f\n").end();
            sent(&attack, &tar, &[]).fails(1).says("`l`");
            sent(&attack, &Forge::new().file("Dockerfile", plain).end(), &["-f", link]).fails(1);
            let broken = Forge::new().link("Dockerfile", link).raw(b"FROM scratch\nCOPY . /\n").cut();
            sent(&attack, &broken, &[]).fails(1);
        }
        sent(&attack, &Forge::new().file("../Dockerfile", plain).end(), &[]).fails(1).says("`../Dockerfile`");
        sent(&attack, b"\x1f\x8bnot a gzip stream", &[]).fails(1);
        sent(&attack, b"", &[]).fails(1);
        sent(&attack, b"FROM scratch\nENV A=1\n", &[]).ok();
    }
}

#[test]
fn a_context_s_links_are_links_and_its_sources_stay_in_it() {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    let secret = attack.secret();
    attack
        .project
        .link("l", &secret)
        .link("up", "..")
        .link("rel", &format!("../../../../../..{secret}"))
        .file("f", "f");
    for source in ["l", "rel", "up/stdout", "../evil", "/../../etc/shadow", "../../../../../../etc/shadow", &secret] {
        for keyword in ["COPY", "ADD"] {
            let run = attack.build(&format!("FROM evil\n{keyword} {source} /x/\n")).fails(1);
            run.says("Dockerfile:2");
        }
    }
    // In a directory they are copied as what they are, and lead nowhere inside.
    let run = attack.build(
        "FROM evil\nCOPY . /c/\nRUN cat /c/l /c/rel 2>/dev/null; cd /c && for l in l up rel; do readlink $l; done\n",
    );
    let rel = format!("../../../../../..{secret}");
    assert_eq!(printed(&run.ok()), [&*secret, "..", &*rel]);
    // Of another stage, and of an image that has such a link: it is followed there.
    let run = attack.build(&format!(
        "FROM evil AS s\nRUN ln -s /etc/passwd /in && ln -s {secret} /out\nFROM evil\nCOPY --from=s /in /p\nCOPY --from=s /out /x\n"
    ));
    run.fails(1).says("/out").says("Dockerfile:5");
    attack.image(ForgedImage::busybox().layer(Forge::new().link("out", &secret).end()));
    attack.build("FROM scratch\nCOPY --from=evil /out /x\n").fails(1).says("/out");
}

#[test]
fn a_dockerfile_is_where_whoever_builds_says_it_is() {
    let attack = Attack::new();
    attack.project.file("f", "f");
    fs::write(attack.project.path().join("Dockerfile"), "FROM scratch\nCOPY f /\n").unwrap();
    attack
        .build_with("FROM scratch\nCOPY none /\n", &["-f", attack.project.path().join("Dockerfile").to_str().unwrap()])
        .ok();
    fs::remove_file(attack.project.context().join("Dockerfile")).unwrap();
    attack.project.link("Dockerfile", &attack.secret());
    let context = attack.project.context();
    // Root may read the link's target, which is no Dockerfile; a message may not show it.
    let run = attack.kiln(&["build", context.to_str().unwrap()]);
    assert!((1..=2).contains(&run.code), "{}", run.stderr);
    for command in ["check", "fmt", "lock"] {
        let run = attack.kiln(&[command, context.to_str().unwrap()]);
        assert!((1..=2).contains(&run.code), "{command}: {}", run.stderr);
    }
    fs::write(attack.project.path().join("stdin"), "FROM scratch\nCOPY f /\n").unwrap();
    let stdin = fs::File::open(attack.project.path().join("stdin")).unwrap();
    attack.run(attack.project.command().args(["build", "-f", "/dev/stdin"]).arg(&context).stdin(stdin)).ok();
}

#[test]
fn what_cannot_be_read_in_a_context_hangs_nothing() {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    run(Command::new("mkfifo").arg(attack.project.context().join("pipe"))).ok();
    run(Command::new("mknod").arg(attack.project.context().join("node")).args(["c", "1", "5"])).ok();
    let _socket = std::os::unix::net::UnixListener::bind(attack.project.context().join("socket")).unwrap();
    for step in ["COPY . /c/", "COPY pipe /c", "COPY node /c", "COPY socket /c", "ADD pipe node /c/", "ADD . /c/"] {
        let start = Instant::now();
        assert!(attack.build(&format!("FROM evil\n{step}\n")).code <= 1, "{step}");
        assert!(start.elapsed() < Duration::from_secs(5), "{step}: {:?}", start.elapsed());
    }
    attack.build("FROM evil\nRUN --mount=target=/c ls /c; timeout 1 head -c 1 /c/node; true\n").ok();
    // A Dockerfile is a file. What is named with `-f` may be a pipe, which is waited for.
    for odd in ["pipe", "node", "socket"] {
        let start = Instant::now();
        fs::remove_file(attack.project.context().join("Dockerfile")).unwrap();
        fs::rename(attack.project.context().join(odd), attack.project.context().join("Dockerfile")).unwrap();
        let run = attack.kiln(&["build", attack.project.context().to_str().unwrap()]);
        assert!((1..=3).contains(&run.code), "{odd}: {}", run.stderr);
        assert!(start.elapsed() < Duration::from_secs(5), "{odd}: {:?}", start.elapsed());
    }
}

#[test]
fn what_is_ignored_is_in_no_step_and_an_ignore_file_is_not_shown() {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    let secret = fs::read_to_string(attack.secret()).unwrap();
    for file in ["a.env", "keep.env", "src/id_rsa", "secret/x"] {
        attack.project.file(file, if file == "keep.env" { "kept" } else { &*secret });
    }
    attack.project.file(".dockerignore", "*.env\n!keep.env\n**/id_rsa\nsecret/\n");
    let look = "RUN --mount=target=/c find /c -type f | sort; grep -r . /c/keep.env\n";
    let run = attack.build(&format!("FROM evil\nCOPY . /d/\nADD . /e/\nRUN find /d /e -name '*.env'\n{look}")).ok();
    let expected = ["/d/keep.env", "/e/keep.env", "/c/.dockerignore", "/c/Dockerfile", "/c/keep.env", "kept"];
    assert_eq!(printed(&run), expected);
    for hidden in ["secret/x", "a.env", "src/id_rsa"] {
        attack.build(&format!("FROM evil\nCOPY {hidden} /\n")).fails(1).says(".dockerignore");
        attack
            .build(&format!("FROM evil\nRUN --mount=source={hidden},target=/m cat /m\n"))
            .fails(1)
            .says(".dockerignore");
    }
    fs::remove_file(attack.project.context().join(".dockerignore")).unwrap();
    attack.project.link(".dockerignore", &attack.secret());
    for file in ["a.env", "src/id_rsa", "secret/x"] {
        attack.project.file(file, "plain");
    }
    assert!(attack.build("FROM evil\nCOPY . /d/\nRUN cat /d/.dockerignore; true\n").code <= 1);
}
