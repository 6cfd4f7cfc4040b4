//! Reads the two formats in which registries are set up: a list of registries, as podman, skopeo and buildah have it, and a
//! table of hosts, as BuildKit has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

use super::{Link, Mirror, Rule, Serves, Settings};

/// `[[registry]]` of registries.conf.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Listed {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<ListedMirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ListedMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<PullFrom>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

/// `[registry."host"]` of buildkitd.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyed {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    http: bool,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    ca: Vec<PathBuf>,
    #[serde(default)]
    keypair: Vec<KeyPair>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    key: PathBuf,
    cert: PathBuf,
}

/// Reads either format; what else is in a file (defaults of a daemon, short names) does not matter here. What is misspelt
/// below a registry does: a registry that was meant to be blocked would be asked.
pub(super) fn parse(text: &str) -> Result<Settings, String> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if table.contains_key("registries") {
        return Err("it is in the first version of the format, which nobody reads any more".into());
    }
    let wrong = |error: toml::de::Error| error.message().to_owned();
    let rules = match table.remove("registry") {
        None => Vec::new(),
        Some(list @ Value::Array(_)) => {
            list.try_into::<Vec<Listed>>().map_err(wrong)?.into_iter().map(listed).collect::<Result<_, _>>()?
        }
        Some(hosts) => {
            let hosts = hosts.try_into::<BTreeMap<String, Keyed>>().map_err(wrong)?;
            hosts.into_iter().map(|(host, keyed)| rule(host, keyed)).collect()
        }
    };
    Ok(Settings { rules })
}

fn listed(registry: Listed) -> Result<Rule, String> {
    let Listed { prefix, location, insecure, blocked, mirror_by_digest_only, mirror } = registry;
    let prefix = prefix.or_else(|| location.clone()).map(trimmed).filter(|prefix| !prefix.is_empty());
    let prefix = prefix.ok_or("a `[[registry]]` has neither a `prefix` nor a `location`")?;
    let serves = |from: Option<PullFrom>| match from {
        Some(PullFrom::DigestOnly) => Serves::Digests,
        Some(PullFrom::TagOnly) => Serves::Tags,
        None if mirror_by_digest_only => Serves::Digests,
        Some(PullFrom::All) | None => Serves::All,
    };
    let mirrors = mirror.into_iter().map(|mirror| Mirror {
        location: trimmed(mirror.location),
        link: Link { is_insecure: mirror.insecure, ..Link::default() },
        serves: serves(mirror.pull_from_mirror),
    });
    Ok(Rule {
        location: location.map(trimmed).filter(|location| *location != prefix && !location.is_empty()),
        prefix,
        is_blocked: blocked,
        link: Link { is_insecure: insecure, ..Link::default() },
        mirrors: mirrors.collect(),
    })
}

fn rule(host: String, keyed: Keyed) -> Rule {
    let mirrors = keyed.mirrors.into_iter().map(|mirror| {
        let is_plain = mirror.starts_with("http://");
        let bare = mirror.strip_prefix("http://").or_else(|| mirror.strip_prefix("https://")).unwrap_or(&mirror);
        Mirror { location: trimmed(bare.to_owned()), link: Link { is_plain, ..Link::default() }, serves: Serves::All }
    });
    Rule {
        prefix: trimmed(host),
        location: None,
        is_blocked: false,
        mirrors: mirrors.collect(),
        link: Link {
            is_plain: keyed.http,
            is_insecure: keyed.insecure,
            roots: keyed.ca,
            identities: keyed.keypair.into_iter().map(|pair| (pair.cert, pair.key)).collect(),
        },
    }
}

/// As places are compared: the host in one way only, no slashes at the end.
fn trimmed(mut place: String) -> String {
    place.truncate(place.trim_end_matches('/').len());
    let host = place.split('/').next().map_or(0, str::len);
    super::canonical(&place[..host]) + &place[host..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_about_registries_is_passed_over() {
        let short =
            "unqualified-search-registries = [\"a\"]\nshort-name-mode = \"enforcing\"\n[aliases]\nx = \"a/x\"\n";
        assert_eq!(parse(short).unwrap(), Settings::default());
        assert_eq!(parse("debug = true\n[worker.oci]\nenabled = true\n").unwrap(), Settings::default());
        assert_eq!(parse("").unwrap(), Settings::default());
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, expected) in [
            ("[[registry]]\nblocked = true", "neither"),
            ("[[registry]]\nlocation = 3", "string"),
            ("registry = 3", "map"),
            ("[registry.a]\nhttp = \"yes\"", "boolean"),
            ("[[registry]]\nprefix = \"a\"\nbloked = true", "unknown field `bloked`"),
            ("[registry.a]\nmirorrs = [\"b\"]", "unknown field `mirorrs`"),
            ("[[registry]", "line 1"),
            ("[registries.search]\nregistries = []", "first version"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
