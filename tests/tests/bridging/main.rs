//! Bridges between real brokers, by real gateways, with brokers and gateways that fail on the way; see docs/bridging.md.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod chain;
mod cluster;
mod goods;
mod loss;
mod refused;
mod start;

use std::time::{Duration, Instant};

use tidegate_conformance::Broker;
use tidegate_tests::PATIENCE;
use tidegate_tests::client::Client;
use tidegate_tests::cluster::{broker, until};
use tidegate_tests::gateway::{Gateway, Options};
use tidegate_tests::home::Home;
use tidegate_tests::machine::not_had;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::Subscription;

/// What a topic is called on the brokers, and one for the way back.
const THERE: &str = "mesh";
const BACK: &str = "mesh-back";
/// Partitions there, more than one so that order is that of keys.
const PARTITIONS: u32 = 3;

/// The resource of a broker, with more of its `spec` where it is given.
fn broker_of(name: &str, url: &str, more: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Broker\nmetadata: {{name: {name}}}\nspec: {{url: '{url}'{more}}}\n---\n"
    )
}

/// The resource of a topic that is attached to one on a broker.
fn topic_on(name: &str, broker: &str, there: &str, more: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {{attach: {{name: {there}, broker: \
         {broker}}}{more}}}\n---\n"
    )
}

fn bridge(name: &str, from: &str, to: &str, delivery: &[&str]) -> String {
    let sink = format!("topic://{to}");
    Subscription { name, topics: &[from], filters: &[], sink: &sink, delivery }.yaml() + "---\n"
}

/// The subscription that delivers to a sink of the test.
fn end(name: &str, from: &str, sink: &Sink, delivery: &[&str]) -> String {
    Subscription { name, topics: &[from], filters: &[], sink: &sink.url(), delivery }.yaml() + "---\n"
}

/// A broker that the test may kill; none, with a word, where it cannot be had.
async fn broker_of_ours(name: &str) -> Option<Broker> {
    let broker = broker(name).await?;
    if !broker.is_ours() {
        not_had("an outage of brokers", "the environment gives them");
        return None;
    }
    Some(broker)
}

/// The variables that hold what brokers with credentials ask for, and what they refuse.
fn passwords() -> Vec<(&'static str, String)> {
    [("PASSWORD", "tidegate-secret"), ("WRONG_PASSWORD", "another-secret"), ("GUEST", "guest-secret")]
        .map(|(variable, password)| (variable, password.to_owned()))
        .to_vec()
}

/// What follows the URL of a broker that asks for credentials over TLS: the user, with the password that a variable holds.
fn credentials(broker: &Broker, variable: &str) -> String {
    let ca = broker.folder().expect("the broker is ours").join("tls/ca.pem");
    let password = format!("{{secretKeyRef: {{name: {variable}}}}}");
    // One may do everything, the other nothing.
    let user = if variable == "GUEST" { "guest" } else { "tidegate" };
    format!(", credentials: {{user: {user}, password: {password}}}, tls: {{ca: '{}'}}", ca.display())
}

/// A gateway on the broker, as whoever owns its topics has one. It has few slots, which cost brokers work.
async fn owner(broker: &Broker, more: &str) -> (Home, Gateway) {
    let home = Home::new();
    let config = home.path().join("gateway.yaml");
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec: {{backbone: {{url: '{}', slots: 2{more}}}}}\n",
        broker.url()
    );
    std::fs::write(&config, text).expect("the folder is ours");
    let options = Options { config: Some(config), variables: passwords(), ..Options::default() };
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    (home, gateway)
}

/// Makes topics, and waits until they are there.
async fn make_topics(client: &Client, names: &[&str]) {
    let body = format!(r#"{{"partitions": {PARTITIONS}}}"#);
    for name in names {
        until("that the topic is there", async || {
            let made = client.send(http::Method::PUT, &format!("/topics/{name}"), &[], body.clone()).await;
            made.is_ok_and(|answer| matches!(answer.status, 200 | 201))
        })
        .await;
    }
}

/// Makes topics on a broker.
async fn topics_on(broker: &Broker, names: &[&str]) {
    let (_home, gateway) = owner(broker, "").await;
    make_topics(gateway.client(), names).await;
}

/// Why a topic is not told, where it is not.
async fn unavailable(client: &Client, topic: &str) -> Option<String> {
    let listed = client.get("/topics").await.unwrap().expect(200).json();
    let topics = listed["topics"].as_array().unwrap_or_else(|| panic!("topics are listed: {listed:#}")).clone();
    let shown = topics.into_iter().find(|shown| shown["name"] == topic)?;
    shown["unavailable"].as_str().map(str::to_owned)
}

/// Waits until so many requests came to a sink, however long it takes, as long as more come.
async fn arrived(sink: &Sink, wanted: usize) {
    let (mut seen, mut since) = (sink.count(), Instant::now());
    while seen < wanted {
        assert!(since.elapsed() < PATIENCE, "nothing more comes: {seen} of {wanted}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        if sink.count() > seen {
            (seen, since) = (sink.count(), Instant::now());
        }
    }
}
