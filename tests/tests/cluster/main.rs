//! Several gateways on one broker: who owns what, and what becomes of events when one of them dies, stands still, leaves, or
//! when the broker goes away. No time is asserted; how long things took is printed.
//!
//! Every case runs on NATS. Some run on Kafka and RabbitMQ too, where this machine has them and the gateway was built for them;
//! the others run there with `TIDEGATE_FAULTS=all`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod changes;
mod outage;
mod share;
mod takeover;

use tidegate_tests::load::{Counts, Running};
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription};

/// The topic of a load.
const TOPIC: &str = "load";
const PRODUCERS: usize = 12;

/// A subscription to the load, in the order of keys, that tries for ever.
fn subscription(name: &str, sink: &str) -> String {
    let delivery = ["order: key", PATIENT_RETRY];
    Subscription { name, topics: &[TOPIC], filters: &[], sink, delivery: &delivery }.yaml()
}

/// Ends a load that must have had something acknowledged.
async fn finish(running: Running) -> Counts {
    let counts = running.finish().await;
    assert!(counts.acknowledged > 0, "there was no load: {counts:?}");
    counts
}
