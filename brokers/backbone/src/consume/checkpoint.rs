//! What delivery writes into its slot, so that its next owner goes on where this one was.
//!
//! | key in the slot | value | says |
//! |---|---|---|
//! | `delivery/routed/TOPIC/PARTITION` | [`Routed`] | everything before `position` was handed to each subscription that has no exception |
//! | `delivery/exception/UID/TOPIC/PARTITION` | [`Exception`] | this subscription has read up to `read`; of what lies before it, `open` is not settled |
//! | `delivery/parked/UID/TOPIC/PARTITION/LANE` | [`ParkedLane`] | a lane that fell behind, by reference |
//! | `delivery/dead/UID/TOPIC/PARTITION` | [`Handled`] | dead letters that were redriven or dropped |
//! | `delivery/starts/UID/TOPIC` | [`Begun`] | where the subscription began to read each partition of the topic; without `positions`, and where the key is missing, at the first event |
//! | `delivery/start/UID/TOPIC/PARTITION` | [`Routed`] | the same of one partition, as early versions wrote it; it is read and never written |
//! | `delivery/catalogue` | [`Followed`] | every subscription and topic up to that `revision` of slot 0 is taken into account |
//! | `delivery/topic/TOPIC` | [`Incarnation`] | the keys of this slot that name the topic speak of the one of that `uid` |
//!
//! `UID` is sixteen hexadecimal digits; `LANE` is `k` and the 32 digits of the key's hash, or `s` and a position. Values
//! are JSON objects with a version; unknown versions and members are refused. A checkpoint is one commit; where it does
//! not fit into one frame it is several, in an order in which losing the rest costs redelivery and never an event:
//! incarnations, parked lanes, exceptions, routed positions, the catalogue's revision, and deletions last.
//!
//! An exception that is `first` is of a subscription that has read nothing yet and begins with the first event: what was
//! trimmed before it came to it is no loss.
//!
//! # One slot and several
//!
//! In a cluster of one slot everything is in slot 0. Where there are several slots, slot 0 holds the catalogue and the starts;
//! the others hold the progress of their partitions, in a log of its own and with an owner of its own. The starts of a
//! subscription are committed with it, or with the change that brings it to a topic, as one command. Then
//!
//! - a start that is newer than the catalogue's revision in the partition's slot is where its subscription begins, whatever
//!   else that slot says: its owner did not know the subscription, or not that it reads the topic. Otherwise the slot has
//!   the last word, and a subscription without an exception has everything that was routed. In the only slot early versions
//!   wrote no revision, and each start as an exception besides, which has the last word there;
//! - so an owner whose catalogue is older than that revision waits until it has followed so far, before it routes anything
//!   and before it takes a subscription that it does not know for gone;
//! - progress whose topic has another uid by now, or is gone, is that of another topic. It is deleted before the partition
//!   is read; in the only slot, with the topic.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_routing::TopicName;

use super::core::{Partition, Standing};
use super::progress::{Checkpoint, LaneKey, Parked};
use crate::catalogue::{Version, read, write};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Position;
use crate::slot::{Command, CommitError, Expect, Journal, SlotHandle};

const ROUTED: &str = "delivery/routed/";
const EXCEPTION: &str = "delivery/exception/";
const PARKED: &str = "delivery/parked/";
const DEAD: &str = "delivery/dead/";
const STARTS: &str = "delivery/starts/";
const START: &str = "delivery/start/";
const CATALOGUE: &str = "delivery/catalogue";
const INCARNATION: &str = "delivery/topic/";
/// Steps of one commit; each is small, so that a frame holds them.
const STEPS: usize = 1_000;
/// Bytes of the values of one commit.
const COMMIT_BYTES: usize = 256 * 1024;

/// Where a subscription began in the partitions of a topic: at those positions, or at the first event of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    v: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    positions: Option<Vec<u64>>,
}

/// How far a partition was routed, or where a subscription began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Routed {
    v: Version,
    position: u64,
}

/// How far the catalogue was followed by whoever wrote the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Followed {
    v: Version,
    revision: u64,
}

/// Which of the topics that had a name, one after the other, is meant by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Incarnation {
    v: Version,
    uid: u64,
}

/// Where one subscription stands apart from the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exception {
    v: Version,
    read: u64,
    /// Ranges of positions, both ends in them.
    open: Vec<(u64, u64)>,
    /// Nothing was read yet, and it begins with what is the first event then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    first: bool,
}

/// A lane that fell behind. Times are milliseconds since 1970; `first` says nothing where there were no attempts. A
/// `paused` lane stands still, since `due`, until somebody resumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParkedLane {
    v: Version,
    head: u64,
    attempts: u32,
    first: u64,
    due: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
}

/// Dead letters that need no more attention, as ranges of positions with both ends in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Handled {
    v: Version,
    handled: Vec<(u64, u64)>,
}

impl Begun {
    /// Where it began in each partition, where that is said.
    pub(super) fn positions(&self) -> impl Iterator<Item = (u32, Position)> + '_ {
        (0..).zip(self.positions.iter().flatten().copied().map(Position))
    }

    /// Puts other positions in place of these.
    pub(super) fn translate(&mut self, to: impl Fn(u32, Position) -> Position) {
        for (number, position) in (0..).zip(self.positions.iter_mut().flatten()) {
            *position = to(number, Position(*position)).0;
        }
    }
}

impl Handled {
    pub(super) fn is_empty(&self) -> bool {
        self.handled.is_empty()
    }

    /// The first and the last position of each range.
    pub(super) fn ends(&self) -> impl Iterator<Item = Position> + '_ {
        self.handled.iter().flat_map(|(first, last)| [Position(*first), Position(*last)])
    }

    /// Puts other positions in place of these.
    pub(super) fn translate(&mut self, to: impl Fn(Position) -> Position) {
        for (first, last) in &mut self.handled {
            (*first, *last) = (to(Position(*first)).0, to(Position(*last)).0);
        }
        self.handled = merge(std::mem::take(&mut self.handled));
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        self.handled.iter().any(|(first, last)| (*first..=*last).contains(&position.0))
    }

    pub(super) fn insert(&mut self, positions: impl IntoIterator<Item = Position>) {
        let mut all: Vec<u64> = positions.into_iter().map(|position| position.0).collect();
        all.sort_unstable();
        self.handled.extend(all.into_iter().map(|position| (position, position)));
        self.handled = merge(std::mem::take(&mut self.handled));
    }
}

/// Sorted ranges without those that touch.
fn merge(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn partition_key(prefix: &str, uid: Option<u64>, partition: &Partition) -> String {
    match uid {
        Some(uid) => format!("{prefix}{uid:016x}/{}/{}", partition.topic, partition.number),
        None => format!("{prefix}{}/{}", partition.topic, partition.number),
    }
}

fn lane_name(lane: LaneKey) -> String {
    match lane {
        LaneKey::Key(hash) => format!("k{hash:032x}"),
        LaneKey::Single(position) => format!("s{position}"),
    }
}

fn lane_of(name: &str) -> Option<LaneKey> {
    if let Some(hash) = name.strip_prefix('k') {
        return u128::from_str_radix(hash, 16).ok().map(LaneKey::Key);
    }
    name.strip_prefix('s')?.parse().ok().map(|position| LaneKey::Single(Position(position)))
}

/// How far the partition was routed, where that was ever noted.
pub(super) fn routed(journal: &dyn SlotHandle, partition: &Partition) -> Result<Option<Position>> {
    let key = partition_key(ROUTED, None, partition);
    journal
        .get(key.as_bytes())
        .map(|head| read::<Routed>(key.as_bytes(), &head.value).map(|routed| Position(routed.position)))
        .transpose()
}

/// Up to which revision of slot 0 the slot's last checkpoint has taken the catalogue into account.
pub(super) fn catalogue(journal: &dyn SlotHandle) -> Result<u64> {
    journal
        .get(CATALOGUE.as_bytes())
        .map_or(Ok(0), |head| read::<Followed>(CATALOGUE.as_bytes(), &head.value).map(|followed| followed.revision))
}

/// The topics that keys of the slot speak of, with their uids.
pub(super) fn incarnations(journal: &Journal) -> Result<Vec<(String, u64)>> {
    let known = journal.scan(INCARNATION.as_bytes()).into_iter().map(|(key, _, value)| {
        let topic = String::from_utf8_lossy(&key[INCARNATION.len()..]).into_owned();
        read::<Incarnation>(&key, &value).map(|incarnation| (topic, incarnation.uid))
    });
    known.collect()
}

/// Adds to a command which topic its keys speak of, where the slot does not say so yet. Nothing for the only slot.
pub(super) fn put_incarnation(command: Command, journal: &Journal, topic: Option<(&str, u64)>) -> Command {
    let Some((name, uid)) = topic else { return command };
    let key = format!("{INCARNATION}{name}");
    if journal.get(key.as_bytes()).is_some() {
        return command;
    }
    command.put(key, Expect::Any, write(&Incarnation { v: Version, uid }))
}

/// Where it stands where subscriptions begin.
#[derive(Clone, Copy)]
pub(super) struct Starts<'a> {
    pub(super) slot0: &'a dyn SlotHandle,
    /// Slot 0 is the slot of all partitions.
    pub(super) only_slot: bool,
}

/// Where a subscription stands in a partition.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// How far it has read, where that differs from the router.
    pub(super) read: Option<Position>,
    /// It has read nothing yet and begins with the first event, at that position at the earliest.
    pub(super) first: bool,
    /// What is not settled.
    pub(super) progress: Checkpoint,
}

/// Where the subscription stands in the partition.
pub(super) fn load(journal: &dyn SlotHandle, starts: Starts<'_>, uid: u64, partition: &Partition) -> Result<Loaded> {
    let key = partition_key(EXCEPTION, Some(uid), partition);
    let mut checkpoint = Checkpoint::default();
    let (mut read_to, mut first) = (None, false);
    if let Some(head) = journal.get(key.as_bytes()) {
        let exception: Exception = read(key.as_bytes(), &head.value)?;
        (read_to, first) = (Some(Position(exception.read)), exception.first);
        checkpoint.open = exception.open.iter().flat_map(|(first, last)| (*first..=*last).map(Position)).collect();
    }
    if let Some((revision, start)) = start_in(starts, uid, partition)?
        && revision > catalogue(journal)?
    {
        (read_to, first) = (Some(start.unwrap_or(Position::ZERO)), start.is_none());
        checkpoint.open = Vec::new();
    }
    let prefix = format!("{}/", partition_key(PARKED, Some(uid), partition));
    for (key, _, value) in journal.scan(prefix.as_bytes()) {
        let parked: ParkedLane = read(&key, &value)?;
        let lane = std::str::from_utf8(&key[prefix.len()..]).ok().and_then(lane_of).ok_or_else(|| {
            let key = String::from_utf8_lossy(&key);
            Error::new(ErrorKind::DataLoss, format!("the journal's key {key} names no lane"))
        })?;
        checkpoint.parked.push(Parked {
            lane,
            head: Position(parked.head),
            attempts: parked.attempts,
            first_attempt_at: (parked.attempts > 0).then_some(parked.first),
            due: parked.due,
            paused: parked.paused,
        });
    }
    Ok(Loaded { read: read_to, first, progress: checkpoint })
}

/// The dead letters of a subscription in one partition that were dealt with.
pub(super) fn handled(journal: &dyn SlotHandle, uid: u64, partition: &Partition) -> Result<Handled> {
    let key = partition_key(DEAD, Some(uid), partition);
    journal.get(key.as_bytes()).map_or_else(|| Ok(Handled::default()), |head| read(key.as_bytes(), &head.value))
}

/// Adds to a command that those dead letters were dealt with.
pub(super) fn put_handled(command: Command, uid: u64, partition: &Partition, handled: &Handled) -> Command {
    command.put(partition_key(DEAD, Some(uid), partition), Expect::Any, write(handled))
}

/// Adds to a command that single events wait to go out, each until it is due.
pub(super) fn put_parked(command: Command, uid: u64, partition: &Partition, positions: &[(Position, u64)]) -> Command {
    positions.iter().fold(command, |command, (position, due)| {
        let key = format!("{}/{}", partition_key(PARKED, Some(uid), partition), lane_name(LaneKey::Single(*position)));
        let parked = ParkedLane { v: Version, head: position.0, attempts: 0, first: 0, due: *due, paused: false };
        command.put(key, Expect::Any, write(&parked))
    })
}

/// Adds to a command for slot 0 where the subscription begins in the partitions of a topic: at those positions, one for each,
/// or where there are none at the first event.
pub(super) fn put_starts(command: Command, uid: u64, topic: &TopicName, positions: Option<&[Position]>) -> Command {
    let positions = positions.map(|positions| positions.iter().map(|position| position.0).collect());
    command.put(format!("{STARTS}{uid:016x}/{topic}"), Expect::Any, write(&Begun { v: Version, positions }))
}

/// Where the subscription begins in the partition by what slot 0 says, with the revision of that; no position for the first
/// event.
fn start_in(starts: Starts<'_>, uid: u64, partition: &Partition) -> Result<Option<(u64, Option<Position>)>> {
    let key = format!("{STARTS}{uid:016x}/{}", partition.topic);
    if let Some(head) = starts.slot0.get(key.as_bytes()) {
        let begun: Begun = read(key.as_bytes(), &head.value)?;
        let Some(positions) = begun.positions else { return Ok(Some((head.revision, None))) };
        let position = positions.get(partition.number as usize).ok_or_else(|| {
            let number = partition.number;
            Error::new(ErrorKind::DataLoss, format!("the journal's entry {key} says nothing of partition {number}"))
        })?;
        return Ok(Some((head.revision, Some(Position(*position)))));
    }
    if starts.only_slot {
        return Ok(None);
    }
    let key = partition_key(START, Some(uid), partition);
    let Some(head) = starts.slot0.get(key.as_bytes()) else { return Ok(None) };
    let start: Routed = read(key.as_bytes(), &head.value)?;
    Ok(Some((head.revision, Some(Position(start.position)))))
}

/// Where the subscription began to read the partition, as slot 0 says.
pub(super) fn start(slot0: &dyn SlotHandle, uid: u64, partition: &Partition) -> Result<Position> {
    let start = start_in(Starts { slot0, only_slot: false }, uid, partition)?;
    Ok(start.and_then(|(_, position)| position).unwrap_or(Position::ZERO))
}

/// Subscription and partition of every key of the slot that says where one stands in the other.
///
/// # Errors
/// [`ErrorKind::DataLoss`] where a key cannot be read.
pub(super) fn places(slot: &dyn SlotHandle) -> Result<Vec<(u64, Partition)>> {
    let mut places = Vec::new();
    for prefix in [EXCEPTION, PARKED, DEAD, START] {
        for (key, _, _) in slot.scan(prefix.as_bytes()) {
            let text = std::str::from_utf8(&key[prefix.len()..]).unwrap_or_default();
            let mut parts = text.split('/');
            let place = (|| {
                let uid = u64::from_str_radix(parts.next()?, 16).ok()?;
                let topic = TopicName::parse(parts.next()?).ok()?;
                Some((uid, Partition { topic, number: parts.next()?.parse().ok()? }))
            })();
            places.push(place.ok_or_else(|| unreadable(&key))?);
        }
    }
    Ok(places)
}

/// Where subscriptions began in topics, with the keys of slot 0.
///
/// # Errors
/// [`ErrorKind::DataLoss`] where an entry cannot be read.
pub(super) fn starts(slot0: &dyn SlotHandle) -> Result<Vec<(Bytes, u64, TopicName, Begun)>> {
    let start = |(key, value): (Bytes, Bytes)| {
        let text = std::str::from_utf8(&key[STARTS.len()..]).unwrap_or_default();
        let place = text
            .split_once('/')
            .and_then(|(uid, topic)| Some((u64::from_str_radix(uid, 16).ok()?, TopicName::parse(topic).ok()?)));
        let (uid, topic) = place.ok_or_else(|| unreadable(&key))?;
        let begun = read(&key, &value)?;
        Ok((key, uid, topic, begun))
    };
    start_entries(slot0).into_iter().map(start).collect()
}

/// The entries of slot 0 that say where subscriptions began.
pub(crate) fn start_entries(slot0: &dyn SlotHandle) -> Vec<(Bytes, Bytes)> {
    slot0.scan(STARTS.as_bytes()).into_iter().map(|(key, _, value)| (key, value)).collect()
}

fn unreadable(key: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key);
    Error::new(ErrorKind::DataLoss, format!("the journal's key {key} names no subscription and partition"))
}

/// The same changes as commands that fit into a frame each, in their order.
pub(crate) fn split(command: Command) -> Vec<Command> {
    let mut commands = Vec::new();
    let (mut some, mut bytes) = (Command::new(), 0);
    for step in command.steps {
        if some.steps.len() >= STEPS || bytes >= COMMIT_BYTES {
            commands.push(std::mem::take(&mut some));
            bytes = 0;
        }
        bytes += step.key.len();
        if let crate::slot::Change::Put(value) = &step.change {
            bytes += value.len();
        }
        some.steps.push(step);
    }
    if !some.steps.is_empty() {
        commands.push(some);
    }
    commands
}

/// Every key that speaks of a subscription.
pub(super) fn keys_of_subscription(journal: &dyn SlotHandle, uid: u64) -> Vec<Bytes> {
    [EXCEPTION, PARKED, DEAD, STARTS, START]
        .iter()
        .flat_map(|prefix| journal.scan(format!("{prefix}{uid:016x}/").as_bytes()))
        .map(|(key, _, _)| key)
        .collect()
}

/// Every key that speaks of a subscription that does not exist.
pub(super) fn keys_of_none(journal: &dyn SlotHandle, exists: impl Fn(u64) -> bool) -> Vec<Bytes> {
    let mut keys = Vec::new();
    for prefix in [EXCEPTION, PARKED, DEAD, STARTS, START] {
        for (key, _, _) in journal.scan(prefix.as_bytes()) {
            let digits = key.get(prefix.len()..prefix.len() + 16).and_then(|digits| std::str::from_utf8(digits).ok());
            let uid = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if uid.is_some_and(|uid| !exists(uid)) {
                keys.push(key);
            }
        }
    }
    keys
}

/// Every key that speaks of a topic.
pub(super) fn keys_of_topic(journal: &dyn SlotHandle, topic: &str) -> Vec<Bytes> {
    let mut keys: Vec<Bytes> =
        journal.scan(format!("{ROUTED}{topic}/").as_bytes()).into_iter().map(|(key, _, _)| key).collect();
    // Last, so that what is left of a deletion that did not come to its end is known to be of that topic.
    let incarnation = Bytes::from(format!("{INCARNATION}{topic}"));
    for prefix in [EXCEPTION, PARKED, DEAD, STARTS, START] {
        for (key, _, _) in journal.scan(prefix.as_bytes()) {
            let of_topic = key
                .get(prefix.len() + 17..)
                .and_then(|rest| rest.strip_prefix(topic.as_bytes()))
                .is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'));
            if of_topic {
                keys.push(key);
            }
        }
    }
    keys.extend(journal.get(&incarnation).map(|_| incarnation));
    keys
}

/// Deletes keys, in as many commits as it takes.
pub(super) async fn delete(journal: &dyn SlotHandle, keys: &[Bytes]) -> std::result::Result<(), CommitError> {
    for some in keys.chunks(STEPS) {
        journal.commit(deletion(some)).await?;
    }
    Ok(())
}

/// A command that deletes keys, as many as fit beside other steps, and the rest of them.
pub(super) fn first_deletions(keys: &[Bytes]) -> (Command, &[Bytes]) {
    let (some, rest) = keys.split_at(keys.len().min(STEPS / 2));
    (deletion(some), rest)
}

fn deletion(keys: &[Bytes]) -> Command {
    keys.iter().fold(Command::new(), |command, key| command.delete(key.clone(), Expect::Any))
}

/// One checkpoint, in the order in which it is written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    incarnations: BTreeMap<Bytes, Bytes>,
    catalogue: BTreeMap<Bytes, Bytes>,
    parked: BTreeMap<Bytes, Bytes>,
    exceptions: BTreeMap<Bytes, Bytes>,
    routed: BTreeMap<Bytes, Bytes>,
    /// It says everything of the slot.
    whole: bool,
    /// Subscription and partition, as they stand in keys: of these it says everything, and of others nothing.
    told: HashSet<String>,
    /// The subscriptions that exist.
    alive: HashSet<u64>,
}

impl Draft {
    /// An empty draft, which is to say something of the `whole` slot or of parts of it, for a catalogue with those
    /// subscriptions.
    pub(super) fn new(whole: bool, alive: impl IntoIterator<Item = u64>) -> Self {
        Self { whole, alive: alive.into_iter().collect(), ..Self::default() }
    }

    /// What the journal holds of what the draft speaks of.
    fn there(&self, journal: &dyn SlotHandle) -> HashMap<Bytes, Bytes> {
        if self.whole {
            let kinds = [INCARNATION, PARKED, EXCEPTION, ROUTED, CATALOGUE];
            let all = kinds.iter().flat_map(|prefix| journal.scan(prefix.as_bytes()));
            return all.map(|(key, _, value)| (key, value)).collect();
        }
        let exceptions = self.told.iter().map(|place| Bytes::from(format!("{EXCEPTION}{place}")));
        let others = [&self.incarnations, &self.routed, &self.catalogue].into_iter().flat_map(BTreeMap::keys).cloned();
        let mut there: HashMap<Bytes, Bytes> =
            exceptions.chain(others).filter_map(|key| Some((key.clone(), journal.get(&key)?.value))).collect();
        for place in &self.told {
            let parked = journal.scan(format!("{PARKED}{place}/").as_bytes());
            there.extend(parked.into_iter().map(|(key, _, value)| (key, value)));
        }
        there
    }

    /// Says how far the catalogue is taken into account.
    pub(super) fn followed(&mut self, revision: u64) {
        self.catalogue.insert(CATALOGUE.into(), write(&Followed { v: Version, revision }));
    }

    /// Says which topic is meant by a name; not said in the only slot.
    pub(super) fn incarnation(&mut self, (name, uid): (&str, u64)) {
        self.incarnations.insert(format!("{INCARNATION}{name}").into(), write(&Incarnation { v: Version, uid }));
    }

    /// Whether a key that the draft does not have is to go: its subscription does not need it any more, or is gone. One
    /// that exists and does not run, or not in that partition, goes on from it later.
    fn is_over(&self, key: &[u8]) -> bool {
        let text = String::from_utf8_lossy(key);
        let place = match (text.strip_prefix(EXCEPTION), text.strip_prefix(PARKED)) {
            (Some(place), _) => place,
            (_, Some(lane)) => lane.rsplit_once('/').map_or(lane, |(place, _)| place),
            _ => return false,
        };
        let uid = place.split('/').next().and_then(|uid| u64::from_str_radix(uid, 16).ok());
        self.told.contains(place) || uid.is_some_and(|uid| !self.alive.contains(&uid))
    }

    pub(super) fn routed(&mut self, partition: &Partition, position: Position) {
        let value = write(&Routed { v: Version, position: position.0 });
        self.routed.insert(partition_key(ROUTED, None, partition).into(), value);
    }

    pub(super) fn subscription(&mut self, uid: u64, standing: &Standing) {
        let Standing { partition, read, first, routed, progress: checkpoint } = standing;
        self.told.insert(partition_key("", Some(uid), partition));
        if read.is_some() || !checkpoint.open.is_empty() {
            let open = merge(checkpoint.open.iter().map(|position| (position.0, position.0)).collect());
            let exception = Exception { v: Version, read: read.unwrap_or(*routed).0, open, first: *first };
            self.exceptions.insert(partition_key(EXCEPTION, Some(uid), partition).into(), write(&exception));
        }
        for parked in &checkpoint.parked {
            let key = format!("{}/{}", partition_key(PARKED, Some(uid), partition), lane_name(parked.lane));
            let value = ParkedLane {
                v: Version,
                head: parked.head.0,
                attempts: parked.attempts,
                first: parked.first_attempt_at.unwrap_or(0),
                due: parked.due,
                paused: parked.paused,
            };
            self.parked.insert(key.into(), write(&value));
        }
    }
}

/// Brings the journal to the draft. What could not be committed is tried again with the next draft.
pub(super) async fn commit(journal: &dyn SlotHandle, draft: &Draft) -> std::result::Result<(), CommitError> {
    for command in commands(journal, draft) {
        journal.commit(command).await?;
    }
    Ok(())
}

/// What is to be written, in an order that may end after any of them.
fn commands(journal: &dyn SlotHandle, draft: &Draft) -> Vec<Command> {
    let there = draft.there(journal);
    let parts = [&draft.incarnations, &draft.parked, &draft.exceptions, &draft.routed, &draft.catalogue];
    let puts = parts
        .into_iter()
        .flatten()
        .filter(|(key, value)| there.get(*key) != Some(value))
        .map(|(key, value)| (key, Some(value)));
    let deletions = there
        .keys()
        .filter(|key| !parts.iter().any(|part| part.contains_key(*key)) && draft.is_over(key))
        .map(|key| (key, None));
    let all = puts.chain(deletions).fold(Command::new(), |command, (key, value)| match value {
        Some(value) => command.put(key.clone(), Expect::Any, value.clone()),
        None => command.delete(key.clone(), Expect::Any),
    });
    split(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_answer() {
        let mut handled = Handled::default();
        handled.insert([5, 3, 4, 9, 1].map(Position));
        assert_eq!(handled.handled, [(1, 1), (3, 5), (9, 9)]);
        handled.insert([2, 8].map(Position));
        assert_eq!(handled.handled, [(1, 5), (8, 9)]);
        assert!(handled.contains(Position(4)) && !handled.contains(Position(6)));
    }

    #[test]
    fn lanes_have_names_that_are_read_back() {
        for lane in [LaneKey::Key(0), LaneKey::Key(u128::MAX), LaneKey::Single(Position(17))] {
            assert_eq!(lane_of(&lane_name(lane)), Some(lane));
        }
        assert_eq!(lane_of("x1"), None);
    }

    #[test]
    fn stored_values_are_the_documented_ones_and_unknown_ones_are_refused() {
        let exception = Exception { v: Version, read: 7, open: vec![(1, 3)], first: false };
        let text = String::from_utf8(write(&exception).to_vec()).unwrap();
        assert_eq!(text, r#"{"v":1,"read":7,"open":[[1,3]]}"#, "as versions wrote it that knew no `first`");
        assert_eq!(read::<Exception>(b"k", text.as_bytes()).unwrap(), exception);
        let first = Exception { first: true, ..exception };
        assert_eq!(write(&first), r#"{"v":1,"read":7,"open":[[1,3]],"first":true}"#.as_bytes());
        for (positions, text) in [(None, r#"{"v":1}"#), (Some(vec![5, 0]), r#"{"v":1,"positions":[5,0]}"#)] {
            let begun = Begun { v: Version, positions };
            assert_eq!(write(&begun), text.as_bytes());
            assert_eq!(read::<Begun>(b"k", text.as_bytes()).unwrap(), begun);
        }
        let parked = ParkedLane { v: Version, head: 7, attempts: 2, first: 10, due: 20, paused: false };
        let text = r#"{"v":1,"head":7,"attempts":2,"first":10,"due":20}"#;
        assert_eq!(write(&parked), text.as_bytes(), "as versions wrote it that knew no paused lanes");
        assert_eq!(read::<ParkedLane>(b"k", text.as_bytes()).unwrap(), parked);
        let paused = ParkedLane { paused: true, ..parked };
        assert_eq!(write(&Followed { v: Version, revision: 9 }), r#"{"v":1,"revision":9}"#.as_bytes());
        assert_eq!(write(&Incarnation { v: Version, uid: 9 }), r#"{"v":1,"uid":9}"#.as_bytes());
        let text = r#"{"v":1,"head":7,"attempts":2,"first":10,"due":20,"paused":true}"#;
        assert_eq!(write(&paused), text.as_bytes());
        assert_eq!(read::<ParkedLane>(b"k", text.as_bytes()).unwrap(), paused);
        assert!(read::<Exception>(b"k", br#"{"v":2,"read":7,"open":[]}"#).is_err());
        assert!(read::<Exception>(b"k", br#"{"v":1,"read":7,"open":[],"more":1}"#).is_err());
    }
}
