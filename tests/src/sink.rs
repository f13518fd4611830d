//! A real HTTP server that receives deliveries, remembers each, and answers as the test says.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::PATIENCE;

/// One request that reached the sink.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its place in the order in which the sink received requests, from 0.
    pub arrival: usize,
    /// `id`, from the header or the structured body.
    pub id: String,
    /// `source`, likewise.
    pub source: String,
    /// `partitionkey`, likewise.
    pub key: Option<String>,
    /// `tidegate-attempt`.
    pub attempt: Option<u32>,
    /// `webhook-id`.
    pub webhook_id: Option<String>,
    /// The path that was called.
    pub path: String,
    /// All header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What the sink does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers with this status.
    Status(u16),
    /// Answers with this status after a while.
    Late(u16, Duration),
    /// Answers with a status, a content type and a body.
    Body(u16, &'static str, String),
    /// Never answers and keeps the connection.
    Hang,
    /// Answers with 200 and then one byte of its body a second, for ever.
    Drip,
    /// Answers with 200 and a body that does not end, as fast as it is read.
    Endless,
    /// Answers with a status, header fields and a body.
    Fields(u16, Vec<(&'static str, String)>, String),
    /// Closes the connection without an answer.
    Close,
}

type Rule = Box<dyn Fn(&Delivery) -> Reply + Send + Sync>;

struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    rule: Mutex<Rule>,
    count: watch::Sender<usize>,
}

/// The server. Dropped, it stops and closes its connections.
pub struct Sink {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sink").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Sink {
    /// A sink on a free loopback port that answers by a rule.
    pub async fn start(rule: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            deliveries: Mutex::new(Vec::new()),
            rule: Mutex::new(Box::new(rule)),
            count: watch::Sender::new(0),
        });
        let server = Some(tokio::spawn(serve(listener, Arc::clone(&shared))));
        Self { shared, address, server }
    }

    /// A sink that answers 204 to everything.
    pub async fn accepting() -> Self {
        Self::start(|_| Reply::Status(204)).await
    }

    /// The URL for a subscription.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// A URL of the sink with another path, which [`Delivery::path`] tells.
    pub fn url_of(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Replaces the rule; requests in hand keep the old one.
    pub fn answer(&self, rule: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) {
        *self.shared.rule.lock() = Box::new(rule);
    }

    /// Stops listening and closes every connection: from now on the port refuses.
    pub async fn refuse(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Listens again on the same port.
    pub async fn listen_again(&mut self) {
        self.refuse().await;
        let listener = TcpListener::bind(self.address).await.expect("the port was ours a moment ago");
        self.server = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }

    /// Everything received so far, in the order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.lock().clone()
    }

    /// How many requests were received so far, repeats included.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// The ids received so far, in the order of arrival, repeats included.
    pub fn ids(&self) -> Vec<String> {
        self.shared.deliveries.lock().iter().map(|delivery| delivery.id.clone()).collect()
    }

    /// Waits until what was received satisfies a condition, and gives it.
    ///
    /// # Panics
    ///
    /// Where it does not come to that.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        let mut count = self.shared.count.subscribe();
        let waiting = async {
            loop {
                count.borrow_and_update();
                {
                    let deliveries = self.shared.deliveries.lock();
                    if condition(&deliveries) {
                        return deliveries.clone();
                    }
                }
                count.changed().await.expect("the sender lives in the sink");
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(deliveries) => deliveries,
            Err(_) => {
                let ids = self.ids();
                let last = &ids[ids.len().saturating_sub(20)..];
                panic!("waited {PATIENCE:?} for {what}; received {}, the last ones {last:?}", ids.len())
            }
        }
    }

    /// Waits until each of these ids was received at least once.
    ///
    /// # Panics
    ///
    /// Where it does not come to that.
    pub async fn wait_for_ids(&self, ids: &[String]) -> Vec<Delivery> {
        let mut count = self.shared.count.subscribe();
        let mut missing: std::collections::HashSet<String> = ids.iter().cloned().collect();
        let mut looked_at = 0;
        let waiting = async {
            loop {
                count.borrow_and_update();
                {
                    // Each delivery is looked at once: the sink must not wait for whoever watches it.
                    let deliveries = self.shared.deliveries.lock();
                    for delivery in &deliveries[looked_at..] {
                        missing.remove(&delivery.id);
                    }
                    looked_at = deliveries.len();
                    if missing.is_empty() {
                        return deliveries.clone();
                    }
                }
                count.changed().await.expect("the sender lives in the sink");
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(deliveries) => deliveries,
            Err(_) => {
                let some: Vec<&String> = missing.iter().take(20).collect();
                panic!("waited {PATIENCE:?} for {} ids; {} are missing, among them {some:?}", ids.len(), missing.len())
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// Accepts until it is aborted; its connections end with it, because they live in its set.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(converse(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| respond(request, Arc::clone(&shared)));
    // An error here is a connection that the gateway or the rule closed.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the sink closes the connection")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

type Answered = Response<BoxBody<Bytes, Infallible>>;

async fn respond(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answered, Closed> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err(Closed) };
    let mut delivery = describe(parts.headers, parts.uri.path(), body.to_bytes());
    let reply = {
        let mut deliveries = shared.deliveries.lock();
        delivery.arrival = deliveries.len();
        let reply = (shared.rule.lock())(&delivery);
        deliveries.push(delivery);
        shared.count.send_replace(deliveries.len());
        reply
    };
    match reply {
        Reply::Status(status) => Ok(answer(status, "text/plain", String::new())),
        Reply::Late(status, after) => {
            tokio::time::sleep(after).await;
            Ok(answer(status, "text/plain", String::new()))
        }
        Reply::Body(status, media_type, body) => Ok(answer(status, media_type, body)),
        Reply::Fields(status, fields, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(Bytes::from(body)).boxed()).expect("the test's header fields are valid"))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drip => Ok(endless(Bytes::from_static(b"x"), Duration::from_secs(1))),
        Reply::Endless => Ok(endless(Bytes::from(vec![b'x'; 64 * 1024]), Duration::ZERO)),
        Reply::Close => Err(Closed),
    }
}

fn answer(status: u16, media_type: &'static str, body: String) -> Answered {
    let response = Response::builder().status(status).header("content-type", media_type);
    response.body(Full::new(Bytes::from(body)).boxed()).expect("the test's status is one of HTTP's")
}

/// A body of pieces without an end, with a pause before each.
fn endless(piece: Bytes, pause: Duration) -> Answered {
    let pieces = stream::unfold(piece, move |piece| async move {
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(Frame::data(piece.clone())), piece))
    });
    Response::new(BodyExt::boxed(StreamBody::new(pieces)))
}

fn describe(headers: HeaderMap, path: &str, body: Bytes) -> Delivery {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let structured = text("content-type").is_some_and(|kind| kind.starts_with("application/cloudevents+json"));
    let document: Value = if structured { serde_json::from_slice(&body).unwrap_or_default() } else { Value::Null };
    let attribute = |name: &str| match document[name].as_str() {
        Some(value) => Some(value.to_owned()),
        None => text(&format!("ce-{name}")),
    };
    Delivery {
        arrival: 0,
        id: attribute("id").unwrap_or_default(),
        source: attribute("source").unwrap_or_default(),
        key: attribute("partitionkey"),
        attempt: text("tidegate-attempt").and_then(|attempt| attempt.parse().ok()),
        webhook_id: text("webhook-id"),
        path: path.to_owned(),
        headers,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::{Reply, Sink};
    use crate::client::Client;

    async fn deliver(sink: &Sink, id: &str, attempt: &str) -> Option<u16> {
        // A client of its own each time, so that no connection outlives a closed sink.
        let client = Client::new(sink.address);
        let headers = [("ce-id", id), ("ce-source", "/s"), ("ce-partitionkey", "k"), ("tidegate-attempt", attempt)];
        client.post("/hook", &headers, "{}").await.ok().map(|answer| answer.status)
    }

    #[tokio::test]
    async fn requests_are_recorded_and_answered_by_the_rule() {
        let mut sink = Sink::start(|delivery| match delivery.attempt {
            Some(1) => Reply::Status(503),
            Some(2) => Reply::Close,
            _ => Reply::Status(204),
        })
        .await;
        assert_eq!(deliver(&sink, "a", "1").await, Some(503));
        assert_eq!(deliver(&sink, "a", "2").await, None);
        assert_eq!(deliver(&sink, "a", "3").await, Some(204));
        sink.refuse().await;
        assert_eq!(deliver(&sink, "b", "1").await, None, "a closed sink receives nothing");
        sink.listen_again().await;
        sink.answer(|_| Reply::Status(200));
        assert_eq!(deliver(&sink, "b", "1").await, Some(200));

        let seen = sink.wait_for_ids(&["a".to_owned(), "b".to_owned()]).await;
        let attempts: Vec<_> = seen.iter().map(|delivery| (delivery.id.as_str(), delivery.attempt)).collect();
        assert_eq!(attempts, [("a", Some(1)), ("a", Some(2)), ("a", Some(3)), ("b", Some(1))]);
        assert!(seen.iter().all(|delivery| delivery.key.as_deref() == Some("k") && delivery.source == "/s"));
        assert!(seen.iter().enumerate().all(|(arrival, delivery)| delivery.arrival == arrival));
    }

    #[tokio::test]
    async fn structured_events_are_understood() {
        let sink = Sink::accepting().await;
        let event = r#"{"specversion":"1.0","id":"x","source":"/s","type":"t","partitionkey":"k"}"#;
        let headers = [("content-type", "application/cloudevents+json; charset=utf-8")];
        Client::new(sink.address).post("/hook", &headers, event).await.expect("the sink answers").expect(204);
        let seen = sink.deliveries();
        assert_eq!((seen[0].id.as_str(), seen[0].key.as_deref()), ("x", Some("k")));
    }
}
