//! The journal of a slot, over the adapter under test.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_backbone::slot::{Command, CommandId, CommitError, Committed, Expect, Journal, Options, Watched};
use tidegate_backbone::{Environment, LogId, PartitionLog};

use super::table;
use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::linearizable::{Recorder, Step, linearizable as can_have_happened};
use crate::process::environment;
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "JRN-01" "a key is created once: the second attempt is told the first one's revision" [] absent;
        "JRN-02" "a change that expects a revision is refused at any other" [] revision;
        "JRN-03" "a change without expectation always happens" [] any;
        "JRN-04" "revisions of a slot begin at 1 and grow by one with each commit" [] counted;
        "JRN-05" "a commit of several keys happens as a whole or not at all" [] atomic;
        "JRN-07" "a command sent twice under one id happens once, over restarts too" [Reopen] repeated;
        "JRN-08" "an id that was used for another command is refused" [] reused;
        "JRN-09" "conditional changes by eight clients at once are linearizable" [] linearizable;
        "JRN-10" "commits of one client keep their order without waiting" [] pipelined;
        "JRN-11" "replaying the log gives the live state" [Reopen] replayed;
        "JRN-12" "replaying from a snapshot gives the live state" [Reopen] from_snapshot;
        "JRN-13" "a watch gives every revision of its keys in order" [] watched;
        "JRN-14" "a deleted key is gone, and created again goes on with the slot's revisions" [] deleted;
        "JRN-16" "a command whose answer was lost in a crash is answered when it is sent again" [Crash] answer_lost;
        "JRN-17" "an owner that was superseded gets nothing accepted, and is told so" [] superseded;
        "JRN-19" "no acknowledged commit is missing after a crash amid commits" [Crash] crash;
        "JRN-24" "of candidates that open a slot at once, exactly one owns it in the end" [] candidates;
        "JRN-27" "rolling under load loses and repeats nothing, and the old generation goes" [] rolled;
        "JRN-32" "a command beyond a frame is refused without effect" [] too_large;
        "JRN-33" "100,000 keys are replayed" [Reopen] many;
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

    async fn journal(&self, options: Options) -> Result<Journal, Failure> {
        Ok(Journal::open(Arc::clone(&self.log), 0, self.environment.clone(), options).await?)
    }
}

async fn journal(fixture: &Arc<dyn Fixture>) -> Result<Journal, Failure> {
    Bench::open(fixture).await?.journal(Options::default()).await
}

fn put(key: &str, expect: Expect, value: impl Into<Bytes>) -> Command {
    Command::new().put(Bytes::from(key.to_owned()), expect, value)
}

async fn check(journal: &Journal, command: Command, expected: Result<u64, Option<u64>>) -> Outcome {
    let seen = journal.commit(command.clone()).await;
    let fits = match (&seen, expected) {
        (Ok(committed), Ok(revision)) => committed.revision == revision,
        (Err(CommitError::Conflict { current, .. }), Err(revision)) => *current == revision,
        _ => false,
    };
    if fits { Ok(()) } else { Err(Failure::new(format!("{command:?}: expected {expected:?}, seen {seen:?}"))) }
}

async fn absent(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    check(&journal, put("a", Expect::Absent, "1"), Ok(1)).await?;
    check(&journal, put("a", Expect::Absent, "2"), Err(Some(1))).await
}

async fn revision(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    check(&journal, put("a", Expect::Revision(1), "0"), Err(None)).await?;
    check(&journal, put("a", Expect::Any, "1"), Ok(1)).await?;
    check(&journal, put("a", Expect::Revision(1), "2"), Ok(2)).await?;
    check(&journal, put("a", Expect::Revision(1), "3"), Err(Some(2))).await?;
    check(&journal, put("a", Expect::Revision(3), "3"), Err(Some(2))).await
}

async fn any(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    for n in 1..=5 {
        check(&journal, put("a", Expect::Any, "x"), Ok(n)).await?;
    }
    check(&journal, Command::new().delete("missing", Expect::Any), Ok(6)).await
}

async fn counted(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    same("revision at first", journal.revision(), 0)?;
    for n in 1..=20_u64 {
        check(&journal, put(&format!("k{}", n % 3), Expect::Any, "x"), Ok(n)).await?;
        same("revision", journal.revision(), n)?;
    }
    Ok(())
}

async fn atomic(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    check(&journal, put("a", Expect::Absent, "0").put("b", Expect::Absent, "0"), Ok(1)).await?;
    let writer = {
        let journal = journal.clone();
        async move {
            for n in 1..=300 {
                journal.commit(put("a", Expect::Any, n.to_string()).put("b", Expect::Any, n.to_string())).await?;
                tokio::task::yield_now().await;
            }
            Ok::<_, CommitError>(())
        }
    };
    let reader = async {
        for _ in 0..2_000 {
            let values: Vec<Bytes> = journal.scan(b"").into_iter().map(|(_, _, value)| value).collect();
            same("both keys", values[0].clone(), values[1].clone())?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let (written, read) = tokio::join!(writer, reader);
    written?;
    read?;
    // One expectation that is not met keeps all of it from happening.
    let before = journal.scan(b"");
    check(&journal, put("c", Expect::Any, "x").put("a", Expect::Absent, "x"), Err(Some(301))).await?;
    same("afterwards", journal.scan(b""), before)
}

async fn repeated(fixture: Arc<dyn Fixture>) -> Outcome {
    let command = put("a", Expect::Absent, "1").id(CommandId(7));
    for round in 0..3 {
        let bench = Bench::open(&fixture).await?;
        let journal = bench.journal(Options::default()).await?;
        let (one, two) = tokio::join!(journal.commit(command.clone()), journal.commit(command.clone()));
        same("first", one?, Committed { revision: 1, repeated: round > 0 })?;
        same("second", two?, Committed { revision: 1, repeated: true })?;
        same("revision", journal.revision(), 1)?;
        journal.close().await;
        bench.log.close().await;
    }
    Ok(())
}

async fn reused(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    journal.commit(put("a", Expect::Any, "1").id(CommandId(7))).await?;
    let seen = journal.commit(put("a", Expect::Any, "2").id(CommandId(7))).await;
    same("another command", seen, Err(CommitError::CommandReused { id: CommandId(7), revision: 1 }))?;
    same("value", journal.get(b"a").map(|head| head.value), Some("1".into()))
}

async fn linearizable(fixture: Arc<dyn Fixture>) -> Outcome {
    const CLIENTS: u64 = 8;
    const CHANGES: u64 = 40;
    let journal = journal(&fixture).await?;
    journal.commit(put("count", Expect::Absent, "0")).await?;
    let recorder = Recorder::default();
    let clients = (0..CLIENTS).map(|_| {
        let (journal, recorder) = (journal.clone(), recorder.clone());
        async move {
            let mut revisions = Vec::new();
            while (revisions.len() as u64) < CHANGES {
                let head = journal.get(b"count").ok_or_else(|| Failure::new("expected the key, seen none"))?;
                let from = std::str::from_utf8(&head.value)?.parse::<u64>()?;
                let (next, called) = (from + 1, recorder.call());
                match journal.commit(put("count", Expect::Revision(head.revision), next.to_string())).await {
                    Ok(committed) => {
                        recorder.returned(called, Step::Changed { from: Some(from), to: Some(next) });
                        revisions.push((committed.revision, next));
                    }
                    Err(CommitError::Conflict { current, .. }) => {
                        recorder.returned(called, Step::Refused(Some(from)));
                        holds(
                            "a conflict names a later revision",
                            current > Some(head.revision),
                            (current, head.revision),
                        )?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok::<_, Failure>(revisions)
        }
    });
    let mut all = Vec::new();
    for revisions in futures_util::future::join_all(clients).await {
        all.extend(revisions?);
    }
    holds("the history is linearizable", can_have_happened(Some(0), &recorder.history()), ())?;
    all.sort_unstable();
    // Each success saw the one before it: the values count in the order of revisions.
    same(
        "values in the order of revisions",
        all.iter().map(|(_, value)| *value).collect(),
        (1..=CLIENTS * CHANGES).collect::<Vec<_>>(),
    )
}

async fn pipelined(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    for some in 0..4_u64 {
        let commits = (0..500_u64).map(|n| journal.commit(put("a", Expect::Any, (some * 500 + n).to_string())));
        let revisions = futures_util::future::try_join_all(commits).await?;
        let revisions: Vec<u64> = revisions.iter().map(|committed| committed.revision).collect();
        same("revisions", revisions, (some * 500 + 1..=some * 500 + 500).collect())?;
    }
    same("the last value", journal.get(b"a").map(|head| head.value), Some("1999".into()))
}

async fn changed(journal: &Journal, rounds: u64) -> Outcome {
    for n in 0..rounds {
        let key = format!("k{}", n * 7 % 23);
        let command = if n % 5 == 4 {
            Command::new().delete(Bytes::from(key), Expect::Any)
        } else {
            put(&key, Expect::Any, "x".repeat((n % 300) as usize)).put("last", Expect::Any, n.to_string())
        };
        journal.commit(command).await?;
    }
    Ok(())
}

async fn replayed_with(fixture: &Arc<dyn Fixture>, options: Options) -> Outcome {
    let bench = Bench::open(fixture).await?;
    let journal = bench.journal(options.clone()).await?;
    changed(&journal, 400).await?;
    let live = (journal.revision(), journal.scan(b""));
    journal.close().await;
    bench.log.close().await;
    let bench = Bench::open(fixture).await?;
    let journal = bench.journal(options).await?;
    same("state after replay", (journal.revision(), journal.scan(b"")), live)
}

async fn replayed(fixture: Arc<dyn Fixture>) -> Outcome {
    replayed_with(&fixture, Options::default()).await
}

async fn from_snapshot(fixture: Arc<dyn Fixture>) -> Outcome {
    replayed_with(&fixture, Options { roll_bytes: 4 * 1024, ..Options::default() }).await
}

async fn watched(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    let mut watch = journal.watch("k");
    changed(&journal, 200).await?;
    let mut state: BTreeMap<Bytes, (u64, Bytes)> = BTreeMap::new();
    let mut before = 0;
    journal.commit(put("k-end", Expect::Any, "")).await?;
    loop {
        match watch.next().await {
            Some(Watched::Changed { key, revision, value }) => {
                holds("revisions grow", revision > before, (before, revision))?;
                before = revision;
                let ended = key == "k-end";
                match value {
                    Some(value) => drop(state.insert(key, (revision, value))),
                    None => drop(state.remove(&key)),
                }
                if ended {
                    break;
                }
            }
            other => return Err(Failure::new(format!("expected a change, seen {other:?}"))),
        }
    }
    let seen: Vec<_> = state.into_iter().map(|(key, (revision, value))| (key, revision, value)).collect();
    same("what the changes add up to", seen, journal.scan(b"k"))
}

async fn deleted(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    check(&journal, put("a", Expect::Absent, "1"), Ok(1)).await?;
    check(&journal, Command::new().delete("a", Expect::Revision(1)), Ok(2)).await?;
    same("afterwards", journal.get(b"a"), None)?;
    check(&journal, put("a", Expect::Revision(1), "x"), Err(None)).await?;
    check(&journal, put("a", Expect::Absent, "3"), Ok(3)).await
}

async fn answer_lost(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut applied = 0;
    for round in 0..6_u128 {
        let bench = Bench::open(&fixture).await?;
        let journal = bench.journal(Options::default()).await?;
        let command = put(&format!("k{round}"), Expect::Absent, "1").id(CommandId(round));
        let sent = {
            let (journal, command) = (journal.clone(), command.clone());
            bench.environment.spawn(async move { journal.commit(command).await })
        };
        // Dies at another point of the way each time.
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        fixture.crash().await;
        bench.environment.stop(std::time::Duration::from_secs(60)).await;
        let answer = sent.await?;
        let bench = Bench::open(&fixture).await?;
        let journal = bench.journal(Options::default()).await?;
        let again = journal.commit(command).await?;
        if let Ok(first) = answer {
            same("the answer", again, Committed { repeated: true, ..first })?;
        }
        applied += u32::from(again.repeated);
        same("value", journal.get(format!("k{round}").as_bytes()).map(|head| head.revision), Some(again.revision))?;
        same("revision", journal.revision(), round as u64 + 1)?;
        journal.close().await;
        bench.log.close().await;
    }
    // How often the first one counted depends on the moment; that it never counted twice is what was shown.
    holds("each counted once", applied <= 6, applied)
}

async fn superseded(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    let first = bench.journal(Options::default()).await?;
    first.commit(put("a", Expect::Absent, "1")).await?;
    let second = bench.journal(Options::default()).await?;
    holds("the epoch grows", second.epoch() > first.epoch(), (first.epoch(), second.epoch()))?;
    second.commit(put("a", Expect::Revision(1), "2")).await?;
    let zombie = first.commit(put("a", Expect::Any, "zombie")).await;
    same("what the first is told", zombie, Err(CommitError::Fenced { epoch: second.epoch() }))?;
    same("why it ended", first.ended().await, CommitError::Fenced { epoch: second.epoch() })?;
    same("value", second.get(b"a").map(|head| head.value), Some("2".into()))?;
    let third = bench.journal(Options::default()).await?;
    same("value by replay", third.get(b"a").map(|head| head.value), Some("2".into()))
}

async fn crash(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..5 {
        let bench = Bench::open(&fixture).await?;
        let journal = bench.journal(Options { roll_bytes: 16 * 1024, ..Options::default() }).await?;
        for (key, revision) in &acknowledged {
            same(key, journal.get(key.as_bytes()).map(|head| head.revision), Some(*revision))?;
        }
        let commits: Vec<_> = (0..200)
            .map(|n| {
                let (journal, key) = (journal.clone(), format!("{round}-{n}"));
                bench.environment.spawn(async move {
                    let committed = journal.commit(put(&key, Expect::Absent, "x".repeat(100))).await;
                    (key, committed)
                })
            })
            .collect();
        let mut commits = commits.into_iter();
        for commit in commits.by_ref().take(20 + round * 30) {
            let (key, committed) = commit.await?;
            acknowledged.insert(key, committed?.revision);
        }
        fixture.crash().await;
        bench.environment.stop(std::time::Duration::from_secs(60)).await;
        for commit in commits {
            if let (key, Ok(committed)) = commit.await? {
                acknowledged.insert(key, committed.revision);
            }
        }
    }
    let bench = Bench::open(&fixture).await?;
    let journal = bench.journal(Options::default()).await?;
    for (key, revision) in &acknowledged {
        same(key, journal.get(key.as_bytes()).map(|head| head.revision), Some(*revision))?;
    }
    Ok(())
}

async fn candidates(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    bench.journal(Options::default()).await?.close().await;
    for round in 0..10_u64 {
        let open = || bench.journal(Options::default());
        let (one, two, three) = tokio::join!(open(), open(), open());
        let owners: Vec<Journal> = [one, two, three].into_iter().flatten().collect();
        let mut accepted = Vec::new();
        for (number, owner) in owners.iter().enumerate() {
            // Each on its own: only the one that was not superseded gets it accepted.
            if owner.commit(put(&format!("r{round}"), Expect::Any, number.to_string())).await.is_ok() {
                accepted.push(owner.epoch());
            }
        }
        same("owners in the end", accepted.len(), 1)?;
        same("the newest of them", Some(accepted[0]), owners.iter().map(Journal::epoch).max())?;
        for owner in owners {
            owner.close().await;
        }
    }
    let journal = bench.journal(Options::default()).await?;
    same("commits", journal.scan(b"r").len(), 10)
}

async fn rolled(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    let options = Options { roll_bytes: 8 * 1024, ..Options::default() };
    let journal = bench.journal(options.clone()).await?;
    let writers = (0..4_u64).map(|writer| {
        let journal = journal.clone();
        async move {
            for n in 0..200_u64 {
                let key = format!("w{writer}-{}", n % 10);
                journal.commit(put(&key, Expect::Any, format!("{n}-{}", "x".repeat(200)))).await?;
            }
            Ok::<_, CommitError>(())
        }
    });
    futures_util::future::try_join_all(writers).await?;
    same("revision", journal.revision(), 800)?;
    same("keys", journal.scan(b"w").len(), 40)?;
    let live = journal.scan(b"");
    journal.close().await;
    let journal = bench.journal(options).await?;
    same("state after replay", (journal.revision(), journal.scan(b"")), (800, live))?;
    // Where the log is shared they stay for a while, for those who follow the slot.
    for _ in 0..600 {
        if generations(&bench).await?.len() <= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let generations = generations(&bench).await?;
    holds("it rolled", !generations.contains(&0), &generations)?;
    holds("old generations are gone", generations.len() <= 2, &generations)
}

async fn generations(bench: &Bench) -> Result<Vec<u64>, Failure> {
    let logs = bench.log.list().await?;
    let generation = |id: &LogId| match id {
        LogId::Slot { slot: 0, epoch, suffix } => Some(epoch ^ suffix),
        _ => None,
    };
    Ok(logs.iter().filter_map(|info| generation(&info.id)).collect())
}

async fn too_large(fixture: Arc<dyn Fixture>) -> Outcome {
    let journal = journal(&fixture).await?;
    let seen = journal.commit(put("a", Expect::Any, vec![0; 2 * 1024 * 1024])).await;
    holds("it is too large", matches!(seen, Err(CommitError::TooLarge { .. })), &seen)?;
    check(&journal, put("a", Expect::Absent, vec![0; 256 * 1024]), Ok(1)).await
}

async fn many(fixture: Arc<dyn Fixture>) -> Outcome {
    let bench = Bench::open(&fixture).await?;
    let journal = bench.journal(Options::default()).await?;
    for some in 0..100_u64 {
        let command = (0..1_000_u64).fold(Command::new(), |command, n| {
            command.put(Bytes::from(format!("{:06}", some * 1_000 + n)), Expect::Absent, n.to_le_bytes().to_vec())
        });
        journal.commit(command).await?;
    }
    journal.close().await;
    bench.log.close().await;
    let bench = Bench::open(&fixture).await?;
    let journal = bench.journal(Options::default()).await?;
    same("keys", journal.scan(b"").len(), 100_000)?;
    same("revision", journal.revision(), 100)
}
