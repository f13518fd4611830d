use std::fmt;

use bytes::{Buf as _, Bytes};
use bytestring::ByteString;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message as _};

use super::message::{self, ATTRIBUTES_TAG, Attribute, CloudEvent, EVENTS_TAG, Kind};
use super::{DATA_CONTENT_TYPE, TYPE_URL_SCHEME};
use crate::batch::{BatchFaults, Collector, Problem};
use crate::event::{Data, Event, Extensions, Faults, Timestamp, Value, rules};
use crate::json::{check_depth, valid_text};
use crate::limits::{Limit, Limits, TooLarge};
use crate::media_type::MediaType;

/// Why bytes are not an event of the Protobuf format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// They are not a message.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// They are a message and break rules of CloudEvents.
    #[error(transparent)]
    Invalid(#[from] Faults),
    /// A limit is exceeded.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Why bytes are not a batch of events of the Protobuf format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadBatchError {
    /// They are not a message.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// Events in it are not messages, or break rules of CloudEvents.
    #[error(transparent)]
    Invalid(#[from] BatchFaults),
    /// The batch, or an event in it, exceeds a limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The bytes are not a message of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// What is wrong, in the words of the decoder.
    pub reason: String,
}

impl From<DecodeError> for Undecodable {
    fn from(error: DecodeError) -> Self {
        let text = error.to_string();
        let reason = text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text).to_owned();
        Self { reason }
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the bytes are not a message of the Protobuf format of CloudEvents: {}", self.reason)
    }
}

impl std::error::Error for Undecodable {}

/// Reads a document that holds one event (`application/cloudevents+protobuf`). The event shares the document's buffer.
pub fn read(document: Bytes, limits: &Limits) -> Result<Event, ReadError> {
    match decode(document, limits)? {
        Ok(event) => Ok(event),
        Err(Problem::Invalid(faults)) => Err(faults.into()),
        Err(Problem::TooLarge(too_large)) => Err(too_large.into()),
    }
}

/// Reads a document that holds a batch of events (`application/cloudevents-batch+protobuf`), which may be empty. It is
/// taken or refused as a whole. The events share the document's buffer.
pub fn read_batch(document: Bytes, limits: &Limits) -> Result<Vec<Event>, ReadBatchError> {
    let mut collector = Collector::new(limits);
    let mut rest = document;
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(Undecodable::from)?;
        if tag != EVENTS_TAG {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(Undecodable::from)?;
            continue;
        }
        let event = delimited(wire_type, &mut rest)?;
        // The batch can be read on behind an event that cannot, so that is the fault of this one.
        let outcome = decode(event, limits).unwrap_or_else(|error| Err(Problem::whole(error.to_string())));
        collector.take(outcome)?;
    }
    Ok(collector.finish()?)
}

/// The content of a length-delimited field whose key was just read.
fn delimited(wire_type: WireType, rest: &mut Bytes) -> Result<Bytes, Undecodable> {
    if wire_type != WireType::LengthDelimited {
        return Err(Undecodable { reason: format!("an event of the batch has the wire type {wire_type:?}") });
    }
    let length = decode_varint(rest)?;
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
        _ => Err(Undecodable { reason: "an event of the batch is longer than the bytes that are there".to_owned() }),
    }
}

fn decode(document: Bytes, limits: &Limits) -> Result<Result<Event, Problem>, Undecodable> {
    // An attribute takes two bytes at least, and many times that once it is decoded, so they are counted before.
    if let Err(too_large) = check_attributes(document.clone(), limits)? {
        return Ok(Err(Problem::TooLarge(too_large)));
    }
    Ok(Draft::new().finish(CloudEvent::decode(document)?, limits))
}

fn check_attributes(mut document: Bytes, limits: &Limits) -> Result<Result<(), TooLarge>, DecodeError> {
    // Id, source, type and specversion are fields of their own.
    const REQUIRED: usize = 4;
    let mut attributes = REQUIRED;
    while document.has_remaining() {
        let (tag, wire_type) = decode_key(&mut document)?;
        attributes += usize::from(tag == ATTRIBUTES_TAG);
        if let Err(too_large) = TooLarge::check(Limit::EventAttributes, attributes, limits.event_attributes) {
            return Ok(Err(too_large));
        }
        skip_field(wire_type, tag, &mut document, DecodeContext::default())?;
    }
    Ok(Ok(()))
}

/// The parts of a message on their way to an event.
struct Draft {
    faults: Faults,
    subject: Option<ByteString>,
    time: Option<Timestamp>,
    data_content_type: Option<ByteString>,
    data_schema: Option<ByteString>,
    extensions: Extensions,
}

impl Draft {
    fn new() -> Self {
        Self {
            faults: Faults::default(),
            subject: None,
            time: None,
            data_content_type: None,
            data_schema: None,
            extensions: Extensions::default(),
        }
    }

    fn finish(mut self, message: CloudEvent, limits: &Limits) -> Result<Event, Problem> {
        let id = self.required("id", message.id);
        let source = self.required("source", message.source);
        let spec_version = self.required("specversion", message.spec_version);
        if !spec_version.is_empty() && spec_version != "1.0" {
            let shown = rules::shown(&spec_version);
            self.fault("specversion", format!("is {shown:?}, and only \"1.0\" is known; write it so"));
        }
        let kind = self.required("type", message.kind);
        let mut seen: Vec<ByteString> = Vec::with_capacity(message.attributes.len());
        for Attribute { name, value } in message.attributes {
            let Ok(name) = ByteString::try_from(name) else {
                self.fault("", "an attribute has a name that is not UTF-8; use small letters a to z and digits only");
                continue;
            };
            if seen.contains(&name) {
                self.fault(&name, "stands there more than once; remove all but one");
                continue;
            }
            match value.and_then(|value| value.kind) {
                Some(kind) => self.attribute(&name, kind),
                None => self.fault(&name, "has no value; set one of the ce_ fields, or leave the attribute out"),
            }
            seen.push(name);
        }
        let data = match message.data {
            None => Data::None,
            Some(message::Data::Binary(bytes)) => Data::Binary(bytes),
            Some(message::Data::Text(bytes)) => self.text(bytes, limits),
            Some(message::Data::Proto(any)) => self.any(any),
        };
        let Self { mut faults, subject, time, data_content_type, data_schema, extensions } = self;
        let event = Event { id, source, kind, subject, time, data_content_type, data_schema, extensions, data };
        rules::check_attributes(&event, &mut faults);
        if !faults.is_empty() {
            return Err(Problem::Invalid(faults));
        }
        rules::check_sizes(&event, limits).map_err(Problem::TooLarge)?;
        Ok(event)
    }

    fn required(&mut self, name: &'static str, bytes: Bytes) -> ByteString {
        if bytes.is_empty() {
            self.fault(name, "is missing or empty; every event must have it");
        }
        self.utf8(name, bytes)
    }

    fn attribute(&mut self, name: &ByteString, kind: Kind) {
        match (&**name, kind) {
            ("id" | "source" | "specversion" | "type", _) => {
                self.fault(name, "has a field of its own in the message; move it there");
            }
            ("subject", Kind::String(text)) => self.subject = Some(self.utf8(name, text)),
            ("datacontenttype", Kind::String(text)) => self.data_content_type = Some(self.utf8(name, text)),
            ("dataschema", Kind::Uri(text) | Kind::String(text)) => self.data_schema = Some(self.utf8(name, text)),
            ("time", Kind::Timestamp(time)) => self.time = self.timestamp(name, time),
            ("time", Kind::String(text)) => {
                let text = self.utf8(name, text);
                match Timestamp::parse(text) {
                    Ok(time) => self.time = Some(time),
                    Err(reason) => self.fault(name, reason),
                }
            }
            ("subject" | "datacontenttype", kind) => self.wrong(name, &kind, "ce_string"),
            ("dataschema", kind) => self.wrong(name, &kind, "ce_uri"),
            ("time", kind) => self.wrong(name, &kind, "ce_timestamp"),
            (_, kind) => {
                if let Some(value) = self.value(name, kind) {
                    self.extensions.insert(name.clone(), value);
                }
            }
        }
    }

    fn value(&mut self, name: &str, kind: Kind) -> Option<Value> {
        Some(match kind {
            Kind::Boolean(value) => Value::Boolean(value),
            Kind::Integer(value) => Value::Integer(value),
            Kind::String(text) => Value::String(self.utf8(name, text)),
            Kind::Bytes(bytes) => Value::Binary(bytes),
            Kind::Uri(text) => Value::Uri(self.utf8(name, text)),
            Kind::UriReference(text) => Value::UriReference(self.utf8(name, text)),
            Kind::Timestamp(time) => Value::Timestamp(self.timestamp(name, time)?),
        })
    }

    fn timestamp(&mut self, name: &str, time: message::Timestamp) -> Option<Timestamp> {
        let read = u32::try_from(time.nanos).ok().and_then(|nanos| Timestamp::from_unix(time.seconds, nanos));
        if read.is_none() {
            self.fault(
                name,
                "is no timestamp of protobuf: seconds must lie in the years 1 to 9999, and nanos from 0 to 999999999",
            );
        }
        read
    }

    fn text(&mut self, bytes: Bytes, limits: &Limits) -> Data {
        let media_type = self.data_content_type.as_deref().and_then(MediaType::parse);
        if media_type.is_some_and(|media_type| media_type.is_json())
            && let Ok(text) = valid_text(&bytes)
        {
            if let Err(reason) = check_depth(text, limits.json_depth) {
                self.fault("data", reason);
            }
            return Data::Json(bytes);
        }
        match ByteString::try_from(bytes) {
            Ok(text) => Data::Text(text),
            Err(_) => {
                self.fault("data", "stands in text_data and is not UTF-8; put it into binary_data");
                Data::None
            }
        }
    }

    fn any(&mut self, any: message::Any) -> Data {
        let type_url = match ByteString::try_from(any.type_url) {
            Ok(type_url) if !type_url.is_empty() => type_url,
            _ => {
                self.fault("data", "stands in proto_data without a type_url in UTF-8; set it, or use binary_data");
                return Data::None;
            }
        };
        let has_scheme = type_url.contains("://");
        let schema = if has_scheme { type_url.clone() } else { format!("{TYPE_URL_SCHEME}{type_url}").into() };
        match &self.data_schema {
            Some(given) if *given != schema && *given != type_url => self.fault(
                "dataschema",
                "is not the type_url of proto_data, which is what the format puts there; leave it out, or put the message \
                 into binary_data",
            ),
            _ => self.data_schema = Some(schema),
        }
        self.data_content_type.get_or_insert_with(|| ByteString::from_static(DATA_CONTENT_TYPE));
        Data::Binary(any.value)
    }

    fn utf8(&mut self, name: &str, bytes: Bytes) -> ByteString {
        ByteString::try_from(bytes).unwrap_or_else(|_| {
            self.fault(name, "is not UTF-8, which every text of protobuf must be");
            ByteString::new()
        })
    }

    fn wrong(&mut self, name: &str, kind: &Kind, field: &str) {
        self.fault(name, format!("stands in {}; put it into {field}", kind.field()));
    }

    fn fault(&mut self, name: &str, reason: impl Into<String>) {
        self.faults.push(rules::shown(name), reason);
    }
}
