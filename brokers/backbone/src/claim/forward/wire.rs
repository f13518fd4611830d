//! The messages by which a command is sent to a slot's owner; `docs/SLOT.md` describes them.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::lane::NodeId;
use crate::slot::frame::FrameError;
use crate::slot::frame::codec::{Reader, put_bytes, put_option, put_varint};
use crate::slot::{Change, Command, CommandId, CommitError, Committed, Expect, Step};

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// A command for the owner of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub(super) slot: u32,
    pub(super) command: Command,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The owner says so.
    Owner(Result<Committed, CommitError>),
    /// Who was asked does not own the slot, so that the command had no effect; it knows of that owner.
    NotOwner { epoch: u64, owner: Option<NodeId> },
}

const OK: u8 = 0;
const NOT_OWNER: u8 = 1;
const CONFLICT: u8 = 2;
const COMMAND_REUSED: u8 = 3;
const REPEATED_KEY: u8 = 4;
const FENCED: u8 = 5;
const TOO_LARGE: u8 = 6;
const UNKNOWN: u8 = 7;
const UNAVAILABLE: u8 = 8;
const BACKPRESSURE: u8 = 9;
const DATA_LOSS: u8 = 10;
const CLOSED: u8 = 11;

impl Forwarded {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u32_le(self.slot);
        out.put_u8(u8::from(self.command.id.is_some()));
        if let Some(id) = self.command.id {
            out.put_u128_le(id.0);
        }
        put_varint(&mut out, self.command.steps.len() as u64);
        for Step { key, expect, change } in &self.command.steps {
            match expect {
                Expect::Any => out.put_u8(0),
                Expect::Absent => out.put_u8(1),
                Expect::Revision(revision) => {
                    out.put_u8(2);
                    put_varint(&mut out, *revision);
                }
            }
            out.put_u8(u8::from(matches!(change, Change::Put(_))));
            put_bytes(&mut out, key);
            if let Change::Put(value) = change {
                put_bytes(&mut out, value);
            }
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut read = open(bytes)?;
        let slot = read.u32()?;
        let id = if read.bool("a command id")? { Some(CommandId(u128::from_le_bytes(read.array()?))) } else { None };
        let steps = read.list(|read| {
            let expect = match read.u8()? {
                0 => Expect::Any,
                1 => Expect::Absent,
                2 => Expect::Revision(read.varint()?),
                other => return Err(unsupported("expectation", other)),
            };
            let put = read.bool("a value")?;
            let key = read.bytes()?;
            let change = if put { Change::Put(read.bytes()?) } else { Change::Delete };
            Ok(Step { key, expect, change })
        })?;
        read.end()?;
        Ok(Self { slot, command: Command { id, steps } })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        out.put_u8(VERSION);
        match self {
            Self::NotOwner { epoch, owner } => {
                out.put_u8(NOT_OWNER);
                put_varint(&mut out, *epoch);
                out.put_u8(u8::from(owner.is_some()));
                if let Some(owner) = owner {
                    out.put_u64_le(owner.0);
                }
            }
            Self::Owner(Ok(committed)) => {
                out.put_u8(OK);
                put_varint(&mut out, committed.revision);
                out.put_u8(u8::from(committed.repeated));
            }
            Self::Owner(Err(error)) => put_error(&mut out, error),
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut read = open(bytes)?;
        let answer = match read.u8()? {
            OK => Self::Owner(Ok(Committed { revision: read.varint()?, repeated: read.bool("repeated")? })),
            NOT_OWNER => {
                let epoch = read.varint()?;
                let owner = if read.bool("an owner")? { Some(NodeId(read.u64()?)) } else { None };
                Self::NotOwner { epoch, owner }
            }
            code => Self::Owner(Err(error(&mut read, code)?)),
        };
        read.end()?;
        Ok(answer)
    }
}

fn open(bytes: &[u8]) -> Result<Reader<'_>, FrameError> {
    let mut read = Reader::new(bytes);
    match read.u8()? {
        VERSION => Ok(read),
        version => Err(FrameError::Version { version }),
    }
}

fn unsupported(what: &'static str, value: u8) -> FrameError {
    FrameError::Unsupported { what, value: value.into(), at: 0 }
}

fn put_error(out: &mut BytesMut, error: &CommitError) {
    match error {
        CommitError::Conflict { key, current } => {
            out.put_u8(CONFLICT);
            put_bytes(out, key);
            put_option(out, *current);
        }
        CommitError::CommandReused { id, revision } => {
            out.put_u8(COMMAND_REUSED);
            out.put_u128_le(id.0);
            put_varint(out, *revision);
        }
        CommitError::RepeatedKey { key } => {
            out.put_u8(REPEATED_KEY);
            put_bytes(out, key);
        }
        CommitError::Fenced { epoch } => {
            out.put_u8(FENCED);
            put_varint(out, *epoch);
        }
        CommitError::TooLarge { bytes, limit_bytes } => {
            out.put_u8(TOO_LARGE);
            put_varint(out, *bytes as u64);
            put_varint(out, *limit_bytes as u64);
        }
        CommitError::Unknown { reason } => {
            out.put_u8(UNKNOWN);
            put_bytes(out, reason.as_bytes());
        }
        CommitError::Unavailable { reason } => {
            out.put_u8(UNAVAILABLE);
            put_bytes(out, reason.as_bytes());
        }
        CommitError::Backpressure { retry_after } => {
            out.put_u8(BACKPRESSURE);
            put_varint(out, u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
        }
        CommitError::DataLoss { reason } => {
            out.put_u8(DATA_LOSS);
            put_bytes(out, reason.as_bytes());
        }
        CommitError::Closed => out.put_u8(CLOSED),
    }
}

fn error(read: &mut Reader<'_>, code: u8) -> Result<CommitError, FrameError> {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let text = |read: &mut Reader<'_>| Ok::<_, FrameError>(String::from_utf8_lossy(&read.bytes()?).into_owned());
    Ok(match code {
        CONFLICT => CommitError::Conflict { key: read.bytes()?, current: read.option()? },
        COMMAND_REUSED => {
            CommitError::CommandReused { id: CommandId(u128::from_le_bytes(read.array()?)), revision: read.varint()? }
        }
        REPEATED_KEY => CommitError::RepeatedKey { key: read.bytes()? },
        FENCED => CommitError::Fenced { epoch: read.varint()? },
        TOO_LARGE => CommitError::TooLarge { bytes: size(read.varint()?), limit_bytes: size(read.varint()?) },
        UNKNOWN => CommitError::Unknown { reason: text(read)? },
        UNAVAILABLE => CommitError::Unavailable { reason: text(read)? },
        BACKPRESSURE => CommitError::Backpressure { retry_after: Duration::from_millis(read.varint()?) },
        DATA_LOSS => CommitError::DataLoss { reason: text(read)? },
        CLOSED => CommitError::Closed,
        other => return Err(unsupported("outcome", other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_come_back_as_they_were() {
        let command = Command::new()
            .put("a", Expect::Any, "1")
            .put("b", Expect::Absent, "")
            .delete("c", Expect::Revision(300))
            .id(CommandId(u128::MAX - 5));
        for command in [command, Command::new()] {
            let forwarded = Forwarded { slot: 7, command };
            let bytes = forwarded.encode();
            assert_eq!(Forwarded::decode(&bytes).unwrap(), forwarded);
            for length in 0..bytes.len() {
                assert!(Forwarded::decode(&bytes[..length]).is_err());
            }
            assert!(Forwarded::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        let reason = || "why".to_owned();
        let errors = [
            CommitError::Conflict { key: "k".into(), current: Some(3) },
            CommitError::Conflict { key: "k".into(), current: None },
            CommitError::CommandReused { id: CommandId(9), revision: 4 },
            CommitError::RepeatedKey { key: "k".into() },
            CommitError::Fenced { epoch: 300 },
            CommitError::TooLarge { bytes: 70_000, limit_bytes: 3 },
            CommitError::Unknown { reason: reason() },
            CommitError::Unavailable { reason: reason() },
            CommitError::Backpressure { retry_after: Duration::from_millis(100) },
            CommitError::DataLoss { reason: reason() },
            CommitError::Closed,
        ];
        let errors = errors.into_iter().map(|error| Answer::Owner(Err(error)));
        let others = [
            Answer::Owner(Ok(Committed { revision: 5_000, repeated: true })),
            Answer::NotOwner { epoch: 5, owner: Some(NodeId(6)) },
            Answer::NotOwner { epoch: 0, owner: None },
        ];
        for answer in errors.chain(others) {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes).unwrap(), answer);
            assert!(Answer::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(matches!(Answer::decode(&[2, 0]), Err(FrameError::Version { version: 2 })));
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        let command = Command::new().put("k", Expect::Revision(2), "v").id(CommandId(1));
        let bytes = Forwarded { slot: 3, command }.encode();
        let mut expected = vec![1, 3, 0, 0, 0, 1, 1];
        expected.extend([0; 15]);
        expected.extend([1, 2, 2, 1, 1, b'k', 1, b'v']);
        assert_eq!(bytes, expected);
        let answer = Answer::Owner(Ok(Committed { revision: 5, repeated: false }));
        assert_eq!(answer.encode(), vec![1, 0, 5, 0]);
    }
}
