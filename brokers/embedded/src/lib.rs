//! The embedded broker: durable, totally ordered logs in one directory, held by one process, without a server.
//!
//! Every append is written and synchronised (fdatasync) before it is acknowledged; whatever is queued meanwhile shares
//! the next synchronisation. `FORMAT.md` describes each byte on the disk, what is checked, and what a crash may take;
//! `README.md` maps the contract to the files.
//!
//! The entry is [`EmbeddedLog::open`]; everything else is [`tidegate_backbone::PartitionLog`].

mod adapter;
mod counters;
mod error;
mod log;
mod name;
mod options;
pub mod storage;

pub use adapter::EmbeddedLog;
pub use counters::CountersSnapshot;
#[cfg(any(test, feature = "test-util"))]
pub use options::Fault;
pub use options::{Durability, Options};
