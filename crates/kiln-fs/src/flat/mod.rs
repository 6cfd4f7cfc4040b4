//! Layers as one tree without an overlay: they are copied into a directory, and what changes there is found again.
//!
//! The result is what an overlay of the same layers would leave, but for three things. A file that was opened for writing and
//! not written to is not part of the changes. A directory that was renamed is one that was made. Names of one file are files
//! of their own ([`Names::Parted`]), or what is written by one name would change what the others stand for.

mod changes;
mod lay;
mod stash;
mod state;
mod under;

pub use changes::take_changes;
pub use lay::{Names, lay};
pub use stash::{Aside, Stash};
pub use state::TreeState;
pub use under::{Underlaid, underlay};
