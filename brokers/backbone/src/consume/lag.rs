//! How far a subscription is behind its topics.

use futures_util::stream::{self, StreamExt as _};
use tidegate_schemas::limits;

use super::engine::Consume;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{BoxFuture, LogId, Position};

/// How far a subscription is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events from the oldest that is not settled to the end, over its partitions, whether its filters pass them or not: as
    /// exact as [`PartitionLog::count`](crate::PartitionLog::count).
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
        let asked: Vec<BoxFuture<'_, Result<Lag>>> = core
            .oldest(routed)
            .into_iter()
            .map(|(partition, oldest)| Box::pin(self.lag_of(partition.log(), oldest)) as BoxFuture<'_, _>)
            .collect();
        let mut lag = Lag::default();
        let mut parts = stream::iter(asked).buffer_unordered(limits::BROKER_QUESTIONS);
        while let Some(part) = parts.next().await {
            let part = part?;
            lag.events += part.events;
            lag.oldest_appended_at = lag.oldest_appended_at.into_iter().chain(part.oldest_appended_at).min();
        }
        Ok(Some(lag))
    }

    /// How far one is behind that has settled everything before that position; nothing where the topic was deleted meanwhile.
    async fn lag_of(&self, id: LogId, oldest: Position) -> Result<Lag> {
        let info = match self.shared.log.info(&id).await {
            Ok(info) => info,
            Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(Lag::default()),
            Err(error) => return Err(error),
        };
        let oldest = oldest.max(info.begin);
        if oldest >= info.end {
            return Ok(Lag::default());
        }
        let events = match self.shared.log.count(&id, oldest).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(Lag::default()),
            counted => counted?,
        };
        Ok(Lag { events, oldest_appended_at: self.appended_at(&id, oldest).await? })
    }

    /// Events between what a subscription has read and what is routed, in the partitions that are delivered here.
    pub(super) async fn behind(&self, uid: u64) -> Result<u64> {
        let core = self.shared.cores.lock().get(&uid).cloned();
        let mut behind = 0;
        for (partition, read) in core.iter().flat_map(|core| core.behind()) {
            let Some(routed) = self.shared.router(&partition).map(|router| router.peek()) else { continue };
            behind += self.records_between(&partition.log(), read, routed).await?;
        }
        Ok(behind)
    }

    /// How many records stand from one position up to another; what is appended meanwhile may be left out.
    pub(super) async fn records_between(&self, id: &LogId, from: Position, until: Position) -> Result<u64> {
        let span = until.0.saturating_sub(from.0);
        if span == 0 {
            return Ok(0);
        }
        let all = self.shared.log.count(id, from).await?;
        Ok(all.saturating_sub(self.shared.log.count(id, until).await?).min(span))
    }

    /// When the first record from a position on was stored; nothing where there is none any more.
    pub(super) async fn appended_at(&self, id: &LogId, position: Position) -> Result<Option<u64>> {
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
