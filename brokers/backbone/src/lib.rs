//! The contract between Tidegate and the broker that carries it, and what is built once above that contract.
//!
//! A broker is asked for as little as possible: [`PartitionLog`], a set of durable, totally ordered, append-only logs.
//! Everything that users see is built here above it, so that it cannot differ between brokers:
//!
//! | module | gives | promise |
//! |---|---|---|
//! | [`log`] | the contract of an adapter | below |
//! | [`lane`] | its second half: short messages between gateways | in the module |
//! | [`request`] | calls between gateways, over lanes | exactly one result before a deadline; nobody there is told at once; nothing is stored |
//! | [`slot`] | a journal with one owner | linearizable conditional commits, atomic in a slot, idempotent by command id |
//! | [`bridge`] | topics on other brokers beside it | what is attached there is a topic as any other; one that is away delays nothing else |
//! | [`queues`] | queues and exchanges of others, on brokers that have them | in the module |
//! | [`migrate`] | a move to another backbone while publishing goes on | nothing acknowledged is lost; in the module |
//! | [`claim`] | who owns which slot | at any position of a slot's log one process |
//!
//! # Promises of a partition log
//!
//! | | promise |
//! |---|---|
//! | durable | [`PartitionLog::append`] resolves only when the record survives what [`Capability::durability`] names; never earlier |
//! | ordered | records of one log have one total order, the same for every reader; two appends made one after the other by one caller keep their order |
//! | stable | what a reader was given stays at its position, unchanged, until it is trimmed |
//! | gap-free | a [`Tail`] gives every record from its start on, once, in order; a start that was trimmed is [`ErrorKind::PositionLost`], never a silent jump |
//! | bounded | an adapter queues no more than its options say; beyond that an append is refused with [`ErrorKind::Backpressure`] |
//! | honest | an append whose fate is not known fails with [`Applied::Unknown`]; it may appear later, anywhere behind the end known at the time of the call, or never |
//! | counted | [`PartitionLog::count`] is exact on every broker that can count the records of a log; elsewhere it is never too few |
//! | detected | lost or damaged records are [`ErrorKind::DataLoss`], never skipped in silence |
//!
//! Not promised: positions without gaps, order between logs, deduplication of appends, an upper bound of the time that
//! an append takes (the caller's deadline is the bound, and its passing leaves the outcome unknown).

pub mod bridge;
pub mod budget;
pub mod capability;
pub mod catalogue;
pub mod claim;
pub mod consume;
pub mod cursor;
pub mod environment;
pub mod error;
pub mod lane;
pub mod log;
pub mod migrate;
mod outstanding;
pub mod publish;
pub mod queues;
pub mod request;
pub mod slot;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;

pub use capability::{Capability, Durability};
pub use cursor::Cursor;
pub use environment::{Clock, Environment, Random};
pub use error::{Applied, Error, ErrorKind, Result};
pub use lane::{Inbox, Lane, NodeId};
pub use log::{Appended, Batch, BoxFuture, LogId, LogInfo, LogSpec, PartitionLog, Position, Record, Stored, Tail};
