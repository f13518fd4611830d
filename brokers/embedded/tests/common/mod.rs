//! What the tests of this crate share: a clock that is set, events, and a log on a disk in memory that is driven by hand.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tidegate_backbone::{
    Appended, BoxFuture, Clock, Environment, LogId, LogSpec, PartitionLog, Position, Random, Record, Result, Stored,
};
use tidegate_embedded::storage::crashing::{CrashingStorage, Seeded};
use tidegate_embedded::{EmbeddedLog, Options};
use tidegate_schemas::Event;

#[derive(Debug)]
pub struct HeldClock(pub AtomicU64);

impl Clock for HeldClock {
    fn unix_milliseconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
pub struct SeededRandom(parking_lot::Mutex<Seeded>);

impl Random for SeededRandom {
    fn bits(&self) -> u64 {
        self.0.lock().bits()
    }
}

pub const START: u64 = 1_700_000_000_000;

pub fn environment(seed: u64) -> (Environment, Arc<HeldClock>) {
    let clock = Arc::new(HeldClock(AtomicU64::new(START)));
    let random = Arc::new(SeededRandom(parking_lot::Mutex::new(Seeded(seed))));
    (Environment::new(Arc::clone(&clock) as Arc<dyn Clock>, random), clock)
}

/// Small segments, no thread, reads on the spot.
pub fn small() -> Options {
    let mut options = Options::new("memory");
    options.segment_bytes = 4 * 1024;
    options.allocation_bytes = 1024;
    options.recent_bytes = 0;
    options.read_threads = 0;
    options.by_hand = true;
    options
}

pub fn open(storage: &Arc<CrashingStorage>, options: Options) -> Result<Arc<EmbeddedLog>> {
    EmbeddedLog::open_on(Arc::clone(storage) as _, options, &environment(7).0)
}

pub fn topic(name: &str) -> LogId {
    LogId::Topic { topic: name.into(), partition: 0 }
}

pub fn event(id: impl Into<String>, bytes: usize) -> Record {
    let data = Bytes::from(vec![b'x'; bytes]);
    let event =
        Event::builder(id.into(), "/tests", "com.example.test").data(tidegate_schemas::event::Data::Binary(data));
    Record::Event(event.build().unwrap())
}

pub fn frame(text: impl Into<String>) -> Record {
    Record::Frame(Bytes::from(text.into()))
}

/// Drives the log until the future has its outcome.
pub fn done<T>(log: &EmbeddedLog, future: BoxFuture<'_, Result<T>>) -> Result<T> {
    log.drive();
    future.now_or_never().expect("the outcome is there once the log was driven")
}

pub fn create(log: &EmbeddedLog, id: &LogId) {
    done(log, log.create(LogSpec::from(id.clone()))).unwrap();
}

pub fn append(log: &EmbeddedLog, id: &LogId, record: Record) -> Result<u64> {
    let Appended { position } = done(log, log.append(id, record))?;
    Ok(position.expect("positions are told").0)
}

/// Everything from that position to the end.
pub fn read(log: &EmbeddedLog, id: &LogId, from: u64) -> Result<Vec<Stored>> {
    let end = log.info(id).now_or_never().unwrap()?.end.0;
    let mut tail = log.tail(id, Position(from)).now_or_never().unwrap()?;
    let mut records = Vec::new();
    while tail.position().0 < end {
        let batch = tail.next(1024).now_or_never().expect("records before the end are there")?;
        assert!(!batch.records.is_empty());
        records.extend(batch.records);
    }
    Ok(records)
}

/// How many seeds to run: `TIDEGATE_SEEDS`, or the default.
pub fn seeds(default: u64) -> u64 {
    std::env::var("TIDEGATE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
