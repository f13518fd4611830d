//! `/bindings` of a gateway whose broker is not there; how they stand where it is shows `tests/tests/bindings`.

use std::fs;

use http::Method;
use serde_json::json;

use super::{Answer, Gateway};

const RESOURCES: &str = "\
{apiVersion: tidegate.dev/v1, kind: Broker, metadata: {name: legacy}, spec: {url: 'amqp://127.0.0.1:1'}}
---
{apiVersion: tidegate.dev/v1, kind: Binding, metadata: {name: in}, spec: {broker: legacy, input: {queue: q, topic: t}}}
---
{apiVersion: tidegate.dev/v1, kind: Binding, metadata: {name: out}, spec: {broker: legacy, output: {exchange: e, routingKey: k}}}
---
{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {name: s}, spec: {topics: [t], sink: 'binding://out', delivery: {from: earliest}}}
";

#[tokio::test]
async fn bindings_are_told_with_why_they_wait() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("resources")).unwrap();
    fs::write(folder.path().join("resources/bindings.yaml"), RESOURCES).unwrap();
    let gateway = Gateway::start_in(folder).await;
    let state =
        |answer: &Answer| answer.body["status"]["reason"].as_str().is_some_and(|why| why.contains("no topic t"));
    gateway.until("/bindings/in", "that it waits for its topic", state).await;
    gateway.publish("t", "1").await;
    let state =
        |answer: &Answer| answer.body["status"]["reason"].as_str().is_some_and(|why| why.contains("cannot be reached"));
    let waits = gateway.until("/bindings/in", "that it waits for its broker", state).await.body;
    assert_eq!(waits["status"]["state"], "waiting", "{waits}");
    assert_eq!((&waits["direction"], &waits["queue"], &waits["topic"]), (&json!("input"), &json!("q"), &json!("t")));
    assert_eq!(waits["status"]["taken"], 0);
    let standing = |answer: &Answer| answer.body["status"]["standing"] == "unreachable";
    let stands = gateway.until("/subscriptions/s", "that its sink is waited for", standing).await.body;
    assert_eq!(stands["sink"], "binding://out");
    let state = |answer: &Answer| answer.body[1]["status"]["state"] == "waiting";
    let listed = gateway.until("/bindings", "that the output says so", state).await.body;
    assert_eq!((&listed[1]["exchange"], &listed[1]["routingKey"]), (&json!("e"), &json!("k")), "{listed}");
    let resumed = gateway.send(Method::POST, "/bindings/in/resume", "").await;
    assert_eq!((resumed.status.as_u16(), &resumed.body["name"]), (200, &json!("in")));
    for (method, path) in [(Method::GET, "/bindings/none"), (Method::POST, "/bindings/none/resume")] {
        let gone = gateway.send(method, path, "").await;
        assert_eq!((gone.status.as_u16(), gone.code()), (404, "binding-not-found"));
    }
    let metrics = gateway.send(Method::GET, "/metrics", "").await.body;
    assert!(metrics.as_str().unwrap().contains("tidegate_binding_running{binding=\"in\"} 0"), "{metrics}");
    gateway.stop().await;
}
