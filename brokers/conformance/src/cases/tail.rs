//! Reading and positions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tidegate_backbone::{ErrorKind, LogId, LogSpec, PartitionLog, Position, Record, Tail};

use super::table;
use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{environment, event, event_of, records, sized, stamping};
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "TAIL-01" "a tail from the beginning gives every record, once and in order" [] earliest;
        "TAIL-02" "a tail from the end gives only what comes later" [] latest;
        "TAIL-03" "a tail from a position begins with that record" [] inclusive;
        "TAIL-04" "a tail from a time leaves out no record of that time or later" [] time;
        "TAIL-05" "a position that was trimmed is told, with the first that is left" [] trimmed;
        "TAIL-06" "a position beyond the end is waited for" [] beyond;
        "TAIL-07" "the end is beyond every append that was acknowledged" [] end;
        "TAIL-08" "a tail goes on at its position after the broker was opened again" [Reopen] reopened;
        "TAIL-09" "a batch takes no more bytes than asked for, however far behind the reader is" [] bounded;
        "TAIL-10" "trimming takes the oldest records and no others" [] trim;
    }
}

struct Bench {
    clock: Arc<HeldClock>,
    log: Arc<dyn PartitionLog>,
    id: LogId,
}

async fn bench(fixture: &Arc<dyn Fixture>) -> Result<Bench, Failure> {
    let clock = Arc::<HeldClock>::default();
    let log = fixture.open(&environment(&clock)).await?;
    let id = LogId::Topic { topic: "orders".into(), partition: 0 };
    log.create(LogSpec::from(id.clone())).await?;
    Ok(Bench { clock, log, id })
}

impl Bench {
    /// Appends numbered events; gives their positions as they are read.
    async fn append(&self, range: std::ops::Range<usize>) -> Result<Vec<Position>, Failure> {
        let from = self.log.info(&self.id).await?.end;
        for n in range {
            self.log.append(&self.id, Record::Event(event(n.to_string(), ""))).await?;
        }
        Ok(records(self.log.as_ref(), &self.id, from).await?.iter().map(|stored| stored.position).collect())
    }

    async fn numbers(&self, from: Position) -> Result<Vec<usize>, Failure> {
        numbers(&records(self.log.as_ref(), &self.id, from).await?)
    }
}

fn numbers(records: &[tidegate_backbone::Stored]) -> Result<Vec<usize>, Failure> {
    records.iter().map(|stored| Ok(event_of(stored)?.id().parse()?)).collect()
}

async fn next(tail: &mut dyn Tail, count: usize) -> Result<Vec<usize>, Failure> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(60), tail.next(1024)).await;
        let batch = batch
            .map_err(|_| Failure::late(format!("expected {count} records, seen {} and then none", seen.len())))??;
        holds("a batch is not empty", !batch.records.is_empty(), &batch)?;
        seen.extend(numbers(&batch.records)?);
    }
    Ok(seen)
}

async fn earliest(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    bench.append(0..300).await?;
    let begin = bench.log.info(&bench.id).await?.begin;
    same("from the beginning", bench.numbers(begin).await?, (0..300).collect())
}

async fn latest(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    bench.append(0..10).await?;
    let end = bench.log.info(&bench.id).await?.end;
    let mut tail = bench.log.tail(&bench.id, end).await?;
    bench.append(10..20).await?;
    same("from the end", next(tail.as_mut(), 10).await?, (10..20).collect())
}

async fn inclusive(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    let positions = bench.append(0..50).await?;
    for (number, position) in positions.iter().enumerate() {
        same("from a position", bench.numbers(*position).await?, (number..50).collect())?;
    }
    Ok(())
}

async fn time(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    let stamps = stamping(&fixture, &bench.clock);
    let mut began = Vec::new();
    for n in 0..40 {
        bench.clock.advance(Duration::from_millis(10 * (n % 3) as u64));
        began.push(stamps.unix_milliseconds());
        bench.append(n..n + 1).await?;
    }
    bench.clock.advance(Duration::from_millis(50));
    began.push(stamps.unix_milliseconds());
    for time in began {
        let position = bench.log.lookup(&bench.id, time).await?;
        let all = records(bench.log.as_ref(), &bench.id, Position::ZERO).await?;
        let left_out = all.iter().find(|stored| stored.appended_at >= time && stored.position < position);
        holds("no record of that time or later is left out", left_out.is_none(), (time, position, left_out))?;
    }
    let first = bench.log.lookup(&bench.id, 0).await?;
    same("from the beginning of time", bench.numbers(first).await?.len(), 40)?;
    let never = bench.log.lookup(&bench.id, u64::MAX).await?;
    same("of the future", never, bench.log.info(&bench.id).await?.end)
}

async fn trimmed(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    let positions = bench.append(0..20).await?;
    bench.log.trim(&bench.id, positions[10]).await?;
    let begin = bench.log.info(&bench.id).await?.begin;
    holds("something was trimmed", begin > positions[0], begin)?;
    let error = bench.log.tail(&bench.id, positions[0]).await.err();
    let kind = error.as_ref().map(|error| error.kind().clone());
    same("a tail below", kind, Some(ErrorKind::PositionLost { earliest: begin }))
}

async fn beyond(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    let end = bench.log.info(&bench.id).await?.end;
    let mut tail = bench.log.tail(&bench.id, Position(end.0 + 3)).await?;
    bench.append(0..3).await?;
    holds("it waits", tail.next(1024).now_or_never().is_none(), ())?;
    bench.append(3..6).await?;
    let seen = next(tail.as_mut(), 1).await?;
    holds("it begins there and not before", seen.first().is_some_and(|first| *first <= 3), &seen)
}

async fn end(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    for n in 0..100 {
        let appended = bench.log.append(&bench.id, Record::Event(event(n.to_string(), ""))).await?;
        let end = bench.log.info(&bench.id).await?.end;
        if let Some(position) = appended.position {
            holds("the end is beyond it", end > position, (end, position))?;
        }
        same("read to the end", bench.numbers(Position::ZERO).await?.len(), n + 1)?;
    }
    Ok(())
}

async fn reopened(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut bench = bench(&fixture).await?;
    let mut position = bench.log.info(&bench.id).await?.begin;
    let mut seen = Vec::new();
    for round in 0..5 {
        bench.append(round * 20..round * 20 + 20).await?;
        let mut tail = bench.log.tail(&bench.id, position).await?;
        // In the middle of what there is, so that the position matters.
        while seen.len() < round * 20 + 10 {
            let batch = tail.next(1).await?;
            seen.extend(numbers(&batch.records)?);
            position = tail.position();
        }
        bench.log.close().await;
        bench.log = fixture.open(&environment(&bench.clock)).await?;
    }
    let mut tail = bench.log.tail(&bench.id, position).await?;
    while seen.len() < 100 {
        seen.extend(numbers(&tail.next(1024).await?.records)?);
    }
    same("over all openings", seen, (0..100).collect())
}

async fn bounded(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    for n in 0..400_usize {
        bench.log.append(&bench.id, Record::Event(sized(n.to_string(), "", 8 * 1024))).await?;
    }
    let mut tail = bench.log.tail(&bench.id, Position::ZERO).await?;
    let (mut count, limit) = (0, 64 * 1024);
    while count < 400 {
        let batch = tail.next(limit).await?;
        let mut bytes = 0;
        for stored in &batch.records {
            bytes += event_of(stored)?.bytes();
        }
        // About: what an adapter counts beside the payload is its own affair.
        holds("a batch keeps to the limit", bytes <= limit + 16 * 1024, (bytes, batch.records.len()))?;
        count += batch.records.len();
    }
    same("records", count, 400)?;
    let mut tail = bench.log.tail(&bench.id, Position::ZERO).await?;
    same("one record larger than the limit comes alone", tail.next(1).await?.records.len(), 1)
}

async fn trim(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = bench(&fixture).await?;
    let positions = bench.append(0..30).await?;
    for keep_from in [0, 1, 10, 10, 29] {
        bench.log.trim(&bench.id, positions[keep_from]).await?;
        let info = bench.log.info(&bench.id).await?;
        let seen = bench.numbers(info.begin).await?;
        holds("no younger record was taken", seen.first().is_some_and(|first| *first <= keep_from), &seen)?;
        same("what is left", seen.clone(), (seen[0]..30).collect())?;
    }
    bench.log.trim(&bench.id, bench.log.info(&bench.id).await?.end).await?;
    let appended = bench.append(30..31).await?;
    holds("positions go on behind what was trimmed", appended[0] > positions[29], (appended, positions[29]))
}
