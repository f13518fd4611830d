//! Whether a history of one register could have happened one operation after the other: the search of Wing and Gong with
//! remembered states, as Lowe improved it. Registers are checked one by one, which is enough: linearizability composes.
//!
//! An operation whose outcome is not known may have taken effect at any time after it was called, or never.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What a register holds: none where it is not there. Each written value is another, so that values tell writes apart.
pub type Value = Option<u64>;

/// What an operation did, as far as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It saw that.
    Read(Value),
    /// It wrote that, whatever was there.
    Write(Value),
    /// It found `from` and wrote `to`.
    Changed {
        /// What was there.
        from: Value,
        /// What is there since.
        to: Value,
    },
    /// It did not find that, and wrote nothing.
    Refused(Value),
}

impl Step {
    fn writes(self) -> bool {
        matches!(self, Self::Write(_) | Self::Changed { .. })
    }
}

/// An operation between its call and its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub called: u64,
    /// When it returned; none where its outcome is not known.
    pub returned: Option<u64>,
    /// What it did; of an unknown outcome what it was to do.
    pub step: Step,
}

/// Whether these operations of one register, which begins with that value, are linearizable.
pub fn linearizable(initial: Value, history: &[Operation]) -> bool {
    // What wrote nothing and told nobody says nothing.
    let told = |operation: &&Operation| operation.returned.is_some() || operation.step.writes();
    let mut operations: Vec<Operation> = history.iter().filter(told).copied().collect();
    operations.sort_by_key(|operation| operation.called);
    let mut search = Search {
        done: vec![0; operations.len().div_ceil(64)],
        left: operations.iter().filter(|operation| operation.returned.is_some()).count(),
        operations,
        seen: HashSet::new(),
    };
    search.run(initial)
}

struct Search {
    operations: Vec<Operation>,
    /// The operations that took effect, one bit each.
    done: Vec<u64>,
    /// How many that returned have not.
    left: usize,
    seen: HashSet<(Vec<u64>, Value)>,
}

impl Search {
    fn run(&mut self, initial: Value) -> bool {
        // What took effect, with the value before it.
        let mut path: Vec<(usize, Value)> = Vec::new();
        let (mut value, mut next) = (initial, 0);
        loop {
            if self.left == 0 {
                return true;
            }
            // What writes nothing takes nothing away by taking effect as soon as it can: no other order needs to be tried.
            let found = if next == 0 { self.candidate(0, value, false) } else { None };
            match found.or_else(|| self.candidate(next, value, true)) {
                Some((index, after)) => {
                    self.mark(index, true);
                    if self.seen.insert((self.done.clone(), after)) {
                        path.push((index, value));
                        (value, next) = (after, 0);
                    } else {
                        self.mark(index, false);
                        // Behind what writes nothing there is nothing else to be tried.
                        next = if self.operations[index].step.writes() { index + 1 } else { self.operations.len() };
                    }
                }
                None => {
                    let Some((index, before)) = path.pop() else { return false };
                    self.mark(index, false);
                    value = before;
                    next = if self.operations[index].step.writes() { index + 1 } else { self.operations.len() };
                }
            }
        }
    }

    /// The first operation from there on that may take effect next and writes or does not, with the value after it: it was
    /// called before any that has not taken effect returned.
    fn candidate(&self, from: usize, value: Value, writes: bool) -> Option<(usize, Value)> {
        let waiting = self.operations.iter().enumerate().filter(|(index, _)| !self.is_done(*index));
        let bound = waiting.filter_map(|(_, operation)| operation.returned).min().unwrap_or(u64::MAX);
        let within = (from..self.operations.len()).take_while(|index| self.operations[*index].called <= bound);
        within
            .filter(|index| !self.is_done(*index) && self.operations[*index].step.writes() == writes)
            .find_map(|index| apply(self.operations[index].step, value).map(|after| (index, after)))
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] & (1 << (index % 64)) != 0
    }

    fn mark(&mut self, index: usize, done: bool) {
        self.done[index / 64] ^= 1 << (index % 64);
        if self.operations[index].returned.is_some() {
            self.left = if done { self.left - 1 } else { self.left + 1 };
        }
    }
}

fn apply(step: Step, value: Value) -> Option<Value> {
    match step {
        Step::Read(seen) => (seen == value).then_some(value),
        Step::Write(to) => Some(to),
        Step::Changed { from, to } => (from == value).then_some(to),
        Step::Refused(from) => (from != value).then_some(value),
    }
}

/// Notes the operations of clients that run at once on one register.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    time: Arc<AtomicU64>,
    operations: Arc<Mutex<Vec<Operation>>>,
}

impl Recorder {
    /// Something is about to be called.
    pub fn call(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// It has returned.
    pub fn returned(&self, called: u64, step: Step) {
        let returned = Some(self.time.fetch_add(1, Ordering::SeqCst));
        self.operations.lock().push(Operation { called, returned, step });
    }

    /// Its outcome is not known.
    pub fn unknown(&self, called: u64, step: Step) {
        self.operations.lock().push(Operation { called, returned: None, step });
    }

    /// What was noted.
    pub fn history(&self) -> Vec<Operation> {
        self.operations.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(called: u64, returned: u64, step: Step) -> Operation {
        Operation { called, returned: Some(returned), step }
    }

    fn unknown(called: u64, step: Step) -> Operation {
        Operation { called, returned: None, step }
    }

    fn change(from: Value, to: u64) -> Step {
        Step::Changed { from, to: Some(to) }
    }

    #[test]
    fn histories_that_can_have_happened_pass() {
        let histories: [(&str, Vec<Operation>); 6] = [
            ("nothing", vec![]),
            (
                "one after the other",
                vec![
                    at(0, 1, change(None, 1)),
                    at(2, 3, Step::Read(Some(1))),
                    at(4, 5, Step::Refused(None)),
                    at(6, 7, Step::Write(None)),
                    at(8, 9, Step::Read(None)),
                ],
            ),
            (
                "a read beside a write sees either",
                vec![at(0, 9, change(None, 1)), at(1, 2, Step::Read(None)), at(3, 4, Step::Read(Some(1)))],
            ),
            (
                "an unknown write is seen late",
                vec![
                    unknown(0, change(None, 1)),
                    at(1, 2, Step::Read(None)),
                    at(3, 4, Step::Read(None)),
                    at(5, 6, Step::Read(Some(1))),
                ],
            ),
            (
                "an unknown write never happened",
                vec![unknown(0, change(None, 1)), at(1, 2, change(None, 2)), at(3, 4, Step::Read(Some(2)))],
            ),
            (
                "changes in an order that their calls do not have",
                vec![
                    at(0, 9, change(Some(2), 3)),
                    at(1, 8, change(Some(1), 2)),
                    at(2, 7, change(None, 1)),
                    at(10, 11, Step::Read(Some(3))),
                ],
            ),
        ];
        for (what, history) in histories {
            assert!(linearizable(None, &history), "{what}");
        }
    }

    #[test]
    fn histories_that_cannot_have_happened_fail() {
        let histories: [(&str, Vec<Operation>); 8] = [
            ("a stale read", vec![at(0, 1, change(None, 1)), at(2, 3, Step::Read(None))]),
            (
                "a read that goes back",
                vec![at(0, 9, change(None, 1)), at(1, 2, Step::Read(Some(1))), at(3, 4, Step::Read(None))],
            ),
            ("a value that nobody wrote", vec![at(0, 1, change(None, 1)), at(2, 3, Step::Read(Some(7)))]),
            ("a lost update", vec![at(0, 5, change(None, 1)), at(1, 6, change(None, 2))]),
            (
                "an acknowledged write that is gone",
                vec![at(0, 1, change(None, 1)), at(2, 3, change(Some(1), 2)), at(4, 5, Step::Read(Some(1)))],
            ),
            ("a refusal without reason", vec![at(0, 1, change(None, 1)), at(2, 3, Step::Refused(Some(1)))]),
            (
                "an unknown write that happened twice",
                vec![
                    unknown(0, change(None, 1)),
                    at(1, 2, Step::Read(Some(1))),
                    at(3, 4, change(Some(1), 2)),
                    at(5, 6, Step::Read(Some(1))),
                ],
            ),
            ("an unknown write before its call", vec![at(0, 1, Step::Read(Some(1))), unknown(2, change(None, 1))]),
        ];
        for (what, history) in histories {
            assert!(!linearizable(None, &history), "{what}");
        }
    }

    /// Histories of a real register pass, and fail once one read in them is made stale.
    #[test]
    fn long_histories_of_many_clients_are_searched_in_bounds() {
        let mut state = 0_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            xxhash_rust::xxh3::xxh3_64(&state.to_le_bytes()) % below
        };
        for _ in 0..5 {
            let (mut value, mut history, mut time) = (None, Vec::new(), 0);
            let mut open: Vec<(u64, Step)> = Vec::new();
            for written in 1..=400_u64 {
                time += 1;
                // Takes effect at once, and returns among the next eight.
                let step = match random(4) {
                    0 => Step::Read(value),
                    1 => Step::Refused(Some(u64::MAX)),
                    _ => {
                        let step = Step::Changed { from: value, to: Some(written) };
                        value = Some(written);
                        step
                    }
                };
                open.push((time, step));
                if open.len() == 8 {
                    let (called, step) = open.remove(random(8) as usize);
                    time += 1;
                    let lost = random(20) == 0 && !matches!(step, Step::Read(_));
                    history.push(if lost { unknown(called, step) } else { at(called, time, step) });
                }
            }
            // What has not returned has taken effect all the same.
            let writes = open.into_iter().filter(|(_, step)| !matches!(step, Step::Read(_)));
            history.extend(writes.map(|(called, step)| unknown(called, step)));
            assert!(linearizable(None, &history));
            history.push(at(time + 1, time + 2, Step::Read(None)));
            assert!(!linearizable(None, &history));
        }
    }
}
