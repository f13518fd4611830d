//! How many of the attempts to a sink may be retries, so that a sick sink gets no storm of them.
//!
//! A retry costs a token. Each first attempt brings a fifth of one ([`RETRY_BUDGET_SHARE`](limits::RETRY_BUDGET_SHARE)),
//! time brings [`RETRY_BUDGET_PER_SECOND`](limits::RETRY_BUDGET_PER_SECOND), and a retry that succeeds gives its token
//! back: a sink that is well again takes a backlog of retries as fast as it can, and one that is not gets little more
//! than what is sent to it for the first time. What is not used is kept for
//! [`RETRY_BUDGET_WINDOW`](limits::RETRY_BUDGET_WINDOW) at most. A retry without a token waits; it is never given up.

use tidegate_schemas::limits;

/// Parts of a token, so that a share of one is a whole number.
const TOKEN: u64 = 1_000;
const CAPACITY: u64 = limits::RETRY_BUDGET_PER_SECOND * limits::RETRY_BUDGET_WINDOW.as_secs() * TOKEN;

/// The retries that one sink may get. Times are milliseconds of one clock, whichever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    tokens: u64,
    at: u64,
}

impl RetryBudget {
    /// A full budget.
    pub fn new(now: u64) -> Self {
        Self { tokens: CAPACITY, at: now }
    }

    /// Lets time bring its tokens; gives whether a retry may go out, or else when.
    pub fn ready_at(&mut self, now: u64) -> Result<(), u64> {
        // Tokens of a thousandth for each token a second and millisecond.
        let passed = now.saturating_sub(self.at);
        self.add(passed.saturating_mul(limits::RETRY_BUDGET_PER_SECOND));
        self.at = now;
        if self.tokens >= TOKEN {
            return Ok(());
        }
        Err(now.saturating_add((TOKEN - self.tokens).div_ceil(limits::RETRY_BUDGET_PER_SECOND)))
    }

    /// A first attempt went out.
    pub fn first(&mut self) {
        self.add(TOKEN * limits::RETRY_BUDGET_SHARE / 100);
    }

    /// A retry went out.
    pub fn retry(&mut self) {
        self.tokens = self.tokens.saturating_sub(TOKEN);
    }

    /// A retry succeeded.
    pub fn succeeded(&mut self) {
        self.add(TOKEN);
    }

    fn add(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens).min(CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends `first` first attempts a second for so many seconds and as many retries as may go; gives the retries.
    fn retries(first: u64, seconds: u64, succeed: bool) -> u64 {
        let (mut budget, mut retries) = (RetryBudget::new(0), 0);
        for millisecond in 0..seconds * 1_000 {
            for _ in 0..first * (millisecond + 1) / 1_000 - first * millisecond / 1_000 {
                budget.first();
            }
            // At most so many fit into a millisecond.
            for _ in 0..5 {
                if budget.ready_at(millisecond).is_err() {
                    break;
                }
                budget.retry();
                retries += 1;
                if succeed {
                    budget.succeeded();
                }
            }
        }
        retries
    }

    #[test]
    fn retries_that_fail_are_a_share_of_the_first_attempts_and_a_few_a_second() {
        let at_once = CAPACITY / TOKEN;
        let per_second = limits::RETRY_BUDGET_PER_SECOND;
        for first in [0, 10, 100, 1_000] {
            let expected = at_once + 60 * (per_second + first * limits::RETRY_BUDGET_SHARE / 100);
            let made = retries(first, 60, false);
            assert!(made.abs_diff(expected) <= expected / 50, "{made} retries beside {first} a second, not {expected}");
        }
        // The control: without a budget it would be five a millisecond, which those that succeed come to.
        assert_eq!(retries(0, 60, true), 60 * 1_000 * 5);
    }

    #[test]
    fn a_retry_without_a_token_is_told_when_it_may_go() {
        let mut budget = RetryBudget::new(0);
        while budget.ready_at(0).is_ok() {
            budget.retry();
        }
        let at = budget.ready_at(0).unwrap_err();
        assert_eq!(at, 1_000 / limits::RETRY_BUDGET_PER_SECOND);
        assert!(budget.ready_at(at - 1).is_err());
        assert!(budget.ready_at(at).is_ok());
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_one_token_takes(steps in proptest::collection::vec((0..4_u8, 0..500_u64), 0..300)) {
            let (mut budget, mut now) = (RetryBudget::new(0), 0);
            for (what, passes) in steps {
                now += passes;
                match what {
                    0 => budget.first(),
                    1 => budget.succeeded(),
                    _ => budget.retry(),
                }
                if let Err(at) = budget.ready_at(now) {
                    prop_assert!(at > now && at <= now + 1_000);
                    prop_assert!(budget.ready_at(at).is_ok());
                    now = at;
                }
            }
        }
    }
}
