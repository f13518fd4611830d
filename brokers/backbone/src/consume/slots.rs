//! Slots come and go: what this process delivers is what it owns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_schemas::limits;
use tracing::{debug, info, warn};

use super::checkpoint;
use super::engine::Consume;
use super::owned::Owned;
use crate::claim::Tenant;
use crate::error::{Error, ErrorKind, Result};
use crate::log::BoxFuture;
use crate::slot::Journal;

/// What writing the index of passports may take when a slot is given up; the next owner reads what it lacks.
const INDEX_GRACE: Duration = Duration::from_millis(100);
/// What is kept of the time for giving a slot up to write its last progress.
const WRITE_RESERVE: Duration = Duration::from_millis(300);
/// When a slot is tried again that cannot be delivered.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

impl Consume {
    /// Delivers the partitions of a slot from now on, from where the slot says that its last owner was. Waits until this
    /// process has followed the catalogue as far as that one had.
    ///
    /// # Errors
    /// What the broker says, and [`ErrorKind::DataLoss`] where progress or a topic cannot be read. What could be opened of the
    /// slot is delivered all the same, and the rest tried again, unless nothing could be: then [`Consume::slots`] lacks it.
    pub async fn acquire(&self, journal: Journal) -> Result<()> {
        let shared = &self.shared;
        let slot = journal.slot();
        let catalogue = Arc::clone(&shared.catalogue);
        let revision = checkpoint::catalogue(&journal)?;
        tokio::select! {
            () = catalogue.reached(revision) => {}
            why = journal.ended() => return Err(not_owned(slot).with_source(why)),
        }
        let log = Arc::clone(&shared.log);
        let owned =
            Owned::open(log, journal, catalogue, shared.slots, &shared.environment, Arc::clone(&shared.observer))
                .await?;
        let _changing = self.changing.lock().await;
        self.lose(slot);
        {
            let view = shared.catalogue.view();
            let exists = |uid| view.subscriptions.values().any(|subscription| subscription.uid == uid);
            let keys = checkpoint::keys_of_none(&owned.journal, exists);
            drop(view);
            checkpoint::delete(&owned.journal, &keys).await.map_err(|error| not_owned(slot).with_source(error))?;
        }
        shared.owned.lock().insert(slot, Arc::clone(&owned));
        shared.environment.spawn(Arc::clone(&owned.index).run(owned.over().clone()));
        self.reconcile().await?;
        debug!(slot, catalogue = self.followed.load(Ordering::Acquire), "delivers the partitions of the slot");
        Ok(())
    }

    /// Gives a slot up while it is still owned: hands nothing more of it out, waits for what is out, and writes progress
    /// down, all within [`limits::CLAIM_DRAIN_TIMEOUT`] where the broker answers. What is still out afterwards settles
    /// without effect. The slot is not delivered any more when this has ended or was dropped.
    pub async fn release(&self, slot: u32) {
        let Some(owned) = self.shared.owned(slot) else { return };
        // Whoever gives the slot up waits for a while, and then no longer.
        let _gone = Gone { consume: self, owned: &owned };
        owned.close();
        let out = owned.drained(limits::CLAIM_DRAIN_TIMEOUT.saturating_sub(WRITE_RESERVE)).await;
        if out > 0 {
            info!(slot, out, "deliveries are still out when the slot is given up; its next owner delivers them again");
        }
        if let Err(error) = self.checkpoint_of(&owned).await {
            warn!(slot, %error, "the last progress of a slot could not be written; its next owner delivers some again");
        }
        // Late is as well as never.
        let _late = tokio::time::timeout(INDEX_GRACE, owned.index.finish()).await;
    }

    /// Hands nothing more of a slot out, and waits for what is out, at most that long. Gives how much still is.
    pub async fn drain(&self, slot: u32, at_most: Duration) -> u32 {
        let Some(owned) = self.shared.owned(slot) else { return 0 };
        owned.close();
        owned.drained(at_most).await
    }

    /// The slot has another owner: what is out settles without effect, and nothing is written any more.
    pub fn lose(&self, slot: u32) {
        if let Some(owned) = self.shared.owned(slot) {
            self.drop_slot(&owned);
        }
    }

    fn drop_slot(&self, owned: &Arc<Owned>) {
        let shared = &self.shared;
        {
            let mut all = shared.owned.lock();
            if all.get(&owned.slot()).is_some_and(|known| Arc::ptr_eq(known, owned)) {
                all.remove(&owned.slot());
            }
        }
        let _standing = owned.standing.lock();
        // Under the lock: what is added to an ownership looks there whether it is over.
        owned.end();
        shared.routers.lock().retain(|_, router| {
            let stays = !Arc::ptr_eq(&router.owned, owned);
            if !stays {
                router.retire();
            }
            stays
        });
        for core in shared.cores.lock().values() {
            core.forget_owned(owned);
        }
    }

    /// The slots that are delivered here.
    pub fn slots(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.shared.owned.lock().keys().copied().collect();
        slots.sort_unstable();
        slots
    }
}

/// A slot that is not delivered any more when this goes.
struct Gone<'a> {
    consume: &'a Consume,
    owned: &'a Arc<Owned>,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.consume.drop_slot(self.owned);
    }
}

impl Tenant for Consume {
    fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let slot = journal.slot();
            let mut pause = RETRY_MIN;
            while let Err(error) = self.acquire(journal.clone()).await {
                warn!(slot, %error, "not all of the slot can be delivered; trying again");
                if self.shared.owned(slot).is_some() {
                    // The rest is tried again with each checkpoint.
                    return;
                }
                tokio::select! {
                    _ = journal.ended() => return,
                    () = self.shared.environment.stopping().cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
        })
    }

    fn releasing(&self, slot: u32) -> BoxFuture<'_, ()> {
        Box::pin(self.release(slot))
    }

    fn lost(&self, slot: u32) {
        self.lose(slot);
    }
}

fn not_owned(slot: u32) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the partitions of slot {slot} cannot be delivered"))
}
