//! Events go from the embedded log to NATS, to Kafka, to RabbitMQ and the same way back, while those brokers are killed.

use std::time::Instant;

use tidegate_conformance::Broker;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{acknowledged, figure, order, until};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::machine::number_from_environment;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::{dead_letters, standing};

use super::{BACK, THERE, arrived, bridge, broker_of, broker_of_ours, end, goods, topic_on, topics_on, unavailable};

const PRODUCERS: usize = 32;
/// The way: bridges with the topic that each reads and the one that it writes.
const WAY: [(&str, &str, &str); 6] = [
    ("to-nats", "load", "nats"),
    ("to-kafka", "nats", "kafka"),
    ("to-rabbitmq", "kafka", "rabbitmq"),
    ("back-to-kafka", "rabbitmq", "kafka-back"),
    ("back-to-nats", "kafka-back", "nats-back"),
    ("home", "nats-back", "returned"),
];
/// Where the topics are that are not at home.
const TOPICS: [(&str, &str, &str); 5] = [
    ("nats", "n", THERE),
    ("kafka", "k", THERE),
    ("rabbitmq", "r", THERE),
    ("kafka-back", "k", BACK),
    ("nats-back", "n", BACK),
];

/// How many events go, and how often each broker is killed.
fn size() -> (u64, usize) {
    let all = std::env::var("TIDEGATE_FAULTS").is_ok_and(|faults| faults == "all");
    let events = number_from_environment("TIDEGATE_BRIDGED", if all { 100_000 } else { 2_400 });
    (events.div_ceil(PRODUCERS as u64), if events < 50_000 { 1 } else { 3 })
}

/// A broker is killed under load. What is told meanwhile is true, and nothing else fails with it.
async fn killed(client: &Client, broker: &Broker, topics: &[&str]) {
    broker.kill(None).await;
    until("that a bridge waits for its broker", async || {
        for (name, ..) in WAY.iter().filter(|(.., to)| topics.contains(to)) {
            if standing(client, name).await == "unreachable" {
                return true;
            }
        }
        false
    })
    .await;
    let topic = topics[0];
    let event = Outgoing { id: "while-away", ..Outgoing::default() };
    client.publish(topic, &event).await.unwrap().expect_problem(&[503, 504]);
    until("that the topic says why it is not told", async || unavailable(client, topic).await.is_some()).await;
    client.get("/passports?id=p0-0").await.unwrap().expect(200);
    let ready = client.get("/readyz").await.unwrap().status;
    assert_eq!(ready, 200, "a further broker is no reason to send nobody here");
    broker.restart(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_over_every_broker_and_back_while_brokers_are_killed() {
    let (Some(nats), Some(kafka)) = (broker_of_ours("nats").await, broker_of_ours("kafka").await) else { return };
    let Some(rabbitmq) = broker_of_ours("rabbitmq").await else { return };
    topics_on(&nats, &[THERE, BACK]).await;
    topics_on(&kafka, &[THERE, BACK]).await;
    topics_on(&rabbitmq, &[THERE]).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    let mut resources: String = [("n", &nats), ("k", &kafka), ("r", &rabbitmq)]
        .map(|(name, broker)| broker_of(name, broker.url(), ""))
        .concat();
    resources += &TOPICS.map(|(name, broker, there)| topic_on(name, broker, there, "")).concat();
    resources += &WAY.map(|(name, from, to)| bridge(name, from, to, &["order: key"])).concat();
    home.write_resource("bridges.yaml", &(resources + &end("end", "returned", &sink, &["order: key"])));
    let gateway = home.start().await;
    let client = gateway.client();

    let (each, rounds) = size();
    let victims: [(&Broker, &[&str]); 3] =
        [(&rabbitmq, &["rabbitmq"]), (&kafka, &["kafka-back", "kafka"]), (&nats, &["nats-back", "nats"])];
    let step = usize::try_from(each).unwrap_or(0) * PRODUCERS / (rounds * victims.len() + 1);
    let load = Load::of("load", PRODUCERS, goods::message).up_to(each);
    let (running, began) = (load.begin(client), Instant::now());
    let mut due = 0;
    for (broker, topics) in victims.into_iter().cycle().take(rounds * victims.len()) {
        due += step;
        arrived(&sink, due).await;
        println!(
            "{} is killed {:.1?} after the start, {} came back so far",
            broker.name(),
            began.elapsed(),
            sink.count()
        );
        killed(client, broker, topics).await;
    }
    let counts = running.ended().await;
    assert_eq!((counts.unanswered, counts.put_off), (0, 0), "who publishes here waits for no other broker");
    let total = load.acknowledged().iter().sum::<u64>();
    arrived(&sink, usize::try_from(total).unwrap_or(0)).await;
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let took = began.elapsed();
    println!(
        "{total} events came back in {took:.1?}, {:.0} a second, over {} hops; {} kills, {} repeats and {} that were dropped",
        total as f64 / took.as_secs_f64(),
        WAY.len(),
        rounds * victims.len(),
        order(&deliveries).repeats,
        figure(client, "tidegate_duplicates_dropped_total", "").await
    );
    goods::judge(&load.acknowledged(), &deliveries, &WAY.len().to_string()).assert_sound();
    for topic in ["load", "returned"] {
        assert_eq!(goods::altered_in(client, topic).await, Vec::<String>::new());
    }
    for (name, ..) in WAY {
        assert!(dead_letters(client, name).await.is_empty(), "an outage is no failure of events: {name}");
    }
    let passports = client.get("/passports?id=p0-0").await.unwrap().expect(200).json();
    let text = passports.to_string();
    assert!(WAY.iter().all(|(name, ..)| text.contains(&format!("\"{name}\""))), "{passports:#}");
}

/// Without order the same outage must show in what is checked above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_bridges_without_order_are_found_out() {
    let Some(kafka) = broker_of_ours("kafka").await else { return };
    topics_on(&kafka, &[THERE]).await;
    let (sink, home, none) = (Sink::accepting().await, Home::new(), ["order: none"]);
    let resources = broker_of("k", kafka.url(), "")
        + &topic_on("kafka", "k", THERE, "")
        + &bridge("out", "load", "kafka", &none)
        + &bridge("back", "kafka", "returned", &none)
        + &end("end", "returned", &sink, &none);
    home.write_resource("bridges.yaml", &resources);
    let gateway = home.start().await;
    let load = Load::new("load", 6);
    let running = load.begin(gateway.client());
    until("that the order is broken", async || {
        let seen = sink.count();
        arrived(&sink, seen + 100).await;
        kafka.kill(None).await;
        kafka.restart(None).await;
        arrived(&sink, seen + 200).await;
        !order(&sink.deliveries()).early.is_empty()
    })
    .await;
    running.finish().await;
}
