//! The WebSocket protocol binding (CloudEvents WebSockets binding 1.0): one event a message, in the format that the
//! handshake agreed on.
//!
//! | subprotocol | format | frames |
//! |---|---|---|
//! | `cloudevents.json` | JSON | text |
//! | `cloudevents.proto` | Protobuf | binary |
//!
//! `cloudevents.avro` is not spoken. There are no batches, and no binary mode.

use bytes::Bytes;

use crate::event::Event;
use crate::format::{Format, ReadError};
use crate::limits::Limits;

/// The kind of frame that a message came in (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// Why a message is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The subprotocol that was agreed on has the other kind of frame. The client does not speak it, so the connection is
    /// to end.
    #[error("messages of {} are {}", subprotocol(*.0), match frame(*.0) { Frame::Text => "text frames", Frame::Binary => "binary frames" })]
    Frame(Format),
    /// It is no event, or an event that breaks a rule.
    #[error(transparent)]
    Event(#[from] ReadError),
}

/// The name of a format in `Sec-WebSocket-Protocol`.
pub fn subprotocol(format: Format) -> &'static str {
    match format {
        Format::Json => "cloudevents.json",
        Format::Protobuf => "cloudevents.proto",
    }
}

/// The kind of frame that a format's messages have.
pub fn frame(format: Format) -> Frame {
    match format {
        Format::Json => Frame::Text,
        Format::Protobuf => Frame::Binary,
    }
}

/// The first format that a client offers, given the values of its `Sec-WebSocket-Protocol` fields, which name what it
/// prefers first (RFC 6455 section 4.1).
pub fn negotiate<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<Format> {
    let mut offers = fields.into_iter().flat_map(|field| field.split(',')).map(str::trim);
    offers.find_map(|offer| Format::ALL.into_iter().find(|format| subprotocol(*format) == offer))
}

/// Reads a message as an event, which shares its bytes.
pub fn read(format: Format, kind: Frame, message: Bytes, limits: &Limits) -> Result<Event, Refusal> {
    if kind != frame(format) {
        return Err(Refusal::Frame(format));
    }
    Ok(format.read(message, limits)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_offer_is_taken() {
        let negotiated = |fields: &[&str]| negotiate(fields.iter().copied()).map(subprotocol);
        assert_eq!(negotiated(&["cloudevents.json"]), Some("cloudevents.json"));
        assert_eq!(negotiated(&["cloudevents.avro, cloudevents.proto ,cloudevents.json"]), Some("cloudevents.proto"));
        assert_eq!(negotiated(&["soap", "cloudevents.json"]), Some("cloudevents.json"));
        for none in [&[][..], &[""], &["cloudevents.avro"], &["CloudEvents.json"], &["cloudevents.json x"]] {
            assert_eq!(negotiated(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_kind_of_frame_is_part_of_the_subprotocol() {
        let event = Event::builder("1", "/s", "t").build().unwrap();
        for format in Format::ALL {
            let (right, wrong) = match frame(format) {
                Frame::Text => (Frame::Text, Frame::Binary),
                Frame::Binary => (Frame::Binary, Frame::Text),
            };
            let message = format.write(&event);
            assert_eq!(read(format, right, message.clone(), &Limits::default()).as_ref(), Ok(&event));
            assert_eq!(read(format, wrong, message, &Limits::default()), Err(Refusal::Frame(format)));
            let nothing = read(format, right, Bytes::new(), &Limits::default());
            assert!(matches!(nothing, Err(Refusal::Event(_))), "{nothing:?}");
        }
    }
}
