//! Object stores as child processes: moto for S3, Azurite for Azure's blobs. Both check the signatures of requests.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tool::{find, skip};

/// A running store with a bucket, an account that may use it, and one that may not. Dropping it ends the process.
#[derive(Debug)]
pub struct S3Server {
    process: Process,
    /// The name and the secret of the account.
    pub keys: (String, String),
}

/// moto checks signatures after so many requests: those that [`S3Server::start`] makes.
const SETTING_UP: &str = "4";

const POLICY: &str = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C\
    %22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";

impl S3Server {
    /// The bucket.
    pub const BUCKET: &str = "cache";

    /// Starts one; `None`, aloud, when there is no `moto_server` in `KILN_TEST_MOTO` or among the programs.
    pub fn start() -> Option<Self> {
        let program = program("KILN_TEST_MOTO", "moto_server")?;
        let process = Process::start(&program, |port, _| {
            (vec!["-p".into(), port.to_string()], vec![("INITIAL_NO_AUTH_ACTION_COUNT", SETTING_UP)])
        });
        let ask = |method: &str, path: &str, (service, body): (&str, &str)| {
            let scope = format!("x/20260101/us-east-1/{service}/aws4_request");
            let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=x");
            let answer = process.ask(method, path, &format!("Authorization: {authorization}\r\n"), body);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            answer
        };
        let iam = |action: &str| ask("POST", "/", ("iam", &format!("Version=2010-05-08&UserName=u&Action={action}")));
        ask("PUT", &format!("/{}", Self::BUCKET), ("s3", ""));
        iam("CreateUser");
        iam(&format!("PutUserPolicy&PolicyName=p&PolicyDocument={POLICY}"));
        let answer = iam("CreateAccessKey");
        let text = |name: &str| {
            let (_, rest) = answer.split_once(&format!("<{name}>")).expect("an account has a key");
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        let keys = (text("AccessKeyId"), text("SecretAccessKey"));
        Some(Self { process, keys })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        self.process.url()
    }

    /// The attributes of a cache there.
    pub fn attributes(&self) -> String {
        let (id, secret) = &self.keys;
        format!(
            "type=s3,bucket={},region=us-east-1,endpoint_url={},use_path_style=true,access_key_id={id},\
             secret_access_key={secret}",
            Self::BUCKET,
            self.url()
        )
    }
}

/// A running Azurite. Dropping it ends the process.
#[derive(Debug)]
pub struct AzureServer(Process);

impl AzureServer {
    /// The account that every Azurite has, and its key; both are public.
    pub const ACCOUNT: &str = "devstoreaccount1";
    /// See [`AzureServer::ACCOUNT`].
    pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Starts one; `None`, aloud, when there is no `azurite-blob` in `KILN_TEST_AZURITE` or among the programs.
    pub fn start() -> Option<Self> {
        let program = program("KILN_TEST_AZURITE", "azurite-blob")?;
        Some(Self(Process::start(&program, |port, dir| {
            let args = ["--blobPort", &port.to_string(), "--location", &dir.display().to_string(), "--silent"];
            (args.map(str::to_owned).to_vec(), Vec::new())
        })))
    }

    /// The URL of its account.
    pub fn url(&self) -> String {
        format!("{}/{}", self.0.url(), Self::ACCOUNT)
    }

    /// The attributes of a cache there.
    pub fn attributes(&self) -> String {
        format!("type=azblob,account_url={},account_name={},secret_access_key={}", self.url(), Self::ACCOUNT, Self::KEY)
    }
}

#[expect(clippy::disallowed_methods, reason = "who runs the tests says where their servers are")]
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from).or_else(|| find(name));
    if program.is_none() {
        skip(&format!("no `{name}` on this machine, and `{variable}` names none"));
    }
    program
}

/// A server of another's, with a directory of its own.
#[derive(Debug)]
struct Process {
    child: Child,
    port: u16,
    _dir: TempDir,
}

/// Arguments and variables.
type Setting = (Vec<String>, Vec<(&'static str, &'static str)>);

impl Process {
    fn start(program: &Path, setting: impl Fn(u16, &Path) -> Setting) -> Self {
        // A port found free may be taken before the child binds it; then another is tried.
        let started = (0..5).find_map(|_| Self::attempt(program, &setting));
        started.unwrap_or_else(|| panic!("{} does not start", program.display()))
    }

    fn attempt(program: &Path, setting: impl Fn(u16, &Path) -> Setting) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temp dir");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        drop(listener);
        let (args, variables) = setting(port, dir.path());
        #[expect(clippy::disallowed_methods, reason = "a test's store is a child process of the test")]
        let child = Command::new(program)
            .args(args)
            .envs(variables)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting a store");
        let mut process = Self { child, port, _dir: dir };
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if let Ok(Some(_)) = process.child.try_wait() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(process);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
