//! The consent of a sink to receive events (CloudEvents HTTP web hooks 1.0.3, section 4), and the pace that it allows.
//!
//! A sender asks with `OPTIONS` and names itself; only the header `WebHook-Allowed-Origin` of the answer is consent, and a
//! status says nothing. `WebHook-Allowed-Rate` bounds the requests per minute, which are spread evenly over it, so that the
//! bound holds for every minute wherever it begins.
//!
//! The text lets the handshake be made when a subscription begins or right before a delivery, and does not say how long
//! it is good for. Here it is made before the first delivery and again after [`HANDSHAKE_AGE`], so that a target that
//! changed hands is asked again.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use tidegate_schemas::limits::HANDSHAKE_AGE;

const MINUTE: Duration = Duration::from_secs(60);

/// How many requests a sink allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Any number.
    Unlimited,
    /// So many a minute.
    PerMinute(NonZeroU32),
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => formatter.write_str("*"),
            Self::PerMinute(rate) => rate.fmt(formatter),
        }
    }
}

/// Reads a rate: `*`, or a whole number above zero (4.2.2). More digits than a number holds are no limit to speak of.
pub fn parse_rate(text: &str) -> Option<Rate> {
    let text = text.trim();
    if text == "*" {
        return Some(Rate::Unlimited);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    NonZeroU32::new(text.parse().unwrap_or(u32::MAX)).map(Rate::PerMinute)
}

/// What an answer to the question says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a> {
    /// `WebHook-Allowed-Origin`, where it is there.
    pub origin: Option<&'a str>,
    /// `WebHook-Allowed-Rate`, where it is there.
    pub rate: Option<&'a str>,
}

/// Why there is no consent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header that consents is missing.
    #[error("the answer has no WebHook-Allowed-Origin")]
    Silent,
    /// It names somebody else.
    #[error("WebHook-Allowed-Origin is {0:?}, which is neither the origin that asked nor *")]
    OtherOrigin(String),
    /// The rate cannot be read.
    #[error("WebHook-Allowed-Rate is {0:?}, which is neither a whole number above zero nor *")]
    Rate(String),
}

/// What of a sink's header a refusal quotes.
const QUOTED_CHARACTERS: usize = 100;

/// Judges the answer to a question of `origin` that asked for `asked` requests per minute. Gives the rate that is granted:
/// without a word about it the one that was asked for.
pub fn judge(origin: &str, asked: Option<NonZeroU32>, allowed: Allowed<'_>) -> Result<Rate, Refusal> {
    let quote = |text: &str| text.chars().take(QUOTED_CHARACTERS).collect();
    let granted = allowed.origin.ok_or(Refusal::Silent)?.trim();
    // Names of the DNS do not differ in case.
    if granted != "*" && !granted.eq_ignore_ascii_case(origin) {
        return Err(Refusal::OtherOrigin(quote(granted)));
    }
    match allowed.rate {
        Some(text) => parse_rate(text).ok_or_else(|| Refusal::Rate(quote(text))),
        None => Ok(asked.map_or(Rate::Unlimited, Rate::PerMinute)),
    }
}

/// Whether a sink has to be asked, and when the next request may go out. Times are monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    granted_at: Option<Duration>,
    interval: Duration,
    next: Duration,
}

impl Handshake {
    /// Whether consent is missing, or so old that it is asked for again.
    pub fn is_due(&self, now: Duration) -> bool {
        self.granted_at.is_none_or(|at| now.saturating_sub(at) >= HANDSHAKE_AGE)
    }

    /// The sink consented.
    pub fn granted(&mut self, rate: Rate, now: Duration) {
        self.granted_at = Some(now);
        self.interval = match rate {
            Rate::Unlimited => Duration::ZERO,
            Rate::PerMinute(rate) => {
                let nanoseconds = MINUTE.as_nanos().div_ceil(u128::from(rate.get()));
                Duration::from_nanos(
                    u64::try_from(nanoseconds).expect("a minute has fewer nanoseconds than 64 bits count"),
                )
            }
        };
        // A lower rate than before holds from the last request on.
        self.next = self.next.min(now + self.interval);
    }

    /// The sink refused: nothing goes out before it was asked again.
    pub fn refused(&mut self) {
        self.granted_at = None;
    }

    /// How long the next request has to wait.
    pub fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// A request goes out.
    pub fn sent(&mut self, now: Duration) {
        self.next = self.next.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn per_minute(rate: u32) -> Rate {
        Rate::PerMinute(NonZeroU32::new(rate).unwrap())
    }

    #[test]
    fn rates_are_whole_numbers_above_zero_or_a_star() {
        for (text, expected) in [
            ("*", Some(Rate::Unlimited)),
            (" 100 ", Some(per_minute(100))),
            ("1", Some(per_minute(1))),
            ("99999999999999999999", Some(per_minute(u32::MAX))),
            ("0", None),
            ("00", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("100, 200", None),
            ("**", None),
            ("", None),
            ("many", None),
        ] {
            assert_eq!(parse_rate(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_the_header_is_consent() {
        let asked = NonZeroU32::new(120);
        let check = |origin, rate, expected| {
            assert_eq!(judge("e.example.com", asked, Allowed { origin, rate }), expected, "{origin:?} {rate:?}");
        };
        check(Some("E.Example.com"), Some("7"), Ok(per_minute(7)));
        check(Some("*"), None, Ok(per_minute(120)));
        check(None, Some("7"), Err(Refusal::Silent));
        check(Some(""), Some("7"), Err(Refusal::OtherOrigin(String::new())));
        check(Some("example.com"), None, Err(Refusal::OtherOrigin("example.com".to_owned())));
        check(Some("*"), Some("0"), Err(Refusal::Rate("0".to_owned())));
        assert_eq!(judge("e", None, Allowed { origin: Some("*"), rate: None }), Ok(Rate::Unlimited));
        let long = "x".repeat(10_000);
        let refusal = judge("e", None, Allowed { origin: Some(&long), rate: None }).unwrap_err();
        assert!(refusal.to_string().len() < 250, "{refusal}");
    }

    #[test]
    fn consent_is_asked_for_again_after_its_age_and_after_a_refusal() {
        let mut handshake = Handshake::default();
        let start = Duration::from_secs(5);
        assert!(handshake.is_due(start));
        handshake.granted(Rate::Unlimited, start);
        assert!(!handshake.is_due(start + HANDSHAKE_AGE - Duration::from_nanos(1)));
        assert!(handshake.is_due(start + HANDSHAKE_AGE));
        handshake.refused();
        assert!(handshake.is_due(start));
        assert_eq!(handshake.wait(start), Duration::ZERO);
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let mut handshake = Handshake::default();
        let now = Duration::from_secs(100);
        handshake.granted(per_minute(1), now);
        handshake.sent(now);
        assert_eq!(handshake.wait(now), Duration::from_secs(60));
        handshake.granted(per_minute(60), now);
        assert_eq!(handshake.wait(now), Duration::from_secs(1));
        handshake.granted(Rate::Unlimited, now);
        assert_eq!(handshake.wait(now), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_its_rate(rate in 1_u32..400, pauses in proptest::collection::vec(0_u64..3_000, 1..600)) {
            let mut handshake = Handshake::default();
            let mut now = Duration::from_secs(7);
            handshake.granted(per_minute(rate), now);
            let mut sent: Vec<Duration> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                now += handshake.wait(now);
                handshake.sent(now);
                sent.push(now);
            }
            for (index, first) in sent.iter().enumerate() {
                let within = sent[index..].iter().take_while(|at| **at < *first + MINUTE).count();
                prop_assert!(within <= rate as usize, "{within} in a minute of {rate}");
            }
            // And the pace is used: two that had no pause between them are one interval apart, no more.
            let interval = Duration::from_nanos(60_000_000_000_u64.div_ceil(u64::from(rate)));
            prop_assert!(handshake.wait(now) == interval);
        }
    }
}
