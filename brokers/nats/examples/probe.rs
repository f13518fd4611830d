//! Measures what a NATS server does by itself, with the bare client: what an append costs until its own reader has it,
//! whether acknowledged positions have gaps, and what many partitions cost the server.
//!
//! `cargo run --release -p tidegate-nats --example probe -- PATH_OF_NATS_SERVER`
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement beside the product, not inside it: it reads the clock and prints"
)]

use std::error::Error;
use std::future::IntoFuture as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const BODY_BYTES: usize = 400;
const PARTITIONS_OF_A_STREAM: usize = 4;

/// A server of our own, with data in a folder that goes.
struct Server {
    binary: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    async fn start(binary: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        let child = spawn(binary, folder.path(), port)?;
        let server = Self { binary: binary.to_owned(), folder, port, child };
        server.ready().await;
        Ok(server)
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Until JetStream answers.
    async fn ready(&self) {
        loop {
            if let Ok(client) = async_nats::connect(self.url()).await
                && client.request("$JS.API.INFO", "".into()).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn restart(&mut self) -> Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        self.child = spawn(&self.binary, self.folder.path(), self.port)?;
        self.ready().await;
        Ok(begun.elapsed())
    }

    fn memory_mebibytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().split(' ').next()).and_then(|text| text.parse::<u64>().ok());
        kibibytes.unwrap_or(0) / 1024
    }

    /// Of one core, over a while.
    async fn cpu_percent(&self, over: Duration) -> f64 {
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
            let fields: Vec<u64> = stat.split(' ').skip(13).take(2).filter_map(|text| text.parse().ok()).collect();
            fields.iter().sum::<u64>()
        };
        let before = ticks();
        tokio::time::sleep(over).await;
        // A tick is a hundredth of a second.
        (ticks() - before) as f64 / over.as_secs_f64()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &Path, folder: &Path, port: u16) -> Result<Child> {
    Ok(Command::new(binary)
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
        .arg(folder)
        .stderr(Stdio::null())
        .spawn()?)
}

fn config(name: &str, subjects: Vec<String>) -> stream::Config {
    stream::Config { name: name.to_owned(), subjects, storage: stream::StorageType::File, ..Default::default() }
}

/// From an append to its acknowledgement, and until a reader of the same process has the record.
async fn latencies(js: &jetstream::Context, depth: usize, count: usize) -> Result<()> {
    let name = format!("latency{depth}");
    let stream = js.create_stream(config(&name, vec![name.clone()])).await?;
    let consumer = stream
        .create_consumer(consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() })
        .await?;
    let mut messages = consumer.messages().await?;
    let reader = tokio::spawn(async move {
        let mut seen = Vec::with_capacity(count);
        while seen.len() < count {
            match messages.next().await {
                Some(Ok(_)) => seen.push(Instant::now()),
                _ => break,
            }
        }
        seen
    });
    let body = bytes::Bytes::from(vec![b'x'; BODY_BYTES]);
    let (mut begun, mut acknowledged) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut flight = FuturesOrdered::new();
    let start = Instant::now();
    for _ in 0..count {
        if flight.len() == depth {
            flight.next().await;
            acknowledged.push(Instant::now());
        }
        begun.push(Instant::now());
        flight.push_back(js.publish(name.clone(), body.clone()).await?.into_future());
    }
    while flight.next().await.is_some() {
        acknowledged.push(Instant::now());
    }
    let took = start.elapsed();
    let seen = tokio::time::timeout(Duration::from_secs(30), reader).await??;
    let quantiles = |ends: &[Instant]| {
        let mut times: Vec<u128> = begun.iter().zip(ends).map(|(begun, end)| (*end - *begun).as_micros()).collect();
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let ((ack, ack99), (tail, tail99)) = (quantiles(&acknowledged), quantiles(&seen));
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "depth {depth:>2}: {rate:>8.0}/s, acknowledged p50 {ack} us p99 {ack99} us, own reader p50 {tail} us p99 {tail99} us"
    );
    Ok(())
}

/// Whether the positions that one writer is told are one behind the other.
async fn positions(url: &str, interfering: bool, cuts: bool) -> Result<()> {
    let client = async_nats::connect(url).await?;
    let js = jetstream::new(client.clone());
    let name = format!("positions{}{}", u8::from(interfering), u8::from(cuts));
    js.create_stream(config(&name, vec![name.clone()])).await?;
    let other = jetstream::new(async_nats::connect(url).await?);
    let subject = name.clone();
    let interference = tokio::spawn(async move {
        if !interfering {
            return;
        }
        loop {
            if let Ok(append) = other.publish(subject.clone(), "other".into()).await {
                let _ = append.await;
            }
        }
    });
    let cutting = tokio::spawn(async move {
        if !cuts {
            return;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = client.force_reconnect().await;
        }
    });
    let (mut told, mut unknown) = (Vec::new(), 0);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let mut appends = Vec::new();
        for _ in 0..8 {
            appends.push(js.publish(name.clone(), "own".into()).await?);
        }
        for append in appends {
            match tokio::time::timeout(Duration::from_millis(500), append.into_future()).await {
                Ok(Ok(ack)) => told.push(ack.sequence),
                _ => unknown += 1,
            }
        }
    }
    interference.abort();
    cutting.abort();
    let gaps = told.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    let back = told.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    println!(
        "interfering {interfering}, cuts {cuts}: {} acknowledged, {unknown} without answer, {gaps} times not the next position, \
         {back} times not increasing",
        told.len()
    );
    Ok(())
}

/// What streams of four subjects each cost.
async fn many(binary: &Path, partitions: usize) -> Result<()> {
    let mut server = Server::start(binary).await?;
    let before = server.memory_mebibytes();
    let js = jetstream::new(async_nats::connect(server.url()).await?);
    let begun = Instant::now();
    let streams = partitions / PARTITIONS_OF_A_STREAM;
    for n in 0..streams {
        let subjects = (0..PARTITIONS_OF_A_STREAM).map(|p| format!("topic{n}.{p}")).collect();
        js.create_stream(config(&format!("topic{n}"), subjects)).await?;
    }
    let created = begun.elapsed();
    let body = bytes::Bytes::from(vec![b'x'; BODY_BYTES]);
    for n in 0..streams {
        for p in 0..PARTITIONS_OF_A_STREAM {
            js.publish(format!("topic{n}.{p}"), body.clone()).await?.await?;
        }
    }
    let memory = server.memory_mebibytes();
    let idle = server.cpu_percent(Duration::from_secs(5)).await;
    let mut readers = Vec::new();
    for n in 0..streams {
        let stream = js.get_stream(format!("topic{n}")).await?;
        for p in 0..PARTITIONS_OF_A_STREAM {
            let config = consumer::pull::Config {
                ack_policy: consumer::AckPolicy::None,
                filter_subject: format!("topic{n}.{p}"),
                memory_storage: true,
                inactive_threshold: Duration::from_secs(60),
                ..Default::default()
            };
            let consumer = stream.create_consumer(config).await?;
            let mut messages =
                consumer.stream().expires(Duration::from_secs(30)).heartbeat(Duration::from_secs(5)).messages().await?;
            readers.push(tokio::spawn(async move { while messages.next().await.is_some() {} }));
        }
    }
    let with_readers = server.memory_mebibytes();
    let reading = server.cpu_percent(Duration::from_secs(5)).await;
    for reader in readers {
        reader.abort();
    }
    let restart = server.restart().await?;
    println!(
        "{partitions} partitions in {streams} streams: created in {:.1} s, memory {before} -> {memory} MiB, with a waiting reader \
         each {with_readers} MiB; idle {idle:.1} % of a core, with readers {reading:.1} %; answers {} ms after a kill",
        created.as_secs_f64(),
        restart.as_millis()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let binary = PathBuf::from(std::env::args().nth(1).ok_or("name the nats-server to measure")?);
    let version = Command::new(&binary).arg("--version").output()?;
    println!("{}", String::from_utf8_lossy(&version.stdout).trim());
    let server = Server::start(&binary).await?;
    let js = jetstream::new(async_nats::connect(server.url()).await?);
    for depth in [1, 8, 64] {
        latencies(&js, depth, 5_000).await?;
    }
    for (interfering, cuts) in [(false, false), (true, false), (false, true), (true, true)] {
        positions(&server.url(), interfering, cuts).await?;
    }
    drop(server);
    for partitions in [400, 1_600] {
        many(&binary, partitions).await?;
    }
    Ok(())
}
