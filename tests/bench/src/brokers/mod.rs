//! The backbones that are measured, and beside each its own client library without anything of the product.

mod bare;
mod forwarded;
mod kafka;
mod nats;
mod primitives;
mod rabbitmq;
mod rest;
mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tidegate::compose::{Opened, open_backbone};
use tidegate_backbone::budget::Budget;
use tidegate_backbone::slot::{Journal, Options};
use tidegate_backbone::{BoxFuture, Environment};
use tidegate_resources::config::Backbone;
use tidegate_schemas::{Data, Event};

use crate::{Common, Failure};

pub(crate) use rest::Rest;

/// Before a rate is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// What everything that can grow may take here; it shall not be what limits.
const MEMORY_BYTES: usize = 1024 * 1024 * 1024;
/// Bytes of an event's data, as in the other measurements.
const DATA_BYTES: usize = 300;
/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);

/// What the measurements of a backbone share.
#[derive(Args, Clone, Debug)]
pub(crate) struct OnBroker {
    #[command(flatten)]
    pub(crate) common: Common,
    /// `embedded`, or the URL of an empty broker: `scripts/brokers up nats` prints one
    #[arg(long, default_value = "embedded")]
    pub(crate) backbone: String,
    /// Rounds; each measures every contender once
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds of each measurement, after half a second of warming up
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Tasks, each with one operation in flight
    #[arg(long, default_value_t = 64)]
    pub(crate) depth: usize,
}

/// Slot commits a second against appends of the client library
pub(crate) fn slots(arguments: &OnBroker) -> Result<(), Failure> {
    run(arguments, |_, opened, environment| slots::run(arguments, opened, environment))
}

/// The time of a commit at the slot's owner, asked for by another gateway, and what it is made of
pub(crate) fn forwarded(arguments: &OnBroker) -> Result<(), Failure> {
    run(arguments, |backbone, opened, environment| forwarded::run(arguments, backbone, opened, environment))
}

/// Publishes and deliveries a second of the primitives against the client library
pub(crate) fn primitives(arguments: &OnBroker, events: usize) -> Result<(), Failure> {
    run(arguments, |_, opened, environment| primitives::run(arguments, events, opened, environment))
}

pub(crate) use rest::run as rest;

fn run<F>(arguments: &OnBroker, measure: impl FnOnce(Backbone, Opened, Environment) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir_in(&arguments.common.folder)?;
    runtime.block_on(async {
        let environment = Environment::system().with_memory(Budget::new(MEMORY_BYTES));
        let backbone = match arguments.backbone.as_str() {
            "embedded" => Backbone::embedded(folder.path()),
            url => Backbone::of_argument(url)?,
        };
        let opened = open_backbone(&backbone, &environment).await?;
        let log = Arc::clone(&opened.log);
        println!("Backbone {}, durability {}.\n", log.capability().broker, log.capability().durability);
        measure(backbone, opened, environment.clone()).await?;
        log.close().await;
        environment.stop(HANG).await;
        Ok(())
    })
}

/// Every slot of the backbone, owned here.
async fn own_slots(opened: &Opened, environment: &Environment) -> Result<Vec<Journal>, Failure> {
    let open = |slot| Journal::open(Arc::clone(&opened.log), slot, environment.clone(), Options::default());
    Ok(futures_util::future::try_join_all((0..opened.log.capability().slots).map(open)).await?)
}

/// An event of the size that all measurements use.
fn event(number: u64) -> Result<Event, Failure> {
    let builder = Event::builder(format!("{number:016x}"), "/bench", "com.example.bench");
    Ok(builder.data(Data::Binary(vec![b'x'; DATA_BYTES].into())).build()?)
}

/// One operation; awaited, it is done.
type Operation = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// So many at once, over and over; how many a second.
async fn rate(depth: usize, seconds: f64, operation: &Operation) -> Result<f64, Failure> {
    let (done, numbers) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let stop = Arc::<AtomicBool>::default();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..depth {
        let (done, numbers, stop) = (Arc::clone(&done), Arc::clone(&numbers), Arc::clone(&stop));
        let operation = Arc::clone(operation);
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                operation(numbers.fetch_add(1, Ordering::Relaxed)).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (began, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(rate)
}

/// One after the other, for so long; the time of each in milliseconds.
async fn times(seconds: f64, operation: &Operation) -> Result<crate::figures::Figures, Failure> {
    let mut figures = crate::figures::Figures::default();
    let (begin, mut number) = (Instant::now(), 0);
    while begin.elapsed() < WARM_UP + Duration::from_secs_f64(seconds) {
        let began = Instant::now();
        operation(number).await?;
        if begin.elapsed() > WARM_UP {
            figures.push(began.elapsed().as_secs_f64() * 1e3);
        }
        number += 1;
    }
    Ok(figures)
}
