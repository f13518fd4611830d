//! Takes connections and requests, within limits of number, size and pace.
//!
//! [`Listener::bind`] takes the address before anything else starts; [`Listener::serve`] begins to answer; and
//! [`Server::shutdown`] lets go. HTTP/1.1 and HTTP/2 without TLS (prior knowledge) are told apart by their first bytes.
//!
//! | beyond the limit | outcome |
//! |---|---|
//! | connections, in all, of one client address, or for want of memory | 503 with `Retry-After`, closed |
//! | requests of one client address, in flight or in a second | 429 with `Retry-After`, before the body is read |
//! | memory for a body or an answer | 503 with `Retry-After`, for a body before it is read |
//! | time for a header; idle time | closed (HTTP/2: GOAWAY first) |
//! | bytes that a client leaves unread for too long, or reads too slowly | closed; HTTP/2: a stream that it leaves unread is reset |
//! | header fields or bytes | 431 |
//! | body bytes | 413: before the body is read where `Content-Length` tells, else while it is read |
//! | body pace | 408 |
//! | streams, resets, frames and header lists of HTTP/2 | GOAWAY or a reset of the stream |
//!
//! Every refusal of a request goes out at once. Where the request was not read to its end, the writing side is closed
//! behind it and what the client still sends is thrown away for a while, so that it hears the answer instead of a reset.
//!
//! The failures while a body is read reach the handler as [`BodyError`]; [`read_body`] turns them into problems.

mod admission;
mod body;
mod clients;
mod connection;
mod exchange;
mod framing;
mod options;
mod pulse;
mod refusal;
mod stall;
mod transport;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use tidegate_backbone::Environment;
use tidegate_backbone::budget::Account;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use crate::telemetry::{Metrics, Throttle};

use admission::Admission;
pub use body::{BodyError, read_body};
use clients::Clients;
pub(in crate::edge) use exchange::no_memory;
pub use options::{BodyPace, Limits, Options, Shape, native};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: u32 = 4_096;
/// The first pause after an accept that failed for want of a resource, and the longest.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How often an error of accepting is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// What connections that were cut may take to end.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// The two ends of the connection that a request came over, in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peers {
    /// The client's address.
    pub remote: SocketAddr,
    /// The address on which the gateway took the connection.
    pub local: SocketAddr,
}

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can be reached from outside and nothing says who may use it.
    #[error(
        "{address} can be reached from other machines, but no access is configured; listen on a loopback address \
         (127.0.0.1 or [::1]) or configure access"
    )]
    NotLoopback {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The operating system refuses.
    #[error("{address} cannot be listened on: {source}")]
    Refused {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Where new connections come from: a socket, or what a test puts in its place.
trait Accept: Send + Sync + 'static {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        TcpListener::accept(self)
    }
}

/// A socket that is bound and listens, but is not served yet. Clients that connect meanwhile wait.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes an address; port 0 is any free one. An address that is not loopback is refused unless `access_configured`.
    pub fn bind(address: SocketAddr, access_configured: bool) -> Result<Self, BindError> {
        if !access_configured && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NotLoopback { address });
        }
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart must not wait until the connections of the process before have left TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        listen().map_err(|source| BindError::Refused { address, source })
    }

    /// The address that was taken, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer with `service`. Connections end with [`Server::shutdown`], or by themselves when `environment`
    /// stops.
    pub fn serve<S>(self, service: S, options: Options, environment: &Environment, metrics: Arc<Metrics>) -> Server
    where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        serve(self.socket, self.address, service, Common::new(options, environment, metrics))
    }
}

/// What all connections of a listener share.
#[derive(Debug)]
struct Common {
    options: Options,
    environment: Environment,
    metrics: Arc<Metrics>,
    admission: Arc<Admission>,
    clients: Arc<Clients>,
    /// No new connections and requests.
    drain: CancellationToken,
    /// No connections at all.
    cut: CancellationToken,
    throttle: Throttle,
}

impl Common {
    fn new(options: Options, environment: &Environment, metrics: Arc<Metrics>) -> Arc<Self> {
        let admission = Admission::new(&options.limits, environment.memory.clone(), Arc::clone(&metrics));
        let clients = Clients::new(&options.limits);
        Arc::new(Self {
            options,
            environment: environment.clone(),
            metrics,
            admission,
            clients,
            drain: environment.stopping().child_token(),
            cut: CancellationToken::new(),
            throttle: Throttle::new(LOG_INTERVAL),
        })
    }

    /// Whether clients that do not read hold so much that others cannot be served.
    fn memory_is_short(&self) -> bool {
        let memory = &self.environment.memory;
        [Account::Answers, Account::Reads].into_iter().any(|account| !memory.has_room(account))
    }
}

fn serve<A, S>(acceptor: A, address: SocketAddr, service: S, common: Arc<Common>) -> Server
where
    A: Accept,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let server = Server { address, common: Arc::clone(&common) };
    let environment = common.environment.clone();
    environment.spawn(async move {
        accept(&acceptor, service, &common).await;
        // The socket goes before the connections do, so that another process can take the address.
        drop(acceptor);
        if tokio::time::timeout(common.options.limits.shutdown_grace, common.admission.emptied()).await.is_err() {
            common.cut.cancel();
        }
    });
    server
}

/// Accepts until the listener drains. No error ends it.
async fn accept<A, S>(acceptor: &A, service: S, common: &Arc<Common>)
where
    A: Accept,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = common.drain.cancelled() => return,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                pause = ACCEPT_PAUSE.0;
                admit(stream, remote, &service, common);
            }
            Err(error) if concerns_one_connection(&error) => {
                debug!(%error, "a connection ended before it was accepted")
            }
            Err(error) => {
                if let Some(suppressed) = common.throttle.pass(common.environment.clock.since_boot()) {
                    warn!(%error, suppressed, "connections cannot be accepted for now; raise the limit of open files");
                }
                tokio::select! {
                    () = common.drain.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

fn admit<S>(stream: TcpStream, remote: SocketAddr, service: &S, common: &Arc<Common>)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    match Admission::admit(&common.admission, remote.ip()) {
        Ok(permit) => {
            let connection = connection::run(stream, remote, permit, service.clone(), Arc::clone(common));
            common.environment.spawn(connection);
        }
        Err(reason) => {
            common.metrics.connection_refused(reason.name());
            if let Some(suppressed) = common.throttle.pass(common.environment.clock.since_boot()) {
                warn!(%remote, reason = reason.name(), suppressed, "a connection is refused");
            }
            if let Some(place) = common.admission.place_to_refuse() {
                let cut = common.drain.clone();
                common.environment.spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = refusal::answer(stream) => {}
                    }
                    drop(place);
                });
            }
        }
    }
}

/// Errors of `accept` that a client caused by leaving; the next connection is not affected.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A listener that answers.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    common: Arc<Common>,
}

impl Server {
    /// The address that is served, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.common.admission.open()
    }

    /// Takes no new connection, tells clients so (GOAWAY, `Connection: close`), closes idle connections at once, and lets
    /// requests in flight end within `grace`. What is left is cut; gives how many connections that were.
    pub async fn shutdown(self, grace: Duration) -> usize {
        self.common.drain.cancel();
        if tokio::time::timeout(grace, self.common.admission.emptied()).await.is_ok() {
            return 0;
        }
        let left = self.common.admission.open();
        self.common.cut.cancel();
        // Cutting is dropping; only upgraded connections, which their handlers own, can be left behind this.
        let _ = tokio::time::timeout(CUT_GRACE, self.common.admission.emptied()).await;
        left
    }
}

#[cfg(test)]
mod tests;
