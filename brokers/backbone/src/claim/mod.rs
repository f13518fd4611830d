//! Who owns which slot: at any position of a slot's log one process, and soon another one when it dies.
//!
//! Every process follows every slot, so that reads are local; what a slot's owner does for it, such as delivering its
//! partitions, is the work of a [`Tenant`]. `docs/SLOT.md` beside this crate has the rules.

mod alone;
pub mod peers;

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

    /// The slot is about to be given up: what is under way is to be ended, and progress written, within
    /// [`tidegate_schemas::limits::CLAIM_DRAIN_TIMEOUT`]; afterwards it is released in any case.
    fn releasing(&self, slot: u32) -> BoxFuture<'_, ()>;

    /// The slot has another owner, or its journal has ended: nothing that is done for it counts any more.
    fn lost(&self, slot: u32);
}

/// How slots are owned.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How their journals are run.
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
pub struct Claims {
    alone: alone::Alone,
}

impl Claims {
    /// Owns every slot of a log that this process has for itself ([`crate::Capability::exclusive`]): no heartbeats, nobody to
    /// talk to.
    ///
    /// # Errors
    /// As [`Journal::open`], for any of the slots.
    pub async fn alone(log: Arc<dyn PartitionLog>, environment: Environment, options: Options) -> Result<Arc<Self>> {
        let alone = alone::Alone::open(log, &environment, &options).await?;
        Ok(Arc::new(Self { alone }))
    }

    /// Takes part in a cluster: follows every slot, and may own the one of the catalogue from now on. Returns when the
    /// number of slots is known and each was read to its end.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] where a slot's records are missing or damaged, and whatever the log says.
    pub async fn join(
        log: Arc<dyn PartitionLog>,
        peers: Arc<dyn Peers>,
        environment: Environment,
        options: Options,
    ) -> Result<Arc<Self>> {
        drop((peers, environment, options));
        let context = format!("several gateways cannot share the {} backbone yet", log.capability().broker);
        Err(Error::new(ErrorKind::Misconfigured, context))
    }

    /// How many slots the cluster has.
    pub fn slots(&self) -> u32 {
        self.alone.slots()
    }

    /// A slot, whoever owns it: reads are answered from what was followed here, commits are made by its owner.
    ///
    /// # Panics
    /// Where there is no such slot: numbers come from [`slot::placement`].
    pub fn slot(&self, slot: u32) -> Arc<dyn SlotHandle> {
        self.alone.slot(slot)
    }

    /// Begins to own slots for delivery: the tenant is told of each that is acquired, now and later. Returns when it has
    /// been told of those that are owned already.
    pub async fn begin(&self, tenant: Arc<dyn Tenant>) {
        self.alone.begin(tenant).await;
    }

    /// Who owns each slot, as far as this process has followed.
    pub fn owners(&self) -> Vec<Ownership> {
        self.alone.owners()
    }

    /// Gives up every slot: the tenant drains each, and the next owner need not wait. Nothing is owned afterwards.
    pub async fn leave(&self) {
        self.alone.leave().await;
    }
}
