//! The connection to the servers: opened once, and mended by the client library for ever after. Here it is known how it
//! stands, and what the server says beside answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, RequestErrorKind, ServerError};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tidegate_backbone::{Clock, Environment, Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::watch;

use crate::error::{Refusal, closed, denied, from_connect, misconfigured, unavailable};
use crate::options::{Credentials, Options};

/// How the connection stands.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) connected: bool,
    /// Grows each time that the connection is lost.
    pub(crate) generation: u64,
    /// Since when, in milliseconds since 1970.
    since: u64,
    /// What the last attempt to connect ended with.
    reason: String,
    /// What was said of it in the log.
    said: Said,
}

/// What was said in the log since the connection was lost: each of it once, and not with every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// That it is lost, if it is.
    Loss,
    /// Why it does not come back.
    Reason,
    /// That the server refuses the credentials, which somebody must mend.
    Refusal,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) address: String,
    link: watch::Sender<Link>,
    /// The newest refusal of a permission, in the server's words, which name the subject.
    denials: watch::Sender<Arc<str>>,
    clock: Arc<dyn Clock>,
    closed: AtomicBool,
    pub(crate) record_bytes_max: usize,
}

impl Connection {
    /// Connects, and fails at once where that is refused or nobody answers.
    pub(crate) async fn open(options: &Options, environment: &Environment) -> Result<Self> {
        options.check()?;
        let clock = Arc::clone(&environment.clock);
        let now = clock.unix_milliseconds();
        let link = Link { connected: true, generation: 0, since: now, reason: String::new(), said: Said::Loss };
        let (link, _) = watch::channel(link);
        let (denials, _) = watch::channel(Arc::from(""));
        let client = connect(options, link.clone(), denials.clone(), Arc::clone(&clock)).await?;
        let address = options.address();
        let info = client.server_info();
        if !info.headers {
            return Err(misconfigured(format!("{address} knows no headers; use NATS 2.9 or newer")));
        }
        let least = limits::JOURNAL_FRAME_BYTES + limits::NATS_HEADERS_BYTES;
        if info.max_payload < least {
            return Err(misconfigured(format!(
                "{address} carries {} bytes in a message, and {least} are needed; raise max_payload",
                info.max_payload
            )));
        }
        let record_bytes_max = info.max_payload - limits::NATS_HEADERS_BYTES;
        Ok(Self { client, address, link, denials, clock, closed: AtomicBool::new(false), record_bytes_max })
    }

    /// How the connection stands, to follow.
    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Whether it is connected now, as far as is known.
    pub(crate) fn is_connected(&self) -> bool {
        self.link.borrow().connected
    }

    /// Looks by itself how the connection stands, where word of it was lost.
    pub(crate) fn look(&self) {
        let connected = self.client.connection_state() == State::Connected;
        if connected != self.is_connected() {
            self.link.send_if_modified(|link| moved(link, connected, &*self.clock, &self.address));
        }
    }

    /// Since when and why the servers cannot be reached; none where they can.
    pub(crate) fn unreachable(&self) -> Option<String> {
        let link = self.link.borrow();
        if link.connected {
            return None;
        }
        let seconds = self.clock.unix_milliseconds().saturating_sub(link.since) / 1_000;
        let why = if link.reason.is_empty() { "the connection was lost" } else { &link.reason };
        let mend = if refuses(why) { REFUSED } else { "" };
        Some(format!("{} cannot be reached for {seconds} s: {why}{mend}", self.address))
    }

    /// The error of what needs a connection while there is none.
    pub(crate) fn down(&self, action: &str) -> Error {
        if self.is_closed() {
            return closed();
        }
        let why = self.unreachable().unwrap_or_else(|| format!("the connection to {} was lost", self.address));
        unavailable(format!("{action}: {why}"))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn set_closed(&self) -> bool {
        // Whoever waits for the connection looks again.
        let first = !self.closed.swap(true, Ordering::AcqRel);
        self.link.send_modify(|_| {});
        first
    }

    /// Follows what permissions the server refuses.
    pub(crate) fn denials(&self) -> watch::Receiver<Arc<str>> {
        self.denials.subscribe()
    }

    /// Asks JetStream. The inner error is its refusal. `changes` says that the call may have an effect that is then not known
    /// where no answer comes.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        action: &str,
        subject: String,
        body: Vec<u8>,
        changes: bool,
    ) -> Result<std::result::Result<T, Refusal>> {
        if self.is_closed() || !self.is_connected() {
            return Err(self.down(action));
        }
        let (mut link, mut denials) = (self.link(), self.denials());
        let generation = link.borrow_and_update().generation;
        denials.borrow_and_update();
        let request = async_nats::Request::new().payload(Bytes::from(body)).timeout(Some(limits::NATS_CALL_TIMEOUT));
        let unanswered = |what: &str| {
            if changes {
                Error::new(ErrorKind::Unknown, format!("{action}: {what}, and whether it was done is not known"))
            } else {
                unavailable(format!("{action}: {what}"))
            }
        };
        let answer = tokio::select! {
            answer = self.client.send_request(subject.clone(), request) => answer,
            _ = link.wait_for(|link| link.generation != generation || !link.connected) => {
                return Err(unanswered("the connection was lost"));
            }
            said = denials.wait_for(|said| forbids(said, &subject)) => {
                let said = said.map(|said| said.to_string()).unwrap_or_default();
                return Err(denied(action, &said));
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                return Err(if self.client.server_info().jetstream {
                    unavailable(format!("{action}: JetStream of {} does not answer", self.address))
                } else {
                    misconfigured(format!("{} runs without JetStream; start it with -js", self.address))
                });
            }
            Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                return Err(unanswered(&format!("{} did not answer in time", self.address)));
            }
            Err(error) => return Err(unanswered("it could not be asked").with_source(error)),
        };
        #[derive(serde::Deserialize)]
        struct Refused {
            error: Option<Refusal>,
        }
        let unreadable =
            |error: serde_json::Error| unanswered("the answer of NATS is not understood").with_source(error);
        if let Some(refusal) = serde_json::from_slice::<Refused>(&answer.payload).map_err(unreadable)?.error {
            return Ok(Err(refusal));
        }
        serde_json::from_slice(&answer.payload).map(Ok).map_err(unreadable)
    }

    /// Asks the server for an answer all the time, and opens the connection anew on which there is none. What arrives by itself,
    /// such as records for a reader, says nothing of whether anything gets there, and keeps the client from asking.
    pub(crate) async fn keep(self: Arc<Self>, nobody: String) {
        loop {
            tokio::time::sleep(limits::NATS_PING_INTERVAL).await;
            if self.is_closed() {
                return;
            }
            let generation = self.link.borrow().generation;
            let asked = self.settle("asking for a sign of life", nobody.clone());
            let answered = match tokio::time::timeout(limits::NATS_ANSWER_TIMEOUT, asked).await {
                // A refusal is an answer.
                Ok(answer) => answer.is_ok() || answer.is_err_and(|error| *error.kind() == ErrorKind::Denied),
                Err(_) => false,
            };
            let is_same = {
                let link = self.link.borrow();
                link.connected && link.generation == generation
            };
            if !answered && is_same && !self.is_closed() {
                let address = &self.address;
                tracing::warn!(%address, "NATS answers nothing, though the connection stands; connecting anew");
                // An error means that the client has ended, and then there is nothing to open anew.
                let _ = self.client.force_reconnect().await;
            }
        }
    }

    /// Returns when the server has taken everything that was sent before, subscriptions among it.
    pub(crate) async fn settle(&self, action: &str, nobody: String) -> Result<()> {
        let mut denials = self.denials();
        denials.borrow_and_update();
        let request = async_nats::Request::new().timeout(Some(limits::NATS_CALL_TIMEOUT));
        let answer = tokio::select! {
            answer = self.client.send_request(nobody.clone(), request) => answer,
            said = denials.wait_for(|said| forbids(said, &nobody)) => {
                let said = said.map(|said| said.to_string()).unwrap_or_default();
                return Err(denied(action, &said));
            }
        };
        match answer {
            // The server takes what comes on one connection in its order, and says at once that nobody answers.
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Ok(_) => Ok(()),
            Err(error) => Err(self.down(action).with_source(error)),
        }
    }
}

/// Whether a refusal of the server makes an answer to that subject impossible.
fn forbids(said: &str, subject: &str) -> bool {
    names(said, subject) || said.contains("ubscription to \"_INBOX")
}

/// Whether a refusal of the server names that subject.
pub(crate) fn names(said: &str, subject: &str) -> bool {
    said.split('"').nth(1) == Some(subject)
}

const REFUSED: &str = "; the server takes the gateway's credentials no more, see to its user there";

/// Whether an attempt to connect ended because of the credentials.
fn refuses(reason: &str) -> bool {
    reason.contains("authorization violation") || reason.contains("authentication")
}

fn moved(link: &mut Link, connected: bool, clock: &dyn Clock, address: &str) -> bool {
    if link.connected == connected {
        return false;
    }
    let now = clock.unix_milliseconds();
    if connected {
        let seconds = now.saturating_sub(link.since) / 1_000;
        tracing::info!(%address, seconds, "the connection to NATS is back");
    } else {
        link.generation += 1;
        tracing::warn!(%address, "the connection to NATS is lost; connecting anew");
    }
    link.connected = connected;
    link.since = now;
    link.reason.clear();
    link.said = Said::Loss;
    true
}

/// An attempt to connect has failed.
fn failed(link: &mut Link, reason: String, address: &str) {
    let says = if refuses(&reason) { Said::Refusal } else { Said::Reason };
    if !link.connected && says > link.said {
        let mend = if says == Said::Refusal { REFUSED } else { "" };
        tracing::warn!(%address, "NATS cannot be reached: {reason}{mend}");
        link.said = says;
    }
    link.reason = reason;
}

async fn connect(
    options: &Options,
    link: watch::Sender<Link>,
    denials: watch::Sender<Arc<str>>,
    clock: Arc<dyn Clock>,
) -> Result<Client> {
    let address = options.address();
    let follow = move |event: Event| {
        match event {
            Event::Connected => {
                link.send_if_modified(|link| moved(link, true, &*clock, &address));
            }
            Event::Disconnected => {
                link.send_if_modified(|link| moved(link, false, &*clock, &address));
            }
            Event::ClientError(error) => {
                link.send_if_modified(|link| {
                    failed(link, error.to_string(), &address);
                    false
                });
            }
            Event::ServerError(ServerError::Other(said))
                if said.to_ascii_lowercase().contains("permissions violation") =>
            {
                tracing::warn!(%said, "NATS refuses a permission");
                denials.send_replace(Arc::from(said));
            }
            Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
            Event::SlowConsumer(_) => {
                tracing::warn!("messages of NATS came faster than they were taken, and some were lost")
            }
            Event::LameDuckMode => tracing::info!("the NATS server is about to stop; the client goes to another one"),
            Event::Draining | Event::Closed => {}
        }
        std::future::ready(())
    };
    let mut connect = ConnectOptions::new()
        .name("tidegate")
        .connection_timeout(limits::NATS_CONNECT_TIMEOUT)
        .request_timeout(Some(limits::NATS_CALL_TIMEOUT))
        .ping_interval(limits::NATS_PING_INTERVAL)
        .max_reconnects(None)
        .client_capacity(limits::NATS_COMMANDS)
        // Acknowledgements come on one subscription, and none of them may be dropped.
        .subscription_capacity(2 * options.queue_records.max(limits::NATS_PULL_RECORDS))
        .reconnect_delay_callback(|attempt| {
            let doubled = Duration::from_millis(8 << u32::try_from(attempt).unwrap_or(u32::MAX).min(8));
            if attempt <= 1 { Duration::ZERO } else { doubled.min(limits::NATS_RECONNECT_DELAY_MAX) }
        })
        .require_tls(options.tls.required)
        .event_callback(follow);
    if let Some(path) = &options.tls.ca_file {
        connect = connect.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&options.tls.certificate_file, &options.tls.key_file) {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    connect = match &options.credentials {
        Credentials::None => connect,
        Credentials::User { user, password } => connect.user_and_password(user.clone(), password.clone()),
        Credentials::Token(token) => connect.token(token.clone()),
        Credentials::NkeySeed(seed) => connect.nkey(seed.trim().to_owned()),
        Credentials::File(path) => connect.credentials_file(path).await.map_err(|error| {
            misconfigured(format!("cannot read the credentials file {}", path.display())).with_source(error)
        })?,
    };
    let credentials = format!("{:?}", options.credentials);
    connect.connect(options.servers()?).await.map_err(|error| from_connect(&options.address(), &credentials, error))
}
