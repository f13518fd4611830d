//! Taking a slot over: the valid generation, the Announce, and what an earlier owner left half done.

use std::sync::Arc;

use parking_lot::RwLock;
use tidegate_schemas::limits;

use super::writer::{Begun, Manner, Stop, Writer};
use super::{Options, roll};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, LogSpec, PartitionLog};
use crate::slot::accept::{Acceptor, Phase, Step};
use crate::slot::frame::{Frame, Generation, Kind, PartHead};
use crate::slot::heads::Heads;
use crate::slot::reader::{replay, within};
use crate::slot::state::State;

/// A slot that is owned, before its owner runs.
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) bytes_behind: u64,
}

/// A slot as a process has followed it to its end.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The rule's state in the current generation.
    pub(crate) acceptor: Acceptor,
    /// The slot's state.
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) bytes_behind: u64,
    /// Where the current generation is not opened yet: the sealed one before it, and what stands in the unfinished snapshot.
    pub(crate) unopened: Option<(Acceptor, Heads)>,
}

/// What came of an Announce.
enum Announced {
    Owner(Box<Writer>),
    /// The slot has changed: it is to be looked at again.
    Void,
    Fenced {
        epoch: u64,
        owner: u64,
    },
}

async fn announce(log: &Arc<dyn PartitionLog>, acceptor: &Acceptor, owner: u64, manner: Manner) -> Result<Announced> {
    let (epoch, step) = acceptor.announce();
    let Step::Announce { observed, previous_epoch, previous_last_sequence, previous_hash } = step else {
        return Ok(Announced::Void);
    };
    let kind = Kind::Announce { observed, previous_epoch, previous_last_sequence, previous_hash };
    let frame = Frame { slot: acceptor.slot(), epoch, owner, sequence: 0, known: 0, previous_hash, kind };
    Ok(match Writer::begin(Arc::clone(log), acceptor.clone(), frame, manner).await? {
        Begun::Owner(writer) => Announced::Owner(writer),
        Begun::Void => Announced::Void,
        Begun::Fenced { epoch, owner } => Announced::Fenced { epoch, owner },
    })
}

fn fenced(slot: u32, epoch: u64) -> Error {
    let context = format!("slot {slot} was taken over by another owner with epoch {epoch}");
    Error::new(ErrorKind::Fenced { epoch }, context)
}

pub(super) async fn open(
    log: &Arc<dyn PartitionLog>,
    slot: u32,
    environment: &Environment,
    options: &Options,
) -> Result<Opened> {
    let mut attempted = Vec::new();
    for _ in 0..limits::JOURNAL_OPEN_ATTEMPTS {
        let Some(chain) = replay(log, slot).await? else {
            if !options.create {
                let context = format!("slot {slot} has no log, though it had one; its records are gone");
                return Err(Error::new(ErrorKind::DataLoss, context));
            }
            let id = Generation::FIRST.log(slot);
            within(&id, "creating it", log.create(LogSpec::Single(id.clone()))).await?;
            continue;
        };
        // A new identity for each attempt: a late Announce of an earlier one is then another candidate's, not the same
        // place of an epoch with other content.
        let owner = options.owner(environment);
        attempted.push(owner);
        match announce(log, &chain.current.acceptor, owner, manner(environment, options)).await? {
            Announced::Owner(writer) => {
                let taken = chain.taken();
                return own(log, taken, *writer, options, environment).await;
            }
            Announced::Void => {}
            Announced::Fenced { owner, .. } if attempted.contains(&owner) => {}
            Announced::Fenced { epoch, .. } => return Err(fenced(slot, epoch)),
        }
    }
    let context = format!("slot {slot} changed at each of {} attempts to own it", limits::JOURNAL_OPEN_ATTEMPTS);
    Err(Error::new(ErrorKind::Unavailable, context))
}

/// One attempt, from what was followed.
pub(super) async fn take_over(
    log: &Arc<dyn PartitionLog>,
    taken: Taken,
    environment: &Environment,
    options: &Options,
) -> Result<Opened> {
    let slot = taken.acceptor.slot();
    match announce(log, &taken.acceptor, options.owner(environment), manner(environment, options)).await? {
        Announced::Owner(writer) => own(log, taken, *writer, options, environment).await,
        Announced::Void => {
            Err(Error::new(ErrorKind::Conflict, format!("slot {slot} changed while it was to be taken over")))
        }
        Announced::Fenced { epoch, .. } => Err(fenced(slot, epoch)),
    }
}

fn manner(environment: &Environment, options: &Options) -> Manner {
    Manner {
        clock: Arc::clone(&environment.clock),
        call_timeout: options.call_timeout,
        resends_max: options.resends_max,
    }
}

async fn own(
    log: &Arc<dyn PartitionLog>,
    taken: Taken,
    mut writer: Writer,
    options: &Options,
    environment: &Environment,
) -> Result<Opened> {
    let Taken { acceptor, state, mut bytes_behind, unopened } = taken;
    let slot = acceptor.slot();
    if let Some((sealed, unfinished)) = unopened {
        let frame_bytes = options.frame_bytes(log.as_ref());
        finish(&mut writer, &sealed, &state, &unfinished, frame_bytes).await.map_err(|stop| match stop {
            Stop::Fenced { epoch } => fenced(slot, epoch),
            Stop::DataLoss(error) | Stop::GaveUp { error, .. } => error,
        })?;
        bytes_behind = 0;
    }
    let cleaning = clean(Arc::clone(log), slot, writer.acceptor().epoch(), acceptor.generation());
    if log.capability().exclusive {
        cleaning.await;
    } else {
        // Not before those who follow the slot have read what is done with.
        let stopping = environment.stopping().clone();
        environment.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(limits::JOURNAL_SEALED_AGE) => cleaning.await,
            }
        });
    }
    Ok(Opened { writer, state, bytes_behind })
}

/// Deletes what earlier owners left. A generation of an epoch that is over by now can never become valid: its owner's Seal is
/// void. One of a later epoch belongs to an owner that has superseded this one already.
async fn clean(log: Arc<dyn PartitionLog>, slot: u32, epoch: u64, current: Generation) {
    let generations = match log.generations(slot).await {
        Ok(generations) => generations,
        Err(error) => {
            tracing::debug!(slot, %error, "generations that are done with stay until the slot is opened again");
            return;
        }
    };
    for id in generations {
        let LogId::Slot { epoch: begun, suffix, .. } = id else { continue };
        if begun >= epoch || (Generation { epoch: begun, suffix }) == current {
            continue;
        }
        if let Err(error) = within(&id, "deleting it", log.delete(LogSpec::Single(id.clone()))).await {
            tracing::warn!(log = %id, %error, "a generation that is done with stays until the slot is opened again");
        }
    }
}

/// Completes the generation that the accepted Seal named: whatever its snapshot lacks, then Opened.
async fn finish(
    writer: &mut Writer,
    sealed: &Acceptor,
    state: &RwLock<State>,
    unfinished: &Heads,
    frame_bytes: usize,
) -> std::result::Result<(), Stop> {
    let (parts, opened) = {
        let heads = &state.read().heads;
        let keys: Vec<PartHead> = heads.differing(unfinished).iter().map(|key| heads.part_head(key)).collect();
        let parts = roll::parts(keys, heads.commands_missing(unfinished), frame_bytes);
        (parts, roll::opened(heads.revision(), sealed))
    };
    let mut accepted = Vec::new();
    roll::write(writer, parts).await?;
    writer.push(opened);
    writer.drain(&mut accepted).await?;
    debug_assert_eq!(writer.acceptor().phase(), Phase::Open);
    Ok(())
}
