//! Owners on a broker that several processes share.

use std::time::Duration;

use tokio::time::{advance, sleep, timeout};

use super::*;
use crate::environment::Clock;
use crate::testing::{Link, RuntimeClock, SeededRandom};

struct Shared {
    broker: MemoryBroker,
    clock: Arc<RuntimeClock>,
}

impl Shared {
    fn new() -> Self {
        Self { broker: MemoryBroker::shared(1), clock: Arc::default() }
    }

    async fn open(&self, client: &Arc<MemoryLog>, node: u64) -> Journal {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let environment = Environment::new(clock, Arc::new(SeededRandom::new(node)));
        let options = Options::shared(Identity::new(NodeId(node << 16)));
        Journal::open(Arc::clone(client) as Arc<dyn PartitionLog>, 0, environment, options).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_the_lease_of_an_idle_owner_and_of_none_that_was_superseded() {
    let shared = Shared::new();
    let owner = shared.open(&shared.broker.client(), 1).await;
    for _ in 0..200 {
        sleep(Duration::from_millis(50)).await;
        assert!(owner.holds());
    }
    let beats = frames(&shared.broker.records(&FIRST));
    let beats = beats.iter().filter(|frame| frame.kind == Kind::Heartbeat).count();
    assert!((18..=20).contains(&beats), "{beats} in ten seconds");
    // A busy owner needs none.
    for index in 0..50 {
        owner.commit(put("a", Expect::Any, &index.to_string())).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let kinds = frames(&shared.broker.records(&FIRST));
    assert!(kinds.iter().filter(|frame| frame.kind == Kind::Heartbeat).count() <= beats + 1);
    let next = shared.open(&shared.broker.client(), 2).await;
    assert_eq!(Identity::node_of(frames(&shared.broker.records(&FIRST)).last().unwrap().owner), NodeId(2 << 16));
    assert_eq!(owner.ended().await, CommitError::Fenced { epoch: 2 }, "its next heartbeat tells it");
    assert!(!owner.holds() && next.holds());
    let left = owner.left().unwrap();
    assert_eq!((left.acceptor.epoch(), left.acceptor.revision()), (2, 50), "a follower goes on behind the Announce");
    // An exclusive log gets no heartbeats, and needs no lease.
    let alone = MemoryBroker::default();
    let journal = open(&alone.client(), 1).await;
    sleep(Duration::from_secs(60)).await;
    assert!(journal.holds());
    assert_eq!(frames(&alone.records(&FIRST)).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_told_only_by_who_still_owns_the_slot() {
    for (link, suspended) in [(Link::Stalled, false), (Link::Cut, false), (Link::Up, true)] {
        let shared = Shared::new();
        let client = shared.broker.client();
        let zombie = shared.open(&client, 1).await;
        zombie.commit(put("a", Expect::Absent, "1")).await.unwrap();
        let stale = put("a", Expect::Revision(7), "x");
        let conflict = |revision| Err(CommitError::Conflict { key: "a".into(), current: Some(revision) });
        assert_eq!(zombie.commit(stale.clone()).await, conflict(1), "control: under its lease it knows");
        client.connect(link);
        let owner = shared.open(&shared.broker.client(), 2).await;
        owner.commit(put("a", Expect::Revision(1), "2")).await.unwrap();
        if suspended {
            shared.clock.sleep(Duration::from_secs(2));
        } else {
            sleep(Duration::from_secs(2)).await;
        }
        assert!(!zombie.holds());
        let (told, read) = tokio::join!(zombie.commit(stale.clone()), async {
            sleep(Duration::from_millis(10)).await;
            client.connect(Link::Up);
            zombie.read(b"a").await
        });
        assert_eq!(told, Err(CommitError::Fenced { epoch: 2 }), "{link:?}");
        assert_eq!(read, Err(CommitError::Fenced { epoch: 2 }), "{link:?}");
        assert_eq!(owner.commit(stale).await, conflict(2));
        assert_eq!(owner.read(b"a").await.unwrap().unwrap().value, "2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_without_a_lease_waits_for_a_frame_that_is_accepted() {
    let shared = Shared::new();
    let client = shared.broker.client();
    let owner = shared.open(&client, 1).await;
    owner.commit(put("a", Expect::Absent, "1")).await.unwrap();
    // The machine slept, and nobody took over meanwhile.
    shared.clock.sleep(Duration::from_secs(3_600));
    assert!(!owner.holds());
    let before = shared.broker.records(&FIRST).len();
    let told = owner.commit(put("a", Expect::Absent, "x")).await;
    assert_eq!(told, Err(CommitError::Conflict { key: "a".into(), current: Some(1) }));
    assert!(owner.holds());
    assert_eq!(shared.broker.records(&FIRST).len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_owner_outlasts_a_broker_that_is_away_and_commits_are_answered() {
    for link in [Link::Cut, Link::Stalled, Link::Deaf, Link::Mute] {
        let shared = Shared::new();
        let client = shared.broker.client();
        let owner = shared.open(&client, 1).await;
        owner.commit(put("a", Expect::Any, "1")).await.unwrap();
        client.connect(link);
        let command = put("a", Expect::Any, "2").id(CommandId(7));
        let told = timeout(Duration::from_secs(6), owner.commit(command.clone())).await.unwrap();
        assert!(matches!(told, Err(CommitError::Unknown { .. })), "{link:?}: {told:?}");
        assert!(!owner.holds());
        advance(Duration::from_secs(60)).await;
        client.connect(Link::Up);
        // The same command again: it was written once, before or now.
        let again = timeout(Duration::from_secs(3), owner.commit(command)).await.unwrap().unwrap();
        assert_eq!((again.revision, owner.epoch()), (2, 1), "{link:?}");
        // That frame was sent a minute ago: the next sign of life renews the lease.
        sleep(Duration::from_millis(50)).await;
        assert!(owner.holds(), "{link:?}");
        same_as_replayed(&shared.broker, &owner).await;
        // One that is told to close does not wait for ever.
        client.connect(link);
        timeout(Duration::from_secs(3), owner.close()).await.unwrap();
        assert!(!owner.holds());
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_needs_no_reading_to_go_on_after_a_frame_that_was_lost() {
    for (fault, goes_on) in [(Fault::Lost, true), (Fault::Unknown, false)] {
        let shared = Shared::new();
        let client = shared.broker.client();
        let owner = shared.open(&client, 1).await;
        owner.commit(put("a", Expect::Any, "1")).await.unwrap();
        client.connect(Link::Blind);
        let mut faults = vec![fault];
        client.script(move |_, _| faults.pop().unwrap_or(Fault::None));
        let told = timeout(Duration::from_secs(6), owner.commit(put("a", Expect::Any, "2"))).await.unwrap();
        // Control: one that stands there has to be read, to know that nothing stands between.
        assert_eq!(told.is_ok(), goes_on, "{fault:?}: {told:?}");
        for _ in 0..20 {
            sleep(Duration::from_millis(200)).await;
            assert_eq!(owner.holds(), goes_on, "{fault:?}");
        }
        client.connect(Link::Up);
        timeout(Duration::from_secs(3), owner.commit(put("a", Expect::Any, "3"))).await.unwrap().unwrap();
        same_as_replayed(&shared.broker, &owner).await;
    }
}

#[tokio::test(start_paused = true)]
async fn years_of_heartbeats_are_rolled_away() {
    let shared = Shared::new();
    let client: Arc<dyn PartitionLog> = shared.broker.client();
    let environment = Environment::new(Arc::clone(&shared.clock) as Arc<dyn Clock>, Arc::new(SeededRandom::new(1)));
    let options = Options { roll_bytes: 4_096, ..Options::shared(Identity::new(NodeId(1 << 16))) };
    let owner = Journal::open(client, 0, environment, options).await.unwrap();
    owner.commit(put("a", Expect::Any, "1")).await.unwrap();
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(owner.holds(), "also while it rolls");
    }
    // The one that is done with stays for those who follow it.
    sleep(limits::JOURNAL_SEALED_AGE).await;
    let ids = shared.broker.ids();
    assert!(ids.len() == 1 && ids[0] != FIRST, "{ids:?}");
    assert!(shared.broker.records(&ids[0]).len() < 120);
    same_as_replayed(&shared.broker, &owner).await;
}
