//! Which process should own which slot: a pure function of who lives and who owns.
//!
//! Slots stay where they are as long as nobody owns two more than another; those without an owner go to whoever owns the
//! fewest, by rendezvous hash where several do. So a process that joins is given its share and no more, from those that own
//! the most, and nothing else moves.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::lane::NodeId;

/// Slots with their owners.
pub(crate) type Owners = Vec<(u32, Option<NodeId>)>;

/// How much a process is preferred for a slot.
fn weight(slot: u32, node: NodeId) -> u64 {
    xxh3_64_with_seed(&slot.to_le_bytes(), node.0)
}

/// The processes in the order in which they should own a slot that is not spread with others.
pub(crate) fn order(slot: u32, members: &[NodeId]) -> Vec<NodeId> {
    let mut order = members.to_vec();
    order.sort_by_key(|node| (Reverse(weight(slot, *node)), *node));
    order
}

/// Who should own each of these slots, given who owns them now; a process that does not live owns nothing. Nothing where
/// nobody lives.
pub(crate) fn targets(slots: &[(u32, Option<NodeId>)], members: &[NodeId]) -> BTreeMap<u32, NodeId> {
    let mut targets = BTreeMap::new();
    let mut loads: BTreeMap<NodeId, u32> = members.iter().map(|node| (*node, 0)).collect();
    let mut orphans = Vec::new();
    for (slot, owner) in slots {
        match owner.and_then(|owner| loads.get_mut(&owner).map(|load| (owner, load))) {
            Some((owner, load)) => {
                *load += 1;
                targets.insert(*slot, owner);
            }
            None => orphans.push(*slot),
        }
    }
    for slot in orphans {
        let least = loads.iter_mut().min_by_key(|(node, load)| (**load, Reverse(weight(slot, **node))));
        let Some((node, load)) = least else { return targets };
        *load += 1;
        targets.insert(slot, *node);
    }
    loop {
        let most = loads.iter().max_by_key(|(node, load)| (**load, Reverse(**node)));
        let least = loads.iter().min_by_key(|(node, load)| (**load, **node));
        let (Some((from, high)), Some((to, low))) = (most, least) else { return targets };
        if high - low <= 1 {
            return targets;
        }
        let (from, to) = (*from, *to);
        let owned = targets.iter().filter(|(_, owner)| **owner == from).map(|(slot, _)| *slot);
        let Some(slot) = owned.max_by_key(|slot| weight(*slot, to)) else { return targets };
        targets.insert(slot, to);
        loads.entry(from).and_modify(|load| *load -= 1);
        loads.entry(to).and_modify(|load| *load += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(range: std::ops::Range<u64>) -> Vec<NodeId> {
        range.map(|node| NodeId(node << 16)).collect()
    }

    fn owned(targets: &BTreeMap<u32, NodeId>) -> Vec<(u32, Option<NodeId>)> {
        targets.iter().map(|(slot, owner)| (*slot, Some(*owner))).collect()
    }

    fn loads(targets: &BTreeMap<u32, NodeId>, members: &[NodeId]) -> Vec<usize> {
        members.iter().map(|node| targets.values().filter(|owner| *owner == node).count()).collect()
    }

    #[test]
    fn whoever_joins_gets_its_share_and_nothing_else_moves() {
        for slots in [1_u32, 15, 31] {
            let mut current: Vec<(u32, Option<NodeId>)> = (1..=slots).map(|slot| (slot, None)).collect();
            for count in 1..=9_u64 {
                let members = nodes(1..count + 1);
                let next = targets(&current, &members);
                assert_eq!(next.len(), slots as usize);
                let loads = loads(&next, &members);
                assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{slots} slots: {loads:?}");
                let moved = current.iter().filter(|(slot, owner)| owner.is_some_and(|owner| next[slot] != owner));
                let joined = *members.last().unwrap();
                assert!(moved.clone().all(|(slot, _)| next[slot] == joined));
                assert!(moved.count() <= (slots as usize).div_ceil(count as usize));
                assert_eq!(targets(&owned(&next), &members), next, "it stays so");
                current = owned(&next);
            }
        }
    }

    #[test]
    fn the_slots_of_one_that_is_gone_are_spread_over_the_others() {
        let members = nodes(1..4);
        let all: Vec<(u32, Option<NodeId>)> = (1..16).map(|slot| (slot, None)).collect();
        let before = targets(&all, &members);
        let left = &members[1..];
        let after = targets(&owned(&before), left);
        assert!(before.iter().all(|(slot, owner)| *owner == members[0] || after[slot] == *owner));
        assert!(loads(&after, left).iter().all(|load| *load >= 7));
        assert_eq!(targets(&all, &[]), BTreeMap::new());
        let mut order = order(3, &members);
        assert_eq!(order.len(), 3);
        order.sort();
        assert_eq!(order, members);
    }
}
