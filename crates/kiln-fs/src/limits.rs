//! How much a stranger's archive may ask for.

/// The limits under which archives are read. Each is a refusal by name, never a truncation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a stream may expand to, as a multiple of its compressed size.
    pub expansion_ratio: u64,
    /// The ratio is looked at only beyond this many bytes, not counting stretches of zeros, which take no space on the disk.
    pub expansion_floor: u64,
    /// The ratio is looked at beyond this many bytes in any case: honest files of zeros compress a thousandfold.
    pub blank_floor: u64,
    /// Bytes an archive may hold, expanded.
    pub bytes: u64,
    /// Entries an archive may hold.
    pub entries: u64,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Components of one path.
    pub depth: usize,
    /// Bytes of one extended header.
    pub header_bytes: u64,
    /// The power of two of the window a zstd stream may ask for.
    pub zstd_window_log: u32,
}

impl Limits {
    /// For content that was let in before: it may grow as it did then.
    pub fn of_known() -> Self {
        Self { bytes: u64::MAX, entries: u64::MAX, ..Self::default() }.of_any_ratio()
    }

    /// Bounds sizes alone.
    #[must_use]
    pub fn of_any_ratio(self) -> Self {
        Self { expansion_ratio: u64::MAX, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            expansion_ratio: 500,
            expansion_floor: 1 << 30,
            blank_floor: 4 << 30,
            bytes: 64 << 30,
            entries: 5_000_000,
            path_bytes: 4096,
            depth: 512,
            header_bytes: 1 << 20,
            zstd_window_log: 27,
        }
    }
}
