//! A small HTTP client with keep-alive, for tests: no retries, no redirects, a limit on every wait.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::PATIENCE;

/// Speaks to one gateway. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    connections: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

/// No answer came: refused, reset, closed or timed out. What the request did is unknown.
#[derive(Debug)]
pub struct NoAnswer(pub String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Client {
    /// A client of the gateway at an address.
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let connections = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .build(connector);
        Self { connections, address }
    }

    /// The address that it speaks to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one request; `path` begins with `/`.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| NoAnswer(error.to_string()))?;
        let exchange = async {
            let response = self.connections.request(request).await.map_err(|error| describe(&error))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| describe(&error))?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(NoAnswer(format!("no answer within {PATIENCE:?}"))))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer, NoAnswer> {
        self.send(Method::POST, path, headers, body).await
    }

    /// Publishes one event in binary mode, with JSON data.
    pub async fn publish(&self, topic: &str, event: &Outgoing<'_>) -> Result<Answer, NoAnswer> {
        let mut headers = vec![
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", event.id),
            ("ce-source", event.source),
            ("ce-type", event.kind),
        ];
        if let Some(key) = event.key {
            headers.push(("ce-partitionkey", key));
        }
        self.post(&format!("/topics/{topic}"), &headers, event.data.to_owned()).await
    }
}

/// An event to publish, in the few attributes that tests set.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// `id`.
    pub id: &'a str,
    /// `source`.
    pub source: &'a str,
    /// `type`.
    pub kind: &'a str,
    /// `partitionkey`.
    pub key: Option<&'a str>,
    /// The payload, a JSON text.
    pub data: &'a str,
}

impl Default for Outgoing<'_> {
    fn default() -> Self {
        Self { id: "1", source: "/tests", kind: "com.example.tested", key: None, data: "{}" }
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// Where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in the answer {self}"))
    }

    /// The `content-type`, without parameters.
    pub fn media_type(&self) -> &str {
        let value = self.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
        value.split(';').next().unwrap_or("").trim()
    }

    /// Checks that the answer has this status.
    ///
    /// # Panics
    ///
    /// Where it has another, with the whole answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Checks that the answer is a problem document (RFC 9457) with one of these statuses, and gives its `code`.
    ///
    /// # Panics
    ///
    /// Where it is not, with the whole answer.
    #[track_caller]
    pub fn expect_problem(&self, statuses: &[u16]) -> String {
        assert!(statuses.contains(&self.status), "expected one of {statuses:?}: {self}");
        assert_eq!(self.media_type(), "application/problem+json", "{self}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "the document's status is the answer's: {self}");
        let code = problem["code"].as_str().unwrap_or_else(|| panic!("a problem has a code: {self}"));
        assert!(!code.is_empty(), "a problem has a code: {self}");
        code.to_owned()
    }

    /// The path and query of the `Link` with `rel="next"`, where there is one.
    pub fn next_page(&self) -> Option<String> {
        let links = self.headers.get_all("link").iter().filter_map(|value| value.to_str().ok());
        links.flat_map(|value| value.split(',')).find_map(next_of)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 2_000;
        let body = &self.body[..self.body.len().min(SHOWN)];
        write!(formatter, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(body))
    }
}

/// `<target>; rel="next"` to the target's path and query.
fn next_of(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
    if !is_next {
        return None;
    }
    match target.split_once("://") {
        Some((_, rest)) => Some(rest.find('/').map_or_else(|| "/".to_owned(), |start| rest[start..].to_owned())),
        None => Some(target.to_owned()),
    }
}

fn describe(error: &dyn std::error::Error) -> NoAnswer {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    NoAnswer(text)
}

#[cfg(test)]
mod tests {
    use super::next_of;

    #[test]
    fn link_targets() {
        let check = |link: &str, expected: Option<&str>| assert_eq!(next_of(link).as_deref(), expected, "{link}");
        check("</topics/t/events?from=x>; rel=\"next\"", Some("/topics/t/events?from=x"));
        check("<http://127.0.0.1:1/a?b=c>; title=\"x\"; rel=\"next\"", Some("/a?b=c"));
        check("</a>; rel=\"prev\"", None);
        check("garbage", None);
    }
}
