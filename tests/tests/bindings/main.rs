//! Queues and exchanges of somebody else's on RabbitMQ as sinks and as sources; see docs/bindings.md.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod dead_letters;
mod faults;
mod inputs;
mod outputs;
mod somebody;

use std::time::Duration;

use serde_json::Value;
use tidegate_conformance::Broker;
use tidegate_tests::PATIENCE;
use tidegate_tests::client::Client;
use tidegate_tests::cluster::{broker, until};
use tokio::sync::OnceCell;

/// A broker that the tests share which leave it running.
async fn shared() -> Option<&'static Broker> {
    static SHARED: OnceCell<Option<Broker>> = OnceCell::const_new();
    SHARED.get_or_init(|| broker("rabbitmq")).await.as_ref()
}

/// How a binding stands, as a gateway tells it.
async fn status(client: &Client, name: &str) -> Value {
    let shown = client.get(&format!("/bindings/{name}")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    shown.expect(200).json()["status"].clone()
}

/// Waits until a binding stands like that, and gives how it stands.
async fn wait_for(client: &Client, name: &str, state: &str) -> Value {
    until(&format!("that {name} is {state}"), async || status(client, name).await["state"] == state).await;
    status(client, name).await
}

/// The events of a topic in their order, at least so many, for which it waits.
async fn events(client: &Client, topic: &str, count: usize) -> Vec<Value> {
    let began = std::time::Instant::now();
    loop {
        let read = client.get(&format!("/topics/{topic}/events?from=earliest&limit=1000")).await;
        let answer = read.unwrap_or_else(|error| panic!("{topic}: {error}"));
        // One that nothing was published to yet is not there yet.
        if answer.status == 200 {
            let events = answer.json().as_array().expect("a batch is an array").clone();
            if events.len() >= count {
                return events;
            }
        }
        assert!(began.elapsed() < PATIENCE, "{topic} has no {count} events: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn input(name: &str, spec: &str) -> String {
    resource("Binding", name, &format!("broker: legacy, input: {{{spec}}}"))
}

/// A resource of one line.
fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!("---\n{{apiVersion: tidegate.dev/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n")
}

/// The broker as the resource `legacy`.
fn legacy(broker: &Broker) -> String {
    resource("Broker", "legacy", &format!("url: '{}'", broker.url()))
}
