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

/// Who should take a slot from an owner that is silent, or that has released it. Nobody where nobody else lives.
///
/// The other slots of an owner that is silent or gone are spread with this one, as one. One that gave this slot up and lives
/// keeps what it has, and takes nothing back.
pub(crate) fn successor(
    slot: u32,
    owners: &[(u32, Option<NodeId>)],
    last: Option<NodeId>,
    released: bool,
    members: &[NodeId],
) -> Option<NodeId> {
    let lives = released && last.is_some_and(|last| members.contains(&last));
    let others: Vec<NodeId> = members.iter().copied().filter(|node| Some(*node) != last).collect();
    let spread: Owners =
        owners.iter().copied().filter(|(_, owner)| !lives || owner.is_none() || *owner != last).collect();
    targets(&spread, &others).get(&slot).copied()
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

    #[test]
    fn what_an_owner_gives_up_goes_to_whoever_owns_the_fewest() {
        let members = nodes(1..4);
        let (a, b, c) = (members[0], members[1], members[2]);
        let own = |slots: std::ops::Range<u32>, node| slots.map(move |slot| (slot, Some(node)));
        // One that joined gets what the others give up, though the one that gives up has no more than the third by then.
        let owners: Owners = own(1..6, a).chain(own(6..11, b)).chain(own(11..15, c)).chain([(15, None)]).collect();
        for last in [a, b] {
            assert_eq!(successor(15, &owners, Some(last), true, &members), Some(c));
        }
        // One that leaves is there until all is given up, and takes nothing back; the others share it.
        let mut owners: Owners = own(1..6, a).chain(own(6..11, b)).chain(own(11..16, c)).collect();
        for slot in 11..16 {
            owners[slot as usize - 1].1 = None;
            let next = successor(slot, &owners, Some(c), true, &members).unwrap();
            assert_ne!(next, c);
            owners[slot as usize - 1].1 = Some(next);
        }
        let count = |owners: &Owners, node| owners.iter().filter(|(_, owner)| *owner == Some(node)).count();
        assert!(count(&owners, a).abs_diff(count(&owners, b)) == 1, "{owners:?}");
        // The slots of one that is silent are spread as one, whether it is still taken for a member or not.
        let owners: Owners = own(1..6, a).chain(own(6..11, b)).chain(own(11..16, c)).collect();
        for members in [&members[..], &members[..2]] {
            let next: Vec<_> =
                (11..16).map(|slot| successor(slot, &owners, Some(c), false, members).unwrap()).collect();
            assert!(next.iter().filter(|node| **node == a).count().abs_diff(2) <= 1, "{next:?}");
            assert!(!next.contains(&c));
        }
        assert_eq!(successor(1, &owners, Some(a), false, &[a]), None);
    }
}
