//! The API over a gateway that serves: real sockets, a real log in a folder of its own.

mod webhooks;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use tidegate_resources::config;

use crate::compose::{self, Running, Settings};

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
        let running = compose::start(settings(folder.path())).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { folder, running, client }
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
        data: folder.join("data"),
        resources: fs::exists(&resources).unwrap().then_some(resources),
        create_topics_on_first_use: false,
        development: false,
        limits: config::Limits::default(),
        log_filter: None,
        traces: None,
    }
}
