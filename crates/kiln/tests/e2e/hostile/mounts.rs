//! Mounts of steps that want to be somewhere else.

use std::fs;
use std::path::Path;

use kiln_testkit::{Forge, ForgedImage};

use super::attack::{Attack, printed};

fn with_busybox() -> Attack {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    attack
}

/// Every name below a directory.
fn names(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names(&entry.path(), found);
        }
    }
}

#[test]
fn a_link_to_the_root_of_a_stage_or_an_image_is_that_root() {
    for attack in Attack::by_everybody() {
        let link = Forge::new().link("rootdir", "/").link("out", &attack.canary()).end();
        attack.image(ForgedImage::busybox().layer(link));
        let breakout = "test ! -e /x/dev/mem; touch /x/BIND_BREAKOUT; ls /x";
        for from in ["stage", "evil"] {
            let text = |mount: &str, script: &str| {
                format!(
                    "FROM evil AS stage\nFROM evil\nRUN --mount=type=bind,from={from},{mount},target=/x,rw {script}\n"
                )
            };
            attack.build(&text("source=/rootdir", breakout)).ok().says(" BIND_BREAKOUT\n");
            // What was written is gone with the step.
            attack.build(&text("source=/", "ls /x")).ok().never_says(" BIND_BREAKOUT\n");
            attack.build(&text("source=/out", "cat /x/secret")).fails(1).says("`/out`");
        }
        assert!(!Path::new("/BIND_BREAKOUT").exists());
    }
}

#[test]
fn a_cache_mount_leads_nowhere_by_its_name_nor_by_its_source() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        let canary = attack.canary();
        let long = "x".repeat(5000);
        for id in
            ["../../../../../../etc", "..", "/", canary.as_str(), "a;touch", "$(touch$IFS/pwn)", "..;", long.as_str()]
        {
            let mount = format!("--mount=type=cache,id={id},target=/c");
            let run = attack.build(&format!("FROM evil\nRUN {mount} ls -A /c; touch /c/mine\n")).ok();
            run.never_says(" passwd").never_says("secret2");
        }
        let mut found = Vec::new();
        names(&attack.project.state().join("cache-mounts"), &mut found);
        let is_plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        assert!(found.iter().filter(|name| *name == "mine").count() >= 8 && found.iter().all(is_plain), "{found:?}");
        for source in ["../../../../..", &format!("../../../../../..{canary}"), &canary, "out", "out/sub"] {
            let text = format!(
                "FROM evil\nRUN --mount=type=cache,id=c,target=/c ln -sfn {canary} /c/out\n\
                 RUN --mount=type=cache,id=c,source={source},target=/d ls -A /d; cat /d/secret /d/secret2; true\n"
            );
            assert!(attack.build(&text).code <= 1, "{source}");
        }
        // The cache begins as a directory of another stage, which has a link there.
        let text = "FROM evil AS seed\nRUN mkdir /s && ln -s /etc /s/sel\nFROM evil\n\
                    RUN --mount=type=cache,from=seed,source=/s/sel,target=/c cat /c/shadow /c/hostname\n";
        let run = attack.build(text).fails(1);
        let machine = fs::read_to_string("/etc/hostname").unwrap_or_default();
        assert!(machine.trim().is_empty() || !run.stderr.contains(machine.trim()), "{}", run.stderr);
    }
}

#[test]
fn options_of_mounts_are_what_they_say_or_are_refused_before_any_step() {
    let attack = with_busybox();
    attack.project.file("etc/passwd", "the context's own");
    for (mount, said) in [
        ("type=bind,from=evil,source=/,target=/x,rw,bind-propagation=suid", "bind-propagation"),
        ("type=bind,target=/x,rw,shared", "`shared`"),
        ("type=bind,target=/", "target="),
        ("type=tmpfs,target=/x,size=1e30", "`64m`"),
        ("type=tmpfs,target=/x,size=99999999999999999999999", "`64m`"),
        ("type=bind,nope=1,target=/x", "`nope`"),
        ("type=host,source=/etc,target=/x", "`host`"),
    ] {
        let run = attack.build(&format!("FROM evil\nRUN echo first\nRUN --mount={mount} cat /x/shadow\n")).fails(1);
        run.says(said).says("Dockerfile:3").never_says("echo first");
    }
    for target in [
        "/proc",
        "/sys",
        "/dev",
        "/proc/self",
        "/proc/self/fd/3",
        "/proc/1/root",
        "/proc/sys",
        "/sys/fs/cgroup",
        "//proc//",
    ] {
        let run = attack.build(&format!("FROM evil\nRUN --mount=type=tmpfs,target={target} true\n")).fails(1);
        run.says("nothing can be mounted at").says("Dockerfile:2");
    }
    for (target, at) in [("../../x", "/x"), ("/../../../x", "/x"), ("proc/../x", "/x")] {
        let text = format!("FROM evil\nRUN --mount=type=bind,source=/etc,target={target} ls {at}; cat {at}/passwd\n");
        assert_eq!(printed(&attack.build(&text).ok()), ["passwd", "the context's own"]);
    }
    for source in ["/etc/shadow", "../../../../../etc/shadow", "etc/../../../../etc/shadow"] {
        let run =
            attack.build(&format!("FROM evil\nRUN --mount=type=bind,source={source},target=/x cat /x\n")).fails(1);
        run.says("shadow").says("Dockerfile:2");
    }
}

#[test]
fn what_was_made_for_mounts_is_taken_away_and_nothing_else() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        attack.project.file("f", "f");
        let canary = attack.canary();
        let swaps = [
            format!("mv /a /z; ln -s {canary} /a; ln -s {canary} /z/b2; true"),
            format!("rm -rf /a; ln -s {canary} /a; ln -s {canary} /a/b2; true"),
        ];
        for (kind, target) in [
            ("type=tmpfs", "/a/b/c"),
            ("type=cache", "/a/b/c"),
            ("type=bind,source=f", "/a/secret"),
            ("type=secret,id=none", "/a/secret"),
        ] {
            for swap in &swaps {
                let run =
                    attack.build(&format!("FROM evil\nRUN --mount={kind},target={target} {swap}\nRUN find /a\n")).ok();
                let found = printed(&run);
                assert!(found.contains(&"/a"), "{kind}: {found:?}");
                assert!(!found.contains(&"/a/b") && !found.contains(&"/a/secret"), "{kind}: {found:?}");
            }
        }
    }
}
