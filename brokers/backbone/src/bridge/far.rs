//! One other broker: opened when it can be reached, and again where its client has ended for good.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::environment::Environment;
use crate::error::{Applied, Error, ErrorKind, Result};
use crate::log::{Batch, BoxFuture, LogSpec, PartitionLog, Position, Tail};

/// A client of another broker.
#[derive(Clone)]
pub struct FarLog {
    /// Its logs.
    pub log: Arc<dyn PartitionLog>,
    /// Since when and why the broker cannot be reached, where it cannot.
    pub unreachable: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl fmt::Debug for FarLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FarLog").field("log", &self.log).finish_non_exhaustive()
    }
}

/// How another broker is opened.
pub trait Opener: Send + Sync + fmt::Debug {
    /// Tries once.
    fn open(&self) -> BoxFuture<'_, Result<FarLog>>;
}

/// How a broker stands.
#[derive(Clone, Debug)]
enum State {
    /// It is being opened for the first time.
    Opening,
    /// It could not be opened, for that reason, or is no more to be used.
    Away(Arc<str>),
    /// It is open.
    Open(Arc<Client>),
}

/// A client that is open. What it says after its end is about itself alone, and never about the one that came after it.
#[derive(Debug)]
pub(super) struct Client {
    broker: ByteString,
    far: FarLog,
    /// It has ended for good.
    failed: CancellationToken,
}

impl Client {
    /// Its logs.
    pub(super) fn log(&self) -> &Arc<dyn PartitionLog> {
        &self.far.log
    }

    fn check(&self) -> Result<()> {
        (self.far.unreachable)().map_or(Ok(()), |reason| Err(away(&self.broker, &reason)))
    }

    /// What it said. That it has ended is told as an outage, because it is opened anew.
    pub(super) fn heard<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            if *error.kind() != ErrorKind::Closed {
                return error;
            }
            self.failed.cancel();
            let applied = error.applied();
            let told = away(&self.broker, "its client has ended").with_source(error);
            if applied == Applied::Unknown { told.outcome_unknown() } else { told }
        })
    }

    /// A reader whose errors are told as those of all else.
    pub(super) fn follow(self: &Arc<Self>, tail: Result<Box<dyn Tail>>) -> Result<Box<dyn Tail>> {
        let tail = self.heard(tail)?;
        Ok(Box::new(FarTail { client: Arc::clone(self), tail }))
    }
}

fn away(broker: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the broker {broker} cannot be used: {reason}"))
}

/// A topic that is to be attached.
#[derive(Debug)]
struct Joined {
    /// Its name on the broker.
    to: ByteString,
    /// Whether the client that is open knows it.
    attached: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Far {
    name: ByteString,
    state: watch::Sender<State>,
    topics: Mutex<BTreeMap<ByteString, Joined>>,
    /// Held while topics are attached, so that none is attached to a client that has gone meanwhile.
    attaching: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Far {
    /// Begins to open a broker; these topics are attached to it.
    pub(super) fn start(
        name: ByteString,
        opener: Arc<dyn Opener>,
        topics: Vec<(ByteString, ByteString)>,
        environment: &Environment,
    ) -> Arc<Self> {
        let topics = topics.into_iter().map(|(topic, to)| (topic, Joined { to, attached: false })).collect();
        let far = Arc::new(Self {
            name,
            state: watch::Sender::new(State::Opening),
            topics: Mutex::new(topics),
            attaching: tokio::sync::Mutex::new(()),
            stop: environment.stopping().child_token(),
            stopped: CancellationToken::new(),
        });
        let running = Arc::clone(&far);
        environment.spawn(async move {
            running.run(opener.as_ref()).await;
            running.stopped.cancel();
        });
        far
    }

    /// Ends the client; whoever waits for it is told that it is away.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        self.stopped.cancelled().await;
    }

    async fn run(&self, opener: &dyn Opener) {
        let mut told = None;
        loop {
            let opened = tokio::select! {
                () = self.stop.cancelled() => break,
                opened = opener.open() => opened,
            };
            let far = match opened {
                Ok(far) => far,
                Err(error) => {
                    let reason = error.to_string();
                    if told.as_ref() != Some(&reason) {
                        warn!(broker = %self.name, %error, "a further broker cannot be reached; trying again");
                    }
                    self.state.send_replace(State::Away(reason.as_str().into()));
                    told = Some(reason);
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        () = tokio::time::sleep(limits::BRIDGE_INTERVAL) => continue,
                    }
                }
            };
            told = None;
            let failed = CancellationToken::new();
            let client = Arc::new(Client { broker: self.name.clone(), far, failed });
            info!(broker = %self.name, kind = client.log().capability().broker, "a further broker is reached");
            {
                let _attaching = self.attaching.lock().await;
                self.state.send_replace(State::Open(Arc::clone(&client)));
                self.attach_missing(&client).await;
            }
            self.keep(&client).await;
            {
                let _attaching = self.attaching.lock().await;
                self.state.send_replace(State::Away("its client has ended".into()));
                self.topics.lock().values_mut().for_each(|joined| joined.attached = false);
            }
            client.log().close().await;
            if self.stop.is_cancelled() {
                break;
            }
            warn!(broker = %self.name, "the client of a further broker has ended; it is opened anew");
        }
        self.state.send_replace(State::Away("this gateway uses it no more".into()));
    }

    /// Until the client is to go: attaches what could not be attached before.
    async fn keep(&self, client: &Client) {
        loop {
            let missing = self.topics.lock().values().any(|joined| !joined.attached);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = client.failed.cancelled() => return,
                () = tokio::time::sleep(limits::BRIDGE_INTERVAL), if missing => {
                    let _attaching = self.attaching.lock().await;
                    self.attach_missing(client).await;
                }
            }
        }
    }

    /// To be called while `attaching` is held.
    async fn attach_missing(&self, client: &Client) {
        let missing: Vec<(ByteString, ByteString)> = {
            let topics = self.topics.lock();
            let missing = topics.iter().filter(|(_, joined)| !joined.attached);
            missing.map(|(topic, joined)| (topic.clone(), joined.to.clone())).collect()
        };
        for (topic, to) in missing {
            match self.attach_to(client, &topic, &to).await {
                Ok(_) => info!(broker = %self.name, %topic, %to, "a topic of a further broker is attached"),
                Err(error) => {
                    warn!(broker = %self.name, %topic, %to, %error, "a topic of a further broker cannot be attached; trying again");
                }
            }
        }
    }

    /// To be called while `attaching` is held.
    async fn attach_to(&self, client: &Client, topic: &ByteString, to: &ByteString) -> Result<u32> {
        client.check()?;
        let attached = tokio::time::timeout(limits::BRIDGE_ATTACH_TIMEOUT, client.log().attach(topic, to)).await;
        let partitions = client.heard(attached.unwrap_or_else(|_| Err(self.away("it does not answer"))))?;
        if let Some(joined) = self.topics.lock().get_mut(topic) {
            joined.attached = true;
        }
        Ok(partitions)
    }

    /// Makes a topic of the broker readable and writable under a name; gives its partitions. A broker that is being opened for
    /// the first time is waited for, one that is away is not.
    pub(super) async fn attach(&self, topic: ByteString, to: ByteString) -> Result<u32> {
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::Opening));
        // Whether it was decided in time is seen below.
        drop(tokio::time::timeout(limits::BRIDGE_ATTACH_TIMEOUT, decided).await);
        let _attaching = self.attaching.lock().await;
        if !self.holds(&topic) {
            self.topics.lock().insert(topic.clone(), Joined { to: to.clone(), attached: false });
        }
        let client = self.open()?;
        self.attach_to(&client, &topic, &to).await
    }

    /// Lets go of a topic, which stays on the broker.
    pub(super) async fn detach(&self, topic: &ByteString) -> Result<()> {
        let _attaching = self.attaching.lock().await;
        let was_attached = self.topics.lock().remove(topic).is_some_and(|joined| joined.attached);
        match self.open() {
            // Asked of a client that does not know it as attached, it would be the deletion of a topic of that name.
            Ok(client) if was_attached => client.heard(client.log().delete(LogSpec::topic(topic.clone(), 1)).await),
            _ => Ok(()),
        }
    }

    /// Whether a topic is attached.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.topics.lock().get(topic).is_some_and(|joined| joined.attached)
    }

    /// The client that knows a topic as attached.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the broker is away, or the topic is not attached yet.
    pub(super) fn client_of(&self, topic: &str) -> Result<Arc<Client>> {
        let client = self.open()?;
        client.check()?;
        if !self.holds(topic) {
            return Err(self.away(&format!("topic {topic} is not attached there yet")));
        }
        Ok(client)
    }

    fn open(&self) -> Result<Arc<Client>> {
        match &*self.state.borrow() {
            State::Open(client) => Ok(Arc::clone(client)),
            State::Opening => Err(self.away("it is being reached")),
            State::Away(reason) => Err(self.away(reason)),
        }
    }

    fn away(&self, reason: &str) -> Error {
        away(&self.name, reason)
    }
}

struct FarTail {
    client: Arc<Client>,
    tail: Box<dyn Tail>,
}

impl Tail for FarTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            let batch = self.tail.next(bytes_max).await;
            self.client.heard(batch)
        })
    }

    fn position(&self) -> Position {
        self.tail.position()
    }
}
