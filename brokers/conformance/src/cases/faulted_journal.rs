//! Faults of the network and of the broker's processes amid commits: what a superseded owner wrote has no effect, and nobody
//! acknowledges what was not accepted.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::slot::frame::Frame;
use tidegate_backbone::slot::{Command, CommitError, Expect, Journal, Options};
use tidegate_backbone::{LogId, PartitionLog, Record};

use super::faulted::{each, patiently};
use super::table;
use crate::broker::Act;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, environment, records};
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "JRN-18" "what an owner wrote comes to the broker after another took over, and counts for nothing" [Connection] late;
        "JRN-20" "an owner that is cut off acknowledges nothing once another took over" [Connection] cut_off;
        "JRN-35" "commits go on by themselves after the broker stood still" [Pause] stood_still;
    }
}

fn put(value: &str) -> Command {
    Command::new().put("a", Expect::Any, value.to_owned())
}

/// The first process is fallen silent with a commit under way while a second one takes the slot; what was on its way comes
/// to the broker afterwards, where it is released.
async fn superseded(fixture: &Arc<dyn Fixture>, released: bool) -> Outcome {
    let environment = environment(&Arc::default());
    let open = async || -> Result<Journal, Failure> {
        Ok(Journal::open(fixture.open(&environment).await?, 0, environment.clone(), Options::default()).await?)
    };
    let zombie = open().await?;
    zombie.commit(put("1")).await?;
    each(fixture, crate::proxy::Proxy::strand);
    let late = {
        let zombie = zombie.clone();
        environment.spawn(async move { zombie.commit(put("zombie")).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let log = fixture.open(&environment).await?;
    let owner = Journal::open(Arc::clone(&log), 0, environment.clone(), Options::default()).await?;
    owner.commit(put("2")).await?;
    if released {
        each(fixture, crate::proxy::Proxy::heal);
    }
    let late = patiently(fixture, "the commit of the first is answered", late).await??;
    holds("what was not accepted is not acknowledged", late.is_err(), &late)?;
    patiently(fixture, "the first learns that it owns nothing any more", zombie.ended()).await?;
    if released {
        // Without such a frame nothing was rejected, and the case shows nothing.
        let rejected = async {
            while void(log.as_ref(), zombie.epoch()).await? == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, Failure>(())
        };
        patiently(fixture, "what the first wrote comes behind the other's announcement", rejected).await??;
    }
    owner.commit(put("3")).await?;
    same("the value of the owner", owner.get(b"a").map(|head| head.value), Some("3".into()))?;
    let revision = owner.revision();
    owner.close().await;
    let third = open().await?;
    same("by replay", (third.get(b"a").map(|head| head.value), third.revision()), (Some("3".into()), revision))?;
    third.close().await;
    environment.stop(fixture.patience()).await;
    Ok(())
}

/// How many frames of an epoch stand behind the beginning of a later one.
async fn void(log: &dyn PartitionLog, epoch: u64) -> Result<usize, Failure> {
    let id = LogId::Slot { slot: 0, epoch: 0, suffix: 0 };
    let frames = records(log, &id, log.info(&id).await?.begin).await?;
    let epochs = frames.iter().filter_map(|stored| match &stored.record {
        Record::Frame(bytes) => Frame::decode(bytes).ok().map(|frame| frame.epoch),
        Record::Event(_) => None,
    });
    Ok(epochs.skip_while(|seen| *seen <= epoch).filter(|seen| *seen == epoch).count())
}

async fn late(fixture: Arc<dyn Fixture>) -> Outcome {
    superseded(&fixture, true).await
}

async fn cut_off(fixture: Arc<dyn Fixture>) -> Outcome {
    superseded(&fixture, false).await
}

async fn stood_still(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    process.slot.commit(put("1")).await?;
    fixture.act(Act::Pause, None).await;
    let slot = Arc::clone(&process.slot);
    let mut waiting = process.environment.spawn(async move { slot.commit(put("2")).await });
    let early = tokio::time::timeout(Duration::from_secs(3), &mut waiting).await;
    fixture.act(Act::Resume, None).await;
    let seen = match early {
        Ok(told) => {
            let told = told?;
            holds("nothing is acknowledged by a broker that stands still", told.is_err(), &told)?;
            told
        }
        Err(_) => patiently(&fixture, "the commit is answered", waiting).await??,
    };
    // A commit does not wait for ever; it is not told as refused, for its owner may write it yet.
    let known = matches!(seen, Ok(_) | Err(CommitError::Unknown { .. }));
    holds("the commit that waited is done, or its outcome is unknown", known, &seen)?;
    let again = async {
        while process.slot.commit(put("3")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently(&fixture, "commits go on", again).await?;
    same("the last value", process.slot.get(b"a").map(|head| head.value), Some("3".into()))
}
