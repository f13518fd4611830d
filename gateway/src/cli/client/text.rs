//! Text from elsewhere made fit for a terminal and for a URL.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text without anything that moves a cursor, changes a terminal or turns the direction of writing: such characters
/// are written as escapes.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_unsafe(character) => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
    }
    Cow::Owned(out)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The printable beginning of a text, with an ellipsis where there is more.
pub(super) fn excerpt(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text).into_owned(),
    }
}

/// A path segment or query value, percent-encoded but for the unreserved characters (RFC 3986 section 2.3).
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    out
}

/// A count with its noun.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Bytes in the largest binary unit that they fill.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// The moment of so many milliseconds since 1970, as RFC 3339 in UTC.
pub(super) fn time(unix_milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(unix_milliseconds).ok()?;
    Some(jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::{bytes, excerpt, percent_encoded, printable, time};

    #[test]
    fn terminals_are_safe() {
        assert_eq!(printable("größe {\"a\": 1}"), "größe {\"a\": 1}");
        assert_eq!(printable("a\u{1b}[31m\nb\u{9b}c\u{202e}"), "a\\u{1b}[31m\\nb\\u{9b}c\\u{202e}");
        assert_eq!(excerpt("äöü", 2), "äö…");
        assert_eq!(excerpt("äöü", 3), "äöü");
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(percent_encoded("orders.v1_a-b~"), "orders.v1_a-b~");
        assert_eq!(percent_encoded("a/b ?ä%"), "a%2Fb%20%3F%C3%A4%25");
        assert_eq!(percent_encoded(".."), "..");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(time(0).unwrap(), "1970-01-01T00:00:00Z");
    }
}
