//! What this machine allows: looked at and tried in the ways that builds take, then judged.

mod arrival;
mod facts;
mod judge;
mod look;
mod state;

use std::path::PathBuf;

pub use arrival::{Arrival, arrive};
pub use judge::{Check, Mark};

/// What of the surroundings the examiner is told, because only the command line reads the environment.
#[derive(Debug, Clone, Default)]
pub struct DoctorRequest {
    /// Where an ssh agent should listen: `SSH_AUTH_SOCK`.
    pub ssh_agent: Option<PathBuf>,
    /// What kind of container says it is around us: `container`.
    pub container: Option<String>,
    /// Who asks; nothing is root, of whatever.
    pub arrival: Option<Arrival>,
}

/// What was found, check by check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// In the order in which they are told.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether a build with `RUN` steps can run here.
    pub fn can_build(&self) -> bool {
        !self.checks.iter().any(|check| check.is_needed && check.mark == Mark::Missing)
    }
}

/// Looks and judges.
pub(crate) async fn examine(config: &crate::EngineConfig, request: &DoctorRequest) -> Diagnosis {
    Diagnosis { checks: judge::judge(&look::look(config, request).await) }
}
