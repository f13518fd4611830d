//! The attributes of one message, gathered from its headers, on their way to an event: what the bindings share.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::event::{Data, Event, Extensions, Faults, Timestamp, Value, rules};
use crate::format::ReadError;
use crate::http::data_of;
use crate::limits::Limits;
use crate::percent;

pub(crate) const DUPLICATE_CONTENT_TYPE: &str =
    "the header Content-Type stands there more than once; remove all but one";
const DUPLICATE: &str = "stands in more than one header; remove all but one";

/// See the module.
pub(crate) struct Draft {
    /// What stands before an attribute's name in the name of its header.
    prefix: &'static str,
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
    /// A draft of headers with that prefix, whose names and values take about so many bytes.
    pub(crate) fn new(prefix: &'static str, bytes: usize) -> Self {
        Self {
            prefix,
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

    /// Takes an attribute whose value is percent-encoded. Its name has no prefix, and no large letters.
    pub(crate) fn encoded(&mut self, name: &str, value: &[u8]) {
        match percent::decode(value, &mut self.buffer) {
            Ok(text) => self.text(name, text),
            Err(reason) => self.fault(name, reason),
        }
    }

    /// Takes an attribute whose value stands there as it is.
    pub(crate) fn text(&mut self, name: &str, text: ByteString) {
        let slot = match name {
            "specversion" => &mut self.spec_version,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.data_content_type,
            "dataschema" => &mut self.data_schema,
            _ => {
                self.buffer.extend_from_slice(name.as_bytes());
                let name = ByteString::try_from(self.buffer.split().freeze()).expect("it was text before");
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

    /// Takes an attribute whose value has a type, which an extension keeps.
    pub(crate) fn typed(&mut self, name: &str, value: Value) {
        let count = self.extensions.len();
        let text = ByteString::from(&*value.canonical());
        self.text(name, text);
        // One that stands twice has its fault, and one that is no extension is text.
        if self.extensions.len() > count {
            self.extensions.insert(ByteString::from(name), value);
        }
    }

    /// Takes `datacontenttype` from a header `Content-Type`, which is not percent-encoded.
    pub(crate) fn content_type(&mut self, value: &[u8]) {
        match ByteString::try_from(value.trim_ascii()) {
            Ok(text) if self.data_content_type.is_none() => self.data_content_type = Some(text),
            Ok(_) => self.fault("datacontenttype", DUPLICATE_CONTENT_TYPE),
            Err(_) => {
                self.fault("datacontenttype", "the header Content-Type is not ASCII; write a media type (RFC 2046)");
            }
        }
    }

    /// The event, or everything that is wrong with it.
    pub(crate) fn finish(mut self, body: Bytes, limits: &Limits) -> Result<Event, ReadError> {
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
            let prefix = self.prefix;
            self.fault(name, format!("is missing; send the header {prefix}{name}, which every event must have"));
        }
    }

    /// Adds what is wrong with an attribute.
    pub(crate) fn fault(&mut self, name: &str, reason: impl Into<String>) {
        self.faults.push(rules::shown(name), reason);
    }
}
