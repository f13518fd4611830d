//! One connection to the broker, which is opened again for ever after it was lost. Each purpose has one of its own, so that
//! a broker that takes no more publishes still answers questions and delivers, and lanes do not wait behind records.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{AsyncTcpStream, Channel, ConnectionProperties, Event};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tidegate_backbone::{Clock, Environment, Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{closed, failed, from_connect, unavailable};
use crate::options::Options;
use crate::stream::{Wire, runtime};

/// A connection that stands, or stood a moment ago.
#[derive(Clone)]
pub(crate) struct Open {
    connection: Arc<lapin::Connection>,
    /// Grows with each connection.
    pub(crate) generation: u64,
    opened: Instant,
    /// Ends it without a word.
    end: CancellationToken,
}

impl Open {
    /// A channel of its own.
    pub(crate) async fn channel(&self, action: &str) -> Result<Channel> {
        let made = tokio::time::timeout(limits::RABBITMQ_CALL_TIMEOUT, self.connection.create_channel()).await;
        let made = made.map_err(|_| unavailable(format!("{action}: RabbitMQ gave no channel in time")))?;
        made.map_err(|error| failed(action, error, false))
    }

    /// Whether it is so new that the broker may have just started.
    pub(crate) fn is_new(&self) -> bool {
        self.opened.elapsed() < limits::RABBITMQ_START_PATIENCE
    }

    /// Lets go of it, because it does not do what it should; another one is opened.
    pub(crate) fn let_go(&self) {
        self.end.cancel();
    }
}

/// How it stands.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) open: Option<Open>,
    /// Why the broker takes no messages for now.
    pub(crate) blocked: Option<String>,
    pub(crate) closed: bool,
    /// Since when it is away, in milliseconds since 1970, and why.
    since: u64,
    reason: String,
}

/// See the module.
pub(crate) struct Link {
    purpose: &'static str,
    options: Arc<Options>,
    tls: Option<Arc<ClientConfig>>,
    clock: Arc<dyn Clock>,
    state: watch::Sender<State>,
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects, and fails at once where that is refused or nobody answers.
    pub(crate) async fn open(
        purpose: &'static str,
        options: &Arc<Options>,
        tls: Option<Arc<ClientConfig>>,
        environment: &Environment,
    ) -> Result<Arc<Self>> {
        let link = Self::new(purpose, options, tls, environment);
        let first = link.connect(0).await?;
        link.state.send_modify(|state| state.open = Some(first.clone()));
        let (kept, stopping) = (Arc::clone(&link), environment.clone());
        environment.spawn(async move { kept.keep(Some(first), stopping).await });
        Ok(link)
    }

    /// The same where nothing fails that is not there yet: it connects from now on.
    pub(crate) fn begin(
        purpose: &'static str,
        options: &Arc<Options>,
        tls: Option<Arc<ClientConfig>>,
        environment: &Environment,
    ) -> Arc<Self> {
        let link = Self::new(purpose, options, tls, environment);
        let (kept, stopping) = (Arc::clone(&link), environment.clone());
        environment.spawn(async move { kept.keep(None, stopping).await });
        link
    }

    fn new(
        purpose: &'static str,
        options: &Arc<Options>,
        tls: Option<Arc<ClientConfig>>,
        environment: &Environment,
    ) -> Arc<Self> {
        let clock = Arc::clone(&environment.clock);
        let since = clock.unix_milliseconds();
        let (state, _) =
            watch::channel(State { open: None, blocked: None, closed: false, since, reason: String::new() });
        Arc::new(Self { purpose, options: Arc::clone(options), tls, clock, state })
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The connection, where there is one.
    pub(crate) fn current(&self) -> Option<Open> {
        self.state.borrow().open.clone()
    }

    /// The connection, or the error of what needs it.
    pub(crate) fn require(&self, action: &str) -> Result<Open> {
        self.current().filter(|_| !self.is_closed()).ok_or_else(|| self.down(action))
    }

    /// Waits for a connection.
    pub(crate) async fn wait(&self) -> Result<Open> {
        let mut state = self.state();
        let state = state.wait_for(|state| state.closed || state.open.is_some()).await.map_err(|_| closed())?;
        state.open.clone().filter(|_| !state.closed).ok_or_else(closed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// Why the broker takes no messages for now.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.state.borrow().blocked.clone()
    }

    /// Since when and why the broker cannot be reached.
    pub(crate) fn unreachable(&self) -> Option<String> {
        let state = self.state.borrow();
        if state.open.is_some() {
            return None;
        }
        let seconds = self.clock.unix_milliseconds().saturating_sub(state.since) / 1_000;
        Some(format!("{} cannot be reached for {seconds} s: {}", self.options.address(), state.reason))
    }

    /// The error of what needs a connection while there is none.
    pub(crate) fn down(&self, action: &str) -> Error {
        if self.is_closed() {
            return closed();
        }
        let why = self.unreachable().unwrap_or_else(|| "the connection was lost".to_owned());
        unavailable(format!("{action}: {why}"))
    }

    /// Nothing is done with it any more.
    pub(crate) fn set_closed(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// Says goodbye.
    pub(crate) async fn goodbye(&self) {
        if let Some(open) = self.current() {
            let goodbye = open.connection.close(200, "the gateway ends".into());
            let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
            open.end.cancel();
        }
    }

    /// Ends it without a word, as the death of the process does.
    pub(crate) fn cut(&self) {
        if let Some(open) = self.current() {
            open.end.cancel();
        }
    }

    /// Follows the connection, and opens the next one where there is none or it was lost.
    async fn keep(&self, first: Option<Open>, environment: Environment) {
        let stopping = environment.stopping();
        let (mut generation, mut following) = (0, first);
        loop {
            if let Some(open) = following {
                let reason = tokio::select! {
                    () = stopping.cancelled() => {
                        open.end.cancel();
                        return;
                    }
                    reason = self.follow(&open) => reason,
                };
                open.end.cancel();
                let address = self.options.address();
                tracing::warn!(purpose = self.purpose, address, reason, "the connection to RabbitMQ was lost");
                let since = self.clock.unix_milliseconds();
                self.state.send_modify(|state| {
                    (state.open, state.blocked, state.since, state.reason) = (None, None, since, reason);
                });
                generation = open.generation + 1;
            }
            let again = async {
                let mut delay = Duration::from_millis(20);
                loop {
                    match self.connect(generation).await {
                        Ok(open) => return open,
                        Err(error) => self.state.send_modify(|state| state.reason = error.to_string()),
                    }
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(limits::RABBITMQ_RECONNECT_DELAY_MAX);
                }
            };
            let open = tokio::select! {
                () = stopping.cancelled() => return,
                open = again => open,
            };
            if generation > 0 {
                tracing::info!(
                    purpose = self.purpose,
                    address = self.options.address(),
                    "RabbitMQ can be reached again"
                );
            }
            self.state.send_modify(|state| state.open = Some(open.clone()));
            following = Some(open);
        }
    }

    /// Returns when the connection is lost, with the reason.
    async fn follow(&self, open: &Open) -> String {
        let mut events = open.connection.events_listener();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = open.end.cancelled() => return "it was let go of".to_owned(),
                // Where word of its end was lost.
                () = tokio::time::sleep(Duration::from_millis(500)) => Some(Event::Connected),
            };
            let said = match &event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "RabbitMQ takes no messages for now");
                    self.state.send_modify(|state| state.blocked = Some(reason.clone()));
                    continue;
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!("RabbitMQ takes messages again");
                    self.state.send_modify(|state| state.blocked = None);
                    continue;
                }
                Some(Event::Error(error)) => error.to_string(),
                _ => "its end was not told".to_owned(),
            };
            if event.is_none() || !open.connection.status().connected() {
                return said;
            }
        }
    }

    /// Tries each host once, beginning at another one with each connection.
    async fn connect(&self, generation: u64) -> Result<Open> {
        if self.is_closed() {
            return Err(closed());
        }
        let count = self.options.hosts.len();
        let first = usize::try_from(generation).unwrap_or_default() % count;
        let mut last = None;
        for number in 0..count {
            let (host, port) = &self.options.hosts[(first + number) % count];
            match tokio::time::timeout(limits::RABBITMQ_CONNECT_TIMEOUT, self.connect_to(host, *port, generation)).await
            {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let context = format!("cannot open {}: {host}:{port} does not answer", self.options.address());
                    last.get_or_insert_with(|| unavailable(context));
                }
            }
            // What one node refuses every node does.
            if last.as_ref().is_some_and(|error| *error.kind() != ErrorKind::Unavailable) {
                break;
            }
        }
        Err(last.unwrap_or_else(|| unavailable("no host is named")))
    }

    async fn connect_to(&self, host: &str, port: u16, generation: u64) -> Result<Open> {
        let options = &self.options;
        let end = CancellationToken::new();
        let refused = |error: lapin::Error| from_connect(&options.address(), &options.user, error);
        let wire = Wire::connect(host, port, self.tls.clone(), &end).await.map_err(|error| refused(error.into()))?;
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: options.user.clone(), password: options.password.clone() },
                host: host.to_owned(),
                port,
            },
            vhost: options.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: u16::try_from(limits::RABBITMQ_HEARTBEAT.as_secs()).ok(),
                auth_mechanism: Some(SASLMechanism::Plain),
                ..AMQPQueryString::default()
            },
        };
        // The library asks once, and would ask again where it were told to mend connections by itself.
        let wire = Mutex::new(Some(wire));
        let given = async move |_, _| {
            let wire = wire.lock().take();
            wire.map(AsyncTcpStream::Plain).ok_or_else(|| std::io::Error::other("a connection is used once").into())
        };
        let properties =
            ConnectionProperties::default().with_connection_name(format!("tidegate, {}", self.purpose).into());
        let connection = lapin::Connection::connector(uri, runtime(), given, properties).await.map_err(refused)?;
        Ok(Open { connection: Arc::new(connection), generation, opened: Instant::now(), end })
    }
}
