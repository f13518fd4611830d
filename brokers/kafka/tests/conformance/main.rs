//! Kafka keeps the contract: the suite of `tidegate-conformance`. Cases that leave the broker alone share one, with names of
//! their own; those that bring about faults have each a broker of its own behind a fault proxy.

mod fixture;

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_backbone::BoxFuture;
use tidegate_conformance::{Broker, Case, Faults, Need, cases, run_with};

use fixture::{Made, Share};

const MET: [Need; 5] = [Need::Reopen, Need::Crash, Need::Shared, Need::Lane, Need::Cut];

const CLOCK: &str = "it holds the time at which records are taken, and Kafka stamps them with its own clock";

/// Cases that do not run here.
const LEFT_OUT: [(&str, &str); 9] = [
    ("GRP-38", "somebody has to open a slot again that its owner gave up because the broker refused"),
    ("GRP-10", "each of thousands of retries opens a reader of its own, which takes minutes"),
    ("PUB-11", CLOCK),
    ("GRP-21", CLOCK),
    ("GRP-35", CLOCK),
    ("RET-01", CLOCK),
    ("RET-03", CLOCK),
    ("RET-04", CLOCK),
    ("RET-05", CLOCK),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_conforms() {
    let Some(broker) = Broker::start("kafka").await else { return };
    let only = std::env::var("TIDEGATE_CASE").ok();
    let faults = if only.is_some() { Faults::All } else { Faults::from_environment() };
    let mut cases = cases();
    cases.retain(|case| only.is_some() || LEFT_OUT.iter().all(|(id, _)| *id != case.id));
    let (run_id, shares) = (std::process::id(), AtomicU64::new(0));
    let make = |case: &Case| -> BoxFuture<'_, Made> {
        let number = shares.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{run_id}-{number}", case.id.to_ascii_lowercase());
        if case.needs.contains(&Need::Cut) || case.needs.iter().any(|need| need.is_fault()) {
            let server = if case.needs.contains(&Need::Nodes) { "kafka3" } else { "kafka" };
            return Box::pin(async move { Share::behind_proxies(server, &name).await });
        }
        let share = Share::of(broker.url(), &name);
        Box::pin(async { Some(share) })
    };
    let report = run_with(&cases, &MET, only.as_deref(), faults, make).await;
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
