//! Removes one layer that is of no use any more, at once.

use super::mark::{self, Marked};
use super::sweep::Graves;
use super::{PruneReport, PrunedKind};
use crate::error::Result;
use crate::lease::Live;
use crate::snapshot::LayerId;
use crate::store::Store;

/// A layer that neither an image nor a result needs.
const NEEDLESS: &str = "DELETE FROM layers WHERE id = ?1
    AND NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = id)
    AND NOT EXISTS (SELECT 1 FROM result_layers WHERE layer = id)
    RETURNING id, disk";

impl Store {
    /// Removes a layer unless an image or a result needs it, or a live process holds it; says whether it went.
    pub fn remove_layer(&self, layer: &LayerId) -> Result<bool> {
        let lease = self.lease()?;
        let mut report = PruneReport::default();
        let graves = {
            let _alone = self.shared.sweeper()?;
            if Live::read(&self.shared.layout.leases())?.layers.contains(layer) {
                return Ok(false);
            }
            let marked = self.shared.write_somehow(|db| {
                let mut marked = Marked::default();
                mark::delete_layers(db, NEEDLESS, [layer.as_str()], &mut marked)?;
                Ok(marked)
            })?;
            let mut graves = Graves::new(&self.shared.layout, &lease, false);
            graves.bury(marked, &mut report)?;
            graves
        };
        graves.empty(&mut report, None)?;
        Ok(report.count(PrunedKind::Layer) > 0)
    }
}
