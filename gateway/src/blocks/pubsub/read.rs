//! Reading a topic back: pages, and following it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tidegate_backbone::budget::{Account, Budget};
use tidegate_backbone::catalogue::Topic;
use tidegate_backbone::{Cursor, Error, ErrorKind, LogId, PartitionLog, Position, Record, Stored};
use tidegate_routing::cesql::Expression;
use tidegate_schemas::{Event, limits};

use super::PubSub;

/// Bytes that one read asks of a partition.
const READ_BYTES: usize = 256 * 1024;
/// How often a follower looks whether there is memory to read on.
const ROOM_INTERVAL: Duration = Duration::from_millis(50);

/// Where reading begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// The first event that is still there.
    Earliest,
    /// Behind the last event.
    Latest,
    /// A place that was given before.
    At(Cursor),
    /// An offset, of the one partition that is read.
    Offset(Position),
    /// The first event appended at or after that time, in milliseconds since 1970.
    Time(u64),
}

/// Why a topic cannot be read from there.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position belongs to another topic, or to this one before it was created anew.
    #[error("the position {position} names {given} partitions, and the topic has {partitions}")]
    OtherTopic {
        /// What was given.
        position: String,
        /// Partitions in it.
        given: usize,
        /// Partitions of the topic.
        partitions: u32,
    },
    /// An offset says nothing about several partitions.
    #[error(
        "a number is an offset only together with ?partition=; without it use a position that the gateway gave, earliest, latest or a time"
    )]
    OffsetOfMany,
    /// There is no such partition.
    #[error("the topic has the partitions 0 to {last}, not {partition}")]
    NoPartition {
        /// What was asked for.
        partition: u32,
        /// The last that there is.
        last: u32,
    },
    /// The log refused.
    #[error(transparent)]
    Log(#[from] Error),
}

/// What is read of a topic.
#[derive(Clone, Debug)]
pub struct Span {
    /// The first place.
    pub from: Cursor,
    /// The place behind the last.
    pub to: Cursor,
    /// The one partition that is read, or all.
    pub partition: Option<u32>,
    /// Only events that pass.
    pub filter: Option<Expression>,
}

impl Span {
    fn takes(&self, event: &Event) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }
}

/// Some events in the order in which they were appended.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page begins.
    pub next: Cursor,
    /// Whether there was more when the page was read.
    pub more: bool,
}

/// A topic that is followed.
pub struct Reading {
    cursor: Cursor,
    filter: Option<Expression>,
    streams: stream::SelectAll<BoxStream<'static, (usize, Result<Stored, Error>)>>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reading").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Reading {
    /// The next event with the place behind it.
    pub async fn next(&mut self) -> Option<Result<(Event, Cursor), Error>> {
        loop {
            let (index, stored) = self.streams.next().await?;
            let stored = match stored {
                Ok(stored) => stored,
                Err(error) => return Some(Err(error)),
            };
            self.cursor.0[index] = stored.position.next();
            if let Record::Event(event) = stored.record
                && self.filter.as_ref().is_none_or(|filter| filter.matches(&event))
            {
                return Some(Ok((event, self.cursor.clone())));
            }
        }
    }
}

impl PubSub {
    /// Where each partition of the topic stands for a place in it.
    pub async fn resolve(&self, topic: &Topic, range: &Range, partition: Option<u32>) -> Result<Cursor, ReadError> {
        let partitions = topic.spec.partitions;
        if let Some(partition) = partition.filter(|partition| *partition >= partitions) {
            return Err(ReadError::NoPartition { partition, last: partitions - 1 });
        }
        if let Range::At(cursor) = range
            && cursor.0.len() != partitions as usize
        {
            return Err(ReadError::OtherTopic { position: cursor.to_string(), given: cursor.0.len(), partitions });
        }
        if matches!(range, Range::Offset(_)) && partition.is_none() {
            return Err(ReadError::OffsetOfMany);
        }
        let mut cursor = Vec::new();
        for (index, id) in topic.logs().enumerate() {
            let info = self.0.log.info(&id).await?;
            cursor.push(match range {
                Range::Earliest => info.begin,
                Range::Latest => info.end,
                Range::At(cursor) => cursor.0[index],
                Range::Offset(position) => *position,
                Range::Time(time) => self.0.log.lookup(&id, *time).await?,
            });
        }
        Ok(Cursor(cursor))
    }

    /// A page of at most `limit` events and about `bytes_max` bytes. Events of several partitions come in the order of
    /// the times at which they were appended. A filter that lets little pass may end a page early: what one page looks
    /// at is bounded ([`limits::PAGE_SCAN_BYTES`]), and the next page goes on from there.
    pub async fn page(&self, topic: &Topic, span: &Span, limit: usize, bytes_max: usize) -> Result<Page, ReadError> {
        let mut found: Vec<(usize, Stored)> = Vec::new();
        let mut next = span.from.clone();
        for (index, id) in topic.logs().enumerate() {
            if span.partition.is_none_or(|partition| partition as usize == index) {
                let read = self.scan(&id, span, index, (limit, bytes_max)).await?;
                next.0[index] = read.1;
                found.extend(read.0.into_iter().map(|stored| (index, stored)));
            }
        }
        found.sort_by_key(|(index, stored)| (stored.appended_at, *index, stored.position));
        let mut events = Vec::new();
        let mut bytes = 0;
        for (index, stored) in found {
            let Record::Event(event) = stored.record else { continue };
            bytes += event.bytes();
            if events.len() == limit || (bytes > bytes_max && !events.is_empty()) {
                // This and what follows it waits for the next page.
                next.0[index] = next.0[index].min(stored.position);
                continue;
            }
            events.push(event);
        }
        let asked = |index: usize| span.partition.is_none_or(|partition| partition as usize == index);
        let more = (0..next.0.len()).any(|index| asked(index) && next.0[index] < span.to.0[index]);
        Ok(Page { events, next, more })
    }

    /// What one partition holds for a page, at most one event more than fits, and where its reading ended.
    async fn scan(
        &self,
        id: &LogId,
        span: &Span,
        index: usize,
        (limit, bytes_max): (usize, usize),
    ) -> Result<(Vec<Stored>, Position), ReadError> {
        let (from, end) = (span.from.0[index], span.to.0[index]);
        let mut tail = self.0.log.tail(id, from).await?;
        let mut found = Vec::new();
        let (mut bytes, mut looked_at) = (0, 0);
        while tail.position() < end {
            // Counted is what was read; whether more may be is asked before.
            self.0.environment.memory.check(Account::Reads, READ_BYTES.min(bytes_max)).map_err(|exhausted| {
                let full = ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER };
                Error::new(full, "there is no memory to read a page").with_source(exhausted)
            })?;
            for stored in tail.next(READ_BYTES.min(bytes_max)).await?.records {
                if stored.position >= end {
                    return Ok((found, end));
                }
                let next = stored.position.next();
                let Record::Event(event) = &stored.record else { continue };
                looked_at += event.bytes();
                if span.takes(event) {
                    bytes += event.bytes();
                    found.push(stored);
                }
                if found.len() > limit || bytes > bytes_max || looked_at > limits::PAGE_SCAN_BYTES {
                    return Ok((found, next));
                }
            }
        }
        Ok((found, end.max(from)))
    }

    /// Follows a topic from a place on.
    pub async fn follow(
        &self,
        topic: &Topic,
        from: Cursor,
        partition: Option<u32>,
        filter: Option<Expression>,
    ) -> Result<Reading, ReadError> {
        let mut streams = stream::SelectAll::new();
        for (index, id) in topic.logs().enumerate() {
            if partition.is_some_and(|partition| partition as usize != index) {
                continue;
            }
            let log: Arc<dyn PartitionLog> = Arc::clone(&self.0.log);
            let tail = log.tail(&id, from.0[index]).await?;
            let memory = self.0.environment.memory.clone();
            let records = stream::unfold(Some((tail, Vec::new().into_iter(), memory)), move |state| async move {
                let (mut tail, mut batch, memory) = state?;
                loop {
                    if let Some(stored) = batch.next() {
                        return Some(((index, Ok(stored)), Some((tail, batch, memory))));
                    }
                    room_to_read(&memory).await;
                    match tail.next(READ_BYTES).await {
                        Ok(read) => batch = read.records.into_iter(),
                        Err(error) => return Some(((index, Err(error)), None)),
                    }
                }
            });
            streams.push(records.boxed());
        }
        Ok(Reading { cursor: from, filter, streams })
    }
}

/// Waits until there is memory to read on for a follower. Followers that leave what they have unread are cut meanwhile,
/// which gives it back.
async fn room_to_read(memory: &Budget) {
    while !memory.has_room(Account::Reads) {
        tokio::time::sleep(ROOM_INTERVAL).await;
    }
}
