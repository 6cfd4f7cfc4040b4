//! `COPY`, `ADD`, `WORKDIR`: where files land, whose they are, and what they keep.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::project::{Project, run};

#[test]
fn copies_land_where_docker_puts_them() {
    let project = Project::new();
    project.file("a.txt", "a").file("b.txt", "b").file("dir/x", "x").file("dir/sub/y", "y");
    project.builds(
        "FROM busybox\nCOPY a.txt /one\nCOPY a.txt b.txt /many/\nCOPY *.txt /wild/\nCOPY dir /contents\n\
         COPY dir/sub ./relative\nWORKDIR /work\nCOPY a.txt .\nCOPY a.txt new/dir/\nCOPY [\"b.txt\", \"/with space\"]\n",
    );
    let found = project.sh("find /one /many /wild /contents /relative /work '/with space' -type f | sort");
    let wanted = "/contents/sub/y\n/contents/x\n/many/a.txt\n/many/b.txt\n/one\n/relative/y\n/wild/a.txt\n/wild/b.txt\n\
                  /with space\n/work/a.txt\n/work/new/dir/a.txt\n";
    assert_eq!(found, wanted);
}

#[test]
fn owners_and_modes_are_set_and_names_are_the_image_s_own() {
    let project = Project::new();
    project.file("f", "f").file("d/g", "g");
    fs::set_permissions(project.context().join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    project.builds(
        "FROM busybox\nRUN echo 'app:x:70000:77:::' >> /etc/passwd; echo 'team:x:77:' >> /etc/group\n\
         COPY f /plain\nCOPY --chown=app f /named\nCOPY --chown=app:mail f /group\nCOPY --chown=5:6 d /numbers\n\
         COPY --chmod=751 f /octal\nCOPY --chmod=u=rw,go=r f /symbolic\n",
    );
    let found = project.sh("stat -c '%n %a %u %g' /plain /named /group /numbers /numbers/g /octal /symbolic");
    let wanted = "/plain 640 0 0\n/named 640 70000 77\n/group 640 70000 8\n/numbers 755 5 6\n\
                  /numbers/g 644 5 6\n/octal 751 0 0\n/symbolic 644 0 0\n";
    assert_eq!(found, wanted);
}

#[test]
fn symlinks_are_copied_as_links_and_never_lead_out() {
    let project = Project::new();
    project.file("real", "inside").link("link", "real").link("out", "/etc/hostname").link("up", "../../../etc/passwd");
    project.builds("FROM busybox\nCOPY . /all/\nRUN ln -s /real-dir /linked && mkdir /real-dir\nCOPY real /linked/\n");
    assert_eq!(
        project.sh("for l in link out up; do readlink /all/$l; done"),
        "real\n/etc/hostname\n../../../etc/passwd\n"
    );
    assert_eq!(project.sh("cat /real-dir/real; readlink /linked"), "inside/real-dir\n");
}

#[test]
fn times_are_kept_and_hard_links_stay_one_file() {
    let project = Project::new();
    project.file("d/a", "a");
    let file = fs::File::options().append(true).open(project.context().join("d/a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    fs::hard_link(project.context().join("d/a"), project.context().join("d/b")).unwrap();
    project.dockerfile("FROM busybox\nCOPY d /d\n");
    let out = project.tree(&[]);
    let (a, b) = (out.join("d/a").metadata().unwrap(), out.join("d/b").metadata().unwrap());
    assert_eq!((a.ino(), a.mtime()), (b.ino(), 1_000_000_000));
}

#[test]
fn local_archives_are_unpacked_and_remote_or_copied_ones_are_not() {
    let project = Project::new();
    project.file("t/x", "x").file("t/y", "y");
    let archive = project.context().join("t.tar.gz");
    run(Command::new("tar").arg("-C").arg(project.context().join("t")).arg("-czf").arg(&archive).args(["x", "y"])).ok();
    project
        .builds("FROM busybox\nADD t.tar.gz /unpacked/\nCOPY t.tar.gz /copied/\nADD --unpack=false t.tar.gz /kept/\n");
    assert_eq!(
        project.sh("find /unpacked /copied /kept -type f | sort"),
        "/copied/t.tar.gz\n/kept/t.tar.gz\n/unpacked/x\n/unpacked/y\n"
    );
}

#[test]
fn workdir_makes_directories_of_the_current_user_and_follows_env() {
    let project = Project::new();
    project.builds("FROM busybox\nENV D=/data\nWORKDIR $D/a\nUSER 5:6\nWORKDIR b\nRUN pwd > /data/a/b/pwd\n");
    assert_eq!(
        project.sh("stat -c '%n %u %g %a' /data/a /data/a/b; cat /data/a/b/pwd"),
        "/data/a 0 0 755\n/data/a/b 5 6 755\n/data/a/b\n"
    );
    assert_eq!(project.inspect("app")["Config"]["WorkingDir"], "/data/a/b");
}

#[test]
fn heredocs_are_files_and_scripts() {
    let project = Project::new();
    project.builds(
        "FROM busybox\nENV WHO=me\nCOPY <<one <<\"two\" /h/\nhello $WHO\none\nhello $WHO\ntwo\nRUN <<EOF\n\
         echo a > /a\necho b >> /a\nEOF\nRUN <<EOF\n#!/bin/sh\necho $0 > /script\nEOF\n",
    );
    assert_eq!(project.sh("cat /h/one /h/two /a"), "hello me\nhello $WHO\na\nb\n");
}

#[test]
fn link_copies_are_layers_of_their_own_and_land_the_same() {
    let project = Project::new();
    project.file("f", "f");
    project.builds(
        "FROM busybox\nCOPY --link f /deep/er/f\nCOPY --link --chmod=600 f /deep/g\nRUN cat /deep/er/f > /out\n",
    );
    assert_eq!(project.sh("cat /out; stat -c %a /deep/g /deep"), "f600\n755\n");
}
