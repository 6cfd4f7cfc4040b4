//! Platforms: `os/architecture[/variant]` (OCI image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// GOOS: `linux`, …
    #[serde(default)]
    pub os: String,
    /// Windows build.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the OS the image needs.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// No architecture has as many variants.
const NEWEST: u32 = 32;

/// Says why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected `os/architecture` or `os/architecture/variant`, as in `linux/amd64`")]
pub struct PlatformError(String);

impl Platform {
    /// `linux` on `architecture`.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.into(), os: "linux".into(), ..Self::default() }
    }

    /// The platform this binary was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7".to_owned())),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { variant, ..Self::linux(architecture) }
    }

    /// Spells it canonically: `x86_64` is `amd64`, `arm64/v8` is `arm64`.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = self.os.to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.take().map(|v| v.to_ascii_lowercase()).filter(|v| !v.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64", Some(v.to_owned())),
            ("i386" | "386" | "i686", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v.to_owned())),
            ("armhf", _) => ("arm", Some("v7".to_owned())),
            ("armel", _) => ("arm", Some("v6".to_owned())),
            ("arm", None | Some("7")) => ("arm", Some("v7".to_owned())),
            ("arm", Some("5" | "6" | "8")) => ("arm", variant.map(|v| format!("v{v}"))),
            (other, _) => (other, variant),
        };
        self.architecture = architecture.to_owned();
        self.variant = variant;
        self
    }

    /// How well an image for `self` serves a wish for `wanted`: 0 is best, and `None` not at all. As in containerd, a
    /// machine also runs what was made for older variants of its kind, and for the kind before it.
    pub fn rank(&self, wanted: &Self) -> Option<usize> {
        let (have, want) = (self.clone().normalized(), wanted.clone().normalized());
        if have.os != want.os {
            return None;
        }
        let kinds = want.kinds();
        let is_kind = |kind: &(&str, Option<String>)| have.architecture == kind.0 && have.variant == kind.1;
        // Who names no variant takes any, rather than nothing.
        let is_near = want.variant.is_none() && have.architecture == want.architecture;
        kinds.iter().position(is_kind).or_else(|| is_near.then_some(kinds.len()))
    }

    /// The architectures and variants that serve a normal platform, best first.
    fn kinds(&self) -> Vec<(&str, Option<String>)> {
        let number = |variant: &str| variant.strip_prefix('v')?.parse::<u32>().ok();
        let own = self.variant.as_deref().and_then(number).map(|own| own.min(NEWEST));
        let arm = |newest: u32| (5..=newest).rev().map(|number| ("arm", Some(format!("v{number}"))));
        let mut kinds = vec![(self.architecture.as_str(), self.variant.clone())];
        match self.architecture.as_str() {
            "amd64" => {
                let older = (1..own.unwrap_or(1)).rev();
                kinds.extend(older.map(|n| ("amd64", (n > 1).then(|| format!("v{n}")))));
                kinds.push(("386", None));
            }
            "arm64" => {
                let older = (8..own.unwrap_or(8)).rev();
                kinds.extend(older.map(|n| ("arm64", (n > 8).then(|| format!("v{n}")))));
                kinds.extend(arm(8));
            }
            "arm" => kinds.extend(arm(own.unwrap_or(5).saturating_sub(1).min(8))),
            _ => {}
        }
        kinds
    }

    /// Whether an image for `self` answers a wish for `wanted`. Variants count only when both name one.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let (have, want) = (self.clone().normalized(), wanted.clone().normalized());
        have.os == want.os
            && have.architecture == want.architecture
            && (have.variant == want.variant || have.variant.is_none() || want.variant.is_none())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = || PlatformError(text.to_owned());
        let is_word = |w: &&str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_word) {
            return Err(wrong());
        }
        let platform = match parts[..] {
            ["local"] => return Ok(Self::host()),
            ["linux"] => return Ok(Self { os: "linux".into(), ..Self::host() }),
            [architecture] if is_architecture(architecture) => Self::linux(architecture),
            [os, architecture] => Self { os: os.into(), ..Self::linux(architecture) },
            [os, architecture, variant] => {
                Self { os: os.into(), variant: Some(variant.into()), ..Self::linux(architecture) }
            }
            _ => return Err(wrong()),
        };
        Ok(platform.normalized())
    }
}

fn is_architecture(word: &str) -> bool {
    const KNOWN: &[&str] = &[
        "amd64", "x86_64", "386", "i386", "arm", "armhf", "armel", "arm64", "aarch64", "ppc64le", "s390x", "riscv64",
        "loong64", "mips64le",
    ];
    KNOWN.contains(&word)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_one() {
        for (text, canonical) in [
            ("linux/x86_64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/amd64/v2", "linux/amd64/v2"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), canonical);
        }
        for (text, canonical) in [
            ("linux/aarch64", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/5", "linux/arm/v5"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/i386", "linux/386"),
            ("LINUX/ARM64/V8", "linux/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), canonical);
        }
        for bad in ["", "/", "linux/", "nonsense", "a/b/c/d", "linux/amd64 "] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn older_variants_serve_and_newer_ones_do_not() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (wanted, best_first, unfit) in [
            ("linux/amd64/v3", &["amd64/v3", "amd64/v2", "amd64", "386"][..], &["amd64/v4", "arm64"][..]),
            ("linux/amd64", &["amd64", "386", "amd64/v2"], &["arm64"]),
            ("linux/arm64", &["arm64", "arm/v8", "arm/v7", "arm/v6", "arm/v5"], &["amd64"]),
            ("linux/arm64/v9", &["arm64/v9", "arm64", "arm/v8"], &["arm64/v10"]),
            ("linux/arm/v7", &["arm/v7", "arm/v6", "arm/v5"], &["arm/v8", "arm64"]),
            ("linux/riscv64", &["riscv64"], &["amd64"]),
        ] {
            let rank = |have: &&str| platform(&format!("linux/{have}")).rank(&platform(wanted));
            let ranks: Vec<_> = best_first.iter().map(rank).collect();
            assert!(ranks.iter().all(Option::is_some) && ranks.is_sorted(), "{wanted}: {ranks:?}");
            assert!(unfit.iter().all(|have| rank(have).is_none()), "{wanted}");
        }
        assert_eq!(platform("windows/amd64").rank(&platform("linux/amd64")), None);
    }
}
