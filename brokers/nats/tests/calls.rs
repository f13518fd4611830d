//! Calls between gateways over lanes of NATS: the group REQ of the suite, with a way to the server that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_backbone::{BoxFuture, Environment, Lane, PartitionLog, Result};
use tidegate_conformance::{Act, Case, Fixture, Linked, Need, Proxy, cases, run};
use tidegate_nats::{NatsBroker, Options};

/// A namespace that no other case uses, on a server that all share.
struct Part {
    linked: Arc<Linked>,
    options: Options,
}

impl Fixture for Part {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move { Ok(NatsBroker::open(self.options.clone(), environment).await? as Arc<dyn PartitionLog>) })
    }

    fn open_lane<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        Box::pin(async move { Ok(NatsBroker::open(self.options.clone(), environment).await? as Arc<dyn Lane>) })
    }

    fn proxies(&self) -> &[Proxy] {
        self.linked.proxies()
    }

    fn act(&self, act: Act, node: Option<u32>) -> BoxFuture<'_, ()> {
        Box::pin(self.linked.broker().act(act, node))
    }
}

async fn conforms(server: &str) {
    let Some(linked) = Linked::start(server).await else { return };
    let linked = Arc::new(linked);
    let only = std::env::var("TIDEGATE_CASE").ok();
    let parts = AtomicU64::new(0);
    let make = |_: &Case| {
        let mut options = Options::new(&linked.url()).expect("proxies have addresses");
        options.namespace = format!("part-{}", parts.fetch_add(1, Ordering::Relaxed));
        Arc::new(Part { linked: Arc::clone(&linked), options }) as Arc<dyn Fixture>
    };
    let alone = |case: &Case| case.needs.contains(&Need::Cut) || case.needs.contains(&Need::Restart);
    let calls = || cases().into_iter().filter(|case| case.id.starts_with("REQ-"));
    let together: Vec<Case> = calls().filter(|case| !alone(case)).collect();
    let mut failures = run(&together, &[Need::Lane], only.as_deref(), make).await.failures();
    // These take the server away from all.
    for case in calls().filter(alone) {
        let met = [Need::Lane, Need::Cut, Need::Restart];
        failures.extend(run(&[case], &met, only.as_deref(), make).await.failures());
    }
    assert!(failures.is_empty(), "{} cases failed on {server}:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_call_each_other_over_the_newest_nats() {
    conforms("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_call_each_other_over_the_oldest_nats_that_is_supported() {
    conforms("nats-2.9").await;
}
