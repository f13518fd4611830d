//! Every slot of a log that one process has for itself.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;
use tidegate_schemas::limits;

use super::joined::{SLOTS_KEY, slots_command, slots_of};
use super::{Options, Ownership, Tenant};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::NodeId;
use crate::log::PartitionLog;
use crate::slot::placement::delivery_slots;
use crate::slot::{Journal, SlotHandle};

#[derive(Debug)]
pub(super) struct Alone {
    node: NodeId,
    journals: Vec<Journal>,
    tenant: Mutex<Option<Arc<dyn Tenant>>>,
}

impl Alone {
    pub(super) async fn open(log: Arc<dyn PartitionLog>, environment: &Environment, options: &Options) -> Result<Self> {
        let open = |slot| Journal::open(Arc::clone(&log), slot, environment.clone(), options.journal.clone());
        let first = open(0).await?;
        let slots = match first.get(SLOTS_KEY.as_bytes()) {
            Some(head) => slots_of(&head.value)?,
            None => {
                let slots = log.capability().slots.max(1);
                first.commit(slots_command(slots)).await.map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "the number of slots cannot be written").with_source(error)
                })?;
                slots
            }
        };
        let mut journals = vec![first];
        journals.extend(try_join_all((1..slots).map(open)).await?);
        // The low bits number the attempts of a node to own a slot.
        let node = NodeId(environment.random.bits() & !0xffff);
        Ok(Self { node, journals, tenant: Mutex::default() })
    }

    pub(super) fn slots(&self) -> u32 {
        // As many as there were numbers for them.
        self.journals.len() as u32
    }

    pub(super) fn slot(&self, slot: u32) -> Arc<dyn SlotHandle> {
        Arc::new(self.journals[slot as usize].clone())
    }

    pub(super) async fn begin(&self, tenant: Arc<dyn Tenant>) {
        *self.tenant.lock() = Some(Arc::clone(&tenant));
        for journal in self.delivering() {
            tenant.acquired(journal.clone()).await;
        }
    }

    fn delivering(&self) -> &[Journal] {
        let slots = delivery_slots(self.slots());
        &self.journals[slots.start as usize..slots.end as usize]
    }

    pub(super) fn owners(&self) -> Vec<Ownership> {
        let ownership = |journal: &Journal| Ownership {
            slot: journal.slot(),
            epoch: journal.epoch(),
            owner: journal.holds().then_some(self.node),
            here: journal.holds(),
            revision: journal.revision(),
        };
        self.journals.iter().map(ownership).collect()
    }

    pub(super) async fn leave(&self) {
        let tenant = self.tenant.lock().take();
        if let Some(tenant) = tenant {
            let drained = join_all(self.delivering().iter().map(|journal| tenant.releasing(journal.slot())));
            if tokio::time::timeout(limits::CLAIM_DRAIN_TIMEOUT, drained).await.is_err() {
                tracing::warn!(
                    "work in slots that are given up has not ended in time; what was not settled comes again"
                );
            }
        }
        join_all(self.journals.iter().map(Journal::close)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claims;
    use crate::log::BoxFuture;
    use crate::slot::{Command, CommitError, Expect};
    use crate::testing::{MemoryBroker, environment};

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Tenant for Notes {
        fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()> {
            self.0.lock().push(format!("acquired {} held {}", journal.slot(), journal.holds()));
            Box::pin(async {})
        }

        fn releasing(&self, slot: u32) -> BoxFuture<'_, ()> {
            self.0.lock().push(format!("releasing {slot}"));
            // A tenant that never ends is not waited for.
            Box::pin(std::future::pending())
        }

        fn lost(&self, slot: u32) {
            self.0.lock().push(format!("lost {slot}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_alone_owns_every_slot_until_it_leaves() {
        let broker = MemoryBroker::default();
        for round in 1..3 {
            let claims = Claims::alone(broker.client(), environment(round), Options::default()).await.unwrap();
            assert_eq!(claims.slots(), 1);
            let command = Command::new().put("round", Expect::Any, round.to_string());
            // The number of slots is the first thing that is written.
            assert_eq!(claims.slot(0).commit(command).await.unwrap().revision, round + 1);
            let notes = Arc::new(Notes::default());
            claims.begin(Arc::clone(&notes) as Arc<dyn Tenant>).await;
            let [ownership] = claims.owners()[..] else { panic!("one slot") };
            assert!(ownership.here && ownership.owner.is_some());
            assert_eq!((ownership.epoch, ownership.revision), (round, round + 1));
            claims.leave().await;
            assert_eq!(*notes.0.lock(), ["acquired 0 held true", "releasing 0"]);
            assert!(!claims.owners()[0].here);
            assert_eq!(claims.slot(0).commit(Command::new()).await, Err(CommitError::Closed));
        }
    }
}
