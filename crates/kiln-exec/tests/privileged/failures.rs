//! Commands that cannot run, and the words for it.

use std::os::unix::fs::PermissionsExt;

use crate::require_containers;
use crate::support::{self, Image, run, user};

fn put(image: &Image, path: &str, content: &[u8], mode: u32) {
    let path = image.base(path);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn programs_that_cannot_be_executed_say_why() {
    require_containers!();
    let image = Image::new();
    put(&image, "bin/bash-script", b"#!/bin/bash -e\necho\n", 0o755);
    put(&image, "bin/windows", b"#!/bin/sh\r\necho\r\n", 0o755);
    put(&image, "bin/text", b"echo hi\n", 0o755);
    put(&image, "bin/empty", b"", 0o755);
    put(&image, "bin/plain", b"#!/bin/sh\n", 0o644);
    let mut foreign = std::fs::read("/bin/busybox").unwrap();
    foreign[18..20].copy_from_slice(&243u16.to_le_bytes());
    put(&image, "bin/foreign", &foreign, 0o755);
    let cases = [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": no such file or directory"),
        ("./nosuch", "exec: \"./nosuch\": no such file or directory"),
        ("/bin/busybox/x", "exec: \"/bin/busybox/x\": no such file or directory"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("/bin/plain", "exec: \"/bin/plain\": permission denied: the file is not executable (its mode is 0644)"),
        ("plain", "exec: \"plain\": permission denied: the file is not executable (its mode is 0644)"),
        ("bash-script", "exec: \"bash-script\": `#!/bin/bash -e`: interpreter not found in the image"),
        ("windows", "exec: \"windows\": `#!/bin/sh` ends in a carriage return: the file has Windows line ends"),
        ("text", "exec: \"text\": exec format error: the file is neither a program nor a script that begins with `#!`"),
        ("empty", "exec: \"empty\": exec format error: the file is empty"),
        ("", "exec: \"\": the name is empty"),
    ];
    for (command, message) in cases {
        let error = run(image.spec(&[command])).err().unwrap();
        assert_eq!(error.to_string(), message);
        assert!(error.is_image_fault(), "{error}");
    }
    let error = run(image.spec(&["foreign"])).err().unwrap().to_string();
    assert!(error.starts_with("exec: \"foreign\": exec format error: the file is built for riscv64, this machine is "));
}

#[test]
fn a_missing_loader_is_named() {
    require_containers!();
    let image = Image::new();
    let itself = std::fs::read("/proc/self/exe").unwrap();
    put(&image, "bin/dynamic", &itself, 0o755);
    match run(image.spec(&["dynamic", "--list"])) {
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("exec: \"dynamic\": it needs the loader `/"), "{error}");
            assert!(error.ends_with("which is not in the image"), "{error}");
        }
        Ok(ran) => assert!(ran.status.is_success(), "this build is static, so there is no loader to miss"),
    }
}

#[test]
fn the_search_goes_on_past_what_cannot_be_executed() {
    require_containers!();
    let image = Image::new();
    std::fs::create_dir(image.base("first")).unwrap();
    std::fs::create_dir_all(image.base("second/tool")).unwrap();
    put(&image, "first/tool", b"#!/bin/sh\necho wrong\n", 0o644);
    put(&image, "bin/tool", b"#!/bin/sh\necho right\n", 0o755);
    let mut spec = image.spec(&["tool"]);
    spec.env = vec!["PATH=/nowhere:/etc/passwd:/first:/second:/bin".into()];
    assert_eq!(run(spec).unwrap().stdout, "right\n");
    let mut spec = image.spec(&["tool"]);
    spec.env = vec!["PATH=/first:/nowhere".into()];
    assert!(run(spec).err().unwrap().to_string().contains("permission denied"));
    let mut spec = image.spec(&["true"]);
    spec.env = vec![];
    assert!(run(spec).unwrap().status.is_success(), "the usual places are searched when there is no PATH");
}

#[test]
fn users_that_may_not_execute_are_told() {
    require_containers!();
    let image = Image::new();
    put(&image, "bin/private", b"#!/bin/sh\n", 0o700);
    let mut spec = image.spec(&["private"]);
    spec.user = user(1000, 1000);
    assert_eq!(run(spec).err().unwrap().to_string(), "exec: \"private\": permission denied");
}

#[test]
fn scripts_that_only_execute_for_others_still_run() {
    require_containers!();
    let image = Image::new();
    let Some(()) = support::compile("int main() { return 5; }", &image.base("bin/hidden")) else { return };
    std::fs::set_permissions(image.base("bin/hidden"), PermissionsExt::from_mode(0o711)).unwrap();
    let mut spec = image.spec(&["hidden"]);
    spec.user = user(1000, 1000);
    assert_eq!(run(spec).unwrap().status.shell_code(), 5);
}

#[test]
fn working_directories_that_are_none_say_so() {
    require_containers!();
    let image = Image::new();
    let cases = [
        ("/app", "working directory `/app` does not exist"),
        ("/bin/busybox", "working directory `/bin/busybox` is not a directory"),
        ("relative", "working directory `relative` is not absolute"),
        ("", "working directory `` is not absolute"),
    ];
    for (cwd, message) in cases {
        let mut spec = image.spec(&["true"]);
        spec.cwd = cwd.into();
        assert_eq!(run(spec).err().unwrap().to_string(), message);
    }
    let mut spec = image.spec(&["./busybox", "pwd"]);
    spec.cwd = "/bin/../bin".into();
    assert_eq!(run(spec).unwrap().stdout, "/bin\n");
}

#[test]
fn commands_that_are_none_are_refused() {
    require_containers!();
    let image = Image::new();
    assert_eq!(run(image.spec(&[])).err().unwrap().to_string(), "there is no command to run");
    let mut spec = image.spec(&["true"]);
    spec.env.push("A=\0".into());
    assert_eq!(run(spec).err().unwrap().to_string(), "the environment contains a NUL byte");
    let long = "x".repeat(200 << 10);
    let error = run(image.spec(&["echo", &long])).err().unwrap().to_string();
    assert_eq!(error, "exec: \"echo\": argument list too long");
}
