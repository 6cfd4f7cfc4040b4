//! Ages, times and sizes as docker's tables write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago a time was: `About a minute ago`, `3 weeks ago`.
pub(crate) fn ago(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, everything else is cut.
    let hours = (seconds as f64 / 3600.0).round() as i64;
    let text = match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    };
    format!("{text} ago")
}

/// How long ago a time in milliseconds since 1970 was.
pub(crate) fn since_millis(then: u64, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64);
    ago(now - (then / 1000) as i64)
}

/// A time in milliseconds since 1970, by RFC 3339.
pub(crate) fn time_of_millis(then: u64) -> String {
    jiff::Timestamp::from_millisecond(then as i64).map_or_else(|_| "N/A".to_owned(), |time| time.to_string())
}

/// How long something took: `12ms`, `3.4s`, `1m 23s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// An RFC 3339 time, as seconds since 1970.
pub(crate) fn seconds_of(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// How long ago an RFC 3339 time was; `N/A` when there is none.
pub(crate) fn since(time: Option<&str>, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64);
    time.and_then(seconds_of).map_or_else(|| "N/A".to_owned(), |then| ago(now - then))
}

/// An RFC 3339 time as Go prints it, in UTC; `N/A` when there is none.
pub(crate) fn go_time(time: Option<&str>) -> String {
    let Some(seconds) = time.and_then(seconds_of) else { return "N/A".to_owned() };
    let Ok(timestamp) = jiff::Timestamp::from_second(seconds) else { return "N/A".to_owned() };
    let text = timestamp.to_string();
    format!("{} +0000 UTC", text.trim_end_matches('Z').replace('T', " "))
}

/// Bytes with a number of significant digits: `4.26MB` has three.
pub(crate) fn size(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = if value < 1.0 { 1 } else { value.log10() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_docker_s() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (-5, "Less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (119, "About a minute ago"),
            (120, "2 minutes ago"),
            (HOUR - 1, "59 minutes ago"),
            (HOUR, "About an hour ago"),
            (2 * HOUR, "2 hours ago"),
            (3 * DAY, "3 days ago"),
            (15 * DAY, "2 weeks ago"),
            (70 * DAY, "2 months ago"),
            (800 * DAY, "2 years ago"),
        ] {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
        assert_eq!(since(Some("1970-01-01T00:00:00Z"), UNIX_EPOCH), "Less than a second ago");
        assert_eq!(since(Some("yesterday"), UNIX_EPOCH), "N/A");
    }

    #[test]
    fn sizes_have_significant_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (7, "7B"),
            (4_262_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (117_000_000, "117MB"),
            (1_020_000_000, "1.02GB"),
        ] {
            assert_eq!(size(bytes, 3), text);
        }
        assert_eq!(size(4_262_345, 4), "4.262MB");
        assert_eq!(size(999_999, 3), "1000kB");
    }

    #[test]
    fn durations_have_the_digits_one_needs() {
        for (milliseconds, text) in
            [(0, "0ms"), (999, "999ms"), (1040, "1.0s"), (59_940, "59.9s"), (83_456, "1m 23s"), (3_660_000, "1h 01m")]
        {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(time_of_millis(1500), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn times_are_printed_as_go_does() {
        assert_eq!(go_time(Some("2024-01-18T22:29:46.5Z")), "2024-01-18 22:29:46 +0000 UTC");
        assert_eq!(go_time(Some("2024-01-18T22:29:46+01:00")), "2024-01-18 21:29:46 +0000 UTC");
        assert_eq!(go_time(None), "N/A");
    }
}
