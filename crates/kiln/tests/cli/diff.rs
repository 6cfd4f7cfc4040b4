//! `kiln diff` and `kiln verify`.

use crate::{Kiln, stable};

/// A store with `one` and `two`, which differ in a variable, a file, a mode and a package.
fn with_two() -> Option<Kiln> {
    let kiln = Kiln::that_builds()?;
    let status = |version: &str| format!("Package: curl\nStatus: install ok installed\nVersion: {version}\n");
    for (name, version, mode) in [("one", "1.0", "644"), ("two", "1.1", "600")] {
        kiln.file(&format!("{name}/f"), "the same\n");
        kiln.file(&format!("{name}/status"), &status(version));
        let text = format!(
            "FROM scratch\nENV A={name} B=b\nCOPY f /same\nCOPY --chmod={mode} f /f\nCOPY status /var/lib/dpkg/status\n\
             COPY f /{name}/deep/f\n"
        );
        kiln.file(&format!("{name}/Dockerfile"), &text);
        let answer = kiln.run(&["build", "--build-arg", "SOURCE_DATE_EPOCH=0", "-t", name, name]);
        assert_eq!(answer.code, 0, "{answer}");
    }
    Some(kiln)
}

#[test]
fn what_differs_is_told_in_parts() {
    let Some(kiln) = with_two() else { return };
    insta::assert_snapshot!(stable(&kiln.run(&["diff", "--ignore", "mtime", "one", "two"])), @"
    exit 1
    --- stdout
    config
      ~ Env.A: one → two
    history
      - ENV A=one B=b
      + ENV A=two B=b
      - COPY --chmod=644 f /f # buildkit
      + COPY --chmod=600 f /f # buildkit
      - COPY f /one/deep/f # buildkit
      + COPY f /two/deep/f # buildkit
    layers
      - sha256:HEX, layer 2
      - sha256:HEX, layer 3
      - sha256:HEX, layer 4
      + sha256:HEX, layer 2
      + sha256:HEX, layer 3
      + sha256:HEX, layer 4
    packages
      ~ deb curl N → N
    files: 3 added (9B), 3 removed (9B), 2 changed
      ~ /f: mode 0644 → 0600
      - /one/, 2 in it, 9B
      + /two/, 2 in it, 9B
      ~ /var/lib/dpkg/status: content
    ");
    insta::assert_snapshot!(stable(&kiln.run(&["diff", "--semantic", "--ignore=mode,content", "one", "two"])), @"
    exit 1
    --- stdout
    config
      ~ Env.A: one → two
    packages
      ~ deb curl N → N
    files: 3 added (9B), 3 removed (9B)
      - /one/, 2 in it, 9B
      + /two/, 2 in it, 9B
    ");
    let json = kiln.run(&["diff", "--semantic", "--format=json", "one", "two"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let json = &json["platforms"][0];
    assert_eq!(
        json["files"][0],
        serde_json::json!(
        {"path": "/f", "differs": ["mode"],
         "before": {"kind": "file", "mode": "0644", "uid": 0, "gid": 0, "size": 9, "mtime": json["files"][0]["before"]["mtime"]},
         "after": {"kind": "file", "mode": "0600", "uid": 0, "gid": 0, "size": 9, "mtime": json["files"][0]["after"]["mtime"]}})
    );
    assert_eq!(json["packages"], serde_json::json!([{"kind": "deb", "name": "curl", "before": "1.0", "after": "1.1"}]));
}

#[test]
fn images_of_archives_and_layouts_are_compared_with_those_of_the_store() {
    let Some(kiln) = with_two() else { return };
    assert_eq!(kiln.run(&["save", "-o", "one.tar", "one"]).code, 0);
    for output in ["type=oci,dest=oci.tar", "type=oci,tar=false,dest=layout"] {
        let answer = kiln.run(&["build", "--build-arg", "SOURCE_DATE_EPOCH=0", "-o", output, "two"]);
        assert_eq!(answer.code, 0, "{answer}");
    }
    for (before, after, code) in [
        ("one", "one", 0),
        ("one", "docker-archive:one.tar", 0),
        ("two", "oci-archive:oci.tar", 0),
        ("oci:layout", "two", 0),
        ("one", "oci:layout", 1),
    ] {
        let answer = kiln.run(&["diff", "-q", before, after]);
        assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.as_str()), (code, "", ""), "{before} {after}");
    }
    // Nothing of it got a name here.
    assert_eq!(kiln.run(&["images", "-q"]).stdout.lines().count(), 2);
}

#[test]
fn an_image_that_is_not_there_is_no_difference() {
    let kiln = Kiln::new();
    let answer = kiln.run(&["diff", "127.0.0.1:9/none", "none"]);
    assert_eq!(answer.code, 2, "{answer}");
    assert!(answer.stderr.contains("no such image: `127.0.0.1:9/none`"), "{answer}");
    assert_eq!(kiln.run(&["diff", "oci-archive:none.tar", "none"]).code, 3);
}

#[test]
fn a_platform_an_image_is_not_for_is_no_difference() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("c/Dockerfile", "FROM scratch\nLABEL a=b\n");
    for args in [&["-t", "app"][..], &["-o", "type=oci,dest=app.tar"]] {
        let answer = kiln.run(&[&["build", "--platform=linux/amd64"], args, &["c"]].concat());
        assert_eq!(answer.code, 0, "{answer}");
    }
    assert_eq!(kiln.run(&["diff", "-q", "--platform=linux/amd64", "app", "app"]).code, 0);
    let answer = kiln.run(&["diff", "--platform=linux/s390x", "app", "app"]);
    assert_eq!(answer.code, 2, "{answer}");
    assert!(answer.stderr.contains("image `app` is not here for `linux/s390x`, but for `linux/amd64`"), "{answer}");
    let answer = kiln.run(&["diff", "--platform=linux/s390x", "oci-archive:app.tar", "app"]);
    assert_eq!(answer.code, 2, "{answer}");
    assert!(answer.stderr.contains("is not for `linux/s390x`, but for `linux/amd64`"), "{answer}");
    let answer = kiln.run(&["diff", "app", "docker://127.0.0.1:9/a:1"]);
    assert_eq!(answer.code, 2, "{answer}");
    assert!(answer.stderr.contains("hint: leave out `docker://`: `127.0.0.1:9/a:1`"), "{answer}");
}

#[test]
fn what_a_verification_has_no_use_for_is_refused_by_name() {
    let kiln = Kiln::new();
    kiln.file("c/Dockerfile", "FROM scratch\nLABEL a=b\n");
    let refused = [
        &["--check"][..],
        &["--dry-run"],
        &["--call=outline"],
        &["--iidfile", "x"],
        &["--metadata-file", "x"],
        &["--push"],
        &["--output", "x"],
        &["--load"],
        &["--tag", "x"],
        &["--quiet"],
    ];
    for args in refused {
        let answer = kiln.run(&[&["verify"], args, &["c"]].concat());
        let name = args[0].split('=').next().unwrap();
        assert_eq!((answer.code, answer.stdout.as_str()), (2, ""), "{answer}");
        assert!(answer.stderr.contains(&format!("`kiln verify` takes no `{name}`: ")), "{answer}");
    }
    let help = kiln.run(&["verify", "--help"]);
    assert!(!help.stdout.contains("--metadata-file") && help.stdout.contains("--reproducible"), "{help}");
}

#[test]
fn a_build_that_fails_is_not_one_that_differs() {
    let Some(kiln) = Kiln::that_builds() else { return };
    kiln.file("c/Dockerfile", "FROM scratch\nCOPY none /\n");
    let answer = kiln.run(&["verify", "--progress=plain", "c"]);
    assert_eq!(answer.code, 2, "{answer}");
    kiln.file("c/Dockerfile", "FROM scratch\nLABEL a=b\n");
    let answer = kiln.run(&["verify", "--progress=plain", "c"]);
    assert_eq!(answer.code, 1, "{answer}");
    assert!(answer.stdout.contains("hint: build with `--reproducible`"), "{answer}");
    assert_eq!(kiln.run(&["verify", "--reproducible", "--progress=plain", "c"]).code, 0);
}

/// Images of two platforms: `old`, and `new` in which the one for arm64 differs.
fn with_indexes() -> Option<Kiln> {
    let kiln = Kiln::that_builds()?;
    for name in ["f", "amd64", "arm64"] {
        kiln.file(&format!("c/{name}"), name);
    }
    for (name, source) in [("old", "f"), ("new", "$TARGETARCH")] {
        kiln.file("c/Dockerfile", &format!("FROM scratch\nARG TARGETARCH\nCOPY f /f\nCOPY {source} /g\n"));
        if name == "new" {
            kiln.file("c/amd64", "f");
        }
        let flags = ["build", "--reproducible", "--platform=linux/amd64,linux/arm64", "-t", name, "c"];
        let answer = kiln.run(&flags);
        assert_eq!(answer.code, 0, "{answer}");
    }
    Some(kiln)
}

#[test]
fn all_platforms_of_indexes_are_compared() {
    let Some(kiln) = with_indexes() else { return };
    let semantic = ["diff", "--ignore=history,layers", "old", "new"];
    insta::assert_snapshot!(stable(&kiln.run(&semantic)), @"
    exit 1
    --- stdout
    linux/arm64
      files: 1 changed
        ~ /g: content 1B → 5B
    ");
    for (args, code) in [
        (&["-q", "old", "new"][..], 1),
        (&["-q", "old", "old"], 0),
        (&["-q", "--semantic", "--platform=linux/amd64", "old", "new"], 0),
        (&["-q", "--semantic", "--platform=linux/arm64", "old", "new"], 1),
        (&["-q", "--semantic", "--platform=linux/amd64,linux/arm64", "old", "new"], 1),
        (&["--platform=linux/s390x", "old", "new"], 2),
    ] {
        let answer = kiln.run(&[&["diff"], args].concat());
        assert_eq!((answer.code, answer.stdout.as_str()), (code, ""), "{args:?} {answer}");
    }
    // One that is for fewer platforms.
    let build = ["build", "--reproducible", "--platform=linux/amd64", "-o", "type=oci,dest=one.tar", "-t", "one", "c"];
    assert_eq!(kiln.run(&build).code, 0);
    insta::assert_snapshot!(stable(&kiln.run(&["diff", "new", "oci-archive:one.tar"])), @"
    exit 1
    --- stdout
    platforms
      - linux/arm64 sha256:HEX
    ");
    let answer = kiln.run(&["diff", "--format=json", "oci-archive:one.tar", "new"]);
    let told: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.code, told["platforms"].as_array().unwrap().len()), (1, 1), "{answer}");
    assert_eq!(told["alone"][0]["platform"], "linux/arm64", "{answer}");
    assert_eq!(told["alone"][0]["before"], serde_json::Value::Null, "{answer}");
    assert_eq!(kiln.run(&["diff", "-q", "--platform=linux/amd64", "new", "oci-archive:one.tar"]).code, 0);
}

#[test]
fn every_platform_of_an_image_is_verified() {
    let Some(kiln) = with_indexes() else { return };
    let verify = |args: &[&str]| kiln.run(&[&["verify", "--progress=plain"], args].concat());
    let told = verify(&["new"]);
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert!(told.code == 0 && lines[0].starts_with("linux/amd64: reproducible: sha256:"), "{told}");
    assert!(lines.len() == 2 && lines[1].starts_with("linux/arm64: reproducible: sha256:"), "{told}");
    kiln.file("c/arm64", "changed");
    let told = verify(&["new"]);
    let place = told.stdout.find("linux/arm64: not reproducible").unwrap_or_else(|| panic!("{told}"));
    assert!(told.code == 1 && told.stdout.starts_with("linux/amd64: reproducible: "), "{told}");
    assert!(
        told.stdout[place..].contains("/g: content 5B → 7B") && told.stdout.contains("COPY arm64 /g, line 4"),
        "{told}"
    );
    assert!(told.stdout.contains("the context has another file now"), "{told}");
    assert_eq!(verify(&["--platform=linux/amd64", "new"]).code, 0);
    assert_eq!(verify(&["--platform=linux/arm64", "new"]).code, 1);
    let answer = verify(&["--platform=linux/s390x", "new"]);
    assert_eq!(answer.code, 2, "{answer}");
    assert!(answer.stderr.contains("image `new` is not here for `linux/s390x`"), "{answer}");
    // Of a context, too; and of an archive, which knows the images by other digests than the store.
    let answer = verify(&["--reproducible", "--platform=linux/amd64,linux/arm64", "--format=json", "c"]);
    let told: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.code, told["is_reproducible"].as_bool()), (0, Some(true)), "{answer}");
    let platforms: Vec<_> = told["platforms"].as_array().unwrap().iter().map(|image| &image["platform"]).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let build = ["build", "--reproducible", "--platform=linux/amd64,linux/arm64", "-o", "type=oci,dest=new.tar", "c"];
    assert_eq!(kiln.run(&build).code, 0);
    assert_eq!(verify(&["oci-archive:new.tar"]).code, 0);
    assert_eq!(verify(&["--platform=linux/arm64", "oci-archive:new.tar"]).code, 0);
}
