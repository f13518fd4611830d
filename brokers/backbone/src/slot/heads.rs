//! The state that a slot's accepted frames add up to: the last value of every key, and the commands that are remembered.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use tidegate_schemas::limits;

use crate::slot::accept::Broken;
use crate::slot::frame::{Commit, Part, PartCommand, PartHead};
use crate::slot::journal::{Change, CommandId, Head};

/// The folded state of a slot.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    keys: BTreeMap<Bytes, Head>,
    bytes: u64,
    revision: u64,
    commands: HashMap<CommandId, PartCommand>,
    /// The same commands by the revision that they made, the oldest first.
    order: BTreeMap<u64, CommandId>,
}

/// Two states are equal when keys, revision and commands are.
impl PartialEq for Heads {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.keys == other.keys && self.commands == other.commands
    }
}

impl Heads {
    /// Carries an accepted commit out.
    ///
    /// # Errors
    /// [`Broken::Revision`] where the commit rests on another state than this one, which no correct owner writes.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Broken> {
        if commit.revision != self.revision + 1 {
            return Err(Broken::Revision { found: commit.revision, expected: self.revision + 1 });
        }
        for operation in &commit.operations {
            let current = self.keys.get(&operation.key).map(|head| head.revision);
            if current != operation.expected {
                let (found, expected) = (operation.expected.unwrap_or(0), current.unwrap_or(0));
                return Err(Broken::Revision { found, expected });
            }
        }
        for operation in &commit.operations {
            let value = if let Change::Put(value) = &operation.change { Some(value.clone()) } else { None };
            self.set(operation.key.clone(), commit.revision, value);
        }
        self.revision = commit.revision;
        if let Some(named) = commit.command {
            self.remember(PartCommand { named, revision: commit.revision, time_ms: commit.time_ms });
        }
        self.forget(commit.time_ms);
        Ok(())
    }

    /// Lays a part of a snapshot over the state.
    pub fn part(&mut self, part: &Part) {
        for head in &part.heads {
            self.set(head.key.clone(), head.revision, head.value.clone());
        }
        for command in &part.commands {
            self.remember(*command);
        }
    }

    /// The snapshot is complete and stands for that revision.
    pub fn opened(&mut self, revision: u64) {
        self.revision = revision;
    }

    fn set(&mut self, key: Bytes, revision: u64, value: Option<Bytes>) {
        let length = key.len();
        let (added, replaced) = match value {
            Some(value) => {
                let added = length + value.len();
                (added, self.keys.insert(key, Head { revision, value }))
            }
            None => (0, self.keys.remove(&key)),
        };
        let removed = replaced.map_or(0, |head| length + head.value.len());
        self.bytes = self.bytes + added as u64 - removed as u64;
    }

    fn remember(&mut self, command: PartCommand) {
        if let Some(earlier) = self.commands.insert(command.named.id, command) {
            self.order.remove(&earlier.revision);
        }
        self.order.insert(command.revision, command.named.id);
    }

    /// A function of the commits alone, so that every reader forgets the same.
    fn forget(&mut self, time_ms: u64) {
        let age = limits::JOURNAL_COMMAND_AGE.as_millis() as u64;
        while self.commands.len() > limits::JOURNAL_COMMANDS {
            let Some((&revision, id)) = self.order.first_key_value() else { return };
            if self.commands.get(id).is_some_and(|command| command.time_ms.saturating_add(age) > time_ms) {
                return;
            }
            self.commands.remove(id);
            self.order.remove(&revision);
        }
    }

    /// What the key is.
    pub fn get(&self, key: &[u8]) -> Option<&Head> {
        self.keys.get(key)
    }

    /// Every key with that prefix, in byte order.
    pub fn scan<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Bytes, &'a Head)> {
        let range = self.keys.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The remembered command of that id.
    pub fn command(&self, id: CommandId) -> Option<&PartCommand> {
        self.commands.get(&id)
    }

    /// The revision of the last commit.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The next part of a snapshot behind `cursor`, of at most about that many bytes: keys first, then commands.
    pub(crate) fn snapshot(&self, cursor: &mut Cursor, bytes_max: usize) -> Option<Part> {
        let (mut part, mut bytes) = (Part::default(), 0);
        if let Cursor::Keys(after) = cursor {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, head) in self.keys.range::<[u8], _>((from, Bound::Unbounded)) {
                let entry = PartHead { key: key.clone(), revision: head.revision, value: Some(head.value.clone()) };
                bytes += entry.bytes_bound();
                if bytes > bytes_max && !part.heads.is_empty() {
                    break;
                }
                part.heads.push(entry);
            }
            if let Some(last) = part.heads.last() {
                *cursor = Cursor::Keys(Some(last.key.clone()));
                return Some(part);
            }
            *cursor = Cursor::Commands(0);
        }
        let Cursor::Commands(after) = cursor else { return None };
        part.commands = self.commands_after(*after, bytes_max);
        *after = part.commands.last()?.revision;
        Some(part)
    }

    /// Remembered commands of later revisions than that, as many as take about that many bytes.
    pub(crate) fn commands_after(&self, revision: u64, bytes_max: usize) -> Vec<PartCommand> {
        let count = (bytes_max / PartCommand::BYTES_BOUND).max(1);
        let range = self.order.range((Bound::Excluded(revision), Bound::Unbounded));
        range.take(count).filter_map(|(_, id)| self.commands.get(id).copied()).collect()
    }

    /// What the key is now, as it stands in a snapshot: deleted where it is not there.
    pub(crate) fn part_head(&self, key: &Bytes) -> PartHead {
        match self.keys.get(key) {
            Some(head) => PartHead { key: key.clone(), revision: head.revision, value: Some(head.value.clone()) },
            None => PartHead { key: key.clone(), revision: self.revision, value: None },
        }
    }

    /// The keys in which another state differs from this one.
    pub(crate) fn differing(&self, other: &Self) -> Vec<Bytes> {
        let changed = self.keys.iter().filter(|(key, head)| other.keys.get(*key) != Some(*head));
        let gone = other.keys.keys().filter(|key| !self.keys.contains_key(*key));
        changed.map(|(key, _)| key).chain(gone).cloned().collect()
    }

    /// The remembered commands that another state lacks.
    pub(crate) fn commands_missing(&self, other: &Self) -> Vec<PartCommand> {
        let missing = |id: &CommandId| other.commands.get(id) != self.commands.get(id);
        self.order.values().filter(|id| missing(id)).filter_map(|id| self.commands.get(id).copied()).collect()
    }
}

/// How far a snapshot is written.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    /// All keys up to that one.
    Keys(Option<Bytes>),
    /// All keys, and the commands up to that revision.
    Commands(u64),
}

impl Default for Cursor {
    fn default() -> Self {
        Self::Keys(None)
    }
}
