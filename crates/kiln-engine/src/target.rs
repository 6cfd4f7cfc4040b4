//! What a build makes for each of its platforms.

use std::collections::BTreeSet;

use kiln_dockerfile::{ContextRead, Lowered};
use kiln_graph::{Definition, Edge};
use kiln_oci::{ImageConfig, Platform};
use kiln_report::{Diagnostic, Failure, FailureKind};
use kiln_store::Snapshot;

use crate::job::Result;
use crate::request::BuildRequest;

/// Where the graph ends for one platform, and what the language says of the image.
pub(crate) struct Target {
    pub(crate) platform: Platform,
    /// None for an image without any layer.
    pub(crate) root: Option<Edge>,
    pub(crate) config: ImageConfig,
    /// `SOURCE_DATE_EPOCH` as the Dockerfile has it.
    pub(crate) epoch: Option<i64>,
}

/// What was made for one platform.
pub(crate) struct Solved {
    pub(crate) platform: Platform,
    pub(crate) config: ImageConfig,
    pub(crate) snapshot: Snapshot,
    /// The time that stands for every time in the image.
    pub(crate) epoch: Option<i64>,
}

/// One graph for all platforms. What they have in common is in it once, since vertices are named by their bytes.
#[derive(Default)]
pub(crate) struct Union {
    pub(crate) definition: Definition,
    pub(crate) targets: Vec<Target>,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) context_reads: Vec<ContextRead>,
}

impl Union {
    /// Joins the graphs of these platforms, in their order.
    pub(crate) fn of(lowered: Vec<(Platform, Lowered)>) -> Self {
        let mut union = Self::default();
        for (platform, lowered) in lowered {
            let Lowered { definition, root, config, epoch, warnings, context_reads, .. } = lowered;
            union.definition.merge(definition);
            union.targets.push(Target { platform, root, config, epoch });
            union.warnings.extend(warnings.into_iter().filter(|new| !union.warnings.contains(new)).collect::<Vec<_>>());
            let reads = context_reads.into_iter().filter(|new| !union.context_reads.contains(new));
            union.context_reads.extend(reads.collect::<Vec<_>>());
        }
        union
    }
}

impl Target {
    /// Joins it with its files.
    pub(crate) fn solved(self, snapshot: Snapshot) -> Solved {
        let Self { platform, config, epoch, .. } = self;
        Solved { platform, config, snapshot, epoch }
    }
}

/// The platforms a request is for, each once; the machine's when it names none.
pub(crate) fn platforms(request: &BuildRequest) -> Result<Vec<Platform>> {
    if request.platforms.is_empty() {
        return Ok(vec![Platform::host()]);
    }
    let mut seen = BTreeSet::new();
    let platforms = request.platforms.iter().cloned().map(Platform::normalized);
    let platforms: Vec<Platform> = platforms.filter(|platform| seen.insert(platform.clone())).collect();
    match platforms.iter().find(|platform| platform.os != Platform::host().os) {
        Some(other) => {
            let message = format!("cannot build for `{other}`: steps run on {}", Platform::host().os);
            Err(Failure::new(FailureKind::Usage, message).hint("name a platform such as `linux/amd64`"))
        }
        None => Ok(platforms),
    }
}
