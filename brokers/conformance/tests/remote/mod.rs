//! A broker in memory behind real connections, with a client that reconnects: what the faulted cases of the suite are tried
//! on, and that can be made to break a promise.
//!
//! Operations do not travel as bytes: both ends are in one process, and a message names an operation that waits in a table.
//! So what is lost, late or cut on the connection is lost, late or cut for the broker.
#![expect(clippy::disallowed_methods, reason = "it stands for a broker, beside the product")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_backbone::testing::{MemoryBroker, MemoryLog};
use tidegate_backbone::{
    Appended, Batch, BoxFuture, Capability, Environment, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog,
    Position, Record, Result, Tail,
};
use tidegate_conformance::{Act, Fixture, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// The length of each message: a number, and what a message of some length would have.
const MESSAGE_BYTES: usize = 64;
/// How often the client asks for a sign of life, and how long it waits for one.
const BEAT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_millis(1_000);
const RECONNECT: Duration = Duration::from_millis(100);
/// Connections in a row that come to nothing, after which a client gives up that does.
const TRIES: usize = 12;
/// What a client takes an append for done after, where it invents acknowledgements.
const SOON: Duration = Duration::from_millis(50);
/// How long a fixture waits that is to hang.
const SHORT: Duration = Duration::from_secs(10);

/// A promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// None.
    Nothing,
    /// An append without its answer is told as not stored.
    TellsNo,
    /// Every append that fails is told as unknown.
    TellsUnknown,
    /// It never connects a second time.
    GivesUp,
    /// It gives up after [`TRIES`] connections that came to nothing.
    GivesUpLater,
    /// It takes a connection for good that is silent.
    NeverNotices,
    /// A reader of events goes back some of them after its connection was lost.
    Rereads,
    /// An append that is not answered soon is acknowledged all the same.
    Invents,
    /// The broker loses its newest events when it is killed.
    Loses,
}

type Operation = Box<dyn FnOnce(Arc<MemoryLog>) -> BoxFuture<'static, ()> + Send>;

/// What client and broker share beside the connection.
#[derive(Default)]
struct Exchange {
    operations: Mutex<BTreeMap<u64, Operation>>,
    next: AtomicU64,
}

/// One node: it can be killed and comes back on its port.
struct Node {
    address: SocketAddr,
    running: Mutex<Option<AbortHandle>>,
}

/// See the module.
pub(crate) struct Remote {
    broker: MemoryBroker,
    exchange: Arc<Exchange>,
    nodes: Vec<Node>,
    proxies: Vec<Proxy>,
    paused: watch::Sender<bool>,
    broken: Broken,
}

impl Remote {
    /// Three nodes of one broker, each behind its proxy.
    pub(crate) async fn start(broken: Broken) -> Arc<Self> {
        let (broker, exchange) = (MemoryBroker::default(), Arc::default());
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        let paused = watch::Sender::new(false);
        for _ in 0..3 {
            let proxy = Proxy::start().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            proxy.forward_to(address);
            let running = serve(listener, broker.client(), Arc::clone(&exchange), paused.subscribe());
            nodes.push(Node { address, running: Mutex::new(Some(running)) });
            proxies.push(proxy);
        }
        Arc::new(Self { broker, exchange, nodes, proxies, paused, broken })
    }

    fn kill(&self, node: &Node) {
        if let Some(running) = node.running.lock().take() {
            running.abort();
        }
        if self.broken == Broken::Loses {
            for id in self.broker.ids() {
                if matches!(id, LogId::Topic { .. }) {
                    self.broker.lose(&id, 3);
                }
            }
        }
    }

    async fn restart(&self, node: &Node) {
        self.kill(node);
        let listener = loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            match socket.bind(node.address).and_then(|()| socket.listen(64)) {
                Ok(listener) => break listener,
                // The one before is about to let go of it.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let client = self.broker.client();
        *node.running.lock() = Some(serve(listener, client, Arc::clone(&self.exchange), self.paused.subscribe()));
    }
}

impl Fixture for Remote {
    fn patience(&self) -> Duration {
        if self.broken == Broken::NeverNotices { SHORT } else { Duration::from_secs(90) }
    }

    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let addresses = self.proxies.iter().map(Proxy::address).collect();
            let (sender, receiver) = mpsc::channel(10_000);
            let client = Client {
                capability: self.broker.client().capability().clone(),
                exchange: Arc::clone(&self.exchange),
                sender,
                connected: Arc::default(),
                lost: Arc::default(),
                ends: Arc::default(),
                waiting: Arc::default(),
                broken: self.broken,
            };
            let shared = (Arc::clone(&client.connected), Arc::clone(&client.lost), Arc::clone(&client.waiting));
            drop(environment.spawn(connect(addresses, receiver, shared, self.broken)));
            Ok(Arc::new(client) as Arc<dyn PartitionLog>)
        })
    }

    fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    fn act(&self, act: Act, node: Option<u32>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let chosen = |index: usize| node.is_none_or(|node| node as usize == index + 1);
            for (_, node) in self.nodes.iter().enumerate().filter(|(index, _)| chosen(*index)) {
                match act {
                    Act::Kill => self.kill(node),
                    Act::Restart => self.restart(node).await,
                    Act::Pause | Act::Resume => {
                        self.paused.send_replace(act == Act::Pause);
                    }
                }
            }
        })
    }
}

fn serve(
    listener: TcpListener,
    log: Arc<MemoryLog>,
    exchange: Arc<Exchange>,
    paused: watch::Receiver<bool>,
) -> AbortHandle {
    let serving = async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer(stream, Arc::clone(&log), Arc::clone(&exchange), paused.clone()));
        }
    };
    tokio::spawn(serving).abort_handle()
}

async fn answer(stream: TcpStream, log: Arc<MemoryLog>, exchange: Arc<Exchange>, mut paused: watch::Receiver<bool>) {
    let (mut reads, mut writes) = stream.into_split();
    let (sender, mut receiver) = mpsc::channel::<u64>(10_000);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(number) = receiver.recv().await {
            if write(&mut writes, number).await.is_err() {
                return;
            }
        }
    });
    while let Ok(number) = read(&mut reads).await {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        // Begun here, in the order of messages, and finished beside the others.
        let operation = exchange.operations.lock().remove(&number);
        let doing = operation.map(|operation| operation(Arc::clone(&log)));
        let sender = sender.clone();
        tasks.spawn(async move {
            if let Some(doing) = doing {
                doing.await;
            }
            let _ = sender.send(number).await;
        });
    }
}

async fn read(reads: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<u64> {
    let mut message = [0; MESSAGE_BYTES];
    reads.read_exact(&mut message).await?;
    Ok(u64::from_le_bytes(message[..8].try_into().unwrap()))
}

async fn write(writes: &mut (impl tokio::io::AsyncWrite + Unpin), number: u64) -> std::io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    message[..8].copy_from_slice(&number.to_le_bytes());
    writes.write_all(&message).await
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>;
type Connected = Arc<Mutex<bool>>;
/// How many connections were lost.
type Lost = Arc<AtomicU64>;

/// Keeps a connection to any of the nodes, until the client is gone.
async fn connect(
    addresses: Vec<SocketAddr>,
    mut receiver: mpsc::Receiver<u64>,
    (connected, losses, waiting): (Connected, Lost, Waiting),
    broken: Broken,
) {
    let patience = if broken == Broken::NeverNotices { Duration::from_secs(3_600) } else { PATIENCE };
    let mut in_vain = 0;
    for address in addresses.iter().cycle() {
        in_vain += 1;
        if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            let lost = talk(stream, &mut receiver, &connected, &waiting, patience).await;
            // Whoever waits learns that no answer will come.
            if std::mem::replace(&mut *connected.lock(), false) {
                in_vain = 0;
                losses.fetch_add(1, Ordering::SeqCst);
            }
            while receiver.try_recv().is_ok() {}
            waiting.lock().clear();
            if !lost || broken == Broken::GivesUp {
                return;
            }
        }
        if broken == Broken::GivesUpLater && in_vain == TRIES {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Gives whether the connection was lost, and not the client.
async fn talk(
    stream: TcpStream,
    receiver: &mut mpsc::Receiver<u64>,
    connected: &Connected,
    waiting: &Waiting,
    patience: Duration,
) -> bool {
    let (mut reads, mut writes) = stream.into_split();
    let alive = write(&mut writes, 0).await.is_ok();
    let greeted = alive && matches!(tokio::time::timeout(PATIENCE, read(&mut reads)).await, Ok(Ok(_)));
    if !greeted {
        return !receiver.is_closed();
    }
    *connected.lock() = true;
    let read = async {
        while let Ok(Ok(number)) = tokio::time::timeout(patience, read(&mut reads)).await {
            if let Some(waiting) = waiting.lock().remove(&number) {
                let _ = waiting.send(());
            }
        }
    };
    let write = async {
        let mut beat = tokio::time::interval(BEAT);
        loop {
            let number = tokio::select! {
                number = receiver.recv() => match number {
                    Some(number) => number,
                    None => return false,
                },
                _ = beat.tick() => 0,
            };
            if write(&mut writes, number).await.is_err() {
                return true;
            }
        }
    };
    tokio::select! {
        () = read => true,
        lost = write => lost,
    }
}

#[derive(Clone)]
struct Client {
    capability: Capability,
    exchange: Arc<Exchange>,
    sender: mpsc::Sender<u64>,
    connected: Connected,
    lost: Lost,
    /// The last position of each log that this client was told.
    ends: Arc<Mutex<BTreeMap<LogId, Position>>>,
    waiting: Waiting,
    broken: Broken,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Client")
    }
}

impl Client {
    /// Sends an operation, when this is called; its answer, or that there is none.
    fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(Arc<MemoryLog>) -> BoxFuture<'static, Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let number = self.exchange.next.fetch_add(1, Ordering::SeqCst) + 1;
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        let (sender, receiver) = oneshot::channel();
        // Under one lock, so that what is sent is of the connection that is there, and in order.
        let connected = self.connected.lock();
        if *connected {
            let operation: Operation = Box::new(move |log| {
                let doing = operation(log);
                Box::pin(async move {
                    let done = doing.await;
                    *place.lock() = Some(done);
                })
            });
            self.exchange.operations.lock().insert(number, operation);
            self.waiting.lock().insert(number, sender);
            if self.sender.try_send(number).is_err() {
                self.waiting.lock().remove(&number);
            }
        } else {
            let ended = self.broken == Broken::GivesUp || self.sender.is_closed();
            let kind = if ended { ErrorKind::Closed } else { ErrorKind::Unavailable };
            return Box::pin(std::future::ready(Err(Error::new(kind, "there is no connection"))));
        }
        Box::pin(async move {
            let answered = receiver.await.is_ok();
            let unknown = || Error::new(ErrorKind::Unknown, "the connection ended before the answer");
            if answered { result.lock().take().unwrap_or_else(|| Err(unknown())) } else { Err(unknown()) }
        })
    }

    /// Again until it is answered: for what changes nothing.
    fn again<T: Send + 'static>(
        &self,
        operation: impl Fn(Arc<MemoryLog>) -> BoxFuture<'static, Result<T>> + Send + Sync + Clone + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let client = self.clone();
        Box::pin(async move {
            loop {
                let operation = operation.clone();
                match client.call(operation).await {
                    Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                        tokio::time::sleep(RECONNECT).await;
                    }
                    answered => return answered,
                }
            }
        })
    }
}

impl PartitionLog for Client {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.again(move |log| {
            let spec = spec.clone();
            Box::pin(async move { log.create(spec).await })
        })
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.again(move |log| {
            let spec = spec.clone();
            Box::pin(async move { log.delete(spec).await })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        self.again(|log| Box::pin(async move { log.list().await }))
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        let id = id.clone();
        self.again(move |log| {
            let id = id.clone();
            Box::pin(async move { log.info(&id).await })
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let (id, wanted) = (id.clone(), id.clone());
        let appending = self.call(move |log| log.append(&id, record));
        let (broken, ends) = (self.broken, Arc::clone(&self.ends));
        Box::pin(async move {
            if broken == Broken::Invents {
                let told = tokio::time::timeout(SOON, appending).await;
                let told = told.ok().and_then(Result::ok).and_then(|appended| appended.position);
                let mut ends = ends.lock();
                let last = ends.get(&wanted).copied().unwrap_or_default();
                let position = told.unwrap_or_else(|| last.next());
                ends.insert(wanted, last.max(position));
                return Ok(Appended { position: Some(position) });
            }
            appending.await.map_err(|error| match (broken, error.kind()) {
                (Broken::TellsNo, ErrorKind::Unknown) => Error::new(ErrorKind::Unavailable, "no answer"),
                (Broken::TellsUnknown, ErrorKind::Unavailable) => Error::new(ErrorKind::Unknown, "no connection"),
                _ => error,
            })
        })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        let client = self.clone();
        let (wanted, id) = (id.clone(), id.clone());
        let checking = self.again(move |log| {
            let id = wanted.clone();
            Box::pin(async move { log.tail(&id, from).await.map(|_| ()) })
        });
        Box::pin(async move {
            checking.await?;
            let lost = client.lost.load(Ordering::SeqCst);
            Ok(Box::new(Reader { client, id, from, lost }) as Box<dyn Tail>)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        let id = id.clone();
        self.again(move |log| {
            let id = id.clone();
            Box::pin(async move { log.lookup(&id, unix_milliseconds).await })
        })
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        let id = id.clone();
        self.again(move |log| {
            let id = id.clone();
            Box::pin(async move { log.trim(&id, before).await })
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct Reader {
    client: Client,
    id: LogId,
    from: Position,
    /// Connections that were lost when it last read.
    lost: u64,
}

impl Tail for Reader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        let (id, from) = (self.id.clone(), self.from);
        let reading = self.client.again(move |log| {
            let id = id.clone();
            Box::pin(async move {
                let mut tail = log.tail(&id, from).await?;
                let batch = tail.next(bytes_max).await?;
                Ok((batch, tail.position()))
            })
        });
        Box::pin(async move {
            let (batch, position) = reading.await?;
            self.from = position;
            let lost = self.client.lost.load(Ordering::SeqCst);
            let again = std::mem::replace(&mut self.lost, lost) != lost;
            if again && self.client.broken == Broken::Rereads && matches!(self.id, LogId::Topic { .. }) {
                self.from = Position(position.0.saturating_sub(3));
            }
            Ok(batch)
        })
    }

    fn position(&self) -> Position {
        self.from
    }
}
