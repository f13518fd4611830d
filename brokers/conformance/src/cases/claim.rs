//! Who owns a slot, as far as one machine shows it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::{Attempt, Start};
use tidegate_backbone::slot::{Command, Expect};

use super::table;
use crate::clock::HeldClock;
use crate::expect::{Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, environment, event, subscription};
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "CLM-01" "a second process on the same storage is refused, and the first goes on" [Exclusive] exclusive;
        "CLM-03" "after a graceful stop the next owner goes on at once with everything" [Reopen] graceful;
        "CLM-05" "the epoch of a slot's owner grows with every opening, after stops and crashes" [Crash] epochs;
        "CLM-09" "a clock that jumps an hour has no effect on who owns a slot" [] clock_jumps;
    }
}

async fn exclusive(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let refused = fixture.open(&environment(&process.clock)).await.is_err();
    holds("a second one is refused", refused, ())?;
    process.journals[0].commit(Command::new().put("a", Expect::Absent, "1")).await?;
    process.stop().await;
    let process = Process::start(&fixture, &Arc::default()).await?;
    holds("what the first wrote is there", process.journals[0].get(b"a").is_some(), ())
}

async fn graceful(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    for round in 0..3_u64 {
        let process = Process::start(&fixture, &clock).await?;
        same("revision", process.journals[0].revision() >= round, true)?;
        let value = process.journals[0].get(b"count").map(|head| head.value);
        same("value", value, (round > 0).then(|| round.to_string().into()))?;
        process.journals[0].commit(Command::new().put("count", Expect::Any, (round + 1).to_string())).await?;
        process.stop().await;
    }
    Ok(())
}

async fn epochs(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let mut before = 0;
    for round in 0..8 {
        let process = Process::start(&fixture, &clock).await?;
        let epoch = process.journals[0].epoch();
        holds("the epoch grows", epoch > before, (before, epoch))?;
        before = epoch;
        if round % 2 == 0 {
            process.crash(&fixture).await;
        } else {
            process.stop().await;
        }
    }
    Ok(())
}

async fn clock_jumps(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    for round in 0..3 {
        process.clock.advance(Duration::from_secs(3600));
        process.journals[0].commit(Command::new().put("a", Expect::Any, round.to_string())).await?;
        process.publish(&topic, event(round.to_string(), "k")).await?;
        sink.expect(&round.to_string()).await?.done(&Attempt::default());
    }
    Ok(())
}
