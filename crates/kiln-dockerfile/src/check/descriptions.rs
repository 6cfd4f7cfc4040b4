//! Descriptions: the comment above an `ARG` or `FROM` whose first word is the name.

use super::{Findings, rules};
use crate::instruction::{Command, Keyword};
use crate::parse::{Instruction, name_and_value};

/// The description of a name in the comments above what defines it.
pub(crate) fn description<'a>(comments: &'a [String], name: &str) -> Option<&'a str> {
    comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
}

/// Finds comments that may have been meant as descriptions.
pub(super) fn check(instruction: &Instruction, findings: &mut Findings<'_>) {
    let (keyword, names) = match &instruction.command {
        Some(Command::Arg(items)) => (Keyword::Arg, items.iter().map(|item| item.key.text.clone()).collect()),
        Some(Command::From(from)) => (Keyword::From, from.stage_name().into_iter().collect::<Vec<_>>()),
        _ => return,
    };
    let (Some(comment), Some(first)) = (instruction.comments.last(), names.first()) else { return };
    let word = comment.split(' ').next().unwrap_or_default();
    let is_setting = name_and_value(comment).is_some() || word == "hadolint";
    if !is_setting && !names.iter().any(|name| name == word) {
        findings.push(instruction, rules::definition_description(keyword.name(), first, instruction.span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CheckConfig, check};

    /// Lines with a comment that describes nothing.
    fn lines(text: &str) -> Vec<usize> {
        let (file, _) = crate::parse(text);
        let found = check(&file, &CheckConfig::parse("skip=all;experimental=all").unwrap());
        found.iter().map(|finding| text[..finding.span.start].lines().count() + 1).collect()
    }

    #[test]
    fn a_comment_that_begins_with_a_name_describes_it() {
        let comments = ["other".to_owned(), "foo is the foo".to_owned()];
        assert_eq!(description(&comments, "foo"), Some("is the foo"));
        assert_eq!(description(&comments, "fo"), None);
    }

    #[test]
    fn other_comments_are_found_unless_something_stands_between() {
        let good = "# foo is it\nARG foo=1\n# base is it\nFROM scratch AS base\n# b is one\nARG a=1 b=2\n#\nARG c\n\
                    # anything\nCOPY a b\n# check=skip=all\nARG d\n# hadolint ignore=DL3006\nFROM x AS y\n# unnamed\nFROM z\n";
        assert_eq!(lines(good), [0usize; 0]);
        let bad = "# bar is it\nARG foo=1\n# BasE is it\nFROM scratch AS base\n# bad\n# note\nARG a b=2\n";
        assert_eq!(lines(bad), [2, 4, 7]);
    }
}
