//! Durations in Go's notation: `1h30m`, `1.5s`, `300ms`.

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as nanoseconds.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let nanoseconds = if rest.is_empty() { None } else { sum(rest) }?;
    let signed = i64::try_from(nanoseconds).ok()?;
    Some(if negative { -signed } else { signed })
}

fn sum(mut rest: &str) -> Option<u64> {
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    Some(total)
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let (mut part, mut scale) = (0.0, unit as f64);
    for digit in fraction.bytes().take(18) {
        scale /= 10.0;
        part += f64::from(digit - b'0') * scale;
    }
    whole.checked_mul(unit)?.checked_add(part.round() as u64)
}

/// Writes a duration as Go prints it: `1m30s`, `1.5s`, `250ms`, `0s`.
pub(crate) fn print(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let value = nanoseconds.unsigned_abs();
    let small = [(1_000_000u64, "ms"), (1_000, "µs"), (1, "ns")];
    if value == 0 {
        return "0s".to_owned();
    }
    if value < 1_000_000_000 {
        let (unit, name) = small.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1, "ns"));
        return format!("{sign}{}{name}", decimal(value, unit));
    }
    let (hours, minutes) = (value / UNITS[7].1, value / UNITS[6].1 % 60);
    let seconds = format!("{}s", decimal(value % UNITS[6].1, UNITS[5].1));
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, m) => format!("{sign}{m}m{seconds}"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}"),
    }
}

fn decimal(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", value % unit);
    let fraction = if digits == 0 { "" } else { fraction.trim_end_matches('0') };
    if fraction.is_empty() { (value / unit).to_string() } else { format!("{}.{fraction}", value / unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        for (text, nanoseconds, printed) in [
            ("0", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("300ms", 300_000_000, "300ms"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            (".5m", 30_000_000_000, "30s"),
            ("-2us", -2000, "-2µs"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1500us", 1_500_000, "1.5ms"),
        ] {
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
            assert_eq!(print(nanoseconds), printed, "{text}");
        }
        for bad in ["", "5", "s", "1x", "1..5s", "-", "9999999999h", "5 s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
