//! The building blocks: what the gateway offers, whatever protocol it is asked in.

pub mod apps;
pub mod bindings;
pub mod cluster;
pub mod migration;
pub mod pubsub;
