//! A machine of a test's own, and an internet beyond it.
//!
//! Both are namespaces: nothing of the real machine's network is touched, and nothing beyond it is needed.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_sys::container::{Isolation, NetworkNamespace};
use kiln_sys::mount::{Bind, Depth, INERT, attach_at_path, bind_path_detached};
use kiln_sys::net::{Change, Links, Namespace};

/// The machine's address, and its neighbour's.
pub(crate) const MACHINE: &str = "198.51.100.2";
pub(crate) const MACHINE6: &str = "2001:db8::2";
const NEIGHBOUR: &str = "198.51.100.1";
const NEIGHBOUR6: &str = "2001:db8::1";

type Work = Box<dyn FnOnce() + Send>;

/// What lies beyond the machine.
pub(crate) struct Beyond(Sender<Work>);

impl Beyond {
    /// Does something there.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        self.0.send(Box::new(move || drop(sender.send(work())))).unwrap();
        receiver.recv().unwrap()
    }

    /// Listens there.
    pub(crate) fn listen(&self, address: &str) -> Counter {
        let address: SocketAddr = address.parse().unwrap();
        Counter::new(self.run(move || TcpListener::bind(address).unwrap()))
    }
}

/// Says hello to all who come, and remembers them.
#[derive(Clone)]
pub(crate) struct Counter(Arc<Mutex<Vec<IpAddr>>>);

impl Counter {
    pub(crate) fn new(listener: TcpListener) -> Counter {
        let counter = Counter(Arc::default());
        let counted = counter.clone();
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                counted.0.lock().unwrap().push(connection.peer_addr().unwrap().ip());
                let _ = connection.write_all(b"hello\n");
            }
        });
        counter
    }

    /// Listens on the machine.
    pub(crate) fn listen(address: &str) -> Counter {
        Counter::new(TcpListener::bind(address).unwrap())
    }

    pub(crate) fn visitors(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

/// Works on a machine whose `/etc/resolv.conf` is this, and which passes nothing on between links by itself.
pub(crate) fn on_a_machine<T: Send>(resolv_conf: &str, work: impl FnOnce(&Beyond) -> T + Send) -> T {
    let machine = || {
        Isolation { network: NetworkNamespace::New, hostname: "machine" }.enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
        let bind = Bind { depth: Depth::One, attributes: INERT };
        let file = bind_path_detached(&dir.path().join("resolv.conf"), bind).unwrap();
        attach_at_path(&file, Path::new("/etc/resolv.conf")).unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        work(&beyond())
    };
    std::thread::scope(|scope| match scope.spawn(machine).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn beyond() -> Beyond {
    let here = Links::open().unwrap();
    let (namespace_sender, namespace) = channel();
    let (sender, receiver): (Sender<Work>, Receiver<Work>) = channel();
    std::thread::spawn(move || {
        namespace_sender.send(Namespace::enter_new().unwrap()).unwrap();
        receiver.iter().for_each(|work| work());
    });
    assert!(here.add_pair("uplink", ("beyond", &namespace.recv().unwrap()), 1400).unwrap());
    let beyond = Beyond(sender);
    beyond.run(|| {
        let there = Links::open().unwrap();
        let loopback = there.index("lo").unwrap();
        set_up(&there, "beyond", [NEIGHBOUR, NEIGHBOUR6], [MACHINE, MACHINE6]);
        let all = [
            "203.0.113.10/32",
            "2001:db8:1::10/128",
            "169.254.169.254/32",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "fd00:ec2::254/128",
        ];
        let addresses = all.map(|text| address(loopback, text));
        there.change(&addresses).unwrap();
        there.change(&[Change::Up { link: loopback }]).unwrap();
    });
    set_up(&here, "uplink", [MACHINE, MACHINE6], [NEIGHBOUR, NEIGHBOUR6]);
    // Links begin to carry a moment after they were told to.
    let reached = || TcpStream::connect_timeout(&format!("{NEIGHBOUR}:9").parse().unwrap(), Duration::from_secs(1));
    assert!(super::eventually(|| matches!(reached(), Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)));
    beyond
}

fn set_up(links: &Links, name: &str, own: [&str; 2], via: [&str; 2]) {
    let link = links.index(name).unwrap();
    let [v4, v6] = own;
    links
        .change(&[address(link, &format!("{v4}/24")), address(link, &format!("{v6}/64")), Change::Up { link }])
        .unwrap();
    links.change(&via.map(|via| Change::Default { via: via.parse().unwrap(), link })).unwrap();
}

/// `address/prefix` of a link.
pub(crate) fn address(link: u32, text: &str) -> Change {
    let (address, prefix) = text.split_once('/').unwrap();
    Change::Address { link, address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

/// Runs a program of the machine; nothing when it is not here.
pub(crate) fn tool(program: &str, args: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "a test may set up a firewall as others do")]
    let output = std::process::Command::new(program).args(args.split_whitespace()).output();
    let Ok(output) = output else {
        println!("skipped: `{program}` is not installed");
        return None;
    };
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
