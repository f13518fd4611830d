//! The JSON event format and the JSON batch format (CloudEvents JSON format 1.0).
//!
//! Reading is one pass: names and values are slices of the document wherever they have no escapes, and the payload is
//! the very bytes between its first and last character, neither parsed nor copied. Blanks around a payload are not part
//! of it. Every fault of an event, and of every event of a batch, is reported at once.
//!
//! Decisions where the specification leaves room: a byte order mark is skipped; a member that stands twice is a fault;
//! an attribute that is `null` is absent, and so is a `data_base64` that is `null`, but `"data": null` is a payload;
//! `data` that is no string under a content type that is not JSON is a fault; a batch is refused as a whole when one
//! event of it is faulty.
//!
//! A batch may also come as newline-delimited JSON, one event a line ([`read_lines`]). No specification of CloudEvents names that
//! form; it means the same as the array.

mod depth;
mod draft;
mod error;
mod lines;
mod read;
mod write;

pub(crate) use depth::{check_depth, check_text, valid_text};
pub use error::{Malformed, ReadBatchError, ReadError};
pub use lines::read_lines;
pub use read::{read, read_batch};
pub use write::{to_bytes, write, write_batch, write_line};

/// The media type of one event.
pub const EVENT_MEDIA_TYPE: &str = "application/cloudevents+json";
/// The media type of a batch of events.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";
/// The media type of events of which each is a line.
pub const LINES_MEDIA_TYPE: &str = "application/x-ndjson";
