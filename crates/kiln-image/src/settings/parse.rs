//! Reads the two formats in which registries are set up: a list of registries, as podman, skopeo and buildah have it, and a
//! table of hosts, as BuildKit has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::{Link, Mirror, Rule, Serves, Settings};

/// `[[registry]]` of registries.conf.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Listed {
    prefix: Option<Spanned<String>>,
    location: Option<Spanned<String>>,
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
    location: Spanned<String>,
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
    mirrors: Vec<Spanned<String>>,
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
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if table.contains_key("registries") {
        return Err("it is in the first version of the format, which nobody reads any more".into());
    }
    let rules: Result<_, String> = match table.get("registry") {
        None => Ok(Vec::new()),
        Some(Value::Array(_)) => {
            let listed: File<Vec<Listed>> = read(text)?;
            listed.registry.into_iter().map(|registry| rule_of_list(text, registry)).collect()
        }
        Some(_) => {
            let hosts: File<BTreeMap<String, Keyed>> = read(text)?;
            hosts.registry.into_iter().map(|(host, keyed)| rule_of_table(text, host, keyed)).collect()
        }
    };
    Ok(Settings { rules: rules? })
}

/// A file, as far as it matters here.
#[derive(Deserialize)]
struct File<T> {
    registry: T,
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| match error.span() {
        Some(span) => format!("line {}: {}", line_of(text, span.start), error.message()),
        None => error.message().to_owned(),
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// A place as it was written, if it can be one.
fn place(text: &str, written: &Spanned<String>) -> Result<String, String> {
    let value = written.get_ref();
    let wrong = |why: &str| {
        let line = line_of(text, written.span().start);
        Err(format!("line {line}: `{}` is no place of images: {why}", value.escape_debug()))
    };
    if value.contains("://") {
        return wrong("leave out the scheme, and say `insecure = true` where plain http is spoken");
    }
    if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("it has white space or control characters in it");
    }
    Ok(trimmed(value.clone()))
}

fn rule_of_list(text: &str, registry: Listed) -> Result<Rule, String> {
    let Listed { prefix, location, insecure, blocked, mirror_by_digest_only, mirror } = registry;
    let read = |written: &Option<Spanned<String>>| written.as_ref().map(|written| place(text, written)).transpose();
    let (prefix, location) = (read(&prefix)?, read(&location)?);
    let prefix = prefix.or_else(|| location.clone()).filter(|prefix| !prefix.is_empty());
    let prefix = prefix.ok_or("a `[[registry]]` has neither a `prefix` nor a `location`")?;
    let serves = |from: Option<PullFrom>| match from {
        Some(PullFrom::DigestOnly) => Serves::Digests,
        Some(PullFrom::TagOnly) => Serves::Tags,
        None if mirror_by_digest_only => Serves::Digests,
        Some(PullFrom::All) | None => Serves::All,
    };
    let mirrors = mirror.into_iter().map(|mirror| {
        Ok(Mirror {
            location: place(text, &mirror.location)?,
            link: Link { is_insecure: mirror.insecure, ..Link::default() },
            serves: serves(mirror.pull_from_mirror),
            hears_origin: false,
        })
    });
    Ok(Rule {
        location: location.filter(|location| *location != prefix && !location.is_empty()),
        prefix,
        is_blocked: blocked,
        link: Link { is_insecure: insecure, ..Link::default() },
        mirrors: mirrors.collect::<Result<_, String>>()?,
    })
}

fn rule_of_table(text: &str, host: String, keyed: Keyed) -> Result<Rule, String> {
    let mirrors = keyed.mirrors.into_iter().map(|mirror| {
        let span = mirror.span();
        let mirror = mirror.into_inner();
        let is_plain = mirror.starts_with("http://");
        let bare = mirror.strip_prefix("http://").or_else(|| mirror.strip_prefix("https://")).unwrap_or(&mirror);
        Ok(Mirror {
            location: place(text, &Spanned::new(span, bare.to_owned()))?,
            link: Link { is_plain, ..Link::default() },
            serves: Serves::All,
            hears_origin: true,
        })
    });
    let at = text.find(&host).unwrap_or_default();
    Ok(Rule {
        prefix: place(text, &Spanned::new(at..at, host))?,
        location: None,
        is_blocked: false,
        mirrors: mirrors.collect::<Result<_, String>>()?,
        link: Link {
            is_plain: keyed.http,
            is_insecure: keyed.insecure,
            roots: keyed.ca,
            identities: keyed.keypair.into_iter().map(|pair| (pair.cert, pair.key)).collect(),
        },
    })
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
            ("[[registry]]\nblocked = true\nlocation = \"http://a\"", "line 3: `http://a` is no place of images"),
            ("[[registry]]\nprefix = \"https://a/b\"", "line 2"),
            ("[[registry]]\nlocation = \"a\\r\\nb\"", "line 2: `a\\r\\nb` is no"),
            ("[[registry]]\nprefix = \"a\"\n[[registry.mirror]]\nlocation = \"http://b\"", "line 4"),
            ("[registry.a]\nhttp = true\nmirrors = [\"http://b\", \"c\\n\"]", "line 3: `c\\n`"),
            ("\n[registry.\"http://a\"]", "line 2"),
            ("[registries.search]\nregistries = []", "first version"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
