//! Lanes.

use std::time::Duration;

use bytes::Bytes;
use tidegate_backbone::{ErrorKind, Inbox, Lane as _, NodeId, PartitionLog as _};
use tidegate_conformance::Broker;

use super::{HANG, open, options};

async fn next(inbox: &mut Box<dyn Inbox>) -> Option<Bytes> {
    tokio::time::timeout(HANG, inbox.next()).await.expect("a message comes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_to_whom_they_are_sent_in_order() {
    let Some(broker) = Broker::start("nats").await else { return };
    let options = options(broker.url());
    let (one, two) = (open(&options).await, open(&options).await);
    let mut first = one.receive(NodeId(0x10000)).await.unwrap();
    let mut second = two.receive(NodeId(0x20000)).await.unwrap();
    // Sent by another client right after receiving has returned: nothing of it may be missing.
    let sent: Vec<_> = (0..1_000).map(|n| two.send(NodeId(0x10000), Bytes::from(n.to_string()))).collect();
    for sent in sent {
        sent.await.unwrap();
    }
    for n in 0..1_000 {
        assert_eq!(next(&mut first).await.unwrap(), n.to_string());
    }
    one.broadcast("all".into()).await.unwrap();
    assert_eq!(next(&mut first).await.unwrap(), "all", "the sender receives it too");
    assert_eq!(next(&mut second).await.unwrap(), "all");
    one.send(NodeId(0x30000), "nobody".into()).await.unwrap();
    let large = vec![0; one.message_bytes_max() + 1];
    let error = one.send(NodeId(0x20000), large.into()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
    one.send(NodeId(0x20000), vec![1; one.message_bytes_max()].into()).await.unwrap();
    assert_eq!(next(&mut second).await.unwrap().len(), one.message_bytes_max());
    let nothing = tokio::time::timeout(Duration::from_millis(50), first.next()).await;
    assert!(nothing.is_err(), "what is sent to another node does not come here");
    // Another namespace hears nothing of it.
    one.close().await;
    assert_eq!(next(&mut first).await, None, "the end of the adapter ends its inboxes");
    assert_eq!(*one.send(NodeId(0x20000), "late".into()).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_outlasts_an_outage() {
    let Some(broker) = Broker::start("nats").await.filter(Broker::is_ours) else { return };
    let options = options(broker.url());
    let (one, two) = (open(&options).await, open(&options).await);
    let mut inbox = one.receive(NodeId(0x10000)).await.unwrap();
    broker.kill(None).await;
    while one.unreachable().is_none() || two.unreachable().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = two.send(NodeId(0x10000), "lost".into()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    broker.restart(None).await;
    // Until both are there again what is sent may be lost; what comes is only what was sent.
    let received = tokio::spawn(async move { next(&mut inbox).await });
    while !received.is_finished() {
        let _ = two.send(NodeId(0x10000), "found".into()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(received.await.unwrap().unwrap(), "found");
    assert_eq!(one.unreachable(), None);
}
