//! Retention: events that their topic keeps no longer are let go of, by age and by bytes.
//!
//! A subscription that has not read them loses them: the disk is everybody's, and one that lags must not fill it. That is
//! policy and never silent: the loss is told when it happens, with counts, to the log, to the [`Observer`](super::Observer)
//! and in the [`Status`](super::Status) of the subscription.
//!
//! Each partition is looked at by its owner alone, and not before something can be to go: by its age when its oldest event
//! is old enough, by its bytes when it was written to. So partitions at rest cost nothing, however many there are.
//!
//! Ages are those of appending. Bytes are those that the broker counts for a partition; the embedded log is exact to about
//! a segment. What is to go by its bytes is read once to be measured.

use std::collections::BTreeMap;

use tidegate_schemas::limits;
use tracing::{info, warn};

use super::core::Partition;
use super::engine::Consume;
use super::router::READ_BYTES;
use crate::catalogue::{Retention, Topic};
use crate::error::{ErrorKind, Result};
use crate::log::Position;

/// What is measured and let go of at once.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// What was found in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Of which topic.
    uid: u64,
    retention: Retention,
    /// Nothing is to go by its age before, in milliseconds since 1970.
    due: u64,
    /// How far it was routed before; nothing where nobody reads it.
    routed: Option<Position>,
}

impl Consume {
    /// Looks at every topic after each [`limits::RETENTION_INTERVAL`], until the process stops.
    pub(super) async fn retain_forever(&self) {
        let stopping = self.shared.environment.stopping();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(limits::RETENTION_INTERVAL) => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = self.sweep(true) => {}
            }
        }
    }

    /// Looks at every topic once and lets go of what it keeps no longer. Gives how many positions that were. What a broker
    /// refuses is told, and tried again with the next look.
    pub async fn retain(&self) -> u64 {
        self.sweep(false).await
    }

    /// As [`Consume::retain`], though partitions are left out, where that is asked for, of which nothing can be to go.
    pub(super) async fn sweep(&self, leave_out: bool) -> u64 {
        let topics: Vec<_> = self.shared.catalogue.view().topics.values().cloned().collect();
        self.looks.lock().retain(|partition, look| {
            let topic = self.shared.catalogue.topic(partition.topic.as_str());
            topic.is_some_and(|topic| topic.uid == look.uid)
        });
        let mut all = 0;
        for topic in topics {
            let retention = topic.spec.retention;
            // What somebody else keeps on the broker is theirs to let go of.
            if retention == Retention::default() || topic.spec.attached.is_some() {
                continue;
            }
            let mut gone = 0;
            for number in 0..topic.spec.partitions {
                let partition = Partition { topic: topic.spec.name.clone(), number };
                if !self.shared.owned_of(&partition).is_some_and(|owned| owned.holds()) {
                    continue;
                }
                let look = self.look_before(&partition, &topic);
                if leave_out && self.rests(&partition, look) {
                    continue;
                }
                match self.retain_partition(&partition, retention).await {
                    Ok((count, due)) => {
                        gone += count;
                        self.looks.lock().insert(partition, Look { due, ..look });
                    }
                    // Deleted meanwhile.
                    Err(error) if *error.kind() == ErrorKind::NotFound => {}
                    Err(error) => {
                        warn!(topic = %partition.topic, partition = number, %error,
                            "events that a topic keeps no longer cannot be let go of; it is tried again");
                    }
                }
            }
            if gone > 0 {
                info!(topic = %topic.spec.name, events = gone, "a topic let go of events by its retention");
            }
            all += gone;
        }
        all
    }

    /// How a partition stands before it is looked at.
    fn look_before(&self, partition: &Partition, topic: &Topic) -> Look {
        let routed = self.shared.router(partition).map(|router| router.peek());
        Look { uid: topic.uid, retention: topic.spec.retention, due: 0, routed }
    }

    /// Whether nothing can be to go since the last look.
    fn rests(&self, partition: &Partition, now: Look) -> bool {
        let Some(last) = self.looks.lock().get(partition).copied() else { return false };
        let same = (last.uid, last.retention) == (now.uid, now.retention);
        let written = now.retention.bytes.is_some() && (now.routed.is_none() || now.routed != last.routed);
        same && !written && self.shared.environment.clock.unix_milliseconds() < last.due
    }

    /// Gives how many positions were let go of, and before when nothing more is to go by its age.
    async fn retain_partition(&self, partition: &Partition, retention: Retention) -> Result<(u64, u64)> {
        let id = partition.log();
        let now = self.shared.environment.clock.unix_milliseconds();
        let info = self.shared.log.info(&id).await?;
        let (first, mut begin, mut due) = (info.begin, info.begin, u64::MAX);
        if let Some(age) = retention.age {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            // What comes is not older than this moment.
            due = now.saturating_add(age);
            if info.begin < info.end {
                let until = self.shared.log.lookup(&id, now.saturating_sub(age)).await?;
                if until > begin {
                    self.let_go(partition, begin, until).await?;
                    begin = until;
                    due = now;
                } else if let Some(oldest) = self.appended_at(&id, begin).await? {
                    due = oldest.saturating_add(age);
                }
            }
        }
        let Some(bytes) = retention.bytes else { return Ok((begin.0 - first.0, due)) };
        loop {
            let info = self.shared.log.info(&id).await?;
            let excess = info.bytes.saturating_sub(bytes);
            if excess == 0 || info.begin >= info.end {
                return Ok((info.begin.0 - first.0, due));
            }
            let until = self.measure(partition, info.begin, info.end, excess.min(STEP_BYTES)).await?;
            self.let_go(partition, info.begin, until).await?;
        }
    }

    /// The first position behind so many bytes, at least one record on.
    async fn measure(&self, partition: &Partition, begin: Position, end: Position, wanted: u64) -> Result<Position> {
        let mut tail = self.shared.log.tail(&partition.log(), begin).await?;
        let mut bytes = 0;
        while tail.position() < end {
            for stored in tail.next(READ_BYTES).await?.records {
                bytes += stored.bytes() as u64;
                if bytes >= wanted {
                    return Ok(stored.position.next());
                }
            }
        }
        Ok(end)
    }

    /// Trims, and tells which subscriptions lose by it.
    async fn let_go(&self, partition: &Partition, begin: Position, until: Position) -> Result<()> {
        let losses = self.losses(partition, begin, until).await?;
        self.shared.log.trim(&partition.log(), until).await?;
        for (uid, count) in losses {
            let Some(core) = self.shared.cores.lock().get(&uid).cloned() else { continue };
            self.shared.tell_trimmed(&core, partition, count);
        }
        Ok(())
    }

    /// How many events each subscription has not read of those that are to go. One whose events are in memory has them.
    async fn losses(&self, partition: &Partition, begin: Position, until: Position) -> Result<BTreeMap<u64, u64>> {
        let Some(routed) = self.shared.router(partition).map(|router| router.peek()) else {
            return Ok(BTreeMap::new());
        };
        let cores: Vec<_> = self.shared.cores.lock().values().cloned().collect();
        let mut losses = BTreeMap::new();
        for core in cores {
            let Some(read) = core.read_of(partition, routed).map(|read| read.max(begin)) else { continue };
            let count = self.records_between(&partition.log(), read, until).await?;
            if count > 0 {
                losses.insert(core.uid, count);
            }
        }
        Ok(losses)
    }
}
