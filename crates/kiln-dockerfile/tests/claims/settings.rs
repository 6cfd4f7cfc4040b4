//! Instructions that set the image's config, and the history of all.

use serde_json::json;

use crate::File;

fn config(text: &str) -> kiln_oci::ContainerConfig {
    File::new(&format!("FROM base\n{text}")).build().lowered.config.config
}

fn errors(text: &str) -> Vec<String> {
    File::new(&format!("FROM base\n{text}")).errors()
}

#[test]
fn env_and_label_take_pairs_or_one_old_pair() {
    let config = config("ENV A=1 B=\"two words\" C=a\\ b\nENV OLD one  two\nLABEL x=1 \"y z\"='2'\nLABEL x=3");
    assert_eq!(config.env[1..], ["A=1", "B=two words", "C=a b", "OLD=one  two"]);
    assert_eq!((config.labels["x"].as_str(), config.labels["y z"].as_str()), ("3", "2"));
}

#[test]
fn ports_have_ranges_and_protocols_in_lower_case() {
    let ports: Vec<String> = config("EXPOSE 80 53/UDP 7000-7002/tcp").exposed_ports.into_keys().collect();
    assert_eq!(ports, ["53/udp", "7000/tcp", "7001/tcp", "7002/tcp", "80/tcp"]);
    assert_eq!(errors("EXPOSE 80/http"), ["`http` in `80/http` is no protocol that can be exposed"]);
}

#[test]
fn volumes_are_words_or_json_and_never_empty() {
    let volumes: Vec<String> = config("VOLUME /a /b\nVOLUME [\"/c d\"]").volumes.into_keys().collect();
    assert_eq!(volumes, ["/a", "/b", "/c d"]);
    assert_eq!(errors("VOLUME [\"\"]"), ["a volume cannot be empty"]);
}

#[test]
fn working_directories_follow_each_other_and_variables() {
    assert_eq!(config("ENV D=/a\nWORKDIR $D\nWORKDIR b\nWORKDIR ../c").working_dir, "/a/c");
    let built = File::new("FROM base\nWORKDIR sub").base(json!({"WorkingDir": "/image"})).build();
    assert_eq!(built.lowered.config.config.working_dir, "/image/sub");
}

#[test]
fn a_working_directory_is_made_for_the_current_user_and_the_root_makes_no_layer() {
    let built = File::new("FROM base\nUSER app\nWORKDIR /a\nWORKDIR /").build();
    let made = built.directories();
    assert_eq!((made.len(), made[0].mode, made[0].make_parents, made[0].owner.is_some()), (1, 0o755, true, true));
    let layers: Vec<bool> = built.lowered.config.history.iter().map(|step| !step.empty_layer).collect();
    assert_eq!(layers, [false, true, false]);
    assert_eq!(File::new("FROM base\nWORKDIR /a").build().directories()[0].owner, None);
}

#[test]
fn stop_signals_are_names_or_numbers_and_shell_is_json() {
    for signal in ["SIGTERM", "kill", "9", "SIGRTMIN+3"] {
        assert_eq!(config(&format!("STOPSIGNAL {signal}")).stop_signal.as_deref(), Some(signal));
    }
    assert_eq!(errors("STOPSIGNAL SIGNONE"), ["`SIGNONE` is no signal"]);
    assert_eq!(config("SHELL [\"/bin/x\", \"-c\"]").shell.unwrap(), ["/bin/x", "-c"]);
    assert_eq!(errors("SHELL /bin/x -c"), ["SHELL takes a JSON array"]);
}

#[test]
fn an_entrypoint_resets_the_inherited_command_unless_the_stage_has_its_own() {
    let both = json!({"Entrypoint": ["old"], "Cmd": ["inherited"]});
    let lines = |text: &str| {
        let config = File::new(&format!("FROM base\n{text}")).base(both.clone()).build().lowered.config.config;
        (config.entrypoint.unwrap_or_default().join(" "), config.cmd.unwrap_or_default().join(" "))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(lines("USER x"), pair("old", "inherited"));
    assert_eq!(lines("CMD [\"own\"]"), pair("old", "own"));
    assert_eq!(lines("ENTRYPOINT [\"new\"]"), pair("new", ""));
    assert_eq!(lines("CMD [\"own\"]\nENTRYPOINT [\"new\"]"), pair("new", "own"));
    assert_eq!(lines("ENTRYPOINT run\nCMD go"), pair("/bin/sh -c run", "/bin/sh -c go"));
    assert_eq!(lines("ENTRYPOINT []"), pair("", ""));
}

#[test]
fn health_checks_have_times_of_a_millisecond_or_more_or_none() {
    let flags = "--interval=1m30s --timeout=10ms --start-period=0 --start-interval=5s --retries=3";
    let check = config(&format!("HEALTHCHECK {flags} CMD curl x")).healthcheck.unwrap();
    assert_eq!(check.test, ["CMD-SHELL", "curl x"]);
    assert_eq!((check.interval, check.timeout, check.start_period), (90_000_000_000, 10_000_000, 0));
    assert_eq!((check.start_interval, check.retries), (5_000_000_000, 3));
    assert_eq!(config("HEALTHCHECK CMD [\"a\", \"b\"]").healthcheck.unwrap().test, ["CMD", "a", "b"]);
    assert_eq!(config("HEALTHCHECK NONE").healthcheck.unwrap().test, ["NONE"]);
    assert_eq!(errors("HEALTHCHECK --timeout=1us CMD x"), ["`--timeout=1us` is shorter than a millisecond"]);
}

#[test]
fn history_is_written_as_buildkit_writes_it() {
    let text = "FROM base\nARG A=1\nENV E=x\nRUN --mount=type=secret,id=s,env=S make\nCOPY --link --chown=1 --exclude=x a b/\n\
                WORKDIR /w\nEXPOSE 2 1\nVOLUME /a /b\nUSER me\nCMD [\"a\", \"b\"]\nLABEL l=1\nSTOPSIGNAL 9";
    let built = File::new(text).arg("HTTP_PROXY", "hidden").build();
    let wanted = [
        "ARG A=1",
        "ENV E=x",
        "RUN |1 A=1 /bin/sh -c make # buildkit",
        "COPY --chown=1 a b/ # buildkit",
        "WORKDIR /w",
        "EXPOSE [1/tcp 2/tcp]",
        "VOLUME [/a /b]",
        "USER me",
        "CMD [\"a\" \"b\"]",
        "LABEL l=1",
        "STOPSIGNAL 9",
    ];
    assert_eq!(built.history(), wanted);
    let history = &built.lowered.config.history;
    assert!(history.iter().all(|step| step.comment.as_deref() == Some("buildkit.dockerfile.v0")));
    let layers: Vec<usize> = (0..history.len()).filter(|at| !history[*at].empty_layer).collect();
    assert_eq!(layers, [2, 3, 4]);
}
