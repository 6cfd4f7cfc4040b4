//! Claims: of all processes that want a piece of work done, one does it, and the others wait until it is done or dead.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::io::Write as _;
use std::path::PathBuf;

use kiln_oci::Digest;
use kiln_sys::lock::LockMode;

use crate::error::{IoContext as _, Result};
use crate::layout::Layout;
use crate::lock::{self, Guard};
use crate::store::Store;

/// What the names of claims in `locks/` begin with.
const PREFIX: &str = "claim-";

/// The right to do a piece of work, held by one process. Dropping it, or the death of its process, lets the next one in.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Dropped after the file is removed, so that who waits for it makes a new one.
    _lock: Guard,
}

/// Waits until nobody has a claim to the work of this name, and claims it.
pub(crate) fn wait(layout: &Layout, work: &Digest) -> Result<Claim> {
    let path = file(layout, work);
    let lock = lock::wait(&path, LockMode::Exclusive)?;
    Ok(Claim { path, _lock: lock })
}

fn file(layout: &Layout, work: &Digest) -> PathBuf {
    layout.locks().join(format!("{PREFIX}{}", work.hex()))
}

impl Store {
    /// Claims the work of this name, unless somebody has it, in this process or another.
    ///
    /// Who gets it must look whether the work was done meanwhile.
    pub fn try_claim(&self, work: &Digest) -> Result<Option<Claim>> {
        let path = self.claim_file(work);
        let Some(lock) = lock::attempt(&path, LockMode::Exclusive)? else { return Ok(None) };
        lock.file().set_len(0).context("write", &path)?;
        (&mut lock.file()).write_all(std::process::id().to_string().as_bytes()).context("write", &path)?;
        Ok(Some(Claim { path, _lock: lock }))
    }

    /// The process that does the work of this name; `None` when nobody does. 0 when it is just beginning.
    pub fn claimant(&self, work: &Digest) -> Result<Option<u32>> {
        let path = self.claim_file(work);
        if !lock::is_held(&path)? {
            return Ok(None);
        }
        Ok(Some(std::fs::read_to_string(&path).ok().and_then(|id| id.parse().ok()).unwrap_or(0)))
    }

    fn claim_file(&self, work: &Digest) -> PathBuf {
        file(&self.shared.layout, work)
    }

    /// Removes the files that claimants left when they died.
    pub(crate) fn remove_stray_claims(&self) -> Result<()> {
        let dir = self.shared.layout.locks();
        for entry in std::fs::read_dir(&dir).context("list", &dir)? {
            let entry = entry.context("list", &dir)?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(PREFIX)
                && let Some(lock) = lock::attempt(&path, LockMode::Exclusive)?
            {
                drop(Claim { path, _lock: lock });
            }
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // One that stays behind is unlocked, and therefore free.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claims_and_the_next_one_when_it_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| Store::open(dir.path()).unwrap());
        let work = Digest::sha256("work");
        let claim = one.try_claim(&work).unwrap().unwrap();
        assert!(other.try_claim(&work).unwrap().is_none());
        assert!(one.try_claim(&work).unwrap().is_none(), "not even the same process twice");
        assert!(other.try_claim(&Digest::sha256("other work")).unwrap().is_some());
        assert_eq!(other.claimant(&work).unwrap(), Some(std::process::id()));
        drop(claim);
        assert_eq!(other.claimant(&work).unwrap(), None);
        assert!(other.try_claim(&work).unwrap().is_some());
        let mut left = std::fs::read_dir(dir.path().join("locks")).unwrap();
        assert!(!left.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(PREFIX)));
    }

    #[test]
    fn what_dead_claimants_left_is_removed_and_live_claims_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let stray = store.claim_file(&Digest::sha256("dead"));
        std::fs::write(&stray, "1").unwrap();
        let live = Digest::sha256("live");
        let _claim = store.try_claim(&live).unwrap().unwrap();
        store.remove_stray_claims().unwrap();
        assert!(!stray.exists() && store.claimant(&live).unwrap().is_some());
    }
}
