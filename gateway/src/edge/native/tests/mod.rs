//! The API over a gateway that serves: real sockets, a real log in a folder of its own.

mod apply;
mod bindings;
mod dead_letters;
mod malformed;
mod subscriptions;
mod webhooks;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tidegate_backbone::Environment;
use tidegate_resources::config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::compose::{self, Running, Settings};
use crate::sink::AddressPolicy;

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with its folder.
pub(super) struct Gateway {
    folder: TempDir,
    running: Running,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What a request was answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `null` where there is none, and a string where it is no JSON.
    pub(super) body: Value,
}

impl Answer {
    /// The `code` of a problem.
    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Gateway {
    /// A gateway without resource files.
    pub(super) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// A gateway in a folder, whose `resources` are read where there are some.
    pub(super) async fn start_in(folder: TempDir) -> Self {
        Self::start_with(folder, AddressPolicy::PublicOnly).await
    }

    /// A gateway whose requests may name sinks with these addresses.
    pub(super) async fn start_with(folder: TempDir, request_sinks: AddressPolicy) -> Self {
        let running = compose::start(Settings { request_sinks, ..settings(folder.path()) }).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { folder, running, client }
    }

    /// Publishes an event of that id, and creates the topic where it is missing.
    pub(super) async fn publish(&self, topic: &str, id: &str) {
        let created = self.send(Method::PUT, &format!("/topics/{topic}"), "").await;
        assert!(created.status.is_success(), "{created:?}");
        let headers = [("idempotency-key", id), ("content-type", "application/json")];
        let answer = self.send_with(Method::POST, &format!("/topics/{topic}"), &headers, r#"{"n": 1}"#).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Asks again and again until the answer is as wanted.
    pub(super) async fn until(&self, path: &str, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let answer = self.send(Method::GET, path, "").await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// Stops, and gives the folder with everything that was kept.
    pub(super) async fn stop(self) -> TempDir {
        drop(self.client);
        assert!(self.running.parts.stop().await, "the gateway did not stop by itself");
        self.folder
    }

    /// Sends a request and reads its answer.
    pub(super) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send_with(method, path, &[(header::CONTENT_TYPE.as_str(), "application/json")], body).await
    }

    /// Sends a request with these headers.
    pub(super) async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.running.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&bytes).into_owned());
        let body =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) };
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

fn settings(folder: &Path) -> Settings {
    let resources = folder.join("resources");
    Settings {
        http: "127.0.0.1:0".parse().unwrap(),
        backbone: config::Backbone::embedded(folder.join("data")),
        resources: fs::exists(&resources).unwrap().then_some(resources),
        create_topics_on_first_use: false,
        request_sinks: AddressPolicy::PublicOnly,
        development: false,
        limits: config::Limits::default(),
        log_filter: None,
        traces: None,
    }
}

/// A sink that counts what it is sent and gives one answer to all.
pub(super) struct Sink {
    pub(super) port: u16,
    bodies: Arc<Mutex<Vec<String>>>,
    environment: Environment,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.environment.stopping().cancel();
    }
}

impl Sink {
    /// A sink that answers with this status; each request on a connection of its own.
    pub(super) async fn answering(status: impl Fn(&str) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, bodies) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let sink = Self { port, bodies: Arc::clone(&bodies), environment: Environment::system() };
        let stopping = sink.environment.stopping().clone();
        let serve = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                let mut buffer = [0; 4096];
                loop {
                    let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        length.is_none_or(|length| body.len() >= length.parse().unwrap())
                    });
                    let read = if complete { 0 } else { stream.read(&mut buffer).await.unwrap_or(0) };
                    if read == 0 {
                        break;
                    }
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
                let status = status(&text);
                bodies.lock().push(text);
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // Whoever asked may be gone.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        };
        sink.environment.spawn(async move { stopping.run_until_cancelled(serve).await });
        sink
    }

    /// The requests so far, each whole.
    pub(super) fn requests(&self) -> Vec<String> {
        self.bodies.lock().clone()
    }

    /// Waits until so many requests have come.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<String> {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.requests().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{} of {count} requests came", self.requests().len()));
        self.requests()
    }
}
