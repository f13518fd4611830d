use super::*;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn named() -> impl Strategy<Value = Named> {
    (any::<u128>(), any::<u64>()).prop_map(|(id, hash)| Named { id: CommandId(id), hash })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..300, any::<u64>().prop_map(|number| number.min(u64::MAX - 1))]
}

fn generation() -> impl Strategy<Value = Generation> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, suffix)| Generation { epoch, suffix })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![bytes().prop_map(Change::Put), Just(Change::Delete)]
}

fn operation() -> impl Strategy<Value = Operation> {
    (bytes(), prop::option::of(number()), change()).prop_map(|(key, expected, change)| Operation {
        key,
        expected,
        change,
    })
}

fn commit() -> impl Strategy<Value = Commit> {
    (prop::option::of(named()), number(), number(), prop::collection::vec(operation(), 0..4))
        .prop_map(|(command, revision, time_ms, operations)| Commit { command, revision, time_ms, operations })
}

fn part() -> impl Strategy<Value = Part> {
    let head = (bytes(), number(), prop::option::of(bytes())).prop_map(|(key, revision, value)| PartHead {
        key,
        revision,
        value,
    });
    let command =
        (named(), number(), number()).prop_map(|(named, revision, time_ms)| PartCommand { named, revision, time_ms });
    (prop::collection::vec(head, 0..4), prop::collection::vec(command, 0..4))
        .prop_map(|(heads, commands)| Part { heads, commands })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (prop::option::of(number().prop_map(Position)), number(), number(), any::<u64>()).prop_map(
            |(observed, previous_epoch, previous_last_sequence, previous_hash)| Kind::Announce {
                observed,
                previous_epoch,
                previous_last_sequence,
                previous_hash
            }
        ),
        prop::collection::vec(commit(), 1..4).prop_map(|commits| Kind::Commit { commits }),
        Just(Kind::Heartbeat),
        Just(Kind::Release),
        part().prop_map(Kind::Snapshot),
        (number(), number(), generation(), any::<u64>()).prop_map(|(revision, ordinal, previous, seal_hash)| {
            Kind::Opened { revision, ordinal, previous, seal_hash }
        }),
        generation().prop_map(|next| Kind::Seal { next }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), kind()).prop_map(
        |(slot, epoch, owner, sequence, known, previous_hash, kind)| Frame {
            slot,
            epoch,
            owner,
            sequence,
            known,
            previous_hash,
            kind,
        },
    )
}

/// Puts the right checksum on bytes that were changed, so that what stands behind it is looked at.
fn seal(bytes: &mut [u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
}

proptest! {
    #[test]
    fn frames_survive_being_stored(frame in frame()) {
        let bytes = frame.encode();
        prop_assert_eq!(Frame::decode(&bytes).unwrap(), frame);
    }

    #[test]
    fn every_flipped_bit_is_refused(frame in frame(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = frame.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn every_prefix_is_refused(frame in frame(), length in any::<prop::sample::Index>()) {
        let bytes = frame.encode();
        prop_assert!(Frame::decode(&bytes[..length.index(bytes.len())]).is_err());
    }

    #[test]
    fn bytes_with_a_right_checksum_are_refused_or_have_one_spelling(
        frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = frame.encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        seal(&mut bytes);
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(&frame.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn commits_take_no_more_than_their_bound(commit in commit()) {
        let frame = |commits| Frame { kind: Kind::Commit { commits }, ..golden(Kind::Heartbeat) }.encode().len();
        let one = frame(vec![commit.clone()]);
        prop_assert!(one - HEADER_BYTES - 1 <= commit.bytes_bound());
    }
}

fn golden(kind: Kind) -> Frame {
    Frame { slot: 7, epoch: 3, owner: 0x1122_3344_5566_7788, sequence: 5, known: 4, previous_hash: 0xdead_beef, kind }
}

#[test]
fn golden_frames() {
    let text = include_str!("golden.txt");
    let commit = Commit {
        command: Some(Named { id: CommandId(0x0102), hash: 9 }),
        revision: 300,
        time_ms: 1_700_000_000_000,
        operations: vec![
            Operation { key: "a".into(), expected: None, change: Change::Put("one".into()) },
            Operation { key: "b".into(), expected: Some(299), change: Change::Delete },
        ],
    };
    let part = Part {
        heads: vec![
            PartHead { key: "a".into(), revision: 300, value: Some("one".into()) },
            PartHead { key: "b".into(), revision: 300, value: None },
        ],
        commands: vec![PartCommand {
            named: Named { id: CommandId(0x0102), hash: 9 },
            revision: 300,
            time_ms: 1_700_000_000_000,
        }],
    };
    let next = Generation { epoch: 3, suffix: 0xabcd };
    let frames = [
        Kind::Announce {
            observed: Some(Position(41)),
            previous_epoch: 2,
            previous_last_sequence: 130,
            previous_hash: 0xdead_beef,
        },
        Kind::Commit { commits: vec![commit] },
        Kind::Heartbeat,
        Kind::Release,
        Kind::Snapshot(part),
        Kind::Opened { revision: 300, ordinal: 1, previous: Generation::FIRST, seal_hash: 77 },
        Kind::Seal { next },
    ];
    let hex = |frame: &Frame| frame.encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let written: Vec<String> = frames.into_iter().map(|kind| hex(&golden(kind))).collect();
    let stored: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(written, stored, "the stored format changed; a new one needs a new version");
}

#[test]
fn what_is_not_known_is_refused() {
    let check = |at: usize, byte: u8, expected: &str| {
        let mut bytes = golden(Kind::Heartbeat).encode().to_vec();
        bytes[at] = byte;
        seal(&mut bytes);
        let error = Frame::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(0, 2, "version 2");
    check(1, 9, "kind 0x9");
    check(2, 1, "flags 0x1");
    check(3, 0x80, "flags 0x8000");
    let commit = Commit { command: None, revision: 1, time_ms: 0, operations: Vec::new() };
    let mut bytes = golden(Kind::Commit { commits: vec![commit] }).encode().to_vec();
    bytes[HEADER_BYTES + 1] = 2;
    seal(&mut bytes);
    let outbox = Frame::decode(&bytes).unwrap_err();
    assert!(matches!(outbox, FrameError::Unsupported { what: "commit flags", value: 2, .. }), "{outbox}");
}
