//! A client of NATS that asks for no acknowledgement: the control of what the gateway promises on the same server.

use async_nats::Client;
use serde_json::{Value, json};
use tidegate_conformance::Broker;
use tidegate_tests::cluster::until;

async fn ask(client: &Client, subject: &str, body: &Value) -> Option<Value> {
    let answer = client.request(format!("$JS.API.{subject}"), body.to_string().into()).await.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    answer["error"].is_null().then_some(answer)
}

/// A client with a stream of its own, which stores what is sent to `bare`.
pub(super) async fn stream(broker: &Broker) -> Client {
    let client = async_nats::connect(broker.url()).await.expect("the server runs");
    let body = json!({ "name": "BARE", "subjects": ["bare"] });
    assert!(ask(&client, "STREAM.CREATE.BARE", &body).await.is_some(), "the stream is created");
    client
}

/// Publishes messages of that length; each is told as taken.
pub(super) async fn publish(client: &Client, messages: u64, bytes: usize) {
    for _ in 0..messages {
        client.publish("bare", vec![b'x'; bytes].into()).await.expect("the client takes it");
    }
    client.flush().await.expect("the server takes it");
}

/// How many messages the stream holds, once it can be asked.
pub(super) async fn held(client: &Client) -> u64 {
    let mut held = None;
    until("that the stream tells what it holds", async || {
        let info = ask(client, "STREAM.INFO.BARE", &json!({})).await;
        held = info.and_then(|info| info["state"]["messages"].as_u64());
        held.is_some()
    })
    .await;
    held.expect("it was told")
}
