use super::*;
use crate::error::ErrorKind;
use crate::request::wire::{Kind, Message};

#[tokio::test(start_paused = true)]
async fn a_node_that_opens_knows_who_is_there_and_what_they_offer() {
    let hub = Hub::default();
    let a = open(hub.lane()).await;
    echo(&a);
    slow(&a);
    // Between two beats, so that nothing but the answer can tell.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let b = open(hub.lane()).await;
    let members = b.members();
    let found = members.iter().find(|member| member.node == a.node()).unwrap();
    assert_eq!(found.services, ["echo", "slow"]);
    assert_eq!(found.info.http, "http://127.0.0.1:1");
    assert_eq!(found.info.started_at, 7);
    assert_eq!(a.members(), members, "the one that was there has heard of the new one");
    b.call(To::Any, "echo", "first".into(), SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn opening_fails_where_the_node_does_not_hear_itself() {
    let hub = Hub::default();
    let lane = Faulty::whole(hub.lane(), |_| Fate::Lost);
    let start = Instant::now();
    let environment = Environment::system();
    let opened = Requests::open(lane, MemberInfo::default(), &environment, Options::default()).await;
    assert_eq!(*opened.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(start.elapsed(), limits::LANE_ASK_TIMEOUT);
    assert!(environment.stop(SECOND).await, "nothing goes on running");
    let small = Faulty::new(hub.lane(), 4_000, |_| Fate::Arrives);
    let opened = Requests::open(small, MemberInfo::default(), &environment, Options::default()).await;
    assert_eq!(*opened.unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_heard_at_once_and_is_final() {
    let hub = Hub::default();
    let a = open(hub.lane()).await;
    let mut watch = a.watch_members();
    let old_beat = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&old_beat);
    let lane = Faulty::whole(hub.lane(), move |message| {
        if let Kind::Beat(_) = &message.kind {
            *kept.lock() = Some(message.clone());
        }
        Fate::Arrives
    });
    let b = open(lane).await;
    echo(&b);
    settle().await;
    assert_eq!(watch.borrow_and_update().len(), 2);
    let start = Instant::now();
    b.leave().await;
    watch.changed().await.unwrap();
    seen_by(&a, 1).await;
    assert!(start.elapsed() < Duration::from_millis(20));
    let Some(Message { from, to, kind: Kind::Beat(mut beat) }) = old_beat.lock().take() else { panic!("no beat") };
    beat.serial += 100;
    hub.broadcast(Message { from, to, kind: Kind::Beat(beat) }.encode()).await.unwrap();
    settle().await;
    assert_eq!(a.members().len(), 1, "a beat behind the goodbye");
    let error = b.call(To::Any, "echo", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::Closed), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_is_gone_after_three_seconds_and_so_are_its_calls() {
    let hub = Hub::default();
    let (a, b) = (open(hub.lane()).await, open(hub.lane()).await);
    slow(&b);
    settle().await;
    let (clone, to) = (a.clone(), b.node());
    let call =
        a.node.environment.spawn(async move { clone.call(To::Node(to), "slow", "60000".into(), 60 * SECOND).await });
    settle().await;
    let start = Instant::now();
    drop(b);
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, RequestError::Unknown(_)), "{error}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_millis(3_300), "{took:?}");
    assert_eq!(a.members().len(), 1);
    let error = a.call(To::Any, "slow", "0".into(), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::Nobody(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_hears_nobody_takes_nobody_for_gone_and_calls_nobody() {
    let hub = Hub::default();
    let away = Arc::new(Mutex::new(false));
    let lane = |hub: &Hub| {
        let away = Arc::clone(&away);
        Faulty::whole(hub.lane(), move |_| if *away.lock() { Fate::Away } else { Fate::Arrives })
    };
    let (a, b) = (open(lane(&hub)).await, open(lane(&hub)).await);
    echo(&b);
    settle().await;
    *away.lock() = true;
    let error = a.call(To::Any, "echo", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unavailable(text) if text.contains("could not be sent")), "{error}");
    tokio::time::sleep(20 * SECOND).await;
    assert!(!a.hears());
    let error = a.call(To::Any, "echo", "x".into(), SECOND).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unavailable(text) if text.contains("hear itself")), "{error}");
    assert_eq!((a.members().len(), b.members().len()), (2, 2));
    *away.lock() = false;
    tokio::time::sleep(2 * SECOND).await;
    assert!(a.hears());
    a.call(To::Any, "echo", "x".into(), SECOND).await.unwrap();
    assert_eq!((a.members().len(), b.members().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_finishes_what_it_carries_out_and_takes_nothing_new() {
    let hub = Hub::default();
    let (a, b, c) = (open(hub.lane()).await, open(hub.lane()).await, open(hub.lane()).await);
    [&b, &c].into_iter().for_each(slow);
    settle().await;
    let running = a.call(To::Node(b.node()), "slow", "900".into(), 5 * SECOND);
    let leaving = async {
        settle().await;
        b.leave().await;
    };
    let meanwhile = async {
        settle().await;
        settle().await;
        for _ in 0..10 {
            a.call(To::Any, "slow", "0".into(), SECOND).await.unwrap();
        }
        let error = a.call(To::Node(b.node()), "slow", "0".into(), SECOND).await.unwrap_err();
        assert!(matches!(error, RequestError::Nobody(_)), "{error}");
    };
    let (reply, (), ()) = futures_util::future::join3(running, leaving, meanwhile).await;
    assert_eq!(reply.unwrap(), "slow");
    assert_eq!(c.counted().carried_out, 10);
    seen_by(&a, 2).await;
}
