//! Copies between brokers in memory, whose appends fail in every way that the contract allows.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tidegate_schemas::Event;

use super::copy::{Copier, Failure, may_pass};
use super::entry::Copied;
use crate::environment::Random;
use crate::error::ErrorKind;
use crate::log::{LogId, LogSpec, PartitionLog, Position, Record};
use crate::testing::{Fault, MemoryBroker, SeededRandom};

const EVENTS: u64 = 300;

fn log() -> LogId {
    LogId::Topic { topic: "orders".into(), partition: 0 }
}

fn event(id: u64) -> Record {
    Record::Event(Event::builder(id.to_string(), "/s", "t").build().unwrap())
}

async fn filled(broker: &MemoryBroker, events: u64) {
    broker.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    for id in 0..events {
        // Some are published twice.
        for _ in 0..=u64::from(id % 50 == 49) {
            broker.insert(&log(), event(id));
        }
    }
}

/// The faults of one run.
fn faults(seed: u64) -> impl FnMut(&LogId, &Record) -> Fault + Send + 'static {
    let random = SeededRandom::new(seed);
    let all = [Fault::Untold, Fault::Refused, Fault::Lost, Fault::Unknown, Fault::Late, Fault::Twice, Fault::TwiceLate];
    move |_, _| {
        let bits = random.bits();
        if bits % 1_500 < all.len() as u64 { all[(bits % 1_500) as usize] } else { Fault::None }
    }
}

/// Ids in the order in which they stand in a log for the first time.
fn firsts(broker: &MemoryBroker) -> Vec<Record> {
    let mut seen = HashSet::new();
    let first = |record: &Record| match record {
        Record::Event(event) => seen.insert(event.id().clone()),
        Record::Frame(_) => false,
    };
    broker.records(&log()).into_iter().map(|stored| stored.record).filter(first).collect()
}

/// Copies everything, as a coordinator does it; how often the topic was begun anew.
async fn carried(copier: &Copier, copied: &mut Copied) -> u32 {
    let mut anew = 0;
    loop {
        let end = copier.source.info(&log()).await.unwrap().end;
        match copier.copy(&log(), copied, end, 64).await {
            Ok(true) => return anew,
            Ok(false) => {}
            Err(Failure::Broker(error)) => assert!(may_pass(&error), "{error}"),
            Err(Failure::Unordered) => {
                anew += 1;
                copier.target.delete(LogSpec::topic("orders", 1)).await.unwrap();
                copier.target.create(LogSpec::topic("orders", 1)).await.unwrap();
                *copied = copier.begin(&log()).await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_copied_is_complete_and_in_order_whatever_the_broker_tells() {
    let (mut anew, mut repeated) = (0, 0);
    for seed in 0..60 {
        let source = MemoryBroker::default();
        let source = if seed % 2 == 0 { source } else { source.with_gaps() };
        let target = MemoryBroker::with_slots(2);
        let target = if seed % 3 == 0 { target } else { target.with_gaps() };
        filled(&source, EVENTS).await;
        target.client().create(LogSpec::topic("orders", 1)).await.unwrap();
        let copier = Copier { source: source.client(), target: target.faulty(faults(seed)) };
        let mut copied = copier.begin(&log()).await.unwrap();
        anew += carried(&copier, &mut copied).await;
        // What is published meanwhile is followed by a coordinator that knows what the first one wrote down.
        for id in EVENTS..EVENTS + 20 {
            source.insert(&log(), event(id));
        }
        let stored = crate::catalogue::write(&copied);
        let mut copied: Copied = crate::catalogue::read(b"k", &stored).unwrap();
        anew += carried(&copier, &mut copied).await;

        let records = source.records(&log());
        assert_eq!(copied.count, records.len() as u64, "seed {seed}");
        assert_eq!(firsts(&target), firsts(&source), "seed {seed}");
        repeated += target.records(&log()).len() - records.len();
        // Every event is found where it is, and what was never there where it would be.
        let wanted: BTreeSet<Position> = (0..=copied.source.0).map(Position).collect();
        let found = copier.find(&log(), &copied, &wanted).await.unwrap();
        let there = target.records(&log());
        let mut last = Position::ZERO;
        for position in wanted {
            let place = found[&position];
            let here = records.iter().find(|stored| stored.position == position);
            assert_eq!(place.exact, here.is_some(), "seed {seed} position {position}");
            assert!(place.position >= last, "seed {seed}: positions keep their order");
            last = place.position;
            if let Some(here) = here {
                let same = there.iter().find(|stored| stored.position == place.position).unwrap();
                assert_eq!(same.record, here.record, "seed {seed} position {position}");
            }
        }
    }
    assert!(anew > 0 && repeated > 0, "the faults show: {anew} begun anew, {repeated} written again");
}

#[tokio::test(start_paused = true)]
async fn the_control_that_believes_the_broker_loses_events() {
    let mut found_out = 0;
    for seed in 0..60 {
        let (source, target) = (MemoryBroker::default(), MemoryBroker::with_slots(2));
        filled(&source, EVENTS).await;
        target.client().create(LogSpec::topic("orders", 1)).await.unwrap();
        let client = target.faulty(faults(seed));
        for stored in source.records(&log()) {
            // Sent again where it was refused, and not where nothing was told.
            while client
                .append(&log(), stored.record.clone())
                .await
                .is_err_and(|error| *error.kind() == ErrorKind::Unavailable)
            {}
        }
        found_out += u32::from(firsts(&target) != firsts(&source));
    }
    assert!(found_out > 5, "{found_out}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wrote_is_not_taken_for_a_copy() {
    let (source, target) = (MemoryBroker::default(), MemoryBroker::with_slots(2));
    filled(&source, 5).await;
    target.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    target.insert(&log(), Record::Event(Event::builder("theirs", "/s", "t").build().unwrap()));
    let copier = Copier { source: source.client(), target: target.client() };
    let mut copied = copier.begin(&log()).await.unwrap();
    let outcome = copier.copy(&log(), &mut copied, Position(5), 100).await;
    assert!(matches!(&outcome, Err(Failure::Broker(error)) if *error.kind() == ErrorKind::Conflict), "{outcome:?}");
    assert_eq!(target.records(&log()).len(), 1, "nothing is written behind it");
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_is_found_as_what_comes_after_it() {
    let (source, target) = (MemoryBroker::default(), MemoryBroker::with_slots(2));
    filled(&source, 40).await;
    target.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    let copier = Copier { source: source.client(), target: target.client() };
    let mut copied = copier.begin(&log()).await.unwrap();
    assert!(copier.copy(&log(), &mut copied, Position(40), 100).await.unwrap());
    source.client().trim(&log(), Position(30)).await.unwrap();
    let wanted = [10, 30, 35, 40].map(Position).into_iter().collect();
    let found = copier.find(&log(), &copied, &wanted).await.unwrap();
    let places: Vec<(u64, bool)> = wanted.iter().map(|at| (found[at].position.0, found[at].exact)).collect();
    assert_eq!(places, [(30, false), (30, true), (35, true), (40, false)]);
    // What is trimmed before it was copied is left out.
    let late = MemoryBroker::with_slots(2);
    late.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    let copier = Copier { source: source.client(), target: late.client() };
    let mut copied = Copied::none(Position(0), Position(0));
    assert!(copier.copy(&log(), &mut copied, Position(40), 100).await.unwrap());
    assert_eq!((copied.count, late.records(&log()).len()), (10, 10));
    let target: Arc<dyn PartitionLog> = late.client();
    assert_eq!(target.info(&log()).await.unwrap().end, copied.target);
}
