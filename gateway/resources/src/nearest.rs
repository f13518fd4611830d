//! What somebody may have meant who wrote a word that does not exist.

/// The candidate that is nearest to a word, if one is near enough to be worth a guess: the same but for letter case, or
/// at most a third of its characters away.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase();
    // A long word is no slip of the fingers, and comparing it is not free.
    if folded.chars().count() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that turn one word into the other (optimal string
/// alignment).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, character) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(character != *other);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if column > 0 && previous == Some(*other) && character == right[column - 1] {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        previous = Some(character);
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn only_near_words_are_guessed() {
        let known = ["topics", "filters", "sink", "delivery", "maxInFlight"];
        for (word, expected) in [
            ("topic", Some("topics")),
            ("fitlers", Some("filters")),
            ("maxinflight", Some("maxInFlight")),
            ("max_in_flight", Some("maxInFlight")),
            ("Sink", Some("sink")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
