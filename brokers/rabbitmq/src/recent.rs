//! What is known of journals from the last question about them.
//!
//! Confirmations carry no position, so an owner asks for the end of its journal with every commit and sign of life, and reads
//! back up to it. To tell the end, its last records were read already: they are kept for a moment, and whoever reads on from
//! there gets them without asking once more.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_backbone::{Position, Stored};
use tidegate_schemas::limits;
use tokio::time::Instant;

/// A record and what it is known again by.
pub(crate) type Seen = (Stored, u64);

/// Journals beyond which those are forgotten that nobody has asked for lately.
const MANY: usize = 256;

#[derive(Debug)]
struct Entry {
    /// Where the journal begins, and when that was asked. It goes as a whole, and begins elsewhere only where the broker was
    /// told to let go of its records; then what is read next shows a gap.
    begin: (Position, Instant),
    asked: Instant,
    records: Vec<Seen>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<HashMap<String, Entry>>);

impl Recent {
    /// Where a journal begins, where that was asked lately.
    pub(crate) fn begin(&self, stream: &str) -> Option<Position> {
        let entries = self.0.lock();
        let (begin, asked) = entries.get(stream)?.begin;
        (asked.elapsed() < limits::RABBITMQ_BEGIN_AGE).then_some(begin)
    }

    /// Takes notice of what was read; `begin` where it was asked for too.
    pub(crate) fn saw(&self, stream: &str, begin: Option<Position>, records: Vec<Seen>, bytes: usize) {
        let now = Instant::now();
        let records = if bytes > limits::RABBITMQ_RECENT_BYTES { Vec::new() } else { records };
        let mut entries = self.0.lock();
        if entries.len() >= MANY {
            entries.retain(|_, entry| entry.asked.elapsed() < limits::RABBITMQ_BEGIN_AGE);
        }
        match (entries.get_mut(stream), begin) {
            (Some(entry), begin) => {
                entry.begin = begin.map_or(entry.begin, |begin| (begin, now));
                (entry.asked, entry.records) = (now, records);
            }
            (None, Some(begin)) => {
                entries.insert(stream.to_owned(), Entry { begin: (begin, now), asked: now, records });
            }
            (None, None) => {}
        }
    }

    /// The records from that position on, where the last question has read it a moment ago. They are given once.
    pub(crate) fn take(&self, stream: &str, from: Position) -> Option<Vec<Seen>> {
        /// Somebody who asked for the end reads up to it at once.
        const MOMENT: Duration = Duration::from_millis(500);
        let mut entries = self.0.lock();
        let entry = entries.get_mut(stream).filter(|entry| entry.asked.elapsed() < MOMENT)?;
        let at = entry.records.iter().position(|(stored, _)| stored.position == from)?;
        let records = std::mem::take(&mut entry.records).split_off(at);
        let follows = |pair: &[Seen]| pair[0].0.position.next() == pair[1].0.position;
        records.windows(2).all(follows).then_some(records)
    }

    /// What was known may not hold any more.
    pub(crate) fn forget(&self, stream: &str) {
        self.0.lock().remove(stream);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_backbone::Record;

    use super::*;

    fn records(positions: impl IntoIterator<Item = u64>) -> Vec<Seen> {
        let stored = |position| Stored {
            position: Position(position),
            appended_at: 0,
            record: Record::Frame(bytes::Bytes::new()),
        };
        positions.into_iter().map(|position| (stored(position), position)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_given_once_whole_and_for_a_moment() {
        let recent = Recent::default();
        let taken = |from| recent.take("s", Position(from)).map(|records| records.len());
        recent.saw("s", None, records(3..6), 0);
        assert_eq!((taken(3), recent.begin("s")), (None, None), "where it begins is not known");
        recent.saw("s", Some(Position(1)), records(3..6), 0);
        assert_eq!((taken(2), taken(6), taken(4), taken(4)), (None, None, Some(2), None));
        recent.saw("s", None, records([3, 5]), 0);
        assert_eq!(taken(3), None, "with a gap");
        recent.saw("s", None, records(3..6), limits::RABBITMQ_RECENT_BYTES + 1);
        assert_eq!(taken(3), None, "too much to keep");
        recent.saw("s", None, records(3..6), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((taken(3), recent.begin("s")), (None, Some(Position(1))), "too long ago");
        tokio::time::advance(limits::RABBITMQ_BEGIN_AGE).await;
        assert_eq!(recent.begin("s"), None);
        recent.saw("s", Some(Position(1)), records(3..6), 0);
        recent.forget("s");
        assert_eq!((taken(3), recent.begin("s")), (None, None));
    }
}
