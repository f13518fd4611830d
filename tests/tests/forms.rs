//! The forms in which events come and go over HTTP: protobuf, lines, what `Accept` prefers, and server-sent events.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidegate_schemas::sse::{Message, Parser};
use tidegate_schemas::{Data, Event, Format, Limits, protobuf};
use tidegate_tests::PATIENCE;
use tidegate_tests::client::Outgoing;
use tidegate_tests::gateway::Gateway;
use tidegate_tests::home::Home;
use tokio::net::TcpStream;

fn event(id: &str) -> Event {
    let builder = Event::builder(id, "/forms", "com.example.tested").data_content_type("application/json");
    builder.data(Data::Json(Bytes::from_static(br#"{"a":  1}"#))).build().expect("a valid event")
}

async fn read(gateway: &Gateway, accept: &str) -> tidegate_tests::client::Answer {
    let headers = [("accept", accept)];
    gateway.client().send(Method::GET, "/topics/t/events", &headers, Bytes::new()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_goes_in_and_comes_out() {
    let home = Home::new();
    let gateway = home.start().await;
    let events = [event("1"), event("2"), event("3")];
    let post = async |media_type: &str, body: Bytes| {
        gateway.client().post("/topics/t", &[("content-type", media_type)], body).await.expect("an answer")
    };
    let receipt = post(protobuf::EVENT_MEDIA_TYPE, Format::Protobuf.write(&events[0])).await.expect(202).json();
    assert_eq!((&receipt["id"], &receipt["offset"]), (&"1".into(), &0.into()));
    let batch = Format::Protobuf.write_batch(&events[1..]);
    let receipts = post(protobuf::BATCH_MEDIA_TYPE, batch).await.expect(202).json();
    assert_eq!((receipts.as_array().map(Vec::len), &receipts[1]["id"]), (Some(2), &"3".into()));

    let faulty = post(protobuf::EVENT_MEDIA_TYPE, Bytes::from_static(b"\x0a\x01x\x1a\x030.3")).await;
    assert_eq!(faulty.expect_problem(&[400]), "invalid-event");
    let faults = faulty.json()["faults"].as_array().expect("faults").len();
    assert_eq!(faults, 3, "source, type and specversion: {faulty}");
    assert_eq!(
        post(protobuf::EVENT_MEDIA_TYPE, Bytes::from_static(b"\x0a")).await.expect_problem(&[400]),
        "invalid-event"
    );
    assert_eq!(
        post("application/cloudevents+avro", Bytes::new()).await.expect_problem(&[415]),
        "unsupported-media-type"
    );

    let answer = read(&gateway, "application/cloudevents-batch+protobuf").await.expect(200);
    assert_eq!(answer.media_type(), protobuf::BATCH_MEDIA_TYPE);
    assert_eq!(protobuf::read_batch(answer.body.clone(), &Limits::default()).as_deref(), Ok(&events[..]));
    assert!(answer.headers.contains_key("tidegate-position"));
    let as_json = read(&gateway, "*/*").await.expect(200);
    assert_eq!(Format::Json.read_batch(as_json.body, &Limits::default()).as_deref(), Ok(&events[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accept_is_honoured_by_its_weights() {
    let home = Home::new();
    let gateway = home.start().await;
    let event = Outgoing::default();
    gateway.client().publish("t", &event).await.expect("an answer").expect(202);
    let (json, protobuf, lines) =
        ("application/cloudevents-batch+json", "application/cloudevents-batch+protobuf", "application/x-ndjson");
    for (accept, expected) in [
        (format!("{json};q=0.1, {protobuf};q=0.9, {lines};q=0.5"), protobuf),
        (format!("{protobuf};q=0, {lines};q=0.001, text/html"), lines),
        (format!("text/html, {lines};q=0.9, */*;q=0.8"), lines),
        (format!("{protobuf}, {json}"), protobuf),
        ("text/html, application/*;q=0.1".to_owned(), json),
    ] {
        let answer = read(&gateway, &accept).await.expect(200);
        assert_eq!(answer.media_type(), expected, "{accept}");
    }
    for accept in ["text/html", "application/cloudevents-batch+avro", "*/*;q=0"] {
        assert_eq!(read(&gateway, accept).await.expect_problem(&[406]), "not-acceptable", "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_published_as_a_batch_is() {
    let home = Home::new();
    let gateway = home.start().await;
    let line = |id: &str| String::from_utf8(Format::Json.write(&event(id)).to_vec()).expect("JSON is UTF-8");
    let post = async |headers: &[(&str, &str)], body: String| {
        gateway.client().post("/topics/t", headers, body).await.expect("an answer")
    };
    let lines = [("content-type", "application/x-ndjson")];
    let receipts = post(&lines, format!("{}\n\n{}\r\n{}", line("1"), line("2"), line("3"))).await.expect(202).json();
    let ids: Vec<&Value> = receipts.as_array().expect("an array").iter().map(|receipt| &receipt["id"]).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    let refused = post(&lines, format!("{}\n{{\n{{\"id\":\"\"}}\n", line("4"))).await;
    assert_eq!(refused.expect_problem(&[400]), "invalid-event");
    let faults = refused.json();
    let named: Vec<&str> =
        faults["faults"].as_array().expect("faults").iter().filter_map(|it| it["attribute"].as_str()).collect();
    assert_eq!(named, ["1", "2.specversion", "2.id", "2.source", "2.type"], "{faults}");
    // With the headers of an event the lines are its data.
    let event = [lines[0], ("ce-specversion", "1.0"), ("ce-id", "5"), ("ce-source", "/s"), ("ce-type", "t")];
    assert_eq!(post(&event, "{\"a\":1}\n{\"b\":2}\n".to_owned()).await.expect(202).json()["id"], "5");
    let stored = read(&gateway, "*/*").await.expect(200).json();
    let ids: Vec<&Value> = stored.as_array().expect("a batch").iter().map(|event| &event["id"]).collect();
    assert_eq!(ids, ["1", "2", "3", "5"], "nothing of the refused lines is stored");
}

/// A stream of server-sent events.
struct Stream {
    body: Incoming,
    parser: Parser,
    rest: Bytes,
    comments: usize,
}

impl Stream {
    async fn open(gateway: &Gateway, query: &str, last_event_id: Option<&str>) -> Self {
        let stream = TcpStream::connect(gateway.http()).await.expect("the gateway accepts");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("/topics/t/events{query}"))
            .header("host", gateway.http().to_string())
            .header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response =
            sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), parser: Parser::new(1 << 20), rest: Bytes::new(), comments: 0 }
    }

    /// More bytes; nothing at the end of the stream.
    async fn fill(&mut self) -> Option<()> {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the stream goes on")?;
        self.rest = frame.ok()?.into_data().ok()?;
        self.comments += usize::from(self.rest.starts_with(b":"));
        Some(())
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            let (taken, message) = self.parser.feed(&self.rest).expect("messages are bounded");
            self.rest = self.rest.slice(taken..);
            match message {
                Some(message) => return Some(message),
                None => self.fill().await?,
            }
        }
    }

    async fn next_id(&mut self) -> String {
        let message = self.next().await.expect("an event");
        assert_eq!(message.kind, "cloudevent", "{message:?}");
        let event: Value = serde_json::from_str(&message.data).expect("an event in JSON");
        event["id"].as_str().expect("an id").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_resumes_where_it_was_and_keeps_its_filter() {
    let home = Home::new();
    let gateway = home.start().await;
    let publish = async |gateway: &Gateway, from: usize| {
        for number in from..from + 6 {
            let kind = if number % 2 == 0 { "even" } else { "odd" };
            let event = Outgoing { id: &number.to_string(), kind, ..Outgoing::default() };
            gateway.client().publish("t", &event).await.expect("an answer").expect(202);
        }
    };
    publish(&gateway, 0).await;
    let query = "?from=earliest&filter=type%20%3D%20%27odd%27";
    let mut stream = Stream::open(&gateway, query, None).await;
    assert_eq!((stream.next_id().await, stream.next_id().await), ("1".to_owned(), "3".to_owned()));
    let seen = stream.parser.last_id().expect("an id").to_owned();
    drop(stream);
    publish(&gateway, 6).await;
    // The id holds over a restart, and wins over `from`.
    gateway.kill().await;
    let gateway = home.start().await;
    let mut stream = Stream::open(&gateway, query, Some(&seen)).await;
    for expected in ["5", "7", "9", "11"] {
        assert_eq!(stream.next_id().await, expected);
    }
    // The control: without the id it begins anew.
    assert_eq!(Stream::open(&gateway, query, None).await.next_id().await, "1");
    let refused = gateway.client().send(
        Method::GET,
        "/topics/t/events",
        &[("accept", "text/event-stream"), ("last-event-id", "nonsense")],
        Bytes::new(),
    );
    assert_eq!(refused.await.expect("an answer").expect_problem(&[400]), "invalid-argument");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_why_it_ends_and_that_it_lives() {
    let home = Home::new();
    let gateway = home.start().await;
    gateway.client().publish("t", &Outgoing::default()).await.expect("an answer").expect(202);
    let mut stream = Stream::open(&gateway, "", None).await;
    // One comment at once, so that a client sees that it is connected, and another when nothing else has come.
    while stream.comments < 2 {
        stream.fill().await.expect("the stream stays open");
    }
    let deleted = gateway.client().send(Method::DELETE, "/topics/t", &[], Bytes::new());
    deleted.await.expect("an answer").expect(204);
    let message = stream.next().await.expect("a reason");
    assert_eq!(message.kind, "problem", "{message:?}");
    let problem: Value = serde_json::from_str(&message.data).expect("a problem document");
    assert!(problem["code"].is_string() && problem["status"].is_u64(), "{problem}");
    assert_eq!(stream.next().await, None, "the stream ends behind its reason");
}
