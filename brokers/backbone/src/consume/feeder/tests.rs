//! Places that are gone, which the feeder may have been told of before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::read_on;
use crate::consume::core::{Partition, Site};
use crate::consume::tests::{Cluster, SLOTS, earliest, subscription, topic};
use crate::log::Position;
use crate::slot::SlotHandle;

/// A slot that moves away and back takes a partition from a subscription and gives it another one; the feeder may be about to
/// read for the first. Where the partition has nothing to read, that would wait for the next event in it, and with it every
/// other partition of the subscription.
#[tokio::test]
async fn nothing_is_read_for_a_place_that_is_gone() {
    let cluster = Cluster::new().await;
    let consume = cluster.process(Arc::new(cluster.slot0.clone()) as Arc<dyn SlotHandle>).await;
    consume.create_topic(topic("orders", 1)).await.unwrap();
    consume.create_subscription(earliest(subscription("s", "orders"))).await.unwrap();
    for journal in cluster.journals().await {
        assert!((1..SLOTS).contains(&journal.slot()));
        consume.acquire(journal).await.unwrap();
    }
    let shared = Arc::clone(&consume.shared);
    let core = shared.cores.lock().values().next().cloned().unwrap();
    let partition = Partition { topic: topic("orders", 1).name, number: 0 };
    assert!(core.has(&partition) && shared.router(&partition).is_some(), "the partition is delivered here");
    let gone = Site { partition, ticket: u64::MAX };
    let mut open = HashMap::new();
    let reading = read_on(&shared, &core, &gone, Position::ZERO, &mut open);
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(matches!(read, Ok(Ok(()))), "it waits for a record of an empty partition that is not its own");
    assert!(open.is_empty(), "nothing stays open for it");
}
