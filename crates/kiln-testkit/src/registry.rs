//! A real registry as a child process: Debian's `docker-registry`, on a free loopback port, storage in a temp dir.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tool::{find, skip};

/// A running registry. Dropping it ends the process and removes its storage.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
    dir: TempDir,
}

/// The name and password of [`Registry::with_login`].
const LOGIN: (&str, &str) = ("kiln", "swordfish");
/// Its htpasswd line: bcrypt of the password, cost 4.
const HTPASSWD: &str = "kiln:$2b$04$J.S4aLnT0aIXo9hz4Z3rLOCtOSzVfD9D64tdB6e3uPDrcDgKup0TW\n";

impl Registry {
    /// Starts one that is open to all; `None`, aloud, when the machine has no `docker-registry`.
    pub fn start() -> Option<Self> {
        Self::launch("")
    }

    /// Starts one that speaks TLS with this certificate and key.
    pub fn with_tls(certificate: &Path, key: &Path) -> Option<Self> {
        let (certificate, key) = (certificate.display(), key.display());
        Self::launch(&format!("  tls:\n    certificate: {certificate}\n    key: {key}\n"))
    }

    /// Starts one that speaks TLS with this certificate and key, to those who have the same certificate.
    pub fn with_client_certificates(certificate: &Path, key: &Path) -> Option<Self> {
        let (certificate, key) = (certificate.display(), key.display());
        Self::launch(&format!(
            "  tls:\n    certificate: {certificate}\n    key: {key}\n    clientcas:\n      - {certificate}\n"
        ))
    }

    /// Starts one that wants a name and password (Basic); see [`Registry::login`].
    pub fn with_login() -> Option<Self> {
        Self::launch("auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n")
    }

    /// `127.0.0.1:<port>`, as it stands in references.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The name and password it accepts when it wants some.
    pub fn login() -> (&'static str, &'static str) {
        LOGIN
    }

    /// Where it keeps blobs and tags.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts one whose config ends like this, below `http:`.
    fn launch(rest: &str) -> Option<Self> {
        let Some(program) = find("docker-registry") else {
            skip("no `docker-registry` on this machine (Debian package docker-registry)");
            return None;
        };
        // A port found free may be taken before the child binds it; then another is tried.
        (0..5).find_map(|_| Self::attempt(&program, rest)).or_else(|| {
            panic!("docker-registry does not start");
        })
    }

    fn attempt(program: &Path, rest: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temp dir");
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: DIR/data\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{rest}"
        );
        let text = config.replace("DIR", &dir.path().display().to_string());
        std::fs::write(dir.path().join("config.yml"), text).expect("writing a config");
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).expect("writing passwords");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        #[expect(clippy::disallowed_methods, reason = "a test's registry is a child process of the test")]
        let child = Command::new(program)
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starting docker-registry");
        let mut registry = Self { child, port, dir };
        registry.wait_until_ready().then_some(registry)
    }

    fn wait_until_ready(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return false;
            }
            if answers(self.port) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut head = [0; 5];
    let asked = stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n");
    asked.is_ok() && stream.read_exact(&mut head).is_ok() && &head == b"HTTP/"
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
