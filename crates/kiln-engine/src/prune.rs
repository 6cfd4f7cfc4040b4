//! Gives back space.

use kiln_store::{PruneOptions, PruneScope, PrunedKind, Store};

use crate::answer::PruneAnswer;
use crate::failure::environment;
use crate::job::Result;
use crate::request::PruneRequest;

/// Removes what no name holds, and with `all` the whole build cache too.
pub(crate) fn prune(store: &Store, request: &PruneRequest) -> Result<PruneAnswer> {
    let scope = if request.all { PruneScope::Cache } else { PruneScope::Dangling };
    let report = store.prune(&PruneOptions { scope, ..PruneOptions::default() }).map_err(environment)?;
    let repositories = match request.all {
        true => crate::step::prune_repositories(&store.root())?,
        false => Vec::new(),
    };
    let bytes = report.bytes() + repositories.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let label = |kind: PrunedKind| match kind {
        PrunedKind::Image => "image",
        PrunedKind::Result => "result",
        PrunedKind::Layer => "layer",
        PrunedKind::Blob => "blob",
        _ => "file",
    };
    let removed = report.items.iter().map(|item| format!("{} {}", label(item.kind), item.id));
    let removed = removed.chain(repositories.iter().map(|(name, _)| format!("repository {name}"))).collect();
    Ok(PruneAnswer { removed, bytes })
}
