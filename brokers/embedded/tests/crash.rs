//! Crashes in every operation, with every subset of what was not synchronised: what was acknowledged is there, in order,
//! and nothing is there that was not appended. Two controls must lose something.

#![expect(clippy::print_stdout, reason = "the figures of a run show that it did something")]

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind as ErrorKindOfIo;
use std::sync::Arc;

use common::{append, create, environment, frame, open, seeds, small, topic};
use futures_util::FutureExt;
use tidegate_backbone::{Applied, ErrorKind, LogId, LogSpec, PartitionLog, Position, Record, Stored};
use tidegate_embedded::storage::crashing::{CrashingStorage, Injection, Seeded, Target};
use tidegate_embedded::{EmbeddedLog, Fault, Options};

/// What one log must and may hold. Records are named by a number that is never used twice.
#[derive(Debug, Default, Clone)]
struct Expected {
    /// In order; the flag says whether it was acknowledged. A record whose outcome is not known may be missing.
    records: Vec<(u64, bool)>,
    /// Positions that were acknowledged.
    positions: BTreeMap<u64, u64>,
    /// Records before this were trimmed, acknowledged; up to `trimmed_maybe` it was asked for.
    trimmed: u64,
    trimmed_maybe: u64,
    /// Whether it must exist, and whether it may.
    must: bool,
    may: bool,
}

type Model = BTreeMap<LogId, Expected>;

#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    crashes: u64,
    recovered_records: u64,
    lost: u64,
    segments_removed: u64,
    copied: u64,
    refused: u64,
}

struct Simulation {
    seed: u64,
    random: Seeded,
    model: Model,
    next: u64,
    options: Options,
    noop: bool,
    tally: Tally,
}

fn text(number: u64, random: &mut Seeded) -> String {
    format!("{number}:{}", "x".repeat(usize::try_from(random.below(300)).unwrap()))
}

fn number_of(stored: &Stored) -> u64 {
    let Record::Frame(bytes) = &stored.record else { panic!("only frames are appended") };
    std::str::from_utf8(bytes).unwrap().split(':').next().unwrap().parse().unwrap()
}

impl Simulation {
    fn new(seed: u64, options: Options, noop: bool) -> Self {
        Self { seed, random: Seeded(seed), model: Model::new(), next: 0, options, noop, tally: Tally::default() }
    }

    /// Opens, works, crashes, again and again, and checks after each crash. An error is a lost record.
    fn run(&mut self) -> Result<(), String> {
        let mut storage = CrashingStorage::new();
        for _ in 0..4 {
            storage.sync_is_noop(self.noop);
            // A crash in the opening, too: that is a double crash.
            let horizon = [6, 30, 200][usize::try_from(self.random.below(3)).unwrap()];
            let at = storage.operations() + 1 + self.random.below(horizon);
            storage.crash_at(Some(at));
            match open(&storage, self.options.clone()) {
                Ok(log) => {
                    // The machine may crash in the last operation of the opening, and then nothing can be read.
                    if let Err(lost) = self.check(&log)
                        && !storage.crashed()
                    {
                        return Err(lost);
                    }
                    self.work(&storage, &log);
                    self.tally.segments_removed += log.counters().segments_removed;
                    self.tally.copied += log.counters().records_copied;
                    self.tally.refused += log.counters().storage_full;
                    storage = self.crash(&storage);
                    drop(log);
                }
                Err(error) if storage.crashed() => {
                    assert_ne!(*error.kind(), ErrorKind::DataLoss, "seed {}: {error}", self.seed);
                    storage = self.crash(&storage);
                }
                Err(error) => return Err(format!("seed {}: cannot open: {error}", self.seed)),
            }
        }
        let log = open(&storage, self.options.clone()).map_err(|error| format!("seed {}: {error}", self.seed))?;
        self.check(&log)
    }

    fn crash(&mut self, storage: &Arc<CrashingStorage>) -> Arc<CrashingStorage> {
        self.tally.crashes += 1;
        storage.reboot(self.random.bits())
    }

    fn work(&mut self, storage: &Arc<CrashingStorage>, log: &Arc<EmbeddedLog>) {
        for _ in 0..60 {
            if storage.crashed() {
                return;
            }
            if self.random.below(15) == 0 {
                let target = if self.random.below(2) == 0 { Target::Write } else { Target::Allocate };
                storage.inject(Injection { target, skip: 0, times: 1, error: ErrorKindOfIo::StorageFull });
            }
            let id = topic(["a", "b", "c"][usize::try_from(self.random.below(3)).unwrap()]);
            match self.random.below(20) {
                0..=1 => {
                    let outcome = common::done(log, log.create(LogSpec::from(id.clone())));
                    let expected = self.model.entry(id).or_default();
                    if !expected.may {
                        *expected = Expected::default();
                    }
                    expected.may = true;
                    if outcome.is_ok() {
                        expected.must = true;
                    }
                }
                2 if self.random.below(8) == 0 => {
                    let outcome = common::done(log, log.delete(LogSpec::from(id.clone())));
                    if let Some(expected) = self.model.get_mut(&id) {
                        expected.must = false;
                        if outcome.is_ok() {
                            *expected = Expected::default();
                        }
                    }
                }
                3..=4 => {
                    let Ok(info) = log.info(&id).now_or_never().unwrap() else { continue };
                    let before = info.begin.0 + self.random.below(info.end.0 - info.begin.0 + 1);
                    let outcome = common::done(log, log.trim(&id, Position(before)));
                    let expected = self.model.get_mut(&id).unwrap();
                    expected.trimmed_maybe = expected.trimmed_maybe.max(before);
                    if outcome.is_ok() {
                        expected.trimmed = expected.trimmed.max(before);
                    }
                }
                _ => self.append_some(log, &id),
            }
        }
    }

    /// A few appends at once, so that they share a commit.
    fn append_some(&mut self, log: &Arc<EmbeddedLog>, id: &LogId) {
        let mut waiting = Vec::new();
        for _ in 0..=self.random.below(6) {
            let number = self.next;
            self.next += 1;
            waiting.push((number, log.append(id, frame(text(number, &mut self.random)))));
        }
        log.drive();
        for (number, future) in waiting {
            match future.now_or_never().expect("driven") {
                Ok(appended) => {
                    self.tally.acknowledged += 1;
                    let expected = self.model.get_mut(id).unwrap();
                    expected.records.push((number, true));
                    expected.positions.insert(number, appended.position.unwrap().0);
                }
                Err(error) if error.applied() == Applied::Unknown => {
                    self.model.get_mut(id).unwrap().records.push((number, false));
                }
                Err(_) => {}
            }
        }
    }

    /// Compares what is there with what must be; from then on what is there is what must be.
    fn check(&mut self, log: &Arc<EmbeddedLog>) -> Result<(), String> {
        let seed = self.seed;
        let mut found = BTreeMap::new();
        for info in log.list().now_or_never().unwrap().unwrap() {
            found.insert(info.id.clone(), info);
        }
        for id in found.keys() {
            if !self.model.get(id).is_some_and(|expected| expected.may) {
                return Err(format!("seed {seed}: {id} was invented, or its deletion is gone"));
            }
        }
        for (id, expected) in &mut self.model {
            let Some(info) = found.get(id) else {
                if expected.must {
                    self.tally.lost += 1;
                    return Err(format!("seed {seed}: {id} is gone"));
                }
                *expected = Expected::default();
                continue;
            };
            if info.begin.0 > expected.trimmed_maybe {
                return Err(format!("seed {seed}: {id} was trimmed by itself: {info:?}"));
            }
            if info.begin.0 < expected.trimmed {
                self.tally.lost += 1;
                return Err(format!("seed {seed}: the trim of {id} to {} is gone: {info:?}", expected.trimmed));
            }
            let records = common::read(log, id, info.begin.0).map_err(|error| format!("seed {seed}: {id}: {error}"))?;
            self.tally.recovered_records += records.len() as u64;
            let mut at = 0;
            for (stored, position) in records.iter().zip(info.begin.0..) {
                if stored.position.0 != position {
                    return Err(format!("seed {seed}: a gap in {id} before {}", stored.position));
                }
                let number = number_of(stored);
                let Some(skip) = expected.records[at..].iter().position(|(other, _)| *other == number) else {
                    return Err(format!("seed {seed}: record {number} of {id} was invented, doubled or moved"));
                };
                let skipped = &expected.records[at..at + skip];
                // Those before the begin were trimmed; behind it none that was acknowledged may be missing.
                if at > 0 && skipped.iter().any(|(_, acknowledged)| *acknowledged) {
                    self.tally.lost += 1;
                    return Err(format!("seed {seed}: a record of {id} before {number} is gone"));
                }
                if expected.positions.get(&number).is_some_and(|told| *told != position) {
                    return Err(format!("seed {seed}: record {number} of {id} has moved to {position}"));
                }
                at += skip + 1;
            }
            let kept = |number: &u64| expected.positions.get(number).is_some_and(|position| *position >= info.begin.0);
            let present: Vec<u64> = records.iter().map(number_of).collect();
            if let Some((lost, _)) = expected
                .records
                .iter()
                .find(|(number, acknowledged)| *acknowledged && kept(number) && !present.contains(number))
            {
                self.tally.lost += 1;
                return Err(format!("seed {seed}: record {lost} of {id} was acknowledged and is gone: {info:?}"));
            }
            *expected = Expected {
                records: present.iter().map(|number| (*number, true)).collect(),
                positions: records.iter().map(|stored| (number_of(stored), stored.position.0)).collect(),
                trimmed: info.begin.0,
                trimmed_maybe: info.begin.0,
                must: true,
                may: true,
            };
        }
        Ok(())
    }
}

fn run(count: u64, options: &Options, noop: bool) -> (Tally, Vec<String>) {
    let mut total = Tally::default();
    let mut losses = Vec::new();
    for seed in 0..count {
        let mut simulation = Simulation::new(seed, options.clone(), noop);
        if let Err(lost) = simulation.run() {
            losses.push(lost);
        }
        let tally = simulation.tally;
        total.acknowledged += tally.acknowledged;
        total.crashes += tally.crashes;
        total.recovered_records += tally.recovered_records;
        total.lost += tally.lost;
        total.segments_removed += tally.segments_removed;
        total.copied += tally.copied;
        total.refused += tally.refused;
    }
    println!("{count} seeds: {total:?}, {} losses", losses.len());
    (total, losses)
}

#[test]
fn nothing_acknowledged_is_lost_in_any_crash() {
    let count = seeds(3_000);
    let (tally, losses) = run(count, &small(), false);
    assert!(losses.is_empty(), "{losses:#?}");
    assert!(tally.crashes >= count && tally.acknowledged >= 10 * count, "the run did too little: {tally:?}");
    assert!(
        tally.segments_removed > 0 && tally.copied > 0 && tally.refused > 0,
        "retention or a full disk did nothing: {tally:?}"
    );
}

#[test]
fn a_disk_that_does_not_synchronise_is_found_out() {
    let (tally, losses) = run(seeds(3_000).div_ceil(10), &small(), true);
    assert!(tally.acknowledged > 0 && !losses.is_empty(), "the test does not see losses: {tally:?}");
}

#[test]
fn a_log_that_acknowledges_before_it_writes_is_found_out() {
    let mut options = small();
    options.fault = Some(Fault::AcknowledgeBeforeWrite);
    let (tally, losses) = run(seeds(3_000).div_ceil(10), &options, false);
    assert!(tally.acknowledged > 0 && !losses.is_empty(), "the test does not see losses: {tally:?}");
}

/// A crash in every single operation of a first opening, and of the first appends.
#[test]
fn the_first_minute_survives_a_crash_in_every_operation() {
    let mut crashes = 0;
    for at in 1.. {
        for seed in 0..20 {
            let storage = CrashingStorage::new();
            storage.crash_at(Some(at));
            let mut acknowledged = 0;
            if let Ok(log) = open(&storage, small())
                && common::done(&log, log.create(LogSpec::from(topic("a")))).is_ok()
            {
                acknowledged = 1 + (0..3).map_while(|n| append(&log, &topic("a"), frame(format!("{n}:"))).ok()).count();
            }
            if !storage.crashed() {
                assert!(acknowledged == 4 && crashes > 100, "{crashes} crashes");
                return;
            }
            crashes += 1;
            let storage = storage.reboot(seed);
            let log = EmbeddedLog::open_on(storage, small(), &environment(9).0)
                .unwrap_or_else(|error| panic!("crash at {at}, seed {seed}: {error}"));
            if acknowledged == 0 {
                create(&log, &topic("a"));
            }
            let found = common::read(&log, &topic("a"), 0).unwrap();
            assert!(found.len() + 1 >= acknowledged, "crash at {at}, seed {seed}: {found:?}");
        }
    }
}
