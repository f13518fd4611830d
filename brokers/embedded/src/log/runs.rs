//! Where the records of one log are: runs of consecutive positions, each within one segment.

/// Consecutive positions in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    /// Exclusive.
    pub(crate) end: u64,
    pub(crate) segment: u64,
    /// The bytes of the frames; after a cut within the run an estimate in proportion.
    pub(crate) bytes: u64,
}

impl Run {
    /// Takes the positions before `at` off, and gives them.
    fn split_front(&mut self, at: u64) -> Self {
        let bytes = self.bytes * (at - self.first) / (self.end - self.first);
        let front = Self { first: self.first, end: at, segment: self.segment, bytes };
        self.first = at;
        self.bytes -= bytes;
        front
    }
}

/// Bytes that a segment no longer holds for a reader.
pub(crate) type Released = Vec<(u64, u64)>;

/// The runs of a log: ascending, disjoint. Bytes are conserved: the runs of a segment, of all logs together, always hold
/// what was added less what was released.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    /// The run that holds the position.
    pub(crate) fn locate(&self, position: u64) -> Option<Run> {
        let after = self.0.partition_point(|run| run.first <= position);
        self.0[..after].last().filter(|run| position < run.end).copied()
    }

    /// Adds the record behind all others.
    pub(crate) fn push(&mut self, position: u64, segment: u64, bytes: u64) {
        match self.0.last_mut() {
            Some(last) if last.segment == segment && last.end == position => {
                last.end += 1;
                last.bytes += bytes;
            }
            _ => self.0.push(Run { first: position, end: position + 1, segment, bytes }),
        }
    }

    /// Adds a run; where others hold the same positions, they are released.
    pub(crate) fn place(&mut self, run: Run) -> Released {
        let mut released = Released::new();
        let from = self.0.partition_point(|other| other.end <= run.first);
        let to = self.0.partition_point(|other| other.first < run.end);
        let mut between = Vec::with_capacity(3);
        for mut other in self.0[from..to].iter().copied() {
            if other.first < run.first {
                between.push(other.split_front(run.first));
            }
            if other.end > run.end {
                let covered = other.split_front(run.end);
                released.push((covered.segment, covered.bytes));
                // What stands behind goes behind; there can be one such run only, the last.
                between.push(run);
                between.push(other);
            } else {
                released.push((other.segment, other.bytes));
            }
        }
        if !between.contains(&run) {
            between.push(run);
        }
        self.0.splice(from..to, between);
        self.merge_around(run.first);
        released
    }

    fn merge_around(&mut self, position: u64) {
        let mut at = self.0.partition_point(|run| run.end <= position).saturating_sub(1);
        for _ in 0..2 {
            let Some([left, right]) = self.0.get(at..at + 2).and_then(|pair| <[Run; 2]>::try_from(pair).ok()) else {
                return;
            };
            if left.segment == right.segment && left.end == right.first {
                self.0[at] = Run { end: right.end, bytes: left.bytes + right.bytes, ..left };
                self.0.remove(at + 1);
            } else {
                at += 1;
            }
        }
    }

    /// Lets go of the positions before that one.
    pub(crate) fn cut(&mut self, before: u64) -> Released {
        let whole = self.0.partition_point(|run| run.end <= before);
        let mut released: Released = self.0.drain(..whole).map(|run| (run.segment, run.bytes)).collect();
        if let Some(first) = self.0.first_mut()
            && first.first < before
        {
            let front = first.split_front(before);
            released.push((front.segment, front.bytes));
        }
        released
    }

    /// The first position in the range that no run holds.
    pub(crate) fn missing(&self, begin: u64, end: u64) -> Option<u64> {
        let mut at = begin;
        for run in &self.0 {
            if run.first > at || at >= end {
                break;
            }
            at = at.max(run.end);
        }
        (at < end).then_some(at)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|run| run.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::crashing::Seeded;

    #[test]
    fn placing_and_cutting_keep_the_map_and_the_bytes() {
        for seed in 0..2_000 {
            let mut random = Seeded(seed);
            let mut runs = Runs::default();
            let mut model = vec![None; 64];
            let (mut added, mut released) = (0, 0);
            let mut begin = 0;
            for segment in 0..12 {
                if random.below(4) == 0 {
                    begin = (begin + random.below(10)).min(64);
                    released += runs.cut(begin).iter().map(|(_, bytes)| bytes).sum::<u64>();
                    model[..begin as usize].fill(None);
                } else {
                    let first = begin + random.below(64 - begin + 1);
                    let end = first + random.below(64 - first + 1);
                    if first == end {
                        continue;
                    }
                    let bytes = (end - first) * 64 + random.below(100);
                    added += bytes;
                    let out = runs.place(Run { first, end, segment: segment / 2, bytes });
                    released += out.iter().map(|(_, bytes)| bytes).sum::<u64>();
                    model[first as usize..end as usize].fill(Some(segment / 2));
                }
                for (position, expected) in model.iter().enumerate() {
                    let found = runs.locate(position as u64).map(|run| run.segment);
                    assert_eq!(found, *expected, "seed {seed} position {position} in {runs:?}");
                }
                let missing = model[begin as usize..].iter().position(Option::is_none).map(|at| at as u64 + begin);
                assert_eq!(runs.missing(begin, 64), missing, "seed {seed}");
                assert!(runs.0.windows(2).all(|pair| pair[0].end <= pair[1].first), "seed {seed} {runs:?}");
                assert_eq!(runs.bytes(), added - released, "seed {seed}");
            }
        }
    }
}
