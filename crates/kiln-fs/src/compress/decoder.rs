//! Reading compressed streams: the format is told from the first bytes, and growth is bounded.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use liblzma::stream::{CONCATENATED, Stream};

use crate::Limits;
use crate::blank::stretches;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// None known.
    Plain,
    /// Gzip, one or many members.
    Gzip,
    /// Zstandard, one or many frames.
    Zstd,
    /// Bzip2.
    Bzip2,
    /// Xz.
    Xz,
}

/// Says how a stream that begins with `head` is compressed. Six bytes are enough.
pub fn sniff(head: &[u8]) -> Format {
    const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
    match head {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        [0x50..=0x5f, rest @ ..] if rest.starts_with(&SKIPPABLE) => Format::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        _ => Format::Plain,
    }
}

/// A stream that grew beyond its limits. Found inside the `io::Error` a reader returns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpansionError {
    /// Too many bytes out for the bytes in.
    #[error("expansion ratio over limit: {expanded} bytes out of {compressed}, more than {limit} to one")]
    Ratio {
        /// Bytes that went in.
        compressed: u64,
        /// Bytes that came out.
        expanded: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many bytes out.
    #[error("expanded size over limit: more than {limit} bytes")]
    Size {
        /// The limit.
        limit: u64,
    },
}

/// Reads a stream decompressed, whatever its format, within the limits of size and growth.
pub fn decompressor<'a>(mut reader: impl Read + Send + 'a, limits: &Limits) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = [0; 6];
    let mut filled = 0;
    while filled < head.len() {
        match reader.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let format = sniff(&head[..filled]);
    let compressed = Arc::new(AtomicU64::new(0));
    let whole: Chain<Cursor<Vec<u8>>, _> = Cursor::new(head[..filled].to_vec()).chain(reader);
    let counted = Counted { reader: whole, count: Arc::clone(&compressed) };
    let input = BufReader::with_capacity(256 << 10, counted);
    let plain = decode(format, input, limits)?;
    Ok(Box::new(Guard { plain, compressed, expanded: 0, blank: 0, limits: limits.clone() }))
}

fn decode<'a>(
    format: Format,
    input: impl BufRead + Send + 'a,
    limits: &Limits,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    /// Enough for every preset of the format.
    const XZ_MEMORY: u64 = 160 << 20;
    Ok(match format {
        Format::Plain => Box::new(input),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Format::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).map_err(io::Error::from)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Format::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(limits.zstd_window_log)?;
            Box::new(decoder)
        }
    })
}

struct Counted<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Compares what came out with what went in.
struct Guard<'a> {
    plain: Box<dyn Read + Send + 'a>,
    compressed: Arc<AtomicU64>,
    expanded: u64,
    /// How much of it are zeros.
    blank: u64,
    limits: Limits,
}

impl Read for Guard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(buffer)?;
        self.expanded += read as u64;
        let blank = stretches(&buffer[..read]).filter(|(_, is_blank)| *is_blank);
        self.blank += blank.map(|(stretch, _)| stretch.len() as u64).sum::<u64>();
        let limits = &self.limits;
        if self.expanded > limits.bytes {
            return Err(io::Error::other(ExpansionError::Size { limit: limits.bytes }));
        }
        let (expanded, compressed) = (self.expanded, self.compressed.load(Ordering::Relaxed));
        let is_large = expanded - self.blank > limits.expansion_floor || expanded > limits.blank_floor;
        if is_large && expanded / compressed.max(1) >= limits.expansion_ratio {
            let limit = limits.expansion_ratio;
            return Err(io::Error::other(ExpansionError::Ratio { compressed, expanded, limit }));
        }
        Ok(read)
    }
}
