//! Kafka keeps the contract: the suite of `tidegate-conformance`, with lanes of Kafka. Cases that leave the broker alone share
//! one, with names of their own; those that bring about faults have each a broker of its own behind a fault proxy, or three
//! nodes.

mod fixture;

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_backbone::BoxFuture;
use tidegate_conformance::{Broker, Case, Faults, Need, Report, cases, document, run_with};

use fixture::{Made, Share, ready, version};

const MET: [Need; 9] = [
    Need::Reopen,
    Need::Crash,
    Need::Shared,
    Need::Lane,
    Need::Cut,
    Need::Connection,
    Need::Restart,
    Need::Pause,
    Need::Nodes,
];

/// Runs those cases, each with names of its own on that broker, and on brokers of their own those that take it away.
async fn run(broker: &Broker, cases: &[Case]) -> Report {
    let only = std::env::var("TIDEGATE_CASE").ok();
    let faults = if only.is_some() { Faults::All } else { Faults::from_environment() };
    let (run_id, shares) = (std::process::id(), AtomicU64::new(0));
    let make = |case: &Case| -> BoxFuture<'_, Made> {
        let needs = |need| case.needs.contains(&need);
        let number = shares.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{run_id}-{number}", case.id.to_ascii_lowercase());
        if needs(Need::Cut) || case.needs.iter().any(|need| need.is_fault()) {
            let server = if needs(Need::Nodes) { "kafka3" } else { "kafka" };
            return Box::pin(async move { Share::behind_proxies(server, &name).await });
        }
        let share = Share::of(broker.url(), &name);
        Box::pin(async { Some(share) })
    };
    // What is asked of lanes is a matter of seconds, and is not asked while the others keep the machine busy.
    let (lanes, others): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| case.needs.contains(&Need::Lane));
    let report = run_with(&others, &MET, only.as_deref(), faults, make).await;
    report.and(run_with(&lanes, &MET, only.as_deref(), faults, make).await)
}

fn assert_conforms(report: &Report) {
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_conforms() {
    let Some(broker) = Broker::start("kafka").await else { return };
    ready(broker.url()).await;
    let cases = cases();
    if std::env::var_os("TIDEGATE_CASE").is_some() {
        assert_conforms(&run(&broker, &cases).await);
        return;
    }
    let report = run(&broker, &cases).await;
    assert_conforms(&report);
    let differences = document::record("kafka", &version(&broker), &report);
    assert!(
        differences.is_empty(),
        "TIDEGATE_FAULTS=all TIDEGATE_REWRITE=1 cargo test -p tidegate-kafka --test conformance writes the column anew:\n{}",
        differences.join("\n")
    );
}
