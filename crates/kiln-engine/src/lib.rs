//! One build from request to result: joins the language, the solver, the store, the executor and the registry.
//!
//! This crate must never know gRPC, HTTP servers, argv or terminals.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests name files of the machine"))]

mod ahead;
mod answer;
mod arrival;
mod artifact;
mod base;
mod behind;
mod blobs;
mod blocking;
mod cache;
mod claim;
mod combine;
mod config;
mod context;
mod devices;
mod diff;
mod doctor;
mod emulation;
mod engine;
mod explain;
mod export;
mod failure;
mod fetch;
mod finish;
mod follow;
mod forecast;
mod frontend;
mod fsck;
mod gather;
mod guard;
mod ids;
mod images;
mod job;
mod limited;
mod lock;
mod mounts;
mod network;
mod offline;
mod output;
mod packing;
mod progress;
mod record;
mod redact;
mod registry;
mod remember;
mod remote;
mod request;
mod rewrite;
mod room;
mod rootless;
mod run;
mod scratch;
mod session;
mod shell;
mod space;
mod ssh;
mod step;
mod take;
mod target;
mod transfer;
mod trust;
mod usage;
mod verify;
mod waiter;
mod worker;
mod wreck;

pub use answer::{
    BuildResult, Collected, FsckAnswer, FsckProblem, ImageDetails, ImageMember, ImageSummary, Loaded, PruneAnswer,
    Pruned, PullResult, Removed,
};
pub use combine::{
    Attested, CombineRequest, CombineSource, Depth, ImagePlace, RemoteDocument, RemoteImage, Said, Single,
};
pub use context::{ContextChecks, Contexts, LeftOutFile, PathVerdict, SentFile, is_ignored};
pub use diff::{
    DiffImage, DiffRequest, Differences, FieldChange, FileDifference, FileLook, HistoryChange, Ignored, ImageDiff,
    LayerChange, PackageChange, PlatformChange,
};
pub use doctor::{Arrival, Check, Diagnosis, DoctorRequest, Mark, arrive};
pub use engine::Engine;
pub use explain::{Advice, Cause, Step, Story, Summary};
pub use forecast::{Forecast, ForecastStep};
pub use frontend::named_contexts;
pub use gather::Gathered;
pub use kiln_exec::{Isolation, Resources, Terminal};
pub use kiln_fs::layer::Aspect;
pub use kiln_image::SettingsFiles;
pub use kiln_image::objects::{ActionsOptions, AwsKeys, AzureOptions, ObjectOptions, S3Options, Secret, StoreLayout};
pub use kiln_solver::{Became, Change, Fate, FileChange, MissReason, Verdict, place_of_files};
pub use kiln_store::{
    Condition, Entry, EntryKind, Field, Holder, Need, Pattern, PatternError, RecordType, Stacking, Test, Why,
};
pub use lock::{LockAnswer, LockChange, LockMode};
pub use mounts::{
    DEFAULT_MAX_SIZE, Existing, ExportedMount, MountExport, MountImport, MountPlace, MountSummary, MountsExported,
    MountsFrom, MountsImported, MountsTo, Skipped,
};
pub use record::{BuildOptions, BuildOutcome, BuildRecord, BuildTarget, Recipe, StepRecord};
pub use request::{
    Amount, Annotated, Annotation, BuildRequest, CacheEntry, CacheFrom, CacheManifest, CacheMode, CachePlace, CacheTo,
    CompressionKind, Context, Daemon, Dest, DockerfileSource, EngineConfig, Entitlement, FsckRequest, ImageOptions,
    LayerOptions, NamedContext, Naming, NetworkMode, OtherFiles, Output, PerStage, PruneRequest, Pull, Rewrite,
    RunRequest, SpaceLimits, Ulimit, UserIds, Volume,
};
pub use rootless::become_root;
pub use session::{NoSession, Session, Watched, WatchedKind};
pub use shell::ShellRequest;
pub use ssh::{SshAgent, SshKey};
pub use take::Platforms;
pub use verify::{Finding, Reason, Verified, VerifiedImage};
