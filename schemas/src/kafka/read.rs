use bytes::Bytes;
use bytestring::ByteString;

use super::{CONTENT_TYPE, NO_DATA, PREFIX};
use crate::draft::Draft;
use crate::event::{Data, Event};
use crate::format::{Format, ReadError, is_structured};
use crate::limits::Limits;
use crate::media_type::MediaType;

/// Reads the event of a record; none where nothing says that it carries one. The payload shares the value's buffer.
///
/// # Errors
/// The record means to be an event and breaks its rules; the error says which.
pub fn read<'a>(
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
    value: Option<Bytes>,
    limits: &Limits,
) -> Result<Option<Event>, ReadError> {
    if let Some(content_type) = content_type(headers.clone())
        && is_structured(content_type.as_bytes())
    {
        let repeated = headers.filter(|(name, _)| is_content_type(name)).nth(1).is_some();
        let format = Format::of_content_type(content_type.as_bytes(), repeated, Format::event_media_type)?;
        return format.read(value.unwrap_or_default(), limits).map(Some);
    }
    let (mut attributes, mut bytes, mut no_data) = (0, 0, value.is_none());
    for (name, value) in headers.clone() {
        if name.starts_with(PREFIX) {
            attributes += 1;
            bytes += name.len() + value.map_or(0, <[u8]>::len);
        }
        no_data |= name == NO_DATA;
    }
    if attributes == 0 {
        return Ok(None);
    }
    let mut draft = Draft::new(PREFIX, bytes);
    let mut text_content = false;
    for (name, value) in headers {
        if is_content_type(name) {
            let content_type = value.unwrap_or_default();
            let media_type =
                std::str::from_utf8(content_type).ok().and_then(|text| MediaType::parse(text.trim_ascii()));
            text_content = media_type.is_some_and(|media_type| media_type.is_text());
            draft.content_type(content_type);
        } else if let Some(name) = name.strip_prefix(PREFIX) {
            match value {
                None => draft.fault(name, "stands in a header without a value; leave the header out"),
                Some(value) => match ByteString::try_from(value) {
                    Ok(text) => draft.text(name, text),
                    Err(_) => draft.fault(name, "is not UTF-8; headers of events carry UTF-8 as it is"),
                },
            }
        }
    }
    let value = value.unwrap_or_default();
    let empty = value.is_empty();
    let mut event = draft.finish(value, limits)?;
    if empty && !no_data {
        event.data = if text_content { Data::Text(ByteString::new()) } else { Data::Binary(Bytes::new()) };
    }
    Ok(Some(event))
}

/// The content type that the record came with, where it is text.
pub fn content_type<'a>(mut headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<&'a str> {
    let (_, value) = headers.find(|(name, _)| is_content_type(name))?;
    std::str::from_utf8(value?).ok()
}

fn is_content_type(name: &str) -> bool {
    name.eq_ignore_ascii_case(CONTENT_TYPE)
}
