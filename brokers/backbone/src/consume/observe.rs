//! What delivery tells of itself while it runs, for metrics and for the log of a development server.

use tidegate_schemas::Event;

use super::dead_letter::Reason;
use super::outcomes::Outcome;
use crate::error::Error;
use crate::log::Position;

/// Told of what happens; must return at once. Every method does nothing unless it is overridden.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// An event was dropped because one of the same source and id came shortly before.
    fn duplicate(&self, topic: &str, partition: u32, position: Position, event: &Event) {
        let _ = (topic, partition, position, event);
    }

    /// An event that was appended at that time (milliseconds since 1970) was matched with the subscriptions that there
    /// are, and is wanted by so many.
    fn routed(&self, partition: (&str, u32), appended_at: u64, event: &Event, subscriptions: usize) {
        let _ = (partition, appended_at, event, subscriptions);
    }

    /// An attempt of a delivery ended, of an event that was stored at that time (milliseconds since 1970).
    fn settled(&self, outcome: &Outcome, appended_at: u64) {
        let _ = (outcome, appended_at);
    }

    /// An event became a dead letter.
    fn dead_letter(&self, subscription: &str, reason: Reason) {
        let _ = (subscription, reason);
    }

    /// Events went by their topic's retention before that subscription had them; on a broker whose positions have gaps
    /// there were fewer.
    fn trimmed(&self, subscription: &str, topic: &str, partition: u32, count: u64) {
        let _ = (subscription, topic, partition, count);
    }

    /// The lease on a slot was found to have run out although nobody else is known to own it: nothing of it goes out until it
    /// is renewed.
    fn lease_expired(&self, slot: u32) {
        let _ = slot;
    }

    /// A partition cannot be routed any more.
    fn partition_failed(&self, topic: &str, partition: u32, error: &Error) {
        let _ = (topic, partition, error);
    }
}

/// An observer that is told nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
