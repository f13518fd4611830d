//! A directory of format 1 as bytes: today's code writes it exactly so, opens it, and refuses what it does not know.
//!
//! `TIDEGATE_BLESS=1` writes the file anew; a changed file is a changed format, which needs a new version.

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use common::{append, create, done, event, frame, open, read, small, topic};
use futures_util::FutureExt;
use tidegate_backbone::{ErrorKind, PartitionLog, Position};
use tidegate_embedded::storage::crashing::CrashingStorage;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-1.hex");

fn written() -> Arc<CrashingStorage> {
    let storage = CrashingStorage::new();
    let mut options = small();
    options.segment_bytes = 1024;
    let log = open(&storage, options).unwrap();
    create(&log, &topic("orders"));
    create(&log, &topic("gone"));
    append(&log, &topic("orders"), event("one", 3)).unwrap();
    append(&log, &topic("orders"), frame("two")).unwrap();
    done(&log, log.delete(topic("gone").into())).unwrap();
    done(&log, log.trim(&topic("orders"), Position(1))).unwrap();
    append(&log, &topic("orders"), event("three", 400)).unwrap();
    log.close().now_or_never().unwrap();
    storage
}

fn dump(storage: &CrashingStorage) -> String {
    let mut text = String::new();
    for path in storage.paths() {
        let bytes = storage.contents(&path).unwrap();
        writeln!(text, "{path} {}", bytes.len()).unwrap();
        // Trailing zeros, allocated ahead, are told by the length.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for line in bytes[..used].chunks(32) {
            let hexadecimal = line.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
            writeln!(text, "  {hexadecimal}").unwrap();
        }
    }
    text
}

fn restored(text: &str) -> Arc<CrashingStorage> {
    let storage = CrashingStorage::new();
    let mut files: Vec<(String, usize, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(digits) => {
                let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
                files.last_mut().unwrap().2.extend(bytes);
            }
            None => {
                let (path, length) = line.split_once(' ').unwrap();
                files.push((path.to_owned(), length.parse().unwrap(), Vec::new()));
            }
        }
    }
    for (path, length, mut bytes) in files {
        bytes.resize(length, 0);
        storage.set_contents(&path, bytes);
    }
    storage
}

fn golden() -> String {
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(GOLDEN, dump(&written())).unwrap();
    }
    std::fs::read_to_string(GOLDEN).expect("the golden file is there")
}

#[test]
fn today_writes_the_format_as_it_is_kept() {
    assert_eq!(dump(&written()), golden());
}

#[test]
fn today_opens_what_was_kept() {
    let storage = restored(&golden());
    let log = open(&storage, small()).unwrap();
    let info = log.info(&topic("orders")).now_or_never().unwrap().unwrap();
    assert_eq!((info.begin, info.end), (Position(1), Position(3)));
    let records = read(&log, &topic("orders"), 1).unwrap();
    assert_eq!(records.iter().map(|stored| &stored.record).collect::<Vec<_>>(), [&frame("two"), &event("three", 400)]);
    assert!(records.iter().all(|stored| stored.appended_at == common::START));
    assert_eq!(log.list().now_or_never().unwrap().unwrap().len(), 1);
    create(&log, &topic("gone"));
    assert_eq!(append(&log, &topic("orders"), frame("four")).unwrap(), 3);
}

#[test]
fn what_today_does_not_know_is_refused_and_left_alone() {
    let check = |from: &str, to: &str, says: &str| {
        let storage = restored(&golden());
        let manifest = String::from_utf8(storage.contents("FORMAT").unwrap()).unwrap();
        storage.set_contents("FORMAT", manifest.replace(from, to).into_bytes());
        let before = dump(&storage.copied());
        let error = open(&storage, small()).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Misconfigured);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(dump(&storage), before);
    };
    check("version 1", "version 2", "format version 2");
    check("features 0", "features 8", "feature bits 0x8");
    // A frame of a kind that is not known, with a right checksum.
    let storage = restored(&golden());
    let manifest = String::from_utf8(storage.contents("FORMAT").unwrap()).unwrap();
    let key = manifest.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    let key = u128::from_str_radix(key, 16).unwrap().to_be_bytes();
    let path = storage.paths().into_iter().filter(|path| path.ends_with(".seg")).max().unwrap();
    let mut bytes = storage.contents(&path).unwrap();
    let length = u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
    let second = (64 + length).next_multiple_of(8);
    bytes[second + 5] = 77;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&key), &bytes[second..second + 60]);
    bytes[second + 60..second + 64].copy_from_slice(&crc.to_le_bytes());
    storage.set_contents(&path, bytes);
    let error = open(&storage, small()).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Misconfigured);
    assert!(error.to_string().contains("kind 77"), "{error}");
    // No manifest beside segments.
    let storage = restored(&golden());
    tidegate_embedded::storage::Storage::remove(&*storage, "FORMAT").unwrap();
    assert_eq!(open(&storage, small()).unwrap_err().kind(), &ErrorKind::Misconfigured);
}
