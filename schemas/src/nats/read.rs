use bytes::Bytes;

use super::{CONTENT_TYPE, PREFIX};
use crate::draft::Draft;
use crate::event::Event;
use crate::format::{Format, ReadError, is_structured};
use crate::json;
use crate::limits::Limits;

/// Reads the event of a message; none where nothing says that it carries one. The payload shares the body's buffer.
///
/// # Errors
/// The message means to be an event and breaks its rules; the error says which.
pub fn read<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    body: Bytes,
    limits: &Limits,
) -> Result<Option<Event>, ReadError> {
    let mut content_types = headers.clone().filter(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    if let Some((_, content_type)) = content_types.next()
        && is_structured(content_type.as_bytes())
    {
        let repeated = content_types.next().is_some();
        let format = Format::of_content_type(content_type.as_bytes(), repeated, Format::event_media_type)?;
        return format.read(body, limits).map(Some);
    }
    let (mut count, mut attributes, mut bytes) = (0, 0, 0);
    for (name, value) in headers.clone() {
        count += 1;
        if attribute_of(name).is_some() {
            attributes += 1;
            bytes += name.len() + value.len();
        }
    }
    if count == 0 {
        return Ok(json::read(body, limits).ok());
    }
    if attributes == 0 {
        return Ok(None);
    }
    let mut draft = Draft::new(PREFIX, bytes);
    for (name, value) in headers {
        match attribute_of(name) {
            Some(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                draft.encoded(&name.to_ascii_lowercase(), value.as_bytes());
            }
            Some(name) => draft.encoded(name, value.as_bytes()),
            None => {}
        }
    }
    draft.finish(body, limits).map(Some)
}

/// The attribute that the header is for, in the letters of the header.
fn attribute_of(header: &str) -> Option<&str> {
    let (prefix, name) = header.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(name)
}
