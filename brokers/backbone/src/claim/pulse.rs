//! Whether the broker answers this process, and takes what owners of slots write. Every slot has an owner that writes a sign of
//! life where it writes nothing else, so that a slot without any is one in which nothing can be written: because its log does not
//! take it, or because no gateway gets that far. That holds on every broker, whatever the reason is: a full disk, a log
//! without a leader, a connection that carries one direction only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_schemas::limits;

use super::seat::{Seat, Shared};

/// A moment since the machine booted, which only grows; its beginning before it is set.
#[derive(Debug, Default)]
pub(super) struct Moment(AtomicU64);

impl Moment {
    pub(super) fn reach(&self, at: Duration) {
        self.0.fetch_max(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// What is known of all slots together.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// From when on it is judged: since then every slot can have an owner.
    began: OnceLock<Duration>,
    /// The last answer to a question of a follower.
    answered: Moment,
}

impl Shared {
    /// Every slot can have an owner from now on, so that one without is a fault.
    pub(super) fn judge_pulse(&self) {
        // It is begun once.
        self.pulse.began.set(self.environment.clock.since_boot()).ok();
    }

    /// The broker has answered a question.
    pub(super) fn answered(&self) {
        self.pulse.answered.reach(self.environment.clock.since_boot());
    }

    /// A frame that was sent then was accepted.
    pub(super) fn written(&self, sent: Duration) {
        self.pulse.answered.reach(sent);
    }

    /// Whether it has not answered for so long that it is to be asked.
    pub(super) fn is_unanswered(&self) -> bool {
        self.environment.clock.since_boot().saturating_sub(self.answered_at()) >= limits::CLAIM_ASK_INTERVAL
    }

    /// When the broker answered last, as far as is known: a frame that is known accepted was answered after it was sent.
    pub(super) fn answered_at(&self) -> Duration {
        let now = self.environment.clock.since_boot();
        // Every slot asks all the time, and most of the time somebody has looked just before.
        if now.saturating_sub(self.pulse.answered.get()) >= limits::CLAIM_ASK_INTERVAL {
            let renewed = self.seats.read().iter().map(|seat| seat.renewed()).max();
            self.written(renewed.unwrap_or_default());
        }
        self.pulse.answered.get()
    }

    /// Since when and what the broker does not answer or take, where that is so for too long.
    pub(super) fn silence(&self) -> Option<String> {
        let began = *self.pulse.began.get()?;
        let now = self.environment.clock.since_boot();
        let silent = now.saturating_sub(self.answered_at().max(began));
        if silent > limits::CLAIM_ANSWER_TIMEOUT {
            return Some(format!(
                "it has answered nothing for {} s that this gateway asked or wrote; look at the network between them, and \
                 whether the broker's disk is full",
                silent.as_secs()
            ));
        }
        let since = |seat: &Seat| now.saturating_sub(seat.pulse.get().max(seat.renewed()).max(began));
        let seats = self.seats.read();
        // One that is damaged is told as that: events can be published all the same.
        let sound = seats.iter().filter(|seat| seat.fault.lock().is_none());
        let still: Vec<(u32, Duration)> = sound
            .map(|seat| (seat.slot, since(seat)))
            .filter(|(_, since)| *since > limits::CLAIM_PULSE_TIMEOUT)
            .collect();
        let (slot, longest) = *still.iter().max_by_key(|(_, since)| *since)?;
        let others = match still.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        Some(format!(
            "nothing was written to slot {slot}{others} for {} s, though owners write all the time; look whether the broker's \
             disk is full, and into its log",
            longest.as_secs()
        ))
    }
}
