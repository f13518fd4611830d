//! An event as filters look at it.

use std::fmt;
use std::sync::OnceLock;

use ::cel::common::value::Val;
use tidegate_schemas::{Data, Event};

use crate::cel::data;

/// An event with what its filters have worked out of it, so that it is worked out once for all subscriptions.
///
/// Making one costs nothing. The payload is parsed when the first filter asks for it, and never where none does.
pub struct EventView<'e> {
    event: &'e Event,
    data: OnceLock<Result<Option<Box<dyn Val + 'e>>, String>>,
}

impl<'e> EventView<'e> {
    /// A view of an event.
    pub fn new(event: &'e Event) -> Self {
        Self { event, data: OnceLock::new() }
    }

    /// The event.
    pub fn event(&self) -> &'e Event {
        self.event
    }

    /// Whether the payload has been parsed.
    pub fn is_parsed(&self) -> bool {
        self.data.get().is_some()
    }

    /// The payload as a value of CEL; nothing where the event has none, and the reason where it cannot be read.
    pub(crate) fn data(&self) -> Result<Option<&(dyn Val + 'e)>, &str> {
        let parsed = self.data.get_or_init(|| match self.event.data() {
            Data::None => Ok(None),
            payload => data::value_of(payload).map(Some),
        });
        match parsed {
            Ok(value) => Ok(value.as_deref()),
            Err(reason) => Err(reason),
        }
    }
}

impl<'e> From<&'e Event> for EventView<'e> {
    fn from(event: &'e Event) -> Self {
        Self::new(event)
    }
}

impl fmt::Debug for EventView<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = self.is_parsed();
        formatter.debug_struct("EventView").field("event", &self.event).field("parsed", &parsed).finish()
    }
}
