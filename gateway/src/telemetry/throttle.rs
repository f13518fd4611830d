use std::time::Duration;

use parking_lot::Mutex;

/// Lets one log line of a kind pass in an interval and counts the others, so that an error that repeats ten thousand times
/// a second is still one line.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    passed_at: Option<Duration>,
    suppressed: u64,
}

impl Throttle {
    /// A throttle that lets one line pass in each `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Whether a line may be written at `now` (`Clock::since_boot`): if so, how many were held back since the last one.
    pub fn pass(&self, now: Duration) -> Option<u64> {
        let mut state = self.state.lock();
        if state.passed_at.is_some_and(|passed_at| now.saturating_sub(passed_at) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.passed_at = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_an_interval_and_the_count_of_the_others() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let passed: Vec<_> = [100, 101, 109, 110, 111, 130].map(|now| throttle.pass(Duration::from_secs(now))).into();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
