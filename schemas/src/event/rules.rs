//! The rules that CloudEvents 1.0 has for attributes, and the sizes that this product allows.

use super::{Event, Faults, Value, uri};
use crate::limits::{Limit, Limits, TooLarge};
use crate::media_type::MediaType;

/// Adds a fault for every attribute that breaks a rule and has no fault yet.
pub(crate) fn check_attributes(event: &Event, faults: &mut Faults) {
    let mut check = |name: &str, result: Result<(), String>| {
        if let Err(reason) = result
            && !faults.0.iter().any(|fault| fault.attribute == name)
        {
            faults.push(shown(name), reason);
        }
    };
    check("id", not_empty(&event.id).and_then(|()| text(&event.id)));
    check("source", not_empty(&event.source).and_then(|()| uri::reference(&event.source).map(|_| ())));
    check("type", not_empty(&event.kind).and_then(|()| text(&event.kind)));
    if let Some(subject) = &event.subject {
        check("subject", not_empty(subject).and_then(|()| text(subject)));
    }
    if let Some(media_type) = &event.data_content_type {
        check("datacontenttype", text(media_type).and_then(|()| content_type(media_type)));
    }
    if let Some(schema) = &event.data_schema {
        check("dataschema", not_empty(schema).and_then(|()| uri::absolute(schema)));
    }
    for (name, value) in event.extensions.iter() {
        check(name, extension_name(name).and_then(|()| extension_value(value)));
    }
}

/// The first size that is exceeded.
pub(crate) fn check_sizes(event: &Event, limits: &Limits) -> Result<(), TooLarge> {
    let attributes_bytes = event.attributes_bytes();
    let event_bytes = attributes_bytes + event.data.as_bytes().len();
    TooLarge::check(Limit::EventAttributes, event.attributes_count(), limits.event_attributes)?;
    TooLarge::check(Limit::EventAttributesBytes, attributes_bytes, limits.event_attributes_bytes)?;
    TooLarge::check(Limit::EventBytes, event_bytes, limits.event_bytes)
}

/// A name as an error message may repeat it: whoever sent it may have sent megabytes.
pub(crate) fn shown(name: &str) -> String {
    const SHOWN_CHARACTERS: usize = 64;
    match name.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

fn not_empty(value: &str) -> Result<(), String> {
    if value.is_empty() { Err("must not be empty; give it a value".to_owned()) } else { Ok(()) }
}

/// The String type: no control characters, no noncharacters (CloudEvents 1.0, type system).
fn text(value: &str) -> Result<(), String> {
    if value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    match value.chars().find(|character| is_forbidden(*character)) {
        None => Ok(()),
        Some(character) => Err(format!(
            "has the character U+{:04X}, which no attribute may have; remove it or put the text into the data",
            u32::from(character)
        )),
    }
}

fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    matches!(code, 0..=0x1f | 0x7f..=0x9f | 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}

fn content_type(value: &str) -> Result<(), String> {
    match MediaType::parse(value) {
        Some(_) => Ok(()),
        None => Err("is not a media type; write type/subtype, as in application/json (RFC 2046)".to_owned()),
    }
}

pub(crate) fn extension_name(name: &str) -> Result<(), String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err("is not an attribute's name; use small letters a to z and digits only".to_owned());
    }
    let is_taken = matches!(
        name,
        "id" | "source" | "specversion" | "type" | "subject" | "time" | "datacontenttype" | "dataschema" | "data"
    );
    if is_taken {
        return Err(
            "is not free for an extension, because CloudEvents gives the name a meaning; choose another".to_owned()
        );
    }
    Ok(())
}

fn extension_value(value: &Value) -> Result<(), String> {
    match value {
        Value::String(value) => text(value),
        Value::Uri(value) => uri::absolute(value),
        Value::UriReference(value) => uri::reference(value).map(|_| ()),
        Value::Boolean(_) | Value::Integer(_) | Value::Binary(_) | Value::Timestamp(_) => Ok(()),
    }
}
