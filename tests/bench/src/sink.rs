//! A sink that notes when each event arrived and answers 204, with as little work as that takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::http::{self, Message};

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// When each event arrived first, by its number: nanoseconds since the beginning and 1, or 0.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) began: Instant,
    first: Vec<AtomicU64>,
    repeats: AtomicU64,
    missing: AtomicU64,
}

impl Arrivals {
    /// For events with numbers below this one.
    pub(crate) fn new(events: usize) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            first: (0..events).map(|_| AtomicU64::new(0)).collect(),
            repeats: AtomicU64::new(0),
            missing: AtomicU64::new(events as u64),
        })
    }

    fn note(&self, number: u64) {
        let Some(first) = usize::try_from(number).ok().and_then(|number| self.first.get(number)) else { return };
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        if first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.missing.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.repeats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nanoseconds since the beginning at which the event arrived.
    pub(crate) fn at(&self, number: usize) -> Option<u64> {
        Some(self.first[number].load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Events that have not arrived.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Deliveries beyond the first of an event.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }
}

/// Listens on a free port; its tasks end with the runtime.
pub(crate) async fn start(arrivals: Arc<Arrivals>) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // An error is a connection that the other side ended.
            tokio::spawn(serve(stream, Arc::clone(&arrivals)));
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, arrivals: Arc<Arrivals>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 8192];
    let mut filled = 0;
    loop {
        while let Message::Whole { bytes, header_bytes } = http::message(&buffer[..filled]) {
            let id = http::field(&buffer[..header_bytes], b"ce-id").and_then(|id| std::str::from_utf8(id).ok());
            if let Some(number) = id.and_then(|id| u64::from_str_radix(id, 16).ok()) {
                arrivals.note(number);
            }
            stream.write_all(ANSWER).await?;
            buffer.copy_within(bytes..filled, 0);
            filled -= bytes;
        }
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
    }
}
