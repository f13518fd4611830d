//! Which requests of one caller were seen.

/// The newest ids of one caller, a bit for each. What is older than those is taken for seen: an id is never let through
/// twice, however late it is repeated.
#[derive(Debug)]
pub(super) struct Seen {
    /// One beyond the greatest id.
    next: u64,
    bits: Box<[u64]>,
}

impl Seen {
    /// Room for so many ids, a multiple of 64.
    pub(super) fn new(ids: usize) -> Self {
        Self { next: 0, bits: vec![0; ids.div_ceil(64)].into() }
    }

    fn capacity(&self) -> u64 {
        self.bits.len() as u64 * 64
    }

    /// Notes an id; gives whether it is new.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        if id >= self.next {
            self.forget(id);
        } else if self.next - id > self.capacity() {
            return false;
        }
        let (word, bit) = self.place(id);
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        new
    }

    /// Makes room up to an id beyond all others.
    fn forget(&mut self, id: u64) {
        let next = id.saturating_add(1);
        if next - self.next >= self.capacity() {
            self.bits.fill(0);
        } else {
            for old in self.next..next {
                let (word, bit) = self.place(old);
                self.bits[word] &= !bit;
            }
        }
        self.next = next;
    }

    fn place(&self, id: u64) -> (usize, u64) {
        let at = id % self.capacity();
        ((at / 64) as usize, 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The model: a set of all ids, and the greatest.
        #[test]
        fn an_id_passes_once_and_a_recent_new_one_always(steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..300)) {
            let (mut seen, mut model, mut greatest) = (Seen::new(128), HashSet::new(), 0_u64);
            for (step, back) in steps {
                let id = if back { greatest.saturating_sub(step) } else { greatest + step };
                let new = seen.insert(id);
                greatest = greatest.max(id);
                let recent = greatest - id < 128;
                prop_assert_eq!(new, recent && !model.contains(&id), "id {} behind {}", id, greatest);
                if new {
                    model.insert(id);
                }
            }
        }
    }
}
