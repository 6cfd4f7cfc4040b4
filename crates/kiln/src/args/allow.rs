//! `--allow network.host|security.insecure|device[=NAME[,alias=ALIAS]]|buildx.local.delete`: what may be done beyond the
//! usual.

use kiln_engine::Entitlement;

use super::value::{Wrong, did_you_mean, fields};

const KNOWN: [&str; 4] = ["network.host", "security.insecure", "device", "buildx.local.delete"];

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Something that steps do.
    Step(Entitlement),
    /// That an output deletes files, wherever it is.
    Deletion,
}

/// Reads the value of `--allow`.
pub(crate) fn parse(text: &str) -> Result<Allowed, Wrong> {
    if text == "buildx.local.delete" { Ok(Allowed::Deletion) } else { entitlement(text).map(Allowed::Step) }
}

fn entitlement(text: &str) -> Result<Entitlement, Wrong> {
    match text.split_once('=') {
        None if text == "network.host" => Ok(Entitlement::NetworkHost),
        None if text == "security.insecure" => Ok(Entitlement::SecurityInsecure),
        None if text == "device" => Ok(Entitlement::AllDevices),
        Some(("device", "")) => Ok(Entitlement::AllDevices),
        Some(("device", device)) => named_device(device),
        _ => {
            let word = text.split('=').next().unwrap_or(text);
            let near = did_you_mean(word, KNOWN);
            Err(Wrong(format!("`{text}` cannot be allowed: expected `{}`{near}", KNOWN.join("`, `"))))
        }
    }
}

fn named_device(text: &str) -> Result<Entitlement, Wrong> {
    let mut fields = fields(text)?.into_iter();
    let name = fields.next().unwrap_or_default();
    let mut alias = None;
    for field in fields {
        match field.split_once('=') {
            Some(("alias", value)) => alias = Some(value.to_owned()),
            _ => return Err(Wrong(format!("`{field}` says nothing about a device: expected `alias=NAME`"))),
        }
    }
    Ok(Entitlement::Device { name, alias })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_allowed_is_known_by_name() {
        let device = |name: &str, alias: Option<&str>| Entitlement::Device {
            name: name.into(),
            alias: alias.map(str::to_owned),
        };
        for (text, wanted) in [
            ("network.host", Entitlement::NetworkHost),
            ("security.insecure", Entitlement::SecurityInsecure),
            ("device", Entitlement::AllDevices),
            ("device=", Entitlement::AllDevices),
            ("device=vendor.com/gpu=0", device("vendor.com/gpu=0", None)),
            ("device=vendor.com/gpu=0,alias=gpu", device("vendor.com/gpu=0", Some("gpu"))),
        ] {
            assert_eq!(entitlement(text), Ok(wanted), "{text}");
        }
        assert_eq!(parse("buildx.local.delete"), Ok(Allowed::Deletion));
        assert!(parse("network.hots").unwrap_err().0.ends_with("did you mean `network.host`?"));
        for bad in ["", "network.host=1", "fs.read=/", "device=a,b", "devices", "buildx.local.delete=true"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
