//! NATS keeps the contract: the suite of `tidegate-conformance`, on real servers of both ends of what is supported.
//! `calls.rs` runs the cases of lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_backbone::{BoxFuture, Environment, PartitionLog, Result};
use tidegate_conformance::{Broker, Case, Fixture, Need, cases, run};
use tidegate_nats::{NatsBroker, Options};

/// A part of the server that no other case uses.
struct Part {
    options: Options,
    client: Mutex<Option<Arc<NatsBroker>>>,
}

impl Fixture for Part {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let client = NatsBroker::open(self.options.clone(), environment).await?;
            *self.client.lock() = Some(Arc::clone(&client));
            Ok(client as Arc<dyn PartitionLog>)
        })
    }

    fn crash(&self) -> BoxFuture<'_, ()> {
        if let Some(client) = self.client.lock().take() {
            client.kill();
        }
        Box::pin(async {})
    }
}

/// Cases that hold the time at which the broker takes a record in their hands. NATS stamps records with its own clock.
const HOLD_THE_TIME: [&str; 7] = ["PUB-11", "GRP-21", "GRP-35", "RET-01", "RET-03", "RET-04", "RET-05"];

/// Cases that do not hold on a broker with several slots whose owner may lose them: for the first somebody has to open a slot
/// again that its owner gave up, for the second the generations that are done with go only a while later.
const SEVERAL_SLOTS: [&str; 2] = ["GRP-38", "JRN-27"];

/// Each of thousands of retries opens a reader of its own, which takes minutes in a build that is not optimised.
const TAKES_MINUTES: &str = "GRP-10";

async fn conforms(server: &str) {
    let Some(broker) = Broker::start(server).await else { return };
    let only = std::env::var("TIDEGATE_CASE").ok();
    let fits = |case: &Case| {
        let left_out = HOLD_THE_TIME.contains(&case.id) || SEVERAL_SLOTS.contains(&case.id);
        !left_out && (case.id != TAKES_MINUTES || only.is_some())
    };
    let cases: Vec<Case> = cases().into_iter().filter(fits).collect();
    let parts = AtomicU64::new(0);
    let make = |_: &Case| {
        let part = parts.fetch_add(1, Ordering::Relaxed);
        let mut options = Options::new(broker.url()).expect("the script prints addresses");
        options.namespace = format!("part-{part}");
        options.topic_prefix = format!("part-{part}.");
        // The catalogue's, and one for deliveries.
        options.slots = 2;
        Arc::new(Part { options, client: Mutex::new(None) }) as Arc<dyn Fixture>
    };
    let report = run(&cases, &[Need::Reopen, Need::Crash, Need::Shared], only.as_deref(), make).await;
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed on {server}:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_nats_conforms() {
    conforms("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_nats_that_is_supported_conforms() {
    conforms("nats-2.9").await;
}
