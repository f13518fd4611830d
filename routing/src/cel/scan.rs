//! What is known of an expression before it is parsed: how deep its tree can become, and its outermost conjunction.
//!
//! The parser builds its tree by recursion, also for a chain such as `a.b.c` or `1 + 1 + 1`. So the depth is bounded
//! here, on the text, where hostile input costs one pass and no stack.

use std::ops::Range;

use tidegate_schemas::limits::CEL_DEPTH;

/// How deep the tree can be at a place of the text.
#[derive(Clone, Copy, Default)]
struct Depth {
    /// What the brackets and choices around are worth.
    base: usize,
    /// The operators of the chain so far.
    operators: usize,
    /// The fields, elements and calls of the operand so far.
    selections: usize,
}

impl Depth {
    fn total(self) -> usize {
        self.base + self.operators + self.selections
    }

    fn operate(&mut self) {
        self.operators += 1;
        self.selections = 0;
    }

    /// Begins another operand of a list or of a connective, which the parser balances.
    fn restart(&mut self) {
        *self = Self { base: self.base, ..Self::default() };
    }
}

/// The operands of the outermost conjunction, as ranges of the text; the whole text where it is none. Fails with the
/// place in bytes at which the expression becomes too deep.
pub(super) fn conjuncts(text: &str) -> Result<Vec<Range<usize>>, usize> {
    let bytes = text.as_bytes();
    let mut open: Vec<Depth> = Vec::new();
    let mut depth = Depth::default();
    let (mut splits, mut conjunction) = (Vec::new(), true);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        let length = match byte {
            b'\'' | b'"' => quoted(bytes, at),
            b'r' | b'R' | b'b' | b'B' if !is_word_before(bytes, at) => match raw_start(bytes, at) {
                Some((quote, true)) => quote - at + raw_quoted(bytes, quote),
                _ => 1,
            },
            b'/' if next == Some(b'/') => bytes[at..].iter().take_while(|byte| **byte != b'\n').count(),
            b'(' | b'[' | b'{' => {
                open.push(depth);
                depth = Depth { base: depth.total() + 1, ..Depth::default() };
                1
            }
            b')' | b']' | b'}' => {
                depth = open.pop().unwrap_or(depth);
                depth.selections += 1;
                1
            }
            b'&' if next == Some(b'&') => {
                if open.is_empty() {
                    splits.push(at);
                }
                depth.restart();
                2
            }
            b'|' if next == Some(b'|') => {
                conjunction &= !open.is_empty();
                depth.restart();
                2
            }
            b',' => {
                depth.restart();
                1
            }
            b'?' => {
                conjunction &= !open.is_empty();
                // What follows is nested within the choice, also behind its commas and connectives.
                depth = Depth { base: depth.total() + 1, ..Depth::default() };
                1
            }
            b'.' => {
                depth.selections += 1;
                1
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' => {
                depth.operate();
                1
            }
            b'i' if is_in(bytes, at) => {
                depth.operate();
                2
            }
            _ => 1,
        };
        if depth.total() > CEL_DEPTH {
            return Err(at);
        }
        at += length;
    }
    if !conjunction || !open.is_empty() {
        splits.clear();
    }
    let starts = std::iter::once(0).chain(splits.iter().map(|at| at + "&&".len()));
    let ends = splits.iter().copied().chain(std::iter::once(text.len()));
    Ok(starts.zip(ends).map(|(start, end)| trimmed(text, start..end)).collect())
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + part.len() - part.trim_start().len();
    start..start + part.trim().len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn is_in(bytes: &[u8], at: usize) -> bool {
    bytes[at..].starts_with(b"in")
        && !is_word_before(bytes, at)
        && !bytes.get(at + 2).is_some_and(|byte| is_word(*byte))
}

/// Where the quote stands behind a prefix such as `r` or `br`, and whether the text is raw.
fn raw_start(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let prefix = bytes[at..].iter().take_while(|byte| matches!(byte, b'r' | b'R' | b'b' | b'B')).count();
    let raw = bytes[at..at + prefix].iter().any(|byte| matches!(byte, b'r' | b'R'));
    matches!(bytes.get(at + prefix), Some(b'\'' | b'"')).then_some((at + prefix, raw))
}

/// The bytes of a text with escapes that begins with this quote, to the end where it has none.
fn quoted(bytes: &[u8], at: usize) -> usize {
    text_length(bytes, at, true)
}

fn raw_quoted(bytes: &[u8], at: usize) -> usize {
    text_length(bytes, at, false)
}

fn text_length(bytes: &[u8], at: usize, escapes: bool) -> usize {
    let quote = bytes[at];
    let triple = [quote; 3];
    let end: &[u8] = if bytes[at..].starts_with(&triple) { &triple } else { &triple[..1] };
    let mut behind = at + end.len();
    while behind < bytes.len() {
        if bytes[behind..].starts_with(end) {
            return behind + end.len() - at;
        }
        behind += if escapes && bytes[behind] == b'\\' { 2 } else { 1 };
    }
    bytes.len() - at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<&str> {
        conjuncts(text).unwrap().into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn conjunctions_are_divided_where_they_are_outermost() {
        for (text, expected) in [
            ("a", vec!["a"]),
            (" a && b&&c ", vec!["a", "b", "c"]),
            ("a && (b && c || d) && e[f && g]", vec!["a", "(b && c || d)", "e[f && g]"]),
            ("a && b || c", vec!["a && b || c"]),
            ("a ? b && c : d", vec!["a ? b && c : d"]),
            (r#"a == '&& \' &&' && b == "&&" && c"#, vec![r#"a == '&& \' &&'"#, r#"b == "&&""#, "c"]),
            (r"a == r'\' && b", vec![r"a == r'\'", "b"]),
            ("a == '''x' && ''' && b", vec!["a == '''x' && '''", "b"]),
            ("a // && b\n && c", vec!["a // && b", "c"]),
            ("a == 'x && b", vec!["a == 'x && b"]),
            ("(a && b", vec!["(a && b"]),
            ("für && b", vec!["für", "b"]),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_in_every_direction() {
        let depths = |link: &str, count: usize| conjuncts(&format!("a{}", link.repeat(count))).is_ok();
        for link in [".a", "+a", " in a", "[a", "(a", "?a:a", "==a", "{a", "[0]", "(1)", "-a.b"] {
            assert!(depths(link, CEL_DEPTH / 2), "{link}");
            assert!(!depths(link, CEL_DEPTH + 1), "{link}");
        }
        for link in [" && a.b", " || a.b", ", a.b", " && a[0]", "'.......'", "//....\n", "  "] {
            assert!(depths(link, 10 * CEL_DEPTH), "{link}");
        }
    }
}
