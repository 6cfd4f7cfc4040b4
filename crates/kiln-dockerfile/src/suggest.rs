//! Finds what was probably meant.

/// Names further away than this are not what was meant.
const MAX_DISTANCE: usize = 2;

/// A word longer than this is no typing error.
const MAX_LENGTH: usize = 64;

/// The name closest to `word`, when one is close enough and none is the same.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_LENGTH {
        return None;
    }
    let mut best = None;
    let mut limit = MAX_DISTANCE + 1;
    for name in names {
        if name == word {
            return None;
        }
        let is_far = name.len().abs_diff(word.len()) > 4 * MAX_DISTANCE;
        let distance = if is_far { limit } else { strsim::damerau_levenshtein(word, name) };
        // Changing all of a short word makes it anything.
        if distance < limit && distance < word.chars().count() {
            (best, limit) = (Some(name), distance);
        }
    }
    best
}

/// Whether two names differ by one slip of the hand: a letter too many, too few, another, or two swapped.
pub(crate) fn is_slip(one: &str, other: &str) -> bool {
    strsim::damerau_levenshtein(one, other) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_wins_and_far_ones_are_left_alone() {
        let names = ["COPY", "CMD", "RUN", "ENV"];
        for (word, wanted) in
            [("CPOY", Some("COPY")), ("RNU", Some("RUN")), ("COPY", None), ("XYZZY", None), ("E", None)]
        {
            assert_eq!(nearest(word, names), wanted, "{word}");
        }
    }
}
