//! When a delivery that failed is attempted again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;

/// How often, how long and at which pace a delivery is attempted (`delivery.retry`).
///
/// Delays grow exponentially from `initial` to `max` with full jitter: the n-th is drawn evenly from zero to
/// min(`max`, `initial` · 2^(n-1)), so that deliveries which failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first one among them; at least 1.
    pub max_attempts: u32,
    /// How long after the first attempt the last one may begin.
    pub max_age: Duration,
    /// The upper bound of the first delay.
    pub initial: Duration,
    /// The upper bound of every delay that this policy draws. A sink's own `Retry-After` is not bound by it.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: limits::RETRY_ATTEMPTS,
            max_age: limits::RETRY_AGE,
            initial: limits::RETRY_INITIAL,
            max: limits::RETRY_MAX,
        }
    }
}

/// What a sink said about when to come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryHint {
    /// Its `Retry-After`, from the time of its answer, at most [`limits::RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
    /// It answered 429: it is not broken but asks for a slower pace, so the delay is never drawn close to zero.
    pub throttled: bool,
}

/// Whether there is a next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryDecision {
    /// Attempt again after this time.
    After(Duration),
    /// No attempt is left.
    Exhausted(Exhaustion),
}

/// Why no attempt is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exhaustion {
    /// All attempts were made.
    Attempts,
    /// The first attempt is too long ago, or the sink asked to be left alone for longer than the delivery may live.
    Age,
}

impl RetryPolicy {
    /// What follows the attempt numbered `attempt` (the first is 1), which has just failed.
    ///
    /// `random_bits` are 64 fresh random bits; `first_attempt_age` is the time since the first attempt began. The sink's
    /// `Retry-After` wins over the drawn delay; of zero it says nothing. A drawn delay that would pass `max_age` is
    /// shortened to it, so that the last attempt is made as late as is allowed.
    pub fn next_delay(
        &self,
        attempt: u32,
        random_bits: u64,
        hint: RetryHint,
        first_attempt_age: Duration,
    ) -> RetryDecision {
        if attempt >= self.max_attempts {
            return RetryDecision::Exhausted(Exhaustion::Attempts);
        }
        let Some(left) = self.max_age.checked_sub(first_attempt_age).filter(|left| !left.is_zero()) else {
            return RetryDecision::Exhausted(Exhaustion::Age);
        };
        if let Some(asked) = hint.retry_after.filter(|asked| !asked.is_zero()) {
            let asked = asked.min(limits::RETRY_AFTER_MAX);
            return if asked > left { RetryDecision::Exhausted(Exhaustion::Age) } else { RetryDecision::After(asked) };
        }
        let ceiling = self.ceiling(attempt);
        let delay = if hint.throttled {
            let half = ceiling / 2;
            half + scale(ceiling - half, random_bits)
        } else {
            scale(ceiling, random_bits)
        };
        RetryDecision::After(delay.min(left))
    }

    /// The upper bound of the delay behind an attempt.
    fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.initial.checked_mul(factor).map_or(self.max, |delay| delay.min(self.max))
    }
}

/// An even draw from zero to `bound`, both included, of whole nanoseconds.
fn scale(bound: Duration, random_bits: u64) -> Duration {
    let nanoseconds = bound.as_nanos().min(u128::from(u64::MAX - 1));
    let drawn = (u128::from(random_bits) * (nanoseconds + 1)) >> 64;
    Duration::from_nanos(u64::try_from(drawn).expect("a product of two 64-bit numbers, shifted by 64, has 64 bits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 20,
        max_age: Duration::from_secs(86_400),
        initial: Duration::from_secs(1),
        max: Duration::from_secs(3_600),
    };

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        for (attempt, ceiling) in [(1, 1), (2, 2), (3, 4), (11, 1_024), (12, 2_048), (13, 3_600), (19, 3_600)] {
            let decision = POLICY.next_delay(attempt, u64::MAX, RetryHint::default(), Duration::ZERO);
            assert_eq!(decision, RetryDecision::After(seconds(ceiling)), "attempt {attempt}");
            let decision = POLICY.next_delay(attempt, 0, RetryHint::default(), Duration::ZERO);
            assert_eq!(decision, RetryDecision::After(Duration::ZERO), "attempt {attempt}");
        }
        let endless = RetryPolicy { max_attempts: u32::MAX, ..POLICY };
        for attempt in [32, 33, 34, 1_000, u32::MAX - 1] {
            let decision = endless.next_delay(attempt, u64::MAX, RetryHint::default(), Duration::ZERO);
            assert_eq!(decision, RetryDecision::After(seconds(3_600)), "attempt {attempt}");
        }
    }

    #[test]
    fn a_policy_ends_by_attempts_or_by_age() {
        let none = RetryHint::default();
        let attempts = RetryDecision::Exhausted(Exhaustion::Attempts);
        let age = RetryDecision::Exhausted(Exhaustion::Age);
        assert_eq!(POLICY.next_delay(20, 0, none, Duration::ZERO), attempts);
        assert_eq!(POLICY.next_delay(19, 0, none, seconds(86_400)), age);
        // The last attempt is made as late as allowed, not skipped.
        let late = POLICY.next_delay(19, u64::MAX, none, seconds(86_390));
        assert_eq!(late, RetryDecision::After(seconds(10)));
        let asked = RetryHint { retry_after: Some(seconds(11)), throttled: false };
        assert_eq!(POLICY.next_delay(19, 0, asked, seconds(86_390)), age);
    }

    #[test]
    fn the_sinks_word_wins() {
        let hint = |retry_after, throttled| RetryHint { retry_after, throttled };
        let delay = |hint| POLICY.next_delay(2, 0, hint, Duration::ZERO);
        assert_eq!(delay(hint(Some(seconds(120)), true)), RetryDecision::After(seconds(120)));
        assert_eq!(delay(hint(Some(seconds(120)), false)), RetryDecision::After(seconds(120)));
        assert_eq!(delay(hint(Some(seconds(86_000)), false)), RetryDecision::After(limits::RETRY_AFTER_MAX));
        assert_eq!(delay(hint(None, true)), RetryDecision::After(seconds(1)), "half of two seconds at least");
        assert_eq!(delay(hint(Some(Duration::ZERO), true)), RetryDecision::After(seconds(1)), "zero says nothing");
    }

    proptest! {
        #[test]
        fn delays_stay_within_their_bounds(
            attempt in 1_u32..40, bits: u64, throttled: bool, initial in 1_u64..100_000, max in 1_u64..10_000_000, age in 0_u64..200_000_000,
        ) {
            let policy = RetryPolicy {
                max_attempts: 30,
                max_age: Duration::from_millis(100_000_000),
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(max),
            };
            let age = Duration::from_millis(age);
            match policy.next_delay(attempt, bits, RetryHint { retry_after: None, throttled }, age) {
                RetryDecision::After(delay) => {
                    let ceiling = u128::from(max).min(u128::from(initial) << (attempt - 1));
                    prop_assert!(delay.as_nanos() <= ceiling * 1_000_000);
                    prop_assert!(age + delay <= policy.max_age);
                    if throttled && age + delay < policy.max_age {
                        prop_assert!(delay.as_nanos() >= ceiling * 1_000_000 / 2);
                    }
                }
                RetryDecision::Exhausted(Exhaustion::Attempts) => prop_assert!(attempt >= 30),
                RetryDecision::Exhausted(Exhaustion::Age) => prop_assert!(attempt < 30 && age >= policy.max_age),
            }
        }
    }
}
