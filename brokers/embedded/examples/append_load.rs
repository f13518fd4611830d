//! How many appends a second the embedded log takes from many tasks at once, each waiting for its acknowledgement.
//!
//! `cargo run --release --example append_load -- DIRECTORY [SECONDS]`

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]
#![expect(clippy::disallowed_methods, reason = "it measures the time that passes")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_backbone::{Environment, LogId, LogSpec, PartitionLog, Position, Record};
use tidegate_embedded::{EmbeddedLog, Options};
use tidegate_schemas::Event;
use tidegate_schemas::event::Data;

const EVENT_BYTES: usize = 400;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("name a directory to write to")?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let environment = Environment::system();
    let opening = Instant::now();
    let log = EmbeddedLog::open(Options::new(&directory), &environment)?;
    println!("opened in {:?}", opening.elapsed());
    for tasks in [1, 64, 256] {
        let id = LogId::Topic { topic: format!("load-{tasks}").into(), partition: 0 };
        log.create(LogSpec::from(id.clone())).await?;
        let from = log.info(&id).await?.end;
        let (before, begun) = (log.counters(), Instant::now());
        let running = Arc::new(AtomicBool::new(true));
        let appended = Arc::new(AtomicU64::new(0));
        let handles: Vec<_> = (0..tasks)
            .map(|task| {
                let (log, id, running, appended) =
                    (Arc::clone(&log), id.clone(), Arc::clone(&running), Arc::clone(&appended));
                environment.spawn(async move {
                    let mut latencies = Vec::new();
                    for n in 0.. {
                        if !running.load(Ordering::Relaxed) {
                            break;
                        }
                        let payload = Bytes::from(vec![b'x'; EVENT_BYTES - 60]);
                        let event = Event::builder(format!("{task}-{n}"), "/load", "com.example.load")
                            .data(Data::Binary(payload))
                            .build()
                            .map_err(|faults| format!("{faults:?}"))?;
                        let called = Instant::now();
                        log.append(&id, Record::Event(event)).await.map_err(|error| error.to_string())?;
                        latencies.push(called.elapsed());
                        appended.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, String>(latencies)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        running.store(false, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for handle in handles {
            latencies.extend(handle.await??);
        }
        let (after, elapsed) = (log.counters(), begun.elapsed().as_secs_f64());
        latencies.sort_unstable();
        let percentile =
            |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or_default();
        println!(
            "{tasks} tasks: {:.0} appends/s, {:.0} commits/s, {:.1} MB/s written, p50 {:?}, p99 {:?}",
            appended.load(Ordering::Relaxed) as f64 / elapsed,
            (after.commits - before.commits) as f64 / elapsed,
            (after.bytes - before.bytes) as f64 / elapsed / 1e6,
            percentile(0.5),
            percentile(0.99),
        );
        let (end, reading) = (log.info(&id).await?.end, Instant::now());
        let mut tail = log.tail(&id, Position(from.0)).await?;
        let mut records = 0;
        while tail.position() < end {
            records += tail.next(256 * 1024).await?.records.len();
        }
        println!("    read back {:.0} records/s", records as f64 / reading.elapsed().as_secs_f64());
    }
    log.close().await;
    Ok(())
}
