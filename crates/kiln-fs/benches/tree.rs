//! How long a tree of five thousand files takes to walk and digest, with and without its digests at hand.
#![allow(clippy::unwrap_used, reason = "files that cannot be made measure nothing")]
#![allow(clippy::disallowed_methods, reason = "the tree is our own")]

mod support;

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use kiln_fs::pattern::PatternSet;
use kiln_fs::{MemoryCache, NoCache, SourceTree, digest_tree};
use support::FILES;

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 20)]
fn every_file_read(bencher: Bencher<'_, '_>) {
    let (_dir, root) = support::tree();
    let tree = SourceTree::context(root, None);
    bencher.counter(ItemsCount::new(FILES)).bench(|| digest_tree(&tree, ".", &NoCache).unwrap());
}

#[divan::bench(sample_count = 20)]
fn no_file_changed(bencher: Bencher<'_, '_>) {
    let (_dir, root) = support::tree();
    let tree = SourceTree::context(root, None);
    let cache = settled(&tree);
    bencher.counter(ItemsCount::new(FILES)).bench(|| digest_tree(&tree, ".", &cache).unwrap());
}

#[divan::bench(sample_count = 20)]
fn half_of_them_ignored(bencher: Bencher<'_, '_>) {
    let (_dir, root) = support::tree();
    let tree = SourceTree::context(root, Some(PatternSet::new(&["**/f*[02468]"]).unwrap()));
    let cache = settled(&tree);
    bencher.counter(ItemsCount::new(FILES)).bench(|| digest_tree(&tree, ".", &cache).unwrap());
}

/// A cache that knows every file: none may have changed a moment ago.
fn settled(tree: &SourceTree) -> MemoryCache {
    std::thread::sleep(Duration::from_millis(100));
    let cache = MemoryCache::default();
    digest_tree(tree, ".", &cache).unwrap();
    cache
}
