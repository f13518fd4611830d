//! A proxy between a client and a broker that brings about what networks do: cuts, silence, delay, loss of one direction.
//!
//! It forwards bytes and knows no protocol. What was done to a connection that no client can make sense of afterwards,
//! because bytes of it are gone, ends with a reset.
#![expect(clippy::disallowed_methods, reason = "it runs beside the product and not inside: it ends with its handle")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks of one direction that are under way; beyond them nothing more is read, as a full network does.
const CHUNKS_MAX: usize = 64;

/// One direction of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From clients to the broker: requests.
    ToBroker,
    /// From the broker to clients: answers.
    FromBroker,
}

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Forward,
    /// Nothing is read any more, and nothing written: the peer sees a connection that is open and silent.
    Hold,
    /// Read and thrown away.
    Discard,
    /// That many bytes more, of all connections together; then a reset.
    ResetAfter,
}

impl State {
    /// What becomes of the bytes of a connection that began at that count of strandings.
    fn flow(&self, direction: Direction, began: u64) -> Flow {
        if began < self.strands && began >= self.released { Flow::Hold } else { self.flow[direction as usize] }
    }
}

impl Flow {
    /// Whether what is sent comes out on the other side.
    fn carries(self) -> bool {
        matches!(self, Self::Forward | Self::ResetAfter)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    refuse: bool,
    flow: [Flow; 2],
    delay: Duration,
    /// Grows with each cut: connections that began before it end.
    cuts: u64,
    /// Grows with each mark: a connection belongs to those before it or to those behind.
    marks: u64,
    /// Connections that began before that mark are silent.
    strands: u64,
    /// Strandings that are over.
    released: u64,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    state: watch::Sender<State>,
    attempts: AtomicU64,
    connections: AtomicU64,
    bytes: [AtomicU64; 2],
    /// What is left of [`Flow::ResetAfter`].
    left: [Mutex<u64>; 2],
}

/// A running proxy, and the handle of its faults. Dropped, it ends with all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Listens on a free port of loopback. Until [`Proxy::forward_to`] is called connections are reset.
    ///
    /// # Panics
    ///
    /// Where loopback has no free port.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same at another address of this machine, such as `127.0.0.2`, by which no certificate knows the broker.
    ///
    /// # Panics
    ///
    /// Where it has no free port, or is none of this machine.
    pub async fn start_at(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("an address of this machine has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            state: watch::Sender::new(State::default()),
            attempts: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            bytes: Default::default(),
            left: Default::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections are forwarded to.
    pub fn forward_to(&self, broker: SocketAddr) {
        *self.shared.target.lock() = Some(broker);
    }

    /// Resets every open connection. New ones are taken.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cuts += 1);
    }

    /// Resets every open connection, and new ones at once, until [`Proxy::heal`]. They are taken first: a port that is
    /// given up might be somebody else's when it is wanted again.
    pub fn refuse(&self) {
        self.shared.state.send_modify(|state| {
            state.refuse = true;
            state.cuts += 1;
        });
    }

    /// Stops reading and writing without an end of the connection, old and new ones, as a cable does that is pulled out.
    pub fn half_open(&self) {
        self.shared.state.send_modify(|state| state.flow = [Flow::Hold; 2]);
    }

    /// The same for the connections that are open now; new ones are forwarded. What was sent waits for [`Proxy::heal`].
    pub fn strand(&self) {
        self.mark();
        self.shared.state.send_modify(|state| state.strands = state.marks);
    }

    /// Remembers which connections are open now, for [`Proxy::isolate`].
    pub fn mark(&self) {
        self.shared.state.send_modify(|state| state.marks += 1);
    }

    /// Makes the connections silent that were opened before the last mark, and resets new ones at once; those between go on.
    /// So of two clients, of which one was opened before the mark and one behind it, only the first is cut off.
    pub fn isolate(&self) {
        self.shared.state.send_modify(|state| {
            state.strands = state.marks;
            state.refuse = true;
        });
    }

    /// Stops one direction in the same way: what is sent waits, and goes on after [`Proxy::heal`].
    pub fn hold(&self, direction: Direction) {
        self.shared.state.send_modify(|state| state.flow[direction as usize] = Flow::Hold);
    }

    /// Throws away what comes in one direction. Connections that lost something are reset by [`Proxy::heal`].
    pub fn black_hole(&self, direction: Direction) {
        self.shared.state.send_modify(|state| state.flow[direction as usize] = Flow::Discard);
    }

    /// Lets all bytes come that much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.shared.state.send_modify(|state| state.delay = by);
    }

    /// Lets that many more bytes pass in one direction, of all connections together, then resets the one that they are
    /// of, and goes on as if nothing had been.
    pub fn reset_after(&self, direction: Direction, bytes: u64) {
        *self.shared.left[direction as usize].lock() = bytes;
        self.shared.state.send_modify(|state| state.flow[direction as usize] = Flow::ResetAfter);
    }

    /// Forwards everything again, at once.
    pub fn heal(&self) {
        self.shared.state.send_modify(|state| {
            let State { cuts, marks, strands, .. } = *state;
            *state = State { cuts, marks, strands, released: strands, ..State::default() };
        });
    }

    /// How many connections were tried so far, whether forwarded or not.
    pub fn attempts(&self) -> u64 {
        self.shared.attempts.load(Ordering::SeqCst)
    }

    /// How many connections were taken and forwarded so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes were passed on in one direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes[direction as usize].load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connection(client, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either side ends it or a fault does.
async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    // What becomes of it is decided before it is counted: whoever waits for the count may go on.
    let State { refuse, cuts, marks: began, .. } = *state.borrow_and_update();
    shared.attempts.fetch_add(1, Ordering::SeqCst);
    let target = *shared.target.lock();
    let broker = match target {
        Some(target) if !refuse => TcpStream::connect(target).await.ok(),
        _ => None,
    };
    let Some(mut broker) = broker else {
        let _ = client.set_zero_linger();
        return;
    };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (client_reads, client_writes) = client.split();
    let (broker_reads, broker_writes) = broker.split();
    let forward = async {
        let to_broker = pump(Direction::ToBroker, began, client_reads, broker_writes, &shared);
        let from_broker = pump(Direction::FromBroker, began, broker_reads, client_writes, &shared);
        let ended = tokio::try_join!(to_broker, from_broker).map(|_| ());
        // Where one side has ended, the other one must not hear of it through a network that is silent.
        let both = [Direction::ToBroker, Direction::FromBroker];
        let heard = |state: &State| both.iter().all(|direction| state.flow(*direction, began).carries());
        let _ = shared.state.subscribe().wait_for(heard).await;
        ended
    };
    let cut = async {
        // The sender lives as long as this connection does.
        let _ = state.wait_for(|state| state.cuts != cuts).await;
        Err(Reset)
    };
    let ended = tokio::select! {
        ended = forward => ended,
        cut = cut => cut,
    };
    if ended.is_err() {
        let _ = (client.set_zero_linger(), broker.set_zero_linger());
    }
}

/// The connection is to be reset.
struct Reset;

/// Forwards one direction until its end, which is passed on.
async fn pump(
    direction: Direction,
    began: u64,
    reads: ReadHalf<'_>,
    mut writes: WriteHalf<'_>,
    shared: &Shared,
) -> Result<(), Reset> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = read(direction, began, reads, sender, shared);
    let write = async {
        let flow = |state: &State| state.flow(direction, began);
        let mut state = shared.state.subscribe();
        let mut lost = false;
        loop {
            let next = tokio::select! {
                next = receiver.recv() => next,
                // What lost bytes ends as soon as the fault does, whether more comes or not.
                _ = state.wait_for(|state| lost && flow(state).carries()) => return Err(Reset),
            };
            let Some((came, mut chunk)) = next else { break };
            let delay = state.borrow().delay;
            tokio::time::sleep_until(came + delay).await;
            let flow = flow(&*state.wait_for(|state| flow(state) != Flow::Hold).await.map_err(|_| Reset)?);
            if flow == Flow::Discard || lost {
                lost = true;
                continue;
            }
            let mut last = false;
            if flow == Flow::ResetAfter {
                let mut left = shared.left[direction as usize].lock();
                last = chunk.len() as u64 >= *left;
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
            }
            writes.write_all(&chunk).await.map_err(|_| Reset)?;
            shared.bytes[direction as usize].fetch_add(chunk.len() as u64, Ordering::SeqCst);
            if last {
                shared.state.send_modify(|state| state.flow[direction as usize] = Flow::Forward);
                return Err(Reset);
            }
        }
        state.wait_for(|state| flow(state).carries()).await.map_err(|_| Reset)?;
        writes.shutdown().await.map_err(|_| Reset)
    };
    tokio::try_join!(read, write).map(|_| ())
}

async fn read(
    direction: Direction,
    began: u64,
    mut reads: ReadHalf<'_>,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
    shared: &Shared,
) -> Result<(), Reset> {
    let mut state = shared.state.subscribe();
    loop {
        state.wait_for(|state| state.flow(direction, began) != Flow::Hold).await.map_err(|_| Reset)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = reads.read(&mut chunk).await.map_err(|_| Reset)?;
        if length == 0 {
            return Ok(());
        }
        chunk.truncate(length);
        if sender.send((Instant::now(), chunk)).await.is_err() {
            return Err(Reset);
        }
    }
}
