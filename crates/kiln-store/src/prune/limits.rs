//! Limits of what is kept.

/// How much may be kept. What is not said is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes that are always kept: nothing goes below.
    pub reserved: Option<u64>,
    /// Bytes that are kept at most.
    pub max_used: Option<u64>,
    /// Bytes that are to be free on the disk.
    pub min_free: Option<u64>,
}

impl Limits {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// How many bytes must go, of `total` that are kept. Without limits all may go.
    pub fn excess(&self, total: u64, free: u64) -> u64 {
        if self.is_none() {
            return u64::MAX;
        }
        let for_the_disk = self.min_free.map(|min_free| total.saturating_sub(min_free.saturating_sub(free)));
        let keep = match (self.max_used, for_the_disk) {
            (Some(most), Some(so_much)) => most.min(so_much),
            (Some(keep), None) | (None, Some(keep)) => keep,
            (None, None) => 0,
        };
        total.saturating_sub(keep.max(self.reserved.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_and_free_take_away_and_reserved_stops_them() {
        let excess = |reserved, max_used, min_free| Limits { reserved, max_used, min_free }.excess(100, 50);
        for (limits, bytes) in [
            ((None, None, None), u64::MAX),
            ((Some(30), None, None), 70),
            ((Some(0), None, None), 100),
            ((None, Some(80), None), 20),
            ((None, Some(100), None), 0),
            ((None, Some(200), None), 0),
            ((None, None, Some(50)), 0),
            ((None, None, Some(60)), 10),
            ((None, None, Some(500)), 100),
            ((None, Some(95), Some(60)), 10),
            ((None, Some(80), Some(60)), 20),
            ((Some(97), Some(80), Some(60)), 3),
            ((Some(97), None, Some(50)), 0),
        ] {
            let (reserved, max_used, min_free) = limits;
            assert_eq!(excess(reserved, max_used, min_free), bytes, "{limits:?}");
        }
    }
}
