//! Holds the table of `docs/design/caching.md` true: makes each change that it lists, and looks at the key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_graph::llb::{
    CacheOpt, CacheSharing, ExecOp, FileAction, FileActionCopy, FileActionKind, FileActionMkFile, FileOp, HostIp,
    MergeInput, MergeOp, Meta, Mount, MountType, NetMode, OpKind, Platform, ProxyEnv, SecretOpt, SecurityMode,
    SourceOp, SshOpt,
};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::{Failure, Reporter, Silent};
use kiln_solver::{CacheKey, InputKey, Part, Step};
use kiln_store::Store;
use kiln_testkit::{HttpServer, Reply};

use super::exec::ExecStep;
use super::file::FileStep;
use super::identity::Identity;
use super::merge::MergeStep;
use super::{Place, source};
use crate::artifact::Artifact;
use crate::base::BaseImage;
use crate::blobs::StoreBlobs;
use crate::devices::Devices;
use crate::export::Early;
use crate::finish::Finisher;
use crate::frontend::LocalTree;
use crate::guard::Guard;
use crate::job::{Images, Job, Limits};
use crate::mounts::Returning;
use crate::registry::Registry;
use crate::request::{BuildRequest, Ulimit};
use crate::session::Session;
use crate::ssh::SshAgent;
use crate::waiter::Waiter;
use crate::worker::Purpose;

const PAGE: &str = include_str!("../../../../docs/design/caching.md");
const COMMIT: &str = "0123456789012345678901234567890123456789";

/// All that a step may look at.
struct World {
    op: OpKind,
    platform: Platform,
    image: ImageConfig,
    image_name: String,
    /// The context: path, bytes, mode.
    files: Vec<(&'static str, &'static str, u32)>,
    files_are_of: SystemTime,
    request: BuildRequest,
    secret: &'static str,
    served: &'static str,
}

struct Lent(&'static str);

impl Session for Lent {
    fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(Some(self.0.into()))
    }
    fn ssh(&self, _id: &str) -> Result<Option<SshAgent>, Failure> {
        Ok(None)
    }
    fn stdin(&self) -> Option<Box<dyn std::io::Read + Send>> {
        None
    }
    fn stdout(&self) -> Option<Box<dyn std::io::Write + Send>> {
        None
    }
}

impl World {
    /// The one that changes begin with.
    fn of(op: &str) -> Self {
        let layers = ["a", "b"].map(Digest::sha256).to_vec();
        let mut image = ImageConfig::default();
        image.rootfs.diff_ids = layers;
        Self {
            op: op_of(op),
            platform: Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() },
            image,
            image_name: "docker-image://docker.io/library/base:1".into(),
            files: vec![("src/a", "a", 0o644), ("src/b", "b", 0o644), ("other", "o", 0o644)],
            files_are_of: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
            request: BuildRequest::default(),
            secret: "secret",
            served: "served",
        }
    }

    fn source(&mut self) -> &mut SourceOp {
        let OpKind::Source(op) = &mut self.op else { panic!("no source") };
        op
    }

    fn attr(&mut self, name: &str, value: &str) {
        self.source().attrs.insert(name.to_owned(), value.to_owned());
    }

    fn exec(&mut self) -> &mut ExecOp {
        let OpKind::Exec(op) = &mut self.op else { panic!("no exec") };
        op
    }

    fn meta(&mut self) -> &mut Meta {
        self.exec().meta.as_mut().unwrap()
    }

    fn copy(&mut self) -> &mut FileActionCopy {
        let OpKind::File(op) = &mut self.op else { panic!("no file") };
        let Some(FileActionKind::Copy(copy)) = &mut op.actions[0].action else { panic!("no copy") };
        copy
    }

    fn inline(&mut self) -> &mut FileActionMkFile {
        let OpKind::File(op) = &mut self.op else { panic!("no file") };
        let Some(FileActionKind::MkFile(file)) = &mut op.actions[1].action else { panic!("no mkfile") };
        file
    }

    /// The key, with the context in a new place.
    async fn key(&self, store: &Store) -> CacheKey {
        let dir = tempfile::tempdir().unwrap();
        let tree = self.context(&dir.path().join("context"));
        let server = self.server();
        let step = self.step(store, &tree, &server);
        let map = step.cache_map().await.unwrap();
        let mut parts = Vec::new();
        for (index, how) in map.inputs.iter().enumerate() {
            parts.push(match how {
                InputKey::Definition => Part::Definition { key: CacheKey(Digest::sha256([index as u8])), output: 0 },
                InputKey::Content { .. } => {
                    let artifact = Artifact::Tree(Arc::clone(&tree));
                    Part::Content(step.content_digest(index, &artifact).await.unwrap())
                }
            });
        }
        CacheKey::new(&map.digest, &parts)
    }

    fn context(&self, path: &Path) -> Arc<LocalTree> {
        for (name, bytes, mode) in &self.files {
            let path = path.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            fs::File::options().append(true).open(&path).unwrap().set_modified(self.files_are_of).unwrap();
        }
        Arc::new(LocalTree::open("context", path, None).unwrap())
    }

    fn server(&self) -> HttpServer {
        let served = self.served;
        HttpServer::start(move |_| Reply::bytes(served))
    }

    fn step(&self, store: &Store, tree: &Arc<LocalTree>, server: &HttpServer) -> Arc<dyn Step<Artifact, Failure>> {
        let mut op = self.op.clone();
        if let OpKind::Source(op) = &mut op {
            op.identifier = op.identifier.replace("SERVER", &server.url("")).replace("IMAGE", &self.image_name);
        }
        let job = self.job(store, tree);
        let inputs = match &op {
            OpKind::Exec(_) | OpKind::File(_) | OpKind::Merge(_) => 2,
            _ => 0,
        };
        let place = Place {
            job,
            vertex: Digest::sha256(if let OpKind::Source(op) = &op { op.identifier.as_str() } else { "" }),
            name: String::new(),
            excerpt: None,
            identity: Identity::default(),
            platform: Some(self.platform.clone()),
            inputs,
            args: Vec::new(),
            is_finished: false,
        };
        match op {
            OpKind::Source(op) => source::step(place, op).unwrap(),
            OpKind::Exec(op) => Arc::new(ExecStep::new(place, op).unwrap()),
            OpKind::File(op) => Arc::new(FileStep { place, op }),
            OpKind::Merge(op) => Arc::new(MergeStep { place, op }),
            other => panic!("{other:?}"),
        }
    }

    fn job(&self, store: &Store, tree: &Arc<LocalTree>) -> Arc<Job> {
        let lease = store.lease().unwrap();
        let images = Arc::new(Images::default());
        let image = BaseImage {
            name: "base".into(),
            config: self.image.clone(),
            blobs: Vec::new(),
            source: None,
            documents: Vec::new(),
            snapshot: None,
        };
        images.insert(self.image_name.clone(), &(&self.platform).into(), Arc::new(image));
        let watch = Waiter::default().watch();
        let registry = Arc::new(Registry::default());
        let reporter: Arc<dyn Reporter> = Arc::new(Silent);
        let blobs = StoreBlobs { store: store.clone(), lease: lease.clone() };
        let with = (Arc::clone(&registry), Arc::clone(&reporter), Arc::clone(&images));
        let early = Arc::new(Early::new(&self.request, blobs, with).unwrap());
        let session: Arc<dyn Session> = Arc::new(Lent(self.secret));
        Arc::new(Job {
            early,
            guard: Guard::new(&session, &reporter, &self.request.accepted_leaks),
            project: String::new(),
            origin: String::new(),
            purpose: Purpose::Build,
            pins: Arc::default(),
            returning: Returning::new(&[], store, (&registry, &reporter)),
            finisher: Finisher::new(store.clone(), lease.clone(), Vec::new(), watch.clone()),
            store: store.clone(),
            lease,
            registry,
            session,
            reporter,
            executor: kiln_exec::Executor::new(),
            networks: Default::default(),
            ids: Arc::default(),
            user_ids: Default::default(),
            trust: Default::default(),
            trees: BTreeMap::from([("context".to_owned(), Arc::clone(tree))]),
            images,
            seen: Default::default(),
            witness: Default::default(),
            limits: Limits::new(&self.request).unwrap(),
            patience: Default::default(),
            wrecks: Default::default(),
            devices: Devices::new(Vec::new(), Vec::new()),
            host_env: Vec::new(),
            daemons: Default::default(),
            materialized: Default::default(),
            watch,
            settling: std::sync::Once::new(),
        })
    }
}

fn op_of(op: &str) -> OpKind {
    let source = |identifier: &str, attrs: &[(&str, &str)]| {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        OpKind::Source(SourceOp { identifier: identifier.into(), attrs })
    };
    match op {
        "every" | "exec" => OpKind::Exec(exec()),
        "image" => source("IMAGE", &[]),
        "local" => source("local://context", &[]),
        "http" => source("https://example.invalid/a", &[("http.checksum", Digest::sha256("served").as_str())]),
        "http without checksum" => source("SERVER/a", &[]),
        "git" => source("git://example.invalid/a#main", &[("git.checksum", COMMIT), ("git.fetchbycommit", "true")]),
        "git with its directory" => source(
            "git://example.invalid/a#main",
            &[("git.checksum", COMMIT), ("git.fetchbycommit", "true"), ("git.keepgitdir", "true")],
        ),
        "file" => OpKind::File(file()),
        "merge" => OpKind::Merge(MergeOp { inputs: vec![MergeInput { input: 0 }, MergeInput { input: 1 }] }),
        other => panic!("no op `{other}`"),
    }
}

fn exec() -> ExecOp {
    let mount = |dest: &str, kind: MountType| Mount {
        dest: dest.into(),
        mount_type: kind.into(),
        input: -1,
        output: -1,
        ..Mount::default()
    };
    ExecOp {
        meta: Some(Meta {
            args: vec!["true".into()],
            env: vec!["A=1".into()],
            cwd: "/".into(),
            proxy_env: Some(ProxyEnv::default()),
            extra_hosts: vec![HostIp { host: "db".into(), ip: "10.0.0.1".into() }],
            ..Meta::default()
        }),
        mounts: vec![
            Mount { input: 0, output: 0, ..mount("/", MountType::Bind) },
            Mount { input: 1, readonly: true, selector: "src".into(), ..mount("/src", MountType::Bind) },
            Mount {
                cache_opt: Some(CacheOpt { id: "c".into(), ..CacheOpt::default() }),
                ..mount("/c", MountType::Cache)
            },
            Mount {
                secret_opt: Some(SecretOpt { id: "s".into(), ..SecretOpt::default() }),
                ..mount("/s", MountType::Secret)
            },
            Mount { ssh_opt: Some(SshOpt { id: "k".into(), ..SshOpt::default() }), ..mount("/k", MountType::Ssh) },
        ],
        ..ExecOp::default()
    }
}

fn file() -> FileOp {
    let copy = FileActionCopy {
        src: "/src".into(),
        dest: "/".into(),
        mode: -1,
        timestamp: -1,
        dir_copy_contents: true,
        create_dest_path: true,
        ..FileActionCopy::default()
    };
    let inline =
        FileActionMkFile { path: "/x".into(), data: b"x".to_vec(), timestamp: -1, ..FileActionMkFile::default() };
    let action =
        |input, secondary_input, output, action| FileAction { input, secondary_input, output, action: Some(action) };
    FileOp {
        actions: vec![action(0, 1, -1, FileActionKind::Copy(copy)), action(2, -1, 0, FileActionKind::MkFile(inline))],
    }
}

type Change = fn(&mut World);

/// A change for every row of the table.
// tidy: table
#[allow(clippy::too_many_lines, reason = "a table")]
fn changes() -> Vec<(&'static str, &'static str, Change)> {
    vec![
        ("every", "operating system", |w| w.platform.os = "other".into()),
        ("every", "architecture", |w| w.platform.architecture = "arm64".into()),
        ("every", "variant", |w| w.platform.variant = "v3".into()),
        ("every", "kind of the op", |w| w.op = op_of("merge")),
        ("image", "a layer's diffID", |w| w.image.rootfs.diff_ids[0] = Digest::sha256("c")),
        ("image", "order of the layers", |w| w.image.rootfs.diff_ids.reverse()),
        ("image", "name", |w| w.image_name = "docker-image://mirror.example/base:2".into()),
        ("image", "`oci-layout://` instead of `docker-image://`", |w| w.image_name = "oci-layout://base:1".into()),
        ("image", "config", |w| w.image.config.user = "nobody".into()),
        ("local", "name of the context", |w| w.source().identifier = "local://other".into()),
        ("local", "where it is on the host", |_| ()),
        ("http", "checksum", |w| w.attr("http.checksum", Digest::sha256("other").as_str())),
        ("http", "file name", |w| w.attr("http.filename", "b")),
        ("http", "mode", |w| w.attr("http.perm", "755")),
        ("http", "address", |w| w.source().identifier = "https://mirror.invalid/a".into()),
        ("http", "secret that is sent", |w| w.attr("http.authheadersecret", "s")),
        ("http without checksum", "bytes the server has now", |w| w.served = "other"),
        ("http without checksum", "address of the server", |_| ()),
        ("git", "commit", |w| w.attr("git.checksum", &COMMIT.replace('0', "a"))),
        ("git", "subdirectory", |w| w.source().identifier = "git://example.invalid/a#main:sub".into()),
        ("git", "submodules left out", |w| w.attr("git.skipsubmodules", "true")),
        ("git", "times of the commit", |w| w.attr("git.mtime", "commit")),
        ("git", "git directory kept", |w| w.attr("git.keepgitdir", "true")),
        ("git", "address", |w| w.source().identifier = "git://mirror.invalid/a#main".into()),
        ("git", "name of the branch", |w| w.source().identifier = "git://example.invalid/a#next".into()),
        ("git", "token, agent, known hosts", |w| {
            w.attr("git.authtokensecret", "s");
            w.attr("git.mountsshsock", "k");
            w.attr("git.knownsshhosts", "host key");
        }),
        ("git with its directory", "address", |w| w.source().identifier = "git://mirror.invalid/a#main".into()),
        ("git with its directory", "name of the branch", |w| {
            w.source().identifier = "git://example.invalid/a#next".into();
        }),
        ("exec", "arguments", |w| w.meta().args.push("x".into())),
        ("exec", "environment", |w| w.meta().env.push("B=2".into())),
        ("exec", "working directory", |w| w.meta().cwd = "/x".into()),
        ("exec", "user", |w| w.meta().user = "nobody".into()),
        ("exec", "host name", |w| w.meta().hostname = "x".into()),
        ("exec", "allowed exit codes", |w| w.meta().valid_exit_codes.push(3)),
        ("exec", "network", |w| w.exec().network = NetMode::None.into()),
        ("exec", "security", |w| w.exec().security = SecurityMode::Insecure.into()),
        ("exec", "target of a mount", |w| w.exec().mounts[1].dest = "/x".into()),
        ("exec", "path below a mount's source", |w| w.exec().mounts[1].selector = "/".into()),
        ("exec", "files of a read-only mount", |w| w.files[0].1 = "x"),
        ("exec", "files beside those of a read-only mount", |w| w.files[2].1 = "x"),
        ("exec", "modification times of mounted files", |w| w.files_are_of = SystemTime::UNIX_EPOCH),
        ("exec", "where mounted files are on the host", |_| ()),
        ("exec", "id of a cache mount", |w| w.exec().mounts[2].cache_opt.as_mut().unwrap().id = "x".into()),
        ("exec", "sharing of a cache mount", |w| {
            w.exec().mounts[2].cache_opt.as_mut().unwrap().sharing = CacheSharing::Locked.into();
        }),
        ("exec", "id of a secret", |w| w.exec().mounts[3].secret_opt.as_mut().unwrap().id = "x".into()),
        ("exec", "content of a secret", |w| w.secret = "x"),
        ("exec", "leaks that are accepted", |w| w.request.accepted_leaks.push("s".into())),
        ("exec", "id of an ssh agent", |w| w.exec().mounts[4].ssh_opt.as_mut().unwrap().id = "x".into()),
        ("exec", "name of an extra host", |w| w.meta().extra_hosts[0].host = "x".into()),
        ("exec", "address of an extra host", |w| w.meta().extra_hosts[0].ip = "10.0.0.2".into()),
        ("exec", "proxies", |w| w.meta().proxy_env.as_mut().unwrap().http_proxy = "http://proxy".into()),
        ("exec", "size of /dev/shm", |w| w.request.shm_size = Some(1 << 20)),
        ("exec", "resource limits", |w| w.request.ulimits.push(Ulimit { name: "nofile".into(), soft: 1, hard: 1 })),
        ("file", "source", |w| w.copy().src = "/".into()),
        ("file", "destination", |w| w.copy().dest = "/x".into()),
        ("file", "mode", |w| w.copy().mode = 0o700),
        ("file", "owner", |w| w.copy().owner = Some(Default::default())),
        ("file", "patterns", |w| w.copy().exclude_patterns.push("nothing".into())),
        ("file", "time given to files", |w| w.copy().timestamp = 0),
        ("file", "inline data", |w| w.inline().data.push(b'x')),
        ("file", "leaks that are accepted", |w| w.request.accepted_leaks.push("s".into())),
        ("file", "bytes of a copied file", |w| w.files[0].1 = "x"),
        ("file", "name of a copied file", |w| w.files[0].0 = "src/x"),
        ("file", "mode of a copied file", |w| w.files[0].2 = 0o755),
        ("file", "modification times of copied files", |w| w.files_are_of = SystemTime::UNIX_EPOCH),
        ("file", "order in which a directory has its files", |w| w.files.reverse()),
        ("file", "files beside those that are copied", |w| w.files[2].1 = "x"),
        ("file", "where copied files are on the host", |_| ()),
        ("merge", "order of the inputs", |w| {
            w.op = OpKind::Merge(MergeOp { inputs: vec![MergeInput { input: 1 }, MergeInput { input: 0 }] });
        }),
    ]
}

/// Rows of the page's table: op, what changes, what becomes of the key.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let cells = |line: &'static str| -> Option<_> {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let row = (cells.next()?, cells.next()?, cells.next()?);
        cells.next().is_none().then_some(row)
    };
    let from = PAGE.find("| op | what changes | the key |").expect("the page has the table");
    PAGE[from..].lines().skip(2).map_while(cells).collect()
}

#[tokio::test]
async fn keys_change_with_what_the_page_says_and_with_nothing_else() {
    let rows = rows();
    let told: BTreeSet<_> = rows.iter().map(|(op, what, _)| (*op, *what)).collect();
    let made: BTreeSet<_> = changes().iter().map(|(op, what, _)| (*op, *what)).collect();
    assert_eq!(told.difference(&made).collect::<Vec<_>>(), [] as [&(&str, &str); 0], "rows without a case");
    assert_eq!(made.difference(&told).collect::<Vec<_>>(), [] as [&(&str, &str); 0], "cases without a row");
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    for (op, what, change) in changes() {
        let before = World::of(op);
        let mut after = World::of(op);
        change(&mut after);
        let is_same = before.key(&store).await == after.key(&store).await;
        let (_, _, wanted) = rows.iter().find(|(o, w, _)| (*o, *w) == (op, what)).unwrap();
        assert!(["changes", "stays"].contains(wanted), "{op}: {what}: {wanted}");
        assert_eq!(if is_same { "stays" } else { "changes" }, *wanted, "{op}: {what}");
    }
}
