//! Joining, leaving, and what moves.

use super::*;

#[tokio::test(start_paused = true)]
async fn slots_are_spread_and_a_join_moves_a_fair_share_once() {
    let mut cluster = Cluster::of(16, 1).await;
    cluster.settled().await;
    assert_eq!(cluster.loads(), [15]);
    assert_eq!(cluster.nodes[0].claims.slots(), 16);
    for nodes in 2..=4_usize {
        let before: Vec<_> = cluster.nodes[0].claims.owners();
        cluster.start().await;
        cluster.watch(Duration::from_secs(5)).await;
        cluster.settled().await;
        let loads = cluster.loads();
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        let after = cluster.nodes[0].claims.owners();
        let moved = before.iter().zip(&after).filter(|(before, after)| before.owner != after.owner);
        assert!(moved.clone().all(|(_, after)| after.owner == Some(cluster.nodes[nodes - 1].id)));
        assert_eq!(moved.count(), 15 / nodes);
        assert!(before.iter().zip(&after).all(|(before, after)| after.epoch - before.epoch <= 1), "each moved once");
    }
    // Nothing moves any more.
    let before = cluster.epochs();
    cluster.watch(Duration::from_secs(30)).await;
    assert_eq!(cluster.epochs(), before);
    // A process that joins later uses the number of slots that stands there.
    let told = cluster.nodes[0].worker.told.lock().clone();
    assert!(told.iter().any(|told| told.starts_with("releasing")));
}

#[tokio::test(start_paused = true)]
async fn what_a_process_gives_up_is_taken_over_within_a_moment() {
    let mut cluster = Cluster::of(16, 3).await;
    sleep(Duration::from_secs(6)).await;
    cluster.settled().await;
    let node = cluster.nodes.remove(0);
    let owned = node.worker.journals.lock().len();
    assert_eq!(owned, 5);
    let began = Instant::now();
    node.claims.leave().await;
    assert!(node.claims.owners().iter().all(|ownership| !ownership.here));
    assert!(node.worker.journals.lock().is_empty());
    cluster.lanes.0.lock().remove(&node.id);
    cluster.settled().await;
    let took = began.elapsed();
    println!("a graceful leave took {took:?}, 100 ms of it for draining");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // What was given up is followed on, and read.
    cluster.nodes[0].claims.slot(3).commit(put("a", Expect::Any, "1")).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.claims.slot(3).get(b"a").unwrap().value, "1");
}

#[tokio::test(start_paused = true)]
async fn members_that_come_and_go_move_nothing() {
    let cluster = Cluster::of(16, 3).await;
    sleep(Duration::from_secs(6)).await;
    cluster.settled().await;
    let before = cluster.epochs();
    for _ in 0..20 {
        let handler = cluster.cut_lane(2);
        cluster.watch(Duration::from_millis(1_500)).await;
        cluster.lanes.0.lock().insert(cluster.nodes[2].id, handler);
        cluster.watch(Duration::from_millis(500)).await;
    }
    assert_eq!(cluster.epochs(), before);
    // Control: one that stays away from the lane for long loses nothing either, for it goes on writing.
    let handler = cluster.cut_lane(2);
    cluster.watch(Duration::from_secs(20)).await;
    cluster.settled().await;
    cluster.lanes.0.lock().insert(cluster.nodes[2].id, handler);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_slots_is_that_with_which_the_cluster_began() {
    let mut cluster = Cluster::of(3, 1).await;
    cluster.settled().await;
    let fewer = cluster.broker.clone().configured(7);
    cluster.broker = fewer;
    cluster.start().await;
    assert_eq!(cluster.nodes[1].claims.slots(), 3);
    let stored = cluster.nodes[1].claims.slot(0).get(b"cluster/slots").unwrap();
    assert_eq!(stored.value, r#"{"v":1,"slots":3}"#);
    // A slot whose log is gone is not begun anew.
    let (lane, log) =
        (Lane { node: NodeId(99 << 16), lanes: Lanes::default(), deaf: Arc::default() }, cluster.broker.client());
    cluster.broker.remove(&crate::LogId::Slot { slot: 2, epoch: 0, suffix: 0 });
    let environment = cluster.nodes[0].environment.child();
    let refused = Claims::join(log, lane, environment, Options::default()).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::DataLoss, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_slot_delivers_from_it() {
    let mut cluster = Cluster::of(1, 2).await;
    cluster.settled().await;
    assert_eq!(cluster.loads().iter().sum::<usize>(), 1);
    let owner = cluster.loads().iter().position(|load| *load == 1).unwrap();
    cluster.kill(owner).await;
    cluster.settled().await;
    assert_eq!(cluster.loads(), [1]);
}
