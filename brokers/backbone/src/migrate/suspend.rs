//! Delivery that can be stopped while the slots stay where they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::claim::Tenant;
use crate::consume::Consume;
use crate::error::{Error, ErrorKind, Result};
use crate::log::BoxFuture;
use crate::slot::Journal;

/// A tenant that works only while it is not suspended, and goes on in the slots that it has by then.
#[derive(Debug)]
pub(super) struct Suspension {
    consume: Arc<Consume>,
    inner: Arc<dyn Tenant>,
    /// Held for reading while a slot comes or goes, so that none does half of it while all are stopped.
    suspended: RwLock<bool>,
    journals: Mutex<BTreeMap<u32, Journal>>,
}

impl Suspension {
    pub(super) fn new(consume: Arc<Consume>, inner: Arc<dyn Tenant>) -> Self {
        Self { consume, inner, suspended: RwLock::new(false), journals: Mutex::default() }
    }

    fn journals(&self) -> Vec<Journal> {
        self.journals.lock().values().cloned().collect()
    }

    /// Stops all deliveries: none goes out any more, those that are out are waited for, and progress is written.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where a slot is just being taken over and that does not end in time.
    pub(super) async fn suspend(&self, drain: Duration) -> Result<()> {
        let mut suspended = tokio::time::timeout(drain, self.suspended.write())
            .await
            .map_err(|_| Error::new(ErrorKind::Unavailable, "a slot is just being taken over"))?;
        if !*suspended {
            let slots: Vec<u32> = self.journals().iter().map(Journal::slot).collect();
            let out: u32 = join_all(slots.iter().map(|slot| self.consume.drain(*slot, drain))).await.into_iter().sum();
            if out > 0 {
                tracing::info!(
                    out,
                    "deliveries are still out when the backbone is moved; they are made again from there"
                );
            }
            join_all(slots.into_iter().map(|slot| self.inner.releasing(slot))).await;
            *suspended = true;
        }
        Ok(())
    }

    /// Goes on in every slot that is owned here.
    pub(super) async fn resume(&self) {
        let mut suspended = self.suspended.write().await;
        if std::mem::take(&mut *suspended) {
            join_all(self.journals().into_iter().map(|journal| self.inner.acquired(journal))).await;
        }
    }
}

impl Tenant for Suspension {
    fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let suspended = self.suspended.read().await;
            self.journals.lock().insert(journal.slot(), journal.clone());
            if !*suspended {
                self.inner.acquired(journal).await;
            }
        })
    }

    fn took_over(&self, slot: u32) {
        self.inner.took_over(slot);
    }

    fn releasing(&self, slot: u32) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let suspended = self.suspended.read().await;
            self.journals.lock().remove(&slot);
            if !*suspended {
                self.inner.releasing(slot).await;
            }
        })
    }

    fn lost(&self, slot: u32) {
        self.journals.lock().remove(&slot);
        self.inner.lost(slot);
    }
}
