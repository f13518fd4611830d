use std::time::Duration;

use futures_util::future::join_all;

use super::*;

#[tokio::test(start_paused = true)]
async fn expectations_are_judged_and_revisions_count_commits() {
    let broker = MemoryBroker::default();
    let journal = open(&broker.client(), 1).await;
    let check = async |command: Command, expected: std::result::Result<u64, Option<u64>>| {
        let result = journal.commit(command.clone()).await;
        match (&result, expected) {
            (Ok(committed), Ok(revision)) => assert_eq!(committed.revision, revision, "{command:?}"),
            (Err(CommitError::Conflict { current, .. }), Err(expected)) => {
                assert_eq!(*current, expected, "{command:?}")
            }
            _ => panic!("{command:?} gave {result:?}, expected {expected:?}"),
        }
    };
    check(put("a", Expect::Revision(1), "x"), Err(None)).await;
    check(put("a", Expect::Absent, "1"), Ok(1)).await;
    check(put("a", Expect::Absent, "x"), Err(Some(1))).await;
    check(put("a", Expect::Revision(1), "2"), Ok(2)).await;
    check(put("a", Expect::Revision(1), "x"), Err(Some(2))).await;
    check(put("b", Expect::Any, "3").put("a", Expect::Revision(2), "3"), Ok(3)).await;
    // One expectation that is not met keeps every step from happening.
    check(put("c", Expect::Any, "x").delete("a", Expect::Revision(2)), Err(Some(3))).await;
    assert_eq!(journal.get(b"c"), None);
    check(Command::new().delete("a", Expect::Revision(3)), Ok(4)).await;
    check(Command::new().delete("a", Expect::Any), Ok(5)).await;
    check(Command::new().delete("a", Expect::Revision(4)), Err(None)).await;
    check(put("a", Expect::Absent, "6"), Ok(6)).await;
    check(Command::new(), Ok(7)).await;
    assert_eq!(journal.scan(b""), [("a".into(), 6, "6".into()), ("b".into(), 3, "3".into())]);
    assert_eq!(journal.scan(b"b"), [("b".into(), 3, Bytes::from("3"))]);
    assert_eq!(journal.revision(), 7);
    same_as_replayed(&broker, &journal).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_id_is_executed_once_by_all_owners() {
    let broker = MemoryBroker::default();
    let journal = open(&broker.client(), 1).await;
    let command = put("a", Expect::Absent, "1").id(CommandId(9));
    let (first, second) = tokio::join!(journal.commit(command.clone()), journal.commit(command.clone()));
    assert_eq!(first, Ok(Committed { revision: 1, repeated: false }));
    assert_eq!(second, Ok(Committed { revision: 1, repeated: true }), "while the first is in flight");
    let other = put("a", Expect::Absent, "2").id(CommandId(9));
    let reused = Err(CommitError::CommandReused { id: CommandId(9), revision: 1 });
    assert_eq!(journal.commit(other.clone()).await, reused);
    journal.close().await;
    let journal = open(&broker.client(), 2).await;
    assert_eq!(journal.epoch(), 2);
    assert_eq!(journal.commit(command).await, Ok(Committed { revision: 1, repeated: true }));
    assert_eq!(journal.commit(other).await, reused);
    assert_eq!(journal.revision(), 1);
}

#[tokio::test(start_paused = true)]
async fn commits_that_wait_share_frames_and_keep_their_order() {
    let broker = MemoryBroker::default();
    let journal = open(&broker.client(), 1).await;
    let commits = (0..1000).map(|index| journal.commit(put("a", Expect::Any, &index.to_string())));
    let revisions: Vec<u64> = join_all(commits).await.into_iter().map(|result| result.unwrap().revision).collect();
    assert_eq!(revisions, (1..=1000).collect::<Vec<_>>());
    assert_eq!(journal.get(b"a").unwrap().value, "999");
    let frames = broker.records(&FIRST).len();
    assert!(frames < 50, "{frames} frames for 1000 commits that were there at once");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_rests_on_a_frame_in_flight_waits_for_it() {
    for killed in [false, true] {
        let broker = MemoryBroker::default();
        let client = broker.faulty(move |_, record| match kind_of(record) {
            Kind::Commit { .. } if killed => Fault::KilledBefore,
            _ => Fault::None,
        });
        let journal = open(&client, 1).await;
        let (first, second) =
            tokio::join!(journal.commit(put("a", Expect::Absent, "1")), journal.commit(put("a", Expect::Absent, "2")));
        if killed {
            assert!(matches!(first, Err(CommitError::Unknown { .. })), "{first:?}");
            assert!(matches!(second, Err(CommitError::Unavailable { .. })), "{second:?}");
            assert!(matches!(journal.ended().await, CommitError::Unavailable { .. }));
        } else {
            assert_eq!(first.unwrap().revision, 1);
            assert!(matches!(second, Err(CommitError::Conflict { current: Some(1), .. })), "{second:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bounds_are_kept() {
    let broker = MemoryBroker::default();
    let options = Options { queue_commits: 10, frame_bytes_max: 4096, frames_in_flight_max: 2, ..Options::default() };
    let journal = open_with(&broker.client(), 1, options).await.unwrap();
    let large = journal.commit(put("a", Expect::Any, &"x".repeat(5000))).await;
    assert!(matches!(large, Err(CommitError::TooLarge { limit_bytes: 4024, .. })), "{large:?}");
    let twice = journal.commit(put("a", Expect::Any, "1").delete("a", Expect::Any)).await;
    assert_eq!(twice, Err(CommitError::RepeatedKey { key: "a".into() }));
    let results = join_all((0..50).map(|_| journal.commit(put("a", Expect::Any, &"x".repeat(1500))))).await;
    let full =
        |result: &std::result::Result<Committed, CommitError>| matches!(result, Err(CommitError::Backpressure { .. }));
    assert_eq!(results.iter().filter(|result| full(result)).count(), 40);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    let stored = broker.records(&FIRST);
    assert!(stored.iter().all(|stored| frame_bytes(stored).unwrap().len() <= 4096));
    journal.close().await;
    assert_eq!(journal.commit(Command::new()).await, Err(CommitError::Closed));
    assert!(matches!(frames(&broker.records(&FIRST)).last().unwrap().kind, Kind::Release));
}

#[tokio::test(start_paused = true)]
async fn watches_see_every_change_or_are_told_to_rescan() {
    let broker = MemoryBroker::default();
    let journal = open(&broker.client(), 1).await;
    let mut watch = journal.watch("a/");
    let mut lagging = journal.watch("a/");
    journal.commit(put("a/1", Expect::Any, "x").put("b", Expect::Any, "y")).await.unwrap();
    journal.commit(Command::new().delete("a/1", Expect::Any)).await.unwrap();
    let changed = |revision, value: Option<&'static str>| {
        Some(Watched::Changed { key: "a/1".into(), revision, value: value.map(Bytes::from) })
    };
    assert_eq!(watch.next().await, changed(1, Some("x")));
    assert_eq!(watch.next().await, changed(2, None));
    assert!(tokio::time::timeout(Duration::from_secs(1), watch.next()).await.is_err(), "nothing else changed");
    for _ in 0..limits::JOURNAL_WATCH_CHANGES {
        journal.commit(put("a/1", Expect::Any, "z")).await.unwrap();
    }
    assert_eq!(lagging.next().await, Some(Watched::Rescan));
    let mut last = 0;
    journal.close().await;
    while let Some(Watched::Changed { revision, .. }) = lagging.next().await {
        last = revision;
    }
    assert_eq!(last, journal.revision(), "what follows the rescan is complete");
}

#[tokio::test(start_paused = true)]
async fn an_owner_ends_with_its_handles_or_with_its_environment() {
    let broker = MemoryBroker::default();
    let environment = environment(1);
    let log = broker.client();
    let journal = Journal::open(log, 0, environment.clone(), Options::default()).await.unwrap();
    journal.commit(put("a", Expect::Any, "1")).await.unwrap();
    drop(journal);
    assert!(environment.stop(Duration::from_secs(10)).await, "the owner's task ended");
    let stopped = Journal::open(broker.client(), 0, environment.child(), Options::default()).await.unwrap();
    assert_eq!(stopped.ended().await, CommitError::Closed, "an environment that stops closes the journal");
}
