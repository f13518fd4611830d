//! `publish`: what is sent, in which batches, and what is told of each event.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Invocation, Outcome, Server, invoke, problem};

fn receipt(id: &str) -> Value {
    json!({"id": id, "source": "s", "topic": "orders", "partition": 0, "offset": 7, "durability": "fsync"})
}

fn receipts(ids: impl IntoIterator<Item = impl AsRef<str>>) -> Answer {
    Answer::json(202, Value::Array(ids.into_iter().map(|id| receipt(id.as_ref())).collect()))
}

fn event(id: &str) -> String {
    format!("{{\"specversion\":\"1.0\", \"id\":\"{id}\",\"source\":\"s\",\"type\":\"t\"}}")
}

/// A file of that name in a folder that goes with the first of the pair.
fn file(name: &str, content: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

async fn publish_file(server: &Server, name: &str, content: &str) -> (Outcome, String) {
    let (_folder, path) = file(name, content);
    let path = path.to_str().unwrap();
    (invoke(&server.url, &["publish", "orders", "--file", path]).await, path.to_owned())
}

fn ids(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).unwrap();
    let events = body.as_array().cloned().unwrap_or_else(|| vec![body]);
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_event() {
    let server = Server::new([Answer::json(202, receipt("i"))]).await;
    let outcome = invoke(
        &server.url,
        &[
            "publish",
            "orders.v1",
            "--type",
            "t",
            "--source",
            "/s",
            "--subject",
            "u",
            "--key",
            "k",
            "--id",
            "i",
            "--data",
            "{\"b\": 1.0, \"a\": 2}",
        ],
    )
    .await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert_eq!(outcome.out, "i  orders  partition 0  offset 7  fsync\n");
    let request = &server.requests()[0];
    assert_eq!(request.line, "POST /topics/orders.v1");
    assert_eq!(request.header("content-type"), Some("application/cloudevents+json"));
    assert!(request.body.contains("{\"b\": 1.0, \"a\": 2}"), "the payload's text is kept: {}", request.body);
    let mut sent: Value = serde_json::from_str(&request.body).unwrap();
    assert!(sent["time"].take().as_str().unwrap().ends_with('Z'));
    assert_eq!(
        sent,
        json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "t", "subject": "u", "partitionkey": "k",
               "time": null, "datacontenttype": "application/json", "data": {"a": 2, "b": 1.0}})
    );
}

#[tokio::test]
async fn payloads_and_defaults() {
    let cases: [(&[&str], Value, Value); 6] = [
        (&[], Value::Null, Value::Null),
        (&["--data", "hello"], json!("text/plain"), json!("hello")),
        (&["--data", "17"], json!("application/json"), json!(17)),
        (&["--data", "17", "--content-type", "text/plain"], json!("text/plain"), json!("17")),
        (&["--data", "{}", "--content-type", "application/a+json"], json!("application/a+json"), json!({})),
        (&["--data", ""], json!("text/plain"), json!("")),
    ];
    for (arguments, content_type, data) in cases {
        let server = Server::new([Answer::json(202, receipt("i"))]).await;
        let outcome = invoke(&server.url, &[&["publish", "orders", "-o", "json"], arguments].concat()).await;
        assert_eq!((outcome.code, outcome.out), (0, format!("{}\n", receipt("i"))), "{arguments:?}");
        let sent: Value = serde_json::from_str(&server.requests()[0].body).unwrap();
        assert_eq!((&sent["datacontenttype"], &sent["data"]), (&content_type, &data), "{arguments:?}");
        assert_eq!((&sent["source"], &sent["type"]), (&json!("tidegate/cli"), &json!("tidegate.cli.published")));
        let id = sent["id"].as_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_names_the_id() {
    let server = Server::new([Answer::Break]).await;
    let outcome = invoke(&server.url, &["publish", "orders"]).await;
    let id = ids(&server.requests()[0].body).remove(0);
    assert_eq!(outcome.code, 3);
    assert!(outcome.err.contains(&format!("publishing it again with --id {id} is safe")), "{}", outcome.err);
    assert!(outcome.err.contains("error: outcome unknown: the connection to "), "{}", outcome.err);
}

#[tokio::test]
async fn lines_go_in_batches_and_in_order() {
    let all: Vec<String> = (0..1_201).map(|number| format!("e{number}")).collect();
    let content: String = all.iter().map(|id| event(id) + "\n\n").collect();
    let server = Server::new([receipts(&all[..500]), receipts(&all[500..1_000]), receipts(&all[1_000..])]).await;
    let (outcome, _) = publish_file(&server, "a.ndjson", &content).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert_eq!(outcome.out.lines().count(), 1_201);
    let requests = server.requests();
    assert!(requests.iter().all(|request| {
        request.header("content-type") == Some("application/cloudevents-batch+json")
            && request.line == "POST /topics/orders"
    }));
    let sent: Vec<String> = requests.iter().flat_map(|request| ids(&request.body)).collect();
    assert_eq!(sent, all);
    assert!(requests[0].body.starts_with(&format!("[{},", event("e0"))), "events are sent as they are written");
}

#[tokio::test]
async fn batches_are_bounded_in_bytes() {
    let large = |id: &str| event(id).replace('}', &format!(",\"data\":\"{}\"}}", "x".repeat(600 * 1024)));
    let content = format!("{}\n{}\n{}\n", large("1"), large("2"), event("3"));
    let server = Server::new([Answer::json(202, receipt("1")), receipts(["2", "3"])]).await;
    let (outcome, _) = publish_file(&server, "a.jsonl", &content).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let sent: Vec<_> = server.requests().iter().map(|request| ids(&request.body)).collect();
    assert_eq!(sent, [vec!["1"], vec!["2", "3"]]);
}

#[tokio::test]
async fn a_json_file_is_one_event_or_an_array() {
    let server = Server::new([Answer::json(202, receipt("1"))]).await;
    let (outcome, _) = publish_file(&server, "a.json", &format!("\u{feff}{}\n", event("1"))).await;
    assert_eq!((outcome.code, server.requests()[0].body.as_str()), (0, event("1").as_str()));
    let server = Server::new([receipts(["1", "2"])]).await;
    let (outcome, _) = publish_file(&server, "a.json", &format!("[\n{},\n{}\n]", event("1"), event("2"))).await;
    assert_eq!((outcome.code, ids(&server.requests()[0].body)), (0, vec!["1".to_owned(), "2".to_owned()]));
    // Nothing of a file is sent of which a part is faulty.
    let server = Server::new([]).await;
    let faulty = event("2").replace("\"s\"", "\"\"");
    let (outcome, path) = publish_file(&server, "a.json", &format!("[\n{},\n\n  {faulty}\n]", event("1"))).await;
    assert_eq!((outcome.code, server.requests().len()), (1, 0));
    assert!(outcome.err.contains(&format!("error: {path}:4: The event is not a valid CloudEvent\n  source: ")));
    let server = Server::new([]).await;
    let (outcome, path) = publish_file(&server, "a.json", "{\n  \"specversion\": \"1.0\",\n").await;
    assert_eq!((outcome.code, server.requests().len()), (1, 0));
    assert!(outcome.err.contains(&format!("error: {path}:3: not JSON")), "{}", outcome.err);
}

#[tokio::test]
async fn standard_input_is_events_or_payloads() {
    let server = Server::new([receipts(["1", "2", "3", "4"])]).await;
    let mut invocation = Invocation::new(&server.url, &["publish", "orders", "--file", "-", "--key", "k"]);
    invocation.stdin =
        b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}\n{\"a\":1}\r\n\nplain text\n[1]";
    let outcome = invocation.run().await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let sent: Value = serde_json::from_str(&server.requests()[0].body).unwrap();
    assert_eq!(sent[0], json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t"}));
    let data: Vec<_> = (1..4).map(|index| (&sent[index]["data"], &sent[index]["partitionkey"])).collect();
    let key = json!("k");
    assert_eq!(data, [(&json!({"a": 1}), &key), (&json!("plain text"), &key), (&json!([1]), &key)]);
    assert_eq!(sent[2]["datacontenttype"], "text/plain");
}

#[tokio::test]
async fn a_faulty_line_stops_it_and_what_came_before_is_published() {
    let cases = [
        ("a.ndjson", "not json", "not JSON: expected"),
        ("a.ndjson", "{\"specversion\":\"1.0\",\"id\":\"\"}", "The event is not a valid CloudEvent\n  "),
        ("a.ndjson", "{\"specversion\":\"0.3\"}", "The event is not a valid CloudEvent\n  "),
    ];
    for (name, line, told) in cases {
        let server = Server::new([Answer::json(202, receipt("1"))]).await;
        let (outcome, path) = publish_file(&server, name, &format!("{}\n\n{line}\n{}\n", event("1"), event("2"))).await;
        assert_eq!((outcome.code, outcome.out.lines().count()), (1, 1), "{line}");
        assert_eq!(server.requests().iter().flat_map(|request| ids(&request.body)).collect::<Vec<_>>(), ["1"]);
        let expected = format!("1 event published before the following error\nerror: {path}:3: {told}");
        assert!(outcome.err.starts_with(&expected), "{line}: {}", outcome.err);
    }
    let server = Server::new([]).await;
    let mut invocation = Invocation::new(&server.url, &["publish", "orders", "--file", "-"]);
    invocation.stdin = b"{\"specversion\":\"1.0\", \"id\"\n";
    let outcome = invocation.run().await;
    assert_eq!((outcome.code, server.requests().len()), (1, 0));
    assert!(outcome.err.contains("error: stdin:1: not JSON"), "{}", outcome.err);
}

#[tokio::test]
async fn the_refused_event_of_a_batch_is_found() {
    let violation = || problem(422, "schema-violation", "The data violates the topic's schema.", "amount is missing");
    let server =
        Server::new([violation(), Answer::json(202, receipt("1")), Answer::json(202, receipt("2")), violation()]).await;
    let content: String = ["1", "2", "3", "4"].map(|id| event(id) + "\n").concat();
    let (outcome, path) = publish_file(&server, "a.ndjson", &content).await;
    assert_eq!(outcome.code, 1);
    let sent: Vec<_> = server.requests().iter().map(|request| ids(&request.body).concat()).collect();
    assert_eq!(sent, ["1234", "1", "2", "3"]);
    assert_eq!(outcome.out.lines().count(), 2);
    assert_eq!(
        outcome.err,
        format!(
            "2 events published before the following error\nerror: {path}:3: The data violates the topic's schema: amount \
             is missing\n  see docs/errors.md#schema-violation\n"
        )
    );
}

#[tokio::test]
async fn partial_failures_are_told_per_event() {
    for (status, code, exit_code, fate) in
        [(503, "unavailable", 1, "not stored"), (504, "outcome-unknown", 3, "outcome unknown")]
    {
        let document = json!({"title": "T", "status": status, "code": code, "detail": "d",
                              "receipts": [receipt("1"), null, receipt("3")]});
        // A gateway that asks for patience does not have the whole batch again.
        let server = Server::new([Answer::problem(status, document).with("retry-after", "0")]).await;
        let content: String = ["1", "2", "3"].map(|id| event(id) + "\n").concat();
        let (outcome, path) = publish_file(&server, "a.ndjson", &content).await;
        assert_eq!((outcome.code, server.requests().len()), (exit_code, 1));
        let printed: Vec<&str> = outcome.out.lines().map(|line| &line[..1]).collect();
        assert_eq!(printed, ["1", "3"]);
        assert_eq!(
            outcome.err,
            format!(
                "{path}:2: {fate}: 2\n2 events published before the following error\nerror: {path}:2: T: d\n  see \
                 docs/errors.md#{code}\n"
            )
        );
    }
}

#[tokio::test]
async fn a_broken_connection_names_the_lines_in_doubt() {
    let server = Server::new([Answer::Break]).await;
    let content: String = ["1", "2", "3"].map(|id| event(id) + "\n").concat();
    let (outcome, path) = publish_file(&server, "a.ndjson", &content).await;
    assert_eq!(outcome.code, 3);
    assert!(outcome.err.contains(&format!("error: {path}:1-3: outcome unknown: ")), "{}", outcome.err);
}

#[tokio::test]
async fn a_busy_gateway_is_waited_for() {
    let busy = |status, code| problem(status, code, "Busy.", "").with("retry-after", "0");
    let server =
        Server::new([busy(429, "overloaded"), busy(503, "unavailable"), Answer::json(202, receipt("1"))]).await;
    let (outcome, _) = publish_file(&server, "a.ndjson", &event("1")).await;
    assert_eq!((outcome.code, server.requests().len()), (0, 3), "{}", outcome.err);
    // With an end.
    let server = Server::new((0..20).map(|_| busy(429, "overloaded"))).await;
    let (outcome, _) = publish_file(&server, "a.ndjson", &event("1")).await;
    assert_eq!((outcome.code, server.requests().len()), (1, 9), "{}", outcome.err);
}

#[tokio::test]
async fn files_that_cannot_be_published() {
    let server = Server::new([]).await;
    let (outcome, _) = publish_file(&server, "a.yaml", "").await;
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    let outcome = invoke(&server.url, &["publish", "orders", "--file", "/nonexistent/a.json"]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("/nonexistent/a.json: cannot be read"), "{}", outcome.err);
    assert_eq!(server.requests().len(), 0);
}
