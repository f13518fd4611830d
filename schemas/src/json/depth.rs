//! Checks of a JSON text that build nothing.

use serde::de::IgnoredAny;

/// Why bytes are not a JSON text in UTF-8 (RFC 8259), or the text.
pub(crate) fn valid_text(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}"))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("is not a JSON text: {error}"))?;
    Ok(text)
}

/// Why bytes are not a JSON text in UTF-8 that is nested no deeper than allowed.
pub(crate) fn check_text(bytes: &[u8], depth: usize) -> Result<(), String> {
    check_depth(valid_text(bytes)?, depth)
}

/// Why a valid JSON text is nested too deeply; `[]` is one level.
pub(crate) fn check_depth(text: &str, allowed: usize) -> Result<(), String> {
    // Most payloads have fewer brackets than levels allowed, and counting them is much cheaper than reading them.
    let brackets: usize = text.as_bytes().chunks(usize::from(u8::MAX)).map(opening_brackets).sum();
    if brackets <= allowed || depth(text) <= allowed {
        Ok(())
    } else {
        Err(format!("is nested deeper than the {allowed} levels allowed; make it flatter"))
    }
}

/// Counts in one byte, which a chunk cannot overflow, so that the compiler makes it a count of many bytes at a time.
fn opening_brackets(chunk: &[u8]) -> usize {
    usize::from(chunk.iter().fold(0_u8, |count, byte| count.wrapping_add(u8::from(matches!(byte, b'{' | b'[')))))
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut index = 0;
    while let Some(byte) = text.as_bytes().get(index) {
        index += 1;
        match byte {
            b'"' => index += string_bytes(&text[index..]),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The bytes to the end of a string whose opening quote was just read, its closing quote included.
fn string_bytes(text: &str) -> usize {
    let mut from = 0;
    // Searching for one character is what the standard library does many bytes at a time.
    while let Some(length) = text[from..].find('"') {
        let quote = from + length;
        let escapes = text.as_bytes()[from..quote].iter().rev().take_while(|byte| **byte == b'\\').count();
        from = quote + 1;
        if escapes % 2 == 0 {
            return from;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{check_text, depth};

    #[test]
    fn depth_ignores_brackets_in_strings() {
        for (text, expected) in [
            ("1", 0),
            ("[]", 1),
            ("[{},[]]", 2),
            (r#"["[[[\"[[["]"#, 1),
            (r#"{"a\\":[[1],[2]]}"#, 3),
            (r#""[""#, 0),
            (r#"["\\\"[","\\",[]]"#, 2),
            ("[\"\",\"\"]", 1),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn the_limit_is_the_last_that_passes() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(check_text(nested(64).as_bytes(), 64), Ok(()));
        assert!(check_text(nested(65).as_bytes(), 64).is_err());
        assert!(check_text(nested(1_000_000).as_bytes(), 64).is_err());
        assert!(check_text("[]".repeat(2).as_bytes(), 64).is_err());
        assert!(check_text(b"\"\xff\"", 64).is_err());
        assert!(check_text(b"", 64).is_err());
        assert_eq!(check_text(format!("[{}1]", "[],".repeat(100)).as_bytes(), 2), Ok(()));
    }
}
