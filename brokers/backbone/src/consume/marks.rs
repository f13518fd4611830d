//! Which partitions of a slot stand otherwise than its last checkpoint says, so that a checkpoint looks at those alone: what
//! rests costs nothing, however much of it there is.
//!
//! Whoever changes what a checkpoint says of a partition marks it under the lock that a checkpoint reads it under. A
//! checkpoint takes the marks before it reads, so that a change is either read, or marked for the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::core::Partition;

/// A partition that may be marked.
#[derive(Debug)]
pub(super) struct Mark {
    partition: Partition,
    set: AtomicBool,
}

/// The marks of one ownership.
#[derive(Debug)]
pub(super) struct Marks {
    known: Mutex<HashMap<Partition, Arc<Mark>>>,
    set: Mutex<Vec<Arc<Mark>>>,
    /// Everything is to be looked at.
    whole: AtomicBool,
}

/// What a checkpoint is to look at.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// Everything.
    pub(super) whole: bool,
    marks: Vec<Arc<Mark>>,
}

impl Marked {
    pub(super) fn is_empty(&self) -> bool {
        !self.whole && self.marks.is_empty()
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.marks.iter().map(|mark| &mark.partition)
    }
}

/// Nothing was written by this ownership yet, so that its first checkpoint looks at everything.
impl Default for Marks {
    fn default() -> Self {
        Self { known: Mutex::default(), set: Mutex::default(), whole: AtomicBool::new(true) }
    }
}

impl Marks {
    /// The mark of a partition, the same for everybody who asks.
    pub(super) fn of(&self, partition: &Partition) -> Arc<Mark> {
        let mut known = self.known.lock();
        if let Some(mark) = known.get(partition) {
            return Arc::clone(mark);
        }
        let mark = Arc::new(Mark { partition: partition.clone(), set: AtomicBool::new(false) });
        known.insert(partition.clone(), Arc::clone(&mark));
        mark
    }

    /// Marks a partition.
    pub(super) fn set(&self, mark: &Arc<Mark>) {
        if !mark.set.load(Ordering::Relaxed) && !mark.set.swap(true, Ordering::AcqRel) {
            self.set.lock().push(Arc::clone(mark));
        }
    }

    /// Marks everything: what there is has changed, or what was written is not known.
    pub(super) fn set_all(&self) {
        self.whole.store(true, Ordering::Release);
    }

    /// Takes what is marked.
    pub(super) fn take(&self) -> Marked {
        let whole = self.whole.swap(false, Ordering::AcqRel);
        let marks = std::mem::take(&mut *self.set.lock());
        marks.iter().for_each(|mark| mark.set.store(false, Ordering::Release));
        Marked { whole, marks }
    }

    /// Marks again what could not be written.
    pub(super) fn give_back(&self, marked: Marked) {
        if marked.whole {
            self.set_all();
        }
        marked.marks.iter().for_each(|mark| self.set(mark));
    }

    /// Forgets the partitions of a topic that is gone.
    pub(super) fn forget_topic(&self, topic: &str) {
        self.known.lock().retain(|partition, _| partition.topic.as_str() != topic);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_routing::TopicName;

    use super::*;

    #[test]
    fn what_is_marked_is_taken_once_and_may_be_given_back() {
        let partition = |number| Partition { topic: TopicName::parse("t").unwrap(), number };
        let marks = Marks::default();
        assert!(marks.take().whole, "the first checkpoint looks at everything");
        assert!(marks.take().is_empty());
        let (one, other) = (marks.of(&partition(1)), marks.of(&partition(2)));
        assert!(Arc::ptr_eq(&one, &marks.of(&partition(1))));
        for mark in [&one, &other, &one] {
            marks.set(mark);
        }
        let taken = marks.take();
        assert_eq!(taken.partitions().cloned().collect::<Vec<_>>(), [partition(1), partition(2)]);
        assert!(marks.take().is_empty());
        marks.set(&one);
        marks.give_back(taken);
        assert_eq!(marks.take().partitions().cloned().collect::<Vec<_>>(), [partition(1), partition(2)]);
        marks.set_all();
        assert!(marks.take().whole);
    }
}
