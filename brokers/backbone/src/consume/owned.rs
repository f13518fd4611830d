//! One slot whose partitions this process delivers: everything that belongs to that ownership, and ends with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::checkpoint;
use super::index::Index;
use super::marks::Marks;
use super::observe::Observer;
use super::outcomes::Outcomes;
use crate::catalogue::Catalogue;
use crate::environment::Environment;
use crate::error::Result;
use crate::log::PartitionLog;
use crate::outstanding::Outstanding;
use crate::slot::Journal;

/// See the module.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) journal: Journal,
    pub(super) outcomes: Outcomes,
    pub(super) index: Arc<Index>,
    /// Held while partitions come and go and while it is looked how they stand, so that no checkpoint sees half of it.
    pub(super) standing: Mutex<()>,
    /// Held while a checkpoint is written, so that an older one never follows a newer.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// What the next checkpoint is to look at.
    pub(super) marks: Marks,
    /// Nobody else can own it.
    alone: bool,
    /// Up to which revision of the catalogue everything of it runs.
    followed: AtomicU64,
    closing: AtomicBool,
    ended: AtomicBool,
    over: CancellationToken,
    out: Outstanding,
    observer: Arc<dyn Observer>,
    /// That its lease ran out was told, and it was not held since.
    expired: AtomicBool,
}

impl Owned {
    pub(super) async fn open(
        log: Arc<dyn PartitionLog>,
        journal: Journal,
        catalogue: Arc<Catalogue>,
        slots: u32,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>> {
        let followed = checkpoint::catalogue(&journal)?;
        let outcomes = Outcomes::open(Arc::clone(&log), journal.slot()).await?;
        let index = Arc::new(Index::new(log, journal.clone(), catalogue, slots, environment.clone()));
        Ok(Arc::new(Self {
            journal,
            outcomes,
            index,
            standing: Mutex::new(()),
            writing: tokio::sync::Mutex::new(()),
            marks: Marks::default(),
            alone: slots == 1,
            followed: AtomicU64::new(followed),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            over: environment.stopping().child_token(),
            out: Outstanding::default(),
            observer,
            expired: AtomicBool::new(false),
        }))
    }

    pub(super) fn slot(&self) -> u32 {
        self.journal.slot()
    }

    /// Whether the next owner cannot have begun yet. Asked before whatever has an effect outside.
    pub(super) fn holds(&self) -> bool {
        if self.is_over() {
            return false;
        }
        let holds = self.alone || self.journal.holds();
        if !holds {
            if !self.expired.swap(true, Ordering::AcqRel) {
                self.observer.lease_expired(self.slot());
            }
        } else if self.expired.load(Ordering::Relaxed) {
            self.expired.store(false, Ordering::Release);
        }
        holds
    }

    /// Up to which revision its checkpoints may say that the catalogue is taken into account.
    pub(super) fn followed(&self) -> u64 {
        self.followed.load(Ordering::Acquire)
    }

    pub(super) fn has_followed(&self, revision: u64) {
        if self.followed.fetch_max(revision, Ordering::AcqRel) < revision {
            self.marks.set_all();
        }
    }

    /// Nothing more is to be handed out.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Nothing that is done for it counts any more.
    pub(super) fn end(&self) {
        self.close();
        self.ended.store(true, Ordering::Release);
        self.over.cancel();
    }

    /// Whether the ownership has ended. A process that stops still has it, and writes what it did.
    pub(super) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Told when [`Owned::end`] is called or the process stops.
    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// A delivery went out.
    pub(super) fn goes_out(&self) {
        self.out.begin();
    }

    /// A delivery came back.
    pub(super) fn came_back(&self) {
        self.out.end();
    }

    /// Waits until nothing is out, at most that long. Gives how much still is.
    pub(super) async fn drained(&self, at_most: Duration) -> u32 {
        let _late = tokio::time::timeout(at_most, self.out.ended()).await;
        self.out.count()
    }
}
