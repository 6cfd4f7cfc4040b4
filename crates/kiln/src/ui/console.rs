//! Lends the terminal to a container: keys go there as they are pressed, and what it shows comes here.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kiln_engine::Terminal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Whether somebody sits there: standard input and output are a terminal.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// What joins our terminal to a container's.
pub(crate) struct Console {
    other_end: oneshot::Receiver<OwnedFd>,
}

/// A terminal for a container, as large as ours, and what joins the two.
pub(crate) fn terminal() -> (Terminal, Console) {
    let (sender, other_end) = oneshot::channel();
    let size = tcgetwinsize(io::stdout()).map_or((24, 80), |size| (size.ws_row, size.ws_col));
    (Terminal { size, other_end: sender }, Console { other_end })
}

impl Console {
    /// Lends ours from when the container has its own until that is gone; dropped, it takes ours back.
    pub(crate) async fn lend(self) -> io::Result<()> {
        // A container that never began needs none.
        let Ok(end) = self.other_end.await else { return Ok(()) };
        let _raw = Raw::enter()?;
        let mut resized = signal(SignalKind::window_change())?;
        let end = Arc::new(end);
        let (tell, mut over) = oneshot::channel();
        let pumped = Arc::clone(&end);
        let pump = move || {
            let _ = tell.send(pump(&pumped));
        };
        std::thread::Builder::new().name("terminal".into()).spawn(pump)?;
        loop {
            tokio::select! {
                pumped = &mut over => return pumped.unwrap_or(Ok(())),
                _ = resized.recv() => fit(&end),
            }
        }
    }
}

/// A terminal that passes on every key, until it is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

fn fit(end: &OwnedFd) {
    // Of no more harm than lines that break in the wrong place.
    let _ = tcgetwinsize(io::stdout()).and_then(|size| tcsetwinsize(end, size));
}

/// Carries bytes both ways until the container's side is closed.
fn pump(end: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(end, true)?;
    let (stdin, mut stdout) = (io::stdin(), io::stdout());
    let (mut typed, mut is_open, mut buffer) = (Vec::new(), true, [0; 8192]);
    loop {
        let wanted = if typed.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut watched = vec![PollFd::new(end, wanted)];
        // No more keys are taken than the other side wants.
        if typed.is_empty() && is_open {
            watched.push(PollFd::new(&stdin, PollFlags::IN));
        }
        retry_on_intr(|| poll(&mut watched, None))?;
        let (theirs, ours) = (watched[0].revents(), watched.get(1).map_or(PollFlags::empty(), PollFd::revents));
        if theirs.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match rustix::io::read(end, &mut buffer) {
                Ok(0) | Err(Errno::IO) => return Ok(()),
                Ok(count) => stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush())?,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if theirs.contains(PollFlags::OUT) {
            match rustix::io::write(end, &typed) {
                Ok(count) => drop(typed.drain(..count)),
                Err(Errno::IO) => return Ok(()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !ours.is_empty() {
            match stdin.lock().read(&mut buffer) {
                Ok(count @ 1..) => typed.extend_from_slice(&buffer[..count]),
                // A terminal that is gone also sends a signal.
                _ => is_open = false,
            }
        }
    }
}
