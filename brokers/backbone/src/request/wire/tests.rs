use super::*;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = ByteString> {
    "[a-zä-ü./:0-9]{0,12}".prop_map(ByteString::from)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..40).prop_map(Bytes::from)
}

/// The first bytes of a body, and how many it has.
fn body() -> impl Strategy<Value = (u32, Bytes)> {
    prop_oneof![
        Just((0, Bytes::new())),
        (payload(), prop_oneof![Just(0_u32), any::<u32>()])
            .prop_map(|(payload, more)| ((payload.len() as u32).saturating_add(more), payload)),
    ]
}

fn of() -> impl Strategy<Value = Body> {
    prop_oneof![Just(Body::Request), Just(Body::Reply)]
}

fn beat() -> impl Strategy<Value = Beat> {
    (any::<u64>(), any::<u64>(), any::<u64>(), text(), text(), prop::collection::vec(text(), 0..4)).prop_map(
        |(serial, time_ms, started_at_ms, http, version, services)| Beat {
            serial,
            time_ms,
            started_at_ms,
            http,
            version,
            services,
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        beat().prop_map(Kind::Beat),
        Just(Kind::Goodbye),
        beat().prop_map(Kind::Ask),
        (any::<u64>(), any::<u32>(), any::<u64>(), any::<u8>(), text(), body()).prop_map(
            |(id, left_ms, deadline_ms, hop, service, (total, payload))| {
                Kind::Request(RequestHead { id, left_ms, deadline_ms, hop, service, total }, payload)
            }
        ),
        (any::<u64>(), body()).prop_map(|(id, (total, payload))| Kind::Reply { id, total, payload }),
        (any::<u64>(), prop::sample::select(&Cause::ALL[..]), text(), text())
            .prop_map(|(id, cause, code, message)| Kind::Refusal { id, cause, code, message }),
        (any::<u64>(), of(), any::<u32>(), payload()).prop_map(|(id, of, offset, payload)| Kind::Chunk {
            id,
            of,
            offset,
            payload
        }),
        (any::<u64>(), of(), any::<u32>()).prop_map(|(id, of, offset)| Kind::Credit { id, of, offset }),
        any::<u64>().prop_map(|id| Kind::Cancel { id }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (any::<u64>(), any::<u64>(), kind()).prop_map(|(from, to, kind)| Message {
        from: NodeId(from),
        to: NodeId(to),
        kind,
    })
}

/// Puts the right checksum on bytes that were changed, so that what stands behind it is looked at.
fn seal(bytes: &mut [u8]) {
    let checksum = checksum(bytes);
    bytes[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

proptest! {
    #[test]
    fn messages_survive_being_sent(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }

    #[test]
    fn every_flipped_bit_is_refused(message in message(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = message.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Message::decode(&bytes.into()).is_err());
    }

    #[test]
    fn every_prefix_is_refused(message in message(), length in any::<prop::sample::Index>()) {
        let bytes = message.encode();
        prop_assert!(Message::decode(&bytes.slice(..length.index(bytes.len()))).is_err());
    }

    #[test]
    fn bytes_with_a_right_checksum_are_refused_or_have_one_spelling(
        message in message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = message.encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        seal(&mut bytes);
        let bytes = Bytes::from(bytes);
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_part_of_a_body_has_no_more_around_it_than_its_bound(mut message in message()) {
        if let Kind::Request(head, _) = &mut message.kind {
            head.service = "s".repeat(tidegate_schemas::limits::LANE_SERVICE_BYTES).into();
        }
        if let Kind::Request(_, payload) | Kind::Reply { payload, .. } | Kind::Chunk { payload, .. } = &message.kind {
            prop_assert!(message.encode().len() - payload.len() <= tidegate_schemas::limits::LANE_HEADER_BYTES);
        }
    }
}

fn golden(kind: Kind) -> Message {
    Message { from: NodeId(0x1122_3344_5566_0000), to: NodeId(0xaabb_ccdd_eeff_0000), kind }
}

#[test]
fn golden_messages() {
    let beat = Beat {
        serial: 5,
        time_ms: 86_400_000,
        started_at_ms: 1_700_000_000_000,
        http: "http://10.0.0.1:7070".into(),
        version: "0.2.0".into(),
        services: vec!["delivery".into(), "slot".into()],
    };
    let head = RequestHead { id: 7, left_ms: 5_000, deadline_ms: 86_405_000, hop: 1, service: "slot".into(), total: 3 };
    let kinds = [
        Kind::Beat(beat.clone()),
        Kind::Goodbye,
        Kind::Ask(beat),
        Kind::Request(head, "one".into()),
        Kind::Reply { id: 7, total: 100_000, payload: "two".into() },
        Kind::Refusal { id: 7, cause: Cause::Busy, code: "fenced".into(), message: "too many".into() },
        Kind::Chunk { id: 7, of: Body::Reply, offset: 65_536, payload: "three".into() },
        Kind::Credit { id: 7, of: Body::Reply, offset: 262_144 },
        Kind::Cancel { id: 7 },
    ];
    let hex = |message: &Message| message.encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let written: Vec<String> = kinds.into_iter().map(|kind| hex(&golden(kind))).collect();
    let stored: Vec<&str> =
        include_str!("golden.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(
        written,
        stored,
        "the format of messages changed; a new one needs a new version:\n{}",
        written.join("\n")
    );
}

#[test]
fn what_is_not_known_is_refused() {
    let check = |kind: Kind, at: usize, byte: u8, expected: &str| {
        let mut bytes = golden(kind).encode().to_vec();
        bytes[at] = byte;
        seal(&mut bytes);
        let error = Message::decode(&bytes.into()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(Kind::Goodbye, 0, 2, "version 2");
    check(Kind::Goodbye, 1, 10, "kind 10");
    check(Kind::Goodbye, 2, 1, "flags 1");
    let refusal = Kind::Refusal { id: 7, cause: Cause::Busy, code: "".into(), message: "".into() };
    check(refusal, HEADER_BYTES + 8, 8, "cause 8");
    check(Kind::Credit { id: 7, of: Body::Reply, offset: 0 }, HEADER_BYTES + 8, 2, "body 2");
    let reply = Kind::Reply { id: 7, total: 3, payload: "one".into() };
    check(reply, HEADER_BYTES + 8, 2, "more bytes than its body has");
}
