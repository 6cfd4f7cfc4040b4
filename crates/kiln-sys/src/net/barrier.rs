//! Chains of other firewalls where what is passed on is lost unless a rule of theirs lets it pass.
//!
//! A packet must get through all chains, and none of ours can overrule another. docker's daemon sets such a policy for the
//! chain that iptables has for packets passed on, so there we put rules of our own: of the kind that iptables itself writes,
//! lest it cannot read its table any more.

use super::firewall::{
    EQUAL, INET4, INET6, META_INPUT_NAME, META_OUTPUT_NAME, SUBSYSTEM, batch, compare, meta, verdict,
};
use super::netlink::{ACK, CREATE, DUMP, Message, Socket, attributes};
use crate::{Error, Result};

use rustix::net::netlink::NETFILTER;

/// A chain whose policy is to drop what is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    family: u8,
    /// The table it is in.
    pub table: String,
    chain: String,
}

const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// What marks our rules: their comment.
const COMMENT: &[u8] = b"\0\x05kiln\0";
const USERDATA: u16 = 7;

impl Barrier {
    /// All there are, in the namespace of the calling thread.
    pub fn all() -> Result<Vec<Barrier>> {
        let fail = |e| Error::call("look at the firewall", e);
        let socket = Socket::open(Some(NETFILTER)).map_err(fail)?;
        let all = socket.dump(Message::new(SUBSYSTEM | GET_CHAIN, DUMP, &[0; 4])).map_err(fail)?;
        Ok(all.iter().filter_map(|answer| barrier(answer)).collect())
    }

    /// Whether it is the one that iptables has.
    pub fn is_of_iptables(&self) -> bool {
        matches!(self.family, INET4 | INET6) && self.table == "filter" && self.chain == "FORWARD"
    }

    /// Whether packets of IP version 4 get to it.
    pub fn is_for_v4(&self) -> bool {
        self.family != INET6
    }

    /// Lets what comes from links whose names begin so, and what goes to them, pass. Once is enough for all times.
    pub fn open(&self, prefix: &str) -> Result<()> {
        let fail = |e| Error::call("have the firewall let packets pass", e);
        let socket = Socket::open(Some(NETFILTER)).map_err(fail)?;
        let rules = Message::new(SUBSYSTEM | GET_RULE, DUMP, &[self.family, 0, 0, 0]);
        let rules = rules.text(1, &self.table).text(2, &self.chain);
        let is_ours = |rule: &Vec<u8>| {
            attributes(rule.get(4..).unwrap_or_default()).any(|(kind, value)| kind == USERDATA && value == COMMENT)
        };
        if socket.dump(rules).map_err(fail)?.iter().any(is_ours) {
            return Ok(());
        }
        let allow = |key: u32| {
            // Without a place it comes first.
            let rule = Message::new(SUBSYSTEM | NEW_RULE, ACK | CREATE, &[self.family, 0, 0, 0]);
            let rule = rule.text(1, &self.table).text(2, &self.chain);
            let rule = rule.nest(4, |list| verdict(compare(meta(list, key), EQUAL, prefix.as_bytes()), 1));
            rule.with(USERDATA, COMMENT)
        };
        let rules = vec![batch(BATCH_BEGIN), allow(META_INPUT_NAME), allow(META_OUTPUT_NAME), batch(BATCH_END)];
        socket.send(rules).map_err(fail)
    }
}

fn barrier(answer: &[u8]) -> Option<Barrier> {
    const PASSED_ON: &[u8] = &2u32.to_be_bytes();
    const DROP: &[u8] = &0u32.to_be_bytes();
    let family = *answer.first()?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let (mut table, mut chain, mut is_passage, mut drops) = (String::new(), String::new(), false, false);
    for (kind, value) in attributes(answer.get(4..)?) {
        match kind {
            1 => table = text(value),
            3 => chain = text(value),
            4 => is_passage = attributes(value).any(|(kind, value)| kind == 1 && value == PASSED_ON),
            5 => drops = value == DROP,
            _ => {}
        }
    }
    let is_ip = matches!(family, 1 | INET4 | INET6);
    (is_ip && is_passage && drops).then_some(Barrier { family, table, chain })
}
