//! Carries questions for names out of a container's network to servers that only the machine reaches.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::names::RELAY;
use crate::Error;

const PORT: u16 = 53;
/// How long one server is waited for before the next is asked; resolvers wait five seconds for all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may last: long enough for the transfer of a zone.
const LIFE: Duration = Duration::from_secs(60);
/// Questions on their way at once.
const AT_ONCE: usize = 256;
/// What a datagram of the protocol may hold at most.
const DATAGRAM: usize = 64 << 10;

/// Two sockets in a container's network, served as long as this lives.
#[derive(Debug)]
pub(super) struct Relay(AbortHandle);

impl Relay {
    /// Listens in the network of the calling thread; servers are asked from where the runtime's threads are.
    pub(super) fn start(servers: Vec<SocketAddr>, runtime: &Handle) -> Result<Relay, Error> {
        let (udp, tcp) = listen().map_err(|source| Error::Resources { source })?;
        Ok(Relay(runtime.spawn(serve(udp, tcp, servers.into())).abort_handle()))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn listen() -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let address: IpAddr = RELAY.parse().map_err(io::Error::other)?;
    let (udp, tcp) = (std::net::UdpSocket::bind((address, PORT))?, std::net::TcpListener::bind((address, PORT))?);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

async fn serve(udp: std::net::UdpSocket, tcp: std::net::TcpListener, servers: Arc<[SocketAddr]>) -> io::Result<()> {
    let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    // Questions end with their container: the set ends with this future.
    let mut open = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        while open.try_join_next().is_some() {}
        tokio::select! {
            Ok((length, asker)) = udp.recv_from(&mut buffer) => {
                // Who asks more than we carry asks again.
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
                let (question, udp, servers) = (buffer[..length].to_vec(), Arc::clone(&udp), Arc::clone(&servers));
                open.spawn(async move {
                    let _place = place;
                    if let Some(answer) = first_answer(&question, &servers).await {
                        let _ = udp.send_to(&answer, asker).await;
                    }
                });
            }
            Ok((connection, _)) = tcp.accept() => {
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
                let servers = Arc::clone(&servers);
                open.spawn(async move {
                    let _place = place;
                    let _ = timeout(LIFE, carry(connection, &servers)).await;
                });
            }
            else => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Asks one server after the other.
async fn first_answer(question: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask(question, *server)).await {
            return Some(answer);
        }
    }
    None
}

async fn ask(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // A socket and port for each question: answers that were not asked for do not arrive.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer[..length].get(..2) == question.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn carry(mut connection: TcpStream, servers: &[SocketAddr]) -> io::Result<()> {
    for server in servers {
        if let Ok(Ok(mut upstream)) = timeout(PATIENCE, TcpStream::connect(server)).await {
            return copy_bidirectional(&mut connection, &mut upstream).await.map(drop);
        }
    }
    Ok(())
}
