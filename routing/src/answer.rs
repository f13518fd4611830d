//! What a sink's answer means for the delivery.
//!
//! The mapping is total and asks one question: whose fault is it? An event that the sink will never take is
//! dead-lettered. A sink that is overloaded or broken gets the event again. A sink that is wrongly set up (its token,
//! its path, its address) must not empty a backlog into dead letters, so its subscription pauses.
//!
//! | answer | verdict |
//! |---|---|
//! | 200 to 299 | done |
//! | 400, 413, 415, 422, 431, 501, 505 | the event is at fault |
//! | 408, 409, 423, 424, 425, 429, other 5xx, no answer, no status that exists | retry |
//! | 410 | pause |
//! | 3xx, every other 4xx (401, 403, 404, 405 and so on) | retry, then pause |
//! | no connection | waits, counts no attempt |
//!
//! Redirects are never followed. One says that the sink has moved, which is true of all events alike: retrying gives
//! its owner the time to mend it, and the backlog waits. The same holds for 402, 405, 406, 407, 411, 412, 414, 416, 417,
//! 418, 421, 426, 428 and 451: the request that they refuse is the same for each event but for its content. 431 is the
//! exception: what varies in the header block are the event's own attributes. 423 and 424 tell of a state that passes.
//! An interim answer (1xx) is never final; a connection that ends with one gave no answer.

use std::time::Duration;

use tidegate_schemas::limits::RETRY_AFTER_MAX;

use crate::retry::RetryHint;

/// What came back from one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// An HTTP answer.
    Status {
        /// Its status code.
        status: u16,
        /// Its `Retry-After` field, where it has one.
        retry_after: Option<&'a str>,
    },
    /// The request went out, at least in part, and no answer came in time: the sink may have handled it.
    None,
    /// No connection: the name does not resolve, the port refuses, the TLS handshake fails.
    Unreachable,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sink has the event.
    Done,
    /// A repeat cannot help: dead letter at once.
    EventAtFault,
    /// Attempt again by the retry policy; dead letter when it is exhausted.
    Retry(RetryHint),
    /// Attempt again by the retry policy; the subscription pauses by [`PauseState`](crate::PauseState), and the event
    /// stays.
    RetryThenPause(RetryHint),
    /// The subscription pauses now, and the event stays.
    Pause,
    /// The event waits until a probe reaches the sink; no attempt is counted.
    Unreachable,
}

impl Verdict {
    /// Judges an answer. `now` is the wall clock in milliseconds since 1970, which a `Retry-After` date counts from.
    pub fn of(answer: Answer<'_>, now_unix_milliseconds: u64) -> Self {
        let (status, retry_after) = match answer {
            Answer::Status { status, retry_after } => (status, retry_after),
            Answer::None => return Self::Retry(RetryHint::default()),
            Answer::Unreachable => return Self::Unreachable,
        };
        let hint = RetryHint {
            retry_after: retry_after.and_then(|text| parse_retry_after(text, now_unix_milliseconds)),
            throttled: status == 429,
        };
        match status {
            200..=299 => Self::Done,
            400 | 413 | 415 | 422 | 431 | 501 | 505 => Self::EventAtFault,
            410 => Self::Pause,
            408 | 409 | 423 | 424 | 425 | 429 => Self::Retry(hint),
            300..=499 => Self::RetryThenPause(hint),
            // 5xx, and what is no final status at all.
            0..=199 | 500.. => Self::Retry(hint),
        }
    }
}

/// Reads a `Retry-After` field (RFC 9110, 10.2.3): seconds, or a date in any of its three forms. The time from now, at
/// most [`RETRY_AFTER_MAX`]; zero for a date that has passed; nothing where the field cannot be read.
pub fn parse_retry_after(text: &str, now_unix_milliseconds: u64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are still a number of seconds, and a long one.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let at = parse_http_date(text)?;
    let now = i64::try_from(now_unix_milliseconds).ok()?;
    let left = at.saturating_sub(now).max(0);
    Some(Duration::from_millis(left.unsigned_abs()).min(RETRY_AFTER_MAX))
}

/// An HTTP date (RFC 9110, 5.6.7) in milliseconds since 1970.
fn parse_http_date(text: &str) -> Option<i64> {
    // The form of today, that of RFC 850, and that of asctime(); a recipient must read all three.
    ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].into_iter().find_map(|format| {
        let date = jiff::civil::DateTime::strptime(format, text).ok()?;
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(zoned.timestamp().as_millisecond())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_792_567_600_000; // 2026-10-21T07:26:40Z

    fn verdict(status: u16, retry_after: Option<&str>) -> Verdict {
        Verdict::of(Answer::Status { status, retry_after }, NOW)
    }

    #[test]
    fn the_table_of_the_documentation_holds() {
        let retry = Verdict::Retry(RetryHint::default());
        let pause_later = Verdict::RetryThenPause(RetryHint::default());
        let throttled = Verdict::Retry(RetryHint { retry_after: None, throttled: true });
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 226, 299][..], Verdict::Done),
            (&[400, 413, 415, 422, 431, 501, 505], Verdict::EventAtFault),
            (&[408, 409, 423, 424, 425, 500, 502, 503, 504, 507, 599, 100, 101, 103, 0, 600, 999], retry),
            (&[429], throttled),
            (&[410], Verdict::Pause),
            (&[401, 403, 404, 402, 405, 406, 407, 411, 412, 414, 421, 426, 451, 499], pause_later),
            (&[300, 301, 302, 303, 304, 307, 308, 399], pause_later),
        ] {
            for status in statuses {
                assert_eq!(verdict(*status, None), expected, "{status}");
            }
        }
        assert_eq!(Verdict::of(Answer::None, NOW), retry);
        assert_eq!(Verdict::of(Answer::Unreachable, NOW), Verdict::Unreachable);
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("5", Some(5)),
            (" 120 ", Some(120)),
            ("3601", Some(3_600)),
            ("99999999999999999999999999", Some(3_600)),
            ("Wed, 21 Oct 2026 07:28:00 GMT", Some(80)),
            ("Wednesday, 21-Oct-26 07:28:00 GMT", Some(80)),
            ("Wed Oct 21 07:28:00 2026", Some(80)),
            ("Wed, 21 Oct 2026 07:00:00 GMT", Some(0)),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(3_600)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("Wed, 41 Oct 2026 07:28:00 GMT", None),
        ] {
            assert_eq!(parse_retry_after(text, NOW), seconds.map(Duration::from_secs), "{text:?}");
        }
        let hint = RetryHint { retry_after: Some(Duration::from_secs(7)), throttled: false };
        assert_eq!(verdict(503, Some("7")), Verdict::Retry(hint));
        assert_eq!(verdict(404, Some("7")), Verdict::RetryThenPause(hint));
        assert_eq!(verdict(500, Some("whenever")), Verdict::Retry(RetryHint::default()));
    }
}
