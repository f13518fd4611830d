//! What delivery tells of itself while it runs, for metrics and for the log of a development server.

use tidegate_schemas::Event;

use super::outcomes::Outcome;
use crate::error::Error;
use crate::log::Position;

/// Told of what happens; must return at once. Every method does nothing unless it is overridden.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// An event was dropped because one of the same source and id came shortly before.
    fn duplicate(&self, topic: &str, partition: u32, position: Position, event: &Event) {
        let _ = (topic, partition, position, event);
    }

    /// An attempt of a delivery ended.
    fn settled(&self, outcome: &Outcome) {
        let _ = outcome;
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
