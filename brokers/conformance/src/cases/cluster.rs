//! Several processes on one broker: who owns which slot, what moves, and what is true for clients meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_backbone::slot::placement::delivery_slots;
use tidegate_backbone::slot::{Command, CommandId, CommitError, Expect, Journal, SlotHandle};

use super::table;
use crate::cluster::{Cluster, Node};
use crate::connection::Link;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::linearizable::{Recorder, Step, linearizable};
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "CLM-02" "a process that joins gets its share, and nothing else moves" [Shared] joins;
        "CLM-04" "the slots of a process that dies are taken over with all that was committed" [Shared] dies;
        "CLM-06" "a process that was stopped acts in no slot when it goes on, and is told" [Shared] stopped;
        "CLM-07" "a process that can only write, or only read, is replaced" [Shared] one_direction;
        "CLM-08" "a broker that is away for all moves nothing" [Shared] broker_away;
        "CLM-10" "a machine that was suspended acts in no slot before it has been heard again" [Shared] suspended;
        "CLM-11" "members that come and go move nothing" [Shared] flapping;
        "CLM-12" "every process knows the same owner of each slot" [Shared] known;
        "CLM-13" "slots are spread, each with one owner, whose epochs grow" [Shared] spread;
        "CLM-14" "what a process gives up is taken over, and commands go on" [Shared] leaves;
        "CLM-15" "wall clocks that jump move nothing" [Shared] wall_clocks;
        "JRN-36" "an owner that is cut off acknowledges and refuses nothing, and another one goes on" [Shared] cut_off;
        "JRN-30" "what one process committed is seen by a barrier from another" [Shared] barrier;
        "JRN-31" "reads under a lease are never stale, whoever was stopped" [Shared] leased;
        "JRN-34" "commands go on while members come and go" [Shared] flapping_commits;
    }
}

fn put(key: &str, expect: Expect, value: impl Into<Bytes>) -> Command {
    Command::new().put(Bytes::from(key.to_owned()), expect, value)
}

/// The last slot: one in which work is done.
fn last(cluster: &Cluster) -> u32 {
    cluster.nodes[0].claims.slots() - 1
}

/// The slot as a process sees it that has followed all that was committed by now: it reads for itself, a while behind.
async fn followed(node: &Node, slot: u32) -> Result<Arc<dyn SlotHandle>, Failure> {
    let handle = node.slot(slot);
    let barrier = async {
        loop {
            match handle.commit(Command::new()).await {
                Err(CommitError::Unknown { .. } | CommitError::Unavailable { .. }) => {}
                result => return result.map(|_| ()),
            }
        }
    };
    let passed = tokio::time::timeout(Duration::from_secs(60), barrier).await;
    passed.map_err(|_| Failure::late("expected that a process can follow a slot"))??;
    Ok(handle)
}

async fn joins(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut cluster = Cluster::start(&fixture, 1).await?;
    for nodes in 2..=3_usize {
        let before = cluster.owners();
        cluster.join().await?;
        cluster.settled().await?;
        cluster.watch(Duration::from_secs(3)).await?;
        let (after, joined) = (cluster.owners(), cluster.nodes[nodes - 1].id);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before.owner != after.owner).collect();
        holds("all that moves goes there", moved.iter().all(|(_, after)| after.owner == Some(joined)), &moved)?;
        let slots = delivery_slots(cluster.nodes[0].claims.slots()).len();
        holds("it is no more than its share", moved.len() <= slots.div_ceil(nodes), &moved)?;
    }
    cluster.stop().await;
    Ok(())
}

async fn dies(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut cluster = Cluster::start(&fixture, 3).await?;
    let slot = last(&cluster);
    for round in 0..2_u64 {
        let key = format!("k{round}");
        cluster.nodes[0].slot(slot).commit(put(&key, Expect::Absent, "1")).await?;
        let before = cluster.epochs();
        let owner = cluster.owner(slot).ok_or_else(|| Failure::new("expected an owner"))?;
        cluster.kill(owner);
        cluster.settled().await?;
        holds("the epoch grows", cluster.epochs()[slot as usize] > before[slot as usize], cluster.epochs())?;
        let again = cluster.nodes[0].slot(slot).commit(put(&key, Expect::Absent, "2")).await;
        holds("what was committed counts", matches!(again, Err(CommitError::Conflict { .. })), &again)?;
    }
    cluster.stop().await;
    Ok(())
}

/// Cuts the owner of the last slot off that way, until another one acts there; gives who it was.
async fn replaced(cluster: &Cluster, link: Link) -> Result<usize, Failure> {
    let slot = last(cluster);
    let owner = cluster.owner(slot).ok_or_else(|| Failure::new("expected an owner"))?;
    cluster.nodes[owner].connection.set(link);
    cluster.hide(owner, true);
    cluster
        .until("another process acts in the slot", |cluster| {
            let acts = |node: &Node| node.journal(slot).is_some_and(|journal| journal.holds());
            cluster.nodes.iter().enumerate().any(|(index, node)| index != owner && acts(node))
        })
        .await?;
    Ok(owner)
}

async fn back(cluster: &Cluster, owner: usize) -> Outcome {
    cluster.nodes[owner].connection.set(Link::Up);
    cluster.hide(owner, false);
    cluster.settled().await
}

async fn stopped(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 2).await?;
    let slot = last(&cluster);
    let owner = replaced(&cluster, Link::Stalled).await?;
    let journal = cluster.nodes[owner].journal(slot);
    let journal = journal.ok_or_else(|| Failure::new("expected that it does not know yet"))?;
    holds("its lease is over before it is told", !journal.holds(), ())?;
    // What it does when it goes on has no effect.
    let other = cluster.nodes[1 - owner].slot(slot);
    other.commit(put("a", Expect::Absent, "new")).await?;
    let (late, ()) = tokio::join!(journal.commit(put("a", Expect::Any, "late")), async {
        cluster.nodes[owner].connection.set(Link::Up);
    });
    holds("it is told that another one owns the slot", matches!(late, Err(CommitError::Fenced { .. })), &late)?;
    back(&cluster, owner).await?;
    let lost = cluster.nodes[owner].worker.lost.lock().clone();
    holds("its tenant was told", lost.contains(&slot), &lost)?;
    same("value", other.get(b"a").map(|head| head.value), Some("new".into()))?;
    cluster.stop().await;
    Ok(())
}

async fn one_direction(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 2).await?;
    let slot = last(&cluster);
    for (round, link) in [Link::Deaf, Link::Mute].into_iter().enumerate() {
        let owner = replaced(&cluster, link).await?;
        let other = cluster.nodes[1 - owner].slot(slot);
        other.commit(put(&format!("k{round}"), Expect::Absent, "1")).await?;
        back(&cluster, owner).await?;
    }
    cluster.stop().await;
    Ok(())
}

async fn broker_away(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 3).await?;
    let before = cluster.epochs();
    cluster.nodes.iter().for_each(|node| node.connection.set(Link::Cut));
    cluster.watch(Duration::from_secs(10)).await?;
    holds("nobody acts meanwhile", !cluster.nodes.iter().any(Node::acts), ())?;
    cluster.nodes.iter().for_each(|node| node.connection.set(Link::Up));
    cluster.settled().await?;
    cluster.watch(Duration::from_secs(3)).await?;
    same("epochs", cluster.epochs(), before.clone())?;
    // The control: one that is away alone is replaced.
    let owner = replaced(&cluster, Link::Cut).await?;
    back(&cluster, owner).await?;
    holds("then something moves", cluster.epochs() != before, &before)?;
    cluster.stop().await;
    Ok(())
}

async fn suspended(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 2).await?;
    let before = cluster.epochs();
    for node in &cluster.nodes {
        node.clock.sleep(Duration::from_secs(3_600));
        holds("it does not act", !node.acts(), node.claims.owners())?;
        cluster.watch(Duration::from_secs(3)).await?;
        cluster.settled().await?;
    }
    same("epochs", cluster.epochs(), before)?;
    cluster.stop().await;
    Ok(())
}

async fn flap(cluster: &Cluster, times: usize) -> Outcome {
    for _ in 0..times {
        cluster.hide(2, true);
        cluster.watch(Duration::from_millis(150)).await?;
        cluster.hide(2, false);
        cluster.watch(Duration::from_millis(150)).await?;
    }
    Ok(())
}

async fn flapping(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 3).await?;
    let before = cluster.epochs();
    flap(&cluster, 20).await?;
    cluster.watch(Duration::from_secs(3)).await?;
    same("epochs", cluster.epochs(), before)?;
    cluster.stop().await;
    Ok(())
}

async fn flapping_commits(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 3).await?;
    let slot = last(&cluster);
    let commits = async {
        let mut count = 0_u64;
        for n in 0..60_u128 {
            let node = &cluster.nodes[n as usize % 2];
            // A lane that is cut for a moment costs time, and no command is carried out twice.
            let command = put(&format!("k{n}"), Expect::Absent, "1").id(CommandId(n));
            let committed = loop {
                match node.slot(slot).commit(command.clone()).await {
                    Err(CommitError::Unknown { .. } | CommitError::Unavailable { .. }) => {}
                    result => break result?,
                }
            };
            count = count.max(committed.revision);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Failure>(count)
    };
    let (flapped, committed) = tokio::join!(flap(&cluster, 20), commits);
    flapped?;
    same("commits", committed?, 60)?;
    cluster.settled().await?;
    for node in &cluster.nodes {
        same("keys", followed(node, slot).await?.scan(b"k").len(), 60)?;
    }
    cluster.stop().await;
    Ok(())
}

async fn known(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 3).await?;
    let first = cluster.owners();
    for node in &cluster.nodes {
        for (seen, expected) in node.claims.owners().iter().zip(&first) {
            same("owner", (seen.owner, seen.epoch), (expected.owner, expected.epoch))?;
            same("acts", seen.here, seen.owner == Some(node.id))?;
        }
    }
    cluster.stop().await;
    Ok(())
}

async fn spread(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut cluster = Cluster::start(&fixture, 2).await?;
    let mut before = cluster.epochs();
    for _ in 0..3 {
        let owner = cluster.owner(last(&cluster)).ok_or_else(|| Failure::new("expected an owner"))?;
        cluster.kill(owner);
        cluster.join().await?;
        cluster.settled().await?;
        let after = cluster.epochs();
        holds("epochs never shrink", before.iter().zip(&after).all(|(old, new)| old <= new), (&before, &after))?;
        holds("that of a new owner grows", before.last() < after.last(), (&before, &after))?;
        before = after;
    }
    cluster.stop().await;
    Ok(())
}

async fn leaves(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut cluster = Cluster::start(&fixture, 3).await?;
    let slot = last(&cluster);
    for round in 0..2 {
        let owner = cluster.owner(slot).ok_or_else(|| Failure::new("expected an owner"))?;
        let node = cluster.nodes.remove(owner);
        let handle = cluster.nodes[0].slot(slot);
        let commits = async {
            for n in 0..20 {
                handle.commit(put(&format!("{round}-{n}"), Expect::Absent, "1")).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, Failure>(())
        };
        let ((), committed) = tokio::join!(node.leave(), commits);
        committed?;
        holds("it acts nowhere", !node.acts(), ())?;
        cluster.settled().await?;
    }
    same("commits", followed(&cluster.nodes[0], slot).await?.scan(b"").len(), 40)?;
    cluster.stop().await;
    Ok(())
}

async fn wall_clocks(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 2).await?;
    let before = cluster.epochs();
    for node in &cluster.nodes {
        for by_ms in [3_600_000, -3_600_000] {
            node.clock.set(by_ms);
            cluster.watch(Duration::from_secs(2)).await?;
            node.slot(last(&cluster)).commit(put("a", Expect::Any, by_ms.to_string())).await?;
        }
    }
    same("epochs", cluster.epochs(), before)?;
    cluster.stop().await;
    Ok(())
}

async fn cut_off(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 2).await?;
    let slot = last(&cluster);
    let owner = cluster.owner(slot).ok_or_else(|| Failure::new("expected an owner"))?;
    cluster.nodes[owner].slot(slot).commit(put("a", Expect::Absent, "1")).await?;
    let journal = cluster.nodes[owner].journal(slot).ok_or_else(|| Failure::new("expected a journal"))?;
    cluster.nodes[owner].connection.set(Link::Cut);
    let (told, elsewhere) =
        tokio::join!(journal.commit(put("a", Expect::Any, "cut off")), replaced(&cluster, Link::Cut));
    let owner = elsewhere?;
    holds("nothing is acknowledged", matches!(told, Err(CommitError::Unknown { .. })), &told)?;
    holds("its lease is over", !journal.holds(), ())?;
    let conflict =
        tokio::time::timeout(Duration::from_millis(300), journal.commit(put("a", Expect::Absent, "x"))).await;
    holds(
        "it refuses nothing in the slot's name",
        !matches!(conflict, Ok(Err(CommitError::Conflict { .. }))),
        &conflict,
    )?;
    let other = cluster.nodes[1 - owner].slot(slot);
    let head = other.get(b"a").ok_or_else(|| Failure::new("expected the key"))?;
    other.commit(put("a", Expect::Revision(head.revision), "2")).await?;
    back(&cluster, owner).await?;
    for node in &cluster.nodes {
        same("value", followed(node, slot).await?.get(b"a").map(|head| head.value), Some("2".into()))?;
    }
    cluster.stop().await;
    Ok(())
}

async fn barrier(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 3).await?;
    let slot = last(&cluster);
    for n in 0..60_usize {
        let (writer, reader) = (&cluster.nodes[n % 3], &cluster.nodes[(n + 1) % 3]);
        writer.slot(slot).commit(put("a", Expect::Any, n.to_string())).await?;
        reader.slot(slot).commit(Command::new()).await?;
        same("value", reader.slot(slot).get(b"a").map(|head| head.value), Some(n.to_string().into()))?;
    }
    cluster.stop().await;
    Ok(())
}

/// One client that changes the key through any process, as long as it is told to.
async fn change(node: &Node, slot: u32, client: u64, recorder: &Recorder) -> u64 {
    let (handle, mut known) = (node.slot(slot), 0);
    for n in 0..60 {
        let head = handle.get(b"a");
        let from = head.as_ref().and_then(|head| number(&head.value));
        let to = client * 1_000 + n;
        let expect = head.map_or(Expect::Absent, |head| Expect::Revision(head.revision));
        let called = recorder.call();
        let changed = Step::Changed { from, to: Some(to) };
        match handle.commit(put("a", expect, to.to_string())).await {
            Ok(_) => {
                known += 1;
                recorder.returned(called, changed);
            }
            Err(CommitError::Conflict { .. }) => recorder.returned(called, Step::Refused(from)),
            Err(CommitError::Unknown { .. }) => recorder.unknown(called, changed),
            // It had no effect, and says nothing of the key.
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    known
}

/// Reads the key at whoever believes to own the slot.
async fn read(node: &Node, slot: u32, recorder: &Recorder) {
    for _ in 0..800 {
        if let Some(journal) = node.journal(slot) {
            let called = recorder.call();
            let read = tokio::time::timeout(Duration::from_millis(100), journal.read(b"a")).await;
            if let Ok(Ok(head)) = read {
                recorder.returned(called, Step::Read(head.and_then(|head| number(&head.value))));
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

async fn leased(fixture: Arc<dyn Fixture>) -> Outcome {
    let cluster = Cluster::start(&fixture, 3).await?;
    let (slot, recorder) = (last(&cluster), Recorder::default());
    let faults = async {
        let mut stale = 0;
        for _ in 0..2 {
            let owner = replaced(&cluster, Link::Stalled).await?;
            let journal = cluster.nodes[owner].journal(slot);
            // The control: what the stopped owner would answer without a lease is stale by now.
            let before = journal.as_ref().map(Journal::revision);
            cluster.watch(Duration::from_millis(500)).await?;
            let now = cluster.nodes[(owner + 1) % 3].slot(slot).revision();
            stale += u32::from(before.is_some_and(|before| before < now));
            back(&cluster, owner).await?;
        }
        Ok::<_, Failure>(stale)
    };
    let clients = cluster.nodes.iter().zip(1..).map(|(node, client)| change(node, slot, client, &recorder));
    let readers = cluster.nodes.iter().map(|node| read(node, slot, &recorder));
    let (stale, changed, _) = tokio::join!(faults, join_all(clients), join_all(readers));
    holds("a stopped owner's state was stale", stale? > 0, ())?;
    let history = recorder.history();
    let reads = history.iter().filter(|operation| matches!(operation.step, Step::Read(_))).count();
    holds("much was read and changed", reads > 100 && changed.iter().sum::<u64>() > 20, (reads, &changed))?;
    holds("the history is linearizable", linearizable(None, &history), history.len())?;
    cluster.stop().await;
    Ok(())
}
