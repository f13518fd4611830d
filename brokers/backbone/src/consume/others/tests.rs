//! Two processes that each own one of two slots, and one of them asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_schemas::Event;

use super::*;
use crate::catalogue::TopicSpec;
use crate::claim::Ownership;
use crate::consume::tests::{Cluster, SLOTS, earliest, log_of, subscription, topic};
use crate::consume::{Attempt, Consume, Reason, Redrive, Standing, State};
use crate::lane::NodeId;
use crate::log::Record;
use crate::request::{Hub, MemberInfo, Options, Requests};
use crate::slot::Journal;

/// Slot 1 is the first's and slot 2 the second's.
#[derive(Debug)]
struct Fixed([NodeId; 2]);

impl Owners for Fixed {
    fn owners(&self) -> Vec<Ownership> {
        let ownership = |slot: u32| Ownership {
            slot,
            epoch: 1,
            owner: slot.checked_sub(1).map(|index| self.0[index as usize]),
            here: false,
            revision: 0,
        };
        (0..SLOTS).map(ownership).collect()
    }
}

struct Two {
    cluster: Cluster,
    consumes: [Arc<Consume>; 2],
    requests: [Requests; 2],
    _journals: Vec<Journal>,
}

impl Two {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let hub = Hub::default();
        let (mut consumes, mut requests) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            consumes.push(cluster.process(Arc::new(cluster.slot0.clone())).await);
            let open = Requests::open(hub.lane(), MemberInfo::default(), &cluster.environment, Options::alone());
            requests.push(open.await.unwrap());
        }
        let owners = Arc::new(Fixed([requests[0].node(), requests[1].node()]));
        let journals = cluster.journals().await;
        for index in 0..2 {
            consumes[index].acquire(journals[index].clone()).await.unwrap();
            consumes[index].join(&requests[index], Arc::clone(&owners) as Arc<dyn Owners>);
        }
        let (Ok(consumes), Ok(requests)) = (consumes.try_into(), requests.try_into()) else { unreachable!() };
        Self { cluster, consumes, requests, _journals: journals }
    }

    /// Publishes an event without a key into each partition, and lets both processes make a dead letter of theirs.
    async fn letters(&self, partitions: u32) {
        for partition in 0..partitions {
            let event = Event::builder(partition.to_string(), "/s", "t").build().unwrap();
            self.cluster.broker.insert(&log_of("orders", partition), Record::Event(event));
        }
        let uid = self.consumes[0].catalogue().subscription("s").unwrap().uid;
        let mut count = 0;
        for consume in &self.consumes {
            let consumer = loop {
                match consume.consumer(uid) {
                    Some(consumer) => break consumer,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await {
                delivery.dead_letter(Reason::Rejected, &Attempt { status: Some(400), ..Attempt::default() }).await;
                count += 1;
            }
            consume.finish().await;
        }
        assert!(count >= partitions, "{count}");
    }
}

const PARTITIONS: u32 = 6;

#[tokio::test]
async fn what_several_owners_know_is_put_together_and_what_is_missing_told() {
    let two = Two::new().await;
    let [one, other] = &two.consumes;
    let orders = TopicSpec { dedupe_window: Duration::ZERO, ..topic("orders", PARTITIONS) };
    one.create_topic(orders).await.unwrap();
    // As many dead-letter partitions as there are, so that both slots have some.
    one.create_topic(TopicSpec { dedupe_window: Duration::ZERO, ..topic("dead.s", PARTITIONS) }).await.unwrap();
    let subscription = one.create_subscription(earliest(subscription("s", "orders"))).await.unwrap();
    other.catalogue().reached(one.catalogue().view().revision).await;
    two.letters(PARTITIONS).await;
    let name = "s".into();
    for asked in &two.consumes {
        let letters = asked.dead_letters(&name, &Selection::default(), None, 100).await.unwrap();
        assert_eq!((letters.value.len(), letters.missing), (PARTITIONS as usize, vec![]));
        let groups = asked.dead_letter_groups(&name, &Selection::default()).await.unwrap();
        assert_eq!((groups.value.len(), groups.value[0].count), (1, u64::from(PARTITIONS)));
        for id in 0..PARTITIONS {
            let passports = asked.passports(&id.to_string(), None).await.unwrap();
            assert!(passports.coverage.complete, "{:?}", passports.coverage);
            let places = &passports.passports[0].places;
            let place = places.iter().find(|place| *place.topic == *"orders").unwrap();
            assert_eq!((place.partition, place.fates.len()), (id, 1));
            let fate = &place.fates[0];
            assert_eq!((&fate.state, fate.attempts.len(), fate.letters.len()), (&State::DeadLettered, 1, 1));
        }
        let status = asked.statuses(&[subscription.uid]).await;
        assert_eq!(status.value[&subscription.uid].standing, Standing::Active);
        assert!(status.is_complete());
    }
    // Pages are those of all owners together.
    let (mut seen, mut after) = (BTreeSet::new(), None);
    loop {
        let some = one.dead_letters(&name, &Selection::default(), after, 2).await.unwrap().value;
        let Some(last) = some.last() else { break };
        after = Some(last.id);
        seen.extend(some.iter().map(|letter| letter.id));
    }
    assert_eq!(seen.len(), PARTITIONS as usize);
    // Dropped by one process, wherever they are.
    let some: Vec<LetterId> = seen.iter().copied().take(4).collect();
    assert_eq!(one.drop_dead_letters(&name, &Selection::of(some)).await.unwrap().value, 4);
    let redriven = other.redrive(&name, &Selection::default(), &Redrive::default()).await.unwrap();
    assert_eq!((redriven.value.ids.len(), redriven.is_complete()), (2, true));
    let status = one.statuses(&[subscription.uid]).await;
    assert_eq!(status.value[&subscription.uid].redriving, 2, "at whichever owner");
    assert_eq!(one.dead_letters(&name, &Selection::default(), None, 9).await.unwrap().value.len(), 0);

    // An owner that does not answer is told, and the rest is given.
    two.letters(PARTITIONS).await;
    two.requests[1].leave().await;
    let letters = one.dead_letters(&name, &Selection::default(), None, 100).await.unwrap();
    assert_eq!(letters.missing, [2]);
    assert!(!letters.value.is_empty() && letters.value.len() < PARTITIONS as usize, "{}", letters.value.len());
    let passports = one.passports("0", None).await.unwrap();
    assert_eq!((passports.coverage.complete, passports.coverage.missing), (false, vec![2]));
}
