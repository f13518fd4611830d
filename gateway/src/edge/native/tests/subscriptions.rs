//! `/subscriptions` as clients of the CloudEvents Subscriptions API use it.

use std::fs;

use http::Method;
use serde_json::{Value, json};

use super::{Gateway, Sink};
use crate::sink::AddressPolicy;

fn wanted(sink: &str) -> Value {
    json!({
        "id": "large", "protocol": "HTTP", "sink": sink, "types": ["a", "b"], "source": "/shop",
        "filters": [{"sql": "amount > 100"}],
        "config": {"topics": ["orders.*"], "delivery": {
            "order": "none", "maxInFlight": 7, "timeout": "3s", "deadLetterTopic": "lost", "from": "earliest",
            "retry": {"maxAttempts": 2, "maxAge": "1h", "initial": "2s", "max": "1m"}
        }}
    })
}

fn file(sink: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: of-file}}\nspec:\n  topics: [orders]\n  sink: {sink}\n  \
         delivery: {{from: earliest}}\n"
    )
}

#[tokio::test]
async fn a_subscription_is_created_changed_and_deleted() {
    let gateway = Gateway::start().await;
    let body = wanted("https://example.com/a");
    let created = gateway.send(Method::POST, "/subscriptions", body.to_string()).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.headers["location"], "/subscriptions/large");
    let shown = gateway.send(Method::GET, "/subscriptions/large", "").await;
    let tag = shown.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(created.headers["etag"], *tag);
    assert_eq!(shown.body["origin"], "api");
    assert_eq!(
        shown.body["filters"],
        json!([{"exact": {"source": "/shop"}}, {"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}, {"sql": "amount > 100"}])
    );
    for (key, value) in body["config"]["delivery"].as_object().unwrap() {
        assert_eq!(&shown.body["config"]["delivery"][key], value, "{key}");
    }

    // What is shown can be sent back, and is the same.
    let again = gateway.send(Method::PUT, "/subscriptions/large", shown.body.to_string()).await;
    assert_eq!((again.status.as_u16(), again.headers["etag"].to_str().unwrap()), (200, &*tag), "{again:?}");
    let twice = gateway.send(Method::POST, "/subscriptions", body.to_string()).await;
    assert_eq!((twice.status.as_u16(), twice.code()), (409, "conflict"));

    let changed = json!({"sink": "https://example.com/b", "config": {"topics": ["orders.*"]}}).to_string();
    let put = |headers: &'static [(&'static str, &'static str)], body: String| {
        let gateway = &gateway;
        async move { gateway.send_with(Method::PUT, "/subscriptions/large", headers, body).await }
    };
    assert_eq!(put(&[("if-match", "\"0000000000000000\"")], changed.clone()).await.code(), "precondition-failed");
    assert_eq!(put(&[("if-none-match", "*")], changed.clone()).await.code(), "precondition-failed");
    assert_eq!(put(&[("if-match", "unquoted")], changed.clone()).await.code(), "invalid-argument");
    let matched = gateway.send_with(Method::PUT, "/subscriptions/large", &[("if-match", &tag)], changed.clone()).await;
    assert_eq!(matched.status, 200, "{matched:?}");
    assert_ne!(matched.headers["etag"], *tag);
    let stale = gateway.send_with(Method::DELETE, "/subscriptions/large", &[("if-match", &tag)], "").await;
    assert_eq!(stale.code(), "precondition-failed");

    let generated = gateway.send(Method::POST, "/subscriptions", changed.clone()).await;
    let id = generated.body["id"].as_str().unwrap().to_owned();
    assert_eq!(generated.headers["location"], *format!("/subscriptions/{id}"));

    // Both survive a restart as they are.
    let gateway = Gateway::start_in(gateway.stop().await).await;
    let restarted = gateway.send(Method::GET, "/subscriptions/large", "").await;
    assert_eq!(restarted.headers["etag"], matched.headers["etag"]);
    let listed = |path: &'static str| {
        let gateway = &gateway;
        async move {
            let answer = gateway.send(Method::GET, path, "").await;
            let ids: Vec<String> = answer.body.as_array().unwrap().iter().map(|one| one["id"].to_string()).collect();
            (ids, answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned()))
        }
    };
    let (all, _) = listed("/subscriptions").await;
    assert_eq!(all.len(), 2);
    assert_eq!(listed("/subscriptions?topic=none").await.0.len(), 0);
    let (first, link) = listed("/subscriptions?limit=1&topic=orders.a").await;
    assert_eq!(first, all[..1]);
    assert_eq!(link.unwrap(), "</subscriptions?after=large&limit=1&topic=orders.a>; rel=\"next\"");
    assert_eq!(listed("/subscriptions?after=large").await, (all[1..].to_vec(), None));

    assert_eq!(gateway.send(Method::DELETE, "/subscriptions/large", "").await.status, 204);
    let gone = gateway.send(Method::DELETE, "/subscriptions/large", "").await;
    assert_eq!((gone.status.as_u16(), gone.code()), (404, "subscription-not-found"));
    let only_if_there = gateway.send_with(Method::PUT, "/subscriptions/large", &[("if-match", "*")], changed).await;
    assert_eq!(only_if_there.code(), "precondition-failed");
    gateway.stop().await;
}

#[tokio::test]
async fn faults_are_told_at_once_with_their_pointers() {
    let gateway = Gateway::start().await;
    let mut body = wanted("ftp://x");
    body["config"]["delivery"]["maxInFlght"] = json!(3);
    body["typs"] = json!([]);
    let refused = gateway.send(Method::POST, "/subscriptions", body.to_string()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid-resource"), "{refused:?}");
    let faults = refused.body["faults"].as_array().unwrap();
    let of = |pointer: &str| faults.iter().find(|fault| fault["attribute"] == pointer).map(|fault| &fault["reason"]);
    assert!(of("/sink").is_some(), "{faults:?}");
    assert!(of("/typs").unwrap().as_str().unwrap().contains("did you mean `types`?"), "{faults:?}");
    assert!(of("/config/delivery/maxInFlght").unwrap().as_str().unwrap().contains("`maxInFlight`"), "{faults:?}");
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(gateway.send(Method::GET, "/subscriptions/large", "").await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_file_owns_changes_only_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("resources")).unwrap();
    fs::write(folder.path().join("resources/shop.yaml"), file("http://127.0.0.1:9/")).unwrap();
    let gateway = Gateway::start_in(folder).await;
    let body = json!({"id": "of-file", "sink": "https://example.com", "config": {"topics": ["orders"]}}).to_string();
    for (method, path) in [
        (Method::POST, "/subscriptions"),
        (Method::PUT, "/subscriptions/of-file"),
        (Method::DELETE, "/subscriptions/of-file"),
    ] {
        let refused = gateway.send(method.clone(), path, body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "owned-by-file"), "{method} {path}");
        assert!(refused.body["detail"].as_str().unwrap().contains("shop.yaml"), "{refused:?}");
    }
    let created = gateway.send(Method::POST, "/subscriptions", body.replace("of-file", "mine")).await;
    assert_eq!(created.status, 201, "{created:?}");
    // The files are applied again, and none of them names the subscription that a request created.
    let gateway = Gateway::start_in(gateway.stop().await).await;
    assert_eq!(gateway.send(Method::GET, "/subscriptions/mine", "").await.status, 200);
    let folder = gateway.stop().await;
    fs::remove_file(folder.path().join("resources/shop.yaml")).unwrap();
    let gateway = Gateway::start_in(folder).await;
    assert_eq!(gateway.send(Method::GET, "/subscriptions/of-file", "").await.status, 404);
    assert_eq!(gateway.send(Method::GET, "/subscriptions/mine", "").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn requests_may_not_make_the_gateway_call_private_addresses() {
    let sink = Sink::answering(|_| 204).await;
    let create = |id: &str, host: &str| {
        let sink = format!("http://{host}:{}/", sink.port);
        json!({"id": id, "sink": sink, "config": {"topics": ["orders"], "delivery": {"from": "earliest"}}}).to_string()
    };
    let gateway = Gateway::start().await;
    for host in ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"] {
        let refused = gateway.send(Method::POST, "/subscriptions", create("s", host)).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (403, "forbidden"), "{host}");
        assert!(refused.body["detail"].as_str().unwrap().contains("privateSinks"), "{refused:?}");
    }
    // A name tells its address only when it is resolved: this one is 127.0.0.1 to every resolver.
    assert_eq!(gateway.send(Method::POST, "/subscriptions", create("hidden", "2130706433")).await.status, 201);
    gateway.publish("orders", "1").await;
    let paused = |answer: &super::Answer| answer.body["status"]["standing"] == "paused";
    let stopped = gateway.until("/subscriptions/hidden", "the subscription was paused", paused).await;
    let reason = stopped.body["status"]["reason"].as_str().unwrap();
    assert!(reason.contains("127.0.0.1, which is not public"), "{reason}");
    assert_eq!(sink.requests().len(), 0);

    // The control: the same events reach the same sink from a file, and where the gateway is configured for it.
    let folder = gateway.stop().await;
    fs::create_dir(folder.path().join("resources")).unwrap();
    let yaml = file(&format!("http://127.0.0.1:{}/", sink.port));
    fs::write(folder.path().join("resources/a.yaml"), yaml).unwrap();
    let gateway = Gateway::start_in(folder).await;
    sink.wait_for(1).await;
    let gateway = Gateway::start_with(gateway.stop().await, AddressPolicy::PublicOrLoopback).await;
    assert_eq!(gateway.send(Method::POST, "/subscriptions", create("near", "127.0.0.1")).await.status, 201);
    sink.wait_for(2).await;
    let refused = gateway.send(Method::POST, "/subscriptions", create("s", "10.0.0.1")).await;
    assert_eq!(refused.code(), "forbidden");
    gateway.stop().await;
}
