//! Whether the machine has memory for one more step.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_solver::Room;

/// Of the last ten seconds, the share in which everybody waited for memory: beyond it another step makes all slower.
const STALLED_PERCENT: f64 = 10.0;

/// Where the kernel does not measure that, the share of the memory that must be free for a step to begin beside another.
const FREE_PERCENT: u64 = 5;

/// The kernel renews its averages every two seconds; more often than this there is nothing new to read.
const NEWS_EVERY: Duration = Duration::from_millis(500);

/// The memory of this machine.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    known: Mutex<Option<(Instant, bool)>>,
}

impl Room for Memory {
    fn is_enough(&self) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((at, is_enough)) if at.elapsed() < NEWS_EVERY => is_enough,
            _ => {
                let is_enough = look();
                *known = Some((Instant::now(), is_enough));
                is_enough
            }
        }
    }
}

/// What cannot be read is no reason to wait.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
fn look() -> bool {
    let read = |path| std::fs::read_to_string(path).ok();
    let stalled = read("/proc/pressure/memory").and_then(|text| stalled(&text));
    let free = || read("/proc/meminfo").and_then(|text| free(&text));
    match stalled {
        Some(percent) => percent < STALLED_PERCENT,
        None => free().is_none_or(|percent| percent >= FREE_PERCENT),
    }
}

/// The share of the last ten seconds in which everybody waited, from `/proc/pressure/memory`.
///
/// <https://docs.kernel.org/accounting/psi.html>
fn stalled(text: &str) -> Option<f64> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    full.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

/// The share of the memory that could be had without swapping, from `/proc/meminfo`.
fn free(text: &str) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()
    };
    (number("MemAvailable")? * 100).checked_div(number("MemTotal")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_long_everybody_waited_for_memory() {
        let some = "some avg10=80.00 avg60=1.00 avg300=0.00 total=5113469\n";
        let full = "full avg10=12.34 avg60=0.00 avg300=0.00 total=2211197\n";
        assert_eq!(stalled(&format!("{some}{full}")), Some(12.34));
        assert_eq!(stalled(some), None);
        assert_eq!(stalled("full avg10=lots"), None);
    }

    #[test]
    fn free_is_what_could_be_had_of_the_whole() {
        let text = "MemTotal:       1000 kB\nMemFree:          10 kB\nMemAvailable:    250 kB\n";
        assert_eq!(free(text), Some(25));
        assert_eq!(free("MemTotal:       1000 kB\n"), None);
        assert_eq!(free("MemTotal:  0 kB\nMemAvailable: 0 kB\n"), None);
    }
}
