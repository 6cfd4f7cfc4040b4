//! Having the kernel pass packets on between links, where it does not yet.
//!
//! Most machines that run containers do so for all links, and nothing is changed there. Elsewhere it is switched on for
//! the links that routes lead to, and off again in the end; meanwhile a rule keeps these from passing on anything else.
#![expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]

use std::path::{Path, PathBuf};

use kiln_sys::net::{Links, Match, Route, Table};

use super::ground::PREFIX;

const V4: &str = "/proc/sys/net/ipv4/conf";
const V6: &str = "/proc/sys/net/ipv6/conf";
/// Since Linux 6.17 one link alone can pass packets on. The older switch is for all, and changes how a machine gets its own
/// address, so that it is not ours to turn.
const OF_ONE_LINK: &str = "force_forwarding";

#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// Links that passed nothing on before.
    switched: Vec<Switched>,
    /// Whether links of containers have to be switched on, too.
    each: bool,
    each6: bool,
}

#[derive(Debug)]
struct Switched {
    link: String,
    version: Match,
    file: PathBuf,
}

impl Forwarding {
    /// Sees to IP version 4.
    pub(super) fn begin(links: &Links, routes: &[Route]) -> Result<Forwarding, String> {
        let is_on = |link: &str| reads(&Path::new(V4).join(link).join("forwarding"));
        let mut forwarding = Forwarding::default();
        forwarding.each = !is_on("default");
        for link in leading_out(links, routes.iter().filter(|route| route.to.is_ipv4())) {
            if !is_on(&link) {
                forwarding.switch(link, Match::IsV4, "forwarding")?;
            }
        }
        Ok(forwarding)
    }

    /// Sees to IP version 6, and tells whether packets of it get through. They need not.
    pub(super) fn with_v6(&mut self, links: &Links, routes: &[Route]) -> bool {
        let is_default = |route: &&Route| route.to.is_ipv6() && route.prefix == 0;
        let ways_out = leading_out(links, routes.iter().filter(is_default));
        if ways_out.is_empty() || reads(&Path::new(V6).join("all/forwarding")) {
            return !ways_out.is_empty();
        }
        self.each6 = ways_out.into_iter().all(|link| {
            let is_on = reads(&Path::new(V6).join(&link).join(OF_ONE_LINK));
            is_on || self.switch(link, Match::IsV6, OF_ONE_LINK).is_ok()
        });
        self.each6
    }

    /// Has the link of a container pass packets on.
    pub(super) fn include(&self, link: &str, has_v6: bool) {
        // If this does not succeed nothing gets out, which the container tells.
        if self.each {
            let _ = std::fs::write(Path::new(V4).join(link).join("forwarding"), "1");
        }
        if self.each6 && has_v6 {
            let _ = std::fs::write(Path::new(V6).join(link).join(OF_ONE_LINK), "1");
        }
    }

    /// The links that were switched on, and for what.
    pub(super) fn switched(&self) -> impl Iterator<Item = (&str, Match)> {
        self.switched.iter().map(|switched| (switched.link.as_str(), switched.version.clone()))
    }

    fn switch(&mut self, link: String, version: Match, setting: &str) -> Result<(), String> {
        let top = if version == Match::IsV4 { V4 } else { V6 };
        let file = Path::new(top).join(&link).join(setting);
        std::fs::write(&file, "1").map_err(|error| format!("`{link}` cannot be made to pass packets on: {error}"))?;
        self.switched.push(Switched { link, version, file });
        Ok(())
    }
}

/// Whether other kilns count on what was switched on. Each has a table of rules as long as it may run steps; ours is gone.
fn is_shared() -> bool {
    Table::names().map_or(true, |names| names.iter().any(|name| name.starts_with(PREFIX)))
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if self.switched.is_empty() || is_shared() {
            return;
        }
        for switched in &self.switched {
            let _ = std::fs::write(&switched.file, "0");
        }
    }
}

/// The names of links by which routes lead away.
fn leading_out<'a>(links: &Links, routes: impl Iterator<Item = &'a Route>) -> Vec<String> {
    let mut indices: Vec<u32> = routes.filter(|route| route.is_main).filter_map(|route| route.link).collect();
    indices.sort_unstable();
    indices.dedup();
    let names = indices.into_iter().filter_map(|link| links.describe(link).ok());
    names.map(|(name, _)| name).filter(|name| name != "lo").collect()
}

fn reads(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() != "0")
}
