//! What travels: the [`Event`] (a CloudEvent 1.0), its formats and its transport bindings.
//!
//! Nothing here does I/O, spawns or reads a clock. Payloads are [`bytes::Bytes`] that are never parsed and never
//! copied unless a format demands it.

pub mod event;
pub mod limits;

pub use event::{Data, Event, EventBuilder, Fault, Faults, Timestamp, Value};
