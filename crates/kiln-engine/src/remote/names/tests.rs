//! Digests that BuildKit gave to the same operations, and what of an operation does not count.

use kiln_graph::llb::Meta;
use kiln_graph::llb::{CacheOpt, Mount};
use kiln_graph::{Builder, VertexMeta};

use super::*;

fn run(command: &str) -> ExecOp {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    let meta = Meta { args, env: vec![path], cwd: "/".into(), remove_mount_stubs_recursive: true, ..Meta::default() };
    ExecOp { meta: Some(meta), mounts: vec![Mount { dest: "/".into(), ..Mount::default() }], ..ExecOp::default() }
}

fn copy(src: &str, dest: &str) -> FileOp {
    let copy = FileActionCopy {
        src: src.into(),
        dest: dest.into(),
        mode: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: -1,
        ..FileActionCopy::default()
    };
    let action = FileActionKind::Copy(copy);
    FileOp { actions: vec![FileAction { input: 0, secondary_input: 1, output: 0, action: Some(action) }] }
}

fn amd64() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() }
}

fn record(json: Option<String>) -> String {
    output_digest(&Digest::sha256(json.unwrap()), 0).to_string()
}

#[test]
fn steps_have_the_records_that_buildkit_wrote_for_them() {
    assert_eq!(
        record(json::exec(&run("echo compiling; echo out > /out; echo obj > /obj"), &amd64())),
        "sha256:e834bdcc3d66aca918cfc9af3d86229c917b21049177c11db8bd283f3837c04e"
    );
    assert_eq!(
        record(json::file(&copy("/f", "/f"))),
        "sha256:f41954d9a6bb5b52733f3154627e2490beeabac549b32a657fccc876f275afeb"
    );
}

#[test]
fn an_image_has_the_record_that_buildkit_wrote_for_its_manifest() {
    let digest = "sha256:9dd34dd881e38c3c789efdb3d99a97e3bc267d958e387b21e6c2fcbf9c0bc8d9";
    let key = Digest::sha256(json::manifest(digest, &amd64()));
    assert_eq!(
        record(Some(format!("buildkit.source.v0:{key}"))),
        "sha256:fa83fe351ffac21f3ef3d68c4b830bdd714697e740152ff609c6b2522a4bbeb6"
    );
}

#[test]
fn a_cache_by_any_other_name_is_the_same() {
    let with = |id: &str| {
        let mut op = run("true");
        let cache = Mount { dest: "/c".into(), output: -1, input: -1, mount_type: 3, ..Mount::default() };
        op.mounts.push(Mount { cache_opt: Some(CacheOpt { id: id.into(), sharing: 0 }), ..cache });
        json::exec(&op, &amd64()).unwrap()
    };
    assert!(with("/c").contains(r#""cacheOpt":{"ID":"/c"}"#));
    assert_eq!(with("a"), with("b"));
    assert_ne!(with("/c"), with("a"));
}

#[test]
fn what_is_read_is_named_without_what_is_in_it_anyway() {
    let paths = |paths: &[&str]| outermost(paths.iter().map(|path| (*path).to_owned()).collect());
    assert_eq!(paths(&["/a", "/a/b", "/ab", "/c", "/c"]), BTreeSet::from(["/a", "/ab", "/c"].map(str::to_owned)));
    let mut wild = copy("/*.txt", "/");
    assert!(copied(&wild, 2).unwrap()[1].paths.is_none());
    wild.actions[0].input = 1;
    assert!(copied(&wild, 2).unwrap()[1].selector.is_empty(), "what is written on counts whole");
}

#[test]
fn a_process_with_limits_that_its_operation_does_not_say_has_no_name() {
    let mut builder = Builder::new();
    builder.add(OpKind::Exec(run("make")), Vec::new(), None, VertexMeta::default());
    let definition = builder.finish();
    let named = |limits| Names::of(&definition, (&Images::default(), &Trees::default()), limits).named.len();
    assert_eq!((named(None), named(Some("limits"))), (1, 0));
}
