//! Arguments of the whole file: platforms, and `ARG` before the first `FROM`.

use std::collections::{BTreeMap, BTreeSet};

use kiln_graph::llb::ProxyEnv;
use kiln_oci::Platform;
use kiln_report::Diagnostic;

use super::LowerOptions;
use super::budget::Budget;
use crate::expand::{Env, Lexer};
use crate::instruction::{ArgItem, Command, Keyword};
use crate::parse::{Dockerfile, Instruction, Word};

/// What `FROM` lines see, and what `ARG` without a value takes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Globals {
    /// The arguments that have a value.
    pub(crate) env: Env,
    /// All that are declared, with or without a value.
    pub(crate) declared: BTreeSet<String>,
    /// Whether there may be more: not all could be read.
    pub(crate) has_gaps: bool,
}

impl Globals {
    /// Reads them.
    pub(crate) fn read(file: &Dockerfile, seed: &Seed<'_>, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut globals = Self::default();
        for (name, value) in seed.platform_args() {
            let value = seed.build_args.get(name).cloned().unwrap_or(value);
            globals.declared.insert(name.to_owned());
            globals.env.set(name, value);
        }
        let lexer = Lexer::new(file.escape);
        let mut budget = Budget::default();
        let is_from = |instruction: &&Instruction| instruction.meant_keyword() == Some(Keyword::From);
        for instruction in file.instructions().take_while(|instruction| !is_from(instruction)) {
            globals.has_gaps |= instruction.command.is_none();
            let Some(Command::Arg(items)) = &instruction.command else { continue };
            for item in items {
                let declared = globals.declare(item, seed.build_args, lexer);
                if let Err(diagnostic) = declared.and_then(|bytes| budget.take(bytes, item.key.span)) {
                    diagnostics.push(*diagnostic);
                    globals.has_gaps = true;
                }
                if budget.is_exhausted() {
                    return globals;
                }
            }
        }
        globals
    }

    fn declare(
        &mut self,
        item: &ArgItem,
        given: &BTreeMap<String, String>,
        lexer: Lexer,
    ) -> Result<usize, Box<Diagnostic>> {
        self.declared.insert(item.key.text.clone());
        let value = match (given.get(&item.key.text), &item.value) {
            (Some(given), _) => given.clone(),
            (None, Some(default)) => {
                lexer.expand(&default.text, &self.env).map_err(|error| expand_failure(default, &error))?.text
            }
            (None, None) => return Ok(0),
        };
        self.env.set(item.key.text.clone(), &value);
        Ok(value.len())
    }
}

/// What globals start from.
#[derive(Debug)]
pub(crate) struct Seed<'a> {
    pub(crate) build_args: &'a BTreeMap<String, String>,
    pub(crate) platform: &'a Platform,
    pub(crate) build_platform: &'a Platform,
    /// Name of the target stage.
    pub(crate) target: &'a str,
}

impl<'a> Seed<'a> {
    pub(super) fn of(options: &'a LowerOptions, last_stage: Option<&'a str>) -> Self {
        let target = options.target.as_deref().or(last_stage).unwrap_or("default");
        Self {
            build_args: &options.build_args,
            platform: &options.platform,
            build_platform: &options.build_platform,
            target,
        }
    }

    fn platform_args(&self) -> [(&'static str, String); 11] {
        let (build, target) = (self.build_platform, self.platform);
        let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
        let version = |platform: &Platform| platform.os_version.clone().unwrap_or_default();
        [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", version(build)),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", variant(build)),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            ("TARGETOSVERSION", version(target)),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", variant(target)),
            ("TARGETSTAGE", self.target.to_owned()),
        ]
    }
}

/// Proxies given as build arguments: seen by every step, part of no cache key.
pub(super) fn proxies(build_args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxies = ProxyEnv::default();
    let mut is_set = false;
    for (name, value) in build_args {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxies.http_proxy,
            "https_proxy" => &mut proxies.https_proxy,
            "ftp_proxy" => &mut proxies.ftp_proxy,
            "no_proxy" => &mut proxies.no_proxy,
            "all_proxy" => &mut proxies.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        is_set = true;
    }
    is_set.then_some(proxies)
}

/// Whether a build argument means something without being declared.
pub(super) fn is_predefined(name: &str) -> bool {
    const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let lower = name.to_ascii_lowercase();
    PROXIES.contains(&lower.as_str())
        || name.starts_with("BUILDKIT_")
        || name.starts_with("GIT_AUTH_")
        || name == "SOURCE_DATE_EPOCH"
        || (name.starts_with("TARGET") || name.starts_with("BUILD"))
            && ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].iter().any(|end| name.ends_with(end))
}

/// An expansion that went wrong, as a diagnostic at its place.
pub(crate) fn expand_failure(word: &Word, error: &crate::expand::ExpandError) -> Box<Diagnostic> {
    let diagnostic = Diagnostic::error(word.part(error.start, error.end), error.to_string());
    Box::new(diagnostic.hint(error.kind.hint()))
}
