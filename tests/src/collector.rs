//! A real OpenTelemetry Collector (`tests/collector`), and the spans that it passed on.
//!
//! It receives OTLP as protobuf over HTTP from the gateway and hands everything on as OTLP in JSON, to a receiver of the
//! test. So what the test reads went through an implementation of the protocol that is not ours.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::PATIENCE;
use crate::machine::not_had;
use crate::sink::{Delivery, Reply, Sink};

/// A collector that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Collector {
    /// Where it takes OTLP over HTTP: a URL without a path.
    pub endpoint: String,
    /// What it passed on arrives here.
    receiver: Sink,
    /// Keeps the configuration file.
    _folder: tempfile::TempDir,
    _child: Child,
}

/// A span as it was exported.
#[derive(Clone, Debug)]
pub struct Span {
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// In hexadecimal digits; empty where it has none.
    pub parent_id: String,
    /// The name.
    pub name: String,
    /// The whole, as OTLP writes it in JSON.
    pub document: Value,
    /// Attributes of the process.
    pub resource: Value,
}

impl Collector {
    /// Starts one on free ports; none, with a loud word, where the machine has none.
    ///
    /// # Panics
    ///
    /// Where it does not get ready.
    pub async fn start() -> Option<Self> {
        let binary = binary();
        if !binary.is_file() {
            let reason = format!("{} is not there; scripts/collector builds it, with Go", binary.display());
            not_had("the OpenTelemetry Collector", &reason);
            return None;
        }
        let receiver = Sink::start(|_| Reply::Body(200, "application/json", "{}".to_owned())).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let configuration = folder.path().join("collector.yaml");
        // The receiver's URL ends in a path of its own; the exporter appends `/v1/traces`.
        let text = format!(
            "receivers:\n  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}\nexporters:\n  otlp_http:\n    \
             endpoint: {}\n    encoding: json\n    compression: none\n    sending_queue: {{enabled: false}}\nservice:\n  \
             telemetry: {{metrics: {{level: none}}, logs: {{encoding: json}}}}\n  pipelines:\n    traces: {{receivers: \
             [otlp], exporters: [otlp_http]}}\n",
            receiver.url()
        );
        std::fs::write(&configuration, text).expect("the folder is ours");
        let mut command = Command::new(&binary);
        command.arg("--config").arg(&configuration).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let ready = async {
            let mut endpoint = None;
            let mut told = String::new();
            while let Some(line) = lines.next_line().await.expect("the pipe can be read") {
                let document: Value = serde_json::from_str(&line).unwrap_or_default();
                if document["msg"] == "Starting HTTP server" {
                    endpoint = document["endpoint"].as_str().map(|address| format!("http://{address}"));
                }
                if document["msg"].as_str().is_some_and(|message| message.starts_with("Everything is ready")) {
                    return endpoint.unwrap_or_else(|| panic!("the collector names no endpoint:\n{told}"));
                }
                told.push_str(&line);
                told.push('\n');
            }
            panic!("the collector ended before it was ready:\n{told}");
        };
        let endpoint = tokio::time::timeout(PATIENCE, ready).await.expect("the collector gets ready");
        // It must never wait for somebody to read what it says.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { endpoint, receiver, _folder: folder, _child: child })
    }

    /// Every span that came through so far.
    pub fn spans(&self) -> Vec<Span> {
        spans_of(&self.receiver.deliveries())
    }

    /// Waits until the spans satisfy a condition, and gives them.
    pub async fn wait_for_spans(&self, what: &str, condition: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let deliveries = self.receiver.wait_until(what, |deliveries| condition(&spans_of(deliveries))).await;
        spans_of(&deliveries)
    }
}

impl Span {
    /// The value of an attribute as text, whatever its type; empty where it is not there.
    pub fn attribute(&self, name: &str) -> String {
        attribute(&self.document["attributes"], name)
    }

    /// The value of an attribute of the process.
    pub fn resource_attribute(&self, name: &str) -> String {
        attribute(&self.resource["attributes"], name)
    }

    /// The ids of trace and span of each link.
    pub fn links(&self) -> Vec<(String, String)> {
        let links = self.document["links"].as_array().cloned().unwrap_or_default();
        links.iter().map(|link| (text(link, "traceId"), text(link, "spanId"))).collect()
    }

    /// The status code: 2 is an error.
    pub fn status(&self) -> i64 {
        self.document["status"]["code"].as_i64().unwrap_or_default()
    }

    /// The kind: 1 internal, 3 client, 4 producer.
    pub fn kind(&self) -> i64 {
        self.document["kind"].as_i64().unwrap_or_default()
    }

    /// The context as `traceparent` writes it, sampled.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}

fn attribute(attributes: &Value, name: &str) -> String {
    let found = attributes.as_array().into_iter().flatten().find(|attribute| attribute["key"] == name);
    let value = found.and_then(|attribute| attribute["value"].as_object()?.values().next());
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn spans_of(deliveries: &[Delivery]) -> Vec<Span> {
    let mut spans = Vec::new();
    for delivery in deliveries {
        let document: Value = serde_json::from_slice(&delivery.body).expect("the collector writes JSON");
        for resource in document["resourceSpans"].as_array().into_iter().flatten() {
            for scope in resource["scopeSpans"].as_array().into_iter().flatten() {
                for span in scope["spans"].as_array().into_iter().flatten() {
                    spans.push(Span {
                        trace_id: text(span, "traceId"),
                        span_id: text(span, "spanId"),
                        parent_id: text(span, "parentSpanId"),
                        name: text(span, "name"),
                        document: span.clone(),
                        resource: resource["resource"].clone(),
                    });
                }
            }
        }
    }
    spans
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// The path in `TIDEGATE_COLLECTOR`, else where `scripts/collector` puts it.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_COLLECTOR") {
        return crate::workspace_root().join(path);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    crate::workspace_root().join(target).join("collector/collector")
}
