//! One event on its way to one subscription's sink.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tidegate_routing::breaker::Cause as BreakerCause;
use tidegate_routing::schedule;
use tidegate_schemas::Event;
use tracing::warn;

use super::Shared;
use super::core::{Core, Heard, Outgoing, Take};
use super::dead_letter::{self, Cause, Reason};
use super::outcomes::{Ending, Outcome};
use super::owned::Owned;
use super::progress::{Progress, Taken};
use crate::catalogue::Subscription;
use crate::environment::milliseconds;
use crate::log::{Position, Record};

/// What one attempt came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// How long it took.
    pub took: Duration,
    /// What the sink answered, where it did.
    pub status: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub detail: String,
}

/// An event that is out, at most one of its lane. Dropping it gives it back without counting an attempt.
#[derive(Debug)]
pub struct Delivery {
    shared: Arc<Shared>,
    core: Arc<Core>,
    outgoing: Option<Box<Outgoing>>,
    event: Arc<Event>,
    subscription: Arc<Subscription>,
    began_at: u64,
}

impl Delivery {
    fn new(shared: Arc<Shared>, core: Arc<Core>, outgoing: Box<Outgoing>) -> Self {
        let event = if outgoing.redriven {
            Arc::new(dead_letter::open(&outgoing.taken.event).0)
        } else {
            Arc::clone(&outgoing.taken.event)
        };
        let began_at = shared.environment.clock.unix_milliseconds();
        let subscription = core.subscription();
        Self { shared, core, outgoing: Some(outgoing), event, subscription, began_at }
    }

    /// The event.
    pub fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// The subscription as it is declared now.
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Where the event is: topic, partition and position.
    pub fn place(&self) -> (&ByteString, u32, Position) {
        let outgoing = self.outgoing();
        (outgoing.partition.topic.as_byte_string(), outgoing.partition.number, outgoing.taken.position)
    }

    /// Which attempt this is, from 1. Attempts whose count was lost in a crash are not in it.
    pub fn attempt(&self) -> u32 {
        self.outgoing().taken.attempts + 1
    }

    /// Whether this finds out if a sink that failed whatever it was sent is well again. Then a failure that another try
    /// may mend counts no attempt.
    pub fn is_probe(&self) -> bool {
        self.outgoing().probe == Some(BreakerCause::Failing)
    }

    /// How long ago the first attempt began.
    pub fn age(&self) -> Duration {
        let now = self.shared.environment.clock.unix_milliseconds();
        Duration::from_millis(now.saturating_sub(self.first_attempt_at()))
    }

    /// When the first attempt began, in milliseconds since 1970: now, where this is the first.
    pub fn first_attempt_at(&self) -> u64 {
        self.outgoing().taken.first_attempt_at.unwrap_or(self.began_at)
    }

    /// Whether the partition has another owner by now, or its topic is gone: nothing that is done with it has an effect.
    pub fn is_void(&self) -> bool {
        self.outgoing().owned.is_over()
    }

    fn outgoing(&self) -> &Outgoing {
        self.outgoing.as_ref().expect("only settling takes it out, and settling consumes the delivery")
    }

    /// The sink took the event.
    pub fn done(mut self, attempt: &Attempt) {
        self.tell(attempt, Ending::Done);
        self.settle(Heard::Success, |progress, taken| progress.done(taken.lane, taken.position));
    }

    /// The sink failed: the event is to be tried again after that time; its lane waits for it, and no other does. Where
    /// it was a probe ([`Delivery::is_probe`]) nothing is counted, and it is tried again when it is its turn.
    pub fn retry(self, after: Duration, attempt: &Attempt) {
        self.again(after, attempt, Heard::Failure);
    }

    /// As [`Delivery::retry`], where the sink did not fail but refused the request, whatever the event.
    pub fn refused(self, after: Duration, attempt: &Attempt) {
        self.again(after, attempt, Heard::Refused);
    }

    fn again(mut self, after: Duration, attempt: &Attempt, heard: Heard) {
        let counts = heard != Heard::Failure || !self.is_probe();
        self.tell(attempt, if counts { Ending::Retry } else { Ending::Probe });
        let due = self.began_at.saturating_add(milliseconds(attempt.took)).saturating_add(milliseconds(after));
        let began_at = self.began_at;
        self.settle(heard, |progress, taken| {
            if counts {
                progress.retry(taken.lane, &taken, began_at, due);
            } else {
                // Behind all others, so that the next probe is another event.
                progress.release_last(taken.lane, taken);
            }
        });
    }

    /// The sink could not be reached. That is not the event's failure: no attempt is counted, and nothing more goes out
    /// but probes ([`tidegate_routing::breaker`]) until one comes through.
    pub fn unreachable(mut self, attempt: &Attempt) {
        self.tell(attempt, Ending::Unreachable);
        self.give_back(Heard::Unreachable);
    }

    /// The attempts of the event are used up: its key stands still, the event first, until somebody resumes it
    /// ([`Consume::resume_keys`](super::Consume::resume_keys)). Others go on.
    pub fn pause_key(mut self, attempt: &Attempt) {
        self.tell(attempt, Ending::KeyPaused);
        let (began_at, now) = (self.began_at, self.shared.environment.clock.unix_milliseconds());
        self.settle(Heard::Failure, |progress, taken| progress.pause(taken.lane, &taken, began_at, now));
    }

    /// Whether it was a dead letter that somebody sent again.
    pub fn is_redriven(&self) -> bool {
        self.outgoing().redriven
    }

    /// Since when the event is of no use, in milliseconds since 1970, where its `expirytime` has passed. Whoever
    /// redrives a dead letter wants it all the same.
    pub fn expired_at(&self) -> Option<u64> {
        schedule::expires_at(&self.event).filter(|at| *at <= self.began_at && !self.is_redriven())
    }

    /// The event has expired and was not tried: it goes to the dead-letter topic.
    pub async fn expire(self) {
        let detail = "its expirytime passed before it could be delivered".to_owned();
        self.bury(Reason::Expired, &Attempt { detail, ..Attempt::default() }).await;
    }

    /// The sink answered in a way that pauses the subscription. The event is not at fault: no attempt is counted, and it goes
    /// out again when somebody resumes.
    pub fn pauses(mut self, attempt: &Attempt) {
        self.tell(attempt, Ending::Paused);
        self.give_back(Heard::Nothing);
    }

    /// The event goes to the subscription's dead-letter topic. It is settled only when it is durable there; until then
    /// it is tried again, and given back if the process stops first.
    pub async fn dead_letter(self, reason: Reason, attempt: &Attempt) {
        self.bury(reason, attempt).await;
    }

    async fn bury(mut self, reason: Reason, attempt: &Attempt) {
        let (topic, partition, position) = self.place();
        let tried = reason != Reason::Expired;
        let cause = Cause {
            subscription: self.subscription.spec.name.clone(),
            sink: self.subscription.spec.sink.clone(),
            topic: topic.clone(),
            partition,
            position: position.0,
            reason,
            status: attempt.status,
            detail: attempt.detail.clone(),
            attempts: self.outgoing().taken.attempts + u32::from(tried),
            first_attempt_at: self.first_attempt_at(),
            last_attempt_at: self.shared.environment.clock.unix_milliseconds(),
            edited_from: None,
        };
        let owned = Arc::clone(&self.outgoing().owned);
        if !write_letter(&self.shared, &owned, &self.subscription, &self.event, cause).await {
            return;
        }
        self.shared.observer.dead_letter(&self.subscription.spec.name, reason);
        self.tell(attempt, if tried { Ending::Dead } else { Ending::Expired });
        let heard = match reason {
            Reason::Rejected | Reason::Loop => Heard::Success,
            Reason::Exhausted => Heard::Failure,
            Reason::Expired => Heard::Nothing,
        };
        self.settle(heard, |progress, taken| progress.done(taken.lane, taken.position));
    }

    fn tell(&self, attempt: &Attempt, ending: Ending) {
        let owned = &self.outgoing().owned;
        if owned.is_over() {
            return;
        }
        let (topic, partition, position) = self.place();
        let outcome = Outcome {
            epoch: owned.journal.epoch(),
            at: self.shared.environment.clock.unix_milliseconds(),
            took: milliseconds(attempt.took),
            subscription: self.subscription.spec.name.to_string(),
            uid: Some(self.subscription.uid),
            topic: topic.to_string(),
            partition,
            position: position.0,
            source: self.event.source().to_string(),
            id: self.event.id().to_string(),
            attempt: if ending == Ending::Expired { self.attempt() - 1 } else { self.attempt() },
            ending,
            status: attempt.status,
            detail: attempt.detail.clone(),
        };
        self.shared.observer.settled(&outcome, self.outgoing().taken.appended_at);
        owned.outcomes.push(outcome);
    }

    fn settle(&mut self, heard: Heard, change: impl FnOnce(&mut Progress, Taken)) {
        if let Some(outgoing) = self.outgoing.take() {
            self.core.settle(*outgoing, heard, self.shared.environment.clock.unix_milliseconds(), change);
        }
    }

    fn give_back(&mut self, heard: Heard) {
        self.settle(heard, |progress, taken| progress.release(taken.lane, taken));
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.give_back(Heard::Nothing);
    }
}

/// Writes a dead letter, however long it takes; false where it cannot be made, or the ownership under which it is written
/// ends or the process stops first.
pub(super) async fn write_letter(
    shared: &Arc<Shared>,
    owned: &Owned,
    subscription: &Subscription,
    event: &Arc<Event>,
    cause: Cause,
) -> bool {
    let letter = match dead_letter::letter(event, cause) {
        Ok(letter) => letter,
        Err(faults) => {
            // The event came out of a log that takes only valid ones, so that what remains is a fault of this program.
            tracing::error!(id = %event.id(), %faults, "a dead letter could not be made");
            return false;
        }
    };
    let mut pause = Duration::from_millis(100);
    loop {
        let written = match shared.dead_letter_log(subscription, &letter).await {
            // Asked last, so that the next owner, who may deliver the event, cannot have begun.
            Ok(_) if !owned.holds() => Err(None),
            Ok(id) => {
                shared.log.append(&id, Record::Event(letter.clone())).await.map_err(|error| Some(error.to_string()))
            }
            Err(error) => Err(Some(error.to_string())),
        };
        match written {
            Ok(_) => return true,
            Err(None) => {}
            Err(Some(error)) => {
                warn!(subscription = %subscription.spec.name, topic = %subscription.spec.dead_letter_topic, error,
                    "a dead letter cannot be written; the event stays until it can");
            }
        }
        tokio::select! {
            () = owned.over().cancelled() => return false,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Takes the deliveries of one subscription, one after the other; as many may be out at once as it allows.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    core: Arc<Core>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.core.let_go();
    }
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, core: Arc<Core>) -> Self {
        Self { shared, core }
    }

    /// The subscription as it is declared to whoever delivers it now.
    pub fn subscription(&self) -> Arc<Subscription> {
        self.core.subscription()
    }

    /// The next delivery, waiting for it; none when the subscription has ended or the process stops. May be dropped
    /// while it waits.
    pub async fn next(&self) -> Option<Delivery> {
        let stopping = self.shared.environment.stopping();
        loop {
            if stopping.is_cancelled() {
                return None;
            }
            // Made before the look: a future that exists is woken when the subscription closes, polled or not.
            let ready = self.core.ready.notified();
            let now = self.shared.environment.clock.unix_milliseconds();
            let until = match self.core.take(now) {
                Take::Now(outgoing) => {
                    return Some(Delivery::new(Arc::clone(&self.shared), Arc::clone(&self.core), outgoing));
                }
                Take::Closed => return None,
                Take::Wait(until) => until,
            };
            let pause =
                until.map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.saturating_sub(now).max(1)));
            tokio::select! {
                () = stopping.cancelled() => return None,
                () = ready => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
