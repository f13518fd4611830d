//! Who owns which slot: at any position of a slot's log one process, and soon another one when it dies.
//!
//! Every process follows every slot, so that reads are local; what a slot's owner does for it, such as delivering its
//! partitions, is the work of a [`Tenant`]. `docs/SLOT.md` beside this crate has the rules.
//!
//! | module | is |
//! |---|---|
//! | `machine` | when a process may take a slot over, and when it gives one up: pure, with the time as an argument |
//! | `balance` | which process should own which slot: pure |
//! | `driver` | the task of one slot, which does what the machine says |
//! | `forward` | commands on their way to the owner |
//! | `alone`, `joined` | a process that has its log for itself, and one that shares it |
//! | [`peers`] | what is needed of the other processes |

mod alone;
mod balance;
mod driver;
mod forward;
mod joined;
mod machine;
pub mod peers;
mod pulse;
mod seat;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use peers::Peers;

use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::NodeId;
use crate::log::{BoxFuture, PartitionLog};
use crate::slot::{self, Journal, SlotHandle};

/// What works in the slots that this process owns. Calls for one slot come one after the other.
pub trait Tenant: Send + Sync + fmt::Debug {
    /// The slot is owned here from now on. Whatever is done for it is preceded by [`Journal::holds`].
    fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()>;

    /// The slot is about to be acquired from an owner that fell silent. Told before [`Tenant::acquired`]; one that was free or
    /// that its owner gave up is not told.
    fn took_over(&self, slot: u32) {
        let _ = slot;
    }

    /// The slot is about to be given up: what is under way is to be ended, and progress written, within
    /// [`tidegate_schemas::limits::CLAIM_DRAIN_TIMEOUT`]; afterwards it is released in any case.
    fn releasing(&self, slot: u32) -> BoxFuture<'_, ()>;

    /// The slot has another owner, or its journal has ended: nothing that is done for it counts any more.
    fn lost(&self, slot: u32);
}

/// How slots are owned.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How their journals are run. [`Claims::join`] sets what differs on a log that is shared.
    pub journal: slot::Options,
}

/// What this process knows of a slot's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Which slot.
    pub slot: u32,
    /// The epoch of the last owner that was seen; 0 before the first.
    pub epoch: u64,
    /// The process that owns it, unless it never had an owner or the last one has released it.
    pub owner: Option<NodeId>,
    /// Whether this process owns it.
    pub here: bool,
    /// The revision of the last commit that was seen.
    pub revision: u64,
}

/// The slots of a cluster as one process sees them, and those among them that it owns.
#[derive(Debug)]
pub struct Claims(Kind);

#[derive(Debug)]
enum Kind {
    Alone(alone::Alone),
    Joined(joined::Joined),
}

impl Claims {
    /// Owns every slot of a log that this process has for itself ([`crate::Capability::exclusive`]): no heartbeats, nobody to
    /// talk to.
    ///
    /// # Errors
    /// As [`Journal::open`], for any of the slots.
    pub async fn alone(log: Arc<dyn PartitionLog>, environment: Environment, options: Options) -> Result<Arc<Self>> {
        let alone = alone::Alone::open(log, &environment, &options).await?;
        Ok(Arc::new(Self(Kind::Alone(alone))))
    }

    /// Takes part in a cluster: follows every slot, and may own the one of the catalogue from now on. Returns when the
    /// number of slots is known and each was read to its end. `peers` is [`crate::request::Requests`], unless a test has others.
    /// What runs ends with the environment.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] where a slot's records are missing or damaged, [`ErrorKind::Misconfigured`] where the log is
    /// exclusive, and whatever the log says.
    pub async fn join(
        log: Arc<dyn PartitionLog>,
        peers: impl Peers + 'static,
        environment: Environment,
        options: Options,
    ) -> Result<Arc<Self>> {
        if log.capability().exclusive {
            let context = format!("the {} backbone is for one process, which needs no others", log.capability().broker);
            return Err(Error::new(ErrorKind::Misconfigured, context));
        }
        let joined = joined::Joined::join(log, Arc::new(peers), environment, options).await?;
        Ok(Arc::new(Self(Kind::Joined(joined))))
    }

    /// How many slots the cluster has.
    pub fn slots(&self) -> u32 {
        match &self.0 {
            Kind::Alone(alone) => alone.slots(),
            Kind::Joined(joined) => joined.slots(),
        }
    }

    /// A slot, whoever owns it: reads are answered from what was followed here, commits are made by its owner.
    ///
    /// # Panics
    /// Where there is no such slot: numbers come from [`slot::placement`].
    pub fn slot(&self, slot: u32) -> Arc<dyn SlotHandle> {
        match &self.0 {
            Kind::Alone(alone) => alone.slot(slot),
            Kind::Joined(joined) => joined.slot(slot),
        }
    }

    /// Begins to own slots for delivery: the tenant is told of each as it is acquired. A process that is alone has told it
    /// of all when this returns.
    pub async fn begin(&self, tenant: Arc<dyn Tenant>) {
        match &self.0 {
            Kind::Alone(alone) => alone.begin(tenant).await,
            Kind::Joined(joined) => joined.begin(tenant),
        }
    }

    /// Who owns each slot, as far as this process has followed.
    pub fn owners(&self) -> Vec<Ownership> {
        match &self.0 {
            Kind::Alone(alone) => alone.owners(),
            Kind::Joined(joined) => joined.owners(),
        }
    }

    /// The slots that this process cannot read any more, because the broker lost records of them or they are damaged, with
    /// what is wrong. Nothing is written to them and no work is done in them until somebody has looked after them.
    pub fn faults(&self) -> Vec<(u32, Arc<str>)> {
        match &self.0 {
            // Who is alone ends where a slot cannot be read.
            Kind::Alone(_) => Vec::new(),
            Kind::Joined(joined) => joined.faults(),
        }
    }

    /// Since when and what the broker does not answer or take, where that is so for longer than
    /// [`tidegate_schemas::limits::CLAIM_ANSWER_TIMEOUT`], or in a slot for longer than
    /// [`tidegate_schemas::limits::CLAIM_PULSE_TIMEOUT`]: a connection may look well that carries one direction only, and so may
    /// a broker whose disk is full.
    pub fn silence(&self) -> Option<String> {
        match &self.0 {
            // A log inside this process answers, or tells that it failed.
            Kind::Alone(_) => None,
            Kind::Joined(joined) => joined.silence(),
        }
    }

    /// Gives up every slot: the tenant drains each, and the next owner need not wait. Nothing is owned afterwards; slots are
    /// followed on until the environment stops.
    pub async fn leave(&self) {
        match &self.0 {
            Kind::Alone(alone) => alone.leave().await,
            Kind::Joined(joined) => joined.leave().await,
        }
    }
}
