//! What an adapter must keep beside the suite: servers that die, stand still or refuse, records of others, and names.
//! Every fault has its control: the same without the fault, or the fault where it must show.
#![allow(clippy::disallowed_methods, reason = "a test beside the product, not inside it")]

mod attached;
mod bare;
mod faults;
mod jwt;
mod lanes;
mod refusals;
mod secured;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_backbone::{Environment, ErrorKind, LogId, PartitionLog, Position, Record, Result, Stored};
use tidegate_nats::{NatsBroker, Options};
use tidegate_schemas::Event;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(50);

/// Options of a part of the server that no other test uses.
fn options(url: &str) -> Options {
    static PARTS: AtomicU64 = AtomicU64::new(0);
    let part = PARTS.fetch_add(1, Ordering::Relaxed);
    let mut options = Options::new(url).expect("the script prints addresses");
    options.namespace = format!("test-{part}");
    options.topic_prefix = format!("test-{part}.");
    options
}

async fn open(options: &Options) -> Arc<NatsBroker> {
    NatsBroker::open(options.clone(), &Environment::system()).await.expect("the server is fit")
}

fn partition(partition: u32) -> LogId {
    LogId::Topic { topic: "orders".into(), partition }
}

fn slot() -> LogId {
    LogId::Slot { slot: 0, epoch: 0, suffix: 0 }
}

fn event(id: impl Into<String>) -> Record {
    Record::Event(Event::builder(id.into(), "/tests", "com.example.test").build().expect("the parts are valid"))
}

fn id_of(stored: &Stored) -> String {
    match &stored.record {
        Record::Event(event) => event.id().to_string(),
        Record::Frame(frame) => String::from_utf8_lossy(frame).into_owned(),
    }
}

/// What is answered; a stream whose leader died has none for a while, and is asked again.
async fn patiently<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            match ask().await {
                Err(error) if *error.kind() == ErrorKind::Unavailable => tokio::time::sleep(STEP).await,
                answered => break answered.expect("the log is there"),
            }
        }
    };
    tokio::time::timeout(HANG, asked).await.expect("a stream gets a leader again")
}

/// The records from a position to the end as it is now.
async fn read(log: &dyn PartitionLog, id: &LogId, from: Position) -> Vec<Stored> {
    let end = patiently(|| log.info(id)).await.end;
    let mut tail = patiently(|| log.tail(id, from)).await;
    let mut records = Vec::new();
    while tail.position() < end {
        let batch = tokio::time::timeout(HANG, tail.next(256 * 1024)).await.expect("records before the end");
        records.extend(batch.expect("they can be read").records);
    }
    records
}
