//! Tables as docker prints them: columns at least ten wide, three blanks between them.

use kiln_report::render::{Escapes, sanitize};

/// Lays out rows; the first is the heading. The last column is not padded, and no cell has control characters.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let clean = |cell: &String| sanitize(cell.as_bytes(), Escapes::Strip);
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|column| (width(column) + 3).max(10)).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column] - length(cell)));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

/// At most `width` characters, the last being `…` when some are left out.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heading() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["REPOSITORY", "TAG", "SIZE"]), row(["localhost:5000/app", "é1", "4MB"]), row(["a", "", ""])];
        insta::assert_snapshot!(table(&rows), @"
        REPOSITORY           TAG       SIZE
        localhost:5000/app   é1        4MB
        a
        ");
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["STEP", "SIZE"]), row(["RUN \u{1b}[2J\u{9b}31mx\u{202e}", "1B"])];
        assert_eq!(table(&rows), "STEP      SIZE\nRUN x     1B\n");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!((ellipsis("abcd", 4).as_str(), ellipsis("abcde", 4).as_str()), ("abcd", "abc…"));
    }
}
