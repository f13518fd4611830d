//! A gateway of our own that ends with us.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Failure, until};

/// Dropped, it is killed and its folder removed.
pub(crate) struct Gateway {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
    child: Child,
    _folder: TempDir,
}

impl Gateway {
    /// Starts one on free ports, with a folder of its own, for the bindings of this example to that broker.
    pub(crate) async fn start(broker: &str) -> Result<Self, Failure> {
        let binary = match std::env::var_os("TIDEGATE_BINARY") {
            Some(binary) => PathBuf::from(binary),
            None => std::env::current_exe()?.with_file_name("tidegate"),
        };
        if !binary.is_file() {
            let build = "build it first: cargo build -p tidegate --features rabbitmq";
            return Err(format!("there is no gateway at {}; {build}", binary.display()).into());
        }
        let folder = TempDir::with_prefix("tidegate-legacy-queues-")?;
        let (ready_file, stderr) = (folder.path().join("ready.json"), folder.path().join("stderr.txt"));
        let mut child = Command::new(binary)
            .args(["dev", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(["--resources", concat!(env!("CARGO_MANIFEST_DIR"), "/resources")])
            .arg("--ready-file")
            .arg(&ready_file)
            .env("BROKER", broker)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()?;
        let ready = async {
            loop {
                if let Ok(text) = std::fs::read(&ready_file) {
                    let ready: Value = serde_json::from_slice(&text)?;
                    return Ok(ready["http"].as_str().ok_or("the ready file names no address")?.to_owned());
                }
                if let Some(status) = child.try_wait()? {
                    let said = std::fs::read_to_string(&stderr)?;
                    return Err::<_, Failure>(format!("the gateway ended, {status}:\n{said}").into());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let address = until("the gateway", ready).await??;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { url: format!("http://{address}"), client, child, _folder: folder })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Value), Failure> {
        let answer = until("an answer", self.client.request(request)).await??;
        let status = answer.status();
        let body = until("the body of an answer", answer.into_body().collect()).await??.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// `GET` of something; nothing where it is not there.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>, Failure> {
        let request = Request::builder().uri(format!("{}{path}", self.url)).body(Full::default())?;
        match self.send(request).await? {
            (StatusCode::OK, found) => Ok(Some(found)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, problem) => Err(format!("GET {path}: {status} {problem}").into()),
        }
    }

    /// Publishes an event to a topic.
    pub(crate) async fn publish(&self, topic: &str, event: &Value) -> Result<(), Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/topics/{topic}", self.url))
            .header("content-type", "application/cloudevents+json")
            .body(Full::from(event.to_string()))?;
        match self.send(request).await? {
            (StatusCode::ACCEPTED, _) => Ok(()),
            (status, problem) => Err(format!("an event was not taken: {status} {problem}").into()),
        }
    }

    /// The events of a topic in their order, once there are so many.
    pub(crate) async fn events(&self, topic: &str, count: usize) -> Result<Vec<Value>, Failure> {
        let path = format!("/topics/{topic}/events?from=earliest&limit=1000");
        let found = async {
            loop {
                let read = self.get(&path).await?;
                let events = read.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
                if events.len() >= count {
                    return Ok::<_, Failure>(events);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        until(&format!("{count} events of {topic}"), found).await?
    }

    /// Waits until an input reads its queue.
    pub(crate) async fn reads(&self, binding: &str) -> Result<(), Failure> {
        let running = async {
            loop {
                let shown = self.get(&format!("/bindings/{binding}")).await?.unwrap_or_default();
                if shown["status"]["state"] == "running" {
                    return Ok::<_, Failure>(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        until(&format!("that {binding} is read"), running).await?
    }

    /// Asks it to end; gives whether it did so without complaint.
    pub(crate) async fn end(mut self) -> Result<bool, Failure> {
        let id = self.child.id().ok_or("the gateway has ended by itself")?;
        Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        Ok(until("the gateway's end", self.child.wait()).await??.success())
    }
}
