//! How often an event has been passed on from topic to topic inside the mesh.
//!
//! A `topic://` sink makes a copy of the event in another topic. Static cycles of such sinks are refused when
//! subscriptions are read; what filters and applications make dynamic is ended by a count in the event itself.

use tidegate_schemas::limits::HOPS;
use tidegate_schemas::{Event, Faults, Value};

/// The extension attribute that carries the count; an event that never passed on has none.
pub const ATTRIBUTE: &str = "tidegatehops";

/// The cause that the dead letter of an event names which made [`HOPS`] hops.
pub const CAUSE: &str = "loop";

/// The hops that an event has made. A count that is not a number, or negative, was not written by a gateway and
/// counts as the limit, so that nobody escapes it by a forged value.
pub fn hops_of(event: &Event) -> u32 {
    match event.extension(ATTRIBUTE) {
        None => 0,
        Some(value) => value.canonical().parse().unwrap_or(HOPS),
    }
}

/// Why an event cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// It has made all its hops: dead letter with the cause [`CAUSE`].
    #[error("the event has made {HOPS} hops from topic to topic; look for subscriptions that feed each other")]
    Exhausted,
    /// The event has no room left for the count.
    #[error("the event cannot carry the count of its hops: {0}")]
    Event(#[from] Faults),
}

/// The event as it goes to the next topic, one hop older.
pub fn advance(event: Event) -> Result<Event, HopError> {
    let hops = hops_of(&event);
    if hops >= HOPS {
        return Err(HopError::Exhausted);
    }
    let next = i32::try_from(hops + 1).expect("HOPS is far below the range of an Integer attribute");
    Ok(event.into_builder().extension(ATTRIBUTE, Value::Integer(next)).build()?)
}

/// The reply to an event as it goes to a topic, one hop older than the event.
pub fn follow(request: &Event, reply: Event) -> Result<Event, HopError> {
    let before = Value::Integer(i32::try_from(hops_of(request)).unwrap_or(i32::MAX));
    advance(reply.into_builder().extension(ATTRIBUTE, before).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_makes_sixteen_hops_and_no_more() {
        let mut event = Event::builder("1", "/s", "t").build().unwrap();
        for hop in 0..HOPS {
            assert_eq!(hops_of(&event), hop);
            event = advance(event).unwrap();
        }
        assert_eq!(advance(event), Err(HopError::Exhausted));
    }

    #[test]
    fn a_count_survives_transports_without_numbers_and_cannot_be_forged() {
        for (value, hops) in [("3", 3), ("-1", HOPS), ("many", HOPS), ("", HOPS)] {
            let event =
                Event::builder("1", "/s", "t").extension(ATTRIBUTE, Value::String(value.into())).build().unwrap();
            assert_eq!(hops_of(&event), hops, "{value:?}");
        }
    }
}
