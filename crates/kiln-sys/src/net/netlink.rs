//! Netlink: messages of nested attributes, and a socket that waits for the kernel's answers.
//!
//! The layout is that of `netlink(7)`: numbers in the machine's order, everything at multiples of four bytes.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, sendto,
    socket_with,
};

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The kernel fills datagrams of a dump up to this.
const DATAGRAM: usize = 64 << 10;

/// A message to be.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Begins one of a kind, with the header of its family.
    pub(super) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Message {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.resize(HEADER, 0);
        Message(bytes).raw(family_header)
    }

    /// Adds bytes as they are.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Message {
        self.0.extend(bytes);
        self.pad()
    }

    /// Adds an attribute.
    pub(super) fn with(self, kind: u16, value: &[u8]) -> Message {
        self.attribute(kind, |message| {
            let mut message = message;
            message.0.extend(value);
            message
        })
    }

    /// Adds a text, which ends with a zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Message {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute of attributes.
    pub(super) fn nest(self, kind: u16, inner: impl FnOnce(Message) -> Message) -> Message {
        self.attribute(kind | NESTED, inner)
    }

    fn attribute(mut self, kind: u16, inner: impl FnOnce(Message) -> Message) -> Message {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        let mut message = inner(self);
        let length = (message.0.len() - start) as u16;
        message.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message.pad()
    }

    fn pad(mut self) -> Message {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn numbered(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    fn wants_answer(&self) -> bool {
        u16_at(&self.0, 6) & ACK != 0
    }
}

/// What the kernel sent: the family's header and attributes.
pub(super) type Answer = Vec<u8>;

/// A socket to one part of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open(protocol: Option<Protocol>) -> Result<Socket, Errno> {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol).map(Socket)
    }

    /// The number that no other socket of this kind has, in this namespace and at this time.
    pub(super) fn number(&self) -> Result<u32, Errno> {
        bind(&self.0, &SocketAddrNetlink::new(0, 0))?;
        Ok(SocketAddrNetlink::try_from(getsockname(&self.0)?)?.pid())
    }

    /// Sends messages at once, and waits until all that want it are answered. The first that is refused counts.
    pub(super) fn send(&self, messages: Vec<Message>) -> Result<(), Errno> {
        let mut open = messages.iter().filter(|message| message.wants_answer()).count();
        self.write(messages)?;
        while open > 0 {
            for (kind, answer) in self.read()? {
                if kind != ERROR {
                    continue;
                }
                match refusal(&answer) {
                    Some(errno) => return Err(errno),
                    None => open = open.saturating_sub(1),
                }
            }
        }
        Ok(())
    }

    /// Asks for one thing.
    pub(super) fn ask(&self, message: Message) -> Result<Answer, Errno> {
        self.write(vec![message])?;
        match self.read()?.into_iter().next() {
            Some((ERROR, answer)) => Err(refusal(&answer).unwrap_or(Errno::PROTO)),
            Some((_, answer)) => Ok(answer),
            None => Err(Errno::PROTO),
        }
    }

    /// Asks for all of a kind.
    pub(super) fn dump(&self, message: Message) -> Result<Vec<Answer>, Errno> {
        self.write(vec![message])?;
        let mut all = Vec::new();
        loop {
            for (kind, answer) in self.read()? {
                match kind {
                    DONE => return Ok(all),
                    ERROR => return Err(refusal(&answer).unwrap_or(Errno::PROTO)),
                    _ => all.push(answer),
                }
            }
        }
    }

    fn write(&self, messages: Vec<Message>) -> Result<(), Errno> {
        let numbered = messages.into_iter().zip(1..).map(|(message, number)| message.numbered(number));
        let bytes: Vec<u8> = numbered.flatten().collect();
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| sendto(&self.0, &bytes, SendFlags::empty(), &kernel)).map(drop)
    }

    fn read(&self) -> Result<Vec<(u16, Answer)>, Errno> {
        let mut buffer = vec![0; DATAGRAM];
        let (length, _) = rustix::io::retry_on_intr(|| recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()))?;
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while rest.len() >= HEADER {
            let length = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
            messages.push((u16_at(rest, 4), rest[HEADER..length].to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// What an error says, which may be that there is none.
fn refusal(answer: &[u8]) -> Option<Errno> {
    match u32_at(answer, 0) as i32 {
        0 => None,
        code => Some(Errno::from_raw_os_error(-code)),
    }
}

/// The attributes of a message, or of an attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.len() < 4 {
            return None;
        }
        let length = usize::from(u16_at(bytes, 0)).clamp(4, bytes.len());
        let attribute = (u16_at(bytes, 2) & !NESTED, &bytes[4..length]);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// A number at a place; zero where there is nothing.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let message = Message::new(7, ACK, &[9; 5]).text(1, "ab").nest(2, |inner| inner.with(3, &[1]).with(4, &[1, 2]));
        assert!(message.wants_answer());
        let bytes = message.numbered(5);
        assert_eq!((u32_at(&bytes, 0) as usize, u32_at(&bytes, 8)), (bytes.len(), 5));
        let all: Vec<_> = attributes(&bytes[HEADER + 8..]).collect();
        assert_eq!(all[0], (1, &b"ab\0"[..]));
        assert_eq!(attributes(all[1].1).collect::<Vec<_>>(), [(3, &[1u8][..]), (4, &[1, 2][..])]);
    }

    #[test]
    fn broken_answers_end_the_reading() {
        assert_eq!(attributes(&[0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 2);
        assert_eq!(attributes(&[0xff, 0xff, 1, 0, 5]).collect::<Vec<_>>(), [(1, &[5u8][..])]);
        assert_eq!(refusal(&[]), None);
    }
}
