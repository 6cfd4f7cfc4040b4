//! The wire form of operations: BuildKit's LLB messages, in our own words over its field numbers.
// tidy: table
#![allow(missing_docs, reason = "field names are the protocol's own; each message says what it is")]

use std::collections::BTreeMap;

/// An operation with its inputs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Op {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<Input>,
    #[prost(oneof = "OpKind", tags = "2, 3, 4, 5, 6, 7")]
    pub op: Option<OpKind>,
    #[prost(message, optional, tag = "10")]
    pub platform: Option<Platform>,
    #[prost(message, optional, tag = "11")]
    pub constraints: Option<WorkerConstraints>,
}

/// The closed set of operations.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OpKind {
    #[prost(message, tag = "2")]
    Exec(ExecOp),
    #[prost(message, tag = "3")]
    Source(SourceOp),
    #[prost(message, tag = "4")]
    File(FileOp),
    #[prost(message, tag = "5")]
    Build(BuildOp),
    #[prost(message, tag = "6")]
    Merge(MergeOp),
    #[prost(message, tag = "7")]
    Diff(DiffOp),
}

/// One output of another op: the digest of its bytes and the output's index.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Input {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub index: i64,
}

/// The platform an op runs for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub architecture: String,
    #[prost(string, tag = "2")]
    pub os: String,
    #[prost(string, tag = "3")]
    pub variant: String,
    #[prost(string, tag = "4")]
    pub os_version: String,
    #[prost(string, repeated, tag = "5")]
    pub os_features: Vec<String>,
}

impl From<&kiln_oci::Platform> for Platform {
    fn from(platform: &kiln_oci::Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
            os_version: platform.os_version.clone().unwrap_or_default(),
            os_features: platform.os_features.clone(),
        }
    }
}

impl From<&Platform> for kiln_oci::Platform {
    fn from(platform: &Platform) -> Self {
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: said(&platform.variant),
            os_version: said(&platform.os_version),
            os_features: platform.os_features.clone(),
        }
    }
}

/// Which workers may run an op.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkerConstraints {
    #[prost(string, repeated, tag = "1")]
    pub filter: Vec<String>,
}

/// Brings something in: `docker-image://…`, `local://…`, `https://…`, `git://…`, `oci-layout://…`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SourceOp {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: BTreeMap<String, String>,
}

/// Runs a process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecOp {
    #[prost(message, optional, tag = "1")]
    pub meta: Option<Meta>,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    #[prost(enumeration = "NetMode", tag = "3")]
    pub network: i32,
    #[prost(enumeration = "SecurityMode", tag = "4")]
    pub security: i32,
    #[prost(message, repeated, tag = "5")]
    pub secretenv: Vec<SecretEnv>,
    #[prost(message, repeated, tag = "6")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// How the process starts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Meta {
    #[prost(string, repeated, tag = "1")]
    pub args: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub env: Vec<String>,
    #[prost(string, tag = "3")]
    pub cwd: String,
    #[prost(string, tag = "4")]
    pub user: String,
    #[prost(message, optional, tag = "5")]
    pub proxy_env: Option<ProxyEnv>,
    #[prost(message, repeated, tag = "6")]
    pub extra_hosts: Vec<HostIp>,
    #[prost(string, tag = "7")]
    pub hostname: String,
    #[prost(message, repeated, tag = "9")]
    pub ulimit: Vec<Ulimit>,
    #[prost(string, tag = "10")]
    pub cgroup_parent: String,
    #[prost(bool, tag = "11")]
    pub remove_mount_stubs_recursive: bool,
    #[prost(int32, repeated, tag = "12")]
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy variables: in the environment, in no cache key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProxyEnv {
    #[prost(string, tag = "1")]
    pub http_proxy: String,
    #[prost(string, tag = "2")]
    pub https_proxy: String,
    #[prost(string, tag = "3")]
    pub ftp_proxy: String,
    #[prost(string, tag = "4")]
    pub no_proxy: String,
    #[prost(string, tag = "5")]
    pub all_proxy: String,
}

/// A line of /etc/hosts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HostIp {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(string, tag = "2")]
    pub ip: String,
}

/// A resource limit.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ulimit {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, tag = "2")]
    pub soft: i64,
    #[prost(int64, tag = "3")]
    pub hard: i64,
}

/// A secret as an environment variable.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecretEnv {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub optional: bool,
}

/// A device by its CDI name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CdiDevice {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub optional: bool,
}

/// A mount of a process. The one at `/` is its root. `input` and `output` are -1 for none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mount {
    #[prost(int64, tag = "1")]
    pub input: i64,
    #[prost(string, tag = "2")]
    pub selector: String,
    #[prost(string, tag = "3")]
    pub dest: String,
    #[prost(int64, tag = "4")]
    pub output: i64,
    #[prost(bool, tag = "5")]
    pub readonly: bool,
    #[prost(enumeration = "MountType", tag = "6")]
    pub mount_type: i32,
    #[prost(message, optional, tag = "19")]
    pub tmpfs_opt: Option<TmpfsOpt>,
    #[prost(message, optional, tag = "20")]
    pub cache_opt: Option<CacheOpt>,
    #[prost(message, optional, tag = "21")]
    pub secret_opt: Option<SecretOpt>,
    #[prost(message, optional, tag = "22")]
    pub ssh_opt: Option<SshOpt>,
    #[prost(string, tag = "23")]
    pub result_id: String,
    #[prost(enumeration = "MountContentCache", tag = "24")]
    pub content_cache: i32,
}

/// Which network a process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NetMode {
    Unset = 0,
    Host = 1,
    None = 2,
}

/// How much a process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SecurityMode {
    Sandbox = 0,
    Insecure = 1,
}

/// Kinds of mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MountType {
    Bind = 0,
    Secret = 1,
    Ssh = 2,
    Cache = 3,
    Tmpfs = 4,
}

/// Whether a mount's input counts by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MountContentCache {
    Default = 0,
    On = 1,
    Off = 2,
}

/// A tmpfs: size in bytes, 0 for the kernel's default.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TmpfsOpt {
    #[prost(int64, tag = "1")]
    pub size: i64,
}

/// A cache mount.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CacheOpt {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(enumeration = "CacheSharing", tag = "2")]
    pub sharing: i32,
}

/// What happens when two steps want one cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CacheSharing {
    Shared = 0,
    Private = 1,
    Locked = 2,
}

/// A secret as a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecretOpt {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    #[prost(bool, tag = "5")]
    pub optional: bool,
}

/// A forwarded SSH agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SshOpt {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    #[prost(bool, tag = "5")]
    pub optional: bool,
}

/// Changes files: actions in order, each on an input or on an earlier action's output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileOp {
    #[prost(message, repeated, tag = "2")]
    pub actions: Vec<FileAction>,
}

/// One change. `input` and `secondary_input` count the vertex's inputs first, then earlier actions; -1 for none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileAction {
    #[prost(int64, tag = "1")]
    pub input: i64,
    #[prost(int64, tag = "2")]
    pub secondary_input: i64,
    #[prost(int64, tag = "3")]
    pub output: i64,
    #[prost(oneof = "FileActionKind", tags = "4, 5, 6, 7, 8")]
    pub action: Option<FileActionKind>,
}

/// The closed set of changes.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum FileActionKind {
    #[prost(message, tag = "4")]
    Copy(FileActionCopy),
    #[prost(message, tag = "5")]
    MkFile(FileActionMkFile),
    #[prost(message, tag = "6")]
    MkDir(FileActionMkDir),
    #[prost(message, tag = "7")]
    Rm(FileActionRm),
    #[prost(message, tag = "8")]
    Symlink(FileActionSymlink),
}

/// Copies from the secondary input. `mode` is -1 to keep; `timestamp` is -1 to keep.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileActionCopy {
    #[prost(string, tag = "1")]
    pub src: String,
    #[prost(string, tag = "2")]
    pub dest: String,
    #[prost(message, optional, tag = "3")]
    pub owner: Option<ChownOpt>,
    #[prost(int32, tag = "4")]
    pub mode: i32,
    #[prost(bool, tag = "5")]
    pub follow_symlink: bool,
    #[prost(bool, tag = "6")]
    pub dir_copy_contents: bool,
    #[prost(bool, tag = "7")]
    pub attempt_unpack_docker_compatibility: bool,
    #[prost(bool, tag = "8")]
    pub create_dest_path: bool,
    #[prost(bool, tag = "9")]
    pub allow_wildcard: bool,
    #[prost(bool, tag = "10")]
    pub allow_empty_wildcard: bool,
    #[prost(int64, tag = "11")]
    pub timestamp: i64,
    #[prost(string, repeated, tag = "12")]
    pub include_patterns: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    pub exclude_patterns: Vec<String>,
    #[prost(bool, tag = "14")]
    pub always_replace_existing_dest_paths: bool,
    #[prost(string, tag = "15")]
    pub mode_str: String,
    #[prost(string, repeated, tag = "16")]
    pub required_paths: Vec<String>,
}

/// Writes a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileActionMkFile {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(int32, tag = "2")]
    pub mode: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    pub owner: Option<ChownOpt>,
    #[prost(int64, tag = "5")]
    pub timestamp: i64,
}

/// Makes a directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileActionMkDir {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(int32, tag = "2")]
    pub mode: i32,
    #[prost(bool, tag = "3")]
    pub make_parents: bool,
    #[prost(message, optional, tag = "4")]
    pub owner: Option<ChownOpt>,
    #[prost(int64, tag = "5")]
    pub timestamp: i64,
}

/// Removes a path.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileActionRm {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(bool, tag = "2")]
    pub allow_not_found: bool,
    #[prost(bool, tag = "3")]
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileActionSymlink {
    #[prost(string, tag = "1")]
    pub oldpath: String,
    #[prost(string, tag = "2")]
    pub newpath: String,
    #[prost(message, optional, tag = "3")]
    pub owner: Option<ChownOpt>,
    #[prost(int64, tag = "4")]
    pub timestamp: i64,
}

/// An owner.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChownOpt {
    #[prost(message, optional, tag = "1")]
    pub user: Option<UserOpt>,
    #[prost(message, optional, tag = "2")]
    pub group: Option<UserOpt>,
}

/// A user or group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UserOpt {
    #[prost(oneof = "UserKind", tags = "1, 2")]
    pub user: Option<UserKind>,
}

/// By name, looked up in an input's own passwd or group file, or by number.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum UserKind {
    #[prost(message, tag = "1")]
    ByName(NamedUserOpt),
    #[prost(uint32, tag = "2")]
    ById(u32),
}

/// A name and the input to look it up in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamedUserOpt {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, tag = "2")]
    pub input: i64,
}

/// Lays inputs over each other.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MergeOp {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<MergeInput>,
}

/// One of them, by index.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MergeInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// What `upper` adds to `lower`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DiffOp {
    #[prost(message, optional, tag = "1")]
    pub lower: Option<DiffInput>,
    #[prost(message, optional, tag = "2")]
    pub upper: Option<DiffInput>,
}

/// One side, by index; -1 for scratch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DiffInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// Builds what an input describes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildOp {
    #[prost(int64, tag = "1")]
    pub builder: i64,
    #[prost(btree_map = "string, message", tag = "2")]
    pub inputs: BTreeMap<String, BuildInput>,
    #[prost(message, optional, tag = "3")]
    pub def: Option<Definition>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub attrs: BTreeMap<String, String>,
}

/// One input of a nested build, by index.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// A graph on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub def: Vec<Vec<u8>>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, OpMetadata>,
    #[prost(message, optional, tag = "3")]
    pub source: Option<Source>,
}

/// What is said about an op without being part of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpMetadata {
    #[prost(bool, tag = "1")]
    pub ignore_cache: bool,
    #[prost(btree_map = "string, string", tag = "2")]
    pub description: BTreeMap<String, String>,
}

/// Where ops come from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Source {
    #[prost(btree_map = "string, message", tag = "1")]
    pub locations: BTreeMap<String, Locations>,
    #[prost(message, repeated, tag = "2")]
    pub infos: Vec<SourceInfo>,
}

/// Places of one op.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Locations {
    #[prost(message, repeated, tag = "1")]
    pub locations: Vec<Location>,
}

/// A place: which text, which ranges.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Location {
    #[prost(int32, tag = "1")]
    pub source_index: i32,
    #[prost(message, repeated, tag = "2")]
    pub ranges: Vec<Range>,
}

/// A range of positions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Range {
    #[prost(message, optional, tag = "1")]
    pub start: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub end: Option<Position>,
}

/// Line from 1, character from 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Position {
    #[prost(int32, tag = "1")]
    pub line: i32,
    #[prost(int32, tag = "2")]
    pub character: i32,
}

/// A text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SourceInfo {
    #[prost(string, tag = "1")]
    pub filename: String,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub definition: Option<Definition>,
    #[prost(string, tag = "4")]
    pub language: String,
}
