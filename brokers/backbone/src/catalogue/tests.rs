//! The catalogue as several gateways see it, over one slot.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_routing::retry::RetryPolicy;

use super::*;
use crate::environment::Environment;
use crate::log::{BoxFuture, LogId};
use crate::slot::{Command, Committed, Head, Journal, Options, Watch};
use crate::testing::{MemoryBroker, environment};

/// One slot and what two gateways make of it. They are two processes in all but the journal, whose owner both ask.
async fn two() -> (MemoryBroker, Journal, [Arc<Catalogue>; 2], Environment) {
    let (broker, environment) = (MemoryBroker::default(), environment(7));
    let log: Arc<dyn PartitionLog> = broker.client();
    let journal = Journal::open(Arc::clone(&log), 0, environment.clone(), Options::default()).await.unwrap();
    let open = || Catalogue::open(Arc::clone(&log), Arc::new(Late(journal.clone())), &environment);
    let both = [open().await.unwrap(), open().await.unwrap()];
    (broker, journal, both, environment)
}

/// A handle whose commits take a moment, so that two of them meet.
#[derive(Debug)]
struct Late(Journal);

impl SlotHandle for Late {
    fn slot(&self) -> u32 {
        self.0.slot()
    }

    fn get(&self, key: &[u8]) -> Option<Head> {
        self.0.get(key)
    }

    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)> {
        self.0.scan(prefix)
    }

    fn revision(&self) -> u64 {
        self.0.revision()
    }

    fn watch(&self, prefix: Bytes) -> Watch {
        self.0.watch(prefix)
    }

    fn commit(&self, command: Command) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            self.0.commit(command).await
        })
    }
}

fn topic(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec::new(TopicName::parse(name.to_owned()).unwrap(), partitions, Origin::Api)
}

fn subscription(uid: u64) -> Subscription {
    let spec = SubscriptionSpec {
        name: "s".into(),
        topics: Vec::new(),
        filters: Vec::new(),
        sink: "https://sink.example/".to_owned(),
        request: RequestSpec::default(),
        from: Start::Latest,
        order: Order::Key,
        max_in_flight: 1,
        timeout: Duration::from_secs(1),
        retry: RetryPolicy::default(),
        on_exhausted: OnExhausted::Continue,
        dead_letter_topic: TopicName::parse("dead.s").unwrap(),
        reply_to: None,
        origin: Origin::Api,
    };
    Subscription::new(uid, spec)
}

#[tokio::test]
async fn what_one_changes_the_other_sees_and_is_told() {
    let (_, _, [one, other], _) = two().await;
    let mut changes = other.changes();
    changes.borrow_and_update();
    let (created, _) = one.create_topic(topic("orders", 2), 5, Command::new()).await.unwrap();
    assert_eq!(one.topic("orders").as_deref(), Some(&*created), "visible here at once");
    changes.changed().await.unwrap();
    assert_eq!(other.topic("orders").as_deref(), Some(&*created));
    other.delete_topic(&created.spec.name, Command::new()).await.unwrap();
    assert!(other.topic("orders").is_none());
    let mut changes = one.changes();
    while one.topic("orders").is_some() {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_topic_that_two_create_at_once_is_one() {
    let (broker, _, [one, other], _) = two().await;
    let (first, second) = tokio::join!(
        one.create_topic(topic("t", 3), 1, Command::new()),
        other.create_topic(topic("t", 3), 2, Command::new())
    );
    let ((first, here), (second, there)) = (first.unwrap(), second.unwrap());
    assert!(here ^ there, "exactly one of them created it");
    assert_eq!((first.uid, first.created_at), (second.uid, second.created_at));
    assert_eq!(broker.ids().iter().filter(|id| matches!(id, LogId::Topic { .. })).count(), 3);
    let refused = other.create_topic(topic("t", 4), 3, Command::new()).await;
    assert!(matches!(refused, Err(ChangeError::OtherPartitions { existing: 3, wanted: 4, .. })), "{refused:?}");
}

#[tokio::test]
async fn of_two_changes_from_one_state_the_second_is_a_conflict() {
    let (_, journal, [one, other], _) = two().await;
    one.put_subscription(subscription(1), Expect::Absent, Command::new()).await.unwrap();
    let expect = one.view().expect_subscription("s");
    let changed = Subscription { paused: Some("here".to_owned()), ..subscription(1) };
    one.put_subscription(changed.clone(), expect, Command::new()).await.unwrap();
    let lost = Subscription { paused: Some("there".to_owned()), ..subscription(1) };
    let refused = other.put_subscription(lost, expect, Command::new()).await;
    assert!(matches!(refused, Err(ChangeError::Commit(CommitError::Conflict { current: Some(2), .. }))), "{refused:?}");
    // The one that was refused sees why, and may try again from there.
    assert_eq!(other.subscription("s").as_deref(), Some(&changed));
    let again = Subscription { paused: None, ..changed };
    other.put_subscription(again, other.view().expect_subscription("s"), Command::new()).await.unwrap();
    assert_eq!(journal.revision(), 3);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_refused_at_the_start_and_told_later() {
    let (_, journal, [one, _], environment) = two().await;
    let (created, _) = one.create_topic(topic("t", 1), 5, Command::new()).await.unwrap();
    let newer = Command::new().put("catalogue/topic/t", Expect::Any, r#"{"v":2}"#);
    let revision = journal.commit(newer).await.unwrap().revision;
    one.reached(revision).await;
    assert_eq!(one.topic("t"), Some(created), "as it was");
    let opened = Catalogue::open(Arc::clone(&one.log), Arc::new(journal.clone()), &environment).await;
    assert_eq!(*opened.unwrap_err().kind(), ErrorKind::DataLoss);
}

#[test]
fn topics_of_early_versions_are_read_and_written_as_they_were() {
    let text = r#"{"v":1,"spec":{"name":"t","partitions":1,"keyFrom":"partitionkey","dedupeWindow":1000,"retention":{"age":null,"bytes":null},"origin":"api"},"createdAt":7}"#;
    let topic: Topic = serde_json::from_str(text).unwrap();
    assert_eq!((topic.uid, &topic.spec.attached, topic.spec.foreign), (0, &None, Foreign::Wrap));
    assert_eq!(write(&topic), text.as_bytes());
    let attached =
        Topic { spec: TopicSpec { attached: Some("x".into()), foreign: Foreign::DeadLetter, ..topic.spec }, ..topic };
    assert_eq!(read::<Topic>(b"k", &write(&attached)).unwrap(), attached);
}
