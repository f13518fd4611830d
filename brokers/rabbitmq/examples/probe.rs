//! What streams of RabbitMQ do when they are asked over AMQP 0.9.1; the figures are in `docs/probes.md`.
//!
//! ```text
//! probe HOST:PORT depth           append to confirmation, and to the own tail, with 1, 8 and 64 on their way
//! probe HOST:PORT ends            asking for the end of a stream that is written to
//! probe HOST:PORT many COUNT      creating that many streams; BROKER=PID adds what the broker's memory does
//! ```

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures prints, and asks the clock"
)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tidegate_backbone::{Environment, LogId, LogSpec, PartitionLog, Position, Record};
use tidegate_rabbitmq::{Options, RabbitBroker};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const RECORD_BYTES: usize = 300;
const SPAN: Duration = Duration::from_secs(5);

fn percentile(sorted: &[Duration], part: f64) -> f64 {
    let index = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
    sorted.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn print(what: &str, mut times: Vec<Duration>, over: Duration) {
    times.sort();
    println!(
        "{what}: n={} {:.0}/s p50={:.2}ms p99={:.2}ms most={:.2}ms",
        times.len(),
        times.len() as f64 / over.as_secs_f64(),
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0),
    );
}

fn slot(suffix: u64) -> LogId {
    LogId::Slot { slot: 1, epoch: 0, suffix }
}

async fn depth(broker: &Arc<RabbitBroker>, depth: usize) -> Outcome<()> {
    let log = slot(depth as u64);
    broker.create(LogSpec::from(log.clone())).await?;
    let mut tail = broker.tail(&log, Position::ZERO).await?;
    let began = Instant::now();
    let reader = tokio::spawn(async move {
        let mut times = Vec::new();
        while let Ok(Ok(batch)) = tokio::time::timeout(Duration::from_secs(2), tail.next(1 << 20)).await {
            for stored in batch.records {
                let Record::Frame(frame) = stored.record else { continue };
                let sent = frame.first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_be_bytes(*bytes));
                times.push(began.elapsed().saturating_sub(Duration::from_nanos(sent)));
            }
        }
        times
    });
    let (mut waiting, mut confirmed) = (FuturesUnordered::new(), Vec::new());
    while began.elapsed() < SPAN {
        while waiting.len() < depth {
            let mut frame = vec![0; RECORD_BYTES];
            let now = began.elapsed();
            frame[..8].copy_from_slice(&u64::try_from(now.as_nanos())?.to_be_bytes());
            let appended = broker.append(&log, Record::Frame(frame.into()));
            waiting.push(async move { (now, appended.await) });
        }
        if let Some((sent, appended)) = waiting.next().await {
            appended?;
            confirmed.push(began.elapsed() - sent);
        }
    }
    print(&format!("append to confirmation, depth {depth}"), confirmed, SPAN);
    print(&format!("append to own tail, depth {depth}"), reader.await?, SPAN);
    Ok(())
}

async fn ends(broker: &Arc<RabbitBroker>) -> Outcome<()> {
    for busy in [false, true] {
        let log = slot(1000 + u64::from(busy));
        broker.create(LogSpec::from(log.clone())).await?;
        let writer = tokio::spawn({
            let (broker, log) = (Arc::clone(broker), log.clone());
            async move {
                loop {
                    let _ = broker.append(&log, Record::Frame(vec![0; RECORD_BYTES].into())).await;
                    if !busy {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        let (mut times, began) = (Vec::new(), Instant::now());
        while began.elapsed() < SPAN {
            let asked = Instant::now();
            broker.info(&log).await?;
            times.push(asked.elapsed());
        }
        writer.abort();
        print(if busy { "end of a stream under load" } else { "end of a quiet stream" }, times, SPAN);
    }
    Ok(())
}

fn resident_mib() -> Option<u64> {
    let id = std::env::var("BROKER").ok()?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

async fn many(broker: &Arc<RabbitBroker>, count: u32) -> Outcome<()> {
    let (before, began) = (resident_mib(), Instant::now());
    broker.create(LogSpec::topic("many", count)).await?;
    println!(
        "{count} streams: created in {:.1} s, broker {before:?} -> {:?} MiB",
        began.elapsed().as_secs_f64(),
        resident_mib()
    );
    let began = Instant::now();
    let logs = broker.list().await?.len();
    println!("list of {logs} logs with their ends: {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let mut tails = Vec::new();
    for partition in 0..count {
        tails.push(broker.tail(&LogId::Topic { topic: "many".into(), partition }, Position::ZERO).await?);
    }
    println!("{count} readers: {:.1} s, broker {:?} MiB", began.elapsed().as_secs_f64(), resident_mib());
    drop(tails);
    let began = Instant::now();
    broker.delete(LogSpec::topic("many", count)).await?;
    println!("deleted in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, what, rest @ ..] = &arguments[..] else { return Err("probe HOST:PORT depth|ends|many".into()) };
    let mut options = Options::from_url(&format!("amqp://{address}"))?;
    options.namespace = format!("probe-{}", std::process::id());
    options.topic_prefix = format!("{}.", options.namespace);
    let broker = RabbitBroker::open(options, &Environment::system()).await?;
    match &**what {
        "depth" => {
            for on_their_way in [1, 8, 64] {
                depth(&broker, on_their_way).await?;
            }
        }
        "ends" => ends(&broker).await?,
        "many" => many(&broker, rest.first().map_or(Ok(400), |count| count.parse())?).await?,
        _ => return Err("probe HOST:PORT depth|ends|many".into()),
    }
    broker.close().await;
    Ok(())
}
