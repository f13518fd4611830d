//! Calls sinks over HTTP, and sends to queues and exchanges of brokers ([`Outputs`]). Over HTTP: one attempt at a time, with
//! every wait bounded, and an answer or a failure that says whether the sink can have seen the request.
//!
//! Redirects are never followed (CloudEvents web hooks 2.1 forbids it), proxies of the process environment are never used,
//! and addresses are checked when a connection is made ([`AddressPolicy`]), so that what was checked is what is used.

mod address;
mod connector;
mod failure;
mod output;
mod request;
mod target;
mod trust;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioTimer;
use rustls::ClientConfig;
use tidegate_backbone::Environment;
use tidegate_schemas::limits;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use address::{AddressPolicy, is_public};
use connector::Connector;
pub use failure::Failure;
pub use output::{Outputs, Unsent};
pub use request::{Attempt, webhook_id};
pub(crate) use target::REQUEST_ORIGIN;
pub use target::Target;
pub use trust::Trust;

/// Whom a request goes to, and who is believed to be that.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The address: absolute, of `http` or `https`.
    pub uri: &'a Uri,
    /// Which addresses it may have.
    pub policy: AddressPolicy,
    /// Whose certificates are believed, where not those that the machine believes.
    pub trust: Option<&'a Trust>,
}

/// What subscriptions deliver to that is not in this gateway.
#[derive(Clone, Debug)]
pub struct Sinks {
    /// Web hooks.
    pub http: Http,
    /// Queues and exchanges.
    pub outputs: Outputs,
}

impl Sinks {
    /// Both, whose tasks are those of `environment`.
    pub fn new(environment: &Environment, outputs: Outputs) -> Self {
        Self { http: Http::new(Options::default(), environment), outputs }
    }
}

/// What a sink answered.
#[derive(Debug)]
pub struct Answer {
    /// The status, whatever it is: a redirect is an answer.
    pub status: StatusCode,
    /// The header.
    pub headers: HeaderMap,
    /// The body, or its first [`Options::response_bytes`] bytes.
    pub body: Bytes,
    /// Whether the body went on; the rest was not read.
    pub truncated: bool,
    /// From the beginning of the attempt to the last byte that was read.
    pub duration: Duration,
}

/// The bounds of a client. The defaults are the product's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Opening a connection, with name resolution; the TLS handshake counts against the attempt alone.
    pub connect_timeout: Duration,
    /// What is read of an answer's body.
    pub response_bytes: usize,
    /// The header block of an answer.
    pub response_header_bytes: usize,
    /// Idle connections that are kept for one sink, and how long.
    pub idle_connections: usize,
    /// How long they are kept.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: limits::SINK_CONNECT_TIMEOUT,
            response_bytes: limits::SINK_RESPONSE_BYTES,
            response_header_bytes: limits::SINK_RESPONSE_HEADERS_BYTES,
            idle_connections: limits::SINK_IDLE_CONNECTIONS,
            idle_timeout: limits::SINK_IDLE_TIMEOUT,
        }
    }
}

/// The client for sinks of `http:` and `https:`. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Http(Arc<Inner>);

struct Inner {
    options: Options,
    connections: Connections,
    /// Connections are pooled by host, not by who may use them: one that was opened without a check must not serve a
    /// target that needs one. So each policy has its own pool.
    any: Pool,
    loopback: Pool,
    public: Pool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Http").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connections.end.cancel();
    }
}

/// Starts the tasks of connections; they end with the client, or when the environment is told to stop.
#[derive(Clone)]
struct Connections {
    environment: Environment,
    end: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Connections
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, connection: F) {
        let end = self.end.clone();
        self.environment.spawn(async move { end.run_until_cancelled(connection).await });
    }
}

struct Pool {
    policy: AddressPolicy,
    plain: Client<Connector, Full<Bytes>>,
    /// Made at first use: reading the machine's root certificates would be a good part of the whole start-up.
    tls: OnceLock<TlsClient>,
}

impl Pool {
    fn new(policy: AddressPolicy, options: &Options, connections: &Connections) -> Self {
        let connector = Connector { policy, timeout: options.connect_timeout };
        Self { policy, plain: builder(options, connections).build(connector), tls: OnceLock::new() }
    }

    fn tls(&self, inner: &Inner) -> &TlsClient {
        self.tls.get_or_init(|| tls_client(trust::of_the_machine(), self.policy, inner))
    }
}

type TlsClient = Client<HttpsConnector<Connector>, Full<Bytes>>;

fn tls_client(configuration: ClientConfig, policy: AddressPolicy, inner: &Inner) -> TlsClient {
    let connector = Connector { policy, timeout: inner.options.connect_timeout };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(configuration)
        .https_only()
        .enable_all_versions()
        .wrap_connector(connector);
    builder(&inner.options, &inner.connections).build(connector)
}

fn builder(options: &Options, connections: &Connections) -> Builder {
    let mut builder = Client::builder(connections.clone());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(options.idle_timeout)
        .pool_max_idle_per_host(options.idle_connections)
        .http1_max_buf_size(options.response_header_bytes)
        .http2_max_header_list_size(u32::try_from(options.response_header_bytes).unwrap_or(u32::MAX))
        .http2_keep_alive_interval(limits::HTTP2_PING_INTERVAL)
        .http2_keep_alive_timeout(limits::HTTP2_PING_TIMEOUT);
    builder
}

impl Http {
    /// A client whose connections are tasks of `environment`.
    pub fn new(options: Options, environment: &Environment) -> Self {
        let connections = Connections { environment: environment.clone(), end: environment.stopping().child_token() };
        let any = Pool::new(AddressPolicy::Any, &options, &connections);
        let loopback = Pool::new(AddressPolicy::PublicOrLoopback, &options, &connections);
        let public = Pool::new(AddressPolicy::PublicOnly, &options, &connections);
        Self(Arc::new(Inner { options, connections, any, loopback, public }))
    }

    /// Makes one attempt: POSTs `body` with `headers`, and reads the answer. `timeout` bounds the whole, from the
    /// connection to the last byte. An answer whose body breaks off or does not end in time is no answer, because the
    /// missing part may have been the reply.
    pub async fn deliver(
        &self,
        route: Route<'_>,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        self.call(Method::POST, route, headers, body, timeout).await
    }

    /// Asks what a sink allows (`OPTIONS`), within the same bounds.
    pub async fn ask(&self, route: Route<'_>, headers: HeaderMap, timeout: Duration) -> Result<Answer, Failure> {
        self.call(Method::OPTIONS, route, headers, Bytes::new(), timeout).await
    }

    async fn call(
        &self,
        method: Method,
        route: Route<'_>,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let started = Instant::now();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = check(route.uri)?;
        *request.headers_mut() = headers;
        let connected = capture_connection(&mut request);

        let pool = match route.policy {
            AddressPolicy::Any => &self.0.any,
            AddressPolicy::PublicOrLoopback => &self.0.loopback,
            AddressPolicy::PublicOnly => &self.0.public,
        };
        let attempt = async {
            let response = match (route.uri.scheme_str() == Some("https"), route.trust) {
                (false, _) => pool.plain.request(request).await,
                (true, None) => pool.tls(&self.0).request(request).await,
                (true, Some(trust)) => trust.client(route.policy, &self.0).request(request).await,
            };
            let (parts, body) = response.map_err(|error| Failure::from_client(&error))?.into_parts();
            let (body, truncated) = read(body, self.0.options.response_bytes).await?;
            Ok(Answer { status: parts.status, headers: parts.headers, body, truncated, duration: started.elapsed() })
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) if connected.connection_metadata().is_none() => {
                Err(Failure::Unreachable(format!("no connection within {timeout:?}")))
            }
            Err(_) => Err(Failure::NoAnswer(format!("no complete answer within {timeout:?}"))),
        }
    }
}

fn check(target: &Uri) -> Result<Uri, Failure> {
    if !matches!(target.scheme_str(), Some("http" | "https")) || target.host().is_none_or(str::is_empty) {
        return Err(Failure::Invalid(format!("{target} is not an absolute URL of http or https")));
    }
    let authority = target.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(Failure::Invalid(
            "the URL carries user information; put credentials into a header of the sink instead".to_owned(),
        ));
    }
    Ok(target.clone())
}

/// Reads at most `limit` bytes, and says whether there was more.
async fn read(mut body: hyper::body::Incoming, limit: usize) -> Result<(Bytes, bool), Failure> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::NoAnswer(format!("the answer broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = limit - read.len();
        if data.len() > room {
            read.extend_from_slice(&data[..room]);
            return Ok((read.freeze(), true));
        }
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), false))
}

#[cfg(test)]
mod tests;
