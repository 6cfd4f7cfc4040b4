//! One picture of the live view: which rows it has, and what gives way when the terminal is small.

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Tty;
use crate::render::Screen;
use crate::render::quantity::{between, progress, seconds};
use crate::render::trace::{Outcome, Part, Vertex};

const DONE: Style = AnsiColor::Blue.on_default();
const CANCELED: Style = AnsiColor::Yellow.on_default();
const FAILED: Style = AnsiColor::Red.on_default();
const FAINT: Style = Style::new().dimmed();

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) rows: Vec<Row>,
}

/// A line: text at the left, a time at the right.
#[derive(Debug, Clone)]
pub(super) struct Row {
    kind: Kind,
    left: String,
    right: String,
    pub(super) style: Option<Style>,
}

/// What a row is about; it decides what goes first when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header,
    Finished,
    FinishedPart,
    Running,
    RunningPart,
    Log,
}

impl Frame {
    /// Everything there is to show.
    pub(super) fn new(view: &Tty, screen: Screen) -> Self {
        let mut rows = vec![header(view, screen)];
        for at in &view.order {
            let vertex = &view.trace.vertices[*at];
            let is_running = vertex.is_running();
            rows.push(step(vertex, screen));
            rows.extend(vertex.parts.iter().map(|p| part(p, is_running, screen)));
            if is_running {
                rows.extend(view.logs[*at].last(view.log_lines).into_iter().map(log));
            }
        }
        Self { rows }
    }

    /// Drops rows until the frame fits: parts of finished steps, then the oldest finished steps, then parts and
    /// output of running ones, then running ones. The row above the prompt stays free for the cursor.
    pub(super) fn fit(mut self, screen: Screen) -> Self {
        let limit = screen.height.saturating_sub(1).max(2);
        self.drop_first(Kind::FinishedPart, limit);
        if self.rows.len() > limit {
            // Room for the row that counts them.
            let hidden = self.drop_first(Kind::Finished, limit - 1);
            let text = if hidden == 1 { "1 step".to_owned() } else { format!("{hidden} steps") };
            let left = format!(" => ({text} finished)");
            let summary = Row { kind: Kind::Finished, left, right: String::new(), style: Some(FAINT) };
            if hidden > 0 {
                self.rows.insert(1, summary);
            }
        }
        self.drop_first(Kind::RunningPart, limit);
        self.drop_first(Kind::Log, limit);
        self.rows.truncate(limit);
        self
    }

    /// Drops rows of a kind, first ones first, until `limit` rows are left; says how many it dropped.
    fn drop_first(&mut self, kind: Kind, limit: usize) -> usize {
        let mut excess = self.rows.len().saturating_sub(limit);
        let before = self.rows.len();
        self.rows.retain(|row| {
            let goes = excess > 0 && row.kind == kind;
            excess -= usize::from(goes);
            !goes
        });
        before - self.rows.len()
    }
}

impl Row {
    /// The line in `width` columns. The name gives way to the time; one column stays free, so that nothing wraps.
    pub(super) fn fit(&self, width: usize) -> String {
        let width = width.saturating_sub(1);
        let right = self.right.width();
        if right == 0 {
            return clip(&self.left, width);
        }
        if width < right + 13 {
            return clip(&self.left, width);
        }
        let left = clip(&self.left, width - right - 1);
        let gap = width - right - left.width();
        format!("{left}{:gap$}{}", "", self.right)
    }
}

fn clip(text: &str, width: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

fn header(view: &Tty, screen: Screen) -> Row {
    let vertices = &view.trace.vertices;
    let done = vertices.iter().filter(|v| v.ended.is_some()).count();
    let began = view.began.unwrap_or(screen.now);
    let is_finished = done == vertices.len() && !vertices.is_empty();
    let end = if is_finished { " FINISHED" } else { "" };
    let left = format!("[+] Building {} ({done}/{}){end}", seconds(between(began, screen.now)), vertices.len());
    Row { kind: Kind::Header, left, right: String::new(), style: None }
}

fn step(vertex: &Vertex, screen: Screen) -> Row {
    let (mark, style) = match &vertex.outcome {
        None => ("", None),
        Some(Outcome::Done) => ("", Some(DONE)),
        Some(Outcome::Cached) => ("CACHED ", Some(DONE)),
        Some(Outcome::Canceled) => ("CANCELED ", Some(CANCELED)),
        Some(Outcome::Failed(_)) => ("ERROR ", Some(FAILED)),
    };
    let reason = vertex.reason.as_ref().map(|reason| format!("  ({reason})")).unwrap_or_default();
    Row {
        kind: if vertex.is_running() { Kind::Running } else { Kind::Finished },
        left: format!(" => {mark}{}{reason}", vertex.name),
        right: seconds(vertex.elapsed(screen.now)),
        style,
    }
}

fn part(part: &Part, is_running: bool, screen: Screen) -> Row {
    let amount = progress(part.current, part.total).map(|text| format!(" {text}")).unwrap_or_default();
    Row {
        kind: if is_running { Kind::RunningPart } else { Kind::FinishedPart },
        left: format!(" => => {}{amount}", part.id),
        right: seconds(between(part.started, part.completed.unwrap_or(screen.now))),
        style: part.completed.map(|_| DONE),
    }
}

fn log(line: String) -> Row {
    Row { kind: Kind::Log, left: format!(" => => # {line}"), right: String::new(), style: Some(FAINT) }
}
