//! Which logs there are. AMQP cannot list streams, so what is created and deleted is written down in a stream of the
//! namespace, one line of text in each record:
//!
//! ```text
//! tidegate/1 create topic PARTITIONS NAME        tidegate/1 delete topic NAME
//! tidegate/1 create slot SLOT EPOCH SUFFIX       tidegate/1 delete slot SLOT EPOCH SUFFIX
//! tidegate/1 create outcomes SLOT                tidegate/1 delete outcomes SLOT
//! tidegate/1 trim topic PARTITION NAME           tidegate/1 trim outcomes SLOT
//! ```
//!
//! The last two say that a log was trimmed for the first time, and that the stream which remembers how far is there.
//!
//! A log is written down before its streams are created, and crossed out after they were deleted; of two that create one
//! topic with different numbers of partitions the first in the stream wins. A line of a later version is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_backbone::{Error, ErrorKind, LogId, LogSpec, Result};
use tidegate_schemas::limits;
use tokio::time::Instant;

use crate::ask::{Asker, READ_MAX, Start, StreamSettings, offset};
use crate::error::misconfigured;

/// How long before what is not there yet is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The same, where the node that is asked needs a while to get what others have: the broker bears few questions.
const LOOK_AGAIN_BEHIND: Duration = Duration::from_millis(200);
/// What stands before each line.
const VERSION: &str = "tidegate/1";

/// A log or a topic, without its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Topic(ByteString),
    Single(LogId),
}

impl Key {
    fn of(id: &LogId) -> Self {
        match id {
            LogId::Topic { topic, .. } => Self::Topic(topic.clone()),
            id => Self::Single(id.clone()),
        }
    }

    fn of_spec(spec: &LogSpec) -> (Self, u32) {
        match spec {
            LogSpec::Topic { topic, partitions } => (Self::Topic(topic.clone()), *partitions),
            LogSpec::Single(id) => (Self::of(id), 1),
        }
    }

    /// What a line says of it.
    fn text(&self, partitions: Option<u32>) -> String {
        match (self, partitions) {
            (Self::Topic(topic), Some(partitions)) => format!("topic {partitions} {topic}"),
            (Self::Topic(topic), None) => format!("topic {topic}"),
            (Self::Single(LogId::Slot { slot, epoch, suffix }), _) => format!("slot {slot} {epoch} {suffix:016x}"),
            (Self::Single(LogId::Outcomes { slot }), _) => format!("outcomes {slot}"),
            // Never made: see `of`.
            (Self::Single(LogId::Topic { topic, .. }), _) => format!("topic {topic}"),
        }
    }
}

fn partition_of(id: &LogId) -> u32 {
    match id {
        LogId::Topic { partition, .. } => *partition,
        LogId::Slot { .. } | LogId::Outcomes { .. } => 0,
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Create(Key, u32),
    Delete(Key),
    Trim(Key, u32),
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Create(key, partitions) => format!("{VERSION} create {}", key.text(Some(*partitions))),
            Self::Delete(key) => format!("{VERSION} delete {}", key.text(None)),
            Self::Trim(key, partition) => format!("{VERSION} trim {}", key.text(Some(*partition))),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        let slot = |slot: &str, epoch: &str, suffix: &str| {
            let suffix = u64::from_str_radix(suffix, 16).ok()?;
            Some(Key::Single(LogId::Slot { slot: slot.parse().ok()?, epoch: epoch.parse().ok()?, suffix }))
        };
        let outcomes = |slot: &str| Some(Key::Single(LogId::Outcomes { slot: slot.parse().ok()? }));
        let topic = |name: &str| Key::Topic(name.into());
        match parts[..] {
            [VERSION, "create", "topic", partitions, name] => Some(Self::Create(topic(name), partitions.parse().ok()?)),
            [VERSION, "delete", "topic", name] => Some(Self::Delete(topic(name))),
            [VERSION, "create", "slot", number, epoch, suffix] => Some(Self::Create(slot(number, epoch, suffix)?, 1)),
            [VERSION, "delete", "slot", number, epoch, suffix] => Some(Self::Delete(slot(number, epoch, suffix)?)),
            [VERSION, "create", "outcomes", slot] => Some(Self::Create(outcomes(slot)?, 1)),
            [VERSION, "delete", "outcomes", slot] => Some(Self::Delete(outcomes(slot)?)),
            [VERSION, "trim", "topic", partition, name] => Some(Self::Trim(topic(name), partition.parse().ok()?)),
            [VERSION, "trim", "outcomes", slot] => Some(Self::Trim(outcomes(slot)?, 0)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    partitions: u32,
    /// Where in the stream it was created: which one of several of one name it is.
    identity: u64,
    /// The partitions that were ever trimmed.
    trimmed: BTreeSet<u32>,
}

#[derive(Debug, Default)]
struct Read {
    logs: BTreeMap<Key, Entry>,
    /// The last line that was read and where it stood.
    last: Option<(u64, Vec<u8>)>,
    /// When the newest question was asked that was answered.
    asked: Option<Instant>,
    /// The connection over which as much was read as more than half of a cluster's nodes have.
    agreed: Option<u64>,
}

impl Read {
    fn take(&mut self, offset: u64, line: Line) {
        match line {
            Line::Create(key, partitions) => {
                self.logs.entry(key).or_insert_with(|| Entry {
                    partitions,
                    identity: offset,
                    trimmed: BTreeSet::new(),
                });
            }
            Line::Delete(key) => {
                self.logs.remove(&key);
            }
            Line::Trim(key, partition) => {
                if let Some(entry) = self.logs.get_mut(&key) {
                    entry.trimmed.insert(partition);
                }
            }
        }
    }

    /// Takes in what was read from the last line on that was known when it was asked for; gives whether that line still is
    /// what it was. Where it is not, and that is believed, the broker has lost some, and all must be read anew. Others may have
    /// read on meanwhile.
    fn learn(
        &mut self,
        known: Option<&(u64, Vec<u8>)>,
        lines: Vec<(u64, Vec<u8>)>,
        stream: &str,
        is_believed: bool,
    ) -> Result<bool> {
        let mut lines = lines.into_iter();
        if let Some(known) = known
            && lines.next().as_ref() != Some(known)
        {
            if is_believed && self.last.as_ref() == Some(known) {
                tracing::error!(stream, "RabbitMQ has lost what this gateway read of its list of logs");
                *self = Self::default();
            }
            return Ok(false);
        }
        for (offset, data) in lines {
            if self.last.as_ref().is_some_and(|(last, _)| offset <= *last) {
                continue;
            }
            let line = std::str::from_utf8(&data).ok().and_then(Line::parse).ok_or_else(|| {
                misconfigured(format!(
                    "record {offset} of the stream {stream} is not understood; another program or a newer gateway wrote it"
                ))
            })?;
            self.take(offset, line);
            self.last = Some((offset, data));
        }
        Ok(true)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    asker: Arc<Asker>,
    stream: String,
    /// Never held while the broker is asked: whoever asks may rest amid it, and nobody else waits for that.
    read: Mutex<Read>,
}

impl Registry {
    /// Makes sure of the stream.
    pub(crate) async fn open(asker: Arc<Asker>, stream: String, settings: StreamSettings) -> Result<Self> {
        if !asker.exists(&stream).await? {
            asker.declare(&stream, settings).await?;
            // Where it is the broker's first stream of all, the broker writes down a moment later only that it has streams, and
            // one that is killed until then knows none of them any more.
            tokio::time::sleep(limits::RABBITMQ_FIRST_STREAM_REST).await;
        }
        let registry = Self { asker, stream, read: Mutex::default() };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Reads what was written until now. The node that is asked over a new connection may lack what others have: then it is
    /// waited for.
    async fn refresh(&self) -> Result<()> {
        let connection = self.asker.connection();
        let agreed = self.read.lock().agreed;
        let wanted = if connection.is_none() || agreed != connection {
            self.asker.agreed_last(&self.stream).await?.as_ref().and_then(offset)
        } else {
            None
        };
        // Since when a line is not there that was, or that others have.
        let mut short = None;
        loop {
            let asked = Instant::now();
            let known = self.read.lock().last.clone();
            let from = known.as_ref().map_or(0, |(offset, _)| *offset);
            let records = self.asker.read(&self.stream, Start::Offset(from), READ_MAX).await?;
            let whole = records.len() < usize::from(READ_MAX);
            let lines: Vec<_> =
                records.into_iter().filter_map(|record| Some((offset(&record)?, record.data))).collect();
            let is_believed = short.is_some_and(|since: Instant| since.elapsed() >= self.asker.patience());
            if is_believed {
                let lacking = wanted.filter(|wanted| lines.last().is_none_or(|(last, _)| last < wanted));
                let known_lacking = lines.first().is_none_or(|(first, _)| *first != from).then_some(from);
                if let Some(record) = lacking.or(known_lacking) {
                    self.asker.none_has(&self.stream, record).await?;
                }
            }
            let is_behind = {
                let mut read = self.read.lock();
                let is_there = read.learn(known.as_ref(), lines, &self.stream, is_believed)?;
                let is_behind = wanted.is_some_and(|wanted| read.last.as_ref().is_none_or(|(last, _)| *last < wanted));
                if is_there && whole && (!is_behind || is_believed) {
                    read.asked = read.asked.max(Some(asked));
                    read.agreed = connection;
                    return Ok(());
                }
                if (is_there && !whole) || is_believed {
                    continue;
                }
                is_behind
            };
            short.get_or_insert(asked);
            if asked.elapsed() > limits::RABBITMQ_CALL_TIMEOUT {
                return Err(self.asker.lagging(&self.stream, wanted.unwrap_or(from)));
            }
            tokio::time::sleep(if is_behind { LOOK_AGAIN_BEHIND } else { LOOK_AGAIN }).await;
        }
    }

    /// What is there of that log as of now.
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.refresh().await?;
        Ok(self.read.lock().logs.get(key).cloned())
    }

    /// Writes down that it is created, where it was not; an error where it is there with other partitions.
    pub(crate) async fn create(&self, spec: &LogSpec) -> Result<()> {
        let (key, partitions) = Key::of_spec(spec);
        let mut there = self.entry(&key).await?;
        if there.is_none() {
            self.asker.publish(&self.stream, &Line::Create(key.clone(), partitions).text()).await?;
            let began = Instant::now();
            loop {
                there = self.entry(&key).await?;
                // The node that is asked may not have it yet.
                if there.is_some() || began.elapsed() >= self.asker.patience() {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        match there {
            Some(there) if there.partitions == partitions => Ok(()),
            Some(there) => {
                let context = format!(
                    "{} is there with {} partitions, and {partitions} were asked for",
                    key.text(None),
                    there.partitions
                );
                Err(Error::new(ErrorKind::Conflict, context))
            }
            None => {
                let context = format!("{} was deleted while it was created", key.text(None));
                Err(Error::new(ErrorKind::Unavailable, context).outcome_unknown())
            }
        }
    }

    /// The partitions of a topic, or 1 for another log; none where it is not there.
    pub(crate) async fn partitions(&self, spec: &LogSpec) -> Result<Option<u32>> {
        let (key, _) = Key::of_spec(spec);
        Ok(self.entry(&key).await?.map(|entry| entry.partitions))
    }

    /// Which one of several of its name a log is, as far as is known without asking.
    pub(crate) fn known_identity(&self, id: &LogId) -> Option<u64> {
        self.read.lock().logs.get(&Key::of(id)).map(|entry| entry.identity)
    }

    /// The same, asked.
    pub(crate) async fn identity(&self, id: &LogId) -> Result<Option<u64>> {
        Ok(self.entry(&Key::of(id)).await?.map(|entry| entry.identity))
    }

    /// Whether a log is written down as there.
    pub(crate) async fn lists(&self, id: &LogId) -> Result<bool> {
        let entry = self.entry(&Key::of(id)).await?;
        Ok(entry.is_some_and(|entry| partition_of(id) < entry.partitions))
    }

    /// Whether a log was ever trimmed, by an answer that is at most so old. What this process trims it knows at once.
    pub(crate) async fn is_trimmed(&self, id: &LogId, age: Duration) -> Result<bool> {
        let asked = self.read.lock().asked;
        if asked.is_none_or(|asked| asked.elapsed() > age) {
            self.refresh().await?;
        }
        let read = self.read.lock();
        Ok(read.logs.get(&Key::of(id)).is_some_and(|entry| entry.trimmed.contains(&partition_of(id))))
    }

    /// Writes down that it is.
    pub(crate) async fn trim(&self, id: &LogId) -> Result<()> {
        self.asker.publish(&self.stream, &Line::Trim(Key::of(id), partition_of(id)).text()).await?;
        self.refresh().await
    }

    /// Crosses it out.
    pub(crate) async fn delete(&self, spec: &LogSpec) -> Result<()> {
        let (key, _) = Key::of_spec(spec);
        if self.entry(&key).await?.is_some() {
            self.asker.publish(&self.stream, &Line::Delete(key).text()).await?;
        }
        Ok(())
    }

    /// Every log.
    pub(crate) async fn logs(&self) -> Result<Vec<LogId>> {
        self.refresh().await?;
        let read = self.read.lock();
        let of = |(key, entry): (&Key, &Entry)| match key {
            Key::Topic(topic) => LogSpec::topic(topic.clone(), entry.partitions).logs(),
            Key::Single(id) => vec![id.clone()],
        };
        Ok(read.logs.iter().flat_map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let slot = Key::Single(LogId::Slot { slot: 3, epoch: 7, suffix: 0xab });
        let cases = [
            (Line::Create(Key::Topic("orders.eu".into()), 4), "tidegate/1 create topic 4 orders.eu"),
            (Line::Delete(Key::Topic("orders.eu".into())), "tidegate/1 delete topic orders.eu"),
            (Line::Create(slot.clone(), 1), "tidegate/1 create slot 3 7 00000000000000ab"),
            (Line::Delete(slot), "tidegate/1 delete slot 3 7 00000000000000ab"),
            (Line::Create(Key::Single(LogId::Outcomes { slot: 2 }), 1), "tidegate/1 create outcomes 2"),
            (Line::Trim(Key::Topic("orders.eu".into()), 3), "tidegate/1 trim topic 3 orders.eu"),
            (Line::Trim(Key::Single(LogId::Outcomes { slot: 2 }), 0), "tidegate/1 trim outcomes 2"),
        ];
        for (line, text) in cases {
            assert_eq!(line.text(), text);
            assert_eq!(Line::parse(text), Some(line));
        }
        for text in
            ["", "tidegate/2 create outcomes 2", "tidegate/1 create topic x orders", "tidegate/1 create queue 1"]
        {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_of_two_wins_and_one_created_again_is_another() {
        let mut read = Read::default();
        let topic = || Key::Topic("orders".into());
        read.take(0, Line::Create(topic(), 4));
        read.take(1, Line::Create(topic(), 8));
        read.take(1, Line::Trim(topic(), 3));
        let entry = |partitions, identity, trimmed| Entry { partitions, identity, trimmed };
        assert_eq!(read.logs.get(&topic()), Some(&entry(4, 0, BTreeSet::from([3]))));
        read.take(2, Line::Delete(topic()));
        read.take(3, Line::Create(topic(), 8));
        assert_eq!(read.logs.get(&topic()), Some(&entry(8, 3, BTreeSet::new())));
    }

    #[test]
    fn what_several_read_at_once_counts_once_and_a_line_that_is_another_is_noticed() {
        let line = |offset: u64, text: &str| (offset, text.as_bytes().to_vec());
        let (one, two) = (line(0, "tidegate/1 create topic 4 a"), line(1, "tidegate/1 delete topic a"));
        let three = line(2, "tidegate/1 create topic 8 a");
        let mut read = Read::default();
        assert!(read.learn(None, vec![one.clone(), two.clone(), three.clone()], "s", true).unwrap());
        // Asked for earlier, and told later: the topic is not deleted again.
        assert!(read.learn(None, vec![one.clone(), two.clone()], "s", true).unwrap());
        assert!(read.learn(Some(&one), vec![one.clone(), two], "s", true).unwrap());
        let topic = || read.logs.get(&Key::Topic("a".into())).map(|entry| entry.partitions);
        assert_eq!(topic(), Some(8));
        // Another one in the place of a line that was passed since says nothing; in the place of the last one it does.
        assert!(!read.learn(Some(&one), vec![line(0, "another")], "s", true).unwrap());
        assert_eq!(read.last, Some(three.clone()));
        assert!(!read.learn(Some(&three), Vec::new(), "s", false).unwrap());
        assert_eq!(read.last, Some(three.clone()));
        assert!(!read.learn(Some(&three), Vec::new(), "s", true).unwrap());
        assert!(read.logs.is_empty() && read.last.is_none());
        assert!(read.learn(None, vec![line(0, "tidegate/2 create")], "s", true).is_err());
    }
}
