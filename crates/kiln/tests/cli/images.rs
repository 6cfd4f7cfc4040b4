//! Images once they are there: listed, named, told about, moved, run, removed.

use crate::{Kiln, stable};

/// A store with one image, `app:1`, that runs.
fn with_app() -> Option<Kiln> {
    let kiln = Kiln::with_busybox()?;
    let text = "FROM scratch\nCOPY --from=tools / /\nENV A=b\nWORKDIR /w\nLABEL x.y=z\nCMD [\"sh\", \"-c\", \"echo $A in $PWD\"]\n";
    kiln.file("ctx/Dockerfile", text);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=0"];
    let answer = kiln.run(&[&["build", "-t", "app:1", "--build-context", "tools=root", "ctx"], &epoch[..]].concat());
    assert_eq!(answer.code, 0, "{answer}");
    Some(kiln)
}

#[test]
fn names_come_and_go() {
    let Some(kiln) = with_app() else { return };
    assert_eq!(kiln.run(&["tag", "app:1", "localhost:1/app"]).code, 0);
    assert_eq!(kiln.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout, "app:1\nlocalhost:1/app:latest\n");
    insta::assert_snapshot!(stable(&kiln.run(&["rmi", "app:1"])), @"
    exit 0
    --- stdout
    Untagged: app:1
    ");
    insta::assert_snapshot!(stable(&kiln.run(&["rmi", "localhost:1/app"])), @"
    exit 0
    --- stdout
    Untagged: localhost:1/app:latest
    Deleted: sha256:HEX
    ");
    insta::assert_snapshot!(stable(&kiln.run(&["rmi", "gone"])), @"
    exit 1
    --- stderr
    error: no such image: `gone`
    hint: build it, or fetch it with `kiln pull gone`
    ");
    assert_eq!(kiln.run(&["rmi", "-f", "gone"]).code, 0);
    assert_eq!(kiln.run(&["images", "-q"]).stdout, "");
}

#[test]
fn an_image_tells_how_it_came_to_be() {
    let Some(kiln) = with_app() else { return };
    let history =
        kiln.run(&["history", "--format", "{{.CreatedBy}}|{{if eq .Size \"0B\"}}empty{{else}}layer{{end}}", "app:1"]);
    insta::assert_snapshot!(history, @r#"
    exit 0
    --- stdout
    CMD ["sh" "-c" "echo $A in $PWD"]|empty
    LABEL x.y=z|empty
    WORKDIR /w|empty
    ENV A=b|empty
    COPY / / # buildkit|layer
    "#);
    let format =
        "{{.Config.WorkingDir}} {{json .Config.Cmd}} {{index .Config.Labels \"x.y\"}} {{.Os}} {{len .RootFS.Layers}}";
    insta::assert_snapshot!(kiln.run(&["inspect", "--format", format, "app:1"]), @r#"
    exit 0
    --- stdout
    /w ["sh","-c","echo $A in $PWD"] z linux 2
    "#);
    insta::assert_snapshot!(kiln.run(&["inspect", "none"]), @"
    exit 1
    --- stdout
    []
    --- stderr
    error: no such image: `none`
    hint: build it, or fetch it with `kiln pull none`
    ");
}

#[test]
fn an_archive_carries_an_image_to_another_store() {
    let Some(kiln) = with_app() else { return };
    let id = kiln.run(&["images", "-q", "--no-trunc"]).stdout;
    kiln.file("victim", "kept");
    std::os::unix::fs::symlink("victim", kiln.path().join("app.tar.part")).unwrap();
    assert_eq!(kiln.run(&["save", "-o", "app.tar", "app:1"]).code, 0);
    assert_eq!(std::fs::read_to_string(kiln.path().join("victim")).unwrap(), "kept");
    let load =
        |args: &[&str]| kiln.answer(kiln.command(args).env("KILN_STATE", kiln.path().join("other")).output().unwrap());
    insta::assert_snapshot!(load(&["load", "-i", "app.tar"]), @"
    exit 0
    --- stdout
    Loaded image: app:1
    ");
    assert_eq!(load(&["load", "-q", "-i", "app.tar"]).stdout, "Loaded image: app:1\n", "as docker has it");
    assert_eq!(load(&["images", "-q", "--no-trunc"]).stdout, id);
    assert_eq!(load(&["run", "app:1"]).stdout, "b in /w\n");
}

#[test]
fn what_is_loaded_and_holds_no_image_is_told_how_to_become_one() {
    let kiln = Kiln::new();
    let header = |name: &str, kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        header
    };
    let mut tree = tar::Builder::new(Vec::new());
    tree.append(&header("etc/passwd", tar::EntryType::Regular), std::io::empty()).unwrap();
    tree.append(&header("dev/null", tar::EntryType::Char), std::io::empty()).unwrap();
    std::fs::write(kiln.path().join("tree.tar"), tree.into_inner().unwrap()).unwrap();
    insta::assert_snapshot!(kiln.run(&["load", "-i", "tree.tar"]), @"
    exit 1
    --- stderr
    error: cannot read archive `the archive`: it has neither `oci-layout` and `index.json` nor `manifest.json`
    hint: make an image of it if it is a tree of files: put it into a directory beside a Dockerfile with `FROM scratch` and `ADD FILE /`, and run `kiln build`
    ");
}

#[test]
fn a_save_that_fails_leaves_no_file() {
    let kiln = Kiln::new();
    let answer = kiln.run(&["save", "-o", "none.tar", "none"]);
    assert_ne!(answer.code, 0);
    let left: Vec<_> = std::fs::read_dir(kiln.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "state"), "{left:?}");
}

#[test]
fn a_container_has_its_streams_and_its_exit_code() {
    let Some(kiln) = with_app() else { return };
    kiln.file("data/f", "on the machine\n");
    let data = kiln.path().join("data").to_string_lossy().into_owned();
    let script = "cat /d/f; echo $A $B >&2; pwd; id -u; exit 7";
    let volume = format!("{data}:/d:ro");
    let args = ["run", "--rm", "-e", "B=c", "-w", "/tmp/x", "-u", "5:6", "-v", &volume, "app:1", "sh", "-c", script];
    insta::assert_snapshot!(kiln.run(&args), @"
    exit 7
    --- stdout
    on the machine
    /tmp/x
    5
    --- stderr
    b c
    ");
    assert_eq!(kiln.run(&["run", "app:1"]).stdout, "b in /w\n");
    assert_eq!(kiln.run(&["run", "--entrypoint", "echo", "app:1", "--rm"]).stdout, "--rm\n");
    insta::assert_snapshot!(kiln.run(&["run", "none"]), @"
    exit 1
    --- stderr
    error: no such image: `none`
    hint: build it, or fetch it with `kiln pull none`
    ");
}
