//! NATS keeps the contract: the suite of `tidegate-conformance`, on real servers of both ends of what is supported, with lanes
//! of NATS. What the newest one comes to is the column of `docs/conformance.md`.

mod fixture;

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_conformance::{Broker, Case, Need, Report, cases, document, run_on_broker};

use fixture::{Part, version};

/// Runs those cases on that server, each in a part of its own, and on servers of their own those that take it away.
async fn run(server: &str, broker: &Broker, cases: &[Case]) -> Report {
    let parts = AtomicU64::new(0);
    run_on_broker(cases, |case| {
        let needs = |need| case.needs.contains(&need);
        if !case.is_faulted() && !needs(Need::Cut) {
            let part = Part::of(broker.url(), parts.fetch_add(1, Ordering::Relaxed));
            return Box::pin(async { Some(part) });
        }
        let server = if needs(Need::Nodes) { "nats3" } else { server };
        Box::pin(Part::behind_proxies(server))
    })
    .await
}

fn assert_conforms(server: &str, report: &Report) {
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed on {server}:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_nats_conforms() {
    let Some(broker) = Broker::start("nats").await else { return };
    let cases = cases();
    if std::env::var_os("TIDEGATE_CASE").is_some() {
        assert_conforms("nats", &run("nats", &broker, &cases).await);
        return;
    }
    let report = run("nats", &broker, &cases).await;
    assert_conforms("nats", &report);
    let version = format!("NATS {}", version(broker.url()).await);
    let differences = document::record("nats", &version, &report);
    assert!(
        differences.is_empty(),
        "TIDEGATE_FAULTS=all TIDEGATE_REWRITE=1 cargo test -p tidegate-nats --test conformance the_newest writes the column \
         anew:\n{}",
        differences.join("\n")
    );
}

/// The same without the faults that are not about lanes: they are met on the newest one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_nats_that_is_supported_conforms() {
    let Some(broker) = Broker::start("nats-2.9").await else { return };
    let mut cases = cases();
    if std::env::var_os("TIDEGATE_CASE").is_none() {
        cases.retain(|case| !case.is_faulted() || case.needs.contains(&Need::Lane));
    }
    assert_conforms("nats-2.9", &run("nats-2.9", &broker, &cases).await);
}
