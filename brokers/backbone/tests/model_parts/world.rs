//! The broker of the model, what readers make of its logs, and what may be wrong with that.

use std::hash::{DefaultHasher, Hash, Hasher};

use tidegate_backbone::Position;
use tidegate_backbone::slot::accept::{Acceptor, Link, Phase, Step, Verdict};
use tidegate_backbone::slot::frame::Generation;

use super::Bounds;
use super::nodes::Node;

/// Which rule is weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    NoEpochCheck,
    NoSequenceRule,
    NoObserved,
    UnbrokenRun,
    NoPredecessor,
    AfterSeal,
    UnsealedIsValid,
    DeleteBeforeOpened,
}

/// What can be wrong with a world.
pub(crate) mod flaw {
    pub(crate) const TWICE: u8 = 1;
    pub(crate) const MISSING: u8 = 2;
    pub(crate) const OWNERS: u8 = 4;
    pub(crate) const VOID: u8 = 8;
    pub(crate) const GENERATIONS: u8 = 16;
    pub(crate) const UNFINDABLE: u8 = 32;
    pub(crate) const USURPED: u8 = 64;
    pub(crate) const BROKEN: u8 = 128;
}

/// A record of a log: what the accept rule sees, and which commands it executes or, in a snapshot, stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) link: Link,
    pub(crate) commands: u8,
}

impl Record {
    /// A record whose hash follows from all that it holds.
    pub(crate) fn new(mut link: Link, commands: u8) -> Self {
        let mut hasher = DefaultHasher::new();
        link.hash = 0;
        (link, commands).hash(&mut hasher);
        link.hash = hasher.finish();
        Self { link, commands }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    pub(crate) generation: Generation,
    pub(crate) records: Vec<Record>,
    pub(crate) deleted: bool,
}

/// An append under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flight {
    pub(crate) log: usize,
    pub(crate) node: usize,
    pub(crate) sequence: u64,
    pub(crate) hash: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) logs: Vec<Log>,
    pub(crate) flights: Vec<(Flight, Record)>,
    pub(crate) nodes: [Node; 2],
    pub(crate) acknowledged: u8,
    pub(crate) announces: u8,
    pub(crate) faults: u8,
    pub(crate) rolls: u8,
    pub(crate) flaws: u8,
    pub(crate) completed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A node takes part as a candidate, whatever it was before: what it was has died or hangs in its appends.
    Announce(usize),
    Read(usize),
    /// An owner sends what is out again, before it has read what became of it.
    SendAgain(usize),
    Commit(usize, u8),
    Roll(usize),
    Seal(usize),
    Release(usize),
    /// The append is written and, where its node still waits, told.
    Deliver(usize),
    /// It is written and told, and will be written again.
    Repeat(usize),
    /// It is not written, and its node is told that this is not known.
    Lose(usize),
}

/// The accept rule of the product, or a weakened one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    pub(crate) acceptor: Acceptor,
    pub(crate) commands: u8,
}

impl Rule {
    pub(crate) fn new(generation: Generation) -> Self {
        Self { acceptor: Acceptor::new(0, generation), commands: 0 }
    }

    pub(crate) fn accept(&mut self, mutation: Mutation, record: &Record, index: usize) -> Verdict {
        let mut link = record.link;
        let state = &self.acceptor;
        let announce = matches!(link.step, Step::Announce { .. });
        let mut forged = false;
        match mutation {
            Mutation::NoEpochCheck => forged = !announce && link.epoch < state.epoch(),
            Mutation::NoSequenceRule => {
                forged =
                    !announce && link.epoch == state.epoch() && state.owner() == Some(link.owner) && link.sequence > 0;
            }
            Mutation::NoObserved if announce && link.epoch == state.epoch() + 1 => {
                link.step = state.announce().1;
                link.previous_hash = state.last_hash();
            }
            Mutation::AfterSeal if matches!(link.step, Step::Seal { .. }) => link.step = Step::Heartbeat,
            _ => {}
        }
        if forged {
            link.epoch = state.epoch();
            link.owner = state.owner().unwrap_or(0);
            link.sequence = state.last_sequence() + 1;
            link.previous_hash = state.last_hash();
            if let Step::Commit { revision, .. } = &mut link.step {
                *revision = state.revision() + 1;
            }
        }
        let verdict = self.acceptor.accept(&link, Position(index as u64));
        if verdict == Verdict::Accepted {
            self.commands |= record.commands;
        }
        verdict
    }

    /// Judges what the log holds behind what was read; gives the accepted records.
    pub(crate) fn read<'a>(&mut self, mutation: Mutation, log: &'a Log) -> Vec<&'a Record> {
        let from = self.acceptor.read().map_or(0, |position| position.0 as usize + 1);
        let mut accepted = Vec::new();
        for (index, record) in log.records.iter().enumerate().skip(from) {
            match self.accept(mutation, record, index) {
                Verdict::Accepted => accepted.push(record),
                Verdict::Broken(_) => break,
                _ => {}
            }
        }
        accepted
    }
}

/// The generation in which a slot goes on, as a node finds it from the logs that are there.
pub(crate) struct Found {
    pub(crate) log: usize,
    pub(crate) rule: Rule,
    /// Where the generation is not opened: what it must come to stand for, and which one is sealed.
    pub(crate) unopened: Option<(u8, usize)>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            logs: vec![Log { generation: Generation::FIRST, records: Vec::new(), deleted: false }],
            flights: Vec::new(),
            nodes: [Node::Idle, Node::Idle],
            acknowledged: 0,
            announces: 0,
            faults: 0,
            rolls: 0,
            flaws: 0,
            completed: false,
        }
    }

    pub(crate) fn has(&self, flaw: u8) -> bool {
        self.flaws & flaw != 0
    }

    pub(crate) fn rolled(&self) -> bool {
        self.logs.iter().any(|log| log.deleted)
    }

    pub(crate) fn committed_by_both(&self) -> bool {
        let commits = |epoch| {
            let commit =
                |record: &Record| record.link.epoch == epoch && matches!(record.link.step, Step::Commit { .. });
            self.logs.iter().flat_map(|log| &log.records).any(commit)
        };
        self.completed && commits(1) && commits(2)
    }

    pub(crate) fn log_of(&self, generation: Generation) -> Option<usize> {
        self.logs.iter().position(|log| log.generation == generation)
    }

    pub(crate) fn find(&self, mutation: Mutation) -> Option<Found> {
        let fold = |index: usize| {
            let mut rule = Rule::new(self.logs[index].generation);
            rule.read(mutation, &self.logs[index]);
            rule
        };
        let valid = |index: &usize| !self.logs[*index].deleted && fold(*index).acceptor.phase() != Phase::Building;
        let mut log = (0..self.logs.len()).filter(valid).max_by_key(|index| fold(*index).acceptor.ordinal())?;
        let mut unopened = None;
        loop {
            let rule = fold(log);
            match rule.acceptor.phase() {
                Phase::Sealed(next) => {
                    unopened = Some((rule.commands, log));
                    log = self.log_of(next).filter(|log| !self.logs[*log].deleted)?;
                }
                Phase::Building => return Some(Found { log, rule, unopened }),
                Phase::Open => return Some(Found { log, rule, unopened: None }),
            }
        }
    }

    /// Everything that is wrong with the world.
    pub(crate) fn judge(&mut self, mutation: Mutation) {
        let mut executed = 0;
        let mut log = 0;
        loop {
            let sealed = self.judge_log(mutation, log, &mut executed);
            match sealed.and_then(|next| self.log_of(next)) {
                Some(next) if next != log => log = next,
                _ => break,
            }
        }
        if self.acknowledged & !executed != 0 {
            self.flaws |= flaw::MISSING;
        }
        match self.find(mutation) {
            None => self.flaws |= flaw::UNFINDABLE,
            Some(found) => {
                let state = found.unopened.map_or(found.rule.commands, |(commands, _)| commands);
                if self.acknowledged & !state != 0 {
                    self.flaws |= flaw::MISSING;
                }
            }
        }
        let open = |log: &&Log| {
            let mut rule = Rule::new(log.generation);
            rule.read(Mutation::None, log);
            rule.acceptor.phase() == Phase::Open
        };
        if self.logs.iter().filter(|log| !log.deleted).filter(open).count() > 1 {
            self.flaws |= flaw::GENERATIONS;
        }
    }

    fn judge_log(&mut self, mutation: Mutation, index: usize, executed: &mut u8) -> Option<Generation> {
        let log = &self.logs[index];
        let mut rule = Rule::new(log.generation);
        let mut owners: Vec<(u64, u64, usize)> = Vec::new();
        let (mut sealed, mut flaws, mut seen) = (None, 0, *executed);
        for (position, record) in log.records.iter().enumerate() {
            match rule.accept(mutation, record, position) {
                Verdict::Accepted => {}
                Verdict::Broken(_) => {
                    flaws |= flaw::BROKEN;
                    break;
                }
                _ => continue,
            }
            let link = &record.link;
            if sealed.is_some() || owners.last().is_some_and(|(epoch, _, _)| link.epoch < *epoch) {
                flaws |= flaw::VOID;
            }
            if owners.iter().any(|(epoch, owner, _)| *epoch == link.epoch && *owner != link.owner) {
                flaws |= flaw::OWNERS;
            }
            match link.step {
                Step::Announce { observed, .. } => {
                    let last = owners.last().map(|(_, _, position)| Position(*position as u64));
                    if last > observed {
                        flaws |= flaw::USURPED;
                    }
                }
                Step::Commit { .. } => {
                    if seen & record.commands != 0 {
                        flaws |= flaw::TWICE;
                    }
                    seen |= record.commands;
                }
                Step::Opened { .. } if rule.commands != *executed => flaws |= flaw::MISSING,
                Step::Seal { next } => sealed = Some(next),
                _ => {}
            }
            owners.push((link.epoch, link.owner, position));
        }
        *executed = seen;
        self.flaws |= flaws;
        sealed
    }

    pub(crate) fn fly(&mut self, bounds: &Bounds, log: usize, node: usize, record: Record) {
        let flight = Flight { log, node, sequence: record.link.sequence, hash: record.link.hash };
        if self.flights.iter().any(|(other, _)| *other == flight) {
            return;
        }
        debug_assert!(self.flights.len() < bounds.flights + 4);
        self.flights.push((flight, record));
        // The broker may reorder all that is under way, so that its order here means nothing.
        self.flights.sort_by(|left, right| left.0.cmp(&right.0));
    }
}
