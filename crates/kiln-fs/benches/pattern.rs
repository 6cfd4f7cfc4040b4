//! How long ignore patterns take: read from text, and asked about twenty thousand paths of a context.
#![allow(clippy::unwrap_used, reason = "patterns that cannot be read measure nothing")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kiln_fs::pattern::PatternSet;

/// Of every kind: exact names, names anywhere, wildcards, classes, and some that take back.
const IGNORED: &[&str] = &[
    ".git",
    ".github",
    "target",
    "node_modules",
    "**/node_modules",
    "**/__pycache__",
    "**/*.pyc",
    "**/*.log",
    "*.md",
    "!README.md",
    "docs/**",
    "**/.env*",
    "**/[Tt]est?",
    "build/*/cache",
    "src/**/fixtures/*.bin",
    "!src/**/fixtures/keep.bin",
];

fn main() {
    divan::main();
}

#[divan::bench]
fn read_from_text() -> PatternSet {
    PatternSet::new(black_box(IGNORED)).unwrap()
}

/// As a listing asks: each directory once, then its files by what is known of it.
#[divan::bench]
fn walked(bencher: Bencher<'_, '_>) {
    let (set, tree) = (PatternSet::new(IGNORED).unwrap(), tree());
    let files: usize = tree.iter().map(|(_, files)| files.len()).sum();
    bencher.counter(ItemsCount::new(files)).bench(|| {
        let root = set.root();
        let hidden = |(directory, files): &(String, Vec<String>)| {
            let state = set.descend(&root, directory.as_bytes());
            files.iter().filter(|file| set.is_match(&state, file.as_bytes())).count()
        };
        tree.iter().map(hidden).sum::<usize>()
    });
}

/// As a source is looked up: each path alone.
#[divan::bench]
fn each_path_alone(bencher: Bencher<'_, '_>) {
    let (set, tree) = (PatternSet::new(IGNORED).unwrap(), tree());
    let paths: Vec<&String> = tree.iter().flat_map(|(_, files)| files).collect();
    bencher.counter(ItemsCount::new(paths.len())).bench(|| paths.iter().filter(|path| set.matches(path)).count());
}

/// Two hundred directories of a hundred files.
fn tree() -> Vec<(String, Vec<String>)> {
    const ENDINGS: [&str; 5] = ["rs", "py", "pyc", "log", "md"];
    let file = |directory: &str, at: usize| format!("{directory}/part-{at:03}.{}", ENDINGS[at % ENDINGS.len()]);
    let directories = (0..200).map(|at| if at % 20 == 0 { format!("docs-{at}") } else { format!("module-{at}") });
    directories.map(|directory| (directory.clone(), (0..100).map(|at| file(&directory, at)).collect())).collect()
}
