//! How far a subscription is behind its topics.

use super::engine::Consume;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, Position};

/// How far a subscription is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events from the oldest that is not settled to the end, over its partitions, whether its filters pass them or not.
    /// On brokers whose positions have gaps there are no more than that.
    pub events: u64,
    /// When the oldest of them was stored, in milliseconds since 1970; none where all are settled.
    pub oldest_appended_at: Option<u64>,
}

impl Consume {
    /// How far a subscription is behind; none where it has ended. One record of each partition is read for it.
    pub async fn lag(&self, uid: u64) -> Result<Option<Lag>> {
        let core = self.shared.cores.lock().get(&uid).cloned();
        let Some(core) = core else { return Ok(None) };
        let routed = |partition: &_| self.shared.router(partition).map_or(Position::ZERO, |router| router.peek());
        let mut lag = Lag::default();
        for (partition, oldest) in core.oldest(routed) {
            let id = partition.log();
            let info = match self.shared.log.info(&id).await {
                Ok(info) => info,
                // The topic was deleted meanwhile.
                Err(error) if *error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let oldest = oldest.max(info.begin);
            if oldest >= info.end {
                continue;
            }
            lag.events += info.end.0 - oldest.0;
            if let Some(at) = self.appended_at(&id, oldest).await? {
                lag.oldest_appended_at = Some(lag.oldest_appended_at.map_or(at, |known| known.min(at)));
            }
        }
        Ok(Some(lag))
    }

    async fn appended_at(&self, id: &LogId, position: Position) -> Result<Option<u64>> {
        let first = async {
            let batch = self.shared.log.tail(id, position).await?.next(1).await?;
            Ok::<_, Error>(batch.records.first().map(|stored| stored.appended_at))
        };
        match first.await {
            // Trimmed since it was asked where the log begins.
            Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. } | ErrorKind::NotFound) => Ok(None),
            other => other,
        }
    }
}
