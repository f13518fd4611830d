//! Web hooks from both sides: asking a sink for its consent, answering a sender that asks, and what is shown of how
//! requests are made. Retention beside it, as far as the API tells of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::Gateway;

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sink that answers each request with the text for its method, and keeps the heads of requests.
struct Sink {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    consent: Arc<Mutex<&'static str>>,
    server: tokio::task::JoinHandle<()>,
}

impl Sink {
    async fn start(consent: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let consent = Arc::new(Mutex::new(consent));
        let (seen, answer) = (Arc::clone(&requests), Arc::clone(&consent));
        #[expect(clippy::disallowed_methods, reason = "a server of a test, which aborts it")]
        let server = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let asks = head.starts_with("OPTIONS");
                seen.lock().push(head);
                let text = if asks { answer.lock().to_owned() } else { "HTTP/1.1 204 No Content\r\n".to_owned() };
                let _ = stream.write_all(format!("{text}connection: close\r\n\r\n").as_bytes()).await;
                // The body is thrown away, so that closing does not reset the answer.
                let _ = stream.shutdown().await;
                let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
            }
        });
        Self { address, requests, consent, server }
    }

    fn methods(&self) -> Vec<String> {
        let first = |head: &String| head.split(' ').next().unwrap_or_default().to_owned();
        self.requests.lock().iter().map(first).collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"));
}

async fn gateway(sink: &Sink, lines: &str) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("resources")).unwrap();
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: s}}\nspec:\n  topics: [t]\n  sink: http://{}/hook\n{lines}\n---\n{{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {{name: t}}}}\n",
        sink.address
    );
    std::fs::write(folder.path().join("resources/s.yaml"), text).unwrap();
    Gateway::start_in(folder).await
}

async fn publish(gateway: &Gateway, count: usize) {
    for number in 0..count {
        let answer = gateway.send(Method::POST, "/topics/t?type=x", format!("{{\"n\": {number}}}")).await;
        assert_eq!(answer.status.as_u16(), 202, "{answer:?}");
    }
}

const HANDSHAKE: &str = "  handshake: {origin: events.example.com, rate: 600}\n  headers: {X-Tenant: north-side}";
const YES: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nwebhook-allowed-origin: events.example.com\r\nwebhook-allowed-rate: *\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_asked_once_before_the_first_event() {
    let sink = Sink::start(YES).await;
    let gateway = gateway(&sink, HANDSHAKE).await;
    publish(&gateway, 5).await;
    until("all events", async || sink.methods().len() == 6).await;
    assert_eq!(sink.methods(), ["OPTIONS", "POST", "POST", "POST", "POST", "POST"]);
    let requests = sink.requests.lock().clone();
    for (index, request) in requests.iter().enumerate() {
        let header = |line: &str| request.lines().any(|other| other.eq_ignore_ascii_case(line));
        assert!(header("webhook-request-origin: events.example.com"), "{request}");
        assert!(header("x-tenant: north-side"), "{request}");
        assert_eq!(header("webhook-request-rate: 600"), index == 0, "{request}");
        assert!(request.contains(" /hook HTTP/1.1"), "{request}");
    }
    let answer = gateway.send(Method::GET, "/subscriptions/s", "").await;
    assert_eq!(answer.body["config"]["handshake"]["origin"], "events.example.com");
    assert_eq!(answer.body["protocolsettings"]["headers"]["x-tenant"], "[redacted]");
    assert!(!answer.body.to_string().contains("north-side"), "{answer:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_does_not_consent_is_sent_nothing_until_it_does() {
    let sink = Sink::start("HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n").await;
    let gateway = gateway(&sink, HANDSHAKE).await;
    publish(&gateway, 3).await;
    let mut status = serde_json::Value::Null;
    until("the pause", async || {
        status = gateway.send(Method::GET, "/subscriptions/s", "").await.body["status"].clone();
        status["standing"] == "paused"
    })
    .await;
    let reason = status["reason"].as_str().unwrap();
    for words in ["handshake-refused", "no WebHook-Allowed-Origin", "status 405", "then resume"] {
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(sink.methods(), ["OPTIONS"], "an event was sent without consent");
    *sink.consent.lock() = YES;
    assert_eq!(gateway.send(Method::POST, "/subscriptions/s/resume", "").await.status.as_u16(), 200);
    until("all events", async || sink.methods().len() == 5).await;
    assert_eq!(sink.methods(), ["OPTIONS", "OPTIONS", "POST", "POST", "POST"], "nothing was lost");
    let letters = gateway.send(Method::GET, "/subscriptions/s/dead-letters", "").await;
    assert_eq!(letters.body["deadLetters"].as_array().map(Vec::len), Some(0), "{letters:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_that_a_sink_allows_is_kept() {
    let sink =
        Sink::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: 1\r\n")
            .await;
    let gateway = gateway(&sink, HANDSHAKE).await;
    publish(&gateway, 3).await;
    until("the first event", async || sink.methods().len() == 2).await;
    // The next would be due in a minute; one that did not wait would be there long before this.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(sink.methods(), ["OPTIONS", "POST"]);
    gateway.stop().await;
}

#[tokio::test]
async fn senders_of_web_hooks_get_consent_where_they_may_publish() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.send(Method::PUT, "/topics/orders", "").await.status.as_u16(), 201);
    let ask = async |path: &str, headers: &[(&str, &str)]| gateway.send_with(Method::OPTIONS, path, headers, "").await;
    let origin = ("webhook-request-origin", "eventgrid.azure.net");
    let answer = ask("/topics/orders", &[origin, ("webhook-request-rate", "120")]).await;
    assert_eq!(answer.status.as_u16(), 204, "{answer:?}");
    assert_eq!(answer.headers["webhook-allowed-origin"], "eventgrid.azure.net");
    assert_eq!(answer.headers["webhook-allowed-rate"], "*");
    assert!(answer.headers["allow"].to_str().unwrap().contains("POST"));
    for (path, headers, code) in [
        ("/topics/orders", &[][..], "method-not-allowed"),
        ("/topics/none-such", &[origin][..], "topic-not-found"),
        ("/events", &[origin][..], "topic-not-found"),
        ("/topics/tidegate.x", &[origin][..], "forbidden"),
        ("/topics/orders", &[origin, ("webhook-request-origin", "b")][..], "invalid-argument"),
        ("/topics/orders", &[origin, ("origin", "https://evil.example")][..], "foreign-origin"),
    ] {
        let answer = ask(path, headers).await;
        assert_eq!(answer.code(), code, "{path} {headers:?}");
        assert!(!answer.headers.contains_key("webhook-allowed-origin"), "{answer:?}");
    }
    assert_eq!(gateway.send(Method::PUT, "/topics/events", "").await.status.as_u16(), 201);
    assert_eq!(ask("/events", &[origin]).await.status.as_u16(), 204);
    gateway.stop().await;
}

#[tokio::test]
async fn retention_is_set_shown_and_told_where_it_took_what_is_asked_for() {
    let gateway = Gateway::start().await;
    let shown = async |path: &str| gateway.send(Method::GET, path, "").await.body["retention"].clone();
    assert_eq!(gateway.send(Method::PUT, "/topics/plain", "").await.status.as_u16(), 201);
    assert_eq!(shown("/topics/plain").await, serde_json::json!({"age": "7d", "bytes": "unlimited"}));
    let wanted = r#"{"retention": {"age": "1s", "bytes": "10GiB"}}"#;
    assert_eq!(gateway.send(Method::PUT, "/topics/t", wanted).await.status.as_u16(), 201);
    assert_eq!(shown("/topics/t").await, serde_json::json!({"age": "1s", "bytes": "10GiB"}));
    // What a change does not name stays: the default age would take events that somebody meant to keep.
    for change in ["", r#"{"dedupe": {"window": "5m"}}"#, r#"{"retention": {"bytes": "10GiB"}}"#] {
        assert_eq!(gateway.send(Method::PUT, "/topics/t", change).await.status.as_u16(), 200, "{change}");
        assert_eq!(shown("/topics/t").await, serde_json::json!({"age": "1s", "bytes": "10GiB"}), "{change}");
    }
    let dedupe = gateway.send(Method::GET, "/topics/t", "").await.body["dedupe"]["window"].clone();
    assert_eq!(dedupe, "5m");
    for bad in
        [r#"{"retention": {"age": "1"}}"#, r#"{"retention": {"bytes": "1KiB"}}"#, r#"{"retention": {"size": "1GiB"}}"#]
    {
        let answer = gateway.send(Method::PUT, "/topics/bad", bad).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid-resource"), "{bad}");
    }
    let foreign = async || gateway.send(Method::GET, "/topics/t", "").await.body["foreign"].clone();
    assert_eq!(foreign().await, "wrap");
    assert_eq!(gateway.send(Method::PUT, "/topics/t", r#"{"foreign": "dead-letter"}"#).await.status.as_u16(), 200);
    assert_eq!(foreign().await, "dead-letter");
    for (attach, code) in [
        (r#"{"attach": {"name": ""}}"#, "invalid-resource"),
        (r#"{"attach": {"name": "a"}, "partitions": 1}"#, "invalid-resource"),
        (r#"{"attach": {"name": "a"}}"#, "broker-misconfigured"),
    ] {
        let answer = gateway.send(Method::PUT, "/topics/attached", attach).await;
        assert_eq!(answer.code(), code, "{answer:?}");
    }
    publish(&gateway, 3).await;
    let read = async || gateway.send(Method::GET, "/topics/t/events?from=c0", "").await;
    assert_eq!(read().await.body.as_array().map(Vec::len), Some(3));
    until("that the events are too old", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // On a busy machine they grow too old one after the other, and the gateway may have looked by itself.
        gateway.running.parts.consume.retain().await;
        let left = gateway.send(Method::GET, "/topics/t/events", "").await;
        left.body.as_array().is_some_and(Vec::is_empty)
    })
    .await;
    let answer = read().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (410, "position-lost"), "{answer:?}");
    let answer = gateway.send(Method::GET, "/topics/t/events", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_array().map(Vec::len)), (200, Some(0)));
    gateway.stop().await;
}
