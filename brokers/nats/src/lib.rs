//! NATS JetStream as the backbone: partition logs on streams, lanes on core subjects. `README.md` beside this crate says how
//! everything is mapped, and what the broker itself can lose.

mod adapter;
mod api;
mod append;
mod connection;
mod error;
mod lane;
mod name;
mod options;
mod record;
mod tail;
mod target;
mod trims;

pub use adapter::NatsBroker;
pub use options::{Credentials, Options, Tls};
