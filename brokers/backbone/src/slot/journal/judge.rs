//! Whether a command may be carried out: examined by itself, and judged against the state with the owner's frames in
//! flight laid over it.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Change, Command, CommandId, CommitError, Committed, Expect, Step};
use crate::slot::frame::{self, Commit, Named, Operation};
use crate::slot::heads::Heads;

/// What a command is apart from any state: its name with the hash of what it asks, and the most bytes that it takes.
pub(super) fn examine(command: &Command, limit_bytes: usize) -> Result<(Option<Named>, usize), CommitError> {
    let mut keys: Vec<&Bytes> = command.steps.iter().map(|step| &step.key).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CommitError::RepeatedKey { key: pair[0].clone() });
    }
    let named = command.id.map(|id| Named { id, hash: content_hash(&command.steps) });
    let operations = command.steps.iter().map(|step| operation(step, None)).collect();
    let bytes = Commit { command: named, revision: 0, time_ms: 0, operations }.bytes_bound();
    if bytes > limit_bytes {
        return Err(CommitError::TooLarge { bytes, limit_bytes });
    }
    Ok((named, bytes))
}

fn operation(step: &Step, expected: Option<u64>) -> Operation {
    Operation { key: step.key.clone(), expected, change: step.change.clone() }
}

/// What a command asks, in the order in which it asks it. Part of the stored format: the hash is compared with those that
/// earlier versions of the program wrote.
fn content_hash(steps: &[Step]) -> u64 {
    let mut out = Vec::new();
    let mut put = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    for step in steps {
        put(&step.key);
        match step.expect {
            Expect::Any => put(&[]),
            Expect::Absent => put(&[0]),
            Expect::Revision(revision) => put(&revision.to_le_bytes()),
        }
        match &step.change {
            Change::Delete => put(&[0]),
            Change::Put(value) => {
                put(&[1]);
                put(value);
            }
        }
    }
    frame::hash(&out)
}

/// What becomes of a command.
pub(super) enum Judged {
    /// It is answered at once.
    Now(Result<Committed, CommitError>),
    /// It is answered when that frame is accepted, for the answer rests on it.
    After(u64, Result<Committed, CommitError>),
    /// It is written.
    Write(Commit),
}

/// What the owner's frames in flight will have made of the state.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// The last frame in flight that changes the key, and the revision that it gives it; none where it deletes it.
    keys: HashMap<Bytes, (u64, Option<u64>)>,
    commands: HashMap<CommandId, (u64, Named, u64)>,
    /// The revision of the last commit in flight.
    pub(super) revision: u64,
}

impl Overlay {
    pub(super) fn new(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }

    /// Judges a command; where it is to be written, into frame `sequence`, the overlay includes it from now on.
    pub(super) fn judge(
        &mut self,
        heads: &Heads,
        steps: &[Step],
        named: Option<Named>,
        sequence: u64,
        time_ms: u64,
    ) -> Judged {
        if let Some(named) = named {
            if let Some((frame, earlier, revision)) = self.commands.get(&named.id) {
                return Judged::After(*frame, repeated(&named, earlier, *revision));
            }
            if let Some(earlier) = heads.command(named.id) {
                return Judged::Now(repeated(&named, &earlier.named, earlier.revision));
            }
        }
        let mut operations = Vec::with_capacity(steps.len());
        for step in steps {
            let flying = self.keys.get(&step.key);
            let current = match flying {
                Some((_, revision)) => *revision,
                None => heads.get(&step.key).map(|head| head.revision),
            };
            let met = match step.expect {
                Expect::Any => true,
                Expect::Absent => current.is_none(),
                Expect::Revision(revision) => current == Some(revision),
            };
            if !met {
                let conflict = Err(CommitError::Conflict { key: step.key.clone(), current });
                return match flying {
                    Some((frame, _)) => Judged::After(*frame, conflict),
                    None => Judged::Now(conflict),
                };
            }
            operations.push(operation(step, current));
        }
        self.revision += 1;
        let revision = self.revision;
        for step in steps {
            let becomes = matches!(step.change, Change::Put(_)).then_some(revision);
            self.keys.insert(step.key.clone(), (sequence, becomes));
        }
        if let Some(named) = named {
            self.commands.insert(named.id, (sequence, named, revision));
        }
        Judged::Write(Commit { command: named, revision, time_ms, operations })
    }

    /// The frame was accepted and its commit is part of the state.
    pub(super) fn landed(&mut self, sequence: u64, commit: &Commit) {
        for operation in &commit.operations {
            if self.keys.get(&operation.key).is_some_and(|(frame, _)| *frame == sequence) {
                self.keys.remove(&operation.key);
            }
        }
        if let Some(named) = &commit.command {
            self.commands.remove(&named.id);
        }
    }
}

fn repeated(named: &Named, earlier: &Named, revision: u64) -> Result<Committed, CommitError> {
    if named.hash == earlier.hash {
        Ok(Committed { revision, repeated: true })
    } else {
        Err(CommitError::CommandReused { id: named.id, revision })
    }
}
