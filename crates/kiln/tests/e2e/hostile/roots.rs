//! Images whose root is a trap for whoever sets up a container in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use kiln_testkit::{Forge, ForgedImage};
use serde_json::{Value, json};

use super::attack::{Attack, printed};

#[test]
fn places_of_the_kernel_that_are_links_are_refused() {
    for attack in Attack::by_everybody() {
        for place in ["dev", "proc", "sys"] {
            for target in [attack.canary(), "/".to_owned(), format!("../../../../../..{}", attack.canary())] {
                attack.image(ForgedImage::busybox().layer(Forge::new().link(place, &target).end()));
                let run = attack.build("FROM evil\nRUN echo x > /dev/null; touch /dev/pwn /sys/pwn\n").fails(1);
                run.says(&format!("cannot mount at `/{place}`: it is not a directory")).says("Dockerfile:2");
            }
        }
    }
}

#[test]
fn links_where_our_files_and_devices_will_be_lead_nowhere() {
    for attack in Attack::by_everybody() {
        let secret = attack.secret();
        let etc = ["resolv.conf", "hosts", "hostname"];
        let etc = etc.into_iter().fold(Forge::new(), |forge, name| forge.link(&format!("etc/{name}"), &secret));
        let dev =
            Forge::new().dir("dev").link("dev/null", "/proc/sys/kernel/core_pattern").link("dev/console", &secret);
        let dev = dev.link("dev/pts", &attack.canary()).link("dev/shm", &attack.canary());
        attack.image(ForgedImage::busybox().layer(etc.end()).layer(dev.end()));
        let look = "stat -c '%F %t:%T' /dev/null; echo pwned > /dev/null; echo pwned > /dev/console; \
                    touch /dev/pts/pwn /dev/shm/pwn; cat /etc/hosts /etc/resolv.conf; echo pwned > /etc/hostname; true";
        attack.build(&format!("FROM evil\nRUN {look}\n")).ok().says("character special file 1:3");
    }
}

#[test]
fn device_nodes_of_an_image_do_not_open() {
    let attack = Attack::new();
    let nodes = [
        ("mem", b'3', 1, 1),
        ("kmsg", b'3', 1, 11),
        ("disk", b'4', 254, 0),
        ("disk2", b'4', 8, 0),
        ("null", b'3', 1, 3),
    ];
    let forge =
        nodes.iter().fold(Forge::new(), |forge, (name, kind, major, minor)| forge.device(*kind, name, *major, *minor));
    attack.image(ForgedImage::busybox().layer(forge.end()));
    let open = "exec 2>&1; for n in mem kmsg disk disk2 null; do head -c 512 /$n >/dev/null 2>&1 && echo opened $n; \
                echo x 2>/dev/null >/$n && echo wrote $n; done; mknod /t b 254 0 && echo made; echo end";
    let run = attack.build(&format!("FROM evil\nRUN {open}\nUSER 1000\nRUN {open}\n")).ok();
    let told = ["mknod: /t: Operation not permitted", "end", "mknod: /t: Permission denied", "end"];
    assert_eq!(printed(&run), told);
}

/// Every name in the layers of a layout's image, last layer last, with its extended header.
fn names(layout: &Path) -> Vec<BTreeMap<String, Vec<(String, String)>>> {
    let json = |digest: &Value| -> Value {
        let path = layout.join("blobs/sha256").join(&digest.as_str().unwrap()[7..]);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = json(&index["manifests"][0]["digest"]);
    let layers = manifest["layers"].as_array().unwrap().iter();
    let read = |layer: &Value| {
        let blob = fs::File::open(layout.join("blobs/sha256").join(&layer["digest"].as_str().unwrap()[7..])).unwrap();
        let mut tar = Vec::new();
        match layer["mediaType"].as_str().unwrap().ends_with("gzip") {
            true => flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut tar).unwrap(),
            false => (&blob).read_to_end(&mut tar).unwrap(),
        };
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|mut entry| {
                let records = entry.pax_extensions().unwrap().into_iter().flatten().map(Result::unwrap);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let records: Vec<_> = records.map(|r| (text(r.key_bytes()), text(r.value_bytes()))).collect();
                (format!("{:o} {}", entry.header().mode().unwrap(), entry.path().unwrap().display()), records)
            })
            .collect()
    };
    layers.map(read).collect()
}

#[test]
fn what_is_odd_in_a_base_leaves_it_bit_for_bit() {
    let attack = Attack::new();
    // Version 2 of a file's capabilities: `cap_net_raw`, effective.
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let odd = Forge::new()
        .head(b'0', b"su", |head| head.octal(100, 8, 0o4755))
        .head(b'0', b"sg", |head| head.octal(100, 8, 0o2755))
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:unconfined_t:s0"),
            ("SCHILY.xattr.security.ima", b"zz"),
            ("SCHILY.xattr.user.ok", b"kept"),
        ])
        .head(b'0', b"ping", |head| head.octal(100, 8, 0o755))
        .pax(&[("uid", b"2147483647"), ("gid", b"2147483647")])
        .file("f", "x")
        .file("a\nb", "")
        .file("\x1b]0;PWNED\x07\x1b[2J", "")
        .file("r\r\n#1 DONE", "")
        .file("--checkpoint-action=exec=sh", "")
        .device(b'3', "mem", 1, 1)
        .device(b'6', "fifo", 0, 0);
    let layers = attack.image(ForgedImage::busybox().gzip_layer(&odd.end()));
    let out = attack.project.path().join("out");
    let to = format!("type=oci,tar=false,dest={}", out.display());
    let copy = "cp -a /su /su2; stat -c '%a' /su2; stat -c '%u:%g' /f; cp -a /f /f2; chmod 700 /ping; ls /";
    let run = attack.build_with(&format!("FROM evil\nRUN {copy}\n"), &["-o", &to]).ok();
    let run = run.says(" 4755").says(" 2147483647:2147483647");
    assert!(!run.stderr.contains(['\u{1b}', '\u{7}', '\r']), "{:?}", run.stderr);
    for layer in layers {
        assert!(out.join("blobs/sha256").join(&layer[7..]).exists(), "{layer} is another one now");
    }
    let made = names(&out).pop().unwrap();
    let keys: Vec<&str> = made["700 ping"].iter().map(|(key, _)| key.as_str()).collect();
    assert!(keys.contains(&"SCHILY.xattr.user.ok") && keys.contains(&"SCHILY.xattr.security.capability"), "{keys:?}");
    assert!(!keys.iter().any(|key| key.ends_with("selinux") || key.ends_with("ima")), "{keys:?}");
    assert!(made.contains_key("4755 su2") && made.contains_key("644 f2"), "{made:?}");
}

#[test]
fn a_working_directory_does_not_lead_to_the_machine() {
    for attack in Attack::by_everybody() {
        let climb = |path: &str| format!("RUN pwd; cat ../../../../../..{path}; ls ../../../../../..{path}; true\n");
        for descriptor in [3, 5, 7, 8, 9, 12, 20] {
            let at = format!("/proc/self/fd/{descriptor}");
            let place = at.clone();
            attack.image(ForgedImage::busybox().config(move |config| config["config"]["WorkingDir"] = json!(place)));
            // Either there is no such directory, or it is one of the container.
            let run = attack.build(&format!("FROM evil\n{}", climb(&attack.secret())));
            assert!(run.code == 1 && run.stderr.contains(&format!("working directory `{at}`")), "{}", run.stderr);
            attack.image(ForgedImage::busybox());
            let run = attack.build(&format!("FROM evil\nWORKDIR {at}\n{}", climb(&attack.secret())));
            assert_eq!(run.code, 1, "{}", run.stderr);
        }
        let link = Forge::new().link("wd", &attack.canary()).end();
        attack.image(
            ForgedImage::busybox().layer(link).config(|config| config["config"]["WorkingDir"] = json!("/wd/new")),
        );
        let run = attack.build(&format!("FROM evil\nWORKDIR more\n{}", climb(&attack.secret()))).ok();
        run.says(&format!(" {}/new/more", attack.canary()));
    }
}
