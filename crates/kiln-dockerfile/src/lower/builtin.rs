//! Build arguments that steer the build itself. No step sees them unless it declares them, and no image has them.

use std::collections::BTreeMap;

use kiln_report::{Diagnostic, Span};

use crate::instruction::parse_bool;

/// What they say, as far as the graph depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Builtin<'a> {
    /// `BUILDKIT_SANDBOX_HOSTNAME`: what steps are told their machine is called.
    pub(super) hostname: Option<&'a str>,
    /// `BUILDKIT_CACHE_MOUNT_NS`: keeps caches of one name apart.
    pub(super) cache_namespace: Option<&'a str>,
    /// `BUILDKIT_MULTI_PLATFORM`: whether one platform is built as if it were one of several.
    pub(super) multi_platform: bool,
}

impl<'a> Builtin<'a> {
    pub(super) fn read(args: &'a BTreeMap<String, String>) -> Result<Self, Box<Diagnostic>> {
        let text = |name: &str| args.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let multi_platform = match text("BUILDKIT_MULTI_PLATFORM") {
            None => false,
            Some(value) => parse_bool(value).ok_or_else(|| {
                let message = format!("`BUILDKIT_MULTI_PLATFORM` is `true` or `false`, not `{value}`");
                Box::new(Diagnostic::error(Span::default(), message).hint("write `true` or `false`"))
            })?,
        };
        Ok(Self {
            hostname: text("BUILDKIT_SANDBOX_HOSTNAME"),
            cache_namespace: text("BUILDKIT_CACHE_MOUNT_NS"),
            multi_platform,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_arguments_are_read_and_empty_ones_count_as_none() {
        let args = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let given: BTreeMap<_, _> = args(&[
            ("BUILDKIT_SANDBOX_HOSTNAME", "builder"),
            ("BUILDKIT_CACHE_MOUNT_NS", "team"),
            ("BUILDKIT_MULTI_PLATFORM", "1"),
        ]);
        let wanted = Builtin { hostname: Some("builder"), cache_namespace: Some("team"), multi_platform: true };
        assert_eq!(Builtin::read(&given).unwrap(), wanted);
        let empty = args(&[("BUILDKIT_SANDBOX_HOSTNAME", ""), ("BUILDKIT_MULTI_PLATFORM", "false")]);
        assert_eq!(Builtin::read(&empty).unwrap(), Builtin::default());
        assert!(Builtin::read(&args(&[("BUILDKIT_MULTI_PLATFORM", "maybe")])).is_err());
    }
}
