//! The Protobuf event format and its batch (CloudEvents Protobuf format 1.0), `io.cloudevents.v1.CloudEvent` and
//! `io.cloudevents.v1.CloudEventBatch`.
//!
//! Reading copies nothing: names, values and the payload are slices of the document. Every fault of an event, and of every
//! event of a batch, is reported at once, under the attribute's CloudEvents name. Unknown fields are left out.
//!
//! How a payload is read and written:
//!
//! | field | read as | written for |
//! |---|---|---|
//! | `binary_data` | [`Data::Binary`](crate::Data::Binary), whatever the content type | the same |
//! | `text_data` | [`Data::Json`](crate::Data::Json) where the content type declares JSON and it is a JSON text, else [`Data::Text`](crate::Data::Text) | both of these |
//! | `proto_data` | the bytes of its `value`, see below | see below |
//!
//! An `Any` in `proto_data` becomes binary data of the content type `application/protobuf`, and its type URL becomes
//! `dataschema`, as section 3 of the format has it. A type URL has no scheme and `dataschema` must have one; `https` is what
//! the definition of `Any` says to assume. So the event can travel in every other format without losing what it is. The
//! way back is taken where nothing is guessed: binary data of `application/protobuf` whose `dataschema` is
//! `https://type.googleapis.com/` and the name of a message is written as `proto_data` again. A type URL of another host
//! comes back as `binary_data` with the same bytes and `dataschema`.
//!
//! Decisions where the specification leaves room:
//!
//! - an attribute that stands twice in the map is a fault, as it is in the JSON format, and so is a value without a kind;
//! - `time` may also be a `ce_string` in the form of RFC 3339, `dataschema` a `ce_string`; anything else of the wrong kind is
//!   a fault, and so is a required attribute in the map;
//! - JSON data without a content type is given `application/json`, because this format implies none;
//! - a timestamp keeps its instant to the nanosecond and not its text. One outside of the years 1 to 9999 (UTC), which
//!   protobuf has no form for, is written as `ce_string`.

mod message;
mod read;
mod write;

pub use read::{ReadBatchError, ReadError, Undecodable, read, read_batch};
pub use write::{to_bytes, write, write_batch};

/// The media type of one event.
pub const EVENT_MEDIA_TYPE: &str = "application/cloudevents+protobuf";
/// The media type of a batch of events.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+protobuf";

/// The content type of data that is a message of protobuf (CloudEvents Protobuf format 1.2).
const DATA_CONTENT_TYPE: &str = "application/protobuf";
/// What a type URL without a scheme is read with.
const TYPE_URL_SCHEME: &str = "https://";
/// The host of the type URLs that protobuf's own libraries write.
const TYPE_URL_PREFIX: &str = "type.googleapis.com/";
