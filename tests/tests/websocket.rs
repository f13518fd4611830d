//! The WebSocket binding: events both ways, acknowledgements, and every way in which a connection ends.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tidegate_schemas::{Format, Limits};
use tidegate_tests::PATIENCE;
use tidegate_tests::client::Outgoing;
use tidegate_tests::gateway::Gateway;
use tidegate_tests::home::Home;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

struct Socket(WebSocketStream<TcpStream>);

/// Opens a WebSocket at the topic `t` with these header fields; where it is refused, gives the status and the problem.
async fn open(gateway: &Gateway, query: &str, fields: &[(&'static str, &str)]) -> Result<Socket, (u16, Value)> {
    let mut request = format!("ws://{}/topics/t/ws{query}", gateway.http()).into_client_request().unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(gateway.http()).await.expect("the gateway accepts");
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(Error::Http(response)) => {
            let problem =
                response.body().as_deref().map(|body| serde_json::from_slice(body).expect("a problem document"));
            Err((response.status().as_u16(), problem.unwrap_or_default()))
        }
        Err(other) => panic!("{other}"),
    }
}

async fn open_json(gateway: &Gateway, query: &str) -> Socket {
    let opened = open(gateway, query, &[("sec-websocket-protocol", "cloudevents.json")]).await;
    opened.unwrap_or_else(|refused| panic!("{refused:?}"))
}

impl Socket {
    async fn send(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).await.expect("the gateway reads");
    }

    async fn send_event(&mut self, id: &str) {
        self.send(event(id, "com.example.tested").to_string()).await;
    }

    /// The next message that is no ping.
    async fn next(&mut self) -> Message {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message comes");
            match next.expect("the connection is open").expect("the messages are whole") {
                Message::Ping(_) => {}
                other => return other,
            }
        }
    }

    async fn next_json(&mut self) -> Value {
        let message = self.next().await;
        let Message::Text(text) = &message else { panic!("{message:?}") };
        serde_json::from_str(text).expect("JSON")
    }

    /// The code and the reason with which the gateway ends the connection.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.next().await {
                let frame = frame.expect("a reason is given");
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }
}

fn event(id: &str, kind: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/ws", "type": kind, "partitionkey": "k", "data": {"n": id}})
}

/// The ids of what the topic holds, in order.
async fn stored(gateway: &Gateway) -> Vec<String> {
    let page = gateway.client().get("/topics/t/events?limit=1000").await.expect("an answer").expect(200).json();
    let ids = page.as_array().expect("a batch").iter().map(|event| event["id"].as_str().expect("an id").to_owned());
    ids.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_both_ways_and_are_acknowledged_in_order() {
    const EVENTS: usize = 500;
    let home = Home::new();
    let gateway = home.start().await;
    let mut reader = open_json(&gateway, "").await;
    let mut writer = open_json(&gateway, "?ack=true&follow=false").await;
    // All at once, so that many are being stored together.
    for number in 0..EVENTS {
        let message = Message::from(event(&number.to_string(), "com.example.tested").to_string());
        writer.0.feed(message).await.expect("the gateway reads");
    }
    writer.0.flush().await.expect("the gateway reads");
    for number in 0..EVENTS {
        let ack = writer.next_json().await;
        assert_eq!(ack["ack"]["message"], number + 1, "{ack}");
        let receipt = &ack["ack"]["receipt"];
        assert_eq!((&receipt["id"], &receipt["offset"]), (&number.to_string().into(), &number.into()), "{ack}");
        assert_eq!(receipt["durability"], "fsync", "{ack}");
    }
    for number in 0..EVENTS {
        assert_eq!(reader.next_json().await, event(&number.to_string(), "com.example.tested"));
    }
    // What is acknowledged is durable.
    gateway.kill().await;
    let gateway = home.start().await;
    assert_eq!(stored(&gateway).await, (0..EVENTS).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_comes_in_binary_frames_and_acknowledgements_in_text() {
    let home = Home::new();
    let gateway = home.start().await;
    let offers = "cloudevents.avro, cloudevents.proto, cloudevents.json";
    let mut socket =
        open(&gateway, "?ack=true", &[("sec-websocket-protocol", offers)]).await.unwrap_or_else(|it| panic!("{it:?}"));
    let limits = Limits::default();
    let event = Format::Json.read(event("1", "t").to_string().into(), &limits).unwrap();
    socket.send(Message::Binary(Format::Protobuf.write(&event))).await;
    let (mut events, mut acks) = (Vec::new(), Vec::new());
    while events.is_empty() || acks.is_empty() {
        match socket.next().await {
            Message::Binary(bytes) => events.push(Format::Protobuf.read(bytes, &limits).expect("an event")),
            Message::Text(text) => acks.push(serde_json::from_str::<Value>(&text).expect("an acknowledgement")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((events[0].id(), events[0].data().as_bytes()), (event.id(), event.data().as_bytes()));
    assert_eq!(acks[0]["ack"]["receipt"]["id"], "1");
    socket.send("text").await;
    assert_eq!(socket.closed().await.0, 1003);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_acknowledgements_a_bad_event_is_answered_and_without_it_ends_the_connection() {
    let home = Home::new();
    let gateway = home.start().await;
    let large = event(&"x".repeat(1 << 20), "t").to_string();
    let bad =
        [("{", "invalid-event"), (r#"{"specversion":"1.0","id":""}"#, "invalid-event"), (&large, "event-too-large")];
    let mut socket = open_json(&gateway, "?ack=true&follow=false").await;
    for (place, (message, code)) in bad.iter().enumerate() {
        socket.send(*message).await;
        let ack = socket.next_json().await;
        assert_eq!(
            (&ack["ack"]["message"], &ack["ack"]["problem"]["code"]),
            (&(place + 1).into(), &(*code).into()),
            "{ack}"
        );
    }
    socket.send_event("good-1").await;
    assert_eq!(socket.next_json().await["ack"]["receipt"]["id"], "good-1");

    for (message, code, status) in [(bad[0].0, "invalid-event", 4400), (bad[2].0, "event-too-large", 4413)] {
        let mut socket = open_json(&gateway, "?follow=false").await;
        socket.send_event("good-2").await;
        socket.send(message).await;
        let (closed, reason) = socket.closed().await;
        assert_eq!((closed, reason.starts_with(code)), (status, true), "{reason}");
    }
    // A control: with good events only, the same connection stays and a ping is answered.
    let mut socket = open_json(&gateway, "?follow=false").await;
    socket.send_event("good-3").await;
    socket.send(Message::Ping("x".into())).await;
    assert_eq!(socket.next().await, Message::Pong("x".into()));
    drop(socket);
    assert_eq!(stored(&gateway).await[..3], ["good-1", "good-2", "good-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_is_refused_clearly() {
    let home = Home::new();
    let gateway = home.start().await;
    let offer = ("sec-websocket-protocol", "cloudevents.json");
    let refused = async |query: &str, fields: &[(&'static str, &str)]| {
        let Err((status, problem)) = open(&gateway, query, fields).await else { panic!("{query} {fields:?}: taken") };
        assert_eq!(problem["status"], status, "{problem}");
        (status, problem["code"].as_str().expect("a code").to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(refused("", &[]).await, is(400, "invalid-argument"));
    assert_eq!(refused("", &[("sec-websocket-protocol", "cloudevents.avro")]).await, is(400, "invalid-argument"));
    assert_eq!(refused("?ack=yes", &[offer]).await, is(400, "invalid-argument"));
    assert_eq!(refused("?limit=1", &[offer]).await, is(400, "invalid-argument"));
    assert_eq!(refused("?filter=type%20%3D", &[offer]).await, is(400, "invalid-argument"));
    assert_eq!(refused("?partition=9", &[offer]).await, is(400, "invalid-argument"));
    assert_eq!(refused("", &[offer, ("origin", "https://evil.example")]).await, is(403, "foreign-origin"));
    let answer = gateway.client().get("/topics/t/ws").await.expect("an answer");
    assert_eq!(answer.expect_problem(&[426]), "upgrade-required");
    assert_eq!(answer.headers["upgrade"], "websocket");
    assert_eq!(answer.headers["sec-websocket-version"], "13");
    // The control: the same with a page of loopback is taken.
    assert!(open(&gateway, "", &[offer, ("origin", "http://localhost:8080")]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_followed_can_be_chosen() {
    let home = Home::new();
    let gateway = home.start().await;
    for (id, kind) in [("1", "a"), ("2", "b"), ("3", "a")] {
        let outgoing = Outgoing { id, kind, ..Outgoing::default() };
        gateway.client().publish("t", &outgoing).await.expect("an answer").expect(202);
    }
    let mut all = open_json(&gateway, "?from=earliest").await;
    let mut some = open_json(&gateway, "?from=earliest&filter=type%20%3D%20%27a%27").await;
    let mut behind = open_json(&gateway, "?from=2&partition=0").await;
    let mut later = open_json(&gateway, "").await;
    later.send(event("4", "a").to_string()).await;
    for (socket, expected) in [
        (&mut all, &["1", "2", "3", "4"][..]),
        (&mut some, &["1", "3", "4"]),
        (&mut behind, &["3", "4"]),
        (&mut later, &["4"]),
    ] {
        for id in expected {
            assert_eq!(socket.next_json().await["id"], *id);
        }
    }
    gateway.client().send(http::Method::DELETE, "/topics/t", &[], "").await.expect("an answer").expect(204);
    let (code, reason) = all.closed().await;
    assert!((4400..4600).contains(&code), "{code} {reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocol_faults_have_the_codes_of_the_protocol() {
    let home = Home::new();
    let gateway = home.start().await;
    let mut socket = open_json(&gateway, "?ack=true").await;
    socket.send(Message::Binary("{}".into())).await;
    assert_eq!(socket.closed().await.0, 1003);

    let mut socket = open_json(&gateway, "?ack=true").await;
    // The gateway refuses by the length that the frame announces, before all is sent.
    let _ = socket.0.send(Message::from("x".repeat((4 << 20) + 1))).await;
    assert_eq!(socket.closed().await.0, 1009);

    let mut socket = open_json(&gateway, "").await;
    socket.0.close(None).await.expect("the gateway reads");
    assert!(matches!(socket.next().await, Message::Close(_)), "a farewell is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_what_was_taken_and_says_that_it_goes() {
    let home = Home::new();
    let gateway = home.start().await;
    let mut idle = open_json(&gateway, "").await;
    let mut writer = open_json(&gateway, "?ack=true&follow=false").await;
    for number in 0..20 {
        writer.send_event(&number.to_string()).await;
    }
    assert_eq!(writer.next_json().await["ack"]["message"], 1);
    let metrics = gateway.client().get("/metrics").await.expect("an answer");
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(text.contains("\ntidegate_connections 3\n"), "two sockets and this request are counted: {text}");
    let stopping = tokio::spawn(gateway.terminate());
    let mut acknowledged = 1;
    let code = loop {
        match writer.next().await {
            Message::Text(_) => acknowledged += 1,
            Message::Close(frame) => break frame.expect("a reason").code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(code), 1001);
    assert_eq!(idle.closed().await.0, 1001);
    let status = stopping.await.expect("the task ends");
    assert!(status.success(), "{status}");
    let gateway = home.start().await;
    assert!(stored(&gateway).await.len() >= acknowledged, "{acknowledged} were acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_given_up() {
    let home = Home::new();
    let gateway = home.start().await;
    let _deaf = open_json(&gateway, "?from=earliest").await;
    let data = format!("\"{}\"", "x".repeat(800_000));
    // More than the sockets' buffers on both sides take.
    for number in 0..40 {
        let outgoing = Outgoing { id: &number.to_string(), data: &data, ..Outgoing::default() };
        gateway.client().publish("t", &outgoing).await.expect("an answer").expect(202);
    }
    let mut hearing = open_json(&gateway, "?from=earliest").await;
    for number in 0..40 {
        assert_eq!(hearing.next_json().await["id"], number.to_string(), "who reads is not delayed");
    }
    let closed = async {
        loop {
            let metrics = gateway.client().get("/metrics").await.expect("an answer");
            if String::from_utf8_lossy(&metrics.body).contains("reason=\"unread\"} 1") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the deaf client is given up");
    hearing.send_event("still-here").await;
    assert_eq!(hearing.next_json().await["id"], "still-here");
}
