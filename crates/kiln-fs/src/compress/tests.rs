//! Claims about compression: deterministic, readable by others, bounded.

use std::io::Read as _;

use super::*;
use crate::Limits;

/// Text, zeros and noise, larger than a few members.
fn mixed(length: usize) -> Vec<u8> {
    let mut seed = 7u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        match (bytes.len() >> 19) % 3 {
            0 => bytes.extend_from_slice(format!("line {}\n", seed % 1000).as_bytes()),
            1 => bytes.extend_from_slice(&[0; 64]),
            _ => bytes.extend_from_slice(&seed.to_le_bytes()),
        }
    }
    bytes.truncate(length);
    bytes
}

fn squeeze(input: &[u8], compression: Compression, threads: usize, step: usize) -> Vec<u8> {
    let threads = NonZeroUsize::new(threads).unwrap();
    let mut out = Compressor::new(Vec::new(), compression, threads).unwrap();
    for part in input.chunks(step) {
        out.write_all(part).unwrap();
        out.flush().unwrap();
    }
    out.finish().unwrap()
}

fn restore(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decompressor(bytes, &Limits::default())?.read_to_end(&mut plain)?;
    Ok(plain)
}

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip { level: Some(1) },
    Compression::Gzip { level: Some(6) },
    Compression::Zstd { level: 1 },
    Compression::Zstd { level: 3 },
];

#[test]
fn bytes_do_not_depend_on_threads_or_on_how_they_were_written() {
    let input = mixed(5 << 20);
    for compression in ALL {
        let one = squeeze(&input, compression, 1, 1 << 20);
        assert_eq!(one, squeeze(&input, compression, 4, 70_001), "{compression:?}");
        assert_eq!(one, squeeze(&input, compression, 2, usize::MAX), "{compression:?}");
        assert_eq!(restore(&one).unwrap(), input, "{compression:?}");
    }
}

#[test]
fn blobs_keep_their_digests() {
    // When one of these changes, so do the digests of layers people have: `Compression::REVISION` must change too.
    let cases = [
        (Compression::default(), "253e628dfadf"),
        (Compression::Zstd { level: Compression::ZSTD_LEVEL }, "7a3dab839cb2"),
        (Compression::Zstd { level: 19 }, "2ceb27a7151e"),
        (Compression::Zstd { level: 22 }, "0e6f4f97485b"),
    ];
    for (compression, expected) in cases {
        let blob = squeeze(&mixed(3 << 20), compression, 2, 1 << 20);
        assert_eq!(kiln_oci::Digest::sha256(blob).short(), expected, "{compression:?}");
    }
}

#[test]
fn every_length_comes_back() {
    for length in [0, 1, 511, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20] {
        let input = mixed(length);
        for compression in ALL {
            assert_eq!(restore(&squeeze(&input, compression, 2, 100_000)).unwrap(), input, "{length} {compression:?}");
        }
    }
}

#[test]
fn noise_is_stored_and_hardly_grows() {
    let mut seed = 1u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    let noise: Vec<u8> = (0..400_000).flat_map(|_| next()).collect();
    let blob = squeeze(&noise, Compression::Gzip { level: Some(9) }, 2, 1 << 20);
    assert!(blob.len() > noise.len() && blob.len() < noise.len() + noise.len() / 1000, "{}", blob.len());
    assert_eq!(restore(&blob).unwrap(), noise);
}

#[test]
fn all_formats_are_told_by_their_first_bytes() {
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(b"content").unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(b"content").unwrap();
    let streams = [
        (Format::Xz, xz.finish().unwrap()),
        (Format::Bzip2, bz.finish().unwrap()),
        (Format::Gzip, squeeze(b"content", Compression::Gzip { level: Some(0) }, 1, 9)),
        (Format::Zstd, squeeze(b"content", Compression::Zstd { level: 1 }, 1, 9)),
        (Format::Plain, b"content".to_vec()),
    ];
    for (format, bytes) in streams {
        assert_eq!(sniff(&bytes), format);
        assert_eq!(restore(&bytes).unwrap(), b"content", "{format:?}");
        // A second stream behind the first belongs to the content, as the tools of each format have it.
        assert_eq!(restore(&bytes.repeat(2)).unwrap(), b"contentcontent", "{format:?}");
        if format != Format::Plain {
            assert!(restore(&bytes[..bytes.len() - 3]).is_err(), "{format:?} cut short");
        }
    }
    assert_eq!(restore(b"").unwrap(), b"");
}

#[test]
fn bombs_stop_at_their_limit() {
    let [zeros, ones] =
        [0, 1].map(|byte| squeeze(&vec![byte; 8 << 20], Compression::Gzip { level: Some(6) }, 2, 1 << 20));
    let read_of = |blob: &[u8], limits: &Limits| {
        let mut sink = Vec::new();
        let error = decompressor(blob, limits).unwrap().read_to_end(&mut sink).err()?;
        error.get_ref().and_then(|inner| inner.downcast_ref::<ExpansionError>()).cloned()
    };
    let read = |limits: &Limits| read_of(&zeros, limits);
    let limits = Limits { blank_floor: 1 << 20, expansion_ratio: 100, ..Limits::default() };
    assert!(matches!(read(&limits), Some(ExpansionError::Ratio { limit: 100, .. })));
    assert_eq!(read(&limits.of_any_ratio()), None);
    let limits = Limits { expansion_floor: 1 << 20, expansion_ratio: 100, ..Limits::default() };
    assert_eq!(read(&limits), None, "zeros take no space");
    assert!(matches!(read_of(&ones, &limits), Some(ExpansionError::Ratio { limit: 100, .. })));
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    assert_eq!(read(&limits), Some(ExpansionError::Size { limit: 1 << 20 }));
    assert_eq!(read(&Limits::default()), None, "an honest file of zeros passes");
}

#[test]
fn a_zstd_window_over_the_limit_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&mixed(1 << 20)).unwrap();
    assert!(restore(&encoder.finish().unwrap()).is_err());
}

#[test]
fn levels_that_do_not_exist_are_errors() {
    let threads = NonZeroUsize::MIN;
    assert!(Compressor::new(Vec::new(), Compression::Gzip { level: Some(13) }, threads).is_err());
}
