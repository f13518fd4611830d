//! Where the events of one backbone are on the other: found again by reading both in step, from the nearest place that is
//! known of both. Positions of brokers have gaps, and what was written twice takes two, so that nothing can be counted.

use std::collections::{BTreeSet, HashMap};

use super::copy::{Back, Copier, digest_of, open_at};
use super::entry::Copied;
use crate::consume::carry::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, Position, Tail};

/// Both logs, read in step.
struct Walk {
    source: Box<dyn Tail>,
    ahead: std::collections::VecDeque<(Position, super::digest::Digest)>,
    target: Back,
    /// The event that was reached last, here and there.
    at: Option<(Position, Position)>,
}

impl Copier {
    /// Finds positions of a partition that was copied.
    ///
    /// # Errors
    /// What either broker says; [`ErrorKind::DataLoss`] where the new one lacks what was read back from it.
    pub(super) async fn find(
        &self,
        id: &LogId,
        copied: &Copied,
        wanted: &BTreeSet<Position>,
    ) -> Result<HashMap<Position, Found>> {
        let mut found = HashMap::new();
        let mut walk: Option<Walk> = None;
        for position in wanted {
            if *position >= copied.source {
                found.insert(*position, Found { position: copied.target, exact: false });
                continue;
            }
            let sample = copied.sample_before(*position).or_else(|| copied.samples.first().copied());
            let Some((near, there)) = sample else {
                found.insert(*position, Found { position: copied.target, exact: false });
                continue;
            };
            let goes_on = walk.as_ref().and_then(|walk| walk.at).is_some_and(|(at, _)| at >= near);
            if !goes_on {
                walk = Some(Walk {
                    source: open_at(&self.source, id, near).await?,
                    ahead: std::collections::VecDeque::new(),
                    target: Back::open(&self.target, id, there).await?,
                    at: None,
                });
            }
            if let Some(walk) = &mut walk {
                found.insert(*position, walk.to(id, copied, *position).await?);
            }
        }
        Ok(found)
    }
}

impl Walk {
    /// Goes on to the first event that is not before a position.
    async fn to(&mut self, id: &LogId, copied: &Copied, position: Position) -> Result<Found> {
        loop {
            if let Some((here, there)) = self.at.filter(|(here, _)| *here >= position) {
                return Ok(Found { position: there, exact: here == position });
            }
            while self.ahead.is_empty() && self.source.position() < copied.source {
                for stored in self.source.next(tidegate_schemas::limits::MIGRATION_BATCH_BYTES).await?.records {
                    self.ahead.push_back((stored.position, digest_of(&stored.record)?));
                }
            }
            let next = self.ahead.pop_front().filter(|(here, _)| *here < copied.source);
            let Some((here, digest)) = next else { return Ok(Found { position: copied.target, exact: false }) };
            let there = self.target.find(digest, copied.target).await?.ok_or_else(|| {
                let context =
                    format!("the event at position {here} of {id} was copied, and is not on the new backbone");
                Error::new(ErrorKind::DataLoss, context)
            })?;
            self.at = Some((here, there));
        }
    }
}
