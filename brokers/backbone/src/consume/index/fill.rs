//! Reads into the index what nobody told it, and writes its runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::run::{BLOCK_ENTRIES, Entry, Footer, Hash, Listed, encode_block};
use super::{Index, Name, Source};
use crate::catalogue::{Version, read, write};
use crate::consume::core::Partition;
use crate::consume::outcomes::{decode, holds_outcomes};
use crate::consume::router::READ_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, LogInfo, Position, Record};
use crate::slot::placement::slot_of;
use crate::slot::{Command, Expect};

/// The journal's key that names the newest footer.
const NEWEST: &str = "passports/footer";
/// Blocks of a run that are written at once: small beside what publishers write meanwhile.
const BLOCKS_AT_ONCE: usize = 16;
/// How often some of the logs are looked at that no router reads, where there is something to read, and where there is not.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));
/// How long it takes to come to each of them: a question looks at all of them, whenever that was.
const CYCLE: Duration = Duration::from_secs(300);
/// How many of them a question looks at together.
const LOOKS_AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    v: Version,
    position: u64,
}

impl Index {
    /// Keeps the index filled until told to stop. The first look comes after a while: a start does not wait for it.
    pub(in crate::consume) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut pause = INTERVAL.0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let filled = tokio::select! {
                () = stopping.cancelled() => return,
                filled = self.fill_some(pause) => filled,
            };
            pause = match filled {
                Ok(true) => INTERVAL.0,
                Ok(false) => (pause * 2).min(INTERVAL.1),
                Err(error) => {
                    debug!(%error, "the index of passports could not be filled; it is tried again");
                    INTERVAL.0
                }
            };
        }
    }

    /// Brings everything into the index that the logs hold now.
    pub(in crate::consume) async fn fill(&self) -> Result<()> {
        let _one_at_a_time = self.filling.lock().await;
        self.load().await?;
        self.follow_catalogue();
        let numbers = self.state.lock().unread();
        let mut looks = futures_util::stream::iter(numbers.into_iter().map(|number| async move {
            let end = self.end_of(number).await;
            (number, end)
        }))
        .buffer_unordered(LOOKS_AT_ONCE);
        while let Some((number, end)) = looks.next().await {
            self.fill_to(number, end).await?;
        }
        drop(looks);
        self.seal_full().await
    }

    /// As [`Index::fill`], but only of some logs, others each time: what rests costs little, however much of it there is.
    /// Gives whether there was something that the index lacked.
    pub(super) async fn fill_some(&self, pause: Duration) -> Result<bool> {
        let _one_at_a_time = self.filling.lock().await;
        self.load().await?;
        self.follow_catalogue();
        let numbers = self.state.lock().next_unread(pause.as_secs_f64() / CYCLE.as_secs_f64());
        let mut found = false;
        for number in numbers {
            let end = self.end_of(number).await;
            found |= self.fill_to(number, end).await?;
        }
        self.seal_full().await?;
        Ok(found)
    }

    /// Where the log begins and ends.
    async fn end_of(&self, number: u32) -> Result<(LogId, LogInfo)> {
        let id = match &self.state.lock().sources[number as usize].name {
            Name::Outcomes => self.outcomes.clone(),
            Name::Topic(partition) => partition.log(),
        };
        let info = self.log.info(&id).await?;
        Ok((id, info))
    }

    /// Brings one log into the index, as far as it goes. Gives whether that was further than before.
    async fn fill_to(&self, number: u32, end: Result<(LogId, LogInfo)>) -> Result<bool> {
        let filled = match end {
            Ok((id, info)) => self.fill_one(number, &id, &info).await,
            Err(error) => Err(error),
        };
        match filled {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
                let mut state = self.state.lock();
                state.sources[number as usize].alive = false;
                // Some brokers say so as well of what they cannot find for now.
                state.followed = None;
                Ok(false)
            }
            Err(error) if matches!(error.kind(), ErrorKind::DataLoss) => {
                // The log's reader tells of it; here it must not keep the others out.
                self.state.lock().damaged = true;
                Ok(false)
            }
            // On a broker beside the backbone that is away or refuses. It is filled when that is well, and keeps no other out.
            Err(_) if self.is_elsewhere(number) => Ok(false),
            filled => filled,
        }
    }

    /// Whether a log is on a broker beside the backbone.
    fn is_elsewhere(&self, number: u32) -> bool {
        let topic = match &self.state.lock().sources[number as usize].name {
            Name::Outcomes => return false,
            Name::Topic(partition) => partition.topic.clone(),
        };
        self.catalogue.topic(topic.as_str()).is_some_and(|topic| topic.spec.broker.is_some())
    }

    /// Writes what is in memory, so that the next start has nothing to read again; not where it is little.
    pub(in crate::consume) async fn finish(&self) {
        let _one_at_a_time = self.filling.lock().await;
        let worth_it = self.run_entries / 32;
        if self.state.lock().recent.len() >= worth_it
            && let Err(error) = self.seal().await
        {
            warn!(%error, "the index of passports could not be written; the next start reads it from the logs");
        }
    }

    /// Takes in which logs there are now.
    fn follow_catalogue(&self) {
        let view = self.catalogue.view();
        let mut state = self.state.lock();
        if state.followed == Some(view.revision) {
            return;
        }
        state.followed = Some(view.revision);
        for topic in view.topics.values() {
            for number in 0..topic.spec.partitions {
                let partition = Partition { topic: topic.spec.name.clone(), number };
                if slot_of(partition.topic.as_str(), number, self.slots) == self.journal.slot() {
                    state.number(Name::Topic(partition), topic.created_at);
                }
            }
        }
        for source in &mut state.sources {
            if let Name::Topic(partition) = &source.name {
                let topic = view.topics.get(partition.topic.as_str());
                source.alive = topic.is_some_and(|topic| topic.created_at == source.created_at);
            }
        }
    }

    /// Reads the chain of footers, once.
    async fn load(&self) -> Result<()> {
        if self.state.lock().loaded {
            return Ok(());
        }
        let begin = self.log.info(&self.outcomes).await?.begin;
        let mut next = match self.journal.get(NEWEST.as_bytes()) {
            Some(head) => Some(Position(read::<Newest>(NEWEST.as_bytes(), &head.value)?.position)),
            None => None,
        };
        let mut runs = Vec::new();
        let mut damaged = false;
        while let Some(position) = next.filter(|position| *position >= begin) {
            if runs.len() >= limits::PASSPORT_RUNS {
                damaged = true;
                break;
            }
            let footer = match self.read_footer(position).await {
                Ok(footer) => footer,
                Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. }) => break,
                Err(error) if matches!(error.kind(), ErrorKind::DataLoss) => {
                    warn!(%error, %position, "the older part of the index of passports cannot be read");
                    damaged = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            next = footer.previous.map(Position);
            runs.push((position, Arc::new(footer)));
        }
        let mut upto: HashMap<(Name, u64), Position> = HashMap::new();
        for listed in runs.iter().flat_map(|(_, footer)| &footer.logs) {
            if let Some(position) = listed.upto {
                upto.entry((name_of(listed), listed.created)).or_insert(Position(position));
            }
        }
        runs.reverse();
        let mut state = self.state.lock();
        for ((name, created), position) in upto {
            let number = state.number(name, created);
            let source = &mut state.sources[number as usize];
            source.filled = source.filled.max(Some(position));
        }
        state.runs = runs;
        state.damaged |= damaged;
        state.loaded = true;
        Ok(())
    }

    async fn read_footer(&self, position: Position) -> Result<Footer> {
        let missing = || Error::new(ErrorKind::DataLoss, format!("no footer of a run stands at {position}"));
        if position >= self.log.info(&self.outcomes).await?.end {
            return Err(missing());
        }
        let mut tail = self.log.tail(&self.outcomes, position).await?;
        match tail.next(1).await?.records.into_iter().next().map(|stored| stored.record) {
            Some(Record::Frame(frame)) => Footer::decode(&frame),
            _ => Err(missing()),
        }
    }

    async fn fill_one(&self, number: u32, id: &LogId, info: &LogInfo) -> Result<bool> {
        let (filled, live) = {
            let state = self.state.lock();
            let source = &state.sources[number as usize];
            (source.filled, source.live)
        };
        let target = live.map_or(info.end, |(from, _)| from);
        let from = match filled {
            // A log that lost its tail has fewer records than were indexed.
            Some(filled) => filled.min(info.end),
            // There is nothing to be read.
            None if target <= info.begin => target,
            None => self.first_of_age(id, info.begin).await?,
        };
        let mut at = from;
        while at < target {
            at = match self.read_into(number, id, at, target).await {
                Err(error) => match error.kind() {
                    ErrorKind::PositionLost { earliest } => *earliest,
                    _ => return Err(error),
                },
                Ok(at) => at,
            };
            self.seal_full().await?;
        }
        let source = &mut self.state.lock().sources[number as usize];
        source.filled = source.filled.max(Some(at));
        Ok(filled < Some(at))
    }

    /// The first position of a log whose record is not older than passports are kept.
    async fn first_of_age(&self, id: &LogId, begin: Position) -> Result<Position> {
        let age = u64::try_from(limits::OUTCOMES_AGE.as_millis()).unwrap_or(u64::MAX);
        let since = self.environment.clock.unix_milliseconds().saturating_sub(age);
        Ok(self.log.lookup(id, since).await?.max(begin))
    }

    /// Reads about as much as fits into a run; gives where it ended.
    async fn read_into(&self, number: u32, id: &LogId, from: Position, target: Position) -> Result<Position> {
        let mut tail = self.log.tail(id, from).await?;
        let mut at = from;
        while at < target && !self.is_full() {
            let mut entries = Vec::new();
            let mut bytes = 0;
            for stored in tail.next(READ_BYTES).await?.records {
                match &stored.record {
                    Record::Event(event) => {
                        bytes += event.bytes() as u64;
                        entries.push(Entry::new(Hash::of(event.source(), event.id()), number, stored.position));
                    }
                    Record::Frame(frame) if holds_outcomes(frame) => {
                        bytes += frame.len() as u64;
                        let outcomes = decode(frame)?;
                        let entry = |hash| Entry::new(hash, number, stored.position);
                        entries.extend(outcomes.iter().map(|each| entry(Hash::of(&each.source, &each.id))));
                    }
                    Record::Frame(_) => {}
                }
            }
            at = tail.position();
            self.take_in(number, at, entries, bytes);
            // Whoever publishes and delivers comes first.
            tokio::task::yield_now().await;
        }
        Ok(at)
    }

    fn take_in(&self, number: u32, upto: Position, entries: Vec<Entry>, bytes: u64) {
        let mut state = self.state.lock();
        state.recent.extend(entries);
        state.recent_bytes += bytes;
        let source = &mut state.sources[number as usize];
        source.filled = source.filled.max(Some(upto));
    }

    fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.recent.len() >= self.run_entries || state.recent_bytes >= limits::PASSPORT_RUN_BYTES
    }

    async fn seal_full(&self) -> Result<()> {
        if self.is_full() { self.seal().await } else { Ok(()) }
    }

    /// Writes what is in memory as a run.
    async fn seal(&self) -> Result<()> {
        let (entries, bytes, mut footer) = self.begin_run();
        let outcome = self.write_run(&entries, &mut footer).await;
        let begin = self.log.info(&self.outcomes).await.map(|info| info.begin);
        let mut state = self.state.lock();
        let kept = std::mem::take(&mut state.sealing);
        match outcome {
            Ok(position) => {
                state.runs.push((position, Arc::new(footer)));
                if let Ok(begin) = begin {
                    state.runs.retain(|(position, _)| *position >= begin);
                }
                let excess = state.runs.len().saturating_sub(limits::PASSPORT_RUNS);
                state.damaged |= excess > 0;
                state.runs.drain(..excess);
                Ok(())
            }
            Err(error) => {
                state.recent.extend_from_slice(&kept);
                state.recent_bytes += bytes;
                Err(error)
            }
        }
    }

    /// Takes the entries out of memory, sorted and with the numbers of a run's table, beside the footer to be.
    pub(super) fn begin_run(&self) -> (Vec<Entry>, u64, Footer) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut recent = std::mem::take(&mut state.recent);
        // What is there was given up in the middle, because nobody waited for it any more.
        recent.extend_from_slice(&state.sealing);
        let bytes = std::mem::take(&mut state.recent_bytes);
        recent.sort_unstable();
        recent.dedup();
        let mut table: HashMap<u32, u32> = HashMap::new();
        let mut logs = Vec::new();
        let mut entries = Vec::with_capacity(recent.len());
        let mut kept = Vec::with_capacity(recent.len());
        for entry in recent {
            let source = &state.sources[entry.log() as usize];
            if !source.alive {
                continue;
            }
            let next = table.len() as u32;
            let listed = match table.get(&entry.log()) {
                Some(listed) => *listed,
                // What the table has no room for stays in memory for the next run.
                None if logs.len() >= limits::PASSPORT_RUN_LOGS => {
                    state.recent.push(entry);
                    continue;
                }
                None => {
                    logs.push(source.listed());
                    table.insert(entry.log(), next);
                    next
                }
            };
            kept.push(entry);
            entries.push(entry.with_log(listed));
        }
        entries.sort_unstable();
        state.sealing = kept.into();
        let previous = state.runs.last().map(|(position, _)| position.0);
        let run = self.environment.random.bits();
        (entries, bytes, Footer { run, previous, logs, blocks: Vec::new() })
    }

    async fn write_run(&self, entries: &[Entry], footer: &mut Footer) -> Result<Position> {
        let blocks: Vec<(u32, &[Entry])> = (0..).zip(entries.chunks(BLOCK_ENTRIES)).collect();
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            let frames = some.iter().map(|(number, block)| encode_block(footer.run, *number, block)).collect();
            let positions = self.append(frames).await?;
            let firsts = some.iter().map(|(_, block)| block[0].hash());
            footer.blocks.extend(firsts.zip(positions.iter().map(|position| position.0)));
        }
        let position = self.append(vec![footer.encode()]).await?[0];
        let newest = write(&Newest { v: Version, position: position.0 });
        let command = Command::new().put(Bytes::from_static(NEWEST.as_bytes()), Expect::Any, newest);
        self.journal.commit(command).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "a run of the index of passports could not be named").with_source(error)
        })?;
        Ok(position)
    }

    /// Appends frames; gives their positions, or the place before them where the broker does not tell one.
    async fn append(&self, frames: Vec<Bytes>) -> Result<Vec<Position>> {
        let before = self.log.info(&self.outcomes).await?.end;
        let appends = frames.into_iter().map(|frame| self.log.append(&self.outcomes, Record::Frame(frame)));
        let appended = futures_util::future::try_join_all(appends).await?;
        Ok(appended.into_iter().map(|appended| appended.position.unwrap_or(before)).collect())
    }
}

impl Source {
    fn listed(&self) -> Listed {
        let upto = self.upto().map(|position| position.0);
        match &self.name {
            Name::Outcomes => Listed { topic: None, partition: 0, created: 0, upto },
            Name::Topic(Partition { topic, number }) => {
                Listed { topic: Some(topic.clone()), partition: *number, created: self.created_at, upto }
            }
        }
    }
}

fn name_of(listed: &Listed) -> Name {
    match &listed.topic {
        Some(topic) => Name::Topic(Partition { topic: topic.clone(), number: listed.partition }),
        None => Name::Outcomes,
    }
}
