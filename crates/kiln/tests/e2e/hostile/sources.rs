//! Addresses of repositories and downloads that mean something else to git, to a shell or to a file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use kiln_testkit::{GitServer, HttpServer, Reply};

use super::attack::Attack;

#[test]
fn an_address_of_a_repository_is_no_option_no_command_and_no_path() {
    let (attack, server) = (Attack::new(), GitServer::start());
    let repository = server.repository("app", &[("a/f", "f")]);
    symlink("/", repository.dir().join("proj")).unwrap();
    repository.commit(&[("hooks/post-checkout", "#!/bin/sh\ntouch pwned\n")]);
    let (url, canary) = (server.url("app"), attack.canary());
    let marker = attack.project.path().join("pwned");
    let touch = format!("touch${{IFS}}{}", marker.display());
    for address in [
        format!("{url}#--upload-pack={touch}"),
        format!("{url}#-c{touch}"),
        format!("{url}?ref=--upload-pack={touch}"),
        format!("{url}#;{touch}"),
        format!("{url}#$({touch})"),
        format!("ext::sh -c {touch}"),
        format!("file://{}", server.root().join("app.git").display()),
        format!("ssh://-oProxyCommand={touch}/app.git"),
        format!("git@-oProxyCommand={touch}:app.git"),
    ] {
        let quoted = address.replace('$', "\\$").replace(' ', "\\ ");
        let run = attack.build(&format!("FROM scratch\nADD {quoted} /\n"));
        assert_ne!(run.code, 0, "{address}: {}", run.stderr);
        let run = attack.kiln(&["build", &address]);
        assert_ne!(run.code, 0, "{address}: {}", run.stderr);
    }
    assert!(!marker.exists());
    // The top of a repository is its own.
    for place in ["#main:..", "#main:a/../../..", "?subdir=../../../../../.."] {
        let run = attack.build(&format!("FROM scratch\nADD {url}{place} /\n"));
        assert!(run.code <= 1, "{place}: {}", run.stderr);
    }
    for place in [format!("#main:proj{canary}"), format!("?subdir=../../../../../..{canary}"), "#main:.git".to_owned()]
    {
        attack.build(&format!("FROM scratch\nADD {url}{place} /\n")).fails(1);
    }
}

#[test]
fn a_download_is_named_by_whoever_builds() {
    let attack = Attack::new();
    let secret = attack.secret();
    let header = format!("attachment; filename=\"../../../../../..{secret}\"");
    let server = HttpServer::start(move |request| match request.path.as_str() {
        "/away" => Reply::status(307).with("Location", "file:///etc/shadow"),
        "/local" => Reply::status(307).with("Location", format!("file://{secret}")),
        "/round" => Reply::status(302).with("Location", "/round"),
        _ => Reply::bytes("body").with("Content-Disposition", &*header),
    });
    let out = attack.project.path().join("out");
    let to = format!("type=local,dest={}", out.display());
    for (path, name) in [("/f", Some("f")), ("/a/..", None), ("/..%2f..%2fx", None), ("/", None)] {
        let run = attack.build_with(&format!("FROM scratch\nADD {} /d/\n", server.url(path)), &["-o", &to]);
        let names: Vec<String> = fs::read_dir(out.join("d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert!(names.iter().all(|name| !name.contains('/') && name != ".."), "{names:?}");
        match name {
            Some(name) => assert_eq!(names, [name], "{}", run.stderr),
            None => assert!(run.code <= 1, "{path}: {}", run.stderr),
        }
        let _ = fs::remove_dir_all(&out);
    }
    for path in ["/away", "/local", "/round"] {
        let run = attack.build(&format!("FROM scratch\nADD {} /f\n", server.url(path)));
        assert_ne!(run.code, 0, "{path}: {}", run.stderr);
    }
    assert!(!Path::new(&attack.canary()).join("f").exists());
}
