use std::collections::BTreeMap;

use futures_util::future::join_all;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Untold),
        1 => Just(Fault::Refused),
        1 => Just(Fault::Lost),
        1 => Just(Fault::Unknown),
        1 => Just(Fault::Twice),
        1 => Just(Fault::TwiceLate),
        1 => Just(Fault::Late),
    ]
}

fn deadly() -> impl Strategy<Value = Fault> {
    prop_oneof![12 => fault(), 1 => Just(Fault::KilledBefore), 1 => Just(Fault::KilledAfter)]
}

/// Faults one after the other, then none. Clients take from the same list.
fn script(faults: Vec<Fault>) -> Arc<Mutex<std::vec::IntoIter<Fault>>> {
    Arc::new(Mutex::new(faults.into_iter()))
}

/// What commands with that many keys make, where each puts its own number.
async fn converge(faults: Vec<Fault>, commands: Vec<(u8, bool)>, at_once: usize, roll_bytes: u64) -> (u64, usize) {
    let broker = MemoryBroker::default();
    let script = script(faults);
    let client = |seed: &mut u64| {
        *seed += 1;
        let script = Arc::clone(&script);
        broker.faulty(move |_, _| script.lock().next().unwrap_or(Fault::None))
    };
    let options = Options { roll_bytes, frame_bytes_max: 400, ..Options::default() };
    let mut seed = 0;
    let mut owned = None;
    let mut acknowledged: BTreeMap<u64, usize> = BTreeMap::new();
    let mut crashes = 0;
    for (chunk, group) in commands.chunks(at_once).enumerate() {
        let mut missing: Vec<usize> = (0..group.len()).collect();
        for attempt in 0.. {
            assert!(attempt < 100, "the script of faults is finite, so that commits succeed in the end");
            let journal = match owned.take() {
                Some(journal) => journal,
                None => match open_with(&client(&mut seed), seed, options.clone()).await {
                    Ok(journal) => journal,
                    Err(error) => {
                        let temporary = !matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::Misconfigured);
                        assert!(temporary, "{error}");
                        continue;
                    }
                },
            };
            let commits = missing.iter().map(|index| {
                let (key, present) = group[*index];
                let number = chunk * at_once + index;
                let command = if present {
                    put(&format!("key {key}"), Expect::Any, &number.to_string())
                } else {
                    Command::new().delete(format!("key {key}"), Expect::Any)
                };
                journal.commit(command.id(CommandId(number as u128)))
            });
            let results = join_all(commits).await;
            let mut left = Vec::new();
            for (index, result) in missing.into_iter().zip(results) {
                match result {
                    Ok(committed) => {
                        let number = chunk * at_once + index;
                        assert_eq!(
                            acknowledged.insert(committed.revision, number),
                            None,
                            "one revision for each command"
                        );
                    }
                    Err(CommitError::Unknown { .. } | CommitError::Unavailable { .. } | CommitError::Closed) => {
                        left.push(index);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            missing = left;
            if journal.shared.ended.is_cancelled() {
                crashes += 1;
            } else {
                owned = Some(journal);
            }
            if missing.is_empty() {
                break;
            }
        }
    }
    let client = broker.client();
    drop(owned);
    let journal = open_with(&client, 999, options).await.unwrap();
    assert_eq!(acknowledged.len(), commands.len());
    assert_eq!(journal.revision(), commands.len() as u64, "every command took effect once");
    let mut model: BTreeMap<Bytes, (u64, Bytes)> = BTreeMap::new();
    for (revision, number) in &acknowledged {
        let (key, present) = commands[*number];
        let key = Bytes::from(format!("key {key}"));
        if present {
            model.insert(key, (*revision, number.to_string().into()));
        } else {
            model.remove(&key);
        }
    }
    let expected: Vec<_> = model.into_iter().map(|(key, (revision, value))| (key, revision, value)).collect();
    assert_eq!(journal.scan(b""), expected);
    same_as_replayed(&broker, &journal).await;
    let rolled = broker.ids() != [FIRST];
    journal.close().await;
    (u64::from(rolled), crashes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_is_the_model_whatever_becomes_of_appends(
        faults in prop::collection::vec(fault(), 0..60),
        commands in prop::collection::vec((0_u8..6, prop::bool::weighted(0.8)), 1..60),
        at_once in 1_usize..8,
        roll in any::<bool>(),
    ) {
        run(converge(faults, commands, at_once, if roll { 500 } else { 1 << 30 }));
    }

    #[test]
    fn owners_that_die_lose_nothing_and_repeat_nothing(
        faults in prop::collection::vec(deadly(), 0..80),
        commands in prop::collection::vec((0_u8..6, prop::bool::weighted(0.8)), 1..60),
        at_once in 1_usize..8,
        roll in any::<bool>(),
    ) {
        run(converge(faults, commands, at_once, if roll { 500 } else { 1 << 30 }));
    }
}

#[test]
fn the_generated_faults_do_reach_rolls_and_crashes() {
    let faults = vec![Fault::None, Fault::Lost, Fault::None, Fault::KilledAfter, Fault::Late, Fault::KilledBefore];
    let commands: Vec<(u8, bool)> = (0..60).map(|index| (index % 6, true)).collect();
    let (rolled, crashes) = run(converge(faults, commands, 4, 500));
    assert_eq!((rolled, crashes > 0), (1, true));
}

#[tokio::test(start_paused = true)]
async fn a_superseded_owner_writes_nothing_that_counts() {
    let broker = MemoryBroker::default();
    let zombie = open(&broker.client(), 1).await;
    zombie.commit(put("a", Expect::Any, "1")).await.unwrap();
    let owner = open(&broker.client(), 2).await;
    assert_eq!((zombie.epoch(), owner.epoch()), (1, 2));
    // The zombie's frame is stored before it learns, and is void for every reader.
    let late = zombie.commit(put("a", Expect::Any, "zombie")).await;
    assert_eq!(late, Err(CommitError::Fenced { epoch: 2 }));
    assert_eq!(zombie.ended().await, CommitError::Fenced { epoch: 2 });
    owner.commit(put("a", Expect::Revision(1), "2")).await.unwrap();
    let stored = broker.records(&FIRST);
    assert!(frames(&stored).iter().filter(|frame| frame.epoch == 1).count() > 2, "the void frame is there");
    assert_eq!(owner.get(b"a").unwrap().value, "2");
    same_as_replayed(&broker, &owner).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_accepted_before_the_takeover_is_a_success_also_when_its_owner_learns_late() {
    let broker = MemoryBroker::default();
    let other = broker.clone();
    let client = broker.faulty(|_, record| match kind_of(record) {
        Kind::Commit { .. } => Fault::Unknown,
        _ => Fault::None,
    });
    let zombie = open(&client, 1).await;
    let (first, owner) = tokio::join!(zombie.commit(put("a", Expect::Any, "1")), async {
        let client = other.client();
        open(&client, 2).await
    });
    let known = matches!(first, Ok(Committed { revision: 1, .. }));
    assert!(known || matches!(first, Err(CommitError::Fenced { epoch: 2 })), "{first:?}");
    assert_eq!(owner.get(b"a").is_some(), known, "what the owner was told is what the log says");
}

#[tokio::test(start_paused = true)]
async fn loss_and_damage_are_told() {
    type Harm = fn(&MemoryBroker);
    let check = async |what: &str, harm: Harm, expected: &str| {
        let broker = MemoryBroker::default();
        let journal = open(&broker.client(), 1).await;
        for index in 0..5 {
            journal.commit(put("a", Expect::Any, &index.to_string())).await.unwrap();
        }
        harm(&broker);
        let committed = journal.commit(put("a", Expect::Any, "more")).await;
        let reopened = open_with(&broker.client(), 2, Options { create: false, ..Options::default() }).await;
        match expected {
            // The owner finds out at its next commit, for what it relied on is not there.
            "owner" => {
                assert!(matches!(committed, Err(CommitError::Unknown { .. })), "{what}: {committed:?}");
                assert!(matches!(journal.ended().await, CommitError::DataLoss { .. }), "{what}");
            }
            "reader" => {
                let error = reopened.expect_err(what);
                assert_eq!(*error.kind(), ErrorKind::DataLoss, "{what}: {error}");
            }
            _ => assert!(committed.is_ok() && reopened.is_ok(), "{what}: {committed:?} {reopened:?}"),
        }
    };
    check("control", |_| (), "none").await;
    check("a tail that was relied on is gone", |broker| broker.lose(&FIRST, 2), "owner").await;
    let refilled = |broker: &MemoryBroker| {
        let kept = broker.records(&FIRST);
        broker.lose(&FIRST, 2);
        broker.insert(&FIRST, kept[0].record.clone());
        broker.insert(&FIRST, kept[0].record.clone());
    };
    check("a tail was lost and refilled to equal length", refilled, "reader").await;
    let broker = MemoryBroker::default();
    let journal = open(&broker.client(), 1).await;
    for index in 0..5 {
        journal.commit(put("a", Expect::Any, &index.to_string())).await.unwrap();
    }
    assert_eq!(journal.verify().await, Ok(()));
    refilled(&broker);
    let told = journal.verify().await;
    assert!(matches!(told, Err(CommitError::DataLoss { .. })), "the owner asks by itself: {told:?}");
    check("a record in the middle is gone", |broker| broker.damage(&FIRST, 2, None), "reader").await;
    check("the first record is gone", |broker| broker.damage(&FIRST, 0, None), "reader").await;
    let flipped = |broker: &MemoryBroker| {
        let mut bytes = frame_bytes(&broker.records(&FIRST)[2]).unwrap().to_vec();
        bytes[60] ^= 1;
        broker.damage(&FIRST, 2, Some(Record::Frame(bytes.into())));
    };
    check("a bit in the middle is flipped", flipped, "reader").await;
    let foreign = |broker: &MemoryBroker| {
        broker.insert(&FIRST, Record::Frame("not a frame".into()));
    };
    check("something else writes there", foreign, "owner").await;
    check("the log is gone", |broker| broker.remove(&FIRST), "reader").await;
    let skipped = |broker: &MemoryBroker| broker.skip_position(&FIRST);
    check("control: a position without a record", skipped, "none").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_knew_more_than_the_next_owner_finds_out() {
    let broker = MemoryBroker::default();
    let journal = open(&broker.client(), 1).await;
    for index in 0..5 {
        journal.commit(put("a", Expect::Any, &index.to_string())).await.unwrap();
    }
    let log: Arc<dyn PartitionLog> = broker.client();
    let mut follower = replay(&log, 0).await.unwrap().unwrap().current;
    // The broker loses what it acknowledged; the next owner cannot know, and fills the place.
    broker.lose(&FIRST, 2);
    let next = open(&broker.client(), 2).await;
    for index in 0..5 {
        next.commit(put("a", Expect::Any, &index.to_string())).await.unwrap();
    }
    let error = follower.read_to_end(log.as_ref()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::DataLoss, "{error}");
    let late = journal.commit(put("a", Expect::Any, "late")).await;
    assert!(matches!(late, Err(CommitError::Unknown { .. })), "{late:?}");
    assert!(matches!(journal.ended().await, CommitError::DataLoss { .. }), "not merely fenced: its commits are gone");
}
