//! The HTTP API of a gateway, over HTTP/1.1. Every wait is bounded, redirects are not followed, and a failure says
//! whether the request can have had its effect.

use std::error::Error as _;
use std::future::Future;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::TokioTimer;
use tidegate_backbone::Environment;
use tidegate_schemas::limits;

use super::failure::Failure;
use super::problem::Problem;
use super::text::percent_encoded;
use crate::cli::arguments::{Globals, Server, Token};

type Connections<C> = Client<C, Full<Bytes>>;

/// A gateway to ask.
#[derive(Debug)]
pub(super) struct Api {
    server: Server,
    token: Option<Token>,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Plain(Connections<HttpConnector>),
    Encrypted(Connections<HttpsConnector<HttpConnector>>),
}

/// Runs connections as tasks of the environment.
#[derive(Clone, Debug)]
struct Tasks(Environment);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A successful answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// The server's clock, in milliseconds since 1970, where it tells it.
    pub(super) date: Option<u64>,
}

impl Call {
    /// A request to a path of the API, each segment given as it is.
    pub(super) fn new(method: Method, segments: &[&str]) -> Self {
        let path = segments.iter().map(|segment| format!("/{}", percent_encoded(segment))).collect();
        Self { method, path, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{separator}{name}={}", self.path, percent_encoded(value));
        self
    }

    /// Adds a header field.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body.
    pub(super) fn body(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = body.into();
        self
    }

    fn changes_something(&self) -> bool {
        !self.method.is_safe()
    }
}

impl Api {
    /// A client of the server that the options name. Connects to nothing yet.
    pub(super) fn new(globals: &Globals, environment: &Environment) -> Result<Self, Failure> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits::CLIENT_CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let mut builder = Client::builder(Tasks(environment.clone()));
        builder.pool_timer(TokioTimer::new());
        let server = globals.server();
        let transport = if server.is_https() {
            connector.enforce_http(false);
            let provider = rustls::crypto::ring::default_provider();
            let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(|error| {
                Failure::Local(format!("this machine has no root certificates to verify {server}: {error}"))
            })?;
            Transport::Encrypted(builder.build(tls.https_only().enable_http1().wrap_connector(connector)))
        } else {
            Transport::Plain(builder.build(connector))
        };
        Ok(Self { server, token: globals.token.clone(), transport })
    }

    /// Makes a request and reads the answer.
    pub(super) async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let changes = call.changes_something();
        let exchange = async {
            let (parts, body) = self.send(call).await?.into_parts();
            // The header told how it ended; only the document is missing.
            let body = Limited::new(body, limits::CLIENT_ANSWER_BYTES).collect().await.map_err(|error| {
                no_answer(changes && !parts.status.is_client_error(), format!("the answer broke off: {error}"))
            })?;
            let body = body.to_bytes();
            if !parts.status.is_success() {
                let mut problem = Problem::of_answer(parts.status, &parts.headers, &body);
                problem.of_change = changes;
                return Err(Failure::Refused(Box::new(problem)));
            }
            let body = String::from_utf8(body.into())
                .map_err(|_| Failure::Local("the answer is not UTF-8: no gateway gave it".to_owned()))?;
            Ok(Answer { status: parts.status, body, date: date(&parts.headers) })
        };
        match tokio::time::timeout(limits::CLIENT_TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(no_answer(changes, late())),
        }
    }

    /// Makes a request whose answer is followed: gives it once its header is there and says success.
    pub(super) async fn follow(&self, call: Call) -> Result<Response<Incoming>, Failure> {
        let exchange = async {
            let response = self.send(call).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, limits::CLIENT_ANSWER_BYTES).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            Err(Failure::Refused(Box::new(Problem::of_answer(parts.status, &parts.headers, &body))))
        };
        match tokio::time::timeout(limits::CLIENT_TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(no_answer(false, late())),
        }
    }

    async fn send(&self, call: Call) -> Result<Response<Incoming>, Failure> {
        let changes = call.changes_something();
        let uri = self.server.join(&call.path).map_err(|error| Failure::Usage(format!("{}: {error}", call.path)))?;
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = call.headers;
        let agent = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.authorization());
        }
        let connected = capture_connection(&mut request);
        let sent = match &self.transport {
            Transport::Plain(client) => client.request(request).await,
            Transport::Encrypted(client) => client.request(request).await,
        };
        sent.map_err(|error| {
            let reason = innermost(&error);
            if error.is_connect() || connected.connection_metadata().is_none() {
                Failure::Unreachable { url: self.server.to_string(), reason }
            } else {
                no_answer(changes, format!("the connection to {} broke: {reason}", self.server))
            }
        })
    }
}

/// `Date`, whose form is that of mails (RFC 9110 section 5.6.7).
fn date(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

fn no_answer(may_have_changed: bool, reason: String) -> Failure {
    if may_have_changed { Failure::Unknown(reason) } else { Failure::NoAnswer(reason) }
}

fn late() -> String {
    format!("nothing came within {} s", limits::CLIENT_TIMEOUT.as_secs())
}

/// The reason at the bottom, which is the one that says something.
fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    reason
}
