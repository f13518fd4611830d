mod faults;
mod leases;
mod rolls;
mod semantics;

use super::*;
use crate::error::ErrorKind;
use crate::log::{LogId, Record, Stored};
use crate::slot::frame::{Frame, Generation, Kind};
use crate::slot::reader::replay;
use crate::testing::{Fault, MemoryBroker, MemoryLog, environment, frame_bytes};

const FIRST: LogId = LogId::Slot { slot: 0, epoch: 0, suffix: 0 };

async fn open(client: &Arc<MemoryLog>, seed: u64) -> Journal {
    open_with(client, seed, Options::default()).await.unwrap()
}

async fn open_with(client: &Arc<MemoryLog>, seed: u64, options: Options) -> Result<Journal> {
    Journal::open(Arc::clone(client) as Arc<dyn PartitionLog>, 0, environment(seed), options).await
}

fn put(key: &str, expect: Expect, value: &str) -> Command {
    Command::new().put(key.to_owned(), expect, value.to_owned())
}

fn frames(records: &[Stored]) -> Vec<Frame> {
    records.iter().map(|stored| Frame::decode(frame_bytes(stored).unwrap()).unwrap()).collect()
}

fn kind_of(record: &Record) -> Kind {
    let Record::Frame(bytes) = record else { panic!("an event in a slot") };
    Frame::decode(bytes).unwrap().kind
}

/// A reader that folds the logs must come to what the owner has.
async fn same_as_replayed(broker: &MemoryBroker, journal: &Journal) {
    let log: Arc<dyn PartitionLog> = broker.client();
    let chain = replay(&log, 0).await.unwrap().unwrap();
    let state = journal.shared.state.read();
    assert!(*chain.heads() == state.heads, "replayed {:?}, owned {:?}", chain.heads(), state.heads);
}
