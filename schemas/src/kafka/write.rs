use bytes::Bytes;
use bytestring::ByteString;

use super::{CONTENT_TYPE, NO_DATA, PREFIX};
use crate::binding::{content_type, is_ambiguous, structured};
use crate::event::{Event, Value};
use crate::json;

/// An event as the headers, the key and the value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Names and values; no name stands twice.
    pub headers: Vec<(ByteString, ByteString)>,
    /// The key: the event's `partitionkey`, where it has one.
    pub key: Option<ByteString>,
    /// The value, which is there even where it is empty.
    pub value: Bytes,
}

impl Written {
    /// The bytes of its parts, without what the broker's format puts around them.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.key.as_ref().map_or(0, |key| key.len()) + self.value.len()
    }
}

/// Writes an event in binary mode, or in structured mode where binary mode cannot carry it: an event whose content type
/// begins with `application/cloudevents` would be taken for its own payload, and an empty text of another content type
/// than text for empty bytes.
pub fn write(event: &Event) -> Written {
    if is_ambiguous(event) {
        return write_structured(event);
    }
    let mut headers = Vec::with_capacity(event.attributes_count() + 1);
    let mut put = |name: &'static str, text: &ByteString| headers.push((ByteString::from_static(name), text.clone()));
    put("ce_specversion", &ByteString::from_static("1.0"));
    put("ce_id", &event.id);
    put("ce_source", &event.source);
    put("ce_type", &event.kind);
    if let Some(text) = content_type(event) {
        put(CONTENT_TYPE, &text);
    }
    let optional = [
        ("ce_subject", event.subject.as_ref()),
        ("ce_time", event.time.as_ref().map(|time| time.text())),
        ("ce_dataschema", event.data_schema.as_ref()),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            put(name, text);
        }
    }
    if event.data.is_none() {
        put(NO_DATA, &ByteString::from_static("true"));
    }
    for (name, value) in event.extensions.iter() {
        headers.push((ByteString::from(format!("{PREFIX}{name}")), extension(value)));
    }
    Written { headers, key: key(event), value: event.data.to_bytes() }
}

/// Writes an event in structured mode, as JSON.
pub fn write_structured(event: &Event) -> Written {
    let headers = vec![(ByteString::from_static(CONTENT_TYPE), ByteString::from_static(json::EVENT_MEDIA_TYPE))];
    Written { headers, key: key(event), value: structured(event) }
}

fn key(event: &Event) -> Option<ByteString> {
    match event.extensions.get("partitionkey") {
        Some(Value::String(key)) if !key.is_empty() => Some(key.clone()),
        _ => None,
    }
}

fn extension(value: &Value) -> ByteString {
    match value {
        Value::String(text) | Value::Uri(text) | Value::UriReference(text) => text.clone(),
        Value::Timestamp(time) => time.text().clone(),
        Value::Boolean(_) | Value::Integer(_) | Value::Binary(_) => ByteString::from(&*value.canonical()),
    }
}
