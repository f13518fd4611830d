//! Which partition of a topic an event goes to.
//!
//! The function is part of the stored format: events of a key stay in order only while every gateway of every version
//! sends them to the same partition. The vectors in this module's tests may therefore never change.

use std::borrow::Cow;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use tidegate_schemas::Event;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Which attribute of its events a topic takes the key from (`keyFrom`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyFrom {
    /// `partitionkey`, the CloudEvents Partitioning extension.
    #[default]
    #[serde(rename = "partitionkey")]
    PartitionKey,
    /// `subject`.
    Subject,
}

/// The key of an event: the order of events with the same key is kept, and an event without one has no order.
///
/// An empty value is no key. A key that came as a number or another type than String counts in its canonical string
/// form, because a transport that has only strings (HTTP headers) carries it like that, and both are one key.
pub fn key_of(event: &Event, from: KeyFrom) -> Option<Cow<'_, str>> {
    let attribute = match from {
        KeyFrom::PartitionKey => event.attribute("partitionkey"),
        KeyFrom::Subject => event.attribute("subject"),
    };
    attribute.filter(|key| !key.is_empty())
}

/// The partition of an event, zero-based: by its key, or without one by its identity, so that a repeat meets the first.
pub fn partition_of(event: &Event, from: KeyFrom, partitions: NonZeroU32) -> u32 {
    match key_of(event, from) {
        Some(key) => partition_of_key(&key, partitions),
        None => partition_of_identity(event.source(), event.id(), partitions),
    }
}

/// The partition of a key: XXH3 (64 bits, seed 0) of its UTF-8 bytes, modulo the number of partitions.
pub fn partition_of_key(key: &str, partitions: NonZeroU32) -> u32 {
    reduce(xxh3_64(key.as_bytes()), partitions)
}

/// The partition of an event without a key: XXH3 (64 bits, seed 0) of the length of `source` in bytes as a 64-bit
/// little-endian number, then `source`, then `id`. The length parts the two without a character that either may hold.
pub fn partition_of_identity(source: &str, id: &str, partitions: NonZeroU32) -> u32 {
    let mut hasher = Xxh3::new();
    hasher.update(&(source.len() as u64).to_le_bytes());
    hasher.update(source.as_bytes());
    hasher.update(id.as_bytes());
    reduce(hasher.digest(), partitions)
}

fn reduce(hash: u64, partitions: NonZeroU32) -> u32 {
    u32::try_from(hash % u64::from(partitions.get())).expect("a remainder is smaller than its 32-bit divisor")
}

#[cfg(test)]
mod tests {
    use tidegate_schemas::Value;

    use super::*;

    const ALL: NonZeroU32 = NonZeroU32::MAX;

    fn of(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    /// Never to be changed: records on disk and on brokers lie where these numbers say. They were computed with the
    /// reference implementation of XXH3.
    #[test]
    fn golden_vectors_of_keys() {
        // The key, and its partition of 2^32 - 1, 4, 7 and 256.
        let golden = [
            ("a", [89_948_374, 3, 1, 31]),
            ("abc", [31_365_349, 0, 2, 80]),
            ("customer-42", [1_938_064_398, 1, 3, 97]),
            ("orders/placed", [4_235_892_438, 2, 4, 206]),
            ("\u{fc}n\u{ef}code", [2_340_657_703, 3, 5, 135]),
            ("0", [3_567_711_228, 1, 3, 85]),
            (&"x".repeat(16), [1_585_749_485, 3, 4, 223]),
            (&"x".repeat(100), [2_824_491_842, 2, 3, 66]),
            (&"x".repeat(200), [47_444_131, 3, 2, 83]),
            (&"x".repeat(1_000), [1_456_554_494, 2, 6, 130]),
        ];
        for (key, expected) in golden {
            let got = [ALL, of(4), of(7), of(256)].map(|partitions| partition_of_key(key, partitions));
            assert_eq!(got, expected, "{key:?}");
        }
    }

    /// Never to be changed, as above.
    #[test]
    fn golden_vectors_of_identities() {
        let golden = [
            ("/s", "1", [952_470_097, 1, 2, 113]),
            ("ab", "c", [4_197_588_879, 0, 5, 124]),
            ("a", "bc", [1_035_145_625, 0, 6, 52]),
            ("https://shop.example/orders", "0197c2b4-7f0e-7c31-9a55-4f3f1d0a6b11", [3_730_766_975, 3, 1, 11]),
            (&format!("/{}", "s".repeat(300)), "id", [1_513_413_519, 0, 3, 148]),
        ];
        for (source, id, expected) in golden {
            let got = [ALL, of(4), of(7), of(256)].map(|partitions| partition_of_identity(source, id, partitions));
            assert_eq!(got, expected, "{source:?} {id:?}");
        }
    }

    #[test]
    fn source_and_id_cannot_run_into_each_other() {
        assert_ne!(partition_of_identity("ab", "c", ALL), partition_of_identity("a", "bc", ALL));
    }

    #[test]
    fn keys_come_from_where_the_topic_says() {
        let event = |key: Option<Value>, subject: Option<&'static str>| {
            let mut builder = Event::builder("1", "/s", "t");
            if let Some(key) = key {
                builder = builder.extension("partitionkey", key);
            }
            if let Some(subject) = subject {
                builder = builder.subject(subject);
            }
            builder.build().unwrap()
        };
        let text = |text: &'static str| Some(Value::String(text.into()));
        for (key, subject, by_key, by_subject) in [
            (text("k"), Some("s"), Some("k"), Some("s")),
            (text("k"), None, Some("k"), None),
            (None, Some("s"), None, Some("s")),
            (Some(Value::Integer(7)), None, Some("7"), None),
        ] {
            let event = event(key, subject);
            assert_eq!(key_of(&event, KeyFrom::PartitionKey).as_deref(), by_key);
            assert_eq!(key_of(&event, KeyFrom::Subject).as_deref(), by_subject);
        }
        let keyed = event(text("k"), None);
        assert_eq!(partition_of(&keyed, KeyFrom::PartitionKey, ALL), partition_of_key("k", ALL));
        assert_eq!(partition_of(&keyed, KeyFrom::Subject, ALL), partition_of_identity("/s", "1", ALL));
    }

    #[test]
    fn keys_spread_over_all_partitions() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            counts[partition_of_key(&format!("customer-{number}"), of(16)) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
