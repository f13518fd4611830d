//! The messages of the format, in the form in which they are on the wire.
//!
//! Texts are declared as bytes, and the map as the repeated entry that it is on the wire. Both are the same bytes, but text
//! that is not UTF-8 and an attribute that stands twice can then be told as faults of their attribute, and nothing is
//! copied.

use bytes::Bytes;
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct CloudEvent {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) source: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) spec_version: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) kind: Bytes,
    #[prost(message, repeated, tag = "5")]
    pub(super) attributes: Vec<Attribute>,
    #[prost(oneof = "Data", tags = "6, 7, 8")]
    pub(super) data: Option<Data>,
}

/// The field of [`CloudEvent::attributes`].
pub(super) const ATTRIBUTES_TAG: u32 = 5;
/// The field of a batch that holds its events.
pub(super) const EVENTS_TAG: u32 = 1;

/// One entry of `map<string, CloudEventAttributeValue>`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AttributeValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(bool, tag = "1")]
    Boolean(bool),
    #[prost(int32, tag = "2")]
    Integer(i32),
    #[prost(bytes = "bytes", tag = "3")]
    String(Bytes),
    #[prost(bytes = "bytes", tag = "4")]
    Bytes(Bytes),
    #[prost(bytes = "bytes", tag = "5")]
    Uri(Bytes),
    #[prost(bytes = "bytes", tag = "6")]
    UriReference(Bytes),
    #[prost(message, tag = "7")]
    Timestamp(Timestamp),
}

impl Kind {
    /// The name of the field that holds the value.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "ce_boolean",
            Self::Integer(_) => "ce_integer",
            Self::String(_) => "ce_string",
            Self::Bytes(_) => "ce_bytes",
            Self::Uri(_) => "ce_uri",
            Self::UriReference(_) => "ce_uri_ref",
            Self::Timestamp(_) => "ce_timestamp",
        }
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Data {
    #[prost(bytes = "bytes", tag = "6")]
    Binary(Bytes),
    #[prost(bytes = "bytes", tag = "7")]
    Text(Bytes),
    #[prost(message, tag = "8")]
    Proto(Any),
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) type_url: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}
