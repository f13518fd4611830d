use bytes::{BufMut, BytesMut};

use super::*;
use crate::event::{Data, Event, Value};

/// Appends the compact form of an event, which takes exactly [`encoded_len`] bytes.
pub fn encode(event: &Event, out: &mut BytesMut) {
    out.reserve(encoded_len(event));
    out.put_u8(VERSION);
    out.put_u8(flags(event));
    for text in texts(event) {
        put_len(text.len(), out);
    }
    put_len(event.extensions.len(), out);
    for (name, value) in event.extensions.iter() {
        put_len(name.len(), out);
        put_value_entry(value, out);
    }
    let data = event.data.as_bytes();
    put_len(data.len(), out);
    for text in texts(event) {
        out.put_slice(text.as_bytes());
    }
    for (name, value) in event.extensions.iter() {
        out.put_slice(name.as_bytes());
        out.put_slice(value_text(value).as_bytes());
    }
    for (_, value) in event.extensions.iter() {
        if let Value::Binary(bytes) = value {
            out.put_slice(bytes);
        }
    }
    out.put_slice(data);
}

/// The bytes that [`encode`] appends.
pub fn encoded_len(event: &Event) -> usize {
    const VERSION_AND_FLAGS: usize = 2;
    let attributes: usize = texts(event).map(|text| len_of_len(text.len()) + text.len()).sum();
    let extensions: usize = event
        .extensions
        .iter()
        .map(|(name, value)| len_of_len(name.len()) + name.len() + value_entry_len(value) + value_len(value))
        .sum();
    let data = event.data.as_bytes().len();
    VERSION_AND_FLAGS + attributes + len_of_len(event.extensions.len()) + extensions + len_of_len(data) + data
}

fn flags(event: &Event) -> u8 {
    let kind = match event.data {
        Data::None => DATA_NONE,
        Data::Json(_) => DATA_JSON,
        Data::Text(_) => DATA_TEXT,
        Data::Binary(_) => DATA_BINARY,
    };
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    flag(event.subject.is_some(), HAS_SUBJECT)
        | flag(event.time.is_some(), HAS_TIME)
        | flag(event.data_content_type.is_some(), HAS_DATA_CONTENT_TYPE)
        | flag(event.data_schema.is_some(), HAS_DATA_SCHEMA)
        | kind << DATA_KIND_SHIFT
}

/// The context attributes that are there, in the order of the form.
fn texts(event: &Event) -> impl Iterator<Item = &str> {
    let optional = [
        event.subject.as_deref(),
        event.time.as_ref().map(|time| time.as_str()),
        event.data_content_type.as_deref(),
        event.data_schema.as_deref(),
    ];
    [&*event.id, &*event.source, &*event.kind].into_iter().chain(optional.into_iter().flatten())
}

fn value_text(value: &Value) -> &str {
    match value {
        Value::String(text) | Value::Uri(text) | Value::UriReference(text) => text,
        Value::Timestamp(time) => time.as_str(),
        Value::Boolean(_) | Value::Integer(_) | Value::Binary(_) => "",
    }
}

fn value_len(value: &Value) -> usize {
    match value {
        Value::Binary(bytes) => bytes.len(),
        other => value_text(other).len(),
    }
}

fn put_value_entry(value: &Value, out: &mut BytesMut) {
    out.put_u8(match value {
        Value::Boolean(false) => VALUE_FALSE,
        Value::Boolean(true) => VALUE_TRUE,
        Value::Integer(_) => VALUE_INTEGER,
        Value::String(_) => VALUE_STRING,
        Value::Binary(_) => VALUE_BINARY,
        Value::Uri(_) => VALUE_URI,
        Value::UriReference(_) => VALUE_URI_REFERENCE,
        Value::Timestamp(_) => VALUE_TIMESTAMP,
    });
    match value {
        Value::Boolean(_) => {}
        Value::Integer(number) => varint::put(varint::zigzag(*number), out),
        other => put_len(value_len(other), out),
    }
}

fn value_entry_len(value: &Value) -> usize {
    const TYPE: usize = 1;
    TYPE + match value {
        Value::Boolean(_) => 0,
        Value::Integer(number) => varint::encoded_len(varint::zigzag(*number)),
        other => len_of_len(value_len(other)),
    }
}

fn put_len(length: usize, out: &mut BytesMut) {
    varint::put(length as u64, out);
}

fn len_of_len(length: usize) -> usize {
    varint::encoded_len(length as u64)
}
