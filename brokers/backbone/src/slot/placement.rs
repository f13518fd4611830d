//! Which slot looks after what. Part of the stored format: a partition's progress is looked for where this says.

use xxhash_rust::xxh3::Xxh3;

/// The slot that reads and delivers a partition of a topic, in a cluster of so many slots.
///
/// Slot 0 holds nothing but the catalogue where there is another slot; partitions are spread over the others by
/// XXH3-64 of the topic's name, a zero byte, and the partition (u32, little-endian).
pub fn slot_of(topic: &str, partition: u32, slots: u32) -> u32 {
    if slots <= 1 {
        return 0;
    }
    let mut hasher = Xxh3::new();
    hasher.update(topic.as_bytes());
    hasher.update(&[0]);
    hasher.update(&partition.to_le_bytes());
    // The remainder is below `slots`, which fits.
    1 + (hasher.digest() % u64::from(slots - 1)) as u32
}

/// The slots whose owners read and deliver partitions, in a cluster of so many slots.
pub fn delivery_slots(slots: u32) -> std::ops::Range<u32> {
    if slots <= 1 { 0..1 } else { 1..slots }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_keep_their_slots_for_ever() {
        let slots: Vec<u32> = (0..8).map(|partition| slot_of("orders", partition, 16)).collect();
        assert_eq!(slots, GOLDEN);
        assert_eq!(slot_of("orders", 3, 1), 0);
        assert_eq!(slot_of("orders", 3, 2), 1);
    }

    const GOLDEN: [u32; 8] = [4, 14, 13, 7, 8, 1, 6, 2];

    #[test]
    fn partitions_are_spread_over_all_slots_but_the_first() {
        let mut counts = [0; 16];
        for topic in 0..100 {
            for partition in 0..4 {
                counts[slot_of(&format!("topic-{topic}"), partition, 16) as usize] += 1;
            }
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|count| (8..=56).contains(count)), "{counts:?}");
        assert_eq!((delivery_slots(1), delivery_slots(2), delivery_slots(16)), (0..1, 1..2, 1..16));
    }
}
