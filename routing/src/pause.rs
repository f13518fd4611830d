//! When a subscription stops calling a sink that refuses everything.
//!
//! A subscription pauses
//! - at once, when its sink answers 410;
//! - after [`SINK_REFUSAL_TIMEOUT`](tidegate_schemas::limits::SINK_REFUSAL_TIMEOUT) (10 minutes) of nothing but refusals
//!   ([`Verdict::RetryThenPause`]: 401, 403, 404, a redirect and their like);
//! - when the retry policy of one event is exhausted and its last answer was a refusal,
//!
//! whichever comes first. Its events stay where they are, and it goes on from there when it is resumed, with a fresh
//! state. Any other answer, a failure of the network among them, shows that the sink does not only refuse, and begins
//! the count anew.

use std::time::Duration;

use crate::answer::Verdict;

/// The refusals of one subscription's sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseState {
    timeout: Duration,
    refused_since: Option<Duration>,
}

/// Why a subscription pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseCause {
    /// The sink answered 410.
    Gone,
    /// The sink only refused for the whole timeout.
    Refused,
    /// An event used up its attempts, and the sink refused the last of them.
    RefusedUntilExhausted,
}

impl PauseCause {
    /// The stable name that listings and events use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::RefusedUntilExhausted => "refused-until-exhausted",
        }
    }
}

impl PauseState {
    /// A state without refusals that pauses after `timeout` of them.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, refused_since: None }
    }

    /// Takes the verdict of one attempt, in the order in which the answers came.
    ///
    /// `exhausted` tells whether the retry policy gives that event no further attempt; `now` is a monotonic time. Gives
    /// the cause where the subscription is to pause.
    pub fn record(&mut self, verdict: Verdict, exhausted: bool, now: Duration) -> Option<PauseCause> {
        match verdict {
            Verdict::Pause => Some(PauseCause::Gone),
            Verdict::RetryThenPause(_) => {
                let since = *self.refused_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.timeout {
                    Some(PauseCause::Refused)
                } else if exhausted {
                    Some(PauseCause::RefusedUntilExhausted)
                } else {
                    None
                }
            }
            Verdict::Done | Verdict::EventAtFault | Verdict::Retry(_) | Verdict::Unreachable => {
                self.refused_since = None;
                None
            }
        }
    }
}

impl Default for PauseState {
    fn default() -> Self {
        Self::new(tidegate_schemas::limits::SINK_REFUSAL_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::RetryHint;

    const REFUSED: Verdict = Verdict::RetryThenPause(RetryHint { retry_after: None, throttled: false });
    const FAILED: Verdict = Verdict::Retry(RetryHint { retry_after: None, throttled: false });

    /// Feeds (second, verdict, exhausted) and gives the second and cause of the first pause.
    fn check(script: &[(u64, Verdict, bool)]) -> Option<(u64, PauseCause)> {
        let mut state = PauseState::default();
        script.iter().find_map(|(second, verdict, exhausted)| {
            let cause = state.record(*verdict, *exhausted, Duration::from_secs(*second))?;
            Some((*second, cause))
        })
    }

    #[test]
    fn refusals_pause_after_ten_minutes() {
        let script = [(0, REFUSED, false), (599, REFUSED, false), (600, REFUSED, false)];
        assert_eq!(check(&script), Some((600, PauseCause::Refused)));
        assert_eq!(check(&script[..2]), None);
    }

    #[test]
    fn any_other_answer_begins_anew() {
        for other in [Verdict::Done, Verdict::EventAtFault, FAILED, Verdict::Unreachable] {
            let script = [(0, REFUSED, false), (300, other, false), (600, REFUSED, false), (1_199, REFUSED, false)];
            assert_eq!(check(&script), None, "{other:?}");
            assert_eq!(check(&[&script[..], &[(1_200, REFUSED, false)]].concat()), Some((1_200, PauseCause::Refused)));
        }
    }

    #[test]
    fn gone_pauses_at_once_and_exhaustion_only_when_refused() {
        assert_eq!(check(&[(0, Verdict::Pause, false)]), Some((0, PauseCause::Gone)));
        assert_eq!(check(&[(5, REFUSED, true)]), Some((5, PauseCause::RefusedUntilExhausted)));
        assert_eq!(check(&[(5, FAILED, true)]), None);
    }
}
