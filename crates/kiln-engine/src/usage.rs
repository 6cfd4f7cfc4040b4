//! Space: what takes it, what holds that, and giving it back.

use std::time::Duration;

use kiln_store::{Disk, Entry, Error, Limits, PruneOptions, PruneReport, PruneScope, PrunedKind, Store, Why};

use crate::answer::{Collected, PruneAnswer, Pruned};
use crate::failure::environment;
use crate::job::Result;
use crate::request::{PruneRequest, SpaceLimits};
use crate::step::{remove_repository, repositories};

/// What is kept at most when nobody said: a share of the disk, and no more than so many bytes.
const MOST_PERCENT: u64 = 10;
const MOST: u64 = 20 << 30;

/// How long removing files may take at the end of a build. What is left over is swept later.
const PATIENCE: Duration = Duration::from_secs(5);

/// All that is kept, largest first.
pub(crate) fn usage(store: &Store) -> Result<Vec<Entry>> {
    store.inventory(&repositories(&store.root())).map_err(environment)
}

/// What holds a thing.
pub(crate) fn why(store: &Store, id: &str) -> Result<Why> {
    store.why(id, &repositories(&store.root())).map_err(|error| match error {
        Error::UnknownEntry { .. } | Error::AmbiguousEntry { .. } => {
            crate::failure::build(error).hint("list what there is with `kiln du`")
        }
        error => environment(error),
    })
}

/// Removes what no name holds, and with `all` the whole build cache too.
pub(crate) fn prune(store: &Store, request: &PruneRequest) -> Result<PruneAnswer> {
    let is_everything =
        request.unused_for.is_none() && request.filter.is_empty() && request.limits == Default::default();
    let foreign = repositories(&store.root());
    let scope = if request.all { PruneScope::Cache } else { PruneScope::Dangling };
    let options = PruneOptions {
        scope,
        unused_for: request.unused_for,
        limits: resolve(&request.limits, &store.disk().map_err(environment)?),
        filter: request.filter.clone(),
        foreign: if is_everything { Vec::new() } else { foreign.clone() },
        dry_run: request.dry_run,
    };
    let report = store.prune(&options).map_err(environment)?;
    let mut removed = removed(store, report, request.dry_run)?;
    if is_everything && request.all {
        for repository in foreign.into_iter().filter(|repository| !repository.is_held) {
            if request.dry_run || remove_repository(&store.root(), &repository.id)? {
                removed.push(Pruned { kind: "repository", id: repository.id, bytes: repository.bytes });
            }
        }
    }
    Ok(PruneAnswer { removed })
}

/// What a report says, once the repositories among it are removed.
fn removed(store: &Store, report: PruneReport, dry_run: bool) -> Result<Vec<Pruned>> {
    let mut removed = Vec::with_capacity(report.items.len());
    for item in report.items {
        let kind = match item.kind {
            PrunedKind::Image => "image",
            PrunedKind::Result => "result",
            PrunedKind::Layer => "layer",
            PrunedKind::Blob => "blob",
            PrunedKind::CacheMount => "cache mount",
            PrunedKind::Leftover => "file",
            PrunedKind::Foreign if dry_run || remove_repository(&store.root(), &item.id)? => "repository",
            PrunedKind::Foreign => continue,
        };
        removed.push(Pruned { kind, id: item.id, bytes: item.bytes });
    }
    Ok(removed)
}

/// Keeps within the limits after a build that added something.
pub(crate) fn collect(store: &Store, limits: &SpaceLimits) -> Result<Option<Collected>> {
    if !store.has_grown() {
        return Ok(None);
    }
    let disk = store.disk().map_err(environment)?;
    let limits = with_default(resolve(limits, &disk), &disk);
    let report = store.collect(limits, repositories(&store.root()), PATIENCE).map_err(environment)?;
    let Some(report) = report else { return Ok(None) };
    let named = report.named;
    let freed = removed(store, report, false)?.iter().map(|thing| thing.bytes).sum();
    Ok(Some(Collected { freed, most: limits.max_used.unwrap_or(u64::MAX), named }))
}

fn resolve(limits: &SpaceLimits, disk: &Disk) -> Limits {
    let [reserved, max_used, min_free] =
        [limits.reserved, limits.max_used, limits.min_free].map(|amount| amount.map(|amount| amount.of(disk.size)));
    Limits { reserved, max_used, min_free }
}

fn with_default(limits: Limits, disk: &Disk) -> Limits {
    let most = (disk.size / 100 * MOST_PERCENT).min(MOST);
    Limits { max_used: limits.max_used.or(Some(most)), ..limits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Amount;

    #[test]
    fn at_most_a_tenth_of_the_disk_and_20_gib_unless_it_is_said() {
        let most = |size: u64, said: Option<Amount>| {
            let disk = Disk { size, free: 0 };
            let limits = SpaceLimits { max_used: said, ..SpaceLimits::default() };
            with_default(resolve(&limits, &disk), &disk).max_used.unwrap()
        };
        assert_eq!(most(100 << 30, None), (100 << 30) / 100 * 10);
        assert_eq!(most(1 << 40, None), 20 << 30);
        assert_eq!(most(1 << 40, Some(Amount::Percent(50))), (1 << 40) / 100 * 50);
        assert_eq!(most(1 << 40, Some(Amount::Bytes(7))), 7);
    }
}
