//! The event formats that are known, as a value: which media types name them, and how events are read and written in
//! them.

use bytes::Bytes;

use crate::batch::BatchFaults;
use crate::draft::DUPLICATE_CONTENT_TYPE;
use crate::event::{Event, Faults, rules};
use crate::limits::{Limits, TooLarge};
use crate::{json, protobuf};

/// An event format (CloudEvents 1.0, event format).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The JSON format, [`crate::json`].
    Json,
    /// The Protobuf format, [`crate::protobuf`].
    Protobuf,
}

/// Whether a content type tells that a message carries its event in an event format, known or not. Batches are taken in.
pub(crate) fn is_structured(content_type: &[u8]) -> bool {
    const STRUCTURED: &[u8] = b"application/cloudevents";
    content_type.trim_ascii().get(..STRUCTURED.len()).is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED))
}

/// Why bytes that mean to carry events do not, whatever the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// An event format that is not known (415).
    #[error(
        "the content type {0} names an event format that is not known; use application/cloudevents+json, \
         application/cloudevents+protobuf or their batch forms"
    )]
    UnsupportedMediaType(String),
    /// The bytes are not JSON (400).
    #[error(transparent)]
    Malformed(#[from] json::Malformed),
    /// The bytes are not a message of the Protobuf format (400).
    #[error(transparent)]
    Undecodable(#[from] protobuf::Undecodable),
    /// The event breaks rules of CloudEvents or of the binding (400).
    #[error(transparent)]
    Invalid(#[from] Faults),
    /// Events of the batch break rules of CloudEvents (400).
    #[error(transparent)]
    InvalidBatch(#[from] BatchFaults),
    /// A limit is exceeded (413).
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl From<json::ReadError> for ReadError {
    fn from(error: json::ReadError) -> Self {
        match error {
            json::ReadError::Malformed(malformed) => Self::Malformed(malformed),
            json::ReadError::Invalid(faults) => Self::Invalid(faults),
            json::ReadError::TooLarge(too_large) => Self::TooLarge(too_large),
        }
    }
}

impl From<json::ReadBatchError> for ReadError {
    fn from(error: json::ReadBatchError) -> Self {
        match error {
            json::ReadBatchError::Malformed(malformed) => Self::Malformed(malformed),
            json::ReadBatchError::Invalid(faults) => Self::InvalidBatch(faults),
            json::ReadBatchError::TooLarge(too_large) => Self::TooLarge(too_large),
        }
    }
}

impl From<protobuf::ReadError> for ReadError {
    fn from(error: protobuf::ReadError) -> Self {
        match error {
            protobuf::ReadError::Undecodable(undecodable) => Self::Undecodable(undecodable),
            protobuf::ReadError::Invalid(faults) => Self::Invalid(faults),
            protobuf::ReadError::TooLarge(too_large) => Self::TooLarge(too_large),
        }
    }
}

impl From<protobuf::ReadBatchError> for ReadError {
    fn from(error: protobuf::ReadBatchError) -> Self {
        match error {
            protobuf::ReadBatchError::Undecodable(undecodable) => Self::Undecodable(undecodable),
            protobuf::ReadBatchError::Invalid(faults) => Self::InvalidBatch(faults),
            protobuf::ReadBatchError::TooLarge(too_large) => Self::TooLarge(too_large),
        }
    }
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The media type of one event.
    pub fn event_media_type(self) -> &'static str {
        match self {
            Self::Json => json::EVENT_MEDIA_TYPE,
            Self::Protobuf => protobuf::EVENT_MEDIA_TYPE,
        }
    }

    /// The media type of a batch of events.
    pub fn batch_media_type(self) -> &'static str {
        match self {
            Self::Json => json::BATCH_MEDIA_TYPE,
            Self::Protobuf => protobuf::BATCH_MEDIA_TYPE,
        }
    }

    /// The format whose media type is the content type of a message, whatever binding carries it. One that stands there more
    /// than once names none.
    pub(crate) fn of_content_type(
        content_type: &[u8],
        repeated: bool,
        media_type: fn(Self) -> &'static str,
    ) -> Result<Self, ReadError> {
        if repeated {
            let mut faults = Faults::default();
            faults.push("datacontenttype", DUPLICATE_CONTENT_TYPE);
            return Err(faults.into());
        }
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        Self::ALL
            .into_iter()
            .find(|format| essence.eq_ignore_ascii_case(media_type(*format).as_bytes()))
            .ok_or_else(|| ReadError::UnsupportedMediaType(rules::shown(&String::from_utf8_lossy(essence))))
    }

    /// Reads one event, which shares the document's buffer.
    pub fn read(self, document: Bytes, limits: &Limits) -> Result<Event, ReadError> {
        Ok(match self {
            Self::Json => json::read(document, limits)?,
            Self::Protobuf => protobuf::read(document, limits)?,
        })
    }

    /// Reads a batch, which may be empty. It is taken or refused as a whole.
    pub fn read_batch(self, document: Bytes, limits: &Limits) -> Result<Vec<Event>, ReadError> {
        Ok(match self {
            Self::Json => json::read_batch(document, limits)?,
            Self::Protobuf => protobuf::read_batch(document, limits)?,
        })
    }

    /// Writes one event.
    pub fn write(self, event: &Event) -> Bytes {
        match self {
            Self::Json => json::to_bytes(event),
            Self::Protobuf => protobuf::to_bytes(event),
        }
    }

    /// Writes a batch.
    pub fn write_batch<'a>(self, events: impl IntoIterator<Item = &'a Event>) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Json => json::write_batch(events, &mut out),
            Self::Protobuf => protobuf::write_batch(events, &mut out),
        }
        Bytes::from(out)
    }
}
