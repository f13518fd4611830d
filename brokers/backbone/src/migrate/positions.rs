//! Where the events of one backbone are on the other: found again by reading both in step, from the nearest place that is
//! known of both. Positions of brokers have gaps, and what was written twice takes two, so that nothing can be counted.

use std::collections::{BTreeSet, HashMap};

use super::copy::{Back, Copier};
use super::entry::Copied;
use crate::consume::carry::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, Position};

/// Both logs, read in step.
struct Walk {
    source: Back,
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
            let sample = copied.sample_before(*position).or_else(|| copied.samples.first().copied());
            let Some((near, there)) = sample.filter(|_| *position < copied.source) else {
                found.insert(*position, Found { position: copied.target, exact: false });
                continue;
            };
            let mut on = match walk.take().filter(|walk| walk.at.is_some_and(|(at, _)| at >= near)) {
                Some(walk) => walk,
                None => Walk {
                    source: Back::open(&self.source, id, near).await?,
                    target: Back::open(&self.target, id, there).await?,
                    at: None,
                },
            };
            found.insert(*position, on.to(id, copied, *position).await?);
            walk = Some(on);
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
            let Some((here, digest)) = self.source.next_before(copied.source).await? else {
                return Ok(Found { position: copied.target, exact: false });
            };
            self.source.pass();
            let there = self.target.find(digest, copied.target).await?.ok_or_else(|| {
                let context =
                    format!("the event at position {here} of {id} was copied, and is not on the new backbone");
                Error::new(ErrorKind::DataLoss, context)
            })?;
            self.at = Some((here, there));
        }
    }
}
