use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::event::{Data, Event, Value};
use crate::media_type::allows_json;

/// Appends an event as a JSON object.
///
/// A payload of kind JSON is written as it is, text as a string, anything else as base64. Where the kind does not fit
/// `datacontenttype`, the bytes decide: text under a JSON content type is written as base64, for as a string it would mean
/// a JSON string; a JSON text under another content type is written as a string. Blanks around a JSON text are left out.
pub fn write(event: &Event, out: &mut Vec<u8>) {
    write_with(event, out, |json, out| out.extend_from_slice(json));
}

/// As [`write()`], on one line: line breaks of a JSON payload, which can only stand between its tokens, become blanks. For
/// newline-delimited JSON and server-sent events; the end of the line is the caller's.
pub fn write_line(event: &Event, out: &mut Vec<u8>) {
    write_with(event, out, |json, out| {
        out.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    });
}

/// Appends events as a JSON array.
pub fn write_batch<'a>(events: impl IntoIterator<Item = &'a Event>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, event) in events.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(event, out);
    }
    out.push(b']');
}

/// The event as a JSON object of its own.
pub fn to_bytes(event: &Event) -> Bytes {
    let mut out = Vec::new();
    write(event, &mut out);
    Bytes::from(out)
}

fn write_with(event: &Event, out: &mut Vec<u8>, put_json: impl Fn(&[u8], &mut Vec<u8>)) {
    // Quotes, colons and names of the context attributes.
    const PUNCTUATION_BYTES: usize = 160;
    const EXTENSION_PUNCTUATION_BYTES: usize = 6;
    let extensions_bytes = EXTENSION_PUNCTUATION_BYTES * event.extensions.len();
    out.reserve(event.bytes() + PUNCTUATION_BYTES + extensions_bytes);
    out.extend_from_slice(br#"{"specversion":"1.0","id":"#);
    put_string(&event.id, out);
    out.extend_from_slice(br#","source":"#);
    put_string(&event.source, out);
    out.extend_from_slice(br#","type":"#);
    put_string(&event.kind, out);
    put_optional(br#","subject":"#, event.subject.as_deref(), out);
    put_optional(br#","time":"#, event.time.as_ref().map(|time| time.as_str()), out);
    put_optional(br#","datacontenttype":"#, event.data_content_type.as_deref(), out);
    put_optional(br#","dataschema":"#, event.data_schema.as_deref(), out);
    for (name, value) in event.extensions.iter() {
        out.push(b',');
        put_string(name, out);
        out.push(b':');
        match value {
            Value::Boolean(_) | Value::Integer(_) => out.extend_from_slice(value.canonical().as_bytes()),
            _ => put_string(&value.canonical(), out),
        }
    }
    put_data(event, out, put_json);
    out.push(b'}');
}

fn put_data(event: &Event, out: &mut Vec<u8>, put_json: impl Fn(&[u8], &mut Vec<u8>)) {
    const MEMBER: &[u8] = br#","data":"#;
    let allows_json = allows_json(event.data_content_type.as_deref());
    let bytes = event.data.as_bytes();
    let text = match &event.data {
        Data::None => return,
        Data::Json(json) if allows_json => {
            out.extend_from_slice(MEMBER);
            return put_json(json.trim_ascii(), out);
        }
        Data::Json(json) => std::str::from_utf8(json).ok(),
        Data::Text(text) if !allows_json => Some(&**text),
        Data::Text(_) | Data::Binary(_) => None,
    };
    match text {
        Some(text) => {
            out.extend_from_slice(MEMBER);
            put_string(text, out);
        }
        None => {
            out.extend_from_slice(br#","data_base64":""#);
            put_base64(bytes, out);
            out.push(b'"');
        }
    }
}

fn put_optional(prefix: &[u8], text: Option<&str>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        out.extend_from_slice(prefix);
        put_string(text, out);
    }
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string can always be written to memory");
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the space was made for it");
}
