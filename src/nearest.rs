//! The nearest valid word to a mistyped one.

/// The candidate that `word` most likely meant, if any is near enough: at most one slip (a letter
/// left out, added, changed, or two swapped) for every three letters, and at least one.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let scored = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let (slips, candidate) = scored.min_by_key(|(slips, _)| *slips)?;
    (slips <= allowed).then_some(candidate)
}

/// Optimal string alignment: Levenshtein's distance with swaps of neighbours.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, letter) in left.to_lowercase().chars().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let at =
                |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let change = at(&last, column) + usize::from(letter != *other);
            let mut best = change.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let swapped = column.checked_sub(1).and_then(|index| right.get(index)) == Some(&letter)
                && previous == Some(*other);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
        previous = Some(letter);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (left, right, slips) in [
            ("", "", 0),
            ("a", "", 1),
            ("hosts", "host", 1),
            ("bakcends", "backends", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(left, right), slips, "{left} {right}");
        }
    }

    #[test]
    fn the_nearest_word_must_be_near() {
        let words = ["hosts", "backends", "expires_at"];
        assert_eq!(nearest("host", words), Some("hosts"));
        assert_eq!(nearest("expire_at", words), Some("expires_at"));
        assert_eq!(nearest("Expires_At", words), Some("expires_at"));
        assert_eq!(nearest("colour", words), None);
    }
}
