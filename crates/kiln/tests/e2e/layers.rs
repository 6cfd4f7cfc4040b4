//! Layers are correct OCI diffs: judged by unpacking them with a foreign tool.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;

use crate::project::{Project, have, run};

/// Builds, writes an OCI layout, unpacks it with umoci; gives the rootfs.
fn unpacked(project: &Project) -> Option<PathBuf> {
    if !have("umoci") {
        return None;
    }
    let layout = project.path().join("oci");
    project.build(&["-o", &format!("type=oci,tar=false,name=x:t,dest={}", layout.display())]).ok();
    let bundle = project.path().join("bundle");
    let tag = run(Command::new("umoci").args(["list", "--layout"]).arg(&layout)).ok().stdout;
    let image = format!("{}:{}", layout.display(), tag.lines().next().expect("the layout has a tag"));
    run(Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&bundle)).ok();
    Some(bundle)
}

#[test]
fn deleted_replaced_and_recreated_files_come_out_right() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN mkdir -p /d/sub /o && echo 1 > /d/a && echo 2 > /d/sub/b && echo 3 > /o/c && echo 4 > /f\n\
         RUN rm /d/a && rm -r /d/sub && rm -r /o && mkdir /o && echo 5 > /o/new && rm /f && mkdir /f\n",
    );
    let Some(root) = unpacked(&project) else { return };
    assert!(!root.join("d/a").exists() && !root.join("d/sub").exists() && !root.join("o/c").exists());
    assert_eq!(fs::read_to_string(root.join("o/new")).unwrap(), "5\n");
    assert!(root.join("f").is_dir() && root.join("d").is_dir());
}

#[test]
fn what_a_file_is_survives() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN cp /bin/busybox /su && chmod 4755 /su && ln /su /su2 && mkfifo /fifo && ln -s su /link \
         && touch /big && chown 70000:2147483647 /big && truncate -s 100M /sparse && touch -d @1234567890 /old \
         && mkdir -m 1777 /sticky && echo x > \"$(printf '/odd\\377\\nname')\"\n",
    );
    let Some(root) = unpacked(&project) else { return };
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(meta("su").mode() & 0o7777, 0o4755);
    assert_eq!(meta("su").ino(), meta("su2").ino());
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!(fs::read_link(root.join("link")).unwrap(), PathBuf::from("su"));
    assert_eq!((meta("big").uid(), meta("big").gid()), (70_000, 2_147_483_647));
    assert_eq!(meta("sparse").len(), 100 << 20);
    assert_eq!(meta("old").mtime(), 1_234_567_890);
    assert_eq!(meta("sticky").mode() & 0o7777, 0o1777);
    let odd = fs::read_dir(&root).unwrap().any(|e| e.unwrap().file_name().as_bytes() == b"odd\xff\nname");
    assert!(odd, "a name of odd bytes is lost");
}

#[test]
fn each_changing_instruction_is_one_layer_and_the_others_none() {
    let project = Project::new();
    project.file("f", "f");
    project.builds(
        "FROM busybox\nENV A=1\nLABEL l=1\nWORKDIR /w\nWORKDIR /\nCOPY f /f\nADD f /g\nRUN true\nUSER 1\nEXPOSE 80\n\
         VOLUME /v\nSTOPSIGNAL 9\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\nHEALTHCHECK NONE\nMAINTAINER me\n",
    );
    let base = project.inspect("busybox")["RootFS"]["Layers"].as_array().unwrap().len();
    assert_eq!(project.inspect("app")["RootFS"]["Layers"].as_array().unwrap().len(), base + 4);
    let history = project.kiln(&["history", "--no-trunc", "app"]).ok().stdout;
    for line in ["WORKDIR /w", "COPY f /f # buildkit", "RUN /bin/sh -c true # buildkit", "CMD [\"x\"]", "USER 1"] {
        assert!(history.contains(line), "`{line}` is not in\n{history}");
    }
}

#[test]
fn a_step_that_changes_nothing_makes_the_empty_layer() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN true\n");
    let layers = project.inspect("app")["RootFS"]["Layers"].clone();
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(layers.as_array().unwrap().last().unwrap(), empty);
}
