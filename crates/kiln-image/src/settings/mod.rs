//! What is set up for registries: mirrors, other places, who is blocked, how each host is spoken to.

mod certs;
mod files;
mod parse;

use std::path::PathBuf;

pub(crate) use certs::{Certificates, certificates};
pub use files::SettingsFiles;

/// What is set up, by the beginnings of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    rules: Vec<Rule>,
}

/// What holds for names that begin so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rule {
    /// `host`, `host/path`, or `*.domain`.
    prefix: String,
    /// What stands in for the prefix when the registry is called.
    location: Option<String>,
    is_blocked: bool,
    link: Link,
    mirrors: Vec<Mirror>,
}

/// Where to ask before the registry itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mirror {
    location: String,
    link: Link,
    serves: Serves,
    /// Whether it is told which registry it stands for, as containerd and BuildKit do.
    hears_origin: bool,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Serves {
    #[default]
    All,
    Digests,
    Tags,
}

/// How a host is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Plain http, and nothing else.
    pub(crate) is_plain: bool,
    /// TLS without verification, or plain http.
    pub(crate) is_insecure: bool,
    /// Certificate authorities trusted beside the machine's own.
    pub(crate) roots: Vec<PathBuf>,
    /// Client certificates, each with its key.
    pub(crate) identities: Vec<(PathBuf, PathBuf)>,
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// `host[:port]`, as in references.
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// The registry it stands for, if it is to hear that.
    pub(crate) origin: Option<String>,
}

/// The name is not to be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blocked;

impl Settings {
    /// Takes more settings; for a prefix that is known the later ones count.
    fn add(&mut self, more: Self) {
        for rule in more.rules {
            self.rules.retain(|known| known.prefix != rule.prefix);
            self.rules.push(rule);
        }
    }

    /// Where to read a repository from, in this order.
    pub(crate) fn places(&self, registry: &str, repository: &str, by_digest: bool) -> Result<Vec<Place>, Blocked> {
        let name = format!("{}/{repository}", canonical(registry));
        let Some((rule, rest)) = self.rule_of(&name)? else { return Ok(vec![Place::of(&name)]) };
        let serves = |mirror: &&Mirror| match mirror.serves {
            Serves::All => true,
            Serves::Digests => by_digest,
            Serves::Tags => !by_digest,
        };
        let mirrors = rule.mirrors.iter().filter(serves).map(|mirror| Place {
            origin: mirror.hears_origin.then(|| canonical(registry)),
            ..Place::of(&format!("{}{rest}", mirror.location))
        });
        let own = rule.location.as_ref().map_or_else(|| name.clone(), |location| format!("{location}{rest}"));
        Ok(mirrors.chain([Place::of(&own)]).collect())
    }

    /// Whether a repository may be written to.
    pub(crate) fn permits(&self, registry: &str, repository: &str) -> bool {
        self.rule_of(&format!("{}/{repository}", canonical(registry))).is_ok()
    }

    /// The rule with the longest prefix of a name, and what stands behind the prefix.
    fn rule_of<'n>(&self, name: &'n str) -> Result<Option<(&Rule, &'n str)>, Blocked> {
        let fitting = self.rules.iter().filter_map(|rule| Some((rule, rest_behind(&rule.prefix, name)?)));
        match fitting.max_by_key(|(rule, _)| rule.prefix.len()) {
            Some((rule, _)) if rule.is_blocked => Err(Blocked),
            found => Ok(found),
        }
    }

    /// How a host of an API is spoken to.
    pub(crate) fn link(&self, authority: &str) -> Link {
        let authority = &canonical(authority);
        let own = self.rules.iter().map(|rule| (rule.location.as_ref().unwrap_or(&rule.prefix), &rule.link));
        let mirrors = self.rules.iter().flat_map(|rule| &rule.mirrors).map(|mirror| (&mirror.location, &mirror.link));
        let mut all = Link::default();
        for (place, link) in own.chain(mirrors) {
            let host = place.split('/').next().unwrap_or_default();
            if host_fits(host, authority) {
                all.is_plain |= link.is_plain;
                all.is_insecure |= link.is_insecure;
                all.roots.extend(link.roots.iter().cloned());
                all.identities.extend(link.identities.iter().cloned());
            }
        }
        all
    }
}

impl Place {
    /// `host/path`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Reads `host/path`.
    fn of(name: &str) -> Self {
        let (registry, repository) = name.split_once('/').unwrap_or((name, ""));
        Self { registry: registry.to_owned(), repository: repository.to_owned(), origin: None }
    }
}

/// A host in the one way it is compared: in lower case, its port without zeros before it.
fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port)) if port.len() > 1 && port.bytes().all(|digit| digit.is_ascii_digit()) => {
            format!("{name}:{}", port.trim_start_matches('0'))
        }
        _ => host,
    }
}

/// What stands behind a prefix of a name, if it is one: prefixes end where names have a `/`.
fn rest_behind<'n>(prefix: &str, name: &'n str) -> Option<&'n str> {
    if prefix.starts_with("*.") {
        let (host, _) = name.split_once('/')?;
        return host_fits(prefix, host).then(|| &name[host.len()..]);
    }
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a host that was written down, perhaps with `*.` before it, is this one.
fn host_fits(written: &str, authority: &str) -> bool {
    match written.strip_prefix('*') {
        Some(domain) => crate::http::host_of(authority).ends_with(domain),
        None => crate::registry::api_host(written) == authority || written == authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        parse::parse(text).unwrap()
    }

    fn places(settings: &Settings, name: &str, by_digest: bool) -> Vec<String> {
        let (registry, repository) = name.split_once('/').unwrap();
        let places = settings.places(registry, repository, by_digest).unwrap();
        places.into_iter().map(|place| format!("{} {}", place.registry, place.repository)).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_counts() {
        let settings = settings(
            r#"
            [[registry]]
            prefix = "example.com"
            [[registry.mirror]]
            location = "near.lan:5000/cache"
            [[registry.mirror]]
            location = "pinned.lan"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "example.com/team/app"
            location = "moved.example.org/app"
            [[registry]]
            prefix = "*.corp"
            location = "gate.lan/corp"
            [[registry]]
            location = "old.example.com"
            blocked = true
            "#,
        );
        let near = "near.lan:5000 cache/x/y";
        assert_eq!(places(&settings, "example.com/x/y", false), [near, "example.com x/y"]);
        assert_eq!(places(&settings, "example.com/x/y", true), [near, "pinned.lan x/y", "example.com x/y"]);
        assert_eq!(places(&settings, "example.com/team/app", false), ["moved.example.org app"]);
        assert_eq!(places(&settings, "example.com/team/app/sub", false), ["moved.example.org app/sub"]);
        assert_eq!(places(&settings, "example.com/team/application", false).len(), 2);
        assert_eq!(places(&settings, "a.b.corp/x", false), ["gate.lan corp/x"]);
        assert_eq!(places(&settings, "corp/x", false), ["corp x"]);
        assert_eq!(settings.places("old.example.com", "x", false), Err(Blocked));
        assert!(!settings.permits("old.example.com", "x") && settings.permits("old.example.com:5000", "x"));
        assert_eq!(settings.places("OLD.Example.com", "x", false), Err(Blocked), "however it is written");
        let ports = super::parse::parse("[[registry]]\nlocation = \"A.lan:5000/x\"\nblocked = true").unwrap();
        assert!(!ports.permits("a.LAN:05000", "x/y") && ports.permits("a.lan:5001", "x/y"));
    }

    #[test]
    fn links_belong_to_hosts_whoever_names_them() {
        let settings = settings(
            r#"
            [registry."docker.io"]
            mirrors = ["near.lan:5000", "http://plain.lan/hub"]
            ca = ["/ca.pem"]
            keypair = [{ key = "/k.pem", cert = "/c.pem" }]
            [registry."near.lan:5000"]
            insecure = true
            "#,
        );
        let hub = settings.link("registry-1.docker.io");
        assert_eq!((hub.roots, hub.identities), (vec!["/ca.pem".into()], vec![("/c.pem".into(), "/k.pem".into())]));
        assert!(settings.link("near.lan:5000").is_insecure && !settings.link("near.lan").is_insecure);
        assert!(settings.link("plain.lan").is_plain);
        assert_eq!(
            places(&settings, "docker.io/library/x", false),
            ["near.lan:5000 library/x", "plain.lan hub/library/x", "docker.io library/x"]
        );
        let wild = parse::parse("[[registry]]\nprefix = \"*.corp\"\ninsecure = true").unwrap();
        assert!(wild.link("a.corp:5000").is_insecure && !wild.link("corp").is_insecure);
    }

    #[test]
    fn later_settings_replace_those_of_the_same_prefix() {
        let mut all = settings("[[registry]]\nlocation = \"a\"\nblocked = true\n[[registry]]\nlocation = \"b\"");
        all.add(settings("[registry.a]\ninsecure = true"));
        assert_eq!(all.rules.len(), 2);
        assert!(all.permits("a", "x") && all.link("a").is_insecure);
    }
}
