//! Records as the broker carries them: an event in the AMQP binding of CloudEvents, a frame as a bare body.
//!
//! A stream does not tell when it took a record, so each carries the time at which its gateway appended it, in milliseconds
//! since 1970, as the property [`APPENDED_AT`].

use bytes::Bytes;
use bytestring::ByteString;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString};
use tidegate_backbone::budget::{Account, Budget, Permit};
use tidegate_backbone::{Error, ErrorKind, LogId, Position, Record, Result, Stored};
use tidegate_schemas::ReadError;
use tidegate_schemas::amqp::{self, Property};
use tidegate_schemas::foreign::{Foreign, wrap};
use tidegate_schemas::limits::{self, Limits};

/// The property that carries the time of a record.
pub(crate) const APPENDED_AT: &str = "tidegate-appended-at";
/// A message that survives a restart of the broker, for queues that ask; streams always keep theirs.
const PERSISTENT: u8 = 2;

/// A record on its way.
pub(crate) struct Encoded {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
    /// What it takes, about.
    pub(crate) bytes: usize,
    /// Counts it until it is confirmed.
    pub(crate) permit: Permit,
}

/// A record as the broker carries it; an error where it is too large, or an event for which there is no memory. Frames are
/// few, and everything waits for them, so they are always taken.
pub(crate) fn encode(record: Record, unix_milliseconds: u64, memory: &Budget) -> Result<Encoded> {
    let limit_bytes = limits::RABBITMQ_RECORD_BYTES;
    let fits = |bytes: usize| {
        if bytes <= limit_bytes {
            return Ok(());
        }
        let context = format!("the record takes {bytes} bytes on RabbitMQ, and at most {limit_bytes} fit");
        Err(Error::new(ErrorKind::TooLarge { limit_bytes }, context))
    };
    let mut headers = FieldTable::default();
    let stamp = i64::try_from(unix_milliseconds).unwrap_or(i64::MAX);
    headers.insert(APPENDED_AT.into(), AMQPValue::LongLongInt(stamp));
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    match record {
        Record::Frame(frame) => {
            fits(frame.len())?;
            let bytes = frame.len();
            let permit = memory.take(Account::Appends, bytes);
            Ok(Encoded { properties: properties.with_headers(headers), body: frame, bytes, permit })
        }
        Record::Event(event) => {
            let written = amqp::write(&event);
            let bytes = written.bytes();
            fits(bytes)?;
            let permit = memory.try_take(Account::Appends, bytes).map_err(|exhausted| {
                let full = ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER };
                Error::new(full, "there is no memory for the event").with_source(exhausted)
            })?;
            for (name, value) in &written.properties {
                let value = match value {
                    Property::Text(text) => AMQPValue::LongString(LongString::from(text.as_bytes().to_vec())),
                    Property::Boolean(boolean) => AMQPValue::Boolean(*boolean),
                    Property::Integer(number) => AMQPValue::LongLongInt(*number),
                    // Never written.
                    Property::Time(_) | Property::Binary(_) | Property::Other => AMQPValue::Void,
                };
                headers.insert((&**name).into(), value);
            }
            let mut properties = properties.with_headers(headers);
            if let Some(content_type) = written.content_type {
                properties = properties.with_content_type((&*content_type).into());
            }
            Ok(Encoded { properties, body: written.body, bytes, permit })
        }
    }
}

/// When its gateway appended a record, or where none did, when its publisher says that it was sent.
pub(crate) fn appended_at(properties: &BasicProperties) -> Option<u64> {
    let stamp = properties.headers().as_ref().and_then(|headers| match headers.inner().get(APPENDED_AT) {
        Some(AMQPValue::LongLongInt(stamp)) => u64::try_from(*stamp).ok(),
        _ => None,
    });
    stamp.or_else(|| properties.timestamp().map(|seconds| seconds.saturating_mul(1000)))
}

pub(crate) fn property(value: &AMQPValue) -> Property {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Property::Text(ByteString::from(text)),
        Err(_) => Property::Other,
    };
    match value {
        AMQPValue::Boolean(boolean) => Property::Boolean(*boolean),
        AMQPValue::ShortShortInt(number) => Property::Integer((*number).into()),
        AMQPValue::ShortShortUInt(number) => Property::Integer((*number).into()),
        AMQPValue::ShortInt(number) => Property::Integer((*number).into()),
        AMQPValue::ShortUInt(number) => Property::Integer((*number).into()),
        AMQPValue::LongInt(number) => Property::Integer((*number).into()),
        AMQPValue::LongUInt(number) => Property::Integer((*number).into()),
        AMQPValue::LongLongInt(number) => Property::Integer(*number),
        AMQPValue::ShortString(string) => text(string.as_str().as_bytes()),
        AMQPValue::LongString(string) => text(string.as_bytes()),
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds).map_or(Property::Other, Property::Time),
        AMQPValue::ByteArray(bytes) => Property::Binary(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => Property::Other,
    }
}

/// A record as it was read; what is no event in a topic is wrapped into one that says so.
pub(crate) fn decode(id: &LogId, position: Position, delivery: Delivery, memory: &Budget) -> Stored {
    let Delivery { properties, data, .. } = delivery;
    let stamp = appended_at(&properties).unwrap_or_default();
    let body = memory.take(Account::Reads, data.len()).hold(Bytes::from(data));
    let record = match id {
        LogId::Slot { .. } | LogId::Outcomes { .. } => Record::Frame(body),
        LogId::Topic { topic, partition } => Record::Event(event(topic, *partition, position, &properties, body)),
    };
    Stored { position, appended_at: stamp, record }
}

fn event(
    topic: &str,
    partition: u32,
    position: Position,
    properties: &BasicProperties,
    body: Bytes,
) -> tidegate_schemas::Event {
    let limits = Limits {
        // The record is there: what is too large for a publisher is read all the same.
        event_bytes: usize::MAX,
        event_attributes_bytes: usize::MAX,
        event_attributes: usize::MAX,
        ..Limits::default()
    };
    let content_type = content_type(properties);
    let reason = match carried(properties, body.clone(), &limits) {
        Ok(Some(event)) => return event,
        Ok(None) => "it has neither a property cloudEvents_id nor a content type application/cloudevents".to_owned(),
        Err(error) => error.to_string(),
    };
    wrap(Foreign {
        broker: "rabbitmq",
        topic,
        partition,
        position: position.0,
        key: None,
        content_type,
        body,
        reason: &reason,
    })
}

/// The content type of a message.
pub(crate) fn content_type(properties: &BasicProperties) -> Option<&str> {
    properties.content_type().as_ref().map(|text| text.as_str()).filter(|text| !text.is_empty())
}

/// The event that a message carries, where it means to carry one.
pub(crate) fn carried(
    properties: &BasicProperties,
    body: Bytes,
    limits: &Limits,
) -> std::result::Result<Option<tidegate_schemas::Event>, ReadError> {
    let read: Vec<(&str, Property)> = properties
        .headers()
        .iter()
        .flat_map(|headers| headers.inner())
        .map(|(name, value)| (name.as_str(), property(value)))
        .collect();
    amqp::read(read.iter().map(|(name, value)| (*name, value)), content_type(properties), body, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let memory = Budget::unlimited();
        let most = limits::RABBITMQ_RECORD_BYTES;
        let frame = |bytes: usize| Record::Frame(vec![0; bytes].into());
        let encoded = encode(frame(most), 7, &memory).unwrap();
        assert_eq!(appended_at(&encoded.properties), Some(7));
        let error = encode(frame(most + 1), 7, &memory).err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::TooLarge { limit_bytes: most });
    }
}
