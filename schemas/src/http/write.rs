use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use bytestring::ByteString;

use super::Mode;
use crate::event::{Data, Event, Value};
use crate::format::Format;
use crate::json;
use crate::media_type::MediaType;
use crate::percent;

/// An event as the headers and body of a message.
#[derive(Clone, Debug)]
pub struct Written {
    /// The mode that was taken.
    pub mode: Mode,
    /// The headers that carry the event, `Content-Type` among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Writes an event in binary mode, or in structured mode where binary mode cannot carry it: an event whose
/// `datacontenttype` begins with `application/cloudevents` (an event within an event) would be taken for its own payload.
pub fn write(event: &Event) -> Written {
    let nests = event.data_content_type.as_deref().and_then(MediaType::parse).is_some_and(|it| it.is_cloudevents());
    let (mode, (headers, body)) = match nests {
        false => (Mode::Binary, (binary_headers(event), event.data.to_bytes())),
        true => (Mode::Structured, write_structured(event)),
    };
    Written { mode, headers, body }
}

/// The headers and body of [`write()`], for a caller who need not know the mode.
pub fn write_binary(event: &Event) -> (HeaderMap, Bytes) {
    let Written { headers, body, .. } = write(event);
    (headers, body)
}

/// Writes an event in structured mode, as JSON.
pub fn write_structured(event: &Event) -> (HeaderMap, Bytes) {
    (content_type(json::EVENT_MEDIA_TYPE), json::to_bytes(event))
}

/// Writes events in batch mode, as JSON. Only for a receiver that asked for batches (CloudEvents HTTP binding 3.3).
pub fn write_batch<'a>(events: impl IntoIterator<Item = &'a Event>) -> (HeaderMap, Bytes) {
    write_batch_as(Format::Json, events)
}

/// As [`write_batch()`], in any format that the receiver asked for.
pub fn write_batch_as<'a>(format: Format, events: impl IntoIterator<Item = &'a Event>) -> (HeaderMap, Bytes) {
    (content_type(format.batch_media_type()), format.write_batch(events))
}

fn content_type(media_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))])
}

const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
const TIME: HeaderName = HeaderName::from_static("ce-time");
const DATA_SCHEMA: HeaderName = HeaderName::from_static("ce-dataschema");

fn binary_headers(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(event.attributes_count());
    headers.insert(SPEC_VERSION, HeaderValue::from_static("1.0"));
    headers.insert(ID, encoded(&event.id));
    headers.insert(SOURCE, encoded(&event.source));
    headers.insert(TYPE, encoded(&event.kind));
    let optional = [
        (SUBJECT, event.subject.as_ref()),
        (TIME, event.time.as_ref().map(|time| time.text())),
        (DATA_SCHEMA, event.data_schema.as_ref()),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            headers.insert(name, encoded(text));
        }
    }
    for (name, value) in event.extensions.iter() {
        let name = HeaderName::try_from(format!("ce-{name}")).expect("small letters and digits name a header");
        headers.insert(name, extension(value));
    }
    match (&event.data_content_type, &event.data) {
        (Some(media_type), _) => {
            let value = HeaderValue::from_maybe_shared(media_type.as_bytes().clone())
                .expect("a media type is printable ASCII and blanks");
            headers.insert(CONTENT_TYPE, value);
        }
        // What a JSON document implies must be said elsewhere (CloudEvents 1.0, datacontenttype).
        (None, Data::Json(_)) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        (None, Data::None | Data::Text(_) | Data::Binary(_)) => {}
    }
    headers
}

fn encoded(text: &ByteString) -> HeaderValue {
    HeaderValue::from_maybe_shared(percent::encode(text).into_bytes())
        .expect("percent-encoding leaves printable ASCII only")
}

fn extension(value: &Value) -> HeaderValue {
    match value {
        Value::String(text) | Value::Uri(text) | Value::UriReference(text) => encoded(text),
        Value::Timestamp(time) => encoded(time.text()),
        Value::Boolean(_) | Value::Integer(_) | Value::Binary(_) => encoded(&ByteString::from(&*value.canonical())),
    }
}
