//! RabbitMQ as the backbone: partition logs on streams, lanes on exclusive queues, over AMQP 0.9.1.
//!
//! `README.md` maps the contract to the broker, and says what the broker itself can lose. The entry is
//! [`RabbitBroker::open`]; everything else is [`tidegate_backbone::PartitionLog`] and [`tidegate_backbone::Lane`].

mod adapter;
mod ask;
mod connection;
mod error;
mod lane;
mod marks;
mod name;
mod nodes;
mod options;
mod pool;
mod publisher;
mod queues;
mod recent;
mod record;
mod registry;
mod stream;
mod tail;
mod watch;

pub use adapter::RabbitBroker;
pub use options::{Options, Tls};
pub use queues::RabbitQueues;
