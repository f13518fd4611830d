//! The broker goes away for ten seconds and comes back, or is not there when a gateway starts.

use std::time::Duration;

use tidegate_tests::client::Client;
use tidegate_tests::cluster::{Member, acknowledged, broker, figure, order, settled, shown, until};
use tidegate_tests::gateway::Options;
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::machine::{long_faults, not_had};
use tidegate_tests::sink::Sink;

use super::{PRODUCERS, TOPIC, subscription};

/// How long the broker is away: far beyond every lease.
const OUTAGE: Duration = Duration::from_secs(10);

async fn a_broker_is_away(name: &str) {
    let Some(broker) = broker(name).await else { return };
    if !broker.is_ours() {
        not_had("an outage of the broker", "the environment gives the broker");
        return;
    }
    let sink = Sink::accepting().await;
    let home = Home::new();
    home.write_resource("load.yaml", &subscription("load", &sink.url()));
    let (one, two) = (Member::start_in(home, &broker).await, Member::start(&broker).await);
    let (before, _) = settled(&[&one, &two]).await;
    let load = Load::new(TOPIC, PRODUCERS);
    let running = load.begin(two.client());
    sink.wait_until("a hundred deliveries", |deliveries| deliveries.len() >= 100).await;

    broker.kill(None).await;
    let took = until("that the gateway is not ready", async || {
        let answer = one.client().get("/readyz").await.unwrap();
        answer.status == 503 && answer.expect_problem(&[503]) == "unavailable"
    });
    println!("{name}: a gateway is not ready {:?} after its broker went away", took.await);
    let document = shown(one.client()).await;
    assert_eq!(document["backbone"]["reachable"], false, "{document:#}");
    assert_eq!(one.client().get("/livez").await.unwrap().status, 200);
    assert!(figure(one.client(), "tidegate_broker_reachable", "").await.abs() < f64::EPSILON);
    let event = tidegate_tests::client::Outgoing { id: "while-away", ..Default::default() };
    let refused = one.client().publish(TOPIC, &event).await.unwrap();
    let code = refused.expect_problem(&[503, 504]);
    println!("a publish meanwhile is answered with {} {code}", refused.status);
    tokio::time::sleep(OUTAGE).await;
    running.wait_until_put_off().await;
    broker.restart(None).await;

    let took = until("that both are ready", async || {
        one.client().get("/readyz").await.unwrap().status == 200
            && two.client().get("/readyz").await.unwrap().status == 200
    });
    println!("{name}: both are ready {:?} after the broker was back", took.await);
    let (after, _) = settled(&[&one, &two]).await;
    assert_eq!(before, after, "slots moved, though both owners lived");
    let seen = sink.deliveries().len();
    sink.wait_until("deliveries after the outage", |deliveries| deliveries.len() > seen + 100).await;
    let counts = running.finish().await;
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let order = order(&deliveries);
    println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_away_moves_nothing_and_loses_nothing() {
    a_broker_is_away("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_away_moves_nothing_and_loses_nothing_on_rabbitmq() {
    if long_faults("rabbitmq is away") {
        a_broker_is_away("rabbitmq").await;
    }
}

/// What is killed for not being alive would never see its broker come.
async fn a_gateway_waits_for_its_broker(name: &str) {
    /// Lines that a person reads at the start, whatever the number of slots.
    const LINES: usize = 8;
    let Some(broker) = broker(name).await else { return };
    if !broker.is_ours() {
        not_had("an outage of the broker", "the environment gives the broker");
        return;
    }
    broker.kill(None).await;
    let home = Home::new();
    let starting = home.begin(&Options { backbone: Some(broker.url().to_owned()), ..Options::default() });
    let mut address = None;
    until("that it tells where it listens", async || {
        let text = starting.stderr();
        let line = text.lines().find(|line| line.contains("listens"));
        address = line.and_then(|line| line.split_once("http=")?.1.split_whitespace().next()?.parse().ok());
        address.is_some()
    })
    .await;
    let client = Client::new(address.expect("it was told"));
    until("that it says what it waits for", async || {
        assert_eq!(client.get("/livez").await.unwrap().status, 200, "it lives");
        let answer = client.get("/readyz").await.unwrap();
        assert_eq!(answer.expect_problem(&[503]), "unavailable");
        String::from_utf8_lossy(&answer.body).contains(&format!("waits for the broker at {}", broker.url()))
    })
    .await;
    assert_eq!(client.get("/topics").await.unwrap().expect_problem(&[503]), "unavailable");
    broker.restart(None).await;
    let gateway = starting.ready().await.unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(client.get("/readyz").await.unwrap().status, 200);
    client.get("/topics").await.unwrap().expect(200);
    let member = Member { home, gateway };
    settled(&[&member]).await;
    let text = member.gateway.stderr();
    let lines = text.lines().filter(|line| line.contains(" INFO ")).count();
    assert!((3..=LINES).contains(&lines), "{lines} lines:\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_waits_for_its_broker_lives_and_says_what_it_waits_for() {
    a_gateway_waits_for_its_broker("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_waits_for_its_broker_lives_and_says_what_it_waits_for_on_rabbitmq() {
    if long_faults("a gateway waits for rabbitmq") {
        a_gateway_waits_for_its_broker("rabbitmq").await;
    }
}
