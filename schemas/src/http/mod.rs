//! The HTTP protocol binding (CloudEvents HTTP binding 1.0), on a header map and a body.
//!
//! The content type decides the mode, in any letter case: `application/cloudevents-batch...` is a batch,
//! `application/cloudevents...` one event in structured mode, anything else binary mode. The event formats are those of
//! [`Format`](crate::Format): JSON and Protobuf.
//!
//! Decisions where the specification leaves room: a malformed `%` escape stands for itself, because widespread senders
//! do not encode at all, but what is decoded must be UTF-8, and raw UTF-8 is taken; a header that stands twice and
//! `ce-datacontenttype` are faults; a request with any `ce-` header is meant as an event and must be a whole one; in
//! structured mode `ce-` headers are ignored. An empty body is no payload.

mod read;
mod write;

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;

use crate::format::is_structured;

pub use crate::format::ReadError;
pub use read::{Message, data_of, read};
pub use write::{Written, write, write_batch, write_batch_as, write_binary, write_structured};

/// How events are laid out in a message (CloudEvents HTTP binding 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, the payload as the body.
    Binary,
    /// One event as the body, in an event format.
    Structured,
    /// Several events as the body, in a batch format.
    Batch,
}

impl Mode {
    /// The mode of a message by its content type (CloudEvents HTTP binding 3). Binary is also what is no event at all.
    pub fn of(headers: &HeaderMap) -> Self {
        const BATCH: &[u8] = b"application/cloudevents-batch";
        let content_type = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes().trim_ascii());
        if !is_structured(content_type) {
            Self::Binary
        } else if content_type.get(..BATCH.len()).is_some_and(|start| start.eq_ignore_ascii_case(BATCH)) {
            Self::Batch
        } else {
            Self::Structured
        }
    }
}
