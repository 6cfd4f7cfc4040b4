//! Removing directories, at once out of sight and then for real.

use std::path::Path;

use crate::error::{IoContext as _, Result};

/// Removes a directory and all in it, following no link. One that is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.context("remove", path),
    }
}
