//! The accept rule: which frames of a log count. A pure function of the log's prefix, the same for the owner, for every
//! reader and for the model that checks it.

use crate::log::Position;
use crate::slot::frame::Generation;

/// What the rule looks at in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Which slot.
    pub slot: u32,
    /// The writer's epoch.
    pub epoch: u64,
    /// The writer.
    pub owner: u64,
    /// Its place in the epoch.
    pub sequence: u64,
    /// Up to where the writer knew its frames accepted.
    pub known: u64,
    /// The hash of the frame before.
    pub previous_hash: u64,
    /// The hash of this frame.
    pub hash: u64,
    /// What it does to the rule's state.
    pub step: Step,
}

/// What a frame does to the rule's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Begins an epoch.
    Announce {
        /// The last position that the candidate had read.
        observed: Option<Position>,
        /// The epoch before.
        previous_epoch: u64,
        /// The last sequence accepted in it.
        previous_last_sequence: u64,
        /// The hash of that frame.
        previous_hash: u64,
    },
    /// Commits.
    Commit {
        /// Of the first.
        revision: u64,
        /// How many.
        commits: u64,
    },
    /// Nothing but a sign of life.
    Heartbeat,
    /// Ends the ownership.
    Release,
    /// Part of a snapshot.
    Snapshot,
    /// Ends the snapshot.
    Opened {
        /// The revision that it stands for.
        revision: u64,
        /// Generations before this one.
        ordinal: u64,
    },
    /// Ends the generation.
    Seal {
        /// The one that goes on.
        next: Generation,
    },
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It counted before, at an earlier position.
    Duplicate,
    /// It is void: its epoch is over, the generation is sealed, or its owner released the slot.
    Superseded,
    /// An Announce that is void, because the owner wrote after what the candidate had read.
    Stale,
    /// It is void, because a frame before it is missing. The owner sends both again, or a new epoch begins.
    Gap,
    /// What is read contradicts itself: records were lost or damaged, or a rule was broken. Nothing behind it may be used.
    Broken(Broken),
}

/// How a log contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Positions do not increase.
    #[error("a record stands at or before one that was read already")]
    Position,
    /// Another slot's frame.
    #[error("a frame belongs to slot {slot}")]
    Slot {
        /// Which.
        slot: u32,
    },
    /// An epoch without its Announce.
    #[error("a frame of epoch {epoch} stands where {current} is the last epoch announced; its Announce is missing")]
    Epoch {
        /// The frame's.
        epoch: u64,
        /// The last one announced.
        current: u64,
    },
    /// The Announce was made by a candidate that had seen something else.
    #[error(
        "epoch {epoch} was announced behind frame {announced} of the epoch before, but frame {found} was read last"
    )]
    Announced {
        /// The new epoch.
        epoch: u64,
        /// What its owner had seen.
        announced: u64,
        /// What this reader has seen.
        found: u64,
    },
    /// A frame that its owner knew accepted is missing.
    #[error("frames {missing} to {known} of epoch {epoch} are missing, though their owner had relied on them")]
    Lost {
        /// In which epoch.
        epoch: u64,
        /// The first that is missing.
        missing: u64,
        /// The last that the owner relied on.
        known: u64,
    },
    /// The frame follows another one than that which was read.
    #[error("frame {sequence} of epoch {epoch} does not follow the frame that stands before it")]
    Chain {
        /// Its epoch.
        epoch: u64,
        /// Its sequence.
        sequence: u64,
    },
    /// A commit out of order.
    #[error("a commit has revision {found} where {expected} is next")]
    Revision {
        /// What it has.
        found: u64,
        /// What is next.
        expected: u64,
    },
    /// A frame that has no place here, such as a commit in an unfinished snapshot.
    #[error("a frame of this kind has no place here")]
    Misplaced,
}

/// What the log is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The snapshot is not complete.
    Building,
    /// Commits.
    Open,
    /// Nothing: another generation goes on.
    Sealed(Generation),
}

/// The rule's state after a prefix of one generation's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    slot: u32,
    generation: Generation,
    phase: Phase,
    begun: bool,
    epoch: u64,
    owner: Option<u64>,
    last_sequence: u64,
    last_hash: u64,
    last_position: Option<Position>,
    read: Option<Position>,
    released: bool,
    revision: u64,
    ordinal: u64,
}

impl Acceptor {
    /// The state before the first record of that generation.
    pub fn new(slot: u32, generation: Generation) -> Self {
        let first = generation == Generation::FIRST;
        Self {
            slot,
            generation,
            phase: if first { Phase::Open } else { Phase::Building },
            begun: first,
            epoch: generation.epoch,
            owner: None,
            last_sequence: 0,
            last_hash: generation.genesis(slot),
            last_position: None,
            read: None,
            released: false,
            revision: 0,
            ordinal: 0,
        }
    }

    /// Judges the record at that position. Records are given once each, in the order of the log; after
    /// [`Verdict::Broken`] none is to be given any more.
    pub fn accept(&mut self, link: &Link, position: Position) -> Verdict {
        if self.read.is_some_and(|read| position <= read) {
            return Verdict::Broken(Broken::Position);
        }
        let verdict = self.judge(link);
        self.read = Some(position);
        if verdict == Verdict::Accepted {
            self.take(link, position);
        }
        verdict
    }

    fn judge(&self, link: &Link) -> Verdict {
        if link.slot != self.slot {
            return Verdict::Broken(Broken::Slot { slot: link.slot });
        }
        if matches!(self.phase, Phase::Sealed(_)) {
            return Verdict::Superseded;
        }
        if !self.begun {
            return self.judge_first(link);
        }
        if let Step::Announce { observed, previous_epoch, previous_last_sequence, previous_hash } = link.step {
            if link.epoch <= self.epoch {
                let again = link.epoch == self.epoch && link.sequence == 0 && self.owner == Some(link.owner);
                return if again { Verdict::Duplicate } else { Verdict::Superseded };
            }
            if link.epoch > self.epoch + 1 {
                return Verdict::Broken(Broken::Epoch { epoch: link.epoch, current: self.epoch });
            }
            if self.last_position > observed {
                return Verdict::Stale;
            }
            let same = previous_epoch == self.epoch
                && previous_last_sequence == self.last_sequence
                && previous_hash == self.last_hash
                && link.previous_hash == self.last_hash;
            if !same || link.sequence != 0 {
                let (announced, found) = (previous_last_sequence, self.last_sequence);
                return Verdict::Broken(Broken::Announced { epoch: link.epoch, announced, found });
            }
            return Verdict::Accepted;
        }
        self.judge_next(link)
    }

    /// A generation that is not the slot's first begins with the snapshot of the owner that named it.
    fn judge_first(&self, link: &Link) -> Verdict {
        if link.epoch != self.epoch {
            return Verdict::Broken(Broken::Epoch { epoch: link.epoch, current: self.epoch });
        }
        if link.sequence != 0 {
            return if link.known > 0 {
                Verdict::Broken(Broken::Lost { epoch: link.epoch, missing: 0, known: link.known })
            } else {
                Verdict::Gap
            };
        }
        if link.step != Step::Snapshot {
            return Verdict::Broken(Broken::Misplaced);
        }
        if link.previous_hash != self.last_hash {
            return Verdict::Broken(Broken::Chain { epoch: link.epoch, sequence: 0 });
        }
        Verdict::Accepted
    }

    fn judge_next(&self, link: &Link) -> Verdict {
        if link.epoch > self.epoch {
            return Verdict::Broken(Broken::Epoch { epoch: link.epoch, current: self.epoch });
        }
        if link.epoch < self.epoch || self.owner != Some(link.owner) {
            return Verdict::Superseded;
        }
        if link.sequence <= self.last_sequence {
            // The same place in the epoch with other content would be a broken promise of the owner's.
            return if link.sequence == self.last_sequence && link.hash != self.last_hash {
                Verdict::Broken(Broken::Chain { epoch: link.epoch, sequence: link.sequence })
            } else {
                Verdict::Duplicate
            };
        }
        if self.released {
            return Verdict::Superseded;
        }
        if link.sequence > self.last_sequence + 1 {
            let (missing, known) = (self.last_sequence + 1, link.known);
            return if known >= missing {
                Verdict::Broken(Broken::Lost { epoch: link.epoch, missing, known })
            } else {
                Verdict::Gap
            };
        }
        if link.previous_hash != self.last_hash {
            return Verdict::Broken(Broken::Chain { epoch: link.epoch, sequence: link.sequence });
        }
        let building = self.phase == Phase::Building;
        match link.step {
            Step::Snapshot | Step::Opened { .. } if !building => Verdict::Broken(Broken::Misplaced),
            Step::Commit { .. } | Step::Seal { .. } | Step::Release if building => Verdict::Broken(Broken::Misplaced),
            Step::Commit { revision, .. } if revision != self.revision + 1 => {
                Verdict::Broken(Broken::Revision { found: revision, expected: self.revision + 1 })
            }
            _ => Verdict::Accepted,
        }
    }

    fn take(&mut self, link: &Link, position: Position) {
        match link.step {
            Step::Announce { .. } => self.released = false,
            Step::Commit { commits, .. } => self.revision += commits,
            Step::Release => self.released = true,
            Step::Opened { revision, ordinal } => {
                self.phase = Phase::Open;
                self.revision = revision;
                self.ordinal = ordinal;
            }
            Step::Seal { next } => self.phase = Phase::Sealed(next),
            Step::Heartbeat | Step::Snapshot => {}
        }
        self.begun = true;
        self.epoch = link.epoch;
        self.owner = Some(link.owner);
        self.last_sequence = link.sequence;
        self.last_hash = link.hash;
        self.last_position = Some(position);
    }

    /// Which slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Which generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What the log is ready for.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the log holds an accepted frame, or is the slot's first.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// The epoch of the last accepted frame.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The writer of the last accepted frame.
    pub fn owner(&self) -> Option<u64> {
        self.owner
    }

    /// The sequence of the last accepted frame.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The hash of the last accepted frame.
    pub fn last_hash(&self) -> u64 {
        self.last_hash
    }

    /// Where the last accepted frame stands.
    pub fn last_position(&self) -> Option<Position> {
        self.last_position
    }

    /// The last position that was judged.
    pub fn read(&self) -> Option<Position> {
        self.read
    }

    /// Whether the owner has written that it writes no more.
    pub fn released(&self) -> bool {
        self.released
    }

    /// The revision of the last accepted commit.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Generations of the slot before this one; known once the generation is opened.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// What a candidate announces that has read up to here: its epoch and step.
    pub fn announce(&self) -> (u64, Step) {
        let step = Step::Announce {
            observed: self.read,
            previous_epoch: self.epoch,
            previous_last_sequence: self.last_sequence,
            previous_hash: self.last_hash,
        };
        (self.epoch + 1, step)
    }
}
