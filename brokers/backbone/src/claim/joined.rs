//! A process that shares its slots with others.

use std::sync::Arc;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;

use super::driver::Driver;
use super::forward::{Answering, Handle};
use super::seat::{Seat, Shared};
use super::{Options, Ownership, Peers, Tenant};
use crate::catalogue::{self, Version};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, LogSpec, PartitionLog};
use crate::slot::follow::Follower;
use crate::slot::frame::Generation;
use crate::slot::journal::Identity;
use crate::slot::reader::within;
use crate::slot::state::Reads as _;
use crate::slot::{Command, CommitError, Expect, SlotHandle};

/// The key in slot 0 under which the number of slots stands, as JSON; written once, when the cluster begins.
pub(super) const SLOTS_KEY: &str = "cluster/slots";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slots {
    v: Version,
    slots: u32,
}

/// The number of slots from what stands under its key.
pub(super) fn slots_of(value: &[u8]) -> Result<u32> {
    match serde_json::from_slice(value) {
        Ok(Slots { slots, .. }) if slots > 0 => Ok(slots),
        Ok(_) => Err(Error::new(ErrorKind::DataLoss, format!("{SLOTS_KEY} in slot 0 says that there are no slots"))),
        Err(error) => {
            let context = format!("{SLOTS_KEY} in slot 0 cannot be read; a newer version may have written it");
            Err(Error::new(ErrorKind::Misconfigured, context).with_source(error))
        }
    }
}

/// The command that begins a cluster of so many slots.
pub(super) fn slots_command(slots: u32) -> Command {
    Command::new().put(SLOTS_KEY, Expect::Absent, catalogue::write(&Slots { v: Version, slots }))
}

#[derive(Debug)]
pub(super) struct Joined {
    shared: Arc<Shared>,
}

impl Joined {
    pub(super) async fn join(
        log: Arc<dyn PartitionLog>,
        peers: Arc<dyn Peers>,
        environment: Environment,
        options: Options,
    ) -> Result<Self> {
        let shared = Shared::new(log, peers, environment, options);
        let identity = Identity::new(shared.node);
        shared.peers.serve(Arc::new(Answering::new(&shared)));
        let catalogue = find_first(&shared.log).await?;
        let drive = |seat: Arc<Seat>, follower: Follower| {
            let driver = Driver::new(&shared, &seat, &identity);
            shared.environment.spawn(driver.run(follower));
        };
        let first = Seat::new(0, Arc::clone(catalogue.state()));
        shared.seats.write().push(Arc::clone(&first));
        drive(Arc::clone(&first), catalogue);
        let slots = agree(&shared, &first).await?;
        let find = async |slot| {
            let found = Follower::find(&shared.log, slot, None).await?;
            let lost = || Error::new(ErrorKind::DataLoss, format!("slot {slot} has no log, though it had one"));
            let follower = found.ok_or_else(lost)?;
            Ok::<_, Error>((Seat::new(slot, Arc::clone(follower.state())), follower))
        };
        let others = try_join_all((1..slots).map(find)).await?;
        // All of them before the first is driven, so that they are spread as one.
        shared.seats.write().extend(others.iter().map(|(seat, _)| Arc::clone(seat)));
        for (seat, follower) in others {
            drive(seat, follower);
        }
        shared.change();
        Ok(Self { shared })
    }

    pub(super) fn slots(&self) -> u32 {
        // As many as there were numbers for them.
        self.shared.seats.read().len() as u32
    }

    pub(super) fn slot(&self, slot: u32) -> Arc<dyn SlotHandle> {
        let seat = Arc::clone(&self.shared.seats.read()[slot as usize]);
        Arc::new(Handle::new(&self.shared, seat))
    }

    pub(super) fn begin(&self, tenant: Arc<dyn Tenant>) {
        *self.shared.tenant.write() = Some(tenant);
        self.shared.judge_pulse();
        self.shared.change();
    }

    pub(super) fn faults(&self) -> Vec<(u32, Arc<str>)> {
        self.shared.faults()
    }

    pub(super) fn silence(&self) -> Option<String> {
        self.shared.silence()
    }

    pub(super) fn owners(&self) -> Vec<Ownership> {
        self.shared.ownerships()
    }

    pub(super) async fn leave(&self) {
        self.shared.leave();
        let mut changed = self.shared.changed.subscribe();
        let left = async {
            loop {
                changed.borrow_and_update();
                let owned = |seat: &Arc<Seat>| seat.journal.lock().is_some();
                if !self.shared.seats.read().iter().any(owned) || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(limits::CLAIM_LEAVE_TIMEOUT, left).await.is_err() {
            tracing::warn!("slots could not be given up in time; they are taken over when their owner is silent");
        }
    }
}

/// Slot 0, which is begun where nothing of a cluster is there.
async fn find_first(log: &Arc<dyn PartitionLog>) -> Result<Follower> {
    for _ in 0..limits::JOURNAL_OPEN_ATTEMPTS {
        if let Some(found) = Follower::find(log, 0, None).await? {
            return Ok(found);
        }
        let others =
            log.list().await?.into_iter().find(|info| matches!(info.id, LogId::Slot { slot, .. } if slot != 0));
        if let Some(other) = others {
            let context = format!("slot 0 has no log, though {} has; its records are gone", other.id);
            return Err(Error::new(ErrorKind::DataLoss, context));
        }
        let id = Generation::FIRST.log(0);
        within(&id, "creating it", log.create(LogSpec::Single(id.clone()))).await?;
    }
    Err(Error::new(ErrorKind::Unavailable, "slot 0 was created and cannot be found"))
}

/// The number of slots, as slot 0 says it, or as its owner decides it when the cluster begins.
async fn agree(shared: &Arc<Shared>, first: &Arc<Seat>) -> Result<u32> {
    let mut changed = shared.changed.subscribe();
    let mut seen = first.state.state().read().seen.subscribe();
    loop {
        changed.borrow_and_update();
        seen.borrow_and_update();
        if let Some(head) = first.state.read_key(SLOTS_KEY.as_bytes()) {
            return slots_of(&head.value);
        }
        if let Some(journal) = first.owned() {
            let slots = shared.log.capability().slots.max(1);
            // The logs first: once the number stands there, a log that is missing is a loss.
            for slot in 1..slots {
                let id = Generation::FIRST.log(slot);
                within(&id, "creating it", shared.log.create(LogSpec::Single(id.clone()))).await?;
            }
            match journal.commit(slots_command(slots)).await {
                Ok(_) => tracing::info!(slots, "begins a cluster"),
                Err(CommitError::Conflict { .. } | CommitError::Fenced { .. } | CommitError::Closed) => {}
                Err(error) => tracing::warn!(%error, "the number of slots was not written; tries again"),
            }
        }
        tokio::select! {
            () = shared.environment.stopping().cancelled() => {
                return Err(Error::new(ErrorKind::Closed, "the process stops before it has joined the cluster"));
            }
            // Neither ends while there is a seat.
            _ = changed.changed() => {}
            _ = seen.changed() => {}
            () = tokio::time::sleep(limits::CLAIM_LOOK_INTERVAL) => {}
        }
    }
}
