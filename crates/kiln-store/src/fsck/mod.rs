//! Fsck: is everything that the database speaks of there, and whole? What is not can be taken out, with what needs it.

mod examine;
mod salvage;

use std::path::Path;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::prune::Pruned;
use crate::store::Store;

/// How closely to look, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsckOptions {
    /// Take out what is broken, and what needs it; remove what dead processes left.
    pub repair: bool,
    /// Read every layer, too, and compare it with its digest. Content is always read.
    pub deep: bool,
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The metadata database.
    Index,
    /// Content.
    Blob,
    /// A layer.
    Layer,
    /// An image's record.
    Image,
    /// A step's result.
    Result,
}

impl ProblemKind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Image => "image",
            Self::Result => "result",
        }
    }
}

/// Something broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// Its digest, id, name or path.
    pub id: String,
    /// What is wrong with it.
    pub what: String,
    /// What is lost when it is taken out.
    pub lost: Vec<String>,
    /// Whether it was taken out.
    pub is_repaired: bool,
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// What is broken.
    pub problems: Vec<Problem>,
    /// What dead processes left: harmless, and gone after the next prune. Removed by a repair.
    pub leftovers: Vec<Pruned>,
    /// How much content was read.
    pub blobs: usize,
    /// How many layers were looked at.
    pub layers: usize,
    /// How many images were looked at.
    pub images: usize,
    /// How many results were looked at.
    pub results: usize,
}

impl FsckReport {
    /// Whether nothing is broken, or nothing is any more.
    pub fn is_clean(&self) -> bool {
        self.problems.iter().all(|problem| problem.is_repaired)
    }
}

/// Looks at a whole state directory. Builds may run meanwhile, except when the database itself is to be made anew.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
pub fn fsck(root: &Path, options: FsckOptions) -> Result<FsckReport> {
    let mut report = FsckReport::default();
    if !root.exists() {
        return Ok(report);
    }
    let layout = Layout::open(root)?;
    if let Some(what) = index_trouble(&layout)? {
        let rescued = salvage::salvage(&layout, options.repair)?;
        let id = layout.db().display().to_string();
        let lost = vec![format!("what cannot be read of it; what can be is {rescued}")];
        report.problems.push(Problem { kind: ProblemKind::Index, id, what, lost, is_repaired: options.repair });
        if !options.repair {
            return Ok(report);
        }
    }
    let store = Store::open(root)?;
    // Opening it may have found layers that a power cut tore.
    for note in store.take_notes() {
        let kind = ProblemKind::Layer;
        report.problems.push(Problem { kind, id: String::new(), what: note, lost: Vec::new(), is_repaired: true });
    }
    examine::all(&store, options, &mut report)?;
    report.leftovers = store.leftovers(!options.repair)?;
    Ok(report)
}

/// What is wrong with the database, if it cannot be used as it is.
fn index_trouble(layout: &Layout) -> Result<Option<String>> {
    let checked = Db::open(layout).and_then(|db| db.trouble());
    match checked {
        Err(error @ (Error::DamagedDatabase { .. } | Error::LostDatabase { .. } | Error::ForeignDatabase { .. })) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            let what = if matches!(error, Error::LostDatabase { .. }) { "it is gone" } else { "it is damaged" };
            Ok(Some(format!("{what}{source}")))
        }
        checked => checked,
    }
}
