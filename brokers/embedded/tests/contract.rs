//! What the contract promises, on a disk in memory and on the machine's own.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{START, append, create, done, environment, event, frame, open, read, small, topic};
use futures_util::{FutureExt, future};
use tidegate_backbone::budget::{Account, Budget};
use tidegate_backbone::{Applied, Environment, ErrorKind, LogId, LogSpec, PartitionLog, Position, Record};
use tidegate_embedded::storage::Storage;
use tidegate_embedded::storage::crashing::{CrashingStorage, Injection, Target};
use tidegate_embedded::storage::real::RealStorage;
use tidegate_embedded::storage::recording::{Done, RecordingStorage};
use tidegate_embedded::{Durability, EmbeddedLog, Options};

fn kind<T: std::fmt::Debug>(result: tidegate_backbone::Result<T>) -> ErrorKind {
    result.unwrap_err().kind().clone()
}

#[test]
fn records_are_read_back_as_they_were_and_again_after_opening_anew() {
    let storage = CrashingStorage::new();
    let ids = [topic("orders"), LogId::Slot { slot: 0, epoch: 3, suffix: 9 }, LogId::Outcomes { slot: 1 }];
    let record =
        |n: usize| if n.is_multiple_of(3) { event(format!("e{n}"), n * 37 % 900) } else { frame(format!("f{n}")) };
    for recent_bytes in [0, 1 << 20] {
        let mut options = small();
        options.recent_bytes = recent_bytes;
        let log = open(&storage, options).unwrap();
        for id in &ids {
            create(&log, id);
            let begin = log.info(id).now_or_never().unwrap().unwrap().end.0;
            for n in 0..40 {
                assert_eq!(append(&log, id, record(n)).unwrap(), begin + n as u64);
            }
        }
        let log_again = {
            log.close().now_or_never().unwrap();
            open(&storage, small()).unwrap()
        };
        for id in &ids {
            for (n, stored) in read(&log_again, id, 0).unwrap().iter().enumerate() {
                assert_eq!((stored.position.0, &stored.record), (n as u64, &record(n % 40)), "{id}");
            }
        }
        let listed = log_again.list().now_or_never().unwrap().unwrap();
        assert_eq!(listed.len(), 3);
        assert!(listed.iter().all(|info| info.bytes > 0 && info.begin == Position::ZERO));
    }
}

#[test]
fn what_is_not_there_is_told_by_kind() {
    let storage = CrashingStorage::new();
    let log = open(&storage, small()).unwrap();
    let id = topic("a");
    assert_eq!(kind(append(&log, &id, frame("x"))), ErrorKind::NotFound);
    assert_eq!(kind(log.info(&id).now_or_never().unwrap()), ErrorKind::NotFound);
    assert_eq!(kind(done(&log, log.trim(&id, Position(3)))), ErrorKind::NotFound);
    done(&log, log.delete(LogSpec::from(id.clone()))).unwrap();
    create(&log, &id);
    create(&log, &id);
    for n in 0..10 {
        append(&log, &id, frame(format!("{n}"))).unwrap();
    }
    done(&log, log.trim(&id, Position(4))).unwrap();
    done(&log, log.trim(&id, Position(2))).unwrap();
    assert_eq!(log.info(&id).now_or_never().unwrap().unwrap().begin, Position(4));
    let lost = ErrorKind::PositionLost { earliest: Position(4) };
    assert_eq!(log.tail(&id, Position(3)).now_or_never().unwrap().err().unwrap().kind(), &lost);
    let mut tail = log.tail(&id, Position(4)).now_or_never().unwrap().unwrap();
    done(&log, log.trim(&id, Position(99))).unwrap();
    assert_eq!(kind(tail.next(1).now_or_never().unwrap()), ErrorKind::PositionLost { earliest: Position(10) });
    let huge = Record::Frame(vec![0; 2 << 20].into());
    assert!(matches!(kind(append(&log, &id, huge)), ErrorKind::TooLarge { .. }));
    done(&log, log.delete(LogSpec::from(id.clone()))).unwrap();
    assert_eq!(kind(tail.next(1).now_or_never().unwrap()), ErrorKind::NotFound);
    create(&log, &id);
    assert_eq!(append(&log, &id, frame("anew")).unwrap(), 0, "a log that is created again begins again");
    log.close().now_or_never().unwrap();
    assert_eq!(kind(append(&log, &id, frame("x"))), ErrorKind::Closed);
}

#[test]
fn operations_that_share_a_commit_take_effect_in_their_order() {
    let storage = CrashingStorage::new();
    let log = open(&storage, small()).unwrap();
    let id = topic("a");
    create(&log, &id);
    let first = log.append(&id, frame("0"));
    let trim = log.trim(&id, Position(1));
    let delete = log.delete(LogSpec::from(id.clone()));
    let refused = log.append(&id, frame("1"));
    let again = log.create(LogSpec::from(id.clone()));
    log.drive();
    assert_eq!(first.now_or_never().unwrap().unwrap().position, Some(Position(0)));
    trim.now_or_never().unwrap().unwrap();
    delete.now_or_never().unwrap().unwrap();
    assert_eq!(kind(refused.now_or_never().unwrap()), ErrorKind::NotFound);
    again.now_or_never().unwrap().unwrap();
    for log in [log, open(&storage.copied(), small()).unwrap()] {
        let info = log.info(&id).now_or_never().unwrap().unwrap();
        assert_eq!((info.begin, info.end), (Position(0), Position(0)));
    }
}

#[test]
fn a_time_is_looked_up_without_skipping_a_record() {
    let storage = CrashingStorage::new();
    let (environment, clock) = environment(1);
    let log = EmbeddedLog::open_on(storage, small(), &environment).unwrap();
    let id = topic("a");
    create(&log, &id);
    create(&log, &topic("b"));
    for n in 0..60 {
        // Time stands still for three records, and once jumps back.
        clock.0.store(START + if n == 30 { 0 } else { n / 3 * 10 }, Ordering::Relaxed);
        append(&log, &id, frame(format!("{n}"))).unwrap();
        append(&log, &topic("b"), event("other", 200)).unwrap();
    }
    let records = read(&log, &id, 0).unwrap();
    assert!(records.is_sorted_by_key(|stored| stored.appended_at));
    for time in (START - 5..START + 205).step_by(5) {
        let expected = records.iter().position(|stored| stored.appended_at >= time).unwrap_or(records.len());
        let found = log.lookup(&id, time).now_or_never().unwrap().unwrap();
        assert_eq!(found, Position(expected as u64), "time {time}");
    }
    done(&log, log.trim(&id, Position(20))).unwrap();
    assert_eq!(log.lookup(&id, 0).now_or_never().unwrap().unwrap(), Position(20));
}

#[test]
fn segments_are_removed_and_survivors_copied_forward() {
    let storage = CrashingStorage::new();
    let mut log = open(&storage, small()).unwrap();
    let (kept, dropped) = (topic("kept"), topic("dropped"));
    create(&log, &kept);
    create(&log, &dropped);
    for n in 0..300 {
        if n % 30 == 0 {
            append(&log, &kept, event(format!("k{n}"), 10)).unwrap();
        }
        append(&log, &dropped, event(format!("d{n}"), 300)).unwrap();
    }
    let before = log.counters();
    let kept_before = read(&log, &kept, 0).unwrap();
    let mut reader = log.tail(&kept, Position(0)).now_or_never().unwrap().unwrap();
    reader.next(1).now_or_never().unwrap().unwrap();
    done(&log, log.trim(&dropped, Position(295))).unwrap();
    let after = log.counters();
    assert!(before.segments > 20 && after.segments <= 4, "{before:?} {after:?}");
    assert!(after.records_copied >= 8, "{after:?}");
    assert_eq!(storage.paths().iter().filter(|path| path.ends_with(".seg")).count() as u64, after.segments);
    assert_eq!(reader.next(usize::MAX).now_or_never().unwrap().unwrap().records[0], kept_before[1]);
    for _ in 0..2 {
        assert_eq!(read(&log, &kept, 0).unwrap(), kept_before);
        assert_eq!(read(&log, &dropped, 295).unwrap().len(), 5);
        log.close().now_or_never().unwrap();
        log = open(&storage, small()).unwrap();
    }
    assert_eq!(append(&log, &kept, frame("next")).unwrap(), kept_before.len() as u64);
}

#[test]
fn a_full_queue_pushes_back_and_loses_nothing() {
    let storage = CrashingStorage::new();
    let mut options = small();
    options.queue_records = 5;
    let log = open(&storage, options).unwrap();
    let id = topic("a");
    create(&log, &id);
    let mut taken: Vec<_> = (0..9).map(|n| log.append(&id, frame(format!("{n}")))).collect();
    for refused in taken.split_off(5) {
        let error = refused.now_or_never().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Backpressure { retry_after } if *retry_after > Duration::ZERO));
        assert_eq!(error.applied(), Applied::No);
    }
    log.drive();
    assert!(taken.into_iter().all(|future| future.now_or_never().unwrap().is_ok()));
    assert_eq!(append(&log, &id, frame("9")).unwrap(), 5);
}

#[test]
fn events_leave_the_frames_of_slots_a_place_in_the_queue() {
    let storage = CrashingStorage::new();
    let mut options = small();
    options.queue_records = 16;
    let log = open(&storage, options).unwrap();
    let id = topic("a");
    create(&log, &id);
    let taken: Vec<_> = (0..20).map(|_| log.append(&id, event("e", 10))).collect();
    let refused = taken.into_iter().filter_map(FutureExt::now_or_never).filter(Result::is_err).count();
    assert_eq!(refused, 6, "two of sixteen places are kept");
    let frames: Vec<_> = (0..3).map(|n| log.append(&id, frame(format!("{n}")))).collect();
    let refused = frames.into_iter().filter_map(FutureExt::now_or_never).filter(Result::is_err).count();
    assert_eq!(refused, 1);
}

#[test]
fn records_count_against_memory_until_nobody_holds_them() {
    let storage = CrashingStorage::new();
    let budget = Budget::new(160_000);
    let environment = environment(7).0.with_memory(budget.clone());
    let log = EmbeddedLog::open_on(Arc::clone(&storage) as _, small(), &environment).unwrap();
    let id = topic("a");
    create(&log, &id);
    let used = |account| budget.standing(account).used_bytes;
    let mut taken: Vec<_> = (0..20).map(|_| log.append(&id, event("e", 10_000))).collect();
    let refused: Vec<_> = taken.split_off(15).into_iter().filter_map(FutureExt::now_or_never).collect();
    assert_eq!(refused.len(), 5, "more than the budget is queued: {budget:?}");
    for outcome in refused {
        let error = outcome.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Backpressure { .. }) && error.applied() == Applied::No, "{error}");
    }
    assert!((150_000..=160_000).contains(&used(Account::Appends)), "{budget:?}");
    // What the gateway itself must remember is never refused.
    taken.push(log.append(&id, frame("f".repeat(20_000))));
    log.drive();
    assert!(taken.into_iter().all(|outcome| outcome.now_or_never().unwrap().is_ok()));
    assert!(used(Account::Appends) < 30_000, "written and still counted, beyond the frame that readers may ask for");

    let mut records = read(&log, &id, 0).unwrap();
    assert!((150_000..400_000).contains(&used(Account::Reads)), "{budget:?}");
    records.truncate(1);
    assert!(used(Account::Reads) < 100_000, "{budget:?}");
    records.clear();
    assert_eq!(used(Account::Reads), 0);
}

#[test]
fn a_full_disk_refuses_appends_takes_trims_and_heals() {
    for capacity in (20_000..26_000).step_by(333) {
        let storage = CrashingStorage::new();
        storage.capacity_bytes(Some(capacity));
        let log = open(&storage, small()).unwrap();
        let id = topic("a");
        create(&log, &id);
        let mut stored = 0;
        let error = loop {
            match append(&log, &id, event("e", 400)) {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.applied()), (&ErrorKind::StorageFull, Applied::No), "{error}");
        assert!(stored > 20 && log.failed().is_none());
        assert_eq!(read(&log, &id, 0).unwrap().len(), stored, "capacity {capacity}: reads go on");
        assert_eq!(read(&open(&storage.copied(), small()).unwrap(), &id, 0).unwrap().len(), stored);
        if done(&log, log.trim(&id, Position(stored as u64))).is_err() {
            // The disk was filled to the byte between two segments; space has to come from elsewhere.
            storage.capacity_bytes(Some(capacity + 8_000));
            done(&log, log.trim(&id, Position(stored as u64))).unwrap();
        }
        assert_eq!(append(&log, &id, event("e", 400)).unwrap(), stored as u64, "capacity {capacity}: it heals");
    }
}

/// Half of a commit reaches the disk, then the disk is full. Its frames must not come back behind later ones.
#[test]
fn bytes_of_a_commit_that_failed_never_come_back() {
    let storage = CrashingStorage::new();
    let log = open(&storage, small()).unwrap();
    let id = topic("a");
    create(&log, &id);
    append(&log, &id, frame("before")).unwrap();
    storage.inject(Injection { target: Target::Write, skip: 0, times: 1, error: io::ErrorKind::StorageFull });
    let failed: Vec<_> = (0..8).map(|_| log.append(&id, frame("failed"))).collect();
    log.drive();
    for future in failed {
        let error = future.now_or_never().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.applied()), (&ErrorKind::StorageFull, Applied::No));
    }
    let texts = |log: &EmbeddedLog| -> Vec<Record> {
        read(log, &id, 0).unwrap().into_iter().map(|stored| stored.record).collect()
    };
    for seed in 0..50 {
        assert_eq!(texts(&open(&storage.reboot_copy(seed), small()).unwrap()), [frame("before")], "seed {seed}");
    }
    // As long as one of those that failed, so that the next stale frame would follow it exactly.
    append(&log, &id, frame("second")).unwrap();
    for seed in 0..50 {
        assert_eq!(texts(&open(&storage.reboot_copy(seed), small()).unwrap()), [frame("before"), frame("second")]);
    }
}

#[test]
fn after_a_failed_synchronisation_nothing_is_acknowledged() {
    for (target, error) in [
        (Target::Sync, io::ErrorKind::Other),
        (Target::Sync, io::ErrorKind::StorageFull),
        (Target::Write, io::ErrorKind::Other),
    ] {
        let storage = CrashingStorage::new();
        let log = open(&storage, small()).unwrap();
        let id = topic("a");
        create(&log, &id);
        append(&log, &id, frame("before")).unwrap();
        storage.inject(Injection { target, skip: 0, times: 1, error });
        let failed = append(&log, &id, frame("failed")).unwrap_err();
        assert_eq!((failed.kind(), failed.applied()), (&ErrorKind::Unknown, Applied::Unknown), "{failed}");
        assert!(log.failed().is_some());
        for _ in 0..3 {
            assert_eq!(kind(append(&log, &id, frame("later"))), ErrorKind::Closed);
        }
        assert_eq!(read(&log, &id, 0).unwrap().len(), 1, "reads of what is durable go on");
        let mut tail = log.tail(&id, Position(1)).now_or_never().unwrap().unwrap();
        assert_eq!(kind(tail.next(1).now_or_never().unwrap()), ErrorKind::Closed);
        drop(log);
        let log = open(&storage, small()).unwrap();
        append(&log, &id, frame("after")).unwrap();
        // The failed one may be there or not, and what the log says of it stays so through a crash.
        let live = read(&log, &id, 0).unwrap();
        assert_eq!(live[0].record, frame("before"));
        assert_eq!(live.last().unwrap().record, frame("after"));
        drop(log);
        assert_eq!(read(&open(&storage.reboot(3), small()).unwrap(), &id, 0).unwrap(), live);
    }
}

#[test]
fn a_second_process_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er");
    let log = EmbeddedLog::open(Options::new(&path), &Environment::system()).unwrap();
    let error = EmbeddedLog::open(Options::new(&path), &Environment::system()).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let cluster = log.cluster();
    drop(log);
    assert_eq!(EmbeddedLog::open(Options::new(&path), &Environment::system()).unwrap().cluster(), cluster);
}

/// Acknowledged means: written, synchronised, and only then told.
#[test]
fn each_acknowledgement_stands_behind_its_synchronisation() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Arc::new(RecordingStorage::new(Arc::new(RealStorage::new(directory.path()))));
    for (durability, expected) in [(Durability::Group, 1), (Durability::NoSync, 0)] {
        let mut options = small();
        options.segment_bytes = 1 << 20;
        options.durability = durability;
        let log = EmbeddedLog::open_on(Arc::clone(&storage) as Arc<dyn Storage>, options, &environment(1).0).unwrap();
        create(&log, &topic("a"));
        storage.take();
        for _ in 0..5 {
            append(&log, &topic("a"), frame("x")).unwrap();
            let steps = storage.take();
            let written = steps.iter().position(|step| matches!(step, Done::Write { .. })).unwrap();
            let synchronised = steps[written..].iter().filter(|step| matches!(step, Done::SyncData(_))).count();
            assert_eq!(synchronised, expected, "{steps:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appenders_keep_their_order_and_readers_see_each_record_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = Options::new(directory.path());
    options.segment_bytes = 64 * 1024;
    options.recent_bytes = 16 * 1024;
    let environment = Environment::system();
    let log = EmbeddedLog::open(options.clone(), &environment).unwrap();
    let id = topic("a");
    log.create(LogSpec::from(id.clone())).await.unwrap();
    const EACH: u64 = 500;
    const APPENDERS: u64 = 8;
    let reader = |log: Arc<EmbeddedLog>, id: LogId| async move {
        let mut tail = log.tail(&id, Position::ZERO).await.unwrap();
        let mut seen = Vec::new();
        while (seen.len() as u64) < EACH * APPENDERS {
            seen.extend(tail.next(8 * 1024).await.unwrap().records);
        }
        seen
    };
    let readers: Vec<_> = (0..3).map(|_| environment.spawn(reader(Arc::clone(&log), id.clone()))).collect();
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let (log, id) = (Arc::clone(&log), id.clone());
            environment.spawn(async move {
                for n in (0..EACH).step_by(10) {
                    // Ten at a time without waiting: the order is that of the calls.
                    let calls: Vec<_> =
                        (n..n + 10).map(|n| log.append(&id, event(format!("{appender}-{n}"), 50))).collect();
                    let appended = future::try_join_all(calls).await.unwrap();
                    let end = log.info(&id).await.unwrap().end;
                    assert!(appended.iter().all(|appended| appended.position.unwrap() < end));
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    let mut all = Vec::new();
    for reader in readers {
        all.push(tokio::time::timeout(Duration::from_secs(60), reader).await.expect("readers end").unwrap());
    }
    assert!(all.iter().all(|seen| *seen == all[0]), "every reader sees the same");
    let mut next = [0; APPENDERS as usize];
    for (stored, position) in all[0].iter().zip(0..) {
        assert_eq!(stored.position, Position(position));
        let Record::Event(event) = &stored.record else { panic!() };
        let (appender, n) = event.id().split_once('-').unwrap();
        let appender: usize = appender.parse().unwrap();
        assert_eq!(n.parse::<u64>().unwrap(), next[appender]);
        next[appender] += 1;
    }
    let counters = log.counters();
    assert!(
        counters.segments > 3 && counters.reads + counters.recent_hits > 0 && counters.commits < counters.records,
        "{counters:?}"
    );
    log.close().await;
    let log = EmbeddedLog::open(options, &environment).unwrap();
    let again = reader(Arc::clone(&log), id).await;
    assert_eq!(again, all[0]);
}

#[tokio::test]
async fn a_tail_waits_at_the_end_and_may_be_dropped_while_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(Options::new(directory.path()), &Environment::system()).unwrap();
    let id = topic("a");
    log.create(LogSpec::from(id.clone())).await.unwrap();
    let mut tail = log.tail(&id, Position(2)).await.unwrap();
    for n in 0..2 {
        log.append(&id, frame(format!("{n}"))).await.unwrap();
        assert!(tail.next(1024).now_or_never().is_none(), "one beyond the end waits");
    }
    log.append(&id, frame("2")).await.unwrap();
    let batch = tail.next(1024).await.unwrap();
    assert_eq!((batch.records[0].position, &batch.records[0].record), (Position(2), &frame("2")));
    let waiting = async {
        let error = tail.next(1024).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Closed);
    };
    future::join(waiting, log.close()).await;
}
