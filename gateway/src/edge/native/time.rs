//! Times as the API writes and reads them: RFC 3339 outside, milliseconds since 1970 inside.

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn text(unix_milliseconds: u64) -> String {
    let milliseconds = i64::try_from(unix_milliseconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// Milliseconds since 1970 of an RFC 3339 timestamp.
pub(super) fn parse(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_and_read() {
        assert_eq!(super::text(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(super::parse("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123));
        assert_eq!(super::parse("2023-11-14T23:13:20.123+01:00"), Some(1_700_000_000_123));
        assert_eq!(super::parse("yesterday"), None);
    }
}
