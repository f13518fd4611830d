//! What the tasks of one process know in common: of every slot its state and its owner, and who else lives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::balance::Owners;
use super::machine::Outlook;
use super::pulse::{Moment, Pulse};
use super::{Options, Ownership, Peers, Tenant, balance};
use crate::environment::Environment;
use crate::lane::NodeId;
use crate::log::PartitionLog;
use crate::slot::Journal;
use crate::slot::placement::delivery_slots;
use crate::slot::state::{Reads as _, State};

/// What was read of a slot's owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) epoch: u64,
    /// The last one, whether it has released the slot or not.
    pub(super) owner: Option<NodeId>,
    pub(super) released: bool,
}

impl Seen {
    /// Who owns the slot, as far as is known.
    pub(super) fn current(&self) -> Option<NodeId> {
        self.owner.filter(|_| !self.released)
    }
}

/// One slot in one process.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) slot: u32,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) seen: Mutex<Seen>,
    /// The newest sign of life that was seen of its owner.
    pub(super) pulse: Moment,
    /// Where this process owns it.
    pub(super) journal: Mutex<Option<Journal>>,
    /// Why it cannot be read, where records are lost or damaged.
    pub(super) fault: Mutex<Option<Arc<str>>>,
}

impl Seat {
    pub(super) fn new(slot: u32, state: Arc<RwLock<State>>) -> Arc<Self> {
        Arc::new(Self {
            slot,
            state,
            seen: Mutex::default(),
            pulse: Moment::default(),
            journal: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    pub(super) fn owned(&self) -> Option<Journal> {
        self.journal.lock().clone()
    }

    /// When the newest frame of this process that is known accepted was sent, where it owns the slot; otherwise long ago.
    pub(super) fn renewed(&self) -> Duration {
        self.journal.lock().as_ref().map(Journal::renewed).unwrap_or_default()
    }
}

/// A process in its cluster.
pub(super) struct Shared {
    pub(super) log: Arc<dyn PartitionLog>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) environment: Environment,
    pub(super) options: Options,
    pub(super) node: NodeId,
    /// Every slot, in order; the first alone until the number of slots is known.
    pub(super) seats: RwLock<Vec<Arc<Seat>>>,
    pub(super) tenant: RwLock<Option<Arc<dyn Tenant>>>,
    leaving: AtomicBool,
    /// Counts whatever may matter to those who wait: owners, the tenant, leaving.
    pub(super) changed: watch::Sender<u64>,
    pub(super) pulse: Pulse,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        log: Arc<dyn PartitionLog>,
        peers: Arc<dyn Peers>,
        environment: Environment,
        options: Options,
    ) -> Arc<Self> {
        let node = peers.node();
        Arc::new(Self {
            log,
            peers,
            environment,
            options,
            node,
            seats: RwLock::default(),
            tenant: RwLock::default(),
            leaving: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            pulse: Pulse::default(),
        })
    }

    pub(super) fn change(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn seat(&self, slot: u32) -> Option<Arc<Seat>> {
        self.seats.read().get(slot as usize).cloned()
    }

    /// No slot is owned here from now on.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.change();
    }

    /// Whether work is done in that slot.
    pub(super) fn delivers(&self, slot: u32) -> bool {
        // As many as there were numbers for them.
        delivery_slots(self.seats.read().len() as u32).contains(&slot)
    }

    /// The tenant, for a slot in which work is done.
    pub(super) fn tenant_of(&self, slot: u32) -> Option<Arc<dyn Tenant>> {
        if self.delivers(slot) { self.tenant.read().clone() } else { None }
    }

    fn members(&self) -> Vec<NodeId> {
        let mut members = self.peers.members();
        members.push(self.node);
        members.sort_unstable();
        members.dedup();
        members
    }

    /// What the rest of the cluster looks like for that slot.
    pub(super) fn outlook(&self, seat: &Seat) -> Outlook {
        let may_own = !self.leaving.load(Ordering::SeqCst) && (seat.slot == 0 || self.tenant.read().is_some());
        let members = self.members();
        let seen = *seat.seen.lock();
        let mut order = balance::order(seat.slot, &members);
        let mut elsewhere = false;
        if self.delivers(seat.slot) {
            let owners = self.owners();
            elsewhere = balance::targets(&owners, &members).get(&seat.slot).is_some_and(|target| *target != self.node);
            if let Some(target) = balance::successor(seat.slot, &owners, seen.owner, seen.released, &members) {
                order.retain(|node| *node != target);
                order.insert(0, target);
            }
        }
        // Whoever is silent, or has given the slot up, comes last.
        if let Some(last) = seen.owner {
            let known = order.len();
            order.retain(|node| *node != last);
            if order.len() < known {
                order.push(last);
            }
        }
        let rank = order.iter().position(|node| *node == self.node).unwrap_or(order.len());
        let unanswered = self.is_unanswered();
        Outlook { may_own, rank: u32::try_from(rank).unwrap_or(u32::MAX), elsewhere, unanswered }
    }

    /// The owners of all slots in which work is done.
    fn owners(&self) -> Owners {
        let seats = self.seats.read();
        let all = delivery_slots(seats.len() as u32);
        let owned = seats.iter().filter(|seat| all.contains(&seat.slot));
        owned.map(|seat| (seat.slot, seat.seen.lock().current())).collect()
    }

    pub(super) fn faults(&self) -> Vec<(u32, Arc<str>)> {
        let fault = |seat: &Arc<Seat>| Some((seat.slot, seat.fault.lock().clone()?));
        self.seats.read().iter().filter_map(fault).collect()
    }

    pub(super) fn ownerships(&self) -> Vec<Ownership> {
        let ownership = |seat: &Arc<Seat>| {
            let (seen, journal) = (*seat.seen.lock(), seat.owned());
            let here = journal.as_ref().is_some_and(Journal::holds);
            Ownership {
                slot: seat.slot,
                epoch: seen.epoch,
                owner: seen.current(),
                here,
                revision: seat.state.read_revision(),
            }
        };
        self.seats.read().iter().map(ownership).collect()
    }
}
