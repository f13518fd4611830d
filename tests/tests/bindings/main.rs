//! Queues and exchanges of somebody else's on RabbitMQ as sinks and as sources; see docs/bindings.md.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod blocked;
mod dead_letters;
mod faults;
mod inputs;
mod outputs;
mod rights;
mod somebody;

use tidegate_conformance::Broker;
use tidegate_tests::cluster::broker;
use tokio::sync::OnceCell;

/// A broker that the tests share which leave it running.
async fn shared() -> Option<&'static Broker> {
    static SHARED: OnceCell<Option<Broker>> = OnceCell::const_new();
    SHARED.get_or_init(|| broker("rabbitmq")).await.as_ref()
}
