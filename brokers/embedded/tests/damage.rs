//! Files that were cut or changed: a torn end is cut off, damage is refused, and no payload is ever served that was not
//! appended.

#![expect(clippy::print_stdout, reason = "the figures of a run show that it did something")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{append, create, event, frame, open, read, seeds, small, topic};
use futures_util::FutureExt;
use tidegate_backbone::{ErrorKind, LogId, PartitionLog, Position, Record};
use tidegate_embedded::storage::crashing::{CrashingStorage, Seeded};

/// A log with several sealed segments, and what it holds. `closed` leaves the mark at its end.
fn filled(closed: bool) -> (Arc<CrashingStorage>, BTreeMap<LogId, Vec<Record>>) {
    let storage = CrashingStorage::new();
    let log = open(&storage, small()).unwrap();
    let mut held = BTreeMap::new();
    for n in 0..60 {
        let id = topic(["a", "b", "c"][n % 3]);
        if n < 3 {
            create(&log, &id);
        }
        let record = if n % 2 == 0 { event(format!("e{n}"), n * 13 % 400) } else { frame(format!("f{n}").repeat(20)) };
        append(&log, &id, record.clone()).unwrap();
        held.entry(id).or_insert_with(Vec::new).push(record);
    }
    assert!(log.counters().segments > 3);
    let copy = storage.copied();
    if closed {
        log.close().now_or_never().unwrap();
        return (storage.copied(), held);
    }
    (copy, held)
}

fn last_segment(storage: &CrashingStorage) -> String {
    storage.paths().into_iter().filter(|path| path.ends_with(".seg")).max().unwrap()
}

/// Where the frames of a segment end, by their lengths.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while bytes[at..].starts_with(b"TGLF") {
        let length = u32::from_le_bytes(bytes[at + 36..at + 40].try_into().unwrap()) as usize;
        at += (64 + length).next_multiple_of(8);
        ends.push(at);
        if at + 64 > bytes.len() {
            break;
        }
    }
    ends
}

#[test]
fn a_file_cut_anywhere_in_its_last_records_keeps_all_those_before() {
    let (storage, held) = filled(false);
    let path = last_segment(&storage);
    let bytes = storage.contents(&path).unwrap();
    let ends = frame_ends(&bytes);
    let total: usize = held.values().map(Vec::len).sum();
    let (from, end) = (ends[ends.len() - 4], ends[ends.len() - 1]);
    let mut tried = 0;
    for cut in from..end {
        let image = storage.copied();
        image.set_contents(&path, bytes[..cut].to_vec());
        let log = open(&image, small()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        // Padding is no part of what a record needs.
        let whole = ends.iter().filter(|&&frame_end| frame_end <= cut).count();
        let mut found = 0;
        for (id, records) in &held {
            let stored = read(&log, id, 0).unwrap();
            assert!(stored.iter().zip(records).all(|(stored, record)| stored.record == *record), "cut at {cut}");
            found += stored.len();
        }
        assert_eq!(found, total - (ends.len() - whole), "cut at {cut}");
        // It goes on, and stays whole when it is opened again.
        append(&log, &topic("a"), frame("after")).unwrap();
        drop(log);
        let log = open(&image, small()).unwrap();
        assert_eq!(read(&log, &topic("a"), 0).unwrap().last().unwrap().record, frame("after"));
        tried += 1;
    }
    assert!(tried > 300, "{tried}");
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcomes {
    refused: u64,
    detected: u64,
    harmless: u64,
    torn: u64,
}

/// Flips one bit in one file of many copies, and looks at what each of them does.
fn flip(ending: &str, last: bool, closed: bool, count: u64) -> Outcomes {
    let (storage, held) = filled(closed);
    let paths: Vec<String> = storage
        .paths()
        .into_iter()
        .filter(|path| path.ends_with(ending) && (*path == last_segment(&storage)) == last)
        .collect();
    let mut outcomes = Outcomes::default();
    for seed in 0..count {
        let mut random = Seeded(seed);
        let path = &paths[random.below(paths.len() as u64) as usize];
        let mut bytes = storage.contents(path).unwrap();
        let used = if ending == ".seg" { *frame_ends(&bytes).last().unwrap() } else { bytes.len() };
        let (at, bit) = (random.below(used as u64) as usize, random.below(8));
        bytes[at] ^= 1 << bit;
        let image = storage.copied();
        image.set_contents(path, bytes);
        let place = format!("seed {seed}: bit {bit} of byte {at} in {path}");
        let log = match open(&image, small()) {
            Ok(log) => log,
            Err(error) => {
                assert_eq!(error.kind(), &ErrorKind::DataLoss, "{place}: {error}");
                assert!(error.to_string().contains(path.as_str()), "{place}: {error}");
                assert_eq!(image.contents(path), image.copied().contents(path), "{place}: it was changed");
                outcomes.refused += 1;
                continue;
            }
        };
        let (mut missing, mut detected) = (0, 0);
        for (id, records) in &held {
            let end = log.info(id).now_or_never().unwrap().map_or(0, |info| info.end.0);
            missing += records.len() as u64 - end;
            for (position, record) in (0..end).zip(records) {
                let mut tail = log.tail(id, Position(position)).now_or_never().unwrap().unwrap();
                match tail.next(1).now_or_never().unwrap() {
                    Ok(batch) => assert_eq!(batch.records[0].record, *record, "{place}: a wrong payload was served"),
                    Err(error) => {
                        assert_eq!(error.kind(), &ErrorKind::DataLoss, "{place}: {error}");
                        assert_eq!(tail.position(), Position(position), "{place}: it was skipped");
                        detected += 1;
                    }
                }
            }
        }
        assert!(detected <= 1, "{place}: {detected} records");
        if missing > 0 {
            // Only the very last commit of a process that was killed leaves no evidence.
            assert!(last && !closed && missing == 1 && detected == 0, "{place}: {missing} were cut off");
            outcomes.torn += 1;
        } else if detected > 0 {
            outcomes.detected += 1;
        } else {
            outcomes.harmless += 1;
        }
    }
    println!("{ending} last={last} closed={closed}: {outcomes:?}");
    outcomes
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_detected_or_meets_nothing_that_is_read() {
    let outcomes = flip(".seg", false, true, seeds(2_000));
    assert!(outcomes.refused > 0 && outcomes.detected > 0 && outcomes.torn == 0, "{outcomes:?}");
    // Beginnings, creations and padding of sealed segments are not read again.
    assert!(outcomes.harmless * 5 < outcomes.detected, "{outcomes:?}");
}

#[test]
fn a_flipped_bit_in_the_active_segment_is_refused_unless_nothing_later_proves_it() {
    let outcomes = flip(".seg", true, false, seeds(2_000));
    assert!(outcomes.refused > 0 && outcomes.torn > 0 && outcomes.detected == 0, "{outcomes:?}");
}

#[test]
fn after_an_orderly_end_no_flipped_bit_is_taken_for_a_torn_end() {
    let outcomes = flip(".seg", true, true, seeds(2_000));
    assert!(outcomes.refused > 0 && outcomes.torn == 0 && outcomes.detected == 0, "{outcomes:?}");
}

#[test]
fn a_damaged_index_is_made_anew() {
    let outcomes = flip(".idx", false, true, seeds(1_000));
    assert_eq!(outcomes, Outcomes { harmless: seeds(1_000), ..Outcomes::default() });
    let (storage, held) = filled(true);
    let log = open(&storage, small()).unwrap();
    for path in storage.paths().iter().filter(|path| path.ends_with(".idx")) {
        storage.set_contents(path, Vec::new());
    }
    assert_eq!(read(&log, &topic("a"), 0).unwrap().len(), held[&topic("a")].len());
    assert!(log.counters().indexes_rebuilt > 0);
}

#[test]
fn a_segment_that_is_missing_is_told() {
    let (storage, _) = filled(true);
    let paths: Vec<String> = storage.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
    for path in &paths[..paths.len() - 1] {
        let image = storage.copied();
        tidegate_embedded::storage::Storage::remove(&*image, path).unwrap();
        let error = open(&image, small()).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::DataLoss);
        assert!(error.to_string().contains("a segment is missing"), "{error}");
    }
}

#[test]
fn a_payload_that_imitates_frames_changes_nothing() {
    let (storage, _) = filled(false);
    let log = open(&storage, small()).unwrap();
    let path = last_segment(&storage);
    // The log's own bytes as a payload, and a torn end behind it.
    let stolen = storage.contents(&path).unwrap();
    let ends = frame_ends(&stolen);
    append(&log, &topic("a"), Record::Frame(stolen[..*ends.last().unwrap()].to_vec().into())).unwrap();
    let position = append(&log, &topic("a"), frame("last")).unwrap();
    let image = storage.copied();
    let path = last_segment(&image);
    let mut bytes = image.contents(&path).unwrap();
    let end = *frame_ends(&bytes).last().unwrap();
    bytes[end - 40] ^= 1;
    image.set_contents(&path, bytes);
    let log = open(&image, small()).unwrap();
    assert_eq!(log.info(&topic("a")).now_or_never().unwrap().unwrap().end, Position(position));
}
