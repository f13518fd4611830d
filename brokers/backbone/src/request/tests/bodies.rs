use super::*;
use crate::budget::{Account, Budget};
use crate::request::wire::Kind;

fn body(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at / 7) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test(start_paused = true)]
async fn bodies_of_every_size_go_both_ways() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    echo(&b);
    settle().await;
    let chunk = limits::LANE_CHUNK_BYTES;
    for bytes in [0, 1, chunk - 16, chunk - 1, chunk, chunk + 1, limits::LANE_WINDOW_BYTES, 1_000_000] {
        let sent = body(bytes);
        let reply = a.call(To::Any, "echo", sent.clone(), SECOND).await.unwrap();
        assert!(reply[16..] == sent, "{bytes} bytes");
    }
    let reply = a.call(To::Any, "echo", body(limits::LANE_BODY_BYTES - 16), SECOND).await.unwrap();
    assert_eq!(reply.len(), limits::LANE_BODY_BYTES);
    drop(reply);
    let error = a.call(To::Any, "echo", body(limits::LANE_BODY_BYTES + 1), SECOND).await.unwrap_err();
    assert_eq!(error, RequestError::TooLarge { limit_bytes: limits::LANE_BODY_BYTES });
    let error = a.call(To::Any, "echo", body(limits::LANE_BODY_BYTES - 15), SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unknown(text) if text.contains("reply")), "{error}");
    settle().await;
    assert!(nothing_left(&a) && nothing_left(&b));
}

#[tokio::test(start_paused = true)]
async fn a_large_body_takes_turns_with_small_ones() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    echo(&b);
    settle().await;
    let order = Mutex::new(Vec::new());
    let large = async {
        a.call(To::Any, "echo", body(4_000_000), SECOND).await.unwrap();
        order.lock().push("large");
    };
    let small = async {
        for _ in 0..3 {
            a.call(To::Any, "echo", body(10), SECOND).await.unwrap();
            order.lock().push("small");
        }
    };
    futures_util::future::join(large, small).await;
    assert_eq!(order.into_inner(), ["small", "small", "small", "large"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_sent_than_credits_allow_and_a_lost_credit_is_given_again() {
    let hub = Hub::default();
    let chunks = Arc::new(Mutex::new(0));
    let count = Arc::clone(&chunks);
    let sender = Faulty::whole(hub.lane(), move |message| {
        *count.lock() += usize::from(matches!(message.kind, Kind::Chunk { .. }));
        Fate::Arrives
    });
    let losing = Arc::new(Mutex::new(true));
    let lose = Arc::clone(&losing);
    let receiver = Faulty::whole(hub.lane(), move |message| match message.kind {
        Kind::Credit { .. } if *lose.lock() => Fate::Lost,
        _ => Fate::Arrives,
    });
    let (a, b) = (open(sender).await, open(receiver).await);
    echo(&b);
    settle().await;
    let call = a.call(To::Any, "echo", body(1_000_000), 10 * SECOND);
    let watch = async {
        tokio::time::sleep(SECOND).await;
        // The first message has the first chunk.
        assert_eq!((*chunks.lock() + 1) * limits::LANE_CHUNK_BYTES, limits::LANE_WINDOW_BYTES);
        *losing.lock() = false;
    };
    let (reply, ()) = futures_util::future::join(call, watch).await;
    assert_eq!(reply.unwrap().len(), 1_000_016);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_given_up_at_both_ends() {
    let hub = Hub::default();
    let stops = |hub: &Hub| {
        let mut chunks = 0;
        Faulty::whole(hub.lane(), move |message| {
            chunks += usize::from(matches!(message.kind, Kind::Chunk { .. }));
            if chunks > 2 && matches!(message.kind, Kind::Chunk { .. }) { Fate::Lost } else { Fate::Arrives }
        })
    };
    // The request stops: it was not carried out.
    let (a, b) = (open(stops(&hub)).await, open(hub.lane()).await);
    echo(&b);
    settle().await;
    let start = Instant::now();
    let error = a.call(To::Any, "echo", body(1_000_000), 60 * SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unavailable(text) if text.contains("stopped")), "{error}");
    assert!(start.elapsed() <= limits::LANE_TRANSFER_TIMEOUT + SECOND);
    settle().await;
    assert_eq!((b.counted().carried_out, b.counted().transfers_broken), (0, 1));
    assert!(nothing_left(&a) && nothing_left(&b));
    drop((a, b));
    tokio::time::sleep(5 * SECOND).await;
    // The reply stops: nobody knows.
    let (a, b) = (open(hub.lane()).await, open(stops(&hub)).await);
    b.serve("large", Arc::new(|_| async { Ok(body(1_000_000)) }));
    settle().await;
    let error = a.call(To::Any, "large", "x".into(), 60 * SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unknown(text) if text.contains("stopped")), "{error}");
    settle().await;
    assert!(nothing_left(&a) && nothing_left(&b), "its sender was told");
}

#[tokio::test(start_paused = true)]
async fn memory_is_counted_before_a_body_is_taken_and_given_back() {
    let hub = Hub::default();
    let memory = || Machine::new(SECOND).environment().with_memory(Budget::new(16 * 1024 * 1024));
    let (poor, rich) = (memory(), Machine::new(SECOND).environment());
    let a = open_with(hub.lane(), &rich, Options::default()).await;
    let b = open_with(hub.lane(), &poor, Options::default()).await;
    b.serve("large", Arc::new(|_| async { Ok(body(3_000_000)) }));
    slow(&b);
    echo(&b);
    settle().await;
    let share = poor.memory.share_bytes(Account::Bodies);
    let error = a.call(To::Any, "echo", body(share + 1), SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Busy { what, .. } if what.contains("bodies")), "{error}");
    // Its share for replies is 2 MiB.
    let error = a.call(To::Any, "large", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unknown(text) if text.contains("answers")), "{error}");
    assert_eq!(poor.memory.used_bytes(), 0);
    // What is held is held until the handler lets go of it.
    let padded = Bytes::from(format!("{}500", "0".repeat(999_997)));
    let call = a.call(To::Any, "slow", padded, SECOND);
    let look = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(poor.memory.standing(Account::Bodies).used_bytes, 1_000_000);
    };
    futures_util::future::join(call, look).await.0.unwrap();
    assert_eq!(poor.memory.used_bytes(), 0);
    // A reply that does not fit into the caller's memory is lost, and its sender does not wait.
    a.serve("larger", Arc::new(|_| async { Ok(body(6_000_000)) }));
    settle().await;
    let error = b.call(To::Node(a.node()), "larger", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unknown(text) if text.contains("bodies")), "{error}");
    settle().await;
    assert!(nothing_left(&a) && nothing_left(&b));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_full_slows_a_body_and_does_not_break_it() {
    let hub = Hub::default();
    let mut n = 0;
    let lane = Faulty::whole(hub.lane(), move |message| {
        n += 1;
        if n % 3 == 0 && matches!(message.kind, Kind::Chunk { .. } | Kind::Reply { .. }) {
            Fate::Full
        } else {
            Fate::Arrives
        }
    });
    let (a, b) = (open(hub.lane()).await, open(lane).await);
    b.serve("large", Arc::new(|_| async { Ok(body(1_000_000)) }));
    settle().await;
    for _ in 0..3 {
        assert!(a.call(To::Any, "large", "x".into(), 5 * SECOND).await.unwrap() == body(1_000_000));
    }
}
