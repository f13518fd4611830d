//! Processes that die, stall and are cut off.

use tidegate_schemas::limits;

use super::*;
use crate::slot::placement::delivery_slots;
use crate::testing::Fault;

#[tokio::test(start_paused = true)]
async fn the_slots_of_a_killed_process_are_taken_over_and_keep_what_was_committed() {
    let mut cluster = Cluster::of(16, 3).await;
    sleep(Duration::from_secs(6)).await;
    cluster.settled().await;
    for slot in delivery_slots(16) {
        let key = format!("before {slot}");
        cluster.nodes[0].claims.slot(slot).commit(put(&key, Expect::Absent, "1")).await.unwrap();
    }
    let before = cluster.epochs();
    let killed = cluster.kill(1).await;
    let took = cluster.settled().await;
    println!("the slots of a killed process were taken over after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(cluster.nodes[0].claims.owners().iter().all(|ownership| ownership.owner != Some(killed)));
    assert!(before.iter().zip(cluster.epochs()).all(|(before, after)| after - before <= 1));
    cluster.watch(Duration::from_secs(5)).await;
    let loads = cluster.loads();
    assert!(loads.iter().all(|load| *load >= 7), "{loads:?}");
    for slot in delivery_slots(16) {
        let key = format!("before {slot}");
        assert!(cluster.nodes[1].claims.slot(slot).get(key.as_bytes()).is_some());
        let again = cluster.nodes[1].claims.slot(slot).commit(put(&key, Expect::Absent, "2")).await;
        assert!(matches!(again, Err(CommitError::Conflict { .. })), "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stalls_is_replaced_and_does_nothing_when_it_goes_on() {
    for (link, writes) in [(Link::Stalled, true), (Link::Cut, true), (Link::Deaf, true), (Link::Mute, true)] {
        let cluster = Cluster::of(4, 2).await;
        sleep(Duration::from_secs(6)).await;
        cluster.settled().await;
        let node = &cluster.nodes[0];
        let owned: Vec<u32> = node.worker.journals.lock().keys().copied().collect();
        let slot = owned[0];
        let stale = node.claims.slot(slot);
        stale.commit(put("a", Expect::Absent, "1")).await.unwrap();
        node.log.connect(link);
        if writes {
            let (late, journal) = (put("a", Expect::Any, "zombie"), node.worker.journals.lock()[&slot].clone());
            node.environment.spawn(async move { journal.commit(late).await });
        }
        let handler = cluster.cut_lane(0);
        // Its lease is over before the other one acts.
        cluster.watch(Duration::from_secs(5)).await;
        let other = &cluster.nodes[1];
        assert!(other.worker.journals.lock().contains_key(&slot), "{link:?}");
        let head = other.claims.slot(slot).get(b"a").unwrap();
        // What it had sent before may count, but only where the next owner knows of it.
        let committed = other.claims.slot(slot).commit(put("a", Expect::Revision(head.revision), "2")).await;
        committed.unwrap_or_else(|error| panic!("{link:?}: {error}"));
        assert!(!node.worker.journals.lock().get(&slot).is_some_and(Journal::holds), "{link:?}");
        cluster.lanes.0.lock().insert(node.id, handler);
        node.log.connect(Link::Up);
        cluster.watch(Duration::from_secs(10)).await;
        cluster.settled().await;
        for node in &cluster.nodes {
            assert_eq!(node.claims.slot(slot).get(b"a").unwrap().value, "2", "{link:?}");
        }
        assert!(node.worker.told.lock().contains(&format!("lost {slot}")), "{link:?}");
        let loads = cluster.loads();
        assert!(loads.iter().all(|load| *load >= 1), "{link:?}: it is given slots again: {loads:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_moves_nothing() {
    for link in [Link::Cut, Link::Stalled] {
        let cluster = Cluster::of(8, 3).await;
        sleep(Duration::from_secs(6)).await;
        cluster.settled().await;
        let before = cluster.epochs();
        for seconds in [1, 10, 60] {
            cluster.nodes.iter().for_each(|node| node.log.connect(link));
            sleep(Duration::from_secs(seconds)).await;
            assert!(seconds < 2 || cluster.nodes.iter().all(|node| node.claims.owners().iter().all(|o| !o.here)));
            cluster.nodes.iter().for_each(|node| node.log.connect(Link::Up));
            cluster.watch(Duration::from_secs(5)).await;
            cluster.settled().await;
            assert_eq!(cluster.epochs(), before, "{link:?} for {seconds} s");
        }
        // Control: a process that is away alone is replaced.
        cluster.nodes[0].log.connect(link);
        sleep(Duration::from_secs(4)).await;
        assert_ne!(cluster.nodes[1].claims.owners().iter().map(|o| o.epoch).collect::<Vec<_>>(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_that_jump_move_nothing_and_a_suspended_machine_acts_on_nothing() {
    let cluster = Cluster::of(8, 2).await;
    sleep(Duration::from_secs(6)).await;
    cluster.settled().await;
    let before = cluster.epochs();
    for node in &cluster.nodes {
        node.clock.set_wall(1_000);
        cluster.watch(Duration::from_secs(3)).await;
        node.clock.set_wall(1_900_000_000_000);
        cluster.watch(Duration::from_secs(3)).await;
    }
    assert_eq!(cluster.epochs(), before);
    // It wakes after an hour by its clock: its lease is over, and it does not take its own sleep for the others' silence.
    for node in &cluster.nodes {
        node.clock.sleep(Duration::from_secs(3_600));
        assert!(node.claims.owners().iter().all(|ownership| !ownership.here), "no lease outlasts a suspension");
        cluster.watch(Duration::from_secs(5)).await;
        cluster.settled().await;
    }
    assert_eq!(cluster.epochs(), before);
}

#[tokio::test(start_paused = true)]
async fn commands_reach_the_owner_from_everywhere_and_count_once() {
    let cluster = Cluster::of(4, 3).await;
    sleep(Duration::from_secs(6)).await;
    cluster.settled().await;
    for (index, node) in cluster.nodes.iter().enumerate() {
        for slot in 0..4 {
            let handle = node.claims.slot(slot);
            let key = format!("from {index}");
            let committed = handle.commit(put(&key, Expect::Absent, "1")).await.unwrap();
            // Seen by reads that begin afterwards, though another process committed it.
            assert!(handle.revision() >= committed.revision);
            assert_eq!(handle.get(key.as_bytes()).unwrap().revision, committed.revision);
            let again = handle.commit(put(&key, Expect::Absent, "1")).await;
            assert!(matches!(again, Err(CommitError::Conflict { .. })), "{again:?}");
        }
    }
    // An answer that was lost: the caller does not know, and the same command is not carried out twice.
    let owner = cluster.nodes[0].claims.owners()[1].owner.unwrap();
    let asking = cluster.nodes.iter().find(|node| node.id != owner).unwrap();
    *asking.deaf.lock() = true;
    let handle = asking.claims.slot(1);
    let command = put("lost", Expect::Absent, "1").id(CommandId(7));
    let told = handle.commit(command.clone()).await;
    assert!(matches!(told, Err(CommitError::Unknown { .. })), "{told:?}");
    *asking.deaf.lock() = false;
    let again = handle.commit(command).await.unwrap();
    assert!(again.repeated);
    // Nobody to ask: it was never sent.
    let handlers = std::mem::take(&mut *cluster.lanes.0.lock());
    let told = handle.commit(put("never", Expect::Any, "1")).await;
    assert!(matches!(told, Err(CommitError::Unavailable { .. })), "{told:?}");
    *cluster.lanes.0.lock() = handlers;
    assert!(handle.get(b"never").is_none());
}

#[tokio::test(start_paused = true)]
async fn rolls_go_on_under_followers_and_takeovers() {
    let mut cluster = Cluster::of(2, 0).await;
    let journal = slot::Options { roll_bytes: 4_000, frame_bytes_max: 1_000, ..slot::Options::default() };
    for _ in 0..3 {
        cluster.start_with(Options { journal: journal.clone() }).await;
    }
    cluster.settled().await;
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..300_usize {
        let node = &cluster.nodes[round % cluster.nodes.len()];
        let (key, value) = (format!("key {}", round % 17), format!("{round} {}", "x".repeat(round % 100)));
        node.claims.slot(1).commit(put(&key, Expect::Any, &value)).await.unwrap();
        expected.insert(key, value);
        if round == 150 {
            let owner = cluster.nodes[0].claims.owners()[1].owner.unwrap();
            let index = cluster.nodes.iter().position(|node| node.id == owner).unwrap();
            cluster.kill(index).await;
            // The next commit waits until there is an owner again.
        }
    }
    sleep(Duration::from_secs(20)).await;
    let rolled = cluster.broker.ids().iter().filter(|id| matches!(id, crate::LogId::Slot { slot: 1, .. })).count();
    assert_eq!(rolled, 1, "{:?}", cluster.broker.ids());
    assert!(!cluster.broker.ids().contains(&crate::LogId::Slot { slot: 1, epoch: 0, suffix: 0 }));
    for node in &cluster.nodes {
        let seen: BTreeMap<String, String> = node.claims.slot(1).scan(b"key").into_iter().map(text).collect();
        assert_eq!(seen, expected);
    }
}

fn text((key, _, value): (Bytes, u64, Bytes)) -> (String, String) {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    (text(key), text(value))
}

/// What a gateway says of itself, after so long.
async fn told(cluster: &Cluster, index: usize, after: Duration) -> Option<String> {
    sleep(after).await;
    cluster.nodes[index].claims.silence()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_gets_no_answer_says_so_though_it_reads() {
    let bound = limits::CLAIM_ANSWER_TIMEOUT;
    for link in [Link::Cut, Link::Stalled, Link::Deaf, Link::Unheard] {
        let cluster = Cluster::of(4, 2).await;
        sleep(Duration::from_secs(6)).await;
        cluster.settled().await;
        cluster.nodes[0].log.connect(link);
        assert_eq!(told(&cluster, 0, bound - Duration::from_secs(1)).await, None, "{link:?}");
        let reason = told(&cluster, 0, Duration::from_secs(8)).await.unwrap_or_else(|| panic!("{link:?} is not told"));
        assert!(reason.contains("has answered nothing for"), "{link:?}: {reason}");
        // It owns nothing any more, and asks on: for as long as it takes.
        assert!(told(&cluster, 0, Duration::from_secs(120)).await.is_some(), "{link:?}");
        assert_eq!(told(&cluster, 1, Duration::ZERO).await, None, "{link:?}: the other one is not cut off");
        cluster.nodes[0].log.connect(Link::Up);
        assert_eq!(told(&cluster, 0, Duration::from_secs(5)).await, None, "{link:?}: it is mended");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_takes_nothing_is_told_by_all_and_others_are_not_held_up() {
    let cluster = Cluster::of(4, 2).await;
    sleep(Duration::from_secs(6)).await;
    cluster.settled().await;
    // As a broker does whose disk is full: log by log nothing that is appended is answered, and questions are.
    let swallow = |swallowed: Option<u32>| {
        let of = move |id: &crate::LogId| matches!(id, crate::LogId::Slot { slot, .. } if Some(*slot) == swallowed);
        let script = move |id: &crate::LogId, _: &crate::Record| if of(id) { Fault::Lost } else { Fault::None };
        cluster.nodes.iter().for_each(|node| node.log.script(script));
    };
    swallow(Some(2));
    for index in 0..2 {
        assert_eq!(told(&cluster, index, limits::CLAIM_PULSE_TIMEOUT / 3).await, None);
    }
    sleep(limits::CLAIM_PULSE_TIMEOUT).await;
    for index in 0..2 {
        let reason = told(&cluster, index, Duration::ZERO).await.expect("it is told");
        assert!(reason.contains("written to slot 2 for") && reason.contains("disk is full"), "{reason}");
    }
    swallow(None);
    for index in 0..2 {
        assert_eq!(told(&cluster, index, Duration::from_secs(5)).await, None);
    }
    cluster.settled().await;
}
