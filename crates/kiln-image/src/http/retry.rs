//! Patience: what is tried again, how long we wait before, and when we give up.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::sync::OwnedMutexGuard;

use crate::{Error, Result};

/// How often and how long a request is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first included.
    pub tries: u32,
    /// The first wait; each further one is twice as long.
    pub base: Duration,
    /// The longest wait of our own choosing.
    pub ceiling: Duration,
    /// The longest wait a server may ask for.
    pub longest_asked: Duration,
    /// The longest all waits of one request may take together.
    pub budget: Duration,
    /// Waits this long for the head of an answer.
    pub answer: Duration,
    /// Waits this long for the answer to an upload, once all of it is sent.
    pub commit: Duration,
    /// A transfer must move `stall_bytes` in each such window.
    pub stall: Duration,
    /// See `stall`.
    pub stall_bytes: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            base: Duration::from_millis(300),
            ceiling: Duration::from_secs(15),
            longest_asked: Duration::from_secs(120),
            budget: Duration::from_secs(600),
            answer: Duration::from_secs(25),
            commit: Duration::from_secs(300),
            stall: Duration::from_secs(20),
            stall_bytes: 20 << 10,
        }
    }
}

impl RetryPolicy {
    /// One try only.
    pub fn none() -> Self {
        Self { tries: 1, ..Self::default() }
    }
}

/// The state of one request that may be tried again.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    policy: RetryPolicy,
    failed: u32,
    stalled: u32,
    waited: Duration,
}

impl Patience {
    /// Full patience.
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self { policy: policy.clone(), failed: 0, stalled: 0, waited: Duration::ZERO }
    }

    /// Regained by progress.
    pub(crate) fn refresh(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try, or gives `error` back when patience is over.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<()> {
        self.failed += 1;
        self.stalled += u32::from(matches!(error, Error::Stalled { .. }));
        // A stall has cost a long wait already; a second one is enough to know. Nobody there, or no such name, is
        // tried less often than a connection that broke.
        let tries = if is_unreachable(&error) { self.policy.tries.min(3) } else { self.policy.tries };
        if self.failed >= tries || self.stalled >= 2 {
            return Err(error);
        }
        let exponential = self.policy.base.saturating_mul(1 << (self.failed - 1).min(16));
        self.sleep(jittered(exponential.min(self.policy.ceiling)), error).await
    }

    /// Waits as long as the server asks for, or gives `error` back.
    pub(crate) async fn wait_as_asked(&mut self, after: Duration, error: Error) -> Result<()> {
        self.failed += 1;
        if self.failed >= self.policy.tries || after > self.policy.longest_asked {
            return Err(error);
        }
        // Never early, and a little apart from the others who were told the same.
        let spread = jittered(self.policy.base) / 2;
        self.sleep(after + spread, error).await
    }

    async fn sleep(&mut self, pause: Duration, error: Error) -> Result<()> {
        self.waited += pause;
        if self.waited > self.policy.budget {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether there was never a connection.
fn is_unreachable(error: &Error) -> bool {
    let Error::Network { source, .. } = error else { return false };
    source.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

/// Between half and one and a half times as long.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    pause.mul_f64(0.5 + (random % 1024) as f64 / 1024.0)
}

/// Whether a status says "not now" rather than "no".
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Nobody waits longer than a year.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let asked = match is_number {
        true => Duration::from_secs(value.parse().unwrap_or(u64::MAX)),
        false => parse_date(value)?.duration_since(now).unwrap_or_default(),
    };
    Some(asked.min(FAR))
}

/// Reads an HTTP date (RFC 9110 §5.6.7, the preferred form).
pub(crate) fn parse_date(text: &str) -> Option<SystemTime> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(SystemTime::from(zoned.timestamp()))
}

/// Hosts that asked for a pause. While one lasts, nobody here calls the host; after it they try one at a time, until one
/// is served.
#[derive(Debug, Default)]
pub(crate) struct Pauses(Mutex<HashMap<String, Arc<Pause>>>);

#[derive(Debug)]
struct Pause {
    until: Mutex<Instant>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// The right to call a host; among those who wait for a pause to end, one has it at a time.
#[derive(Debug)]
pub(crate) struct Turn(Option<(Arc<Pause>, OwnedMutexGuard<()>)>);

impl Pauses {
    pub(crate) fn set(&self, host: &str, pause: Duration) {
        let Some(until) = Instant::now().checked_add(pause) else { return };
        let new = || Arc::new(Pause { until: Mutex::new(until), gate: Arc::default() });
        let pause = self.lock().entry(host.to_owned()).or_insert_with(new).clone();
        let mut known = pause.until.lock().expect("no thread panics while it holds this");
        *known = until.max(*known);
    }

    /// Waits for one's turn to call a host.
    pub(crate) async fn turn(&self, host: &str) -> Turn {
        loop {
            let Some(pause) = self.lock().get(host).cloned() else { return Turn(None) };
            let gate = Arc::clone(&pause.gate).lock_owned().await;
            // It may have ended while others had their turn.
            if !self.lock().get(host).is_some_and(|now| Arc::ptr_eq(now, &pause)) {
                continue;
            }
            loop {
                let until = *pause.until.lock().expect("no thread panics while it holds this");
                if until <= Instant::now() {
                    return Turn(Some((pause, gate)));
                }
                tokio::time::sleep_until(until.into()).await;
            }
        }
    }

    /// Ends the pause of a host that has served whoever had this turn.
    pub(crate) fn served(&self, host: &str, turn: Turn) {
        let Some((pause, _gate)) = turn.0 else { return };
        let mut pauses = self.lock();
        if pauses.get(host).is_some_and(|now| Arc::ptr_eq(now, &pause)) {
            pauses.remove(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Pause>>> {
        self.0.lock().expect("no thread panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())])
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("3", Some(3)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
            ("99999999999", Some(31_536_000)),
            ("99999999999999999999999", Some(31_536_000)),
            ("Wed, 31 Dec 9000 23:59:59 GMT", Some(31_536_000)),
        ] {
            assert_eq!(retry_after(&headers(value), now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    fn stalled() -> Error {
        Error::Stalled { doing: "x".into(), host: "h".into(), window: Duration::from_secs(1) }
    }

    fn refused() -> Error {
        Error::Network { doing: "x".into(), host: "h".into(), source: "refused".into() }
    }

    #[tokio::test]
    async fn patience_ends() {
        let policy = RetryPolicy { tries: 4, base: Duration::from_millis(10), ..RetryPolicy::default() };
        let mut patience = Patience::new(&policy);
        let begun = Instant::now();
        for _ in 0..3 {
            patience.wait(refused()).await.unwrap();
        }
        assert!(begun.elapsed() >= policy.base * 7 / 2, "{:?}", begun.elapsed());
        assert!(patience.wait(refused()).await.is_err());
        let mut patience = Patience::new(&policy);
        patience.wait(stalled()).await.unwrap();
        assert!(patience.wait(stalled()).await.is_err());
    }

    #[test]
    fn waits_differ_and_stay_within_half_and_one_and_a_half() {
        let pause = Duration::from_secs(10);
        let waits: Vec<_> = (0..50).map(|_| jittered(pause)).collect();
        assert!(waits.iter().all(|wait| (pause / 2..=pause * 3 / 2).contains(wait)));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }

    #[tokio::test]
    async fn a_server_s_wish_is_a_floor_up_to_a_limit() {
        let policy = RetryPolicy { base: Duration::from_millis(1), ..RetryPolicy::default() };
        let mut patience = Patience::new(&policy);
        let begun = Instant::now();
        patience.wait_as_asked(Duration::from_millis(200), refused()).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(200));
        assert!(patience.wait_as_asked(Duration::from_secs(86_400), refused()).await.is_err());
        let spent = RetryPolicy { budget: Duration::from_secs(1), ..policy };
        let error = Patience::new(&spent).wait_as_asked(Duration::from_secs(2), refused()).await;
        assert!(error.is_err() && begun.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn everybody_respects_a_pause() {
        let pauses = Pauses::default();
        pauses.set("a", Duration::from_millis(60));
        pauses.set("a", Duration::from_millis(1));
        let begun = Instant::now();
        pauses.turn("b").await;
        assert!(begun.elapsed() < Duration::from_millis(50));
        pauses.turn("a").await;
        assert!(begun.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn after_a_pause_one_at_a_time_calls_until_one_is_served() {
        let pauses = Pauses::default();
        pauses.set("a", Duration::from_millis(10));
        let first = pauses.turn("a").await;
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, pauses.turn("a")).await.is_err());
        drop(first);
        let second = pauses.turn("a").await;
        pauses.served("a", second);
        let free = [pauses.turn("a").await, pauses.turn("a").await];
        assert!(free.iter().all(|turn| turn.0.is_none()));
    }
}
