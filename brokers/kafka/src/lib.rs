//! Apache Kafka as the backbone: partition logs on topics, lanes on a topic of their own.
//!
//! `README.md` maps the contract to the broker, and says what the broker itself can lose. The entry is
//! [`KafkaBroker::open`]; everything else is [`tidegate_backbone::PartitionLog`] and [`tidegate_backbone::Lane`].

mod adapter;
mod context;
mod error;
mod lane;
mod log;
mod name;
mod options;
mod record;

pub use adapter::KafkaBroker;
pub use options::{Options, Sasl, Tls};
