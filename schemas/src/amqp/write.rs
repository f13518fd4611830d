use bytes::Bytes;
use bytestring::ByteString;

use super::{NO_DATA, PREFIX, Property, SHORT_BYTES};
use crate::binding::{content_type, is_ambiguous, structured};
use crate::event::{Event, Value};
use crate::json;

/// An event as the application properties, the content type and the body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Names and values; no name stands twice.
    pub properties: Vec<(ByteString, Property)>,
    /// The content type, at most 255 bytes.
    pub content_type: Option<ByteString>,
    /// The body.
    pub body: Bytes,
}

impl Written {
    /// The bytes of its parts, without what the protocol puts around them.
    pub fn bytes(&self) -> usize {
        let value = |value: &Property| if let Property::Text(text) = value { text.len() } else { 8 };
        let properties: usize = self.properties.iter().map(|(name, it)| name.len() + value(it)).sum();
        properties + self.content_type.as_ref().map_or(0, |text| text.len()) + self.body.len()
    }
}

/// Writes an event in binary mode, or in structured mode where binary mode cannot carry it: an event whose content type
/// begins with `application/cloudevents` would be taken for its own payload, an empty text of another content type than text
/// for empty bytes, and a content type or a name may be longer than AMQP has room for.
pub fn write(event: &Event) -> Written {
    let too_long = event.data_content_type.as_ref().is_some_and(|text| text.len() > SHORT_BYTES)
        || event.extensions.iter().any(|(name, _)| PREFIX.len() + name.len() > SHORT_BYTES);
    if too_long || is_ambiguous(event) {
        return write_structured(event);
    }
    let mut properties = Vec::with_capacity(event.attributes_count() + 1);
    let mut put = |name: &'static str, text: &ByteString| {
        properties.push((ByteString::from_static(name), Property::Text(text.clone())))
    };
    put("cloudEvents_specversion", &ByteString::from_static("1.0"));
    put("cloudEvents_id", &event.id);
    put("cloudEvents_source", &event.source);
    put("cloudEvents_type", &event.kind);
    let optional = [
        ("cloudEvents_subject", event.subject.as_ref()),
        ("cloudEvents_time", event.time.as_ref().map(|time| time.text())),
        ("cloudEvents_dataschema", event.data_schema.as_ref()),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            put(name, text);
        }
    }
    if event.data.is_none() {
        properties.push((ByteString::from_static(NO_DATA), Property::Boolean(true)));
    }
    for (name, value) in event.extensions.iter() {
        properties.push((ByteString::from(format!("{PREFIX}{name}")), extension(value)));
    }
    Written { properties, content_type: content_type(event), body: event.data.to_bytes() }
}

/// Writes an event in structured mode, as JSON.
pub fn write_structured(event: &Event) -> Written {
    let content_type = Some(ByteString::from_static(json::EVENT_MEDIA_TYPE));
    Written { properties: Vec::new(), content_type, body: structured(event) }
}

fn extension(value: &Value) -> Property {
    match value {
        Value::String(text) | Value::Uri(text) | Value::UriReference(text) => Property::Text(text.clone()),
        Value::Timestamp(time) => Property::Text(time.text().clone()),
        Value::Boolean(boolean) => Property::Boolean(*boolean),
        Value::Integer(number) => Property::Integer((*number).into()),
        Value::Binary(_) => Property::Text(ByteString::from(&*value.canonical())),
    }
}
