//! What is checked, and how strictly.

use kiln_dockerfile::CheckConfig;

use crate::rule::Scope;

/// What is checked, and how strictly.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What `# check=` says: names of rules to skip, and whether findings fail the build.
    pub check: CheckConfig,
    /// Which rules run.
    pub scope: Scope,
}
