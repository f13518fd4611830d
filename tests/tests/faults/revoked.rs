//! The gateway's user is taken away while it works, and given back.

use tidegate_conformance::{Broker, Linked, Proxy};
use tidegate_tests::client::Outgoing;
use tidegate_tests::cluster::{acknowledged, broker, figure, is_built_in, order, until};

use super::{Backbone, SECRET, over_tls, subscribed};

/// Under a load, until the gateway says so and again until it works: it goes on by itself, and nothing acknowledged is missing.
/// Gives what it wrote to its log.
async fn revoked(broker: &Broker, url: &str, cut: impl Fn()) -> String {
    let tls = broker.folder().expect("the broker is ours").join("tls");
    let (sink, home, load) = subscribed(4).await;
    let backbone = Backbone::by_password(url, &tls, "ca.pem", "tidegate", "tidegate-secret");
    let gateway = backbone.start(&home).await;
    let client = gateway.client();
    let running = load.begin(client);
    sink.wait_until("fifty deliveries", |deliveries| deliveries.len() >= 50).await;

    broker.admit(false).await;
    cut();
    let took = until("that the gateway is not ready, and says why", async || {
        let answer = client.get("/readyz").await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        answer.status == 503 && answer.expect_problem(&[503]) == "unavailable" && text.contains("credentials")
    });
    println!("{}: the gateway says so {:?} after its user was taken away", broker.name(), took.await);
    let event = Outgoing { id: "revoked", ..Outgoing::default() };
    let refused = client.publish("load", &event).await.unwrap();
    println!("a publish meanwhile: {refused}");
    refused.expect_problem(&[503, 504]);
    assert!(figure(client, "tidegate_broker_reachable", "").await.abs() < f64::EPSILON);
    assert_eq!(client.get("/livez").await.unwrap().status, 200);
    running.wait_until_put_off().await;

    broker.admit(true).await;
    let took = until("that it is ready", async || client.get("/readyz").await.unwrap().status == 200).await;
    println!("{}: it is ready {took:?} after its user was given back", broker.name());
    let seen = sink.deliveries().len();
    sink.wait_until("deliveries afterwards", |deliveries| deliveries.len() > seen + 50).await;
    let counts = running.finish().await;
    let order = order(&sink.wait_for_ids(&acknowledged(&load.acknowledged())).await);
    println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    let log = gateway.stderr();
    assert!(!log.contains(SECRET), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_revoked_on_nats() {
    let Some(broker) = broker("nats-auth").await.filter(Broker::is_ours) else { return };
    let log = revoked(&broker, &over_tls(&broker), || {}).await;
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    // For each connection that is lost the first reason once, and once that it is the credentials, however often it is tried.
    let losses = lines("the connection to NATS is lost");
    let reasons = lines("NATS cannot be reached");
    assert!(losses > 0 && (1..=2 * losses).contains(&reasons), "{losses} losses, {reasons} reasons: {log}");
    assert!(lines("see to its user there") > 0, "{log}");
    assert!(lines("the connection to NATS is back") > 0, "{log}");
    assert_eq!(lines("async_nats"), 0, "the library repeats it: {log}");
}

/// Kafka asks for credentials when a connection begins, so that the open ones are cut as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_revoked_on_kafka() {
    if !is_built_in("kafka").await {
        return;
    }
    let Some(linked) = Linked::start("kafka-auth").await else { return };
    let url = linked.url().replace("kafka://", "kafka+ssl://");
    let _log = revoked(linked.broker(), &url, || linked.proxies().iter().for_each(Proxy::cut)).await;
}

/// RabbitMQ asks for credentials when a connection begins; whoever takes them away ends the open ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_revoked_on_rabbitmq() {
    let Some(broker) = broker("rabbitmq-auth").await.filter(Broker::is_ours) else { return };
    let _log = revoked(&broker, &over_tls(&broker), || {}).await;
}
