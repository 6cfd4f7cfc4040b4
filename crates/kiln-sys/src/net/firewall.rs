//! A table of rules for packets that lasts as long as its owner.
//!
//! A table of `nf_tables` may belong to the socket that made it: nobody else changes it, and the kernel removes it when the
//! socket is closed, which it is when a process ends in whatever way. So no rule of ours outlives us.

use std::net::IpAddr;

use rustix::net::netlink::NETFILTER;

use super::links::octets;
use super::netlink::{ACK, APPEND, CREATE, DUMP, EXCLUSIVE, Message, Socket, attributes};
use crate::{Error, Result};

/// What is done with packets for which all matches hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must hold.
    pub matches: Vec<Match>,
    /// What is done.
    pub verdict: Verdict,
}

/// What may hold for a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It came by a link whose name begins so.
    From(String),
    /// It leaves by a link whose name begins so.
    To(String),
    /// It leaves by another link.
    NotTo(String),
    /// Its sender is among these addresses.
    Source(IpAddr, u8),
    /// Its sender is of their family, but not among them.
    NotSource(IpAddr, u8),
    /// Its receiver is among these addresses.
    Destination(IpAddr, u8),
    /// It is of IP version 6.
    IsV6,
    /// It is of IP version 4.
    IsV4,
    /// It is no control message of IP version 6, by which neighbours find each other.
    NotControl,
    /// It belongs to no connection that was there before.
    IsUnasked,
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is lost, as soon as it has come in.
    Refuse,
    /// It is lost, instead of being passed on.
    Stop,
    /// It gets the sender's address of the link it leaves by, and answers find their way back.
    Masquerade,
}

/// A table that is in force.
#[derive(Debug)]
pub struct Table(#[expect(dead_code, reason = "the table lasts as long as it is open")] Socket);

impl Table {
    /// Puts rules in force, in the namespace of the calling thread. The table's name is this and a number, so that several
    /// owners have one each.
    pub fn raise(name: &str, rules: &[Rule]) -> Result<Table> {
        let fail = |e| Error::call("put rules for packets in force", e);
        let socket = Socket::open(Some(NETFILTER)).map_err(fail)?;
        let name = &format!("{name}{}", socket.number().map_err(fail)?);
        let owned = table(name, NEW_TABLE, CREATE | EXCLUSIVE).with(NFTA_TABLE_FLAGS, &OWNER.to_be_bytes());
        let mut messages = vec![batch(BATCH_BEGIN), owned];
        messages.extend(CHAINS.iter().map(|chain| chain.message(name)));
        messages.extend(rules.iter().map(|rule| rule.message(name)));
        messages.push(batch(BATCH_END));
        socket.send(messages).map_err(fail)?;
        Ok(Table(socket))
    }

    /// The names of all tables that are in force, in the namespace of the calling thread.
    pub fn names() -> Result<Vec<String>> {
        let fail = |e| Error::call("list rules for packets", e);
        let socket = Socket::open(Some(NETFILTER)).map_err(fail)?;
        let all = socket.dump(Message::new(SUBSYSTEM | GET_TABLE, DUMP, &[INET, 0, 0, 0])).map_err(fail)?;
        let name = |answer: &Vec<u8>| {
            let (_, name) = attributes(answer.get(4..)?).find(|(kind, _)| *kind == NFTA_TABLE_NAME)?;
            Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        };
        Ok(all.iter().filter_map(name).collect())
    }
}

pub(super) const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Both versions of IP in one table.
const INET: u8 = 1;
pub(super) const INET4: u8 = 2;
pub(super) const INET6: u8 = 10;
const OWNER: u32 = 2;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_NUMBER: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEMENT: u16 = 1;
const NFTA_EXPRESSION_NAME: u16 = 1;
const NFTA_EXPRESSION_DATA: u16 = 2;

/// Where packets meet rules.
struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: i32,
}

const CHAINS: [Chain; 3] = [
    // Before anybody gives packets another destination.
    Chain { name: "arrival", kind: "filter", hook: 0, priority: -150 },
    Chain { name: "passage", kind: "filter", hook: 2, priority: 0 },
    Chain { name: "departure", kind: "nat", hook: 4, priority: 100 },
];

impl Chain {
    fn message(&self, table_name: &str) -> Message {
        let hook = |message: Message| {
            let message = message.with(NFTA_HOOK_NUMBER, &self.hook.to_be_bytes());
            message.with(NFTA_HOOK_PRIORITY, &self.priority.to_be_bytes())
        };
        let message = request(NEW_CHAIN, CREATE | EXCLUSIVE).text(NFTA_CHAIN_TABLE, table_name);
        message.text(NFTA_CHAIN_NAME, self.name).nest(NFTA_CHAIN_HOOK, hook).text(NFTA_CHAIN_TYPE, self.kind)
    }
}

pub(super) fn batch(kind: u16) -> Message {
    // The number of the subsystem stands where others have nothing, in network order.
    Message::new(kind, 0, &[0, 0, 0, 10])
}

fn request(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM | kind, ACK | flags, &[INET, 0, 0, 0])
}

fn table(name: &str, kind: u16, flags: u16) -> Message {
    request(kind, flags).text(NFTA_TABLE_NAME, name)
}

impl Rule {
    fn message(&self, table: &str) -> Message {
        let chain = match self.verdict {
            Verdict::Refuse => 0,
            Verdict::Stop => 1,
            Verdict::Masquerade => 2,
        };
        let message = request(NEW_RULE, CREATE | APPEND).text(NFTA_RULE_TABLE, table);
        let message = message.text(NFTA_RULE_CHAIN, CHAINS[chain].name);
        message.nest(NFTA_RULE_EXPRESSIONS, |list| {
            let list = self.matches.iter().fold(list, |list, condition| condition.add_to(list));
            match self.verdict {
                Verdict::Refuse | Verdict::Stop => verdict(list, DROP),
                Verdict::Masquerade => expression(list, "masq", |data| data),
            }
        })
    }
}

/// Values wait in this register between two expressions.
const REGISTER: [u8; 4] = 1u32.to_be_bytes();
const VERDICT_REGISTER: [u8; 4] = 0u32.to_be_bytes();
pub(super) const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;

pub(super) const META_INPUT_NAME: u32 = 6;
pub(super) const META_OUTPUT_NAME: u32 = 7;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const CONTROL_PROTOCOL: u8 = 58;

impl Match {
    fn add_to(&self, list: Message) -> Message {
        match self {
            Match::From(name) => compare(meta(list, META_INPUT_NAME), EQUAL, name.as_bytes()),
            Match::To(name) => compare(meta(list, META_OUTPUT_NAME), EQUAL, name.as_bytes()),
            Match::NotTo(name) => compare(meta(list, META_OUTPUT_NAME), DIFFERENT, name.as_bytes()),
            Match::Source(address, prefix) => addresses(list, Side::Sender, (*address, *prefix), EQUAL),
            Match::NotSource(address, prefix) => addresses(list, Side::Sender, (*address, *prefix), DIFFERENT),
            Match::Destination(address, prefix) => addresses(list, Side::Receiver, (*address, *prefix), EQUAL),
            Match::IsV4 => compare(meta(list, META_FAMILY), EQUAL, &[INET4]),
            Match::IsV6 => compare(meta(list, META_FAMILY), EQUAL, &[INET6]),
            Match::NotControl => compare(meta(list, META_PROTOCOL), DIFFERENT, &[CONTROL_PROTOCOL]),
            Match::IsUnasked => unasked(list),
        }
    }
}

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nest(NFTA_LIST_ELEMENT, |element| element.text(NFTA_EXPRESSION_NAME, name).nest(NFTA_EXPRESSION_DATA, data))
}

pub(super) fn meta(list: Message, key: u32) -> Message {
    expression(list, "meta", |data| data.with(1, &REGISTER).with(2, &key.to_be_bytes()))
}

/// Compares as many bytes as are given: of a name its beginning.
pub(super) fn compare(list: Message, operator: u32, value: &[u8]) -> Message {
    expression(list, "cmp", |data| {
        data.with(1, &REGISTER).with(2, &operator.to_be_bytes()).nest(3, |inner| inner.with(1, value))
    })
}

/// Keeps the bits of a mask.
fn mask(list: Message, mask: &[u8]) -> Message {
    let length = (mask.len() as u32).to_be_bytes();
    expression(list, "bitwise", |data| {
        let data = data.with(1, &REGISTER).with(2, &REGISTER).with(3, &length);
        data.nest(4, |inner| inner.with(1, mask)).nest(5, |inner| inner.with(1, &vec![0; mask.len()]))
    })
}

#[derive(Clone, Copy)]
enum Side {
    Sender,
    Receiver,
}

fn addresses(list: Message, side: Side, (address, prefix): (IpAddr, u8), operator: u32) -> Message {
    let bytes = octets(address);
    // Where the header of each version has its two addresses.
    let (family, first) = if address.is_ipv4() { (INET4, 12) } else { (INET6, 8) };
    let offset = match side {
        Side::Sender => first,
        Side::Receiver => first + bytes.len() as u32,
    };
    let bits: Vec<u8> = (0..bytes.len()).map(|at| mask_byte(usize::from(prefix).saturating_sub(at * 8))).collect();
    let network: Vec<u8> = bytes.iter().zip(&bits).map(|(byte, bits)| byte & bits).collect();
    let length = (bytes.len() as u32).to_be_bytes();
    let list = compare(meta(list, META_FAMILY), EQUAL, &[family]);
    const NETWORK_HEADER: u32 = 1;
    let list = expression(list, "payload", |data| {
        let data = data.with(1, &REGISTER).with(2, &NETWORK_HEADER.to_be_bytes());
        data.with(3, &offset.to_be_bytes()).with(4, &length)
    });
    compare(mask(list, &bits), operator, &network)
}

fn mask_byte(bits: usize) -> u8 {
    match bits {
        0 => 0,
        1..8 => 0xff << (8 - bits),
        _ => 0xff,
    }
}

fn unasked(list: Message) -> Message {
    const STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    let list = expression(list, "ct", |data| data.with(1, &REGISTER).with(2, &STATE.to_be_bytes()));
    compare(mask(list, &ESTABLISHED_OR_RELATED.to_ne_bytes()), EQUAL, &[0; 4])
}

const DROP: u32 = 0;

/// Ends the rule with a verdict.
pub(super) fn verdict(list: Message, code: u32) -> Message {
    expression(list, "immediate", |data| {
        let code = |inner: Message| inner.with(1, &code.to_be_bytes());
        data.with(1, &VERDICT_REGISTER).nest(2, |inner| inner.nest(2, code))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_becomes_a_mask() {
        assert_eq!([0, 1, 4, 7, 8, 30].map(mask_byte), [0, 0x80, 0xf0, 0xfe, 0xff, 0xff]);
    }
}
