//! Work that several processes want: one does it, the others wait for it or take over from the dead.

use std::time::Duration;

use kiln_oci::Digest;
use kiln_store::{Claim, Store};

/// A wait is looked at again after so long; at first sooner.
const LONGEST_NAP: Duration = Duration::from_millis(25);

/// Waits for the work of this name to be nobody's, and takes it. `None` when nothing can be claimed here: then work may
/// be done twice, and nothing worse. Look whether it was done meanwhile.
pub(crate) async fn claim(store: &Store, work: &Digest) -> Option<Claim> {
    loop {
        match store.try_claim(work) {
            Ok(Some(claim)) => return Some(claim),
            Ok(None) => unclaimed(store, work, &|_| ()).await,
            Err(_) => return None,
        }
    }
}

/// Waits until nobody does the work of this name. `told` hears who does it, when that takes longer than a moment.
pub(crate) async fn unclaimed(store: &Store, work: &Digest, told: &(dyn for<'a> Fn(&'a str) + Send + Sync)) {
    // A lock file cannot be waited for without a thread that nobody could stop, so it is looked at again and again.
    let mut nap = Duration::from_millis(1);
    let mut is_told = false;
    while let Ok(Some(process)) = store.claimant(work) {
        if nap == LONGEST_NAP && !std::mem::replace(&mut is_told, true) {
            told(&format!("waiting for process {process}, which runs this step"));
        }
        tokio::time::sleep(nap).await;
        nap = (nap * 2).min(LONGEST_NAP);
    }
}
