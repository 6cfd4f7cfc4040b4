//! The network of steps: one of their own, by default.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::project::{Project, have, run};

/// Says hello to all who come, and counts them.
pub(crate) fn listen(address: &str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).unwrap();
    let (port, hits) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&hits);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = connection.write_all(b"hello\n");
        }
    });
    (port, hits)
}

#[test]
fn the_machine_is_reached_by_its_gateway_name_and_its_loopback_never() {
    let project = Project::new();
    let (open, open_hits) = listen("0.0.0.0:0");
    let (own, own_hits) = listen("127.0.0.1:0");
    let steps = format!(
        "RUN ls /sys/class/net | tr '\\n' ' ' >/net; grep machine /etc/hosts >/hosts; \
         for at in 127.0.0.1 machine; do timeout 2 nc -w 1 $at {own} </dev/null; done; \
         timeout 2 nc -w 1 machine {open} </dev/null >/hello\n"
    );
    project.dockerfile(&format!("FROM busybox\n{steps}"));
    project.build(&["--add-host", "machine:host-gateway"]).ok().never_says("warning");
    assert_eq!((own_hits.load(Ordering::Relaxed), open_hits.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(project.sh("cat /net /hello"), "eth0 lo hello\n");
    assert!(!project.sh("cat /hosts").contains("127.0.0.1"));
    // With the machine's network the machine is where it always is.
    project.dockerfile(&format!("FROM busybox\n{}", steps.replace("RUN ", "RUN --network=host ")));
    project.build(&["--add-host", "machine:host-gateway", "--allow", "network.host"]).ok();
    assert_eq!(own_hits.load(Ordering::Relaxed), 2);
    assert_eq!(project.sh("cat /hosts"), "127.0.0.1\tmachine\n");
}

#[test]
fn where_steps_cannot_have_a_network_they_have_the_machines_and_it_is_said_once() {
    if !have("setpriv") {
        return;
    }
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN ls /sys/class/net >/one\nRUN ls /sys/class/net >/two\n");
    let kiln = project.command();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(kiln.get_program()).args(kiln.get_args());
    command.args(["build", "--progress=plain", "-t", "app"]).arg(project.context()).current_dir(project.path());
    let ran = run(&mut command).ok().says("steps cannot have a network of their own").says("not permitted");
    assert_eq!(ran.stderr.matches("warning").count(), 1, "{}", ran.stderr);
    let machine: BTreeSet<String> = links();
    let seen: BTreeSet<String> = project.sh("cat /one").lines().map(str::to_owned).collect();
    assert!(seen.is_superset(&machine.into_iter().filter(|name| !name.starts_with("kiln-")).collect()));
}

fn links() -> BTreeSet<String> {
    let all = fs::read_dir("/sys/class/net").unwrap().filter_map(Result::ok);
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_killed_build_leaves_no_link() {
    let project = Project::new();
    let before = links();
    let ours = || -> Vec<String> {
        let is_ours = |name: &String| fs::read_to_string(format!("/sys/class/net/{name}/mtu")).is_ok();
        links().difference(&before).filter(|name| name.starts_with("kiln-") && is_ours(name)).cloned().collect()
    };
    project.dockerfile("FROM busybox\nRUN ip -4 -o addr show eth0 >&2; sleep 60\n");
    let log = project.path().join("log");
    let mut command = project.command();
    command.args(["build", "--progress=plain"]).arg(project.context());
    let mut child = command.stderr(Stdio::from(fs::File::create(&log).unwrap())).spawn().unwrap();
    let within = |holds: &dyn Fn() -> bool| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) && !holds() {
            std::thread::sleep(Duration::from_millis(20));
        }
        holds()
    };
    assert!(within(&|| fs::read_to_string(&log).unwrap().contains("inet ")), "{}", fs::read_to_string(&log).unwrap());
    // Other tests have links, too: this one is known by its number, the half of its address in the pool.
    let text = fs::read_to_string(&log).unwrap();
    let address = text.split("inet ").nth(1).unwrap().split('/').next().unwrap();
    let octets: Vec<u32> = address.split('.').map(|octet| octet.parse().unwrap()).collect();
    let name = format!("kiln-{}", ((octets[2] & 0xf) * 256 + octets[3]) / 2);
    assert!(ours().contains(&name), "{name} {:?}", ours());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(within(&|| !ours().contains(&name)));
}

#[test]
fn certificates_are_trusted_in_steps_and_are_nowhere_else() {
    let Some(openssl) = kiln_testkit::Tool::find("openssl") else { return };
    drop(openssl);
    let project = Project::new();
    let (cert, _) = kiln_testkit::certificate(project.path()).unwrap();
    let line = fs::read_to_string(&cert).unwrap().lines().nth(2).unwrap().to_owned();
    let look = "grep -c BEGIN $SSL_CERT_FILE >&2; tail -n 12 $CURL_CA_BUNDLE >&2; cat $APT_CONFIG >&2; echo own=$PIP_CERT >&2; \
                touch $SSL_CERT_FILE || echo read-only >&2";
    project
        .dockerfile(&format!("FROM busybox\nENV PIP_CERT=/mine\nRUN {look}\nRUN env > /env; ls /run > /run-before\n"));
    let ran = project.build(&["--ca-cert", &cert]).ok().says(&line).says("own=/mine").says("read-only");
    ran.says("Acquire::https::CAInfo \"/run/kiln/ca-certificates.pem\";");
    // The step saw the variables, which is its own affair; the image has none of them, and no place of ours.
    assert!(project.sh("cat /env").contains("NODE_EXTRA_CA_CERTS=/run/kiln/ca-certificates.pem"));
    assert_eq!(project.sh("ls -d /run/kiln 2>/dev/null; env | grep -c CERT"), "1\n");
    let inspected = project.inspect("app").to_string();
    let history = project.kiln(&["history", "--no-trunc", "app"]).ok().stdout;
    assert!(!inspected.contains("/run/kiln") && !history.contains("/run/kiln"), "{inspected} {history}");
    // Another certificate, or none, is no reason to run again.
    assert_eq!(project.build(&[]).ok().cached(), 3);
    // What an image trusts stays trusted.
    project.file("own.crt", "-----BEGIN CERTIFICATE-----\nthe-image-s-own\n-----END CERTIFICATE-----\n");
    project.dockerfile("FROM busybox\nCOPY own.crt /etc/ssl/certs/ca-certificates.crt\nRUN cat $SSL_CERT_FILE >&2\n");
    project.build(&["--ca-cert", &cert]).ok().says("the-image-s-own").says(&line);
    project.build(&["--ca-cert", "/etc/hostname"]).fails(1).says("holds no certificate");
}
