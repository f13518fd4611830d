//! Bindings to queues and exchanges of others: their files, and what the gateway tells of them.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_conformance::Broker;

use crate::PATIENCE;
use crate::client::Client;
use crate::cluster::until;
use crate::subscriptions::Subscription;

/// A resource of one line.
pub fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!("---\n{{apiVersion: tidegate.dev/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n")
}

/// The broker as the resource `legacy`.
pub fn legacy(broker: &Broker) -> String {
    resource("Broker", "legacy", &format!("url: '{}'", broker.url()))
}

/// A binding of `legacy` that reads.
pub fn input(name: &str, spec: &str) -> String {
    resource("Binding", name, &format!("broker: legacy, input: {{{spec}}}"))
}

/// A binding of `legacy` that writes.
pub fn output(name: &str, spec: &str) -> String {
    resource("Binding", name, &format!("broker: legacy, output: {{{spec}}}"))
}

/// A subscription of a topic whose sink is a binding.
pub fn to(name: &str, topic: &str, binding: &str, delivery: &[&str]) -> String {
    let sink = format!("binding://{binding}");
    "---\n".to_owned() + &Subscription { name, topics: &[topic], filters: &[], sink: &sink, delivery }.yaml()
}

/// How a binding stands, as a gateway tells it.
///
/// # Panics
///
/// Where it tells nothing.
pub async fn status(client: &Client, name: &str) -> Value {
    let shown = client.get(&format!("/bindings/{name}")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    shown.expect(200).json()["status"].clone()
}

/// Waits until a binding stands like that, and gives how it stands.
///
/// # Panics
///
/// Where it never does.
pub async fn wait_for(client: &Client, name: &str, state: &str) -> Value {
    until(&format!("that {name} is {state}"), async || status(client, name).await["state"] == state).await;
    status(client, name).await
}

/// The events of a topic in their order, at least so many, for which it waits.
///
/// # Panics
///
/// Where they never come.
pub async fn events(client: &Client, topic: &str, count: usize) -> Vec<Value> {
    let began = Instant::now();
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
