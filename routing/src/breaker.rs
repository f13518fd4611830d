//! When deliveries to a sink wait because the sink itself is at fault, not the events.
//!
//! A breaker is **closed** while deliveries go out, and **open** while they wait. It opens
//! - at once, when the sink cannot be reached ([`Cause::Unreachable`]);
//! - after [`BREAKER_FAILURES`](limits::BREAKER_FAILURES) failures in a row of at least
//!   [`BREAKER_KEYS`](limits::BREAKER_KEYS) different keys ([`Cause::Failing`]). Anything that the sink takes or refuses
//!   for good in between begins the count anew, so that a few events which fail each time, however often they are
//!   tried, stop nobody else: a poisoned key is one key.
//!
//! While it is open one delivery at a time goes out as a **probe**: [`SINK_PROBE_INITIAL`](limits::SINK_PROBE_INITIAL)
//! after it opened, then after twice that and so on, and at least every
//! [`SINK_PROBE_INTERVAL`](limits::SINK_PROBE_INTERVAL). One success closes it. Whether a failed probe counts as an
//! attempt is the caller's: it does not where the breaker is open because the sink fails.

use std::time::Duration;

use tidegate_schemas::limits;

/// What an attempt showed of the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered for this event: it took it, or it refused it for a reason that a breaker does not mend.
    Success,
    /// It failed, or gave no answer, in a way that another try may mend.
    Failure {
        /// The key of the event; an event without one is a key of its own.
        key: u128,
    },
    /// There was no connection.
    Unreachable,
}

/// Why a breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The sink cannot be reached.
    Unreachable,
    /// The sink fails whatever it is sent.
    Failing,
}

/// What may go out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Everything.
    All,
    /// One delivery, of which [`Breaker::probe`] is to be told.
    Probe(Cause),
    /// Nothing before that time, or before the probe that is out has come back where there is none.
    Wait(Option<u64>),
}

/// How an open breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Why it is open.
    pub cause: Cause,
    /// When it opened.
    pub since: u64,
    /// When the next probe goes out, or when the one went out that is out now.
    pub probe_at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32, keys: Vec<u128> },
    Open { open: Open, interval: u64, probing: bool },
}

/// The breaker of one sink. Times are milliseconds of one clock, whichever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed { failures: 0, keys: Vec::new() })
    }
}

impl Breaker {
    /// What may go out.
    pub fn permit(&self, now: u64) -> Permit {
        match &self.0 {
            State::Closed { .. } => Permit::All,
            State::Open { probing: true, .. } => Permit::Wait(None),
            State::Open { open, .. } if open.probe_at > now => Permit::Wait(Some(open.probe_at)),
            State::Open { open, .. } => Permit::Probe(open.cause),
        }
    }

    /// A probe went out.
    pub fn probe(&mut self) {
        if let State::Open { probing, .. } = &mut self.0 {
            *probing = true;
        }
    }

    /// A delivery came back of which nothing was heard; the next probe does not wait for it any more.
    pub fn release(&mut self, was_probe: bool) {
        if let State::Open { probing, .. } = &mut self.0
            && was_probe
        {
            *probing = false;
        }
    }

    /// Takes what an attempt showed; `was_probe` tells whether it went out as a probe.
    pub fn record(&mut self, heard: Heard, was_probe: bool, now: u64) {
        match (&mut self.0, heard) {
            (_, Heard::Success) => *self = Self::default(),
            (State::Closed { failures, keys }, Heard::Failure { key }) => {
                *failures = failures.saturating_add(1);
                if keys.len() < limits::BREAKER_KEYS && !keys.contains(&key) {
                    keys.push(key);
                }
                if *failures >= limits::BREAKER_FAILURES && keys.len() >= limits::BREAKER_KEYS {
                    self.open(Cause::Failing, now);
                }
            }
            (State::Closed { .. }, Heard::Unreachable) => self.open(Cause::Unreachable, now),
            // The sink can be reached again, and whether it fails all events is yet to be seen.
            (State::Open { open: Open { cause: Cause::Unreachable, .. }, .. }, Heard::Failure { key }) => {
                self.0 = State::Closed { failures: 1, keys: vec![key] };
            }
            (State::Open { open, interval, probing }, Heard::Failure { .. } | Heard::Unreachable) => {
                if heard == Heard::Unreachable {
                    open.cause = Cause::Unreachable;
                }
                // What was out when it opened says nothing new, and a probe that is out goes on.
                if was_probe {
                    *probing = false;
                    *interval = interval.saturating_mul(2).min(milliseconds(limits::SINK_PROBE_INTERVAL));
                    open.probe_at = now.saturating_add(*interval);
                }
            }
        }
    }

    /// How it stands, where it is open.
    pub fn as_open(&self) -> Option<Open> {
        match &self.0 {
            State::Closed { .. } => None,
            State::Open { open, .. } => Some(*open),
        }
    }

    fn open(&mut self, cause: Cause, now: u64) {
        let interval = milliseconds(limits::SINK_PROBE_INITIAL);
        let open = Open { cause, since: now, probe_at: now.saturating_add(interval) };
        self.0 = State::Open { open, interval, probing: false };
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: u64 = limits::SINK_PROBE_INTERVAL.as_millis() as u64;
    const INITIAL: u64 = limits::SINK_PROBE_INITIAL.as_millis() as u64;

    fn fail(breaker: &mut Breaker, times: u32, keys: u128) {
        for n in 0..times {
            breaker.record(Heard::Failure { key: u128::from(n) % keys }, false, 1_000);
        }
    }

    #[test]
    fn failures_of_many_keys_open_it_and_those_of_few_never_do() {
        let keys = limits::BREAKER_KEYS as u128;
        let mut breaker = Breaker::default();
        fail(&mut breaker, limits::BREAKER_FAILURES - 1, keys);
        assert_eq!(breaker.permit(1_000), Permit::All);
        fail(&mut breaker, 1, keys);
        assert_eq!(breaker.as_open().map(|open| (open.cause, open.since)), Some((Cause::Failing, 1_000)));
        assert_eq!(breaker.permit(1_000), Permit::Wait(Some(1_000 + INITIAL)));
        // The control: the same failures and a thousand times more, of one key too few.
        let mut breaker = Breaker::default();
        fail(&mut breaker, limits::BREAKER_FAILURES * 1_000, keys - 1);
        assert_eq!(breaker.permit(1_000), Permit::All);
    }

    #[test]
    fn one_success_in_between_begins_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            fail(&mut breaker, limits::BREAKER_FAILURES - 1, 1_000);
            breaker.record(Heard::Success, false, 1_000);
        }
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn probes_go_out_one_at_a_time_ever_more_rarely_up_to_the_interval_and_one_success_ends_it() {
        for heard in [Heard::Unreachable, Heard::Failure { key: 1 }] {
            let mut breaker = Breaker::default();
            if heard == Heard::Unreachable {
                breaker.record(heard, false, 0);
            } else {
                breaker.open(Cause::Failing, 0);
            }
            let (mut now, mut waits) = (0, Vec::new());
            for _ in 0..6 {
                let Permit::Wait(Some(at)) = breaker.permit(now) else { panic!("{breaker:?}") };
                waits.push(at - now);
                now = at;
                assert!(matches!(breaker.permit(now), Permit::Probe(_)));
                breaker.probe();
                assert_eq!(breaker.permit(now + INTERVAL * 10), Permit::Wait(None), "one probe at a time");
                // One that was out before comes back late and changes nothing.
                breaker.record(heard, false, now);
                assert_eq!(breaker.permit(now), Permit::Wait(None));
                breaker.record(heard, true, now);
            }
            assert_eq!(waits[..3], [INITIAL, INITIAL * 2, INITIAL * 4]);
            assert_eq!(waits[3..], [INTERVAL; 3]);
            breaker.record(Heard::Success, true, now);
            assert_eq!(breaker.permit(now), Permit::All);
        }
    }

    #[test]
    fn a_probe_that_is_given_back_is_followed_by_another() {
        let mut breaker = Breaker::default();
        breaker.record(Heard::Unreachable, false, 0);
        breaker.probe();
        breaker.release(false);
        assert_eq!(breaker.permit(INITIAL), Permit::Wait(None));
        breaker.release(true);
        assert_eq!(breaker.permit(INITIAL), Permit::Probe(Cause::Unreachable));
    }

    #[test]
    fn a_sink_that_is_back_but_fails_has_to_fail_again_to_open_it() {
        let mut breaker = Breaker::default();
        breaker.record(Heard::Unreachable, false, 0);
        breaker.record(Heard::Failure { key: 1 }, true, 0);
        assert_eq!(breaker.permit(0), Permit::All);
    }

    proptest! {
        #[test]
        fn it_never_waits_for_good_and_never_longer_than_the_interval(
            steps in proptest::collection::vec((0..5_u8, 0..20_u128, 0..4_000_u64), 0..300),
        ) {
            let (mut breaker, mut now, mut probing) = (Breaker::default(), 0, false);
            for (what, key, passes) in steps {
                now += passes;
                match breaker.permit(now) {
                    Permit::All => probing = false,
                    Permit::Probe(_) => {
                        breaker.probe();
                        probing = true;
                    }
                    Permit::Wait(Some(at)) => {
                        prop_assert!(at > now && at <= now + INTERVAL);
                        continue;
                    }
                    Permit::Wait(None) => prop_assert!(probing, "nothing is out and nothing may go"),
                }
                let heard = match what {
                    0 => Heard::Success,
                    1 => Heard::Unreachable,
                    4 => { breaker.release(probing); probing = false; continue }
                    _ => Heard::Failure { key },
                };
                breaker.record(heard, probing, now);
                probing = false;
            }
        }
    }
}
