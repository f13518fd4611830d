//! What the batch forms of every event format share: a batch is taken or refused as a whole, and every fault of every
//! event of it is named at once.

use std::fmt;

use crate::event::{Event, Faults};
use crate::limits::{BATCH_FAULTS, Limit, Limits, TooLarge};

/// Everything that is wrong with the events of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchFaults {
    /// The faulty events, in their order; together they name at most [`crate::limits::BATCH_FAULTS`] faults, unless one
    /// event alone has more.
    pub events: Vec<EventFaults>,
    /// How many more events are faulty.
    pub more_events: usize,
}

/// The faults of one event of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFaults {
    /// The place of the event in the batch, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub faults: Faults,
}

impl fmt::Display for BatchFaults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, EventFaults { index, faults }) in self.events.iter().enumerate() {
            let separator = if place > 0 { "; " } else { "" };
            write!(formatter, "{separator}event {index} of the batch: {faults}")?;
        }
        if self.more_events > 0 {
            write!(formatter, "; and {} more events are faulty", self.more_events)?;
        }
        Ok(())
    }
}

impl std::error::Error for BatchFaults {}

/// Why one event of a batch is none.
#[derive(Debug)]
pub(crate) enum Problem {
    Invalid(Faults),
    TooLarge(TooLarge),
}

impl Problem {
    /// A fault of the event as a whole.
    pub(crate) fn whole(reason: impl Into<String>) -> Self {
        let mut faults = Faults::default();
        faults.push("", reason);
        Self::Invalid(faults)
    }
}

/// Takes the events of a batch one by one, as they are read.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    limits: &'a Limits,
    events: Vec<Event>,
    faults: BatchFaults,
    listed: usize,
    index: usize,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, events: Vec::new(), faults: BatchFaults::default(), listed: 0, index: 0 }
    }

    /// The place of the event that comes next.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Takes an event, or what is wrong with it. An error ends the reading.
    pub(crate) fn take(&mut self, outcome: Result<Event, Problem>) -> Result<(), TooLarge> {
        match outcome {
            Ok(event) => self.events.push(event),
            Err(Problem::Invalid(faults)) if self.listed == 0 || self.listed + faults.0.len() <= BATCH_FAULTS => {
                self.listed += faults.0.len();
                self.faults.events.push(EventFaults { index: self.index, faults });
            }
            Err(Problem::Invalid(_)) => self.faults.more_events += 1,
            Err(Problem::TooLarge(too_large)) => return Err(TooLarge { index: Some(self.index), ..too_large }),
        }
        self.index += 1;
        TooLarge::check(Limit::BatchEvents, self.index, self.limits.batch_events)
    }

    /// The events, or everything that is wrong with them.
    pub(crate) fn finish(self) -> Result<Vec<Event>, BatchFaults> {
        if self.faults.events.is_empty() { Ok(self.events) } else { Err(self.faults) }
    }
}
