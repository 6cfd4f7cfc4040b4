//! Programs in steps that trust an authority of one's own, by a real server.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_testkit::Tool;

use crate::project::{Project, have};

/// Serves a directory over TLS, with a certificate that only a private authority vouches for.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let openssl = Tool::find("openssl").unwrap();
        let place = |name: &str| dir.join(name).display().to_string();
        let (ca, ca_key, cert, key) = (place("ca.pem"), place("ca.key"), place("cert.pem"), place("key.pem"));
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let authority = ["-subj", "/CN=kiln test authority", "-keyout", &ca_key, "-out", &ca];
        openssl.run(&[&new[..], &authority[..]].concat()).unwrap();
        let leaf = ["-subj", "/CN=machine", "-addext", "subjectAltName=DNS:machine", "-CA", &ca, "-CAkey", &ca_key];
        let files = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &cert];
        openssl.run(&[&new[..], &leaf[..], &files[..]].concat()).unwrap();
        let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-WWW", "-accept", &port.to_string(), "-cert", &cert, "-key", &key]);
        let child = command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: child.spawn().unwrap(), port };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not listen");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds with an authority and without, and says what each of these printed in a step. Each must succeed with it, and without it
/// blame the certificate.
fn each(project: &Project, base: &str, ca: &Path, visits: &[String]) -> Vec<String> {
    let steps: String = visits
        .iter()
        .enumerate()
        .map(|(n, visit)| format!("RUN ({visit}) > /{n} 2>&1; echo $? > /{n}.code\n"))
        .collect();
    project.dockerfile(&format!("{base}{steps}"));
    let told = |args: &[&str]| {
        project.build(&[&["--no-cache", "--add-host", "machine:host-gateway"], args].concat()).ok();
        let one = |n| (project.sh(&format!("cat /{n}.code")) == "0\n", project.sh(&format!("cat /{n}")));
        (0..visits.len()).map(one).collect::<Vec<_>>()
    };
    for (visit, (is_well, text)) in visits.iter().zip(told(&[])) {
        assert!(!is_well && text.to_lowercase().contains("certificate"), "{visit}: {text}");
    }
    let told = told(&["--ca-cert", ca.to_str().unwrap()]);
    visits.iter().zip(&told).for_each(|(visit, (is_well, text))| assert!(is_well, "{visit}: {text}"));
    told.into_iter().map(|(_, text)| text).collect()
}

/// Copies a program of the machine, and the libraries it names, to the same places below a directory.
fn take(program: &Path, root: &Path) {
    let libraries = Tool::find("ldd").unwrap().run(&[program.to_str().unwrap()]).unwrap();
    let library = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.lines().filter_map(library).chain([program.to_path_buf()]) {
        let to = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap();
    }
}

/// A program of the machine, where `Tool` finds it as well.
fn find(name: &str) -> PathBuf {
    ["/usr/bin", "/usr/local/bin", "/bin"]
        .map(|dir| Path::new(dir).join(name))
        .into_iter()
        .find(|it| it.is_file())
        .unwrap()
}

#[test]
fn curl_git_and_python_trust_an_authority_that_is_given_and_not_without() {
    if !["openssl", "ldd", "git", "curl"].into_iter().all(have) {
        return;
    }
    let project = Project::new();
    let served = project.path().join("served");
    fs::create_dir_all(&served).unwrap();
    fs::write(served.join("hello"), "hello over tls\n").unwrap();
    let git = Tool::find("git").unwrap();
    let repository = served.join("repo");
    let repository = repository.to_str().unwrap();
    git.run(&["init", "-q", "-b", "main", repository]).unwrap();
    let who = ["-C", repository, "-c", "user.name=t", "-c", "user.email=t@t"];
    git.run(&[&who[..], &["commit", "-q", "--allow-empty", "-m", "one"]].concat()).unwrap();
    git.run(&["-C", repository, "update-server-info"]).unwrap();
    let server = Server::start(&served);

    let root = project.context().join("root");
    take(&find("curl"), &root);
    take(&find("git"), &root);
    let helpers = PathBuf::from(git.run(&["--exec-path"]).unwrap().trim());
    take(&helpers.join("git-remote-https"), &root);
    let at = format!("https://machine:{}", server.port);
    let mut visits = vec![
        format!("{} -sS {at}/hello", find("curl").display()),
        format!("GIT_SMART_HTTP=0 {} ls-remote {at}/repo/.git main", find("git").display()),
    ];
    let (python, library) = (Path::new("/usr/bin/python3.11"), Path::new("/usr/lib/python3.11"));
    if python.exists() && library.join("lib-dynload").exists() {
        take(python, &root);
        let ssl = library.join("lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so");
        take(&ssl, &root);
        Tool::find("cp").unwrap().run(&["-rn", "/usr/lib/python3.11", root.join("usr/lib").to_str().unwrap()]).unwrap();
        let fetch = format!("import urllib.request as u; print(u.urlopen(\"{at}/hello\").read().decode())");
        visits.push(format!("/usr/bin/python3.11 -c '{fetch}'"));
    }
    let with = each(&project, "FROM busybox\nCOPY root /\n", &served.join("ca.pem"), &visits);
    assert_eq!(with[0], "hello over tls\n");
    assert!(with[1].ends_with("\trefs/heads/main\n"), "{}", with[1]);
    assert!(with.get(2).is_none_or(|python| python == "hello over tls\n\n"), "{with:?}");
}

#[test]
fn pip_trusts_an_authority_that_is_given_and_not_without() {
    let Ok(registry) = std::env::var("KILN_TEST_REGISTRY") else {
        kiln_testkit::skip("`KILN_TEST_REGISTRY` names no registry with the base images");
        return;
    };
    let (project, served) = (Project::bare(), tempfile::tempdir().unwrap());
    // Where pip's own settings name a file of certificates, as this base's do.
    let base = format!("FROM {registry}/python:bookworm\nRUN grep -q '^cert = ' /etc/pip.conf\n");
    let wheel = "import zipfile as z; w = z.ZipFile(\"/out/hello-1.0-py3-none-any.whl\", \"w\"); d = \"hello-1.0.dist-info/\"; \
                 w.writestr(d + \"METADATA\", \"Metadata-Version: 2.1\\nName: hello\\nVersion: 1.0\\n\"); \
                 w.writestr(d + \"WHEEL\", \"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n\"); \
                 w.writestr(d + \"RECORD\", \"\"); w.close()";
    project.dockerfile(&format!("{base}RUN mkdir /out && python3 -c '{wheel}'\nFROM scratch\nCOPY --from=0 /out /\n"));
    let made = project.tree(&[]).join("hello-1.0-py3-none-any.whl");
    fs::copy(made, served.path().join("hello-1.0-py3-none-any.whl")).unwrap();
    let server = Server::start(served.path());
    let pip = format!("pip install --no-deps --retries 0 https://machine:{}/hello-1.0-py3-none-any.whl", server.port);
    let with = each(&project, &base, &served.path().join("ca.pem"), &[pip]);
    assert!(with[0].contains("Successfully installed hello-1.0"), "{}", with[0]);
}

#[test]
fn npm_trusts_an_authority_that_is_given_and_not_without_whatever_its_settings_name() {
    let npm = Path::new("/usr/lib/node_modules/npm");
    if !["openssl", "ldd", "node"].into_iter().all(have) || !npm.join("bin/npm-cli.js").exists() {
        kiln_testkit::skip("there is no npm in `/usr/lib/node_modules`");
        return;
    }
    let (project, served) = (Project::new(), tempfile::tempdir().unwrap());
    let versions = r#"{"1.2.3":{"name":"hello","version":"1.2.3","dist":{"tarball":"https://machine/hello.tgz"}}}"#;
    let document = format!(r#"{{"name":"hello","dist-tags":{{"latest":"1.2.3"}},"versions":{versions}}}"#);
    fs::write(served.path().join("hello"), document).unwrap();
    let server = Server::start(served.path());
    let root = project.context().join("root");
    take(&find("node"), &root);
    fs::create_dir_all(root.join("npm")).unwrap();
    Tool::find("cp").unwrap().run(&["-rL", npm.to_str().unwrap(), root.to_str().unwrap()]).unwrap();
    fs::write(root.join("npm/npmrc"), "").unwrap();
    let npm = format!(
        "{} /npm/bin/npm-cli.js view hello version --fetch-retries 0 --registry https://machine:{}/",
        find("node").display(),
        server.port
    );
    let settings = "printf -- '-----BEGIN CERTIFICATE-----\\n-----END CERTIFICATE-----\\n' >/own.pem; npm_config_userconfig=/npmrc";
    let own = format!("echo cafile=/own.pem >/npmrc; {settings} {npm}");
    let with = each(&project, "FROM busybox\nCOPY root /\n", &served.path().join("ca.pem"), &[npm, own]);
    assert_eq!(with, ["1.2.3\n", "1.2.3\n"]);
}
