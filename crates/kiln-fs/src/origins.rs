//! Where large files of a layer were copied from. Who packs the layer reads them there: the kernel has those in memory, and
//! need not keep the copies in it too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::{Mutex, PoisonError};

use kiln_sys::metadata::Metadata;

use crate::digest::has_rested;
use crate::tree::StatKey;

/// Smaller files are kept in memory when they are copied: what runs next may read them.
const LARGE: u64 = 64 << 20;
/// Each is an open file.
const MOST: usize = 64;

/// The origins of some copies.
#[derive(Debug, Default)]
pub struct Origins {
    /// By device and inode of the copy.
    found: Mutex<HashMap<(u64, u64), Origin>>,
}

#[derive(Debug)]
struct Origin {
    file: File,
    state: StatKey,
}

impl Origins {
    /// Whether the copy of a file is to be read where it came from: it is large, and a change would be seen.
    pub(crate) fn takes(&self, source: &Metadata) -> bool {
        let has_room = || self.found.lock().unwrap_or_else(PoisonError::into_inner).len() < MOST;
        source.size >= LARGE && has_rested(source) && has_room()
    }

    /// Notes where a file came from, and in which state that is.
    pub(crate) fn note(&self, copy: &Metadata, file: File, source: &Metadata) {
        let origin = Origin { file, state: StatKey::of(source) };
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert((copy.dev, copy.ino), origin);
    }

    /// The file that another is a copy of, from its start, if it still is.
    pub(crate) fn take(&self, copy: &Metadata) -> Option<(File, StatKey)> {
        let key = (copy.dev, copy.ino);
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let Origin { mut file, state } = found?;
        let is_same = Metadata::of(&file).is_ok_and(|now| StatKey::of(&now) == state && now.size == copy.size);
        (is_same && file.seek(SeekFrom::Start(0)).is_ok()).then_some((file, state))
    }
}
