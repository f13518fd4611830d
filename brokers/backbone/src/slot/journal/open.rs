//! Taking a slot over: the valid generation, the Announce, and what an earlier owner left half done.

use std::sync::Arc;

use tidegate_schemas::limits;

use super::writer::{Begun, Stop, Writer};
use super::{Options, roll};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogSpec, PartitionLog};
use crate::slot::accept::{Phase, Step};
use crate::slot::frame::{Frame, Generation, Kind, PartHead};
use crate::slot::heads::Heads;
use crate::slot::reader::{Chain, Folded, replay, within};

/// A slot that is owned, before its owner runs.
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) heads: Heads,
    pub(super) bytes_behind: u64,
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
        let owner = environment.random.bits();
        attempted.push(owner);
        let acceptor = chain.current.acceptor.clone();
        let (epoch, step) = acceptor.announce();
        let Step::Announce { observed, previous_epoch, previous_last_sequence, previous_hash } = step else { continue };
        let kind = Kind::Announce { observed, previous_epoch, previous_last_sequence, previous_hash };
        let frame = Frame { slot, epoch, owner, sequence: 0, known: 0, previous_hash, kind };
        match Writer::begin(Arc::clone(log), acceptor, frame).await? {
            Begun::Owner(writer) => return own(log, slot, chain, *writer, options).await,
            Begun::Void => {}
            Begun::Fenced { owner, .. } if attempted.contains(&owner) => {}
            Begun::Fenced { epoch, .. } => {
                let context = format!("slot {slot} was taken over by another owner with epoch {epoch}");
                return Err(Error::new(ErrorKind::Fenced { epoch }, context));
            }
        }
    }
    let context = format!("slot {slot} changed at each of {} attempts to own it", limits::JOURNAL_OPEN_ATTEMPTS);
    Err(Error::new(ErrorKind::Unavailable, context))
}

async fn own(
    log: &Arc<dyn PartitionLog>,
    slot: u32,
    chain: Chain,
    mut writer: Writer,
    options: &Options,
) -> Result<Opened> {
    let Chain { current, before, others } = chain;
    let mut opened = (current.heads, current.bytes_behind);
    if let Some(before) = before {
        finish(&mut writer, &before, &opened.0, options.frame_bytes(log.as_ref())).await.map_err(
            |stop| match stop {
                Stop::Fenced { epoch } => {
                    Error::new(ErrorKind::Fenced { epoch }, format!("slot {slot} was taken over with epoch {epoch}"))
                }
                Stop::DataLoss(error) | Stop::GaveUp { error, .. } => error,
            },
        )?;
        opened = (before.heads, 0);
    }
    // A generation of an epoch that is over by now can never become valid: its owner's Seal is void. One of a later
    // epoch belongs to an owner that has superseded this one already.
    let epoch = writer.acceptor().epoch();
    for generation in others.into_iter().filter(|generation| generation.epoch < epoch) {
        let id = generation.log(slot);
        if let Err(error) = within(&id, "deleting it", log.delete(LogSpec::Single(id.clone()))).await {
            tracing::warn!(log = %id, %error, "a generation that is done with stays until the slot is opened again");
        }
    }
    let (heads, bytes_behind) = opened;
    Ok(Opened { writer, heads, bytes_behind })
}

/// Completes the generation that the accepted Seal named: whatever its snapshot lacks, then Opened.
async fn finish(
    writer: &mut Writer,
    before: &Folded,
    unfinished: &Heads,
    frame_bytes: usize,
) -> std::result::Result<(), Stop> {
    let heads = &before.heads;
    let keys: Vec<PartHead> = heads.differing(unfinished).iter().map(|key| heads.part_head(key)).collect();
    let mut accepted = Vec::new();
    roll::write(writer, roll::parts(keys, heads.commands_missing(unfinished), frame_bytes)).await?;
    writer.push(roll::opened(heads.revision(), &before.acceptor));
    writer.drain(&mut accepted).await?;
    debug_assert_eq!(writer.acceptor().phase(), Phase::Open);
    Ok(())
}
