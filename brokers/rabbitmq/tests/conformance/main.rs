//! RabbitMQ keeps the contract: the suite of `tidegate-conformance`, with lanes of RabbitMQ. Cases that leave the broker alone
//! share one, with names of their own; those that bring about faults have each a broker of its own behind a fault proxy, or
//! three nodes. What they come to is the column of `docs/conformance.md`.

mod fixture;

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_conformance::{Broker, Case, Need, Report, cases, document, run_on_broker};

use fixture::{Share, version};

/// Runs those cases, each with names of its own on that broker, and on brokers of their own those that take it away.
async fn run(broker: &Broker, cases: &[Case]) -> Report {
    let (run_id, shares) = (std::process::id(), AtomicU64::new(0));
    run_on_broker(cases, |case| {
        let needs = |need| case.needs.contains(&need);
        let number = shares.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{run_id}-{number}", case.id.to_ascii_lowercase());
        if needs(Need::Cut) || case.is_faulted() {
            let server = if needs(Need::Nodes) { "rabbitmq3" } else { "rabbitmq" };
            return Box::pin(async move { Share::behind_proxies(server, &name).await });
        }
        let share = Share::of(broker.url(), &name);
        Box::pin(async { Some(share) })
    })
    .await
}

fn assert_conforms(report: &Report) {
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_conforms() {
    let Some(broker) = Broker::start("rabbitmq").await else { return };
    let cases = cases();
    let report = run(&broker, &cases).await;
    assert_conforms(&report);
    if std::env::var_os("TIDEGATE_CASE").is_some() {
        return;
    }
    let differences = document::record("rabbitmq", &version(&broker).await, &report);
    assert!(
        differences.is_empty(),
        "TIDEGATE_FAULTS=all TIDEGATE_REWRITE=1 cargo test -p tidegate-rabbitmq --test conformance writes the column anew:\n{}",
        differences.join("\n")
    );
}
