//! `EXPOSE`.

use std::net::IpAddr;

use kiln_oci::Empty;
use kiln_report::{Diagnostic, Span};

use super::stage::{Fail, Layer, Stage};
use super::text;
use crate::check::{fixes, rules};
use crate::parse::Word;

impl Stage<'_, '_, '_> {
    pub(super) fn expose(&mut self, words: &[Word]) -> Result<(), Fail> {
        // What follows a comment that is none was meant for a part of it.
        let comment = words.iter().position(|word| word.text.starts_with('#'));
        let mut sorted: Vec<&Word> = words[..comment.map_or(words.len(), |at| at + 1)].iter().collect();
        sorted.sort_by(|a, b| a.text.cmp(&b.text));
        let mut ports = Vec::new();
        for word in sorted {
            let lexer = self.all.cx.lexer;
            let expanded = self.expand_as(lexer, word);
            for spec in self.tell(expanded).into_iter().flat_map(|expanded| expanded.words) {
                let Some(exposed) = self.tell(read(&spec, word.span)) else { continue };
                if exposed.protocol != exposed.protocol.to_lowercase() {
                    let fix = fixes::port_in_lower_case(word, &spec);
                    self.all.warnings.push(fixes::mend(rules::expose_casing(&spec, word.span), fix));
                }
                if exposed.maps_to_host {
                    let fix = fixes::port_alone(word, &spec);
                    self.all.warnings.push(fixes::mend(rules::expose_format(&spec, word.span), fix));
                }
                let protocol = exposed.protocol.to_lowercase();
                ports.extend((exposed.first..=exposed.last).map(|port| format!("{port}/{protocol}")));
            }
        }
        self.record(format!("EXPOSE {}", text::list(&ports)), Layer::None);
        self.state.config.config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }
}

/// `[ip:][host:]first[-last][/protocol]`.
#[derive(Debug)]
struct Exposed<'a> {
    first: u16,
    last: u16,
    protocol: &'a str,
    /// Whether an address or a port of the host is named, which means nothing here.
    maps_to_host: bool,
}

fn read(spec: &str, span: Span) -> Result<Exposed<'_>, Fail> {
    let wrong = |message: String| {
        let error = Diagnostic::error(span, message);
        if spec.starts_with('#') {
            return Box::new(error.hint("put the comment on a line of its own, above the instruction"));
        }
        Box::new(error.hint("write a port or a range, with a protocol if it is not tcp: `80`, `8000-8010`, `53/udp`"))
    };
    let (rest, port) = spec.rsplit_once(':').map_or((None, spec), |(rest, port)| (Some(rest), port));
    let (address, host) = match rest.map(|rest| rest.rsplit_once(':').unwrap_or(("", rest))) {
        Some((address, host)) => (address, host),
        None => ("", ""),
    };
    let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    if !["tcp", "udp", "sctp"].contains(&protocol.to_lowercase().as_str()) {
        return Err(wrong(format!("`{protocol}` in `{spec}` is no protocol that can be exposed")));
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(wrong(format!("`{address}` in `{spec}` is no address")));
    }
    let (first, last) = range(port).ok_or_else(|| wrong(format!("`{port}` is no port")))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| wrong(format!("`{host}` in `{spec}` is no port")))?;
        if last != first && last - first != host_last - host_first {
            return Err(wrong(format!("the two ranges of `{spec}` are not of one length")));
        }
    }
    Ok(Exposed { first, last, protocol, maps_to_host: !address.is_empty() || !host.is_empty() })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_with_ranges_and_protocols() {
        for (spec, first, last, protocol, maps) in [
            ("80", 80, 80, "tcp", false),
            ("53/UDP", 53, 53, "UDP", false),
            ("8000-8010/sctp", 8000, 8010, "sctp", false),
            ("80/", 80, 80, "tcp", false),
            ("8080:80", 80, 80, "tcp", true),
            ("127.0.0.1:8080:80", 80, 80, "tcp", true),
            ("[::1]:1-2:3-4/udp", 3, 4, "udp", true),
            ("127.0.0.1::80", 80, 80, "tcp", true),
        ] {
            let exposed = read(spec, Span::default()).unwrap();
            let found = (exposed.first, exposed.last, exposed.protocol, exposed.maps_to_host);
            assert_eq!(found, (first, last, protocol, maps), "{spec}");
        }
        for bad in ["", "x", "70000", "2-1", "80/icmp", "host:1:2", "1-3:5-6", "-1", "+1", "a:80"] {
            assert!(read(bad, Span::default()).is_err(), "{bad}");
        }
    }
}
