//! A TCP proxy that breaks connections, to see transfers continue where they stopped.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Forwards to another port of this machine and breaks connections after so many bytes, as often as it was told.
pub struct FlakyProxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    target: String,
    cuts: Mutex<Vec<u64>>,
    forwarded: AtomicU64,
    closing: AtomicBool,
}

/// Smaller traffic is heads and documents, which are left alone.
const BULK: u64 = 100_000;

impl FlakyProxy {
    /// Proxies `target`. Each number breaks one connection after so many bytes, counted in the direction that
    /// carries bulk; they are used up from first to last.
    pub fn start(target: &str, cuts: &[u64]) -> Self {
        assert!(cuts.iter().all(|cut| *cut >= BULK), "cuts are at {BULK} bytes or later");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            cuts: Mutex::new(cuts.iter().rev().copied().collect()),
            forwarded: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let state = shared.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.closing.load(Ordering::SeqCst) {
                    return;
                }
                relay(stream, &state);
            }
        });
        Self { port, shared, accepting: Some(accepting) }
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Bytes forwarded in both directions together.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::SeqCst)
    }

    /// Cuts not yet made.
    pub fn cuts_left(&self) -> usize {
        self.shared.cuts.lock().expect("no test panics while it holds this").len()
    }
}

impl Drop for FlakyProxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn relay(client: TcpStream, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.target) else { return };
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (Ok(from), Ok(to), shared) = (from.try_clone(), to.try_clone(), shared.clone()) else { return };
        std::thread::spawn(move || pump(from, to, &shared));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 16 << 10];
    let mut bulk = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        bulk += count as u64;
        if cut_now(shared, bulk) || to.write_all(&buffer[..count]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        shared.forwarded.fetch_add(count as u64, Ordering::SeqCst);
    }
    // One side may be done while the other still speaks.
    let _ = to.shutdown(Shutdown::Write);
}

fn cut_now(shared: &Shared, bulk: u64) -> bool {
    let mut cuts = shared.cuts.lock().expect("no test panics while it holds this");
    match cuts.last() {
        Some(cut) if bulk >= *cut => cuts.pop().is_some(),
        _ => false,
    }
}
