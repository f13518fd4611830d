//! What became of a load: everything acknowledged must be there, whole, in the order of its key, and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_json::Value;

use crate::client::Client;
use crate::load;

/// One event as it was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// `id`.
    pub id: String,
    /// `source`.
    pub source: String,
    /// `partitionkey`.
    pub key: Option<String>,
    /// `data`, as JSON.
    pub data: Value,
}

/// Reads a whole topic, page by page.
///
/// # Panics
///
/// Where a page is refused or is no batch of events.
pub async fn read_topic(client: &Client, topic: &str) -> Vec<Recorded> {
    let mut events = Vec::new();
    let mut path = format!("/topics/{topic}/events?from=earliest&limit=1000");
    loop {
        let page = client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}")).expect(200);
        assert_eq!(page.media_type(), "application/cloudevents-batch+json", "{page}");
        let batch = page.json();
        let batch = batch.as_array().unwrap_or_else(|| panic!("a batch is an array: {page}"));
        events.extend(batch.iter().map(recorded));
        match page.next_page() {
            Some(next) if !batch.is_empty() => {
                assert_ne!(next, path, "the next page is this one");
                path = next;
            }
            _ => return events,
        }
    }
}

fn recorded(event: &Value) -> Recorded {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    assert_eq!(event["specversion"], "1.0", "no CloudEvent 1.0: {event}");
    Recorded {
        id: text("id").unwrap_or_else(|| panic!("an event without id: {event}")),
        source: text("source").unwrap_or_else(|| panic!("an event without source: {event}")),
        key: text("partitionkey"),
        data: event["data"].clone(),
    }
}

/// What a comparison of a ledger with a topic came to. The lists hold at most the first [`Verdict::EXAMPLES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Events acknowledged, by the ledger.
    pub acknowledged: u64,
    /// Events read back, repeats included.
    pub read: u64,
    /// Repeats: the same source and id again.
    pub duplicates: u64,
    /// How many acknowledged events are missing.
    pub lost: u64,
    /// Some of those.
    pub lost_examples: Vec<String>,
    /// Events that nobody published.
    pub unknown: Vec<String>,
    /// Events whose key, source or payload is not what was published.
    pub altered: Vec<String>,
    /// Events behind a later one of their key.
    pub disordered: Vec<String>,
}

impl Verdict {
    /// How many examples of a fault are kept.
    pub const EXAMPLES: usize = 20;

    /// Checks that nothing was lost, made up, changed or disordered. Repeats are allowed.
    ///
    /// # Panics
    ///
    /// Where something was.
    #[track_caller]
    pub fn assert_sound(&self) {
        let faults = [&self.unknown, &self.altered, &self.disordered];
        assert!(self.lost == 0 && faults.iter().all(|list| list.is_empty()), "{self}\n{self:#?}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} acknowledged, {} read back, {} duplicates, {} lost, {} unknown, {} altered, {} out of order",
            self.acknowledged,
            self.read,
            self.duplicates,
            self.lost,
            self.unknown.len(),
            self.altered.len(),
            self.disordered.len()
        )
    }
}

/// Compares what each producer had acknowledged (events `0..acknowledged[producer]`) with what was read back.
///
/// Event `acknowledged[producer]` was perhaps sent and may be there; a higher one was never sent.
pub fn check(acknowledged: &[u64], read: &[Recorded]) -> Verdict {
    let mut verdict =
        Verdict { acknowledged: acknowledged.iter().sum(), read: read.len() as u64, ..Verdict::default() };
    let mut seen: Vec<HashSet<u64>> = acknowledged.iter().map(|_| HashSet::new()).collect();
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    for event in read {
        let known = load::parse_id(&event.id)
            .filter(|(producer, n)| acknowledged.get(*producer).is_some_and(|count| n <= count));
        let Some((producer, n)) = known else {
            example(&mut verdict.unknown, &event.id);
            continue;
        };
        let payload: Value = serde_json::from_str(&load::payload(producer, n)).expect("our own payload is JSON");
        let intact = event.source == load::source(producer)
            && event.key.as_deref() == Some(&load::key(producer))
            && event.data == payload;
        if !intact {
            example(&mut verdict.altered, &event.id);
        }
        if newest.get(&producer).is_some_and(|newest| n < *newest) {
            example(&mut verdict.disordered, &event.id);
        }
        newest.entry(producer).and_modify(|newest| *newest = n.max(*newest)).or_insert(n);
        if !seen[producer].insert(n) {
            verdict.duplicates += 1;
        }
    }
    for (producer, count) in acknowledged.iter().enumerate() {
        for n in (0..*count).filter(|n| !seen[producer].contains(n)) {
            verdict.lost += 1;
            example(&mut verdict.lost_examples, &load::id(producer, n));
        }
    }
    verdict
}

fn example(list: &mut Vec<String>, id: &str) {
    if list.len() < Verdict::EXAMPLES {
        list.push(id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::{Recorded, Value, Verdict, check, load};

    fn event(producer: usize, n: u64) -> Recorded {
        Recorded {
            id: load::id(producer, n),
            source: load::source(producer),
            key: Some(load::key(producer)),
            data: serde_json::from_str(&load::payload(producer, n)).unwrap(),
        }
    }

    /// Checks the verdict on a history given as (producer, n), with a change made to it.
    fn verdict(acknowledged: &[u64], history: &[(usize, u64)], change: impl Fn(&mut Vec<Recorded>)) -> Verdict {
        let mut read = history.iter().map(|(producer, n)| event(*producer, *n)).collect();
        change(&mut read);
        check(acknowledged, &read)
    }

    #[test]
    fn good_histories_are_sound() {
        verdict(&[], &[], |_| ()).assert_sound();
        verdict(&[2, 1], &[(0, 0), (1, 0), (0, 1)], |_| ()).assert_sound();
        // The event that was sent last and got no answer.
        verdict(&[2, 1], &[(0, 0), (1, 0), (0, 1), (0, 2)], |_| ()).assert_sound();
        let repeated = verdict(&[2], &[(0, 0), (0, 1), (0, 1)], |_| ());
        repeated.assert_sound();
        assert_eq!(repeated.duplicates, 1);
    }

    #[test]
    fn bad_histories_are_told_by_their_fault() {
        let lost = verdict(&[3], &[(0, 0), (0, 2)], |_| ());
        assert_eq!((lost.lost, lost.lost_examples), (1, vec!["p0-1".to_owned()]));
        assert_eq!(verdict(&[1], &[(0, 0), (0, 2)], |_| ()).unknown, ["p0-2"]);
        assert_eq!(verdict(&[1], &[(0, 0), (1, 0)], |_| ()).unknown, ["p1-0"]);
        assert_eq!(verdict(&[2], &[(0, 1), (0, 0)], |_| ()).disordered, ["p0-0"]);
        assert_eq!(verdict(&[3], &[(0, 0), (0, 1), (0, 2), (0, 1)], |_| ()).disordered, ["p0-1"]);
        assert_eq!(verdict(&[1], &[(0, 0)], |read| read[0].data = Value::Null).altered, ["p0-0"]);
        assert_eq!(verdict(&[1], &[(0, 0)], |read| read[0].key = None).altered, ["p0-0"]);
        assert_eq!(verdict(&[1], &[(0, 0)], |read| "x".clone_into(&mut read[0].source)).altered, ["p0-0"]);
    }
}
