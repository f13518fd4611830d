//! Records as messages, and back.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use tidegate_backbone::budget::{Account, Budget};
use tidegate_backbone::{Error, ErrorKind, Position, Record, Result, Stored};
use tidegate_schemas::foreign::{self, Foreign};
use tidegate_schemas::limits::{self, Limits};
use tidegate_schemas::nats;

use crate::api::position;
use crate::target::Target;

/// A record ready to be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) body: Bytes,
    /// What it takes, headers included.
    pub(crate) bytes: usize,
}

/// The message of a record; an error where it is too large, or an event for which there is no memory. Frames are few, and
/// everything waits for them, so they are always taken.
pub(crate) fn encode(record: &Record, record_bytes_max: usize, memory: &Budget) -> Result<Encoded> {
    let too_large = |bytes: usize, limit_bytes: usize, what: &str| {
        Err(Error::new(
            ErrorKind::TooLarge { limit_bytes },
            format!(
                "the record takes {bytes} bytes{what}, and {limit_bytes} fit; NATS carries what its max_payload says"
            ),
        ))
    };
    match record {
        Record::Frame(frame) => {
            if frame.len() > record_bytes_max {
                return too_large(frame.len(), record_bytes_max, "");
            }
            let body = memory.take(Account::Appends, frame.len()).hold(frame.clone());
            Ok(Encoded { headers: None, bytes: frame.len(), body })
        }
        Record::Event(event) => {
            let written = nats::write(event);
            // As they are written: a first line, each with a colon, a blank and the end of its line, and an empty line.
            let headers_bytes =
                14 + written.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
            if headers_bytes > limits::NATS_HEADERS_BYTES {
                return too_large(headers_bytes, limits::NATS_HEADERS_BYTES, " of headers");
            }
            if written.body.len() > record_bytes_max {
                return too_large(written.body.len(), record_bytes_max, "");
            }
            let bytes = headers_bytes + written.body.len();
            let permit = memory.try_take(Account::Appends, bytes).map_err(|exhausted| {
                let full = ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER };
                Error::new(full, "there is no memory for the event").with_source(exhausted)
            })?;
            let mut headers = HeaderMap::new();
            for (name, value) in &written.headers {
                headers.insert(&**name, &**value);
            }
            Ok(Encoded { headers: Some(headers), body: permit.hold(written.body), bytes })
        }
    }
}

/// Where a message stands, as the server wrote it into the subject for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    /// Its number among those that this reader was sent.
    pub(crate) delivered: u64,
    pub(crate) unix_milliseconds: u64,
}

impl Place {
    /// Reads `$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.TRIES.SEQUENCE.DELIVERED.TIME.PENDING[.…]`.
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        // Newer servers may put domain and account before the stream.
        let numbers = if tokens.len() == 7 { tokens.get(3..6)? } else { tokens.get(5..8)? };
        let number = |text: &str| text.parse::<u64>().ok();
        Some(Self {
            position: position(number(numbers[0])?),
            delivered: number(numbers[1])?,
            unix_milliseconds: number(numbers[2])? / 1_000_000,
        })
    }
}

/// The record of a message of that log.
pub(crate) fn decode(target: &Target, place: Place, message: Message) -> Stored {
    let Place { position, unix_milliseconds: appended_at, .. } = place;
    let Some((topic, partition)) = target.partition() else {
        return Stored { position, appended_at, record: Record::Frame(message.payload) };
    };
    let headers = message.headers.unwrap_or_default();
    let fields =
        headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())));
    // It is there, however large it is.
    let limits = Limits { event_bytes: usize::MAX, event_attributes_bytes: usize::MAX, ..Limits::default() };
    let reason = match nats::read(fields.clone(), message.payload.clone(), &limits) {
        Ok(Some(event)) => return Stored { position, appended_at, record: Record::Event(event) },
        Ok(None) => "it has neither headers of a CloudEvent nor its content type".to_owned(),
        Err(error) => error.to_string(),
    };
    let content_type = fields.clone().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let event = foreign::wrap(Foreign {
        broker: "nats",
        topic,
        partition,
        position: position.0,
        key: None,
        content_type: content_type.map(|(_, value)| value),
        body: message.payload,
        reason: &reason,
    });
    Stored { position, appended_at, record: Record::Event(event) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_old_and_new_servers() {
        let place = Place { position: Position(3), delivered: 9, unix_milliseconds: 1_795_657_055_536 };
        for reply in [
            "$JS.ACK.t.5lMBsItK.1.4.9.1795657055536452828.1",
            "$JS.ACK.hub.ACCHASH.t.5lMBsItK.1.4.9.1795657055536452828.1",
            "$JS.ACK._.ACCHASH.t.5lMBsItK.1.4.9.1795657055536452828.1.token",
        ] {
            assert_eq!(Place::parse(reply), Some(place), "{reply}");
        }
        for bad in ["", "_INBOX.x", "$JS.ACK.t.c.1.x.9.1.1", "$JS.ACK.t"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let memory = Budget::unlimited();
        let frame = |bytes: usize| Record::Frame(vec![0; bytes].into());
        assert!(encode(&frame(100), 100, &memory).is_ok());
        let error = encode(&frame(101), 100, &memory).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::TooLarge { limit_bytes: 100 });
    }
}
