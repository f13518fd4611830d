use bytes::Bytes;
use bytestring::ByteString;

use super::{CONTENT_TYPE, PREFIX};
use crate::binding::{content_type, structured};
use crate::event::{Event, Value};
use crate::{json, percent};

/// An event as the header fields and the body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Names and values; no name stands twice.
    pub headers: Vec<(ByteString, ByteString)>,
    /// The body.
    pub body: Bytes,
}

/// Writes an event in binary mode, or in structured mode where its payload is there and empty.
pub fn write(event: &Event) -> Written {
    if !event.data.is_none() && event.data.as_bytes().is_empty() {
        return write_structured(event);
    }
    let mut headers = Vec::with_capacity(event.attributes_count());
    let mut put = |name: &'static str, text: &ByteString| {
        headers.push((ByteString::from_static(name), percent::encode(text)));
    };
    put("ce-specversion", &ByteString::from_static("1.0"));
    put("ce-id", &event.id);
    put("ce-source", &event.source);
    put("ce-type", &event.kind);
    if let Some(text) = content_type(event) {
        put("ce-datacontenttype", &text);
    }
    let optional = [
        ("ce-subject", event.subject.as_ref()),
        ("ce-time", event.time.as_ref().map(|time| time.text())),
        ("ce-dataschema", event.data_schema.as_ref()),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            put(name, text);
        }
    }
    for (name, value) in event.extensions.iter() {
        headers.push((ByteString::from(format!("{PREFIX}{name}")), extension(value)));
    }
    Written { headers, body: event.data.to_bytes() }
}

/// Writes an event in structured mode, as JSON.
pub fn write_structured(event: &Event) -> Written {
    let headers = vec![(ByteString::from_static(CONTENT_TYPE), ByteString::from_static(json::EVENT_MEDIA_TYPE))];
    Written { headers, body: structured(event) }
}

fn extension(value: &Value) -> ByteString {
    match value {
        Value::String(text) | Value::Uri(text) | Value::UriReference(text) => percent::encode(text),
        Value::Timestamp(time) => percent::encode(time.text()),
        Value::Boolean(_) | Value::Integer(_) | Value::Binary(_) => {
            percent::encode(&ByteString::from(&*value.canonical()))
        }
    }
}
