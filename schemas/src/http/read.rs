use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use bytestring::ByteString;

use super::Mode;
use crate::draft::Draft;
use crate::event::{Data, Event};
use crate::format::{Format, ReadError};
use crate::json;
use crate::limits::Limits;
use crate::media_type::MediaType;

/// What a message carries.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for a message and taken apart at once, so a box would only cost"
)]
pub enum Message {
    /// One event, in binary or structured mode.
    Event(Event),
    /// A batch, which may be empty.
    Batch(Vec<Event>),
    /// No CloudEvent: neither the content type nor a header speaks of one.
    None,
}

/// Reads what a request or a response carries. The payload shares the body's buffer.
pub fn read(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Message, ReadError> {
    match Mode::of(headers) {
        Mode::Binary => read_binary(headers, body, limits),
        Mode::Structured => {
            let format = format_of(headers, Format::event_media_type)?;
            Ok(Message::Event(format.read(body, limits)?))
        }
        Mode::Batch => {
            let format = format_of(headers, Format::batch_media_type)?;
            Ok(Message::Batch(format.read_batch(body, limits)?))
        }
    }
}

/// The format whose media type the content type is.
fn format_of(headers: &HeaderMap, media_type: fn(Format) -> &'static str) -> Result<Format, ReadError> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let repeated = headers.get_all(CONTENT_TYPE).iter().nth(1).is_some();
    Format::of_content_type(content_type, repeated, media_type)
}

const PREFIX: &str = "ce-";

fn read_binary(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Message, ReadError> {
    let mut attributes = 0;
    let mut bytes = 0;
    for (name, value) in headers {
        if name.as_str().starts_with(PREFIX) {
            attributes += 1;
            bytes += name.as_str().len() + value.len();
        }
    }
    if attributes == 0 {
        return Ok(Message::None);
    }
    // The header block has its own limit, so that this many faults are the most there can be.
    let mut draft = Draft::new(PREFIX, bytes + headers.get(CONTENT_TYPE).map_or(0, HeaderValue::len));
    for (name, value) in headers {
        match name.as_str().strip_prefix(PREFIX) {
            Some(name @ "datacontenttype") => {
                draft.fault(name, "must not stand in a header of its own; Content-Type is its place");
            }
            Some(name) => draft.encoded(name, value.as_bytes()),
            None if name == CONTENT_TYPE => draft.content_type(value.as_bytes()),
            None => {}
        }
    }
    draft.finish(body, limits).map(Message::Event)
}

/// The payload of a body, whose kind is what the table at [`Data`] says.
pub fn data_of(body: Bytes, content_type: Option<&str>, limits: &Limits) -> Result<Data, String> {
    if body.is_empty() {
        return Ok(Data::None);
    }
    let Some(media_type) = content_type.and_then(MediaType::parse) else { return Ok(Data::Binary(body)) };
    if media_type.is_json() {
        return match json::valid_text(&body) {
            Ok(text) => json::check_depth(text, limits.json_depth).map(|()| Data::Json(body)),
            Err(_) => Ok(Data::Binary(body)),
        };
    }
    if media_type.is_text()
        && let Ok(text) = ByteString::try_from(body.clone())
    {
        return Ok(Data::Text(text));
    }
    Ok(Data::Binary(body))
}
