//! `bench`: publishes to a topic and measures, from outside, what a client sees: how long until the receipt, and how long
//! until a follower of the topic has the event.
//!
//! Without `--rate` the loop is closed: each publisher waits for its answer before it sends the next event. Such figures
//! leave out what a stalled server kept from being sent (coordinated omission), and the result says so. With `--rate` the
//! loop is open: every event has a time at which it is due, and its latency counts from there, whether or not a publisher
//! was free to send it.

mod follow;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::api::{Api, Call};
use super::failure::Failure;
use crate::cli::arguments::Bench;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(100);
/// What the follower is given to see the last events.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What publishers and the follower share.
#[derive(Debug)]
struct Run {
    api: Api,
    topic: String,
    /// The ids of this run begin with it, so that the follower knows them from others.
    prefix: String,
    body: Bytes,
    /// Between two events that are due, where the loop is open.
    interval: Option<Duration>,
    events: u64,
    began: Instant,
    until: Option<Instant>,
    stopping: CancellationToken,
    next: AtomicU64,
    measured: Mutex<Measured>,
}

/// Everything that is measured; times in microseconds.
#[derive(Debug)]
struct Measured {
    publish: Histogram<u64>,
    end_to_end: Histogram<u64>,
    /// When events that the follower has not seen yet were sent, or due.
    unseen: HashMap<u64, Instant>,
    published: u64,
    failed: u64,
    first_failure: Option<Failure>,
    /// The longest that an event was sent after it was due.
    late: Duration,
}

/// 1 microsecond to an hour, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order and the digits few")
}

impl Measured {
    fn new() -> Self {
        Self {
            publish: histogram(),
            end_to_end: histogram(),
            unseen: HashMap::new(),
            published: 0,
            failed: 0,
            first_failure: None,
            late: Duration::ZERO,
        }
    }
}

fn record(histogram: &mut Histogram<u64>, elapsed: Duration) {
    histogram.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// Carries out `bench`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &Bench) -> Result<(), Failure> {
    let api = Api::new(context.globals, context.environment)?;
    let prefix = format!("bench-{:016x}-", context.environment.random.bits());
    let body = payload(arguments.size);
    // One event goes before the others: it creates the topic where that is allowed, and tells early what is wrong.
    publish(&api, &arguments.topic, &format!("{prefix}first"), &body).await?;
    let stream = if arguments.no_follow { None } else { Some(follow::open(&api, &arguments.topic).await?) };
    let began = Instant::now();
    let run = Arc::new(Run {
        api,
        topic: arguments.topic.clone(),
        prefix,
        body,
        interval: arguments.rate.map(|rate| Duration::from_secs(1) / rate),
        events: if arguments.duration.is_some() { u64::MAX } else { arguments.events },
        began,
        until: arguments.duration.map(|duration| began + duration),
        stopping: context.environment.stopping().clone(),
        next: AtomicU64::new(0),
        measured: Mutex::new(Measured::new()),
    });
    let follower = stream.map(|stream| {
        let run = Arc::clone(&run);
        context.environment.spawn(async move { follow::read(&run, stream).await })
    });
    let publishers = (0..arguments.concurrency).map(|_| {
        let run = Arc::clone(&run);
        context.environment.spawn(async move { publisher(&run).await })
    });
    let publishers: Vec<_> = publishers.collect();
    let size = arguments.size.max(1) as u64;
    context.console.begin_progress(arguments.duration.is_none().then(|| arguments.events.saturating_mul(size)));
    let mut finished = std::pin::pin!(futures_util::future::join_all(publishers));
    loop {
        tokio::select! {
            _ = &mut finished => break,
            () = tokio::time::sleep(TICK) => {
                let published = run.measured.lock().published;
                context.console.advance(published.saturating_mul(size), published);
            }
        }
    }
    let took = began.elapsed();
    if let Some(follower) = &follower {
        let caught_up = async {
            while !run.measured.lock().unseen.is_empty() && !follower.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(CATCH_UP, caught_up).await;
        follower.abort();
    }
    context.console.end_progress();
    let mut measured = std::mem::replace(&mut *run.measured.lock(), Measured::new());
    report::print(context, arguments, &measured, took, follower.is_some())?;
    match measured.first_failure.take() {
        Some(first) => {
            let all = measured.published + measured.failed;
            Err(first.at(format!("{} of {all} publishes failed, the first", measured.failed)))
        }
        None => Ok(()),
    }
}

async fn publisher(run: &Run) {
    loop {
        let number = run.next.fetch_add(1, Ordering::Relaxed);
        let due = run.interval.map(|interval| run.began + mul(interval, number));
        let over = |at: Instant| run.until.is_some_and(|until| at >= until);
        if number >= run.events || over(due.unwrap_or_else(Instant::now)) {
            return;
        }
        if let Some(due) = due {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = run.stopping.cancelled() => return,
            }
        }
        if run.stopping.is_cancelled() {
            return;
        }
        let began = due.unwrap_or_else(Instant::now);
        {
            let mut measured = run.measured.lock();
            measured.unseen.insert(number, began);
            measured.late = measured.late.max(began.elapsed());
        }
        let id = format!("{}{number}", run.prefix);
        let outcome = publish(&run.api, &run.topic, &id, &run.body).await;
        let mut measured = run.measured.lock();
        match outcome {
            Ok(()) => {
                record(&mut measured.publish, began.elapsed());
                measured.published += 1;
            }
            Err(failure) => {
                measured.unseen.remove(&number);
                measured.failed += 1;
                measured.first_failure.get_or_insert(failure);
            }
        }
    }
}

/// So many intervals.
fn mul(interval: Duration, number: u64) -> Duration {
    let nanoseconds = interval.as_nanos().saturating_mul(u128::from(number));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

async fn publish(api: &Api, topic: &str, id: &str, body: &Bytes) -> Result<(), Failure> {
    let attribute = |name: &'static str, value: &str| (HeaderName::from_static(name), HeaderValue::from_str(value));
    let mut call = Call::new(Method::POST, &["topics", topic]).body("application/json", body.clone());
    for (name, value) in [
        attribute("ce-specversion", "1.0"),
        attribute("ce-id", id),
        attribute("ce-source", "tidegate/bench"),
        attribute("ce-type", "tidegate.bench"),
    ] {
        call = call.header(name, value.map_err(|error| Failure::Local(error.to_string()))?);
    }
    api.call(call).await.map(|_| ())
}

/// A JSON text of that many bytes, as far as a JSON text can be that short.
fn payload(size: usize) -> Bytes {
    let filling = size.saturating_sub(2);
    Bytes::from(format!("\"{}\"", "x".repeat(filling)))
}
