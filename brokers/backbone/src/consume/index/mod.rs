//! Where events and outcomes stand, by `id` and `source`: made from the logs alone, bounded in memory, and written in
//! runs. `docs/PASSPORTS.md` describes the stored form and the rules.
//!
//! Routers tell what they read as they read it. What no router reads, or read before this process began, is read here.

mod fill;
mod run;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tracing::warn;

use super::core::Partition;
use super::outcomes::Outcome;
use crate::catalogue::Catalogue;
use crate::environment::Environment;
use crate::error::{ErrorKind, Result};
use crate::log::{BoxFuture, LogId, PartitionLog, Position, Record};
use crate::slot::Journal;

pub(super) use run::Hash;
use run::{Entry, Footer, Wanted, decode_block};

/// Blocks that one question reads at once.
const READS_AT_ONCE: usize = 8;
/// Records that a block is looked for behind the place that its footer names.
const BLOCK_SEARCH: usize = 64;
/// The number of the outcomes log.
const OUTCOMES: u32 = 0;

/// A log that the index knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Outcomes,
    Topic(Partition),
}

/// How far a log is in the index.
#[derive(Debug)]
struct Source {
    name: Name,
    /// When its topic was created: one of the same name that came later is another log.
    created_at: u64,
    /// Everything before this is in the index; unknown until the stored runs were looked at.
    filled: Option<Position>,
    /// What was told as it was read or written, from and to.
    live: Option<(Position, Position)>,
    /// Its topic is there.
    alive: bool,
}

impl Source {
    fn new(name: Name, created_at: u64) -> Self {
        Self { name, created_at, filled: None, live: None, alive: true }
    }

    /// Everything before this is in the index.
    fn upto(&self) -> Option<Position> {
        match (self.filled, self.live) {
            (Some(filled), Some((from, to))) if filled >= from => Some(filled.max(to)),
            (filled, _) => filled,
        }
    }

    /// Takes in that everything between two positions was told.
    fn told(&mut self, from: Position, to: Position) {
        match &mut self.live {
            Some((_, end)) if *end == from => *end = to,
            _ => {
                self.filled = self.upto();
                self.live = Some((from, to));
            }
        }
    }

    /// What comes is not told any more and has to be read.
    fn interrupt(&mut self) {
        self.filled = self.upto();
        self.live = None;
    }
}

#[derive(Debug)]
struct State {
    sources: Vec<Source>,
    numbers: HashMap<Name, u32>,
    /// The catalogue's revision whose logs it knows.
    followed: Option<u64>,
    /// Which log that no router reads is looked at next.
    turn: usize,
    recent: Vec<Entry>,
    /// What reading again costs that `recent` stands for.
    recent_bytes: u64,
    /// Entries that are being written as a run.
    sealing: Arc<[Entry]>,
    /// Stored runs, the oldest first, each with the position of its footer.
    runs: Vec<(Position, Arc<Footer>)>,
    loaded: bool,
    /// Something that should be in the index could not be read.
    damaged: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    log: Arc<dyn PartitionLog>,
    journal: Journal,
    catalogue: Arc<Catalogue>,
    /// How many slots there are: the partitions of this one are in it, and no others.
    slots: u32,
    environment: Environment,
    outcomes: LogId,
    state: Mutex<State>,
    /// Held while logs are read into the index and runs are written.
    filling: tokio::sync::Mutex<()>,
    run_entries: usize,
}

/// What a question found.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Where events of the hash stand.
    pub(super) events: Vec<(Partition, Position)>,
    /// Which frames hold outcomes of the hash.
    pub(super) frames: Vec<Position>,
    /// Whether everything was searched that should be there.
    pub(super) complete: bool,
}

/// A block of a run that was read, with the run.
type Read = (Arc<Footer>, Result<Vec<Entry>>);

impl Index {
    pub(super) fn new(
        log: Arc<dyn PartitionLog>,
        journal: Journal,
        catalogue: Arc<Catalogue>,
        slots: u32,
        environment: Environment,
    ) -> Self {
        let outcomes = LogId::Outcomes { slot: journal.slot() };
        let state = State {
            sources: vec![Source::new(Name::Outcomes, 0)],
            numbers: HashMap::from([(Name::Outcomes, OUTCOMES)]),
            followed: None,
            turn: 0,
            recent: Vec::new(),
            recent_bytes: 0,
            sealing: Arc::default(),
            runs: Vec::new(),
            loaded: false,
            damaged: false,
        };
        Self {
            log,
            journal,
            catalogue,
            slots,
            environment,
            outcomes,
            state: Mutex::new(state),
            filling: tokio::sync::Mutex::new(()),
            run_entries: limits::PASSPORT_RUN_ENTRIES,
        }
    }

    /// The number of a partition whose topic was created then.
    #[cfg(test)]
    pub(super) fn number(&self, partition: &Partition, created_at: u64) -> u32 {
        self.state.lock().number(Name::Topic(partition.clone()), created_at)
    }

    /// The number of a partition whose topic was created then. It begins there, as far as is known, and what follows `start` is
    /// told from now on.
    pub(super) fn follow(&self, partition: &Partition, created_at: u64, (begin, start): (Position, Position)) -> u32 {
        let mut state = self.state.lock();
        let number = state.number(Name::Topic(partition.clone()), created_at);
        let source = &mut state.sources[number as usize];
        source.interrupt();
        source.live = Some((start, start));
        if start <= begin {
            // There is nothing before it.
            source.filled = source.filled.max(Some(start));
        }
        number
    }

    /// Takes in what was read of a partition, whole: hashes with positions, from one place to another.
    pub(super) fn note(
        &self,
        number: u32,
        (from, to): (Position, Position),
        events: impl IntoIterator<Item = (Hash, Position)>,
        bytes: u64,
    ) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(source) = state.sources.get_mut(number as usize) else { return };
        if state.recent.len() >= 2 * self.run_entries {
            // Runs cannot be written fast enough; this will be read later.
            source.interrupt();
            return;
        }
        source.told(from, to);
        state.recent.extend(events.into_iter().map(|(hash, position)| Entry::new(hash, number, position)));
        state.recent_bytes += bytes;
    }

    /// Takes in outcomes that were written as one frame.
    pub(super) fn note_outcomes(&self, position: Option<Position>, outcomes: &[Outcome], bytes: u64) {
        match position {
            Some(position) => {
                let hashes = outcomes.iter().map(|outcome| (Hash::of(&outcome.source, &outcome.id), position));
                let mut state = self.state.lock();
                // Frames of the index itself may stand between; they hold no outcomes, so nothing is passed over.
                if let Some((_, end)) = &mut state.sources[OUTCOMES as usize].live {
                    *end = position;
                }
                drop(state);
                self.note(OUTCOMES, (position, position.next()), hashes, bytes);
            }
            None => self.state.lock().sources[OUTCOMES as usize].interrupt(),
        }
    }

    /// Entries and runs that are held in memory.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.recent.len() + state.sealing.len(), state.runs.len())
    }

    /// Where events of that id, and of that source where it is given, may stand. What is found has only the same hash.
    pub(super) async fn search(&self, id: &str, source: Option<&str>) -> Candidates {
        let wanted = Wanted::new(id, source);
        let mut found = Candidates::default();
        let runs: Vec<Arc<Footer>> = {
            let state = self.state.lock();
            let unfilled = state.sources.iter().any(|source| source.alive && !source.is_whole());
            found.complete = state.loaded && !state.damaged && !unfilled;
            for entry in state.recent.iter().chain(&*state.sealing).filter(|entry| wanted.takes(**entry)) {
                let source = &state.sources[entry.log() as usize];
                found.add(&source.name, source.alive, entry.position());
            }
            state.runs.iter().map(|(_, footer)| Arc::clone(footer)).collect()
        };
        let mut reads: Vec<BoxFuture<'_, Read>> = Vec::new();
        for footer in runs.into_iter().rev() {
            for block in footer.blocks_of(wanted) {
                let footer = Arc::clone(&footer);
                reads.push(Box::pin(async move {
                    let entries = self.read_block(&footer, block).await;
                    (footer, entries)
                }));
            }
        }
        let mut blocks = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some((footer, entries)) = blocks.next().await {
            match entries {
                Ok(entries) => {
                    for entry in entries.into_iter().filter(|entry| wanted.takes(*entry)) {
                        if let Some(name) = self.name_in(&footer, entry.log()) {
                            found.add(&name, true, entry.position());
                        }
                    }
                }
                // It was trimmed meanwhile, by its age.
                Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. }) => {}
                Err(error) => {
                    warn!(%error, "a part of the index of passports cannot be read");
                    found.complete = false;
                }
            }
        }
        found.events.sort_unstable();
        found.events.dedup();
        found.frames.sort_unstable();
        found.frames.dedup();
        found
    }

    /// The log that a run means, if it is still there.
    fn name_in(&self, footer: &Footer, log: u32) -> Option<Name> {
        let listed = footer.logs.get(log as usize)?;
        let Some(topic) = &listed.topic else { return Some(Name::Outcomes) };
        let there = self.catalogue.topic(topic.as_str()).is_some_and(|topic| topic.created_at == listed.created);
        there.then(|| Name::Topic(Partition { topic: topic.clone(), number: listed.partition }))
    }

    async fn read_block(&self, footer: &Footer, block: usize) -> Result<Vec<Entry>> {
        let (_, position) = footer.blocks[block];
        let number = u32::try_from(block).unwrap_or(u32::MAX);
        let end = self.log.info(&self.outcomes).await?.end;
        let mut tail = self.log.tail(&self.outcomes, Position(position)).await?;
        for _ in 0..BLOCK_SEARCH {
            if tail.position() >= end {
                break;
            }
            // One record, which is the block wherever the broker tells positions.
            for stored in tail.next(1).await?.records {
                if let Record::Frame(frame) = &stored.record
                    && let Some(entries) = decode_block(footer.run, number, frame)?
                {
                    return Ok(entries);
                }
            }
        }
        Err(crate::Error::new(ErrorKind::DataLoss, format!("block {block} of a run of the index is missing")))
    }
}

impl Candidates {
    fn add(&mut self, name: &Name, alive: bool, position: Position) {
        match name {
            Name::Outcomes => self.frames.push(position),
            Name::Topic(partition) if alive => self.events.push((partition.clone(), position)),
            Name::Topic(_) => {}
        }
    }
}

impl Source {
    /// Whether nothing is missing between what was read and what was told.
    fn is_whole(&self) -> bool {
        match (self.filled, self.live) {
            (Some(filled), Some((from, _))) => filled >= from,
            (filled, None) => filled.is_some(),
            (None, Some(_)) => false,
        }
    }
}

impl State {
    /// The logs of which something may be missing that nobody tells.
    fn unread(&self) -> Vec<u32> {
        let unread = |source: &Source| source.alive && !(source.live.is_some() && source.is_whole());
        (0..).zip(&self.sources).filter(|(_, source)| unread(source)).map(|(number, _)| number).collect()
    }

    /// That part of them, in turn; at least one.
    fn next_unread(&mut self, part: f64) -> Vec<u32> {
        let unread = self.unread();
        let from = unread.partition_point(|number| (*number as usize) < self.turn);
        let count = ((unread.len() as f64 * part).ceil() as usize).min(unread.len());
        let next: Vec<u32> = unread.iter().cycle().skip(from).take(count).copied().collect();
        self.turn = next.last().map_or(0, |last| *last as usize + 1);
        next
    }

    fn number(&mut self, name: Name, created_at: u64) -> u32 {
        if let Some(number) = self.numbers.get(&name) {
            let source = &mut self.sources[*number as usize];
            if source.created_at == created_at {
                return *number;
            }
            source.alive = false;
        }
        let number = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        self.sources.push(Source::new(name.clone(), created_at));
        self.numbers.insert(name, number);
        number
    }
}
