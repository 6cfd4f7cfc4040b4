//! Compression of layers: deterministic out, bounded in.
//!
//! What a layer compresses to depends on its bytes and the [`Compression`] alone, never on how many threads helped or
//! how the bytes were handed over, so a layer made twice has one digest.

mod decoder;
mod estargz;
mod gzip;
mod members;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::num::NonZeroUsize;

pub use decoder::{ExpansionError, Format, decompressor, sniff};
use estargz::EstargzWriter;
pub use estargz::Toc;
use gzip::GzipWriter;
use zstd::zstd_safe::CParameter;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip members of one MiB each.
    Gzip {
        /// Effort, 0–12: 1 is fast, 12 slow. Without one, [`Compression::GZIP_LEVEL`], and level 1 for what comes after the
        /// first 256 MiB of a layer.
        level: Option<u8>,
    },
    /// Gzip members for each chunk of each file, and a table of where they are.
    Estargz {
        /// Effort, as of gzip.
        level: u8,
    },
    /// One zstd frame.
    Zstd {
        /// Effort: 1–22, 3 the default.
        level: u8,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: None }
    }
}

impl Compression {
    /// The level of gzip layers unless another is asked for: one to three per cent larger than level 6 of the usual
    /// tools makes them, in a sixth of its time.
    pub const GZIP_LEVEL: u8 = 2;
    /// The level of zstd layers unless another is asked for.
    pub const ZSTD_LEVEL: u8 = 3;
    /// Names the code and settings the bytes depend on besides the level. Goes into keys of kept blobs: when one of
    /// the libraries changes its output, this changes.
    pub const REVISION: &str = "libdeflate-1.26+1MiB+256,zstd-1.5.7+mt+bound";
}

/// From this level on zstd works alone, with a bound on its memory.
const BOUNDED_LEVEL: u8 = 19;

/// Compresses what is written to it.
///
/// ```
/// use std::io::Write as _;
/// use kiln_fs::compress::{Compression, Compressor};
/// let mut out = Compressor::new(Vec::new(), Compression::default(), Compressor::<Vec<u8>>::all_threads()).unwrap();
/// out.write_all(b"layer").unwrap();
/// let blob = out.finish().unwrap();
/// assert!(blob.starts_with(&[0x1f, 0x8b]));
/// ```
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(GzipWriter<W>),
    Estargz(Box<EstargzWriter<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Starts a stream into `out`, compressed by up to `threads` threads.
    pub fn new(out: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => Inner::Plain(out),
            Compression::Gzip { level } => Inner::Gzip(GzipWriter::new(out, level, threads)?),
            Compression::Estargz { level } => Inner::Estargz(Box::new(EstargzWriter::new(out, level, threads)?)),
            Compression::Zstd { level } => Inner::Zstd(zstd_encoder(out, level, threads)?),
        }))
    }

    /// As many threads as the machine runs at once.
    pub fn all_threads() -> NonZeroUsize {
        std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
    }

    /// Ends the stream and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        self.finish_with_toc().map(|(out, _)| out)
    }

    /// The same, and the table that an eStargz layer ends with.
    pub fn finish_with_toc(self) -> io::Result<(W, Option<Toc>)> {
        let out = match self.0 {
            Inner::Plain(out) => out,
            Inner::Gzip(gzip) => gzip.finish()?,
            Inner::Zstd(encoder) => encoder.finish()?,
            Inner::Estargz(estargz) => return estargz.finish().map(|(out, toc)| (out, Some(toc))),
        };
        Ok((out, None))
    }
}

fn zstd_encoder<W: Write>(out: W, level: u8, threads: NonZeroUsize) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, i32::from(level))?;
    encoder.include_checksum(true)?;
    if level < BOUNDED_LEVEL {
        // Without workers the library makes other bytes than with one or more.
        encoder.multithread(u32::try_from(threads.get()).unwrap_or(1))?;
        return Ok(encoder);
    }
    // Left alone they take up to 1.3 GiB, and give about one part in a hundred for it.
    let window = match level {
        BOUNDED_LEVEL => 23,
        20 => 25,
        _ => 26,
    };
    encoder.window_log(window)?;
    encoder.set_parameter(CParameter::ChainLog(23))?;
    encoder.set_parameter(CParameter::HashLog(22))?;
    Ok(encoder)
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(out) => out.write(bytes),
            Inner::Gzip(gzip) => gzip.write(bytes),
            Inner::Estargz(estargz) => estargz.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: a flush in the middle would change the bytes that come out.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
