//! The CloudEvent: typed attributes, extensions, and a payload kept as the bytes that came.

mod builder;
mod extensions;
mod fault;
pub(crate) mod rules;
mod timestamp;
mod uri;
mod value;

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

pub use builder::EventBuilder;
pub(crate) use extensions::Extensions;
pub use fault::{Fault, Faults};
pub use timestamp::Timestamp;
pub use value::Value;

/// The payload of an [`Event`], with what is known of its kind.
///
/// The kind is the one thing that a payload needs beside its bytes to travel through every format without losing a
/// byte: a JSON value is written into a JSON document as it is, text as a JSON string, other bytes as base64
/// (CloudEvents JSON format 3.1).
///
/// The kind says how the payload came or was built, and is never guessed from its look:
///
/// | where it came from | kind |
/// |---|---|
/// | `data` of a JSON event whose content type is JSON or absent | `Json`: the very text of the member, blanks inside it kept |
/// | `data` of a JSON event of another content type | `Text`: the string without its escapes |
/// | `data_base64` of a JSON event | `Binary`, also where the content type is JSON: its bytes are nobody's to re-interpret |
/// | `text_data` of a Protobuf event | `Json` if the content type is JSON and it is a valid JSON text, else `Text` |
/// | `binary_data` or `proto_data` of a Protobuf event | `Binary` |
/// | HTTP body, JSON content type | `Json` if it is a valid JSON text (checked, no tree built), else `Binary` |
/// | HTTP body, `text/*` or XML content type, no other charset than UTF-8, valid UTF-8 | `Text` |
/// | any other HTTP body | `Binary` |
///
/// A payload whose kind does not fit its content type (text under `application/json`, say) is legal; JSON documents
/// then carry it in a way that keeps its bytes, and it comes back with the kind that fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// No payload, which is not the same as an empty one.
    #[default]
    None,
    /// A JSON text, exactly as it was written.
    Json(Bytes),
    /// UTF-8 text.
    Text(ByteString),
    /// Bytes of a kind that is not known, or not text.
    Binary(Bytes),
}

impl Data {
    /// The bytes of the payload, which are empty where there is none.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Json(bytes) | Self::Binary(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// The payload as shared bytes; nothing is copied.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::Json(bytes) | Self::Binary(bytes) => bytes.clone(),
            Self::Text(text) => text.as_bytes().clone(),
        }
    }

    /// Whether the event carries no payload at all.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// A CloudEvent 1.0 that keeps every rule of its specification: it can only be had from an [`EventBuilder`] or from a
/// reader, and both report every fault at once.
///
/// Strings are shared slices ([`ByteString`]), so that cloning an event copies no text, and one read from a log or a
/// request body shares that buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub(crate) id: ByteString,
    pub(crate) source: ByteString,
    pub(crate) kind: ByteString,
    pub(crate) subject: Option<ByteString>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) data_content_type: Option<ByteString>,
    pub(crate) data_schema: Option<ByteString>,
    pub(crate) extensions: Extensions,
    pub(crate) data: Data,
}

impl Event {
    /// Begins an event with its three attributes that have no default. `specversion` is always `1.0`.
    pub fn builder(
        id: impl Into<ByteString>,
        source: impl Into<ByteString>,
        kind: impl Into<ByteString>,
    ) -> EventBuilder {
        EventBuilder::new(id, source, kind)
    }

    /// The attributes and payload taken apart again, to build a changed event from.
    pub fn into_builder(self) -> EventBuilder {
        EventBuilder::from_event(self)
    }

    /// `id`: with [`Event::source`] the identity of the event.
    pub fn id(&self) -> &ByteString {
        &self.id
    }

    /// `source`: a URI reference.
    pub fn source(&self) -> &ByteString {
        &self.source
    }

    /// `type`.
    pub fn kind(&self) -> &ByteString {
        &self.kind
    }

    /// `subject`.
    pub fn subject(&self) -> Option<&ByteString> {
        self.subject.as_ref()
    }

    /// `time`, with the text as it was written.
    pub fn time(&self) -> Option<&Timestamp> {
        self.time.as_ref()
    }

    /// `datacontenttype`.
    pub fn data_content_type(&self) -> Option<&ByteString> {
        self.data_content_type.as_ref()
    }

    /// `dataschema`: an absolute URI.
    pub fn data_schema(&self) -> Option<&ByteString> {
        self.data_schema.as_ref()
    }

    /// The extension attributes, by name in ascending order.
    pub fn extensions(&self) -> impl ExactSizeIterator<Item = (&ByteString, &Value)> {
        self.extensions.iter()
    }

    /// The extension attribute of that name.
    pub fn extension(&self, name: &str) -> Option<&Value> {
        self.extensions.get(name)
    }

    /// `partitionkey` (Partitioning extension), where it is there and not empty.
    pub fn partition_key(&self) -> Option<&str> {
        match self.extensions.get("partitionkey") {
            Some(Value::String(key)) if !key.is_empty() => Some(key),
            _ => None,
        }
    }

    /// Any attribute by its name, context or extension, in its canonical string form (CloudEvents 1.0, type system).
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "specversion" => Some(Cow::Borrowed("1.0")),
            "id" => Some(Cow::Borrowed(&self.id)),
            "source" => Some(Cow::Borrowed(&self.source)),
            "type" => Some(Cow::Borrowed(&self.kind)),
            "subject" => self.subject.as_deref().map(Cow::Borrowed),
            "time" => self.time.as_ref().map(|time| Cow::Borrowed(time.as_str())),
            "datacontenttype" => self.data_content_type.as_deref().map(Cow::Borrowed),
            "dataschema" => self.data_schema.as_deref().map(Cow::Borrowed),
            _ => self.extensions.get(name).map(Value::canonical),
        }
    }

    /// The payload.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The bytes that the event's attribute names and values take, without the payload.
    pub fn attributes_bytes(&self) -> usize {
        let optional = |value: &Option<ByteString>| value.as_ref().map_or(0, |text| text.len());
        self.id.len()
            + self.source.len()
            + self.kind.len()
            + optional(&self.subject)
            + self.time.as_ref().map_or(0, |time| time.as_str().len())
            + optional(&self.data_content_type)
            + optional(&self.data_schema)
            + self.extensions.iter().map(|(name, value)| name.len() + value.canonical_bytes()).sum::<usize>()
    }

    /// The number of attributes, `specversion` and the other required ones among them.
    pub fn attributes_count(&self) -> usize {
        const REQUIRED: usize = 4;
        REQUIRED
            + usize::from(self.subject.is_some())
            + usize::from(self.time.is_some())
            + usize::from(self.data_content_type.is_some())
            + usize::from(self.data_schema.is_some())
            + self.extensions.len()
    }

    /// The bytes that the event takes: attributes and payload.
    pub fn bytes(&self) -> usize {
        self.attributes_bytes() + self.data.as_bytes().len()
    }
}
