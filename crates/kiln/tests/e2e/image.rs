//! The image's config and the commands on images.

use crate::project::Project;

#[test]
fn every_instruction_reaches_the_config() {
    let project = Project::new();
    project.builds(
        "FROM busybox\nMAINTAINER someone\nENV A=1 B=\"two words\"\nENV C legacy form\nEXPOSE 80 53/udp 7000-7001\n\
         VOLUME /v [\"odd\"]\nVOLUME [\"/data\", \"/more\"]\nLABEL a.b=\"c d\" e=f\nUSER daemon:mail\nWORKDIR /srv\n\
         STOPSIGNAL SIGINT\nSHELL [\"/bin/sh\", \"-ec\"]\nHEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD true\n\
         ENTRYPOINT [\"/bin/echo\"]\nCMD one two\nONBUILD RUN echo later\n",
    );
    let image = project.inspect("app");
    let config = &image["Config"];
    let env = config["Env"].to_string();
    assert!(env.contains("A=1") && env.contains("B=two words") && env.contains("C=legacy form"), "{env}");
    for port in ["80/tcp", "53/udp", "7000/tcp", "7001/tcp"] {
        assert!(config["ExposedPorts"].get(port).is_some(), "{port}");
    }
    assert!(config["Volumes"].get("/data").is_some() && config["Volumes"].get("/more").is_some());
    assert_eq!((&config["Labels"]["a.b"], &config["Labels"]["e"]), (&"c d".into(), &"f".into()));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"daemon:mail".into(), &"/srv".into()));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_i64);
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/echo"]));
    assert_eq!(config["Cmd"], serde_json::json!(["/bin/sh", "-ec", "one two"]));
    assert_eq!(config["OnBuild"], serde_json::json!(["RUN echo later"]));
    assert_eq!(image["Author"], "someone");
    assert_eq!((&image["Os"], image["RepoTags"].to_string()), (&"linux".into(), "[\"app:latest\"]".into()));
}

#[test]
fn an_entrypoint_drops_the_base_s_command_and_args_stay_out_of_the_image() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nARG TOKEN=default-token-value\nRUN test -n $TOKEN\nENTRYPOINT [\"/bin/echo\", \"hi\"]\n",
    );
    project.build(&["--label", "x=y"]).ok();
    let config = project.inspect("app")["Config"].clone();
    assert!(config.get("Cmd").is_none_or(serde_json::Value::is_null), "{config}");
    assert!(!config.to_string().contains("default-token-value"));
    assert_eq!(config["Labels"]["x"], "y");
    assert_eq!(project.kiln(&["run", "--rm", "app", "there"]).ok().stdout, "hi there\n");
}

#[test]
fn images_are_tagged_listed_and_removed() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN echo x > /x\n");
    let id = project.kiln(&["images", "-q", "--no-trunc", "app"]).ok().stdout.trim().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    project.kiln(&["tag", "app", "example.test/team/app:v1"]).ok();
    let list = project.kiln(&["images"]).ok().stdout;
    assert!(list.starts_with("REPOSITORY") && list.contains("example.test/team/app   v1"), "{list}");
    let removed = project.kiln(&["rmi", "app"]).ok().stdout;
    assert_eq!(removed, "Untagged: app:latest\n");
    let removed = project.kiln(&["rmi", &id[7..19], "-f"]).ok().stdout;
    assert!(
        removed.contains("Untagged: example.test/team/app:v1") && removed.contains(&format!("Deleted: {id}")),
        "{removed}"
    );
    project.kiln(&["inspect", "app"]).fails(1).says("app");
    project.kiln(&["rmi", "app"]).fails(1).says("app");
}

#[test]
fn run_obeys_its_flags_and_passes_the_exit_code() {
    let project = Project::new();
    project.builds("FROM busybox\nENV A=1\nWORKDIR /tmp\nUSER daemon\n");
    let volume = project.context().display().to_string();
    let run = project.kiln(&[
        "run",
        "--rm",
        "-e",
        "A=2",
        "-e",
        "B=3",
        "-w",
        "/",
        "-u",
        "0",
        "-v",
        &format!("{volume}:/in:ro"),
        "app",
        "sh",
        "-c",
        "echo $A $B; pwd; id -u; ls /in; touch /in/x 2>/dev/null || echo ro; exit 9",
    ]);
    assert_eq!((run.code, run.stdout.as_str()), (9, "2 3\n/\n0\nDockerfile\nro\n"), "{}", run.stderr);
    assert_eq!(project.kiln(&["run", "--rm", "app", "sh", "-c", "pwd; id -u"]).ok().stdout, "/tmp\n1\n");
    project.kiln(&["run", "--rm", "nosuch"]).fails(1).says("nosuch");
    project.kiln(&["run", "--rm", "app", "nothere"]).fails(127).says("nothere");
    project.kiln(&["run", "--rm", "app", "/etc/passwd"]).fails(126).says("/etc/passwd");
}

#[test]
fn pruning_keeps_what_a_name_holds_and_all_empties_the_store() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN echo x > /x\n");
    project.kiln(&["prune", "-f"]).ok();
    assert_eq!(project.sh("cat /x"), "x\n");
    project.kiln(&["rmi", "-f", "app", "busybox"]).ok();
    project.kiln(&["prune", "-a", "-f"]).ok();
    let left: u64 = walk(&project.state());
    assert!(left < 1 << 20, "{left} bytes are left");
}

fn walk(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|e| if e.file_type().unwrap().is_dir() { walk(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

#[test]
fn a_file_of_the_machine_can_be_mounted_into_a_container() {
    let project = Project::new();
    project.file("hosts", "from the machine\n").builds("FROM busybox\n");
    let volume = format!("{}:/etc/motd:ro", project.context().join("hosts").display());
    assert_eq!(
        project.kiln(&["run", "--rm", "-v", &volume, "app", "cat", "/etc/motd"]).ok().stdout,
        "from the machine\n"
    );
}

#[test]
fn a_config_nobody_would_read_is_refused_before_it_is_kept() {
    let project = Project::new();
    let more: String = (0..3).map(|n| format!("ENV V{n}=$A$A$A\n")).collect();
    project
        .dockerfile(&format!("FROM busybox\nENV A={}\n{more}", "x".repeat(1 << 20)))
        .build(&[])
        .fails(1)
        .says("config");
    project.kiln(&["images"]).ok();
}

#[test]
fn an_epoch_makes_one_image_of_two_builds() {
    let id = || {
        let project = Project::new();
        project.file("d/f", "f");
        project.dockerfile("FROM scratch\nWORKDIR /w/x\nCOPY d /d\n");
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for path in ["d/f", "d"] {
            std::fs::File::open(project.context().join(path)).unwrap().set_modified(old).unwrap();
        }
        project.build(&["--build-arg", "SOURCE_DATE_EPOCH=0"]).ok();
        project.inspect("app")["Id"].to_string()
    };
    let first = id();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(id(), first);
}
