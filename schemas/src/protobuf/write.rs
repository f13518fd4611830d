use bytes::Bytes;
use bytestring::ByteString;
use prost::Message as _;
use prost::encoding::message::encode as encode_field;

use super::message::{self, Any, Attribute, AttributeValue, CloudEvent, EVENTS_TAG, Kind};
use super::{DATA_CONTENT_TYPE, TYPE_URL_PREFIX, TYPE_URL_SCHEME};
use crate::event::{Data, Event, Timestamp, Value};
use crate::media_type::MediaType;

/// Appends an event as a message.
pub fn write(event: &Event, out: &mut Vec<u8>) {
    message_of(event).encode(out).expect("a vector has room for everything");
}

/// Appends events as a batch, which is a message of its own.
pub fn write_batch<'a>(events: impl IntoIterator<Item = &'a Event>, out: &mut Vec<u8>) {
    for event in events {
        encode_field(EVENTS_TAG, &message_of(event), out);
    }
}

/// The event as a message of its own.
pub fn to_bytes(event: &Event) -> Bytes {
    Bytes::from(message_of(event).encode_to_vec())
}

/// The message, whose texts and payload share the event's.
fn message_of(event: &Event) -> CloudEvent {
    let mut attributes = Vec::with_capacity(event.attributes_count());
    let mut put = |name: &ByteString, kind: Kind| {
        let value = Some(AttributeValue { kind: Some(kind) });
        attributes.push(Attribute { name: name.as_bytes().clone(), value });
    };
    if let Some(subject) = &event.subject {
        put(&ByteString::from_static("subject"), Kind::String(subject.as_bytes().clone()));
    }
    if let Some(time) = &event.time {
        put(&ByteString::from_static("time"), timestamp(time));
    }
    let content_type = match (&event.data_content_type, &event.data) {
        (Some(content_type), _) => Some(content_type.as_bytes().clone()),
        // What a JSON document implies must be said elsewhere (CloudEvents 1.0, datacontenttype).
        (None, Data::Json(_)) => Some(Bytes::from_static(b"application/json")),
        (None, Data::None | Data::Text(_) | Data::Binary(_)) => None,
    };
    if let Some(content_type) = content_type {
        put(&ByteString::from_static("datacontenttype"), Kind::String(content_type));
    }
    if let Some(schema) = &event.data_schema {
        put(&ByteString::from_static("dataschema"), Kind::Uri(schema.as_bytes().clone()));
    }
    for (name, value) in event.extensions.iter() {
        put(name, kind(value));
    }
    CloudEvent {
        id: event.id.as_bytes().clone(),
        source: event.source.as_bytes().clone(),
        spec_version: Bytes::from_static(b"1.0"),
        kind: event.kind.as_bytes().clone(),
        attributes,
        data: data(event),
    }
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Boolean(value) => Kind::Boolean(*value),
        Value::Integer(value) => Kind::Integer(*value),
        Value::String(text) => Kind::String(text.as_bytes().clone()),
        Value::Binary(bytes) => Kind::Bytes(bytes.clone()),
        Value::Uri(text) => Kind::Uri(text.as_bytes().clone()),
        Value::UriReference(text) => Kind::UriReference(text.as_bytes().clone()),
        Value::Timestamp(time) => timestamp(time),
    }
}

fn timestamp(time: &Timestamp) -> Kind {
    match time.unix_seconds_and_nanoseconds() {
        Some((seconds, nanos)) => {
            let nanos = i32::try_from(nanos).expect("they are less than a second");
            Kind::Timestamp(message::Timestamp { seconds, nanos })
        }
        None => Kind::String(time.text().as_bytes().clone()),
    }
}

fn data(event: &Event) -> Option<message::Data> {
    match &event.data {
        Data::None => None,
        Data::Json(text) => Some(message::Data::Text(text.clone())),
        Data::Text(text) => Some(message::Data::Text(text.as_bytes().clone())),
        Data::Binary(value) => Some(match type_url(event) {
            Some(type_url) => message::Data::Proto(Any { type_url, value: value.clone() }),
            None => message::Data::Binary(value.clone()),
        }),
    }
}

/// The type URL of data that is known to be a message of protobuf.
fn type_url(event: &Event) -> Option<Bytes> {
    let media_type = event.data_content_type.as_deref().and_then(MediaType::parse)?;
    let declared = MediaType::parse(DATA_CONTENT_TYPE).is_some_and(|own| media_type.is(own.kind(), own.subtype()));
    let schema = event.data_schema.as_ref()?;
    let type_url = schema.strip_prefix(TYPE_URL_SCHEME)?;
    let name = type_url.strip_prefix(TYPE_URL_PREFIX)?;
    (declared && is_message_name(name)).then(|| schema.as_bytes().slice(TYPE_URL_SCHEME.len()..))
}

/// Whether this is the full name of a message: identifiers joined by dots.
fn is_message_name(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
