//! Messages of queues of others, read as events.
//!
//! A message that carries a CloudEvent is that event. Any other is wrapped, so that nothing behind the queue meets anything but
//! events; its bytes are the payload, untouched.
//!
//! | attribute | of a message that is wrapped |
//! |---|---|
//! | `id` | the message's id, where it has one that can be an id; otherwise a fresh one each time that it is read |
//! | `source` | as the reader says |
//! | `type` | as the reader says, or what the message says of its type, or [`TYPE`] |
//! | `time` | the message's timestamp, in whole seconds |
//! | `datacontenttype` | the content type that the message came with, where it is a media type |
//! | `exchange`, `routingkey` | where the message was sent to |
//! | `foreignreason` | why it is no CloudEvent, where it means to be one |
//!
//! | attribute | of every message |
//! |---|---|
//! | `partitionkey` | as the reader says, where the event has none |
//! | `deathreason`, `deathqueue`, `deathcount` | where a queue let go of the message: why, which queue, and how often it did so for that reason. Of several the newest |

use bytes::Bytes;
use bytestring::ByteString;

use crate::event::{Data, Event, EventBuilder, Faults, Timestamp, Value};
use crate::foreign::{REASON, content_type_of, text};
use crate::http::data_of;
use crate::limits::Limits;

/// The type of an event that stands for a message that names none.
pub const TYPE: &str = "dev.tidegate.message";

/// A message of a queue.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The event that it carries, or why what means to be one is none; nothing where it does not mean to be one.
    pub event: Option<Result<Event, String>>,
    /// Its bytes.
    pub body: Bytes,
    /// Its content type.
    pub content_type: Option<ByteString>,
    /// Its id.
    pub id: Option<ByteString>,
    /// What it says of its type.
    pub kind: Option<ByteString>,
    /// When it was made, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// The exchange that it was sent to; empty where it was sent to the queue itself.
    pub exchange: ByteString,
    /// The routing key that it was sent with.
    pub routing_key: ByteString,
    /// Its headers that can be written as text.
    pub headers: Vec<(ByteString, ByteString)>,
    /// How a queue let go of it the last time.
    pub death: Option<Death>,
}

/// That a queue let go of a message and passed it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Why: `rejected`, `expired`, `maxlen`, `delivery_limit`.
    pub reason: ByteString,
    /// Which queue.
    pub queue: ByteString,
    /// How often it did so with this message for that reason.
    pub count: u64,
}

/// What is said of the events of a queue by whoever reads it.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The type of what is wrapped, where it is given one.
    pub kind: Option<&'a str>,
    /// Its source.
    pub source: &'a str,
    /// The key of an event that has none.
    pub key: Option<&'a str>,
}

impl Message {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&ByteString> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The event that it is or becomes. `fresh` gives an id that nothing else has.
    ///
    /// # Errors
    /// It can be none within these limits, for those reasons.
    pub fn into_event(
        self,
        reading: &Reading<'_>,
        fresh: impl FnOnce() -> String,
        limits: &Limits,
    ) -> Result<Event, Faults> {
        let death = self.death.clone();
        let has_key = matches!(&self.event, Some(Ok(event)) if event.partition_key().is_some());
        let mut builder = match self.event {
            Some(Ok(event)) => event.into_builder(),
            _ => self.wrapped(reading, fresh, limits),
        };
        if let Some(key) = reading.key.filter(|key| !has_key && !key.is_empty()) {
            builder = builder.extension("partitionkey", Value::String(text(key)));
        }
        if let Some(Death { reason, queue, count }) = death {
            builder = builder
                .extension("deathreason", Value::String(text(&reason)))
                .extension("deathqueue", Value::String(text(&queue)))
                .extension("deathcount", Value::Integer(i32::try_from(count).unwrap_or(i32::MAX)));
        }
        builder.build_within(limits)
    }

    fn wrapped(self, reading: &Reading<'_>, fresh: impl FnOnce() -> String, limits: &Limits) -> EventBuilder {
        let fits = |id: &ByteString, kind: &ByteString| Event::builder(id.clone(), "/", kind.clone()).build().is_ok();
        let id = self.id.filter(|id| fits(id, &ByteString::from_static(TYPE)));
        let own_kind = self.kind.filter(|kind| fits(&ByteString::from_static("1"), kind));
        let kind = reading.kind.map(ByteString::from).or(own_kind).unwrap_or(ByteString::from_static(TYPE));
        let content_type = self.content_type.as_deref().and_then(content_type_of);
        // The payload is what it is: what is nested too deep for a JSON payload stays bytes.
        let data = data_of(self.body.clone(), content_type, limits).unwrap_or(Data::Binary(self.body));
        let id = id.unwrap_or_else(|| fresh().into());
        let mut builder = Event::builder(id, reading.source, kind)
            .extension("exchange", Value::String(text(&self.exchange)))
            .extension("routingkey", Value::String(text(&self.routing_key)))
            .data(data);
        if let Some(content_type) = content_type {
            builder = builder.data_content_type(content_type);
        }
        let time = self.timestamp.and_then(|seconds| Timestamp::from_unix(i64::try_from(seconds).ok()?, 0));
        if let Some(time) = time {
            builder = builder.timestamp(time);
        }
        if let Some(Err(reason)) = &self.event {
            builder = builder.extension(REASON, Value::String(text(reason)));
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading() -> Reading<'static> {
        Reading { kind: None, source: "//legacy/orders", key: Some("k") }
    }

    fn read(message: Message) -> Event {
        message.into_event(&reading(), || "fresh".to_owned(), &Limits::default()).unwrap()
    }

    fn message() -> Message {
        Message {
            body: Bytes::from_static(b"{\"a\":1}"),
            content_type: Some("application/json".into()),
            id: Some("m-1".into()),
            kind: Some("OrderPlaced".into()),
            timestamp: Some(86_400),
            exchange: "orders".into(),
            routing_key: "order.eu".into(),
            ..Message::default()
        }
    }

    #[test]
    fn what_carries_an_event_is_that_event() {
        let event = Event::builder("7", "/s", "t").extension("tidegatehops", Value::Integer(3)).build().unwrap();
        let carrying = |event: Event| Message { event: Some(Ok(event)), ..message() };
        let keyed = event.clone().into_builder().extension("partitionkey", Value::String("k".into())).build().unwrap();
        assert_eq!(read(carrying(event)), keyed, "nothing of the message but the key that it had none of");
        let own = keyed.clone().into_builder().extension("partitionkey", Value::String("own".into())).build().unwrap();
        assert_eq!(read(carrying(own.clone())), own);
        let death = Some(Death { reason: "rejected".into(), queue: "orders".into(), count: 2 });
        let dead = read(Message { death, ..carrying(keyed) });
        assert_eq!(dead.attribute("deathreason").as_deref(), Some("rejected"));
        assert_eq!(dead.attribute("deathqueue").as_deref(), Some("orders"));
        assert_eq!(dead.extension("deathcount"), Some(&Value::Integer(2)));
    }

    #[test]
    fn any_other_is_wrapped() {
        let event = read(message());
        assert_eq!((&**event.id(), &**event.source(), &**event.kind()), ("m-1", "//legacy/orders", "OrderPlaced"));
        assert_eq!(event.time().map(|time| time.as_str()), Some("1970-01-02T00:00:00Z"));
        assert_eq!(event.data(), &Data::Json(Bytes::from_static(b"{\"a\":1}")));
        for (name, value) in [("exchange", "orders"), ("routingkey", "order.eu"), ("partitionkey", "k")] {
            assert_eq!(event.attribute(name).as_deref(), Some(value));
        }
        assert!(event.extension("deathreason").is_none() && event.extension(REASON).is_none());
        let none = read(Message { id: None, kind: None, timestamp: None, content_type: None, ..message() });
        assert_eq!((&**none.id(), &**none.kind()), ("fresh", TYPE));
        let empty = read(Message { id: Some("".into()), kind: Some("".into()), ..message() });
        assert_eq!((&**empty.id(), &**empty.kind()), ("fresh", TYPE), "what can be no attribute is left out");
        let faulty = read(Message { event: Some(Err("it has no source".to_owned())), ..message() });
        assert_eq!(faulty.attribute(REASON).as_deref(), Some("it has no source"));
        let named = Reading { kind: Some("mine"), ..reading() };
        let event = message().into_event(&named, String::new, &Limits::default()).unwrap();
        assert_eq!(&**event.kind(), "mine");
    }

    #[test]
    fn what_is_larger_than_events_may_be_is_none() {
        let limits = Limits { event_bytes: 1_000, ..Limits::default() };
        let large = Message { body: vec![b'x'; 1_001].into(), ..message() };
        let faults = large.into_event(&reading(), String::new, &limits).unwrap_err().to_string();
        assert!(faults.contains("1000"), "{faults}");
        let event = Event::builder("7", "/s", "t").data(Data::Binary(vec![0; 1_001].into())).build().unwrap();
        assert!(Message { event: Some(Ok(event)), ..message() }.into_event(&reading(), String::new, &limits).is_err());
    }

    proptest! {
        #[test]
        fn every_message_of_an_events_size_becomes_one(
            body in prop::collection::vec(any::<u8>(), 0..200),
            content_type in prop::option::of(".{0,30}"),
            id in prop::option::of(".{0,300}"),
            kind in prop::option::of(".{0,300}"),
            timestamp in any::<Option<u64>>(),
            exchange in ".{0,100}",
            routing_key in ".{0,255}",
            key in ".{0,100}",
            death in prop::option::of((".{0,20}", ".{0,100}", any::<u64>())),
        ) {
            let death = death.map(|(reason, queue, count)| Death { reason: reason.into(), queue: queue.into(), count });
            let message = Message {
                event: None,
                body: body.clone().into(),
                content_type: content_type.map(Into::into),
                id: id.map(Into::into),
                kind: kind.map(Into::into),
                timestamp,
                exchange: exchange.into(),
                routing_key: routing_key.into(),
                headers: Vec::new(),
                death,
            };
            let reading = Reading { key: Some(&key), ..reading() };
            let event = message.into_event(&reading, || "fresh".to_owned(), &Limits::default()).unwrap();
            prop_assert_eq!(event.data().as_bytes(), &body[..]);
        }
    }
}
