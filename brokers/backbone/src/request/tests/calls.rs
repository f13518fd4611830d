use super::*;
use crate::error::Applied;
use crate::request::wire::Kind;

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_by_the_node_that_was_asked() {
    let hub = Hub::default();
    let nodes = [open(hub.lane()).await, open(hub.lane()).await, open(hub.lane()).await];
    nodes.iter().for_each(echo);
    settle().await;
    for from in &nodes {
        for to in &nodes {
            let reply = from.call(To::Node(to.node()), "echo", "hello".into(), SECOND).await.unwrap();
            assert_eq!(reply, format!("{}hello", to.node()));
        }
        let reply = from.call(To::Any, "echo", Bytes::new(), SECOND).await.unwrap();
        assert_eq!(reply.len(), 16, "an empty body is a body");
        assert_eq!(from.node().0 & 0xffff, 0);
    }
    assert!(nodes.iter().all(nothing_left));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_at_once_do_not_mix() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    echo(&b);
    settle().await;
    let calls = (0..10_000).map(|n: u32| {
        let a = a.clone();
        async move {
            let reply = a.call(To::Any, "echo", n.to_string().into(), SECOND).await.unwrap();
            assert_eq!(reply[16..], *n.to_string().as_bytes());
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(b.counted().carried_out, 10_000);
    assert!(nothing_left(&a) && nothing_left(&b));
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_told_at_once() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    let start = Instant::now();
    let absent = NodeId(0x1_0000);
    for (to, expected) in
        [(To::Any, "no node offers"), (To::Node(b.node()), "does not offer"), (To::Node(absent), "not there")]
    {
        let error = a.call(to, "echo", "x".into(), SECOND).await.unwrap_err();
        assert!(matches!(&error, RequestError::Nobody(text) if text.contains(expected)), "{error}");
        assert_eq!(error.applied(), Applied::No);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(a.counted().requests_sent, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_lane_says_of_a_node_counts() {
    let hub = Hub::default();
    let b = open(hub.lane()).await;
    echo(&b);
    let lane = Faulty::whole(hub.lane(), |message| match message.kind {
        Kind::Request(..) => Fate::Nobody,
        _ => Fate::Arrives,
    });
    let a = open(lane).await;
    let start = Instant::now();
    let error = a.call(To::Node(b.node()), "echo", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::Nobody(_)), "{error}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(a.members().len(), 1, "it is left out");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(a.members().len(), 2, "until its next beat");
    assert_eq!(b.counted().requests_received, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_call_and_the_handler() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    slow(&b);
    settle().await;
    let start = Instant::now();
    let error = a.call(To::Any, "slow", "60000".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::DeadlineExceeded { node, .. } if node == b.node()), "{error}");
    assert_eq!(error.applied(), Applied::Unknown);
    assert_eq!(start.elapsed(), SECOND);
    settle().await;
    assert!(nothing_left(&a) && nothing_left(&b), "the handler is not waited for");
    assert_eq!(b.counted().carried_out, 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_dropped_and_counted() {
    let hub = Hub::default();
    let a = open(hub.lane()).await;
    let lane = Faulty::whole(hub.lane(), |message| match message.kind {
        Kind::Reply { .. } => Fate::Late(2 * SECOND),
        _ => Fate::Arrives,
    });
    let b = open(lane).await;
    echo(&b);
    settle().await;
    let error = a.call(To::Any, "echo", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::DeadlineExceeded { .. }), "{error}");
    assert_eq!(a.counted().late, 0);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(a.counted().late, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_long_under_way_is_not_carried_out() {
    let hub = Hub::default();
    // Clocks that differ by hours, either way, are no reason to refuse anything.
    for (here, there) in [(1, 10_000), (10_000, 1)] {
        let late = Arc::new(Mutex::new(Duration::ZERO));
        let by = Arc::clone(&late);
        let lane = Faulty::whole(hub.lane(), move |message| match message.kind {
            Kind::Request(..) => Fate::Late(*by.lock()),
            _ => Fate::Arrives,
        });
        let a = open_with(lane, &Machine::new(here * SECOND).environment(), Options::default()).await;
        let b = open_with(hub.lane(), &Machine::new(there * SECOND).environment(), Options::default()).await;
        slow(&b);
        settle().await;
        let to = To::Node(b.node());
        a.call(to, "slow", "0".into(), SECOND).await.unwrap();
        *late.lock() = 900 * SECOND / 1_000;
        a.call(to, "slow", "50".into(), SECOND).await.unwrap();
        let start = Instant::now();
        let error = a.call(to, "slow", "200".into(), SECOND).await.unwrap_err();
        assert!(matches!(error, RequestError::DeadlineExceeded { .. }), "{error}");
        assert_eq!(start.elapsed(), SECOND);
        assert_eq!(b.counted().carried_out, 3);
        settle().await;
        assert!(nothing_left(&b), "the time under way counts for the handler");
        *late.lock() = SECOND;
        let error = a.call(to, "slow", "0".into(), SECOND).await.unwrap_err();
        assert!(matches!(error, RequestError::DeadlineExceeded { .. }), "{error}");
        settle().await;
        let counted = b.counted();
        assert_eq!((counted.carried_out, counted.expired), (3, 1), "{counted:?}");
        drop((a, b));
        tokio::time::sleep(5 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_and_failures_of_handlers_differ() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    b.serve("refuses", Arc::new(|_| async { Err(Refusal::new("fenced", "epoch 7 has begun")) }));
    b.serve("panics", Arc::new(|_| async { panic!("a fault of the handler") }));
    settle().await;
    let error = a.call(To::Any, "refuses", "x".into(), SECOND).await.unwrap_err();
    assert_eq!(error, RequestError::Refused(Refusal::new("fenced", "epoch 7 has begun")));
    let start = Instant::now();
    let error = a.call(To::Any, "panics", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::Unknown(_)), "{error}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(nothing_left(&b));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_cancels_the_handler() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    slow(&b);
    settle().await;
    let call = a.call(To::Any, "slow", "60000".into(), 100 * SECOND);
    assert!(tokio::time::timeout(SECOND, call).await.is_err());
    settle().await;
    assert_eq!(b.counted().cancelled, 1);
    assert!(nothing_left(&a) && nothing_left(&b));
}

#[tokio::test(start_paused = true)]
async fn bounds_refuse_on_both_sides() {
    let hub = Hub::default();
    let environment = Machine::new(SECOND).environment();
    let a = open_with(hub.lane(), &environment, Options { calls: 3, ..Options::default() }).await;
    let b = open_with(hub.lane(), &environment, Options { requests: 2, ..Options::default() }).await;
    slow(&b);
    settle().await;
    let calls = (0..4).map(|_| a.call(To::Any, "slow", "500".into(), SECOND));
    let results = futures_util::future::join_all(calls).await;
    let busy = |at: usize, text: &str| match &results[at] {
        Err(error @ RequestError::Busy { what, .. }) => what.contains(text) && error.applied() == Applied::No,
        _ => false,
    };
    assert!(results[0].is_ok() && results[1].is_ok(), "{results:?}");
    assert!(busy(2, "carries out 2 requests"), "{results:?}");
    assert!(busy(3, "3 requests of this node"), "{results:?}");
    assert_eq!(b.counted().turned_away, 1);
    a.call(To::Any, "slow", "500".into(), SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn load_goes_to_those_that_have_the_least() {
    let hub = Hub::default();
    let a = open(hub.lane()).await;
    let nodes = [open(hub.lane()).await, open(hub.lane()).await, open(hub.lane()).await];
    nodes.iter().for_each(slow);
    settle().await;
    for _ in 0..30 {
        a.call(To::Any, "slow", "0".into(), SECOND).await.unwrap();
    }
    assert!(nodes.iter().all(|node| node.counted().carried_out == 10), "in turn where all are idle");
    let stuck = a.call(To::Node(nodes[0].node()), "slow", "900".into(), SECOND);
    let others = async {
        settle().await;
        for _ in 0..20 {
            a.call(To::Any, "slow", "0".into(), SECOND).await.unwrap();
        }
    };
    let (stuck, ()) = futures_util::future::join(stuck, others).await;
    stuck.unwrap();
    assert_eq!(nodes[0].counted().carried_out, 11, "the one that has an open call gets no other");
}

#[tokio::test(start_paused = true)]
async fn a_request_to_any_is_tried_where_it_can_be_carried_out() {
    let hub = Hub::default();
    let environment = Machine::new(SECOND).environment();
    let a = open(hub.lane()).await;
    let b = open_with(hub.lane(), &environment, Options { requests: 0, ..Options::default() }).await;
    let c = open(hub.lane()).await;
    [&b, &c].into_iter().for_each(slow);
    settle().await;
    for _ in 0..10 {
        a.call(To::Any, "slow", "0".into(), SECOND).await.unwrap();
    }
    assert_eq!(c.counted().carried_out, 10);
    assert!(b.counted().turned_away >= 4);
    let error = a.call(To::Node(b.node()), "slow", "0".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::Busy { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_passed_round_for_ever() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    for (node, other) in [(&a, &b), (&b, &a)] {
        let (node, other) = (node.clone(), other.node());
        let clone = node.clone();
        let handler = move |request: Request| {
            let node = clone.clone();
            async move {
                let passed = node.forward(To::Node(other), &request).await;
                passed.map_err(|error| Refusal::new("passed", error.to_string()))
            }
        };
        node.serve("round", Arc::new(handler));
    }
    settle().await;
    let error = a.call(To::Node(b.node()), "round", "x".into(), SECOND).await.unwrap_err();
    assert!(error.to_string().contains("passed on 4 times"), "{error}");
    assert_eq!(a.counted().carried_out + b.counted().carried_out, u64::from(limits::LANE_HOPS) + 1);
    a.leave().await;
    b.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_does_not_get_the_replies_of_the_one_before() {
    let hub = Hub::default();
    let b = open(hub.lane()).await;
    slow(&b);
    let a = open(hub.lane()).await;
    let before = a.node();
    let (clone, to) = (a.clone(), b.node());
    let environment = Environment::system();
    let call = environment.spawn(async move { clone.call(To::Node(to), "slow", "500".into(), 5 * SECOND).await });
    settle().await;
    call.abort();
    let _ = call.await;
    drop(a);
    let a = open(hub.lane()).await;
    assert_ne!(a.node(), before);
    let reply = a.call(To::Node(b.node()), "slow", "1000".into(), 5 * SECOND).await.unwrap();
    assert_eq!(reply, "slow");
    assert_eq!(a.counted().foreign + a.counted().late, 0, "the lane gives it nothing of another node");
}
