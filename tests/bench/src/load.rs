//! A closed loop: so many connections, each with one request in flight, as fast as the server answers.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::Failure;
use crate::figures::Figures;
use crate::http::{self, Message, Prebuilt};
use crate::process::{Bystanders, processor_time};

/// Before anything is counted: connections are made, files allocated, caches filled.
const WARM_UP: Duration = Duration::from_millis(500);
/// Bytes read at once; an answer is a third of that.
const READ_BYTES: usize = 1024;

/// What a stretch of load came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Acknowledged events a second.
    pub(crate) rate: f64,
    /// Milliseconds from request to answer.
    pub(crate) p50: f64,
    /// Likewise.
    pub(crate) p99: f64,
    /// Processor time of the server for each event, in microseconds.
    pub(crate) server_us: f64,
    /// Processor time of this generator for each event, in microseconds.
    pub(crate) generator_us: f64,
    /// Processors that neither of both kept busy.
    pub(crate) bystanders: f64,
}

#[derive(Default)]
struct Shared {
    counting: Cell<bool>,
    stop: Cell<bool>,
    events: Cell<u64>,
    latencies: RefCell<Vec<u32>>,
}

/// Publishes to a server for a while, on one thread.
///
/// Every answer must be 202; another one, or none, is a failure.
pub(crate) fn run(
    address: SocketAddr,
    path: &str,
    connections: usize,
    measured: Duration,
    server: u32,
) -> Result<Outcome, Failure> {
    // The first one creates the topic, which is not what is measured.
    http::once(address, Prebuilt::new(address, path).with_id(u64::MAX))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let shared = Rc::new(Shared::default());
        let mut senders = Vec::with_capacity(connections);
        for number in 0..connections as u64 {
            let (shared, request) = (Rc::clone(&shared), Prebuilt::new(address, path));
            senders.push(tokio::task::spawn_local(send(address, request, number << 40, shared)));
        }
        tokio::time::sleep(WARM_UP).await;
        let own = std::process::id();
        let (server_before, own_before) = (processor_time(server)?, processor_time(own)?);
        let (began, others) = (Instant::now(), Bystanders::begin());
        shared.counting.set(true);
        tokio::time::sleep(measured).await;
        shared.counting.set(false);
        let took = began.elapsed();
        let server_time = processor_time(server)?.saturating_sub(server_before);
        let own_time = processor_time(own)?.saturating_sub(own_before);
        let bystanders = others.end(server_time + own_time);
        shared.stop.set(true);
        for sender in senders {
            sender.await??;
        }
        let events = shared.events.get() as f64;
        let latencies: Figures = shared.latencies.borrow().iter().map(|us| f64::from(*us) / 1000.0).collect();
        Ok(Outcome {
            rate: events / took.as_secs_f64(),
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            server_us: server_time.as_secs_f64() * 1e6 / events,
            generator_us: own_time.as_secs_f64() * 1e6 / events,
            bystanders,
        })
    })
}

async fn send(address: SocketAddr, mut request: Prebuilt, first: u64, shared: Rc<Shared>) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = [0; READ_BYTES];
    let mut id = first;
    while !shared.stop.get() {
        let sent = Instant::now();
        stream.write_all(request.with_id(id)).await?;
        let mut read = 0;
        loop {
            match stream.read(&mut answer[read..]).await? {
                0 => return Err("the server closed a connection".into()),
                more => read += more,
            }
            if let Message::Whole { bytes, .. } = http::message(&answer[..read]) {
                if http::status(&answer) != 202 || bytes != read {
                    return Err(String::from_utf8_lossy(&answer[..read]).into_owned().into());
                }
                break;
            }
        }
        id += 1;
        if shared.counting.get() {
            shared.events.set(shared.events.get() + 1);
            shared.latencies.borrow_mut().push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok(())
}
