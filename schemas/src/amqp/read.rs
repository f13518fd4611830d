use bytes::Bytes;
use bytestring::ByteString;

use super::{NO_DATA, PREFIX, PREFIX_OF_OTHERS, Property};
use crate::draft::Draft;
use crate::event::{Data, Event, Timestamp, Value, rules};
use crate::format::{Format, ReadError, is_structured};
use crate::limits::Limits;
use crate::media_type::MediaType;

/// Reads the event of a message; none where nothing says that it carries one. The payload shares the body's buffer.
///
/// # Errors
/// The message means to be an event and breaks its rules; the error says which.
pub fn read<'a>(
    properties: impl Iterator<Item = (&'a str, &'a Property)> + Clone,
    content_type: Option<&str>,
    body: Bytes,
    limits: &Limits,
) -> Result<Option<Event>, ReadError> {
    if let Some(content_type) = content_type
        && is_structured(content_type.as_bytes())
    {
        let format = Format::of_content_type(content_type.as_bytes(), false, Format::event_media_type)?;
        return format.read(body, limits).map(Some);
    }
    let (mut prefix, mut bytes, mut no_data) = (None, 0, false);
    for (name, value) in properties.clone() {
        no_data |= name == NO_DATA;
        for known in [PREFIX, PREFIX_OF_OTHERS] {
            if name.starts_with(known) {
                prefix.get_or_insert(known);
                bytes += name.len() + if let Property::Text(text) = value { text.len() } else { 0 };
            }
        }
    }
    let Some(prefix) = prefix else { return Ok(None) };
    let mut draft = Draft::new(prefix, bytes);
    let media_type = content_type.and_then(MediaType::parse);
    let text_content = media_type.is_some_and(|media_type| media_type.is_text());
    if let Some(content_type) = content_type {
        draft.content_type(content_type.as_bytes());
    }
    for (name, value) in properties {
        let Some(name) = name.strip_prefix(prefix) else {
            if name.starts_with(PREFIX) || name.starts_with(PREFIX_OF_OTHERS) {
                draft.fault(name, format!("has another prefix than {prefix}, which the message has too; use one"));
            }
            continue;
        };
        match value {
            Property::Text(text) => draft.text(name, text.clone()),
            Property::Boolean(boolean) => draft.typed(name, Value::Boolean(*boolean)),
            Property::Integer(milliseconds) if name == "time" => match time_of(*milliseconds) {
                Some(time) => draft.text(name, time.text().clone()),
                None => draft.fault(name, "is a time that no calendar has; write RFC 3339"),
            },
            Property::Integer(number) => match i32::try_from(*number) {
                Ok(number) => draft.typed(name, Value::Integer(number)),
                Err(_) => draft.text(name, ByteString::from(number.to_string())),
            },
            Property::Time(seconds) => match Timestamp::from_unix(*seconds, 0) {
                Some(time) => draft.text(name, time.text().clone()),
                None => draft.fault(name, "is a time that no calendar has; write RFC 3339"),
            },
            Property::Binary(_) if rules::extension_name(name).is_err() => {
                draft.fault(name, "is bytes; write it as text")
            }
            Property::Binary(bytes) => draft.typed(name, Value::Binary(bytes.clone())),
            Property::Other => draft.fault(name, "is no text, number, truth value, time or bytes; write it as text"),
        }
    }
    let empty = body.is_empty();
    let mut event = draft.finish(body, limits)?;
    if empty && !no_data {
        event.data = if text_content { Data::Text(ByteString::new()) } else { Data::Binary(Bytes::new()) };
    }
    Ok(Some(event))
}

/// The time of so many milliseconds since 1970.
fn time_of(milliseconds: i64) -> Option<Timestamp> {
    let nanoseconds = u32::try_from(milliseconds.rem_euclid(1000)).ok()? * 1_000_000;
    Timestamp::from_unix(milliseconds.div_euclid(1000), nanoseconds)
}
