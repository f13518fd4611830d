//! What travels: the [`Event`] (a CloudEvent 1.0), its formats and its transport bindings.
//!
//! Nothing here does I/O, spawns or reads a clock. Payloads are [`bytes::Bytes`] that are never parsed and never
//! copied unless a format demands it.

pub mod amqp;
mod batch;
mod binding;
pub mod compact;
mod draft;
pub mod event;
pub mod foreign;
mod format;
pub mod http;
pub mod json;
pub mod kafka;
pub mod limits;
pub mod media_type;
pub mod message;
pub mod nats;
mod percent;
pub mod protobuf;
#[cfg(feature = "cloudevents-sdk")]
pub mod sdk;
pub mod sse;
pub mod webhook;
pub mod websocket;

pub use batch::{BatchFaults, EventFaults};
pub use event::{Data, Event, EventBuilder, Fault, Faults, Timestamp, Value};
pub use format::{Format, ReadError};
pub use limits::{Limits, TooLarge};
pub use media_type::MediaType;
