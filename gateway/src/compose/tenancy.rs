//! Slots come and go: delivery is told, bindings are, and the figures.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::BoxFuture;
use tidegate_backbone::claim::Tenant;
use tidegate_backbone::consume::Consume;
use tidegate_backbone::slot::Journal;

use crate::blocks::bindings::Bindings;
use crate::telemetry::Metrics;

#[derive(Debug)]
pub(super) struct Tenancy {
    pub(super) consume: Arc<Consume>,
    pub(super) bindings: Bindings,
    pub(super) metrics: Arc<Metrics>,
    /// Slots that are being given up: their end is no loss.
    pub(super) releasing: Mutex<HashSet<u32>>,
    /// Slots whose owner fell silent, before they are acquired.
    pub(super) taken_over: Mutex<HashSet<u32>>,
}

impl Tenant for Tenancy {
    fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()> {
        let taken_over = self.taken_over.lock().remove(&journal.slot());
        self.metrics.slot_changed(if taken_over { "taken-over" } else { "acquired" });
        self.releasing.lock().remove(&journal.slot());
        self.bindings.acquired(journal.clone());
        self.consume.acquired(journal)
    }

    fn took_over(&self, slot: u32) {
        self.taken_over.lock().insert(slot);
    }

    fn releasing(&self, slot: u32) -> BoxFuture<'_, ()> {
        self.metrics.slot_changed("released");
        self.releasing.lock().insert(slot);
        Box::pin(async move {
            tokio::join!(self.consume.releasing(slot), self.bindings.releasing(slot));
        })
    }

    fn lost(&self, slot: u32) {
        if !self.releasing.lock().remove(&slot) {
            self.metrics.slot_changed("lost");
        }
        self.consume.lost(slot);
        self.bindings.lost(slot);
    }
}
