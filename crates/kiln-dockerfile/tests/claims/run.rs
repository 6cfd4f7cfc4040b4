//! `RUN`: shell, mounts, network, privileges, devices.

use kiln_graph::llb::{CacheSharing, Mount, MountType, NetMode, SecurityMode};
use serde_json::json;

use crate::File;

/// The mounts of one step, without its root.
fn mounts(flags: &str) -> Vec<Mount> {
    let built = File::new(&format!("FROM base AS other\nFROM base\nRUN {flags} x")).build();
    built.run().mounts.into_iter().filter(|mount| mount.dest != "/").collect()
}

fn mount(flags: &str) -> Mount {
    mounts(flags).pop().unwrap()
}

fn errors(flags: &str) -> Vec<String> {
    File::new(&format!("FROM base\nRUN {flags} x")).errors()
}

#[test]
fn the_default_shell_and_path_are_used_when_the_image_says_nothing() {
    let built = File::new("FROM base\nRUN a b").base(json!({})).build();
    let meta = built.run().meta.unwrap();
    assert_eq!(meta.args, ["/bin/sh", "-c", "a b"]);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!((meta.env, built.image_env()), (vec![path.to_owned()], [path.to_owned()].as_slice()));
}

#[test]
fn exec_form_starts_no_shell_and_shell_changes_the_shell() {
    let args = |text: &str| File::new(&format!("FROM base\n{text}")).build().run().meta.unwrap().args;
    assert_eq!(args("RUN [\"a\", \"b c\"]"), ["a", "b c"]);
    assert_eq!(args("RUN [\"a\", 'b']"), ["/bin/sh", "-c", "[\"a\", 'b']"]);
    assert_eq!(args("SHELL [\"/bin/bash\", \"-ec\"]\nRUN a"), ["/bin/bash", "-ec", "a"]);
}

#[test]
fn a_heredoc_is_the_shell_s_text_or_a_program_when_it_begins_so() {
    let built = File::new("FROM base\nRUN <<EOF\necho $A\nEOF").build();
    assert_eq!(built.run().meta.unwrap().args[2], "echo $A\n");
    let built = File::new("FROM base\nRUN <<-EOF\n\t#!/bin/x\n\ty\n\tEOF").build();
    assert_eq!(built.run().meta.unwrap().args[2], "/dev/pipes/EOF");
    let program = built.documents().pop().unwrap();
    assert_eq!((program.mode, program.data), (0o755, b"#!/bin/x\ny\n".to_vec()));
    let built = File::new("FROM base\nRUN cat <<A - <<B\na\nA\nb\nB").build();
    assert_eq!(built.run().meta.unwrap().args[2], "cat <<A - <<B\na\nA\nb\nB");
}

#[test]
fn a_bind_mount_is_the_default_reads_the_context_and_cannot_be_written() {
    let bind = mount("--mount=target=/ctx");
    assert_eq!((bind.mount_type(), bind.readonly, bind.output), (MountType::Bind, true, -1));
    let built = File::new("FROM base\nRUN --mount=target=/ctx x").build();
    built.source("local://context");
}

#[test]
fn a_bind_mount_may_come_from_elsewhere_and_writes_to_it_are_discarded() {
    let bind = mount("--mount=type=bind,from=other,source=bin/,target=rel,rw");
    assert_eq!((bind.selector.as_str(), bind.dest.as_str(), bind.readonly, bind.output), ("/bin", "/rel", false, -1));
    assert_eq!(errors("--mount=type=bind,from=$X,target=/x"), ["`from` of a mount cannot hold variables"]);
}

#[test]
fn a_cache_is_known_by_its_target_and_shared_unless_told_otherwise() {
    let opt = |flags: &str| mount(flags).cache_opt.unwrap();
    let cache = opt("--mount=type=cache,target=/a/../c/");
    assert_eq!((cache.id.as_str(), cache.sharing()), ("//c", CacheSharing::Shared));
    let cache = opt("--mount=type=cache,target=/c,id=x,sharing=locked");
    assert_eq!((cache.id.as_str(), cache.sharing()), ("/x", CacheSharing::Locked));
    assert_eq!(opt("--mount=type=cache,target=/c,sharing=PRIVATE").sharing(), CacheSharing::Private);
    assert!(!mount("--mount=type=cache,target=/c").readonly && mount("--mount=type=cache,target=/c,ro").readonly);
}

#[test]
fn a_cache_begins_with_its_source_owner_and_mode() {
    assert_eq!(mount("--mount=type=cache,target=/c,from=other,source=/var").selector, "/var");
    let built = File::new("FROM base\nRUN --mount=type=cache,target=/c,uid=5,mode=0700 x").build();
    assert_eq!((built.directories()[0].path.as_str(), built.directories()[0].mode), ("/cache", 0o700));
    let built = File::new("FROM base\nRUN --mount=type=cache,target=/c,gid=5 x").build();
    assert_eq!(built.directories()[0].mode, 0o755);
}

#[test]
fn a_tmpfs_has_a_size_with_a_unit() {
    let size = |text: &str| mount(&format!("--mount=type=tmpfs,target=/t,size={text}")).tmpfs_opt.unwrap().size;
    assert_eq!((size("64m"), size("1.5k"), size("10")), (64 << 20, 1536, 10));
    assert_eq!(errors("--mount=type=tmpfs,target=/t,size=big"), ["`big` is no size"]);
}

#[test]
fn a_secret_is_a_file_of_its_name_for_its_reader_only() {
    let secret = mount("--mount=type=secret,id=a/token");
    let opt = secret.secret_opt.unwrap();
    assert_eq!(secret.dest, "/run/secrets/token");
    assert_eq!((opt.id.as_str(), opt.mode, opt.uid, opt.optional), ("a/token", 0o400, 0, true));
    let opt = mount("--mount=type=secret,target=/root/.netrc,required,mode=0440,uid=7").secret_opt.unwrap();
    assert_eq!((opt.id.as_str(), opt.mode, opt.uid, opt.optional), (".netrc", 0o440, 7, false));
}

#[test]
fn a_secret_in_a_variable_is_no_file_unless_it_has_a_target_and_is_masked_in_the_name() {
    let built = File::new("FROM base\nRUN --mount=type=secret,id=t,env=TOKEN curl $TOKEN").build();
    let run = built.run();
    assert_eq!((run.mounts.len(), run.secretenv[0].name.as_str()), (1, "TOKEN"));
    assert!(built.vertices().last().unwrap().meta.name.ends_with("curl ****"));
    let run = File::new("FROM base\nRUN --mount=type=secret,id=t,env=T,target=/t x").build().run();
    assert_eq!((run.mounts.len(), run.secretenv.len()), (2, 1));
}

#[test]
fn an_agent_listens_where_ssh_auth_sock_says() {
    let built = File::new("FROM base\nRUN --mount=type=ssh --mount=type=ssh,id=b,required,uid=7 x").build();
    let run = built.run();
    assert!(run.meta.unwrap().env.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned()));
    let (a, b) = (run.mounts[1].clone(), run.mounts[2].clone());
    assert_eq!((a.dest.as_str(), b.dest.as_str()), ("/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1"));
    let (a, b) = (a.ssh_opt.unwrap(), b.ssh_opt.unwrap());
    assert_eq!((a.id.as_str(), a.mode, a.optional), ("default", 0o600, true));
    assert_eq!((b.id.as_str(), b.uid, b.optional), ("b", 7, false));
}

#[test]
fn options_of_mounts_are_expanded_and_may_be_quoted() {
    let text = "FROM base\nARG T=cache D=/d M=0700\nENV S=sub\nRUN --mount=type=$T,target=$D/$S,mode=$M x";
    assert_eq!(File::new(text).build().run().mounts[1].dest, "/d/sub");
    assert_eq!(mount("--mount='type=cache,\"target=/a,b\"'").dest, "/a,b");
}

#[test]
fn options_that_mean_nothing_to_a_kind_of_mount_are_refused() {
    for (flags, wanted) in [
        ("type=bind,target=/a,mode=0755", "`mode` means nothing to a mount of type `bind`"),
        ("type=tmpfs,target=/a,uid=1", "`uid` means nothing to a mount of type `tmpfs`"),
        ("type=bind,target=/a,gid=1", "`gid` means nothing to a mount of type `bind`"),
        ("type=secret,id=a,from=b", "a secret comes from the command line, and its mount has no `from`"),
        ("type=secret,id=a,sharing=shared", "a secret mount has no `sharing`"),
        ("type=secret", "a secret mount needs `id` or `target`"),
        ("type=secret,id=a,source=b", "a secret mount has either `id` or `source`, not both"),
        ("type=bind,target=/a,sharing=shared", "`sharing` means nothing to a mount of type `bind`"),
        ("type=cache,target=/a,required", "`required` means nothing to a mount of type `cache`"),
        ("type=cache,target=/a,size=1m", "`size` means nothing to a mount of type `cache`"),
        ("type=bind,target=/", "a mount cannot cover the whole root directory"),
        ("type=volume,target=/a", "`volume` is no kind of mount"),
        ("type=bind,target", "`target` of a mount has no value"),
        ("type=bind,targt=/a", "a mount has no option `targt`"),
    ] {
        assert_eq!(errors(&format!("--mount={flags}")), [wanted], "{flags}");
    }
}

#[test]
fn a_step_chooses_its_network_and_the_host_s_needs_to_be_allowed() {
    let network = |flag: &str| {
        File::new(&format!("FROM base\nRUN --network={flag} x")).allow("network.host").build().run().network()
    };
    assert_eq!((network("default"), network("none"), network("host")), (NetMode::Unset, NetMode::None, NetMode::Host));
    assert_eq!(errors("--network=host"), ["this step wants `network.host`, which was not allowed"]);
    assert_eq!(errors("--network=bridge"), ["`bridge` is not a choice of `--network`"]);
    assert_eq!(errors("--network="), ["flag `--network` has no value"]);
}

#[test]
fn an_insecure_step_needs_to_be_allowed() {
    let security = |flag: &str| {
        File::new(&format!("FROM base\nRUN --security={flag} x")).allow("security.insecure").build().run().security()
    };
    assert_eq!((security("sandbox"), security("insecure")), (SecurityMode::Sandbox, SecurityMode::Insecure));
    assert_eq!(errors("--security=insecure"), ["this step wants `security.insecure`, which was not allowed"]);
    assert_eq!(errors("--security="), ["flag `--security` has no value"]);
}

#[test]
fn devices_are_named_as_cdi_does_and_may_be_required() {
    let built = File::new("FROM base\nRUN --device=vendor.com/gpu=0 --device=vendor.com/nic=*,required x").build();
    let devices: Vec<_> = built.run().cdi_devices.into_iter().map(|device| (device.name, device.optional)).collect();
    assert_eq!(devices, [("vendor.com/gpu=0".to_owned(), true), ("vendor.com/nic=*".to_owned(), false)]);
    assert_eq!(errors("--device=required"), ["`--device` names no device"]);
}
