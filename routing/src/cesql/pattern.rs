//! The patterns of `LIKE` (CESQL 3.4.3), compiled to pieces that are looked for one after the other.
//!
//! Between two `%` the first place where a piece fits is as good as any other, so nothing is ever tried again. A piece
//! without `_` is found by the search of the standard library, in linear time; one with `_` by simulating all its
//! beginnings at once, a bit for each character of the piece. So a match takes steps in proportion to the text, times
//! the words of 64 bits that the longest piece needs.

/// A compiled pattern.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    /// The pieces between the `%`: the first begins the text, the last ends it. One piece alone is the whole text.
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Piece {
    Literal(Box<str>),
    Wild(Wild),
}

/// A piece with `_` in it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Wild {
    /// Nothing where any character will do.
    characters: Vec<Option<char>>,
    /// What finds the piece in the middle of a text; nothing where it stands at an end.
    search: Option<Search>,
}

/// For each character of a text, in which places of a piece it may stand: a bit each.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Search {
    /// The places of `_`, which are those of a character that the piece does not name.
    any: Vec<u64>,
    /// In ascending order.
    named: Vec<(char, Vec<u64>)>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut characters = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '%' => pieces.push(Piece::new(std::mem::take(&mut characters))),
                '_' => characters.push(None),
                '\\' => characters.push(Some(rest.next_if(|next| matches!(next, '%' | '_')).unwrap_or('\\'))),
                other => characters.push(Some(other)),
            }
        }
        pieces.push(Piece::new(characters));
        let middle = 1..pieces.len().max(2) - 1;
        pieces[middle].iter_mut().for_each(Piece::prepare_search);
        // Several `%` in a row are one.
        let last = pieces.len() - 1;
        let mut index = 0;
        pieces.retain(|piece| {
            index += 1;
            index == 1 || index == last + 1 || !piece.is_empty()
        });
        Self { pieces }
    }

    /// Whether the text fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.matches_counting(text, &mut 0)
    }

    /// Whether the text fits, adding to `steps` what was looked at: bytes of the text, times words of the state.
    pub(super) fn matches_counting(&self, text: &str, steps: &mut usize) -> bool {
        let [first, middle @ .., last] = &self.pieces[..] else {
            // A single piece, for there always is one.
            return self.pieces.iter().all(|piece| piece.strip_from_start(text, steps) == Some(""));
        };
        let Some(rest) = first.strip_from_start(text, steps) else { return false };
        let Some(mut rest) = last.strip_from_end(rest, steps) else { return false };
        for piece in middle {
            match piece.find_end(rest, steps) {
                Some(end) => rest = &rest[end..],
                None => return false,
            }
        }
        true
    }

    /// The one text that fits, where there is no wildcard.
    pub(super) fn exact(&self) -> Option<&str> {
        match &self.pieces[..] {
            [only] => only.literal(),
            _ => None,
        }
    }

    /// The texts with which everything begins and ends that fits a pattern with `%`, as far as they are known.
    pub(super) fn ends(&self) -> (Option<&str>, Option<&str>) {
        match &self.pieces[..] {
            [first, .., last] => (first.literal(), last.literal()),
            _ => (None, None),
        }
    }

    /// The pattern as text, escapes and all. Several `%` in a row have become one.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let literal = |text: &mut String, character: char| {
            if matches!(character, '%' | '_') {
                text.push('\\');
            }
            text.push(character);
        };
        for (index, piece) in self.pieces.iter().enumerate() {
            if index > 0 {
                text.push('%');
            }
            match piece {
                Piece::Literal(characters) => {
                    characters.chars().for_each(|character| literal(&mut text, character));
                }
                Piece::Wild(wild) => {
                    for character in &wild.characters {
                        match character {
                            Some(character) => literal(&mut text, *character),
                            None => text.push('_'),
                        }
                    }
                }
            }
        }
        text
    }
}

impl Piece {
    fn new(characters: Vec<Option<char>>) -> Self {
        match characters.iter().copied().collect::<Option<String>>() {
            Some(text) => Self::Literal(text.into()),
            None => Self::Wild(Wild { characters, search: None }),
        }
    }

    fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Wild(_) => None,
        }
    }

    fn is_empty(&self) -> bool {
        self.literal().is_some_and(str::is_empty)
    }

    fn prepare_search(&mut self) {
        if let Self::Wild(wild) = self {
            wild.search = Some(Search::new(&wild.characters));
        }
    }

    /// What follows the piece where the text begins with it.
    fn strip_from_start<'t>(&self, text: &'t str, steps: &mut usize) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => {
                *steps += literal.len();
                text.strip_prefix(&**literal)
            }
            Self::Wild(wild) => {
                let mut rest = text.chars();
                for expected in &wild.characters {
                    *steps += 1;
                    let found = rest.next()?;
                    if expected.is_some_and(|expected| expected != found) {
                        return None;
                    }
                }
                Some(rest.as_str())
            }
        }
    }

    /// What stands before the piece where the text ends with it.
    fn strip_from_end<'t>(&self, text: &'t str, steps: &mut usize) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => {
                *steps += literal.len();
                text.strip_suffix(&**literal)
            }
            Self::Wild(wild) => {
                let mut rest = text.chars();
                for expected in wild.characters.iter().rev() {
                    *steps += 1;
                    let found = rest.next_back()?;
                    if expected.is_some_and(|expected| expected != found) {
                        return None;
                    }
                }
                Some(rest.as_str())
            }
        }
    }

    /// Where the first place ends in which the piece stands.
    fn find_end(&self, text: &str, steps: &mut usize) -> Option<usize> {
        match self {
            Self::Literal(literal) => {
                let end = text.find(&**literal).map(|start| start + literal.len());
                *steps += end.unwrap_or(text.len());
                end
            }
            Self::Wild(wild) => wild.search.as_ref()?.find_end(wild.characters.len(), text, steps),
        }
    }
}

impl Search {
    fn new(characters: &[Option<char>]) -> Self {
        let words = characters.len().div_ceil(64);
        let mut any = vec![0; words];
        for (place, _) in characters.iter().enumerate().filter(|(_, character)| character.is_none()) {
            any[place / 64] |= 1_u64 << (place % 64);
        }
        let mut names: Vec<char> = characters.iter().copied().flatten().collect();
        names.sort_unstable();
        names.dedup();
        let mut named: Vec<_> = names.into_iter().map(|name| (name, any.clone())).collect();
        for (place, character) in characters.iter().enumerate() {
            let Some(character) = character else { continue };
            if let Ok(index) = named.binary_search_by_key(character, |(name, _)| *name) {
                named[index].1[place / 64] |= 1_u64 << (place % 64);
            }
        }
        Self { any, named }
    }

    /// `length` is that of the piece in characters.
    fn find_end(&self, length: usize, text: &str, steps: &mut usize) -> Option<usize> {
        let (mut one, mut many);
        // A bit for each place of the piece up to which the text before has just fitted.
        let state: &mut [u64] = if self.any.len() == 1 {
            one = [0];
            &mut one
        } else {
            many = vec![0; self.any.len()];
            &mut many
        };
        let last = (length - 1) / 64;
        let complete = 1_u64 << ((length - 1) % 64);
        for (start, character) in text.char_indices() {
            let found = self.named.binary_search_by_key(&character, |(name, _)| *name);
            let places = found.map_or(&self.any, |index| &self.named[index].1);
            // The piece may begin at every character.
            let mut carry = 1;
            for (word, places) in state.iter_mut().zip(places) {
                let next = *word >> 63;
                *word = ((*word << 1) | carry) & places;
                carry = next;
            }
            *steps += state.len();
            if state[last] & complete != 0 {
                return Some(start + character.len_utf8());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of `LIKE`, tried in every way; for short texts only.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['%', rest @ ..], text) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            (['\\', escaped @ ('%' | '_'), rest @ ..], [first, text @ ..]) => escaped == first && naive(rest, text),
            (['_', rest @ ..], [_, text @ ..]) => naive(rest, text),
            (['\\', '%' | '_', ..], []) => false,
            ([expected, rest @ ..], [first, text @ ..]) => expected == first && naive(rest, text),
            (_, []) => false,
        }
    }

    #[test]
    fn wide_pieces_take_more_than_one_word() {
        for length in [63, 64, 65, 128, 200] {
            let piece = format!("{}_{}", "a".repeat(length / 2), "b".repeat(length - length / 2 - 1));
            let text = format!("xx{}{}zz", "a".repeat(5), piece.replace('_', "ü"));
            assert!(Pattern::new(&format!("%{piece}%")).matches(&text), "{length}");
            assert!(!Pattern::new(&format!("%{piece}b%")).matches(&text), "{length}");
        }
    }

    #[test]
    fn the_steps_of_hostile_patterns_are_bounded() {
        let text = "a".repeat(16 * 1024);
        let check = |pattern: &str, most: usize| {
            let mut steps = 0;
            let fits = Pattern::new(pattern).matches_counting(&text, &mut steps);
            assert_eq!(fits, !pattern.contains('b'), "{pattern:.20}");
            assert!(steps <= most, "{steps} steps for {pattern:.20}");
            assert!(steps > 0);
        };
        check(&"%a".repeat(4_000), 4 * text.len());
        check(&format!("{}b%", "%a".repeat(4_000)), 4 * text.len());
        check(&format!("{}b%", "%a_".repeat(4_000)), 4 * text.len());
        check(&format!("%{}_b%", "a".repeat(8_000)), text.len() * 8_064 / 64);
        check(&format!("{}b", "%".repeat(8_000)), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn like_is_what_its_definition_says(pattern in "[ab%_\\\\é]{0,8}", text in "[ab%_\\\\é]{0,10}") {
            let compiled = Pattern::new(&pattern);
            let (characters, letters): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(compiled.matches(&text), naive(&characters, &letters), "{:?}", compiled);
            prop_assert_eq!(Pattern::new(&compiled.to_text()), compiled);
        }
    }
}
