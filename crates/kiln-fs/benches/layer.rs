//! How long layers take: packed, unpacked and compressed.
#![allow(clippy::unwrap_used, reason = "a layer that cannot be made measures nothing")]
#![allow(clippy::disallowed_methods, reason = "the tree is our own")]

mod support;

use std::io::{self, Write as _};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kiln_fs::compress::{Compression, Compressor};
use kiln_fs::{Limits, layer};
use kiln_sys::root::Root;
use support::{FILES, noise};

/// Bytes that are compressed in one go.
const BYTES: usize = 16 << 20;

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 20)]
fn packed(bencher: Bencher<'_, '_>) {
    let (_dir, root) = support::tree();
    bencher.counter(ItemsCount::new(FILES)).bench(|| layer::pack(&root, &mut io::sink()).unwrap());
}

/// Each time into a new directory. None is removed before the end: making files soon after removing many is slow on ext4.
#[divan::bench(sample_count = 10)]
fn applied(bencher: Bencher<'_, '_>) {
    let (_dir, root) = support::tree();
    let mut tar = Vec::new();
    layer::pack(&root, &mut tar).unwrap();
    let (limits, all) = (Limits::default(), tempfile::tempdir().unwrap());
    let new = || Root::open_ambient(tempfile::tempdir_in(all.path()).unwrap().keep()).unwrap();
    bencher.counter(ItemsCount::new(FILES)).with_inputs(new).bench_refs(|root| {
        let stats = layer::apply(tar.as_slice(), root, &limits).unwrap();
        assert_eq!(stats.files, FILES as u64);
    });
}

#[divan::bench(sample_count = 10)]
fn gzip_of_noise(bencher: Bencher<'_, '_>) {
    gzip(bencher, &noise(BYTES, 1));
}

#[divan::bench(sample_count = 10)]
fn gzip_of_text(bencher: Bencher<'_, '_>) {
    gzip(bencher, &text(BYTES));
}

/// With as many threads as there are, as a build has it.
fn gzip(bencher: Bencher<'_, '_>, input: &[u8]) {
    bencher.counter(BytesCount::of_slice(input)).bench(|| {
        let mut out =
            Compressor::new(io::sink(), Compression::default(), Compressor::<io::Sink>::all_threads()).unwrap();
        out.write_all(input).unwrap();
        out.finish().unwrap()
    });
}

/// Words of a language of two thousand, the short ones often.
fn text(bytes: usize) -> Vec<u8> {
    let letter = |byte: &u8| b"etaoinshrdlucmfw"[usize::from(byte % 16)];
    let words: Vec<Vec<u8>> =
        (0..2_000).map(|rank| noise(2 + rank % 9, rank + 1).iter().map(letter).collect()).collect();
    let mut made = Vec::with_capacity(bytes + 16);
    for pair in noise(bytes, 7).chunks_exact(2) {
        // The product of two evenly spread numbers is small more often than large.
        made.extend_from_slice(&words[usize::from(pair[0]) * usize::from(pair[1]) * words.len() / (256 * 256)]);
        made.push(b' ');
        if made.len() >= bytes {
            break;
        }
    }
    made.truncate(bytes);
    made
}
