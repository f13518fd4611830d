use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::{Mode, header};
use crate::event::{Data, Event, Extensions, Faults, Timestamp, Value, rules};
use crate::format::{Format, ReadError};
use crate::json;
use crate::limits::Limits;
use crate::media_type::MediaType;

/// What a message carries.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for a message and taken apart at once, so a box would only cost"
)]
pub enum Message {
    /// One event, in binary or structured mode.
    Event(Event),
    /// A batch, which may be empty.
    Batch(Vec<Event>),
    /// No CloudEvent: neither the content type nor a header speaks of one.
    None,
}

/// Reads what a request or a response carries. The payload shares the body's buffer.
pub fn read(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Message, ReadError> {
    match Mode::of(headers) {
        Mode::Binary => read_binary(headers, body, limits),
        Mode::Structured => {
            let format = format_of(headers, Format::event_media_type)?;
            Ok(Message::Event(format.read(body, limits)?))
        }
        Mode::Batch => {
            let format = format_of(headers, Format::batch_media_type)?;
            Ok(Message::Batch(format.read_batch(body, limits)?))
        }
    }
}

/// The format whose media type the content type is.
fn format_of(headers: &HeaderMap, media_type: fn(Format) -> &'static str) -> Result<Format, ReadError> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if headers.get_all(CONTENT_TYPE).iter().nth(1).is_some() {
        let mut faults = Faults::default();
        faults.push("datacontenttype", DUPLICATE_CONTENT_TYPE);
        return Err(faults.into());
    }
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    Format::ALL
        .into_iter()
        .find(|format| essence.eq_ignore_ascii_case(media_type(*format).as_bytes()))
        .ok_or_else(|| ReadError::UnsupportedMediaType(rules::shown(&String::from_utf8_lossy(essence))))
}

const DUPLICATE_CONTENT_TYPE: &str = "the header Content-Type stands there more than once; remove all but one";

const PREFIX: &str = "ce-";

fn read_binary(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Message, ReadError> {
    let mut attributes = 0;
    let mut bytes = 0;
    for (name, value) in headers {
        if name.as_str().starts_with(PREFIX) {
            attributes += 1;
            bytes += name.as_str().len() + value.len();
        }
    }
    if attributes == 0 {
        return Ok(Message::None);
    }
    // The header block has its own limit, so that this many faults are the most there can be.
    let mut draft = Draft::new(bytes + headers.get(CONTENT_TYPE).map_or(0, HeaderValue::len));
    for (name, value) in headers {
        if let Some(attribute) = name.as_str().strip_prefix(PREFIX) {
            draft.attribute(attribute, value);
        } else if name == CONTENT_TYPE {
            draft.content_type(value);
        }
    }
    draft.finish(body, limits).map(Message::Event)
}

/// The headers of one message on their way to an event.
struct Draft {
    /// Where decoded texts go; every value is a slice of it.
    buffer: BytesMut,
    faults: Faults,
    spec_version: Option<ByteString>,
    id: Option<ByteString>,
    source: Option<ByteString>,
    kind: Option<ByteString>,
    subject: Option<ByteString>,
    time: Option<ByteString>,
    data_content_type: Option<ByteString>,
    data_schema: Option<ByteString>,
    extensions: Extensions,
}

impl Draft {
    fn new(bytes: usize) -> Self {
        Self {
            buffer: BytesMut::with_capacity(bytes),
            faults: Faults::default(),
            spec_version: None,
            id: None,
            source: None,
            kind: None,
            subject: None,
            time: None,
            data_content_type: None,
            data_schema: None,
            extensions: Extensions::default(),
        }
    }

    fn attribute(&mut self, name: &str, value: &HeaderValue) {
        if name == "datacontenttype" {
            return self.fault(name, "must not stand in a header of its own; Content-Type is its place");
        }
        let text = match header::decode(value.as_bytes(), &mut self.buffer) {
            Ok(text) => text,
            Err(reason) => return self.fault(name, reason),
        };
        let slot = match name {
            "specversion" => &mut self.spec_version,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "dataschema" => &mut self.data_schema,
            _ => {
                self.buffer.extend_from_slice(name.as_bytes());
                let name = ByteString::try_from(self.buffer.split().freeze()).expect("the name of a header is ASCII");
                if self.extensions.insert(name.clone(), Value::String(text)).is_some() {
                    self.fault(&name, DUPLICATE);
                }
                return;
            }
        };
        if slot.replace(text).is_some() {
            self.fault(name, DUPLICATE);
        }
    }

    fn content_type(&mut self, value: &HeaderValue) {
        // This header is not percent-encoded: it is HTTP's own.
        let text = ByteString::try_from(value.as_bytes().trim_ascii());
        match text {
            Ok(text) if self.data_content_type.is_none() => self.data_content_type = Some(text),
            Ok(_) => self.fault("datacontenttype", DUPLICATE_CONTENT_TYPE),
            Err(_) => {
                self.fault("datacontenttype", "the header Content-Type is not ASCII; write a media type (RFC 2046)")
            }
        }
    }

    fn finish(mut self, body: Bytes, limits: &Limits) -> Result<Event, ReadError> {
        match self.spec_version.as_deref() {
            None => self.missing("specversion"),
            Some("1.0") => {}
            Some(other) => {
                let reason = format!("is {:?}, and only 1.0 is known; write it so", rules::shown(other));
                self.fault("specversion", reason);
            }
        }
        for (name, is_missing) in
            [("id", self.id.is_none()), ("source", self.source.is_none()), ("type", self.kind.is_none())]
        {
            if is_missing {
                self.missing(name);
            }
        }
        let time = match self.time.take().map(Timestamp::parse).transpose() {
            Ok(time) => time,
            Err(reason) => {
                self.fault("time", reason);
                None
            }
        };
        let data = data_of(body, self.data_content_type.as_deref(), limits).unwrap_or_else(|reason| {
            self.fault("data", reason);
            Data::None
        });
        let event = Event {
            id: self.id.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
            kind: self.kind.unwrap_or_default(),
            subject: self.subject,
            time,
            data_content_type: self.data_content_type,
            data_schema: self.data_schema,
            extensions: self.extensions,
            data,
        };
        rules::check_attributes(&event, &mut self.faults);
        if !self.faults.is_empty() {
            return Err(self.faults.into());
        }
        rules::check_sizes(&event, limits)?;
        Ok(event)
    }

    fn missing(&mut self, name: &str) {
        // A value that could not be decoded is there, and has its fault already.
        if !self.faults.0.iter().any(|fault| fault.attribute == name) {
            self.fault(name, format!("is missing; send the header {PREFIX}{name}, which every event must have"));
        }
    }

    fn fault(&mut self, name: &str, reason: impl Into<String>) {
        self.faults.push(rules::shown(name), reason);
    }
}

const DUPLICATE: &str = "stands in more than one header; remove all but one";

/// The payload of a body, whose kind is what the table at [`Data`] says.
pub fn data_of(body: Bytes, content_type: Option<&str>, limits: &Limits) -> Result<Data, String> {
    if body.is_empty() {
        return Ok(Data::None);
    }
    let Some(media_type) = content_type.and_then(MediaType::parse) else { return Ok(Data::Binary(body)) };
    if media_type.is_json() {
        return match json::valid_text(&body) {
            Ok(text) => json::check_depth(text, limits.json_depth).map(|()| Data::Json(body)),
            Err(_) => Ok(Data::Binary(body)),
        };
    }
    if media_type.is_text()
        && let Ok(text) = ByteString::try_from(body.clone())
    {
        return Ok(Data::Text(text));
    }
    Ok(Data::Binary(body))
}
