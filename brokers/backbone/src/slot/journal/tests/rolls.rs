use futures_util::future::join_all;
use parking_lot::Mutex;

use super::*;

fn small() -> Options {
    Options { roll_bytes: 2_000, frame_bytes_max: 600, ..Options::default() }
}

/// Commits until the slot has rolled twice or its owner has died; gives what was acknowledged.
async fn load(journal: &Journal, broker: &MemoryBroker, acknowledged: &mut Vec<u128>) -> bool {
    for round in 0..200_u128 {
        let base = acknowledged.len() as u128 + round * 1_000_000;
        let commits = (0..8_u128).map(|index| {
            let id = base + index;
            let command = put(&format!("key {}", id % 20), Expect::Any, &format!("value {id}"));
            async move { (id, journal.commit(command.put(format!("id {id}"), Expect::Absent, "x")).await) }
        });
        for (id, result) in join_all(commits).await {
            match result {
                Ok(_) => acknowledged.push(id),
                Err(CommitError::Unknown { .. } | CommitError::Unavailable { .. } | CommitError::Closed) => {
                    return false;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if broker.ids().iter().all(|id| *id != FIRST) {
            return true;
        }
    }
    panic!("the journal never rolled");
}

#[tokio::test(start_paused = true)]
async fn a_roll_under_load_loses_nothing_and_leaves_one_generation() {
    let broker = MemoryBroker::default();
    let journal = open_with(&broker.client(), 1, small()).await.unwrap();
    let mut acknowledged = Vec::new();
    assert!(load(&journal, &broker, &mut acknowledged).await);
    let missing = acknowledged.iter().filter(|id| journal.get(format!("id {id}").as_bytes()).is_none()).count();
    assert_eq!((missing, acknowledged.len() > 8), (0, true));
    assert_eq!(journal.revision(), acknowledged.len() as u64);
    same_as_replayed(&broker, &journal).await;
    journal.close().await;
    let again = open_with(&broker.client(), 2, small()).await.unwrap();
    assert_eq!(again.revision(), acknowledged.len() as u64);
    let generations = broker.ids();
    assert_eq!(generations.len(), 1, "{generations:?}");
}

#[tokio::test(start_paused = true)]
async fn command_ids_survive_a_roll() {
    let broker = MemoryBroker::default();
    let journal = open_with(&broker.client(), 1, small()).await.unwrap();
    let command = put("first", Expect::Absent, "1").id(CommandId(77));
    let first = journal.commit(command.clone()).await.unwrap();
    assert!(load(&journal, &broker, &mut Vec::new()).await);
    let again = journal.commit(command.clone()).await.unwrap();
    assert_eq!(again, Committed { revision: first.revision, repeated: true });
    journal.close().await;
    let journal = open_with(&broker.client(), 2, small()).await.unwrap();
    assert_eq!(journal.commit(command).await.unwrap(), again);
}

/// Kills the owner before or after its n-th append, for every n until it gets through a whole roll alive.
#[tokio::test(start_paused = true)]
async fn an_owner_that_dies_at_any_step_of_a_roll_is_finished_or_undone() {
    let mut deaths: std::collections::BTreeMap<&'static str, u32> = std::collections::BTreeMap::new();
    for step in 0.. {
        let mut survived = 0;
        for fault in [Fault::KilledBefore, Fault::KilledAfter] {
            let broker = MemoryBroker::default();
            let (count, died) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new("none")));
            let (counted, at) = (Arc::clone(&count), Arc::clone(&died));
            let client = broker.faulty(move |_, record| {
                let mut count = counted.lock();
                *count += 1;
                if *count != step + 1 {
                    return Fault::None;
                }
                *at.lock() = match kind_of(record) {
                    Kind::Announce { .. } => "announce",
                    Kind::Commit { .. } => "commit",
                    Kind::Snapshot(_) => "snapshot",
                    Kind::Seal { .. } => "seal",
                    Kind::Opened { .. } => "opened",
                    Kind::Heartbeat | Kind::Release => "other",
                };
                fault
            });
            let mut acknowledged = Vec::new();
            if let Ok(journal) = open_with(&client, 1, small()).await
                && load(&journal, &broker, &mut acknowledged).await
            {
                survived += 1;
            }
            *deaths.entry(*died.lock()).or_default() += 1;
            let journal = open_with(&broker.client(), 2, Options { roll_bytes: 1 << 30, ..small() }).await.unwrap();
            for id in &acknowledged {
                assert!(journal.get(format!("id {id}").as_bytes()).is_some(), "{id} is missing, step {step} {fault:?}");
            }
            let executed = journal.scan(b"id ").len() as u64;
            assert_eq!(journal.revision(), executed, "step {step} {fault:?}");
            assert!(executed >= acknowledged.len() as u64);
            journal.commit(put("after", Expect::Absent, "x")).await.unwrap();
            let generations = broker.ids();
            assert_eq!(generations.len(), 1, "step {step} {fault:?}: {generations:?}");
            same_as_replayed(&broker, &journal).await;
        }
        if survived == 2 {
            break;
        }
    }
    for kind in ["announce", "commit", "snapshot", "seal", "opened"] {
        assert!(deaths.get(kind).copied().unwrap_or(0) >= 2, "no death at {kind}: {deaths:?}");
    }
}

/// A Seal in the owner's name that it did not write, for a generation that is not there.
#[tokio::test(start_paused = true)]
async fn a_seal_for_a_generation_that_is_gone_is_loss() {
    let broker = MemoryBroker::default();
    let next = Generation { epoch: 1, suffix: 5 };
    let journal = open(&broker.client(), 1).await;
    journal.commit(put("a", Expect::Any, "1")).await.unwrap();
    let written = frames(&broker.records(&FIRST));
    let last = broker.records(&FIRST).last().cloned().unwrap();
    let seal = Frame {
        sequence: written.last().unwrap().sequence + 1,
        previous_hash: crate::slot::frame::hash(frame_bytes(&last).unwrap()),
        kind: Kind::Seal { next },
        ..written.last().unwrap().clone()
    };
    broker.insert(&FIRST, Record::Frame(seal.encode()));
    // The generation that it names does not exist, which nobody may take for an empty slot.
    let error = open_with(&broker.client(), 2, Options::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::DataLoss, "{error}");
    // Its own frame now stands behind the Seal, and is not acknowledged.
    let late = journal.commit(put("a", Expect::Any, "late")).await;
    assert!(matches!(late, Err(CommitError::Unknown { .. })), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_orphan_generation_is_deleted_and_a_later_owners_is_not() {
    let broker = MemoryBroker::default();
    let client = broker.client();
    let journal = open(&client, 1).await;
    journal.commit(put("a", Expect::Any, "1")).await.unwrap();
    let orphan = Generation { epoch: 1, suffix: 5 }.log(0);
    let later = Generation { epoch: 9, suffix: 6 }.log(0);
    for id in [&orphan, &later] {
        client.create(crate::LogSpec::from(id.clone())).await.unwrap();
    }
    let next = open(&broker.client(), 2).await;
    assert_eq!(next.get(b"a").unwrap().value, "1");
    assert_eq!(broker.ids(), [FIRST, later]);
}
