//! Slots: what the whole cluster must remember, each in a journal that has one owner.
//!
//! A slot is a chain of generations, each one log ([`crate::LogId::Slot`]) of checksummed, hash-chained frames. Which frames
//! count is decided by one rule, [`accept`], that every reader applies alike, so that brokers need neither conditional
//! appends nor fencing. `docs/SLOT.md` beside this crate says how a frame is written, what is promised, and what
//! happens in every failure.
//!
//! | module | is |
//! |---|---|
//! | [`frame`] | the stored format |
//! | [`accept`] | which frame of a log counts: a pure function of the log's prefix |
//! | [`acknowledge`] | when an owner may know that its frame counts: a pure function of what its appends told |
//! | [`handle`] | a slot as any process sees it, whoever owns it |
//! | [`heads`] | the state that accepted frames add up to |
//! | [`journal`] | the owner: conditional commits, reads, watches, rolls |
//! | [`placement`] | which slot looks after what |
//! | [`reader`] | a reader that folds a slot without owning it |

pub mod accept;
pub mod acknowledge;
pub(crate) mod follow;
pub mod frame;
pub mod handle;
pub mod heads;
pub mod journal;
pub mod placement;
pub mod reader;
#[cfg(test)]
mod rules_tests;
pub(crate) mod state;

pub use handle::SlotHandle;
pub use journal::{
    Change, Command, CommandId, CommitError, Committed, Expect, Head, Identity, Journal, Options, Step, Watch, Watched,
};
