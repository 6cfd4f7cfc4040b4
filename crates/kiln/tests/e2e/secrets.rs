//! Secrets that would end in an image, a log or the state directory.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use kiln_testkit::{GitServer, HttpServer, Registry, Reply};

use crate::project::{Project, Run, run};
use crate::ssh::key;

const VALUE: &str = "TOKEN-9c1e44aa77+/x";
const MOUNT: &str = "RUN --mount=type=secret,id=a,required";

/// A project, and the flag that lends a secret.
fn with_secret(value: &str) -> (Project, String) {
    let project = Project::new();
    fs::write(project.path().join("s"), value).unwrap();
    let lent = format!("id=a,src={}", project.path().join("s").display());
    (project, lent)
}

/// Whether a file below this directory holds a text.
fn holds(dir: &Path, text: &str) -> bool {
    let found = Command::new("grep").args(["-rlaF", "-e", text]).arg(dir).output().unwrap();
    !found.stdout.is_empty()
}

fn build(project: &Project, lent: &str, more: &[&str]) -> Run {
    project.build(&[&["--secret", lent], more].concat())
}

#[test]
fn a_step_that_leaves_a_secret_fails_in_whatever_form_it_does_and_nothing_is_kept() {
    let (project, lent) = with_secret(&format!("{VALUE}\n"));
    let s = "/run/secrets/a";
    for (script, place) in [
        (format!("cp {s} /leak"), "`/leak`, line 1, holds it as it is"),
        (format!("printf 'x=%s' $(cat {s}) > /leak"), "`/leak`, line 1, holds it as it is"),
        (format!("(echo padding; cat {s}) | base64 > /leak"), "`/leak`, line 1, holds it in base64"),
        (format!("xxd -p {s} > /leak"), "`/leak`, line 1, holds it in hex"),
        (format!("(head -c 99999 /dev/zero; cat {s}) | gzip > /leak.gz"), "`/leak.gz`, unpacked, holds it as it is"),
        (format!("mkdir /d && cp {s} /d/f && tar -czf /d.tgz d && rm -r /d"), "`/d.tgz`, unpacked, holds it as it is"),
        (format!("touch /$(base64 {s} | tr +/ -_)"), "the name of a file in `/` holds it in base64"),
        (format!("ln -s $(cat {s}) /link"), "the link `/link` holds it as it is"),
    ] {
        project.dockerfile(&format!("FROM busybox\nRUN true\n{MOUNT} {script}\nRUN touch /after\n"));
        let run = build(&project, &lent, &[]).fails(1).never_says(VALUE).never_says("] RUN touch /after DONE");
        run.says("secret `a` is in what the step leaves").says(place).says("Dockerfile:3").says("--allow-leak a");
        assert!(!holds(&project.state(), VALUE), "{script}");
        // Nor is there a result that another build would use.
        build(&project, &lent, &[]).fails(1).says(place);
    }
    project.dockerfile(&format!(
        "FROM busybox\n{MOUNT} cp {s} /x && wc -c < /x && rm /x && cp {s} /tmp/y && shred -u /tmp/y || rm -f /tmp/y\n"
    ));
    build(&project, &lent, &[]).ok();
}

#[test]
fn secrets_are_found_that_came_by_other_ways_than_the_step_s_own_mounts() {
    let (project, lent) = with_secret(VALUE);
    // By a variable, and by a cache mount that an earlier step filled.
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=a,env=T echo \"t=$T\" > /etc/conf\n");
    build(&project, &lent, &[]).fails(1).says("`/etc/conf`, line 1,");
    let cache = "--mount=type=cache,target=/c";
    project.dockerfile(&format!(
        "FROM busybox\nRUN --mount=type=secret,id=a {cache} cp /run/secrets/a /c/kept\nRUN {cache} cp /c/kept /leak\n"
    ));
    build(&project, &lent, &[]).fails(1).says("`/leak`").says("Dockerfile:3");
    assert!(holds(&project.state(), VALUE));
    // What outlives the layer is told with it.
    let both = "--mount=type=cache,id=deps,target=/d --mount=type=cache,id=clean,target=/e";
    project.dockerfile(&format!(
        "FROM busybox\nRUN --mount=type=secret,id=a {both} cp /run/secrets/a /d/kept && cp /d/kept /leak && touch /e/x\n"
    ));
    let run = build(&project, &lent, &[]).fails(1).says("`kiln cache mounts rm deps`").never_says("`clean`");
    run.says("cache mount `deps` holds it, too").never_says(VALUE);
    project.kiln(&["cache", "mounts", "rm", "/c", "deps"]).ok();
    assert!(!holds(&project.state(), VALUE));
    // By the context, and by the Dockerfile itself.
    project.file(".npmrc", format!("//r/:_authToken={VALUE}\n")).dockerfile("FROM busybox\nCOPY . /app/\n");
    build(&project, &lent, &[]).fails(1).says("`/app/.npmrc`, line 1,").says("Dockerfile:2");
    project.dockerfile("FROM busybox\nARG T\nENV TOKEN=$T\n");
    let run = build(&project, &lent, &["--build-arg", &format!("T={VALUE}")]).fails(1);
    run.says("secret `a` is in the image's config").says("`config.Env[");
    project.dockerfile("FROM busybox\nARG T\nLABEL token=$T\n");
    build(&project, &lent, &["--build-arg", &format!("T={VALUE}")]).fails(1).says("`config.Labels.token`");
    project.dockerfile("FROM busybox\nRUN touch /after\n");
    let run = build(&project, &lent, &["--annotation", &format!("by=x {VALUE}")]).fails(1).never_says(VALUE);
    run.says("secret `a` is in the image's annotations")
        .says("annotation `by` holds it")
        .never_says("touch /after DONE");
    // Keys that are lent for ssh.
    let path = key(project.path(), "ed25519", "");
    fs::copy(&path, project.context().join("id_rsa")).unwrap();
    fs::copy(path.with_extension("pub"), project.context().join("key.pub")).unwrap();
    let ssh = format!("default={}", path.display());
    project.dockerfile("FROM busybox\nCOPY id_rsa /root/.ssh/\n");
    project.build(&["--ssh", &ssh]).fails(1).says("the ssh key of `default` is in what the step leaves");
    project.dockerfile("FROM busybox\nCOPY key.pub /root/.ssh/\n").build(&["--ssh", &ssh]).ok();
}

#[test]
fn a_leak_that_is_accepted_is_told_and_is_no_result_for_others() {
    let (project, lent) = with_secret(VALUE);
    project.dockerfile(&format!("FROM busybox\n{MOUNT} cp /run/secrets/a /leak\nRUN touch /after\n"));
    let told = "warning: secret `a` is in the image, as was allowed: `/leak`, line 1, holds it as it is";
    build(&project, &lent, &["--allow-leak", "a"]).ok().says(told);
    assert_eq!(project.sh("cat /leak"), VALUE);
    assert!(build(&project, &lent, &["--allow-leak", "a"]).ok().cached() >= 2);
    build(&project, &lent, &[]).fails(1).says("`/leak`");
    // What is not lent cannot be accepted, and nobody gets it who did not accept it.
    build(&project, &lent, &["--allow-leak", "b"]).fails(2).says("nothing is lent by the id `b`");
    let cache = format!("type=local,dest={}", project.path().join("cache").display());
    build(&project, &lent, &["--allow-leak", "a", "--cache-to", &cache]).fails(2).says("`--cache-to`");
}

#[test]
fn short_secrets_and_what_only_looks_like_one_break_no_build() {
    let (project, lent) = with_secret("true\n");
    project.file("conf", "debug = true\n").dockerfile(&format!("FROM busybox\nCOPY conf /\n{MOUNT} true > /t\n"));
    build(&project, &lent, &[]).ok();
    let npmrc = format!("registry=https://npm.acme.dev/\n//npm.acme.dev/:_authToken={VALUE}\n");
    fs::write(project.path().join("s"), &npmrc).unwrap();
    project.file("conf", "registry=https://npm.acme.dev/\n");
    build(&project, &lent, &[]).ok();
    project.file("conf", format!("token: {VALUE}\n"));
    build(&project, &lent, &[]).fails(1).says("`/conf`, line 1,");
}

#[test]
fn encoded_secrets_are_masked_in_logs_of_all_steps() {
    let (project, lent) = with_secret(VALUE);
    let cache = "--mount=type=cache,target=/c";
    project.dockerfile(&format!(
        "FROM busybox\n{MOUNT} {cache} cp /run/secrets/a /c/s && base64 /c/s && xxd -p /c/s && echo \"$(cat /c/s)\" | sed 's/+/%2B/;s,/,%2F,'\n\
         RUN {cache} cat /c/s; (echo x; cat /c/s) | base64\n"
    ));
    for progress in ["plain", "rawjson"] {
        let run = build(&project, &lent, &["--no-cache", "--progress", progress]).ok().never_says(VALUE);
        // In base64 what stands before decides how it looks: these are the parts that all ways of writing have.
        for form in ["VE9LRU4tOWMxZTQ0YWE3Nysv", "544f4b454e2d", "TOKEN-9c1e44aa77%2B%2Fx", "T0tFTi05YzFlNDRhYTc3Ky"] {
            assert!(!run.stderr.contains(form) && !run.stdout.contains(form), "{form}: {}", run.stderr);
        }
    }
}

/// All bytes below a directory, and what of them is packed with zstd, as records are.
fn everything(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(everything(&entry.path())),
            kind if kind.is_file() => all.extend(fs::read(entry.path()).unwrap()),
            _ => {}
        }
        all.extend(entry.path().into_os_string().into_encoded_bytes());
    }
    let frames: Vec<usize> =
        (0..all.len().saturating_sub(4)).filter(|at| all[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd])).collect();
    for at in frames {
        let mut text = Vec::new();
        // Pages of the database cut long ones; their beginnings are something.
        let _ = zstd::Decoder::new(&all[at..]).map(|frame| frame.take(1 << 20).read_to_end(&mut text));
        all.extend(text);
    }
    all
}

/// Insists that none of these is in there.
#[track_caller]
fn are_nowhere(values: &[&str], place: &str, bytes: &[u8]) {
    for value in values {
        let found = bytes.windows(value.len()).position(|window| window == value.as_bytes());
        let around = found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]).into_owned());
        assert_eq!(around, None, "`{value}` is in {place}");
    }
}

#[test]
fn no_credential_is_at_rest_or_said_whether_a_build_succeeds_or_fails() {
    let Some(registry) = Registry::with_login() else { return };
    let (git, project) = (GitServer::start(), Project::new());
    let files = HttpServer::start(|request| match request.header("authorization") {
        // `w:PASS-5512`
        Some("Basic dzpQQVNTLTU1MTI=") => Reply::bytes("served"),
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"test\""),
    });
    git.require("Basic dTpQQVNTLTU1MTE=");
    let with = |url: String, login: &str| url.replace("http://", &format!("http://{login}@"));
    let (user, password) = Registry::login();
    let mut login = project.command();
    fs::write(project.path().join("stdin"), password).unwrap();
    login.args(["login", "-u", user, "--password-stdin", &registry.host()]);
    run(login.stdin(fs::File::open(project.path().join("stdin")).unwrap())).ok();
    let file = with(files.url("/f"), "w:PASS-5512");
    let steps = "RUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B --mount=type=ssh \
        cat /run/secrets/a; echo \"$B\" | base64; env; test -S $SSH_AUTH_SOCK && exit $FAIL\n";
    let dockerfile = format!("FROM busybox\nARG FAIL\nADD {file} /f\n{steps}");
    git.repository("app", &[("x", "x")]);
    fs::write(project.path().join("stdin"), dockerfile).unwrap();
    for (name, value) in [("a", "SECRET-5515-aaaa\n"), ("b", "SECRET-5516-bbbb")] {
        fs::write(project.path().join(name), value).unwrap();
    }
    let ssh = key(project.path(), "ed25519", "");
    let key = fs::read_to_string(&ssh).unwrap();
    let key = key.lines().nth(3).unwrap();
    let values = [
        "PASS-5511",
        "dTpQQVNTLTU1MTE",
        "PASS-5512",
        "dzpQQVNTLTU1MTI",
        "PASS-5513",
        password,
        "SECRET-5515",
        "SECRET-5516",
        "U0VDUkVULTU1MT",
        key,
    ];
    let context = with(git.url("app"), "u:PASS-5511");
    let cache = format!("type=registry,ref={}/cache,mode=max", registry.host());
    for (progress, fail, code) in [("plain", "0", 0), ("rawjson", "3", 1), ("plain", "4", 1)] {
        let mut build = project.command();
        // Whatever asks for more to be said.
        build
            .env("RUST_LOG", "trace")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", files.url("/otel"))
            .env("BUILDKIT_DEBUG", "1");
        build.args(["--debug", "build", "--progress", progress, "--push", "-t", &format!("{}/app", registry.host())]);
        build.args(["--cache-to", &cache, "--build-arg", &format!("FAIL={fail}")]);
        build.args(["--secret", "id=a,src=a", "--secret", "id=b,src=b", "--metadata-file", "metadata"]);
        build.arg("--ssh").arg(format!("default={}", ssh.display())).args(["-f", "-", &context]);
        build.stdin(fs::File::open(project.path().join("stdin")).unwrap());
        build.env("HTTPS_PROXY", "http://p:PASS-5513@127.0.0.1:9").env("NO_PROXY", "127.0.0.1");
        let run = run(&mut build).fails(code);
        are_nowhere(&values, "what is said", run.stderr.as_bytes());
        are_nowhere(&values, "what is printed", run.stdout.as_bytes());
    }
    are_nowhere(&values, "the metadata", &fs::read(project.path().join("metadata")).unwrap());
    are_nowhere(&values, "the state directory", &everything(&project.state()));
    are_nowhere(&values, "the registry", &everything(&registry.storage()));
    for args in [&["builds"][..], &["explain"], &["explain", "--format=json"], &["history", "--no-trunc", "busybox"]] {
        let run = project.kiln(args);
        are_nowhere(&values, "a record", run.stdout.as_bytes());
    }
    assert!(git.requests().iter().any(|request| request.header("authorization").is_some()));
    assert!(files.requests().iter().any(|request| request.header("authorization").is_some()));
}

#[test]
fn passwords_that_break_their_url_are_nowhere_either() {
    let project = Project::new();
    let values = ["SLASH-5521", "QUERY-5522", "HASH-5523", "AT-5524", "PROXY-5525"];
    for (password, progress) in
        [("x/SLASH-5521", "plain"), ("x?QUERY-5522", "rawjson"), ("x#HASH-5523", "plain"), ("x@AT-5524", "rawjson")]
    {
        let url = format!("http://user:{password}@127.0.0.1:9");
        for (dockerfile, context) in [
            (format!("FROM busybox\nADD {url}/f /f\n"), None),
            (format!("FROM busybox\nADD {url}/r.git /f\n"), None),
            (format!("FROM busybox\nARG URL={url}/f\nADD $URL /f\n"), None),
            (format!("FROM busybox\nRUN false {url}\n"), None),
            (format!("FROM busybox\nCOPY --from={url} a {url} /\nRUN --network={url} x\n"), None),
            (format!("FROM busybox\nMAINTAINER {url}\nADD {url}/f /f\nRUN false\n"), None),
            (String::new(), Some(format!("{url}/context.tar"))),
            (String::new(), Some(format!("{url}/context.git"))),
        ] {
            project.dockerfile(&dockerfile);
            let context = context.unwrap_or_else(|| project.context().display().to_string());
            let mut build = project.command();
            build.args(["--debug", "build", "--progress", progress, &context]).env("NO_PROXY", "127.0.0.1");
            let run = run(build.env("HTTP_PROXY", "http://p:x/PROXY-5525@127.0.0.1:9"));
            assert_ne!(run.code, 0, "{dockerfile}{context}");
            are_nowhere(&values, &format!("what is said of {dockerfile}{context}"), run.stderr.as_bytes());
            are_nowhere(&values, "what is printed", run.stdout.as_bytes());
        }
        project.dockerfile("FROM busybox\nRUN env; exit 1\n");
        let mut build = project.command();
        build.args(["build", "--progress=plain"]).arg(project.context());
        let run = run(build.env("HTTP_PROXY", "http://p:x/PROXY-5525@127.0.0.1:9")).fails(1).says("http_proxy=");
        are_nowhere(&values, "a step's output", run.stderr.as_bytes());
    }
    are_nowhere(&values, "the state directory", &everything(&project.state()));
    for args in [&["builds"][..], &["explain"], &["explain", "--format=json"]] {
        are_nowhere(&values, "a record", project.kiln(args).stdout.as_bytes());
    }
}

#[test]
fn builds_at_once_see_and_show_their_own_secrets_only() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nARG N\nRUN --mount=type=secret,id=t,env=T,required echo \"it is $T\"; env | grep ^T= | md5sum > /sum; echo $N\n",
    );
    let value = |n: usize| format!("SECRET-{n:04}-{:08x}", n * 0x0123_4567);
    let builds: Vec<_> = (0..20)
        .map(|n| {
            let mut build = project.command();
            build.args(["build", "--progress=plain", "--secret", "id=t,env=T", "--build-arg", &format!("N={n}")]);
            build.args(["-o", &format!("out-{n}")]).arg(project.context()).env("T", value(n));
            std::thread::spawn(move || run(&mut build))
        })
        .collect();
    let runs: Vec<Run> = builds.into_iter().map(|build| build.join().unwrap().ok()).collect();
    for (n, run) in runs.iter().enumerate() {
        let sum = Command::new("sh").arg("-c").arg(format!("echo T={} | md5sum", value(n))).output().unwrap().stdout;
        assert_eq!(fs::read(project.path().join(format!("out-{n}/sum"))).unwrap(), sum, "{n}");
        assert!(run.stderr.contains("it is ****"), "{}", run.stderr);
        assert!((0..20).all(|other| !run.stderr.contains(&value(other))), "{}", run.stderr);
    }
    assert!((0..20).all(|n| !holds(&project.state(), &value(n))));
}

#[test]
fn a_step_that_failed_says_which_secrets_it_had_to_do_without() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=npm cat /run/secrets/npm\n");
    project.file("t", "s3cr3t-t0ken");
    let wrong = format!("id=nmp,src={}", project.context().join("t").display());
    let run = project.build(&["--secret", &wrong]).fails(1);
    run.says("the step ran without secret `npm`: give it with `--secret id=npm,src=FILE`");
}

#[test]
fn what_is_required_and_not_lent_is_told_before_anything_runs() {
    let (project, lent) = with_secret(VALUE);
    project.dockerfile(&format!(
        "FROM busybox\nRUN echo slow\n{MOUNT} test -s /run/secrets/a\nRUN --mount=type=secret,id=b,env=B,required true\n\
         RUN --mount=type=ssh,id=k,required true\n"
    ));
    let run = project.build(&[]).fails(1).never_says("] RUN echo slow");
    let run = run.says("secret `a` was not given").says("secret `b` was not given").says("ssh agent `k` was not given");
    run.says("Dockerfile:3").says("--secret id=b,src=FILE").says("--ssh k=");
    // What is kept needs nothing any more.
    project.dockerfile(&format!("FROM busybox\n{MOUNT} test -s /run/secrets/a\n"));
    build(&project, &lent, &[]).ok();
    assert!(project.build(&[]).ok().cached() >= 2);
    // Values that are too large, and mounts of the context, which are in no layer.
    fs::write(project.path().join("s"), vec![b'x'; (500 << 10) + 1]).unwrap();
    build(&project, &lent, &[]).fails(2).says("larger than 500 KiB");
    project.file(".env", "CONTEXT-9c1e44aa77").dockerfile("FROM busybox\nRUN --mount=target=/ctx cat /ctx/.env\n");
    let tree = project.tree(&[]);
    assert!(!holds(&tree, "CONTEXT-9c1e44aa77") && !tree.join("ctx").exists());
}
