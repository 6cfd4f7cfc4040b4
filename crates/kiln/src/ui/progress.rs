//! Progress: picks the view, and feeds it from a thread of its own, so that a slow terminal slows no build before much waits.

use std::io::{self, BufWriter, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_report::render::{Plain, RawJson, Render, Tty};
use kiln_report::{Event, Failure, FailureKind, Reporter, Silent};

use super::terminal;
use crate::args::Environment;
use crate::args::value::{Wrong, did_you_mean};

/// How often time is let into the view.
const TICK: Duration = Duration::from_millis(100);
/// How many bytes of steps' output wait to be shown before their readers wait.
const ROOM: isize = 16 << 20;
/// What an event takes besides its bytes, about.
const EVENT: isize = 256;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// BuildKit's plain lines.
    Plain,
    /// The live view.
    Tty,
    /// JSON lines.
    RawJson,
    /// Nothing.
    Quiet,
}

impl FromStr for Choice {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "tty" => Ok(Self::Tty),
            "rawjson" => Ok(Self::RawJson),
            "quiet" | "none" => Ok(Self::Quiet),
            other => {
                let near = did_you_mean(other, ["auto", "plain", "tty", "rawjson", "quiet"]);
                Err(Wrong(format!("`{other}` is no view: expected `auto`, `plain`, `tty`, `rawjson` or `quiet`{near}")))
            }
        }
    }
}

/// A view at work.
pub(crate) struct Progress {
    feed: Option<(Feed, JoinHandle<()>)>,
    /// What people read, as opposed to programs and nobody.
    pub(crate) is_for_people: bool,
    /// The view ends with the whole output of a failed step.
    pub(crate) shows_failed_output: bool,
}

impl Progress {
    /// Starts a view.
    pub(crate) fn start(choice: Choice, environment: &Environment) -> Result<Self, Failure> {
        let color = terminal::color(environment);
        let can_draw = terminal::can_draw(environment);
        let view: Box<dyn Render> = match choice {
            Choice::Quiet => return Ok(Self::silent()),
            Choice::Tty if !can_draw => {
                return Err(Failure::new(FailureKind::Usage, "`--progress=tty` needs a terminal on standard error")
                    .hint("use `--progress=plain`"));
            }
            Choice::RawJson => Box::new(RawJson),
            Choice::Plain => Box::new(Plain::new(color)),
            Choice::Auto if !can_draw => Box::new(Plain::new(color)),
            Choice::Auto | Choice::Tty => Box::new(Tty::new(color, log_lines(environment))),
        };
        let (sender, receiver) = mpsc::channel();
        let feed = Feed { sender, waiting: Arc::default() };
        let waiting = feed.waiting.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || show(view, &receiver, &waiting));
        let thread = thread.map_err(|error| Failure::from_error(FailureKind::Environment, &error))?;
        Ok(Self {
            feed: Some((feed, thread)),
            is_for_people: choice != Choice::RawJson,
            shows_failed_output: choice == Choice::Tty || (choice == Choice::Auto && can_draw),
        })
    }

    fn silent() -> Self {
        Self { feed: None, is_for_people: false, shows_failed_output: false }
    }

    /// Where events go.
    pub(crate) fn reporter(&self) -> Arc<dyn Reporter> {
        match &self.feed {
            Some((feed, _)) => Arc::new(feed.clone()),
            None => Arc::new(Silent),
        }
    }

    /// Ends the view once all events are shown. Events that come later are dropped.
    pub(crate) fn finish(self) {
        let Some((feed, thread)) = self.feed else { return };
        // Steps that were cancelled may keep their reporter a little longer, so a closed channel would say it late.
        let _ = feed.sender.send(Message::End);
        let _ = thread.join();
    }
}

enum Message {
    Event(Event),
    End,
}

#[derive(Clone)]
struct Feed {
    sender: Sender<Message>,
    waiting: Arc<AtomicIsize>,
}

impl Reporter for Feed {
    fn report(&self, event: Event) {
        self.waiting.fetch_add(size(&event), Ordering::Relaxed);
        let _ = self.sender.send(Message::Event(event));
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < ROOM
    }
}

fn size(event: &Event) -> isize {
    if let Event::Log { data, .. } = event { EVENT + data.len().cast_signed() } else { EVENT }
}

/// Shows events until the end. Nobody can be told that standard error is gone, so its errors end nothing.
fn show(mut view: Box<dyn Render>, events: &Receiver<Message>, waiting: &AtomicIsize) {
    let mut out = BufWriter::new(io::stderr());
    let mut ticked = Instant::now();
    // Until the first event there is nothing to show, whatever the time.
    let mut next = events.recv().map_err(|_| RecvTimeoutError::Disconnected);
    loop {
        match &next {
            Ok(Message::Event(event)) => {
                let _ = view.event(event, &mut out);
                waiting.fetch_sub(size(event), Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
        }
        if ticked.elapsed() >= TICK {
            let _ = view.tick(terminal::screen(), &mut out);
            ticked = Instant::now();
        }
        next = match events.try_recv() {
            Ok(event) => Ok(event),
            Err(_) => {
                let _ = out.flush();
                events.recv_timeout(TICK.saturating_sub(ticked.elapsed()))
            }
        };
    }
    // Whoever still reads output has nobody to wait for.
    waiting.store(isize::MIN / 2, Ordering::Relaxed);
    let _ = view.finish(terminal::screen(), &mut out);
    let _ = out.flush();
}

fn log_lines(environment: &Environment) -> usize {
    environment.text("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_known_by_name() {
        assert_eq!("none".parse(), Ok(Choice::Quiet));
        assert!("plian".parse::<Choice>().unwrap_err().0.ends_with("did you mean `plain`?"));
    }
}
