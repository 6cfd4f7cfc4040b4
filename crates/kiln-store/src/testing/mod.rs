//! Contract suites that every implementation passes, and the points at which a crash test may stop a process.
//!
//! `tests/store/suites.rs` shows how they are run.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]

pub mod ingest;
pub mod snapshotter;

use std::sync::OnceLock;

static STOP: OnceLock<fn(&'static str)> = OnceLock::new();

/// Every point between a write and the next step that would make it visible, in no order.
pub const POINTS: &[&str] = &[
    "content: written",
    "content: renamed",
    "content: in place",
    "content: recorded",
    "layer: begun",
    "layer: finished",
    "layer: renamed",
    "layer: recorded",
    "snapshot: prepared",
    "lease: seen",
    "result: found",
    "cache mount: made",
    "cache mount: in place",
    "prune: recorded",
    "prune: moved",
    "doubt: looked at",
    "doubt: forgotten",
    "settle: synced",
    "salvage: made",
    "salvage: log removed",
];

/// Calls `stop` whenever this process passes one of [`POINTS`]; the first caller decides. For crash tests.
pub fn at_every_point(stop: fn(&'static str)) {
    let _ = STOP.set(stop);
}

pub(crate) fn reached(point: &'static str) {
    if let Some(stop) = STOP.get() {
        stop(point);
    }
}

/// Makes a `#[test]` of each function of a suite. `$make` returns what the functions take, and a guard.
#[doc(hidden)]
#[macro_export]
macro_rules! suite {
    ($module:path, $make:expr, [$($name:ident),* $(,)?]) => {
        $(
            #[test]
            fn $name() {
                use $module as suite;
                let fixture = $make();
                suite::$name(&fixture);
            }
        )*
    };
}

/// Runs the contract of [`crate::Snapshotter`]. `$make` is a function that returns a new
/// [`snapshotter::Fixture`], whose state directory is empty.
#[macro_export]
macro_rules! snapshotter_suite {
    ($make:expr) => {
        $crate::suite!(
            $crate::testing::snapshotter,
            $make,
            [
                scratch_starts_empty,
                a_commit_adds_one_layer,
                what_was_written_is_there,
                children_do_not_see_each_other,
                layers_are_mounted_topmost_first,
                a_layer_that_stands_twice_is_mounted_once,
                a_view_cannot_be_written,
                an_unknown_parent_is_refused,
                what_was_discarded_is_gone,
                a_lease_protects_until_it_ends,
                the_top_directory_looks_like_the_one_it_covers,
            ]
        );
    };
}

/// Runs the contract of receiving content. `$make` is a function that returns a new [`ingest::Fixture`].
#[macro_export]
macro_rules! ingest_suite {
    ($make:expr) => {
        $crate::suite!(
            $crate::testing::ingest,
            $make,
            [
                content_is_found_by_its_digest,
                content_is_not_seen_before_its_commit,
                a_wrong_digest_is_refused_and_leaves_nothing,
                a_wrong_size_is_refused,
                what_cannot_be_verified_is_refused,
                dropping_throws_away,
                what_broke_off_is_continued,
                what_broke_off_and_is_of_no_use_goes,
                the_same_content_twice_is_kept_once,
                twins_racing_both_win,
                rotten_content_is_noticed_and_can_be_had_anew,
                documents_are_verified_and_limited,
            ]
        );
    };
}
