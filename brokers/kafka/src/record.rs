//! Records as the broker carries them: an event in the Kafka binding of CloudEvents, a frame as a bare value.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use bytestring::ByteString;
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use tidegate_backbone::budget::{Account, Budget, Permit};
use tidegate_backbone::{Error, ErrorKind, LogId, Position, Record, Result, Stored};
use tidegate_schemas::foreign::{Foreign, wrap};
use tidegate_schemas::kafka;
use tidegate_schemas::limits::{self, Limits};

/// What the format of a batch puts around each header, and around a record with all its lengths: at most.
const HEADER_BYTES: usize = 10;
const RECORD_BYTES: usize = 128;

/// A record on its way.
pub(crate) struct Encoded {
    pub(crate) headers: Option<OwnedHeaders>,
    pub(crate) key: Option<ByteString>,
    pub(crate) value: Bytes,
    /// What it takes on the broker, at most.
    pub(crate) bytes: usize,
    /// Counts it until it is acknowledged.
    pub(crate) permit: Permit,
}

/// A record as the broker carries it; an error where it is too large, or an event for which there is no memory. Frames are
/// few, and everything waits for them, so they are always taken.
pub(crate) fn encode(record: Record, bytes_max: usize, memory: &Budget) -> Result<Encoded> {
    let too_large = |bytes: usize| {
        let context = format!("the record takes {bytes} bytes on Kafka, and at most {bytes_max} fit");
        Error::new(ErrorKind::TooLarge { limit_bytes: bytes_max }, context)
    };
    match record {
        Record::Frame(frame) => {
            let bytes = frame.len() + RECORD_BYTES;
            if frame.len() > bytes_max {
                return Err(too_large(frame.len()));
            }
            let permit = memory.take(Account::Appends, bytes);
            Ok(Encoded { headers: None, key: None, value: frame, bytes, permit })
        }
        Record::Event(event) => {
            let written = kafka::write(&event);
            let bytes = written.bytes() + written.headers.len() * HEADER_BYTES + RECORD_BYTES;
            if bytes > bytes_max + RECORD_BYTES {
                return Err(too_large(bytes - RECORD_BYTES));
            }
            let permit = memory.try_take(Account::Appends, bytes).map_err(|exhausted| {
                let full = ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER };
                Error::new(full, "there is no memory for the event").with_source(exhausted)
            })?;
            let mut headers = OwnedHeaders::new_with_capacity(written.headers.len());
            for (name, value) in &written.headers {
                headers = headers.insert(Header { key: name, value: Some(&**value) });
            }
            Ok(Encoded { headers: Some(headers), key: written.key, value: written.value, bytes, permit })
        }
    }
}

/// A record as it was read; what is no event in a topic is wrapped into one that says so.
pub(crate) fn decode(id: &LogId, message: &BorrowedMessage<'_>, memory: &Budget) -> Stored {
    let position = Position(u64::try_from(message.offset()).unwrap_or_default());
    let appended_at = match message.timestamp() {
        Timestamp::NotAvailable => 0,
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => u64::try_from(time).unwrap_or_default(),
    };
    // Copied once: the client's buffer is shared by all records of a fetch, and would live as long as any of them.
    let value = message
        .payload()
        .map(|payload| memory.take(Account::Reads, payload.len()).hold(Bytes::copy_from_slice(payload)));
    let record = match id {
        LogId::Slot { .. } | LogId::Outcomes { .. } => Record::Frame(value.unwrap_or_default()),
        LogId::Topic { topic, partition } => Record::Event(event(topic, *partition, position, message, value)),
    };
    Stored { position, appended_at, record }
}

fn event(
    topic: &str,
    partition: u32,
    position: Position,
    message: &BorrowedMessage<'_>,
    value: Option<Bytes>,
) -> tidegate_schemas::Event {
    let limits = Limits {
        // The record is there: what is too large for a publisher is read all the same.
        event_bytes: usize::MAX,
        event_attributes_bytes: usize::MAX,
        event_attributes: usize::MAX,
        ..Limits::default()
    };
    // The client panics at a header whose name is not UTF-8, which anybody may write.
    let headers = catch_unwind(AssertUnwindSafe(|| {
        message.headers().map(|headers| headers.iter().map(|header| (header.key, header.value)).collect::<Vec<_>>())
    }));
    let (headers, reason) = match headers {
        Ok(headers) => (headers.unwrap_or_default(), None),
        Err(_) => (Vec::new(), Some("the name of a header is not UTF-8".to_owned())),
    };
    let reason = match reason {
        Some(reason) => reason,
        None => match kafka::read(headers.iter().copied(), value.clone(), &limits) {
            Ok(Some(event)) => return event,
            Ok(None) => "it has neither a header ce_id nor a content type application/cloudevents".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    wrap(Foreign {
        broker: "kafka",
        topic,
        partition,
        position: position.0,
        key: message.key(),
        content_type: kafka::content_type(headers.iter().copied()),
        body: value.unwrap_or_default(),
        reason: &reason,
    })
}
