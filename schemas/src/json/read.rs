use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::draft::Draft;
use super::{Malformed, ReadBatchError, ReadError};
use crate::batch::{BatchFaults, Collector, Problem};
use crate::event::{Event, Faults};
use crate::limits::{Limits, TooLarge};

/// Reads a document that holds one event (`application/cloudevents+json`). The event shares the document's buffer.
pub fn read(document: Bytes, limits: &Limits) -> Result<Event, ReadError> {
    let document = text_of(document)?;
    let mut deserializer = serde_json::Deserializer::from_str(&document);
    let mut stop = None;
    let outcome = EventSeed { document: &document, limits, stop: &mut stop }
        .deserialize(&mut deserializer)
        .and_then(|outcome| deserializer.end().map(|()| outcome));
    match (outcome, stop) {
        (_, Some(too_large)) => Err(too_large.into()),
        (Ok(Ok(event)), None) => Ok(event),
        (Ok(Err(Problem::Invalid(faults))), None) => Err(faults.into()),
        (Ok(Err(Problem::TooLarge(too_large))), None) => Err(too_large.into()),
        (Err(error), None) => Err(Malformed::of_json(&error).into()),
    }
}

/// Reads a document that holds a batch of events (`application/cloudevents-batch+json`), which may be empty. It is taken or
/// refused as a whole. The events share the document's buffer.
pub fn read_batch(document: Bytes, limits: &Limits) -> Result<Vec<Event>, ReadBatchError> {
    let document = text_of(document)?;
    let mut deserializer = serde_json::Deserializer::from_str(&document);
    let mut stop = None;
    let outcome = BatchSeed { document: &document, limits, stop: &mut stop }
        .deserialize(&mut deserializer)
        .and_then(|outcome| deserializer.end().map(|()| outcome));
    match (outcome, stop) {
        (_, Some(too_large)) => Err(too_large.into()),
        (Ok(outcome), None) => Ok(outcome?),
        (Err(error), None) => Err(Malformed::of_json(&error).into()),
    }
}

/// The document as text. A byte order mark is skipped, as RFC 8259 section 8.1 allows: real senders write one.
fn text_of(document: Bytes) -> Result<ByteString, Malformed> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let document = match document.starts_with(BYTE_ORDER_MARK) {
        true => document.slice(BYTE_ORDER_MARK.len()..),
        false => document,
    };
    ByteString::try_from(document.clone()).map_err(|error| Malformed::of_utf8(&document[..error.valid_up_to()]))
}

/// Reads one value: an event, or what is wrong with it. Only what is not JSON, or a limit, ends the whole reading.
struct EventSeed<'a, 's> {
    document: &'a ByteString,
    limits: &'a Limits,
    /// Why the reading was ended, where that was not for the JSON.
    stop: &'s mut Option<TooLarge>,
}

impl EventSeed<'_, '_> {
    fn no_object<E>(self) -> Result<Result<Event, Problem>, E> {
        let mut faults = Faults::default();
        faults.push("", "an event must be a JSON object");
        Ok(Err(Problem::Invalid(faults)))
    }
}

impl<'a> DeserializeSeed<'a> for EventSeed<'a, '_> {
    type Value = Result<Event, Problem>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for EventSeed<'a, '_> {
    type Value = Result<Event, Problem>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut draft = Draft::new(self.document, self.limits);
        while let Some(name) = members.next_key_seed(Name)? {
            let value: &'a RawValue = members.next_value()?;
            if let Err(too_large) = draft.member(name, value.get()) {
                *self.stop = Some(too_large);
                return Err(A::Error::custom("a limit is exceeded"));
            }
        }
        Ok(draft.finish())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        self.no_object()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        self.no_object()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        self.no_object()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        self.no_object()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        self.no_object()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        self.no_object()
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        self.no_object()
    }
}

/// Reads the name of a member, which is a slice of the document where it has no escapes.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a member")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

struct BatchSeed<'a, 's> {
    document: &'a ByteString,
    limits: &'a Limits,
    stop: &'s mut Option<TooLarge>,
}

impl<'a> DeserializeSeed<'a> for BatchSeed<'a, '_> {
    type Value = Result<Vec<Event>, BatchFaults>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for BatchSeed<'a, '_> {
    type Value = Result<Vec<Event>, BatchFaults>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a batch, which is a JSON array of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let Self { document, limits, stop } = self;
        let mut collector = Collector::new(limits);
        loop {
            let outcome = match elements.next_element_seed(EventSeed { document, limits, stop: &mut *stop }) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => break,
                Err(error) => {
                    if let Some(too_large) = stop {
                        too_large.index = Some(collector.index());
                    }
                    return Err(error);
                }
            };
            if let Err(too_large) = collector.take(outcome) {
                *stop = Some(too_large);
                return Err(A::Error::custom("a limit is exceeded"));
            }
        }
        Ok(collector.finish())
    }
}
