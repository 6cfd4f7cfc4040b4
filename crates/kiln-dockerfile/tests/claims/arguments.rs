//! `ARG`, variables and where they count.

use crate::File;

#[test]
fn global_arguments_are_seen_by_from_alone_until_a_stage_declares_them() {
    let text = "ARG V=1\nFROM --platform=$BUILDPLATFORM base:$V\nRUN a\nARG V\nRUN b";
    let built = File::new(text).build();
    assert_eq!(built.asked, ["base:1"]);
    let envs: Vec<_> = built.runs().into_iter().map(|run| run.meta.unwrap().env).collect();
    assert_eq!(envs, [vec!["PATH=/bin"], vec!["PATH=/bin", "V=1"]]);
}

#[test]
fn the_command_line_beats_a_default_and_a_default_beats_the_global_argument() {
    let text = "ARG A=global\nARG B=global\nFROM base\nARG A=default B C\nRUN x";
    assert_eq!(File::new(text).build().env_of_last_run(), ["PATH=/bin", "A=default", "B=global"]);
    let given = File::new(text).arg("A", "cli").arg("B", "cli").arg("C", "cli").build();
    assert_eq!(given.env_of_last_run(), ["PATH=/bin", "A=cli", "B=cli", "C=cli"]);
}

#[test]
fn env_beats_an_argument_of_its_name_and_arguments_never_reach_the_image() {
    let built = File::new("FROM base\nARG X=arg\nENV X=env\nRUN x").arg("X", "cli").build();
    assert_eq!(built.env_of_last_run(), ["PATH=/bin", "X=env"]);
    let built = File::new("FROM base\nARG X=arg\nRUN x").build();
    assert_eq!(built.image_env(), ["PATH=/bin"]);
}

#[test]
fn an_argument_counts_from_its_line_on_and_in_stages_that_begin_with_its_stage() {
    let text =
        "FROM base AS a\nWORKDIR /x${V}\nARG V=1 W=2\nFROM a\nRUN child\nFROM base\nRUN other\nCOPY --from=1 / /";
    let built = File::new(text).build();
    assert_eq!(built.directories()[0].path, "/x");
    let child = built.runs().into_iter().find(|run| run.meta.as_ref().unwrap().args[2] == "child").unwrap();
    assert_eq!(child.meta.unwrap().env, ["PATH=/bin", "V=1", "W=2"]);
    let other = built.runs().into_iter().find(|run| run.meta.as_ref().unwrap().args[2] == "other").unwrap();
    assert_eq!(other.meta.unwrap().env, ["PATH=/bin"]);
}

#[test]
fn a_value_of_the_image_comes_back_in_stages_below_when_an_argument_has_hidden_it() {
    let built = File::new("FROM base AS a\nENV L=image\nARG L=argument\nRUN a\nFROM a\nRUN b").build();
    assert_eq!(built.env_of_last_run(), ["PATH=/bin", "L=image"]);
}

#[test]
fn proxies_need_no_arg_and_are_in_no_environment_history_or_config() {
    for name in ["HTTP_PROXY", "https_proxy", "FTP_PROXY", "no_proxy", "ALL_PROXY"] {
        let built = File::new("FROM base\nRUN x").arg(name, "value").build();
        let meta = built.run().meta.unwrap();
        let proxies = meta.proxy_env.unwrap();
        let given = [proxies.http_proxy, proxies.https_proxy, proxies.ftp_proxy, proxies.no_proxy, proxies.all_proxy];
        assert_eq!(given.concat(), "value", "{name}");
        assert_eq!(meta.env, ["PATH=/bin"]);
        assert_eq!(built.history(), ["RUN /bin/sh -c x # buildkit"]);
        assert!(built.lowered.warnings.is_empty(), "{:?}", built.lowered.warnings);
    }
    let declared = File::new("FROM base\nARG HTTP_PROXY\nRUN x").arg("HTTP_PROXY", "value").build();
    assert_eq!(declared.env_of_last_run(), ["PATH=/bin", "HTTP_PROXY=value"]);
}

#[test]
fn platform_arguments_say_what_is_built_where_once_they_are_declared() {
    let names = "TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDOS BUILDARCH TARGETSTAGE";
    let text = format!("FROM base AS last\nRUN undeclared\nARG {names}\nRUN declared");
    let built = File::new(&text).platform("linux/arm/v7").build();
    assert_eq!(built.runs()[0].meta.as_ref().unwrap().env, ["PATH=/bin"]);
    let wanted = [
        "PATH=/bin",
        "TARGETPLATFORM=linux/arm/v7",
        "TARGETOS=linux",
        "TARGETARCH=arm",
        "TARGETVARIANT=v7",
        "BUILDPLATFORM=linux/amd64",
        "BUILDOS=linux",
        "BUILDARCH=amd64",
        "TARGETSTAGE=last",
    ];
    assert_eq!(built.env_of_last_run(), wanted);
}

#[test]
fn built_in_arguments_have_their_effect_and_none_reaches_an_environment() {
    let mut file = File::new("FROM base\nRUN --mount=type=cache,target=/c x").arg("SOURCE_DATE_EPOCH", "0");
    let given = [
        ("BUILDKIT_SANDBOX_HOSTNAME", "builder"),
        ("BUILDKIT_CACHE_MOUNT_NS", "team"),
        ("BUILDKIT_MULTI_PLATFORM", "true"),
        ("BUILDKIT_BUILD_NAME", "n"),
        ("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1"),
        ("BUILDKIT_INLINE_CACHE", "1"),
        ("BUILDKIT_SYNTAX", "dockerfile.v0"),
        ("BUILDKIT_SBOM_SCAN_CONTEXT", "true"),
        ("BUILDKIT_SBOM_SCAN_STAGE", "true"),
    ];
    for (name, value) in given {
        file = file.arg(name, value);
    }
    let built = file.build();
    let run = built.run();
    let meta = run.meta.unwrap();
    assert_eq!((meta.hostname.as_str(), meta.env), ("builder", vec!["PATH=/bin".to_owned()]));
    assert_eq!(run.mounts[1].cache_opt.as_ref().unwrap().id, "team//c");
    assert!(built.vertices().last().unwrap().meta.name.starts_with("[linux/amd64 "));
    assert_eq!(built.image_env(), ["PATH=/bin"]);
    assert_eq!((built.lowered.epoch, built.lowered.warnings.len()), (Some(0), 0));
}

#[test]
fn arguments_that_choose_what_to_scan_are_in_no_step_even_when_declared() {
    let built =
        File::new("FROM base\nARG BUILDKIT_SBOM_SCAN_STAGE=true BUILDKIT_SBOM_SCAN_CONTEXT=true\nRUN x").build();
    assert_eq!(built.env_of_last_run(), ["PATH=/bin"]);
}

#[test]
fn the_time_of_all_new_things_is_given_in_seconds_or_by_a_name() {
    let epoch = |value: &str| File::new("FROM base\nWORKDIR /a").arg("SOURCE_DATE_EPOCH", value).build().lowered.epoch;
    assert_eq!((epoch("12"), epoch("-1"), epoch(""), epoch("context")), (Some(12), Some(-1), None, None));
    let built = File::new("ARG SOURCE_DATE_EPOCH=12\nFROM base\nWORKDIR /a").build();
    assert_eq!(built.directories()[0].timestamp, 12_000_000_000);
    assert_eq!(built.lowered.config.history[0].created.as_deref(), Some("1970-01-01T00:00:12Z"));
    let wrong = File::new("FROM base").arg("SOURCE_DATE_EPOCH", "noon").errors();
    assert_eq!(wrong, ["`SOURCE_DATE_EPOCH=noon` of a build argument or the environment is no time"]);
}

#[test]
fn variables_are_filled_in_where_no_shell_does_it() {
    let text = "FROM base\nARG V=v N=7\nENV E=$V\nLABEL l=$V\nWORKDIR /$V\nCOPY --chown=$N --chmod=64$N $V $V/\n\
                ADD $V $V/\nEXPOSE $N\nVOLUME $V\nUSER $V\nSTOPSIGNAL $N\nONBUILD ENV X=$V";
    let built = File::new(text).build();
    let config = &built.lowered.config.config;
    assert_eq!((config.env[1].as_str(), config.labels["l"].as_str(), config.working_dir.as_str()), ("E=v", "v", "/v"));
    assert_eq!((config.user.as_str(), config.stop_signal.as_deref()), ("v", Some("7")));
    assert!(config.exposed_ports.contains_key("7/tcp") && config.volumes.contains_key("v"));
    assert_eq!((built.copies()[0].src.as_str(), built.copies()[0].mode), ("/v", 0o647));
    assert_eq!(config.on_build, ["ENV X=$V"]);
}

#[test]
fn run_cmd_and_entrypoint_leave_variables_to_the_shell() {
    let built = File::new("FROM base\nENV A=1\nRUN echo $A\nCMD echo $A\nENTRYPOINT [\"$A\"]\nCMD echo $A").build();
    assert_eq!(built.run().meta.unwrap().args, ["/bin/sh", "-c", "echo $A"]);
    let config = &built.lowered.config.config;
    assert_eq!(config.cmd.as_deref().unwrap()[2], "echo $A");
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["$A"]);
}

#[test]
fn one_value_counts_throughout_an_instruction() {
    let built = File::new("FROM base\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc").build();
    assert_eq!(built.image_env()[1..], ["abc=bye", "def=hello", "ghi=bye"]);
}

#[test]
fn from_of_copy_takes_global_arguments_and_no_others() {
    let text = "ARG S=tools\nFROM base AS tools\nRUN t\nFROM base\nARG L=tools\nCOPY --from=$S /a /";
    assert_eq!(File::new(text).build().runs().len(), 1);
    let local = File::new(&text.replace("$S", "$L")).errors();
    assert_eq!(local, ["`--from=$L` names nothing"]);
}
