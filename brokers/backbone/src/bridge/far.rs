//! One other broker: opened when a topic of it is attached for the first time and it can be reached, and again where its client
//! has ended for good.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tokio::sync::watch;
use tokio::time::Instant;
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
    /// The client that knows it, where it is the one that is open.
    client: Option<Arc<Client>>,
    /// What kept it from being attached, once that was told.
    told: Option<ErrorKind>,
}

impl Joined {
    fn new(to: ByteString) -> Self {
        Self { to, client: None, told: None }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Far {
    name: ByteString,
    state: watch::Sender<State>,
    topics: Mutex<BTreeMap<ByteString, Joined>>,
    /// Held while topics are attached, so that none is attached to a client that has gone meanwhile.
    attaching: tokio::sync::Mutex<()>,
    /// When it last did not answer, and what came instead.
    silent: Mutex<Option<(Instant, String)>>,
    /// A topic of it was asked for. It is not opened before: what its user may do elsewhere on the broker, and what the adapter
    /// creates there, is nobody's business until then.
    wanted: CancellationToken,
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
        let topics: BTreeMap<ByteString, Joined> =
            topics.into_iter().map(|(topic, to)| (topic, Joined::new(to))).collect();
        let wanted = CancellationToken::new();
        if !topics.is_empty() {
            wanted.cancel();
        }
        let far = Arc::new(Self {
            name,
            state: watch::Sender::new(State::Opening),
            topics: Mutex::new(topics),
            attaching: tokio::sync::Mutex::new(()),
            silent: Mutex::new(None),
            wanted,
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
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.wanted.cancelled() => {}
        }
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
                *self.silent.lock() = None;
                self.attach_missing(&client).await;
            }
            self.keep(&client).await;
            {
                let _attaching = self.attaching.lock().await;
                self.state.send_replace(State::Away("its client has ended".into()));
                self.topics.lock().values_mut().for_each(|joined| joined.client = None);
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
    async fn keep(&self, client: &Arc<Client>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = client.failed.cancelled() => return,
                () = tokio::time::sleep(limits::BRIDGE_INTERVAL) => {
                    if self.topics.lock().values().any(|joined| joined.client.is_none()) {
                        let _attaching = self.attaching.lock().await;
                        self.attach_missing(client).await;
                    }
                }
            }
        }
    }

    /// To be called while `attaching` is held. Where the broker does not answer about one, it is not asked about the others.
    async fn attach_missing(&self, client: &Arc<Client>) {
        let missing: Vec<(ByteString, ByteString)> = {
            let topics = self.topics.lock();
            let missing = topics.iter().filter(|(_, joined)| joined.client.is_none());
            missing.map(|(topic, joined)| (topic.clone(), joined.to.clone())).collect()
        };
        for (topic, to) in missing {
            match self.attach_to(client, &topic, &to).await {
                Ok(_) => info!(broker = %self.name, %topic, %to, "a topic of a further broker is attached"),
                Err(error) => {
                    self.tell(&topic, &error);
                    if self.silence().is_some() {
                        return;
                    }
                }
            }
        }
    }

    /// Says that a topic cannot be attached, once for each kind of reason.
    fn tell(&self, topic: &ByteString, error: &Error) {
        let mut topics = self.topics.lock();
        let Some(joined) = topics.get_mut(topic) else { return };
        if joined.told.as_ref() != Some(error.kind()) {
            joined.told = Some(error.kind().clone());
            let to = &joined.to;
            warn!(broker = %self.name, %topic, %to, %error, "a topic of a further broker cannot be attached; trying again");
        }
    }

    /// To be called while `attaching` is held.
    async fn attach_to(&self, client: &Arc<Client>, topic: &ByteString, to: &ByteString) -> Result<u32> {
        client.check()?;
        let attached = tokio::time::timeout(limits::BRIDGE_ATTACH_TIMEOUT, client.log().attach(topic, to)).await;
        let attached = client.heard(attached.unwrap_or_else(|_| Err(self.away("it does not answer"))));
        let unanswered = attached.as_ref().err().filter(|error| *error.kind() == ErrorKind::Unavailable);
        *self.silent.lock() = unanswered.map(|error| (Instant::now(), error.to_string()));
        let partitions = attached?;
        let wanted = match self.topics.lock().get_mut(topic) {
            Some(joined) if joined.to == *to => {
                joined.client = Some(Arc::clone(client));
                joined.told = None;
                true
            }
            _ => false,
        };
        if !wanted {
            // It was let go of meanwhile, when this client did not know it yet.
            client.heard(client.log().delete(LogSpec::topic(topic.clone(), partitions)).await)?;
            return Err(self.away(&format!("topic {topic} was let go of while it was attached")));
        }
        Ok(partitions)
    }

    /// That the broker did not answer a moment ago, where it did not: whoever asks now waits for nothing, and this process
    /// tries again by itself as long as there is a topic to attach.
    fn silence(&self) -> Option<Error> {
        let silent = self.silent.lock();
        let (_, reason) = silent.as_ref().filter(|(since, _)| since.elapsed() < limits::BRIDGE_SILENCE)?;
        Some(Error::new(ErrorKind::Unavailable, reason.clone()))
    }

    /// Makes a topic of the broker readable and writable under a name; gives its partitions. A broker that is being opened for
    /// the first time is waited for, one that is away is not, and one that does not answer is once. Where nobody waits for the
    /// outcome, the topic is attached all the same as soon as that can be.
    pub(super) async fn attach(&self, topic: ByteString, to: ByteString) -> Result<u32> {
        self.wanted.cancel();
        if !self.holds(&topic) {
            self.topics.lock().insert(topic.clone(), Joined::new(to.clone()));
        }
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::Opening));
        // Whether it was decided in time is seen below.
        drop(tokio::time::timeout(limits::BRIDGE_ATTACH_TIMEOUT, decided).await);
        let answers = || self.silence().map_or(Ok(()), Err);
        answers()?;
        let _attaching = self.attaching.lock().await;
        answers()?;
        let client = self.open()?;
        self.attach_to(&client, &topic, &to).await
    }

    /// Lets go of a topic, which stays on the broker.
    pub(super) async fn detach(&self, topic: &ByteString) -> Result<()> {
        let client = self.topics.lock().remove(topic).and_then(|joined| joined.client);
        match client {
            // Asked of a client that does not know it as attached, it would be the deletion of a topic of that name.
            Some(client) => client.heard(client.log().delete(LogSpec::topic(topic.clone(), 1)).await),
            None => Ok(()),
        }
    }

    /// Whether a topic is attached.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.topics.lock().get(topic).is_some_and(|joined| joined.client.is_some())
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
