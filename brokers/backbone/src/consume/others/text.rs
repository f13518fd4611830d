//! Events in questions and answers: as texts of the JSON event format.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_schemas::Event;
use tidegate_schemas::limits::Limits;

use crate::consume::letters::LetterId;

/// Events that are stored already are read whatever their size.
fn limits() -> Limits {
    Limits {
        event_bytes: usize::MAX,
        event_attributes_bytes: usize::MAX,
        event_attributes: usize::MAX,
        ..Limits::default()
    }
}

fn write(event: &Event) -> String {
    String::from_utf8_lossy(&tidegate_schemas::json::to_bytes(event)).into_owned()
}

fn read<E: serde::de::Error>(text: String) -> Result<Event, E> {
    tidegate_schemas::json::read(Bytes::from(text), &limits()).map_err(E::custom)
}

pub(in crate::consume) mod event {
    use super::*;

    pub(in crate::consume) fn serialize<S: Serializer>(event: &Event, serializer: S) -> Result<S::Ok, S::Error> {
        write(event).serialize(serializer)
    }

    pub(in crate::consume) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Event, D::Error> {
        read(String::deserialize(deserializer)?)
    }
}

pub(in crate::consume) mod maybe_event {
    use super::*;

    pub(in crate::consume) fn serialize<S: Serializer>(
        event: &Option<Event>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        event.as_ref().map(write).serialize(serializer)
    }

    pub(in crate::consume) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Event>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(read).transpose()
    }
}

pub(in crate::consume) mod events {
    use super::*;

    type Events = HashMap<LetterId, Event>;

    pub(in crate::consume) fn serialize<S: Serializer>(events: &Events, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<(LetterId, String)> = events.iter().map(|(id, event)| (*id, write(event))).collect();
        texts.serialize(serializer)
    }

    pub(in crate::consume) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Events, D::Error> {
        let texts = Vec::<(LetterId, String)>::deserialize(deserializer)?;
        texts.into_iter().map(|(id, text)| Ok((id, read::<D::Error>(text)?))).collect::<Result<_, D::Error>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went() {
        #[derive(Serialize, Deserialize)]
        struct One {
            #[serde(with = "event")]
            event: Event,
            #[serde(with = "maybe_event")]
            none: Option<Event>,
        }
        let event = Event::builder("1", "/s", "t").subject("ä\"").build().unwrap();
        let text = serde_json::to_string(&One { event: event.clone(), none: None }).unwrap();
        let read: One = serde_json::from_str(&text).unwrap();
        assert_eq!((read.event, read.none), (event, None));
    }
}
