//! Git repositories of a test, and a real server for them on loopback: git's own `http-backend` behind our HTTP server.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::{Body, HttpServer, Reply, Request};

/// Serves repositories. Dropping it closes its port and removes them.
pub struct GitServer {
    server: HttpServer,
    dir: TempDir,
    wanted: Arc<Mutex<Option<String>>>,
}

impl GitServer {
    /// Starts one without repositories.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let (root, wanted) = (dir.path().to_owned(), Arc::new(Mutex::new(None::<String>)));
        let shared = wanted.clone();
        let server = HttpServer::start(move |request| {
            let wanted = shared.lock().expect("no test panics while it holds this").clone();
            match wanted.is_some_and(|wanted| request.header("authorization") != Some(&wanted)) {
                true => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"test\""),
                false => backend(&root, request),
            }
        });
        Self { server, dir, wanted }
    }

    /// Answers only who sends this `Authorization` from now on.
    pub fn require(&self, authorization: &str) {
        *self.wanted.lock().expect("no test panics while it holds this") = Some(authorization.to_owned());
    }

    /// Makes a repository, `name.git`, with one commit on `main`.
    pub fn repository(&self, name: &str, files: &[(&str, &str)]) -> Repository {
        let repository = Repository { dir: self.dir.path().join(format!("{name}.git")) };
        std::fs::create_dir_all(&repository.dir).expect("a directory");
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository.commit(files);
        repository
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        self.server.url(&format!("/{name}.git"))
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Where the repositories are.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }
}

/// A repository with a work tree, which can also be fetched from.
pub struct Repository {
    dir: PathBuf,
}

impl Repository {
    /// Its work tree.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes files and commits them; gives the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.dir.join(path);
            std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
            std::fs::write(path, text).expect("writing a file");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=a change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in it and gives what it printed, without the last line's end.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = git();
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

/// Git with no configuration of the machine, at a fixed time.
fn git() -> Command {
    #[expect(clippy::disallowed_methods, reason = "a test's repositories are made by git itself")]
    let mut command = Command::new("git");
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "test"),
        ("GIT_AUTHOR_EMAIL", "test@example.com"),
        ("GIT_COMMITTER_NAME", "test"),
        ("GIT_COMMITTER_EMAIL", "test@example.com"),
        ("GIT_AUTHOR_DATE", "1000000000 +0000"),
        ("GIT_COMMITTER_DATE", "1000000000 +0000"),
        ("GIT_ALLOW_PROTOCOL", "file:http"),
    ] {
        command.env(name, value);
    }
    command
}

fn backend(root: &Path, request: &Request) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    // A work tree is served by the git directory in it.
    let (name, rest) = path.trim_start_matches('/').split_once(".git/").unwrap_or((path, ""));
    let path = format!("/{name}.git/.git/{rest}");
    let mut command = git();
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("REQUEST_METHOD", &request.method).env("PATH_INFO", path).env("QUERY_STRING", query);
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        command.env(variable, request.header(header).unwrap_or_default());
    }
    command.env("CONTENT_LENGTH", request.body.len().to_string());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("git is installed");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let body = request.body.clone();
    let writing = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().expect("it runs");
    let _ = writing.join();
    reply(&output.stdout)
}

/// Reads what a CGI program prints.
fn reply(output: &[u8]) -> Reply {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let (head, body) = (String::from_utf8_lossy(&output[..end]), output.get(end + 4..).unwrap_or_default());
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let mut headers: BTreeMap<&str, &str> = headers.collect();
    let status = headers.remove("Status").and_then(|status| status.split(' ').next()?.parse().ok()).unwrap_or(200);
    let reply = Reply::status(status).with_body(Body::Whole(body.to_vec()));
    headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value))
}
