//! Times beside each other, in the unit that says most.

/// Milliseconds since 1970 of a time that the API gave.
pub(super) fn moment(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// A span with one digit behind the point where that says something.
pub(super) fn span(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    for (scale, unit) in UNITS {
        if milliseconds >= scale {
            let tenths = milliseconds / (scale / 10);
            return if tenths >= 100 || tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{milliseconds} ms")
}

#[cfg(test)]
mod tests {
    use super::{moment, span};

    #[test]
    fn spans_are_short() {
        for (milliseconds, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (1_250, "1.2 s"),
            (59_999, "59 s"),
            (90_000, "1.5 min"),
            (7_200_000, "2 h"),
            (9 * 86_400_000 + 43_200_000, "9.5 d"),
        ] {
            assert_eq!(span(milliseconds), expected);
        }
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Some(1_500));
        assert_eq!(moment("then"), None);
    }
}
