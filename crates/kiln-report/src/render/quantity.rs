//! Quantities as BuildKit's progress writes them: `1.05MB`, `0.4s`, `0.123`.

use std::time::{Duration, SystemTime};

/// Bytes with two decimals in powers of 1000: `32B`, `1.52kB`, `3.40MB`.
pub fn decimal_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Seconds with one decimal: `0.4s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// The time stamp of a log line: about four digits, whatever the age.
pub(super) fn stamp(age: Duration) -> String {
    let seconds = age.as_secs_f64();
    match seconds {
        s if s < 10.0 => format!("{s:.3}"),
        s if s < 100.0 => format!("{s:.2}"),
        s => format!("{s:.1}"),
    }
}

/// The time between two moments; clocks that ran backwards give nothing.
pub(super) fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// `current / total` as progress shows it, or nothing when there is nothing to say.
pub(super) fn progress(current: u64, total: u64) -> Option<String> {
    match (current, total) {
        (0, 0) => None,
        (current, 0) => Some(decimal_size(current)),
        (current, total) => Some(format!("{} / {}", decimal_size(current), decimal_size(total))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_bytes_are_whole() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1520, "1.52kB"), (3_400_000, "3.40MB"), (2 << 40, "2.20TB")] {
            assert_eq!(decimal_size(bytes), text);
        }
        assert_eq!(decimal_size(u64::MAX), "18.45EB");
    }

    #[test]
    fn stamps_keep_their_width() {
        let of = |ms| stamp(Duration::from_millis(ms));
        assert_eq!([of(123), of(12_345), of(123_456)], ["0.123", "12.35", "123.5"]);
    }
}
