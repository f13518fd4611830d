//! The journal over a broker that breaks its word. Each case but JRN-25 does the same without the fault as well, which shows
//! that it is the fault that is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidegate_backbone::slot::{Command, CommitError, Expect, Journal, Options};
use tidegate_backbone::{Environment, ErrorKind, LogId, PartitionLog, Position, Record};

use super::table;
use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::misbehaving::{Fault, Harm, Misbehaving};
use crate::process::{environment, records};
use crate::runner::Case;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);
/// The first generation of the slot.
const FIRST: LogId = LogId::Slot { slot: 0, epoch: 0, suffix: 0 };

pub(super) fn cases() -> Vec<Case> {
    table! {
        "JRN-21" "commits whose acknowledgements are lost are found by reading back" [] untold;
        "JRN-22" "a frame that is lost amid others voids those behind it, and all are sent again" [] gap;
        "JRN-23" "a frame that is stored twice takes effect once" [] twice;
        "JRN-25" "a candidate whose announcement comes after another owner's commits does not own the slot by it" [] stale;
        "JRN-28" "an acknowledged tail that the broker lost is told as loss, not taken for a takeover" [] lost_tail;
        "JRN-29" "a record that is gone or changed amid the log is refused by whoever opens the slot" [] damaged;
    }
}

struct Bench {
    log: Arc<dyn PartitionLog>,
    environment: Environment,
}

impl Bench {
    async fn open(fixture: &Arc<dyn Fixture>) -> Result<Self, Failure> {
        let environment = environment(&Arc::<HeldClock>::default());
        Ok(Self { log: fixture.open(&environment).await?, environment })
    }

    fn misbehaving(&self, script: impl FnMut(&LogId, &Record) -> Fault + Send + 'static) -> Arc<Misbehaving> {
        Misbehaving::new(Arc::clone(&self.log), script)
    }

    async fn journal(&self, log: Arc<dyn PartitionLog>) -> tidegate_backbone::Result<Journal> {
        // Small frames, so that many are in flight at once.
        let options = Options { frame_bytes_max: 512, ..Options::default() };
        Journal::open(log, 0, self.environment.clone(), options).await
    }
}

fn put(key: &str, value: impl Into<Bytes>) -> Command {
    Command::new().put(Bytes::from(key.to_owned()), Expect::Any, value)
}

/// Commits many at once, first without the fault, then while the third frame and each seventh behind it meet it: all take
/// effect, once and in order.
async fn commits_under(fixture: &Arc<dyn Fixture>, fault: Fault) -> Outcome {
    let bench = Bench::open(fixture).await?;
    for fault in [Fault::None, fault] {
        let mut frames = 0;
        let log = bench.misbehaving(move |_, _| {
            frames += 1;
            if frames % 7 == 3 { fault } else { Fault::None }
        });
        let journal = bench.journal(Arc::clone(&log) as Arc<dyn PartitionLog>).await?;
        let before = journal.revision();
        let commits = (0..60).map(|n| journal.commit(put("a", format!("{n:0>100}"))));
        let seen = tokio::time::timeout(HANG, futures_util::future::join_all(commits)).await;
        let seen = seen.map_err(|_| Failure::late("expected that every commit is answered"))?;
        for (n, committed) in seen.into_iter().enumerate() {
            same("revision", committed?.revision, before + n as u64 + 1)?;
        }
        let met = (log.faults() > 0) == (fault != Fault::None);
        holds("the fault was met exactly where it should be", met, log.faults())?;
        let live = (journal.revision(), journal.scan(b""));
        journal.close().await;
        let replayed = bench.journal(Arc::clone(&bench.log)).await?;
        same("the state after replay", (replayed.revision(), replayed.scan(b"")), live)?;
        replayed.close().await;
    }
    Ok(())
}

async fn untold(fixture: Arc<dyn Fixture>) -> Outcome {
    commits_under(&fixture, Fault::Untold).await
}

async fn gap(fixture: Arc<dyn Fixture>) -> Outcome {
    commits_under(&fixture, Fault::Lost).await
}

async fn twice(fixture: Arc<dyn Fixture>) -> Outcome {
    commits_under(&fixture, Fault::Twice).await
}

async fn stale(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    bench.journal(Arc::clone(&bench.log)).await?.close().await;
    // The first thing that a candidate writes is its announcement.
    let mut held = false;
    let slow =
        bench.misbehaving(move |_, _| if std::mem::replace(&mut held, true) { Fault::None } else { Fault::Held });
    let mut opening = Box::pin(bench.journal(Arc::clone(&slow) as Arc<dyn PartitionLog>));
    let waits = async {
        while slow.faults() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        opened = &mut opening => return Err(Failure::new(format!("expected that it waits, seen {opened:?}"))),
        () = waits => {}
    }
    let owner = bench.journal(Arc::clone(&bench.log)).await?;
    for n in 1..=5 {
        owner.commit(put("a", n.to_string())).await?;
    }
    slow.release();
    let late = tokio::time::timeout(HANG, opening).await;
    match late.map_err(|_| Failure::late("expected that the late candidate is told"))? {
        // It announces anew behind what it has read by then, as any candidate may.
        Ok(late) => {
            holds("its epoch is a later one", late.epoch() > owner.epoch(), (late.epoch(), owner.epoch()))?;
            same("what it took over", late.get(b"a").map(|head| head.value), Some("5".into()))?;
            let fenced = owner.commit(put("a", "zombie")).await;
            same("the one before", fenced, Err(CommitError::Fenced { epoch: late.epoch() }))?;
            late.close().await;
        }
        Err(error) => {
            holds("it is superseded", matches!(error.kind(), ErrorKind::Fenced { .. }), &error)?;
            owner.commit(put("a", "5")).await?;
            owner.close().await;
        }
    }
    let next = bench.journal(Arc::clone(&bench.log)).await?;
    same("value by replay", next.get(b"a").map(|head| head.value), Some("5".into()))
}

async fn positions(log: &dyn PartitionLog) -> Result<Vec<Position>, Failure> {
    let begin = log.info(&FIRST).await?.begin;
    Ok(records(log, &FIRST, begin).await?.iter().map(|stored| stored.position).collect())
}

async fn lost_tail(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    for lost in [0, 2] {
        // From some commit on nothing is kept of what this owner writes, its signs of life among it: one that stayed behind what
        // is gone would make it a hole and no tail, which is JRN-29.
        let kept = Arc::new(AtomicBool::new(true));
        let keeps = Arc::clone(&kept);
        let log = bench.misbehaving(move |_, _| if keeps.load(Ordering::SeqCst) { Fault::None } else { Fault::Unkept });
        let journal = bench.journal(Arc::clone(&log) as Arc<dyn PartitionLog>).await?;
        for n in 0..5 {
            kept.store(n + lost < 5, Ordering::SeqCst);
            journal.commit(put("a", n.to_string())).await?;
        }
        let unkept = log.faults();
        log.lose();
        let writes_on = lost > 0 && !log.capability().exclusive;
        let written = async {
            while writes_on && log.faults() == unkept {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let written = tokio::time::timeout(HANG, written).await;
        written.map_err(|_| Failure::late("expected that the owner gives a sign of life"))?;
        // The next owner cannot know what it never saw; whoever knew it finds out.
        let next = bench.journal(log.beside()).await?;
        same("what the next owner knows", next.get(b"a").map(|head| head.value), Some((4 - lost).to_string().into()))?;
        next.commit(put("a", "next")).await?;
        let late = journal.commit(put("a", "late")).await;
        holds("a superseded owner gets nothing accepted", late.is_err(), &late)?;
        let ended = tokio::time::timeout(HANG, journal.ended()).await;
        let ended = ended.map_err(|_| Failure::late("expected that the first owner is told"))?;
        let told = matches!(ended, CommitError::DataLoss { .. });
        holds("it is told of loss where there was one, and only there", told == (lost > 0), (lost, &ended))?;
        next.close().await;
    }
    Ok(())
}

async fn damaged(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    let journal = bench.journal(Arc::clone(&bench.log)).await?;
    for n in 0..6 {
        journal.commit(put("a", n.to_string())).await?;
    }
    journal.close().await;
    let all = positions(bench.log.as_ref()).await?;
    let middle = all[all.len() / 2];
    for harm in [None, Some((middle, Harm::Gone)), Some((middle, Harm::Flipped)), Some((all[0], Harm::Gone))] {
        let log = bench.misbehaving(|_, _| Fault::None);
        if let Some((position, harm)) = harm {
            log.harm(&FIRST, position, harm);
        }
        let options = Options { create: false, ..Options::default() };
        let opened = Journal::open(log, 0, bench.environment.clone(), options).await;
        let refused = opened.as_ref().is_err_and(|error| *error.kind() == ErrorKind::DataLoss);
        holds("it is refused where there is damage, and only there", refused == harm.is_some(), (harm, &opened))?;
        if let Ok(journal) = opened {
            journal.close().await;
        }
    }
    Ok(())
}
