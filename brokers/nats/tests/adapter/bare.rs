//! The control of the faults: what the server loses by itself, where a client asks it for less than the adapter does; and that
//! the adapter, on the same server in the same moment, loses nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};
use tidegate_backbone::{LogSpec, PartitionLog as _, Position};
use tidegate_conformance::Broker;

use super::{HANG, event, id_of, open, options, partition, read};

/// Asks JetStream until it answers without an error, as clients do after a fault.
async fn ask(client: &Client, subject: &str, body: Value) -> Value {
    let asking = async {
        loop {
            let answer = client.request(format!("$JS.API.{subject}"), body.to_string().into()).await;
            let answer: Option<Value> = answer.ok().and_then(|answer| serde_json::from_slice(&answer.payload).ok());
            match answer {
                Some(answer) if answer["error"].is_null() => return answer,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(HANG, asking).await.unwrap_or_else(|_| panic!("{subject} is never answered"))
}

/// A stream of the client's own, and how many messages it holds.
async fn stream(client: &Client, replicas: u32) {
    ask(client, "STREAM.CREATE.BARE", json!({ "name": "BARE", "subjects": ["bare"], "num_replicas": replicas })).await;
}

async fn held(client: &Client) -> u64 {
    ask(client, "STREAM.INFO.BARE", json!({})).await["state"]["messages"].as_u64().expect("a number")
}

/// The server stands still, is written to, and is killed. A client that publishes without waiting for the acknowledgement is told
/// nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_dies_with_what_it_has_not_read() {
    let Some(broker) = Broker::start("nats").await.filter(Broker::is_ours) else { return };
    let client = async_nats::connect(broker.url()).await.unwrap();
    stream(&client, 1).await;
    let log = open(&options(broker.url())).await;
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    log.append(&partition(0), event("before")).await.unwrap();
    client.publish("bare", "before".into()).await.unwrap();
    // Nobody tells when it is stored.
    let stored = async {
        while held(&client).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, stored).await.expect("the server runs");

    broker.pause(None).await;
    let appends: Vec<_> = (0..50).map(|n| log.append(&partition(0), event(n.to_string()))).collect();
    let mut taken = 0;
    for _ in 0..50 {
        taken += u64::from(client.publish("bare", "x".into()).await.is_ok());
    }
    // The client hands them to the kernel; there is no sign of it but time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.kill(None).await;
    broker.restart(None).await;
    let there = held(&client).await - 1;
    println!("a client that publishes without acknowledgements: {taken} taken, {} lost", taken - there);
    assert!(there < taken, "the fault did not bite");

    let mut stored = BTreeSet::from(["before".to_owned()]);
    for (n, append) in appends.into_iter().enumerate() {
        if tokio::time::timeout(HANG, append).await.expect("every append has an outcome").is_ok() {
            stored.insert(n.to_string());
        }
    }
    none_missing(&log, &stored).await;
}

/// A server of three is killed, and its disk is lost with it. A stream with one copy goes with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_lost_with_its_disk() {
    let Some(broker) = Broker::start("nats3").await.filter(Broker::is_ours) else { return };
    let client = async_nats::connect(broker.url().replace("nats://", "").split(',').collect::<Vec<_>>()).await.unwrap();
    stream(&client, 1).await;
    let log = open(&options(broker.url())).await;
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    let mut stored = BTreeSet::new();
    for n in 0..50 {
        let answer = client.request("bare", "x".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer["seq"].is_u64(), "it is acknowledged: {answer}");
        log.append(&partition(0), event(n.to_string())).await.unwrap();
        stored.insert(n.to_string());
    }
    let info = ask(&client, "STREAM.INFO.BARE", json!({})).await;
    let leader = info["cluster"]["leader"].as_str().expect("a leader").to_owned();
    let node: u32 = leader.rsplit('-').next().unwrap().parse().expect("the script numbers the servers");
    broker.kill(Some(node)).await;
    std::fs::remove_dir_all(broker.folder().unwrap().join(format!("{node}/data"))).unwrap();
    broker.restart(Some(node)).await;
    let there = held(&client).await;
    println!("a stream with one copy: 50 acknowledged, {} lost", 50 - there);
    assert!(there < 50, "the fault did not bite");
    none_missing(&log, &stored).await;
}

async fn none_missing(log: &tidegate_nats::NatsBroker, stored: &BTreeSet<String>) {
    let back = async {
        while log.info(&partition(0)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HANG, back).await.expect("the log can be read again");
    let there: BTreeSet<String> = read(log, &partition(0), Position::ZERO).await.iter().map(id_of).collect();
    let missing: Vec<_> = stored.difference(&there).collect();
    assert!(missing.is_empty(), "of {} acknowledged by the adapter these are lost: {missing:?}", stored.len());
}
