//! A gateway: one of our own that ends with us, or one that runs already.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Failure, until};

/// A gateway to speak to. Dropped, one that was started here is killed and its folder removed.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// `http://ADDRESS:PORT`.
    pub(crate) url: String,
    client: Client<HttpConnector, Full<Bytes>>,
    own: Option<(Child, TempDir)>,
}

impl Gateway {
    /// The gateway at that URL.
    pub(crate) fn at(url: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: url.trim_end_matches('/').to_owned(), client, own: None }
    }

    /// Starts one on free ports, with a folder of its own, that delivers to this sink.
    pub(crate) async fn start(sink: SocketAddr) -> Result<Self, Failure> {
        let binary = std::env::var_os("TIDEGATE_BINARY").map(PathBuf::from);
        let binary =
            binary.map_or_else(|| Ok(std::env::current_exe()?.with_file_name("tidegate")), Ok::<_, Failure>)?;
        if !binary.is_file() {
            let build = "build it first: cargo build -p tidegate";
            return Err(format!("there is no gateway at {}; {build}", binary.display()).into());
        }
        let folder = TempDir::with_prefix("tidegate-first-events-")?;
        let (ready_file, stderr) = (folder.path().join("ready.json"), folder.path().join("stderr.txt"));
        let mut child = Command::new(binary)
            .args(["dev", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(["--resources", concat!(env!("CARGO_MANIFEST_DIR"), "/resources")])
            .arg("--ready-file")
            .arg(&ready_file)
            .env("SINK", sink.to_string())
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()?;
        loop {
            if let Ok(text) = std::fs::read(&ready_file) {
                let ready: Value = serde_json::from_slice(&text)?;
                let address = ready["http"].as_str().ok_or("the ready file names no address")?;
                return Ok(Self { own: Some((child, folder)), ..Self::at(&format!("http://{address}")) });
            }
            if let Some(status) = child.try_wait()? {
                return Err(format!("the gateway ended, {status}:\n{}", std::fs::read_to_string(stderr)?).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether it was started here.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Sends a request; gives the status and the JSON of the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Value), Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url)).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let answer = until("an answer", self.client.request(request)).await??;
        let status = answer.status();
        let body = until("the body of an answer", answer.into_body().collect()).await??.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// `GET` of something that is there.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        match self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await? {
            (StatusCode::OK, found) => Ok(found),
            (status, problem) => Err(format!("GET {path}: {status} {problem}").into()),
        }
    }

    /// Asks one that was started here to end; gives whether it did so without complaint.
    pub(crate) async fn end(mut self) -> Result<bool, Failure> {
        let Some((mut child, _folder)) = self.own.take() else { return Ok(true) };
        let id = child.id().ok_or("the gateway has ended by itself")?;
        Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        Ok(until("the gateway's end", child.wait()).await??.success())
    }
}
