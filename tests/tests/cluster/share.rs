//! Gateways that come, share, and leave.

use std::time::Duration;

use tidegate_conformance::Broker;
use tidegate_schemas::limits;
use tidegate_tests::cluster::{
    Member, Owners, SLOTS, acknowledged, broker, order, owned, owners, settled, shown, until,
};
use tidegate_tests::gateway::{Options, binary};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::sink::Sink;
use tokio::process::Command;

use super::{PRODUCERS, TOPIC, finish, subscription};

/// On a broker that tells its version, which begins so, or none.
async fn three_share_and_one_leaves(name: &str, version: Option<&str>) {
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::accepting().await;
    let home = Home::new();
    home.write_resource("load.yaml", &subscription("load", &sink.url()));
    let first = Member::start_in(home, &broker).await;
    let (alone, took) = settled(&[&first]).await;
    println!("{name}: one gateway owns all slots after {took:?}");
    let (second, third) = (Member::start(&broker).await, Member::start(&broker).await);
    let (shared, took) = settled(&[&first, &second, &third]).await;
    println!("{name}: three gateways share the slots after {took:?}");
    assert_ne!(alone, shared, "nothing moved");
    let document = shown(third.client()).await;
    assert_eq!(document["nodes"].as_array().map(Vec::len), Some(3), "{document:#}");
    for node in document["nodes"].as_array().into_iter().flatten() {
        assert_eq!(node["ready"], true, "{document:#}");
    }
    assert_eq!(document["backbone"]["broker"], name);
    let told = document["backbone"]["version"].as_str().map(|told| version.map_or(told, |_| &told[..1]));
    assert_eq!(told, version, "{document:#}");
    assert_eq!(document["backbone"]["reachable"], true);

    // Published on one, delivered by whoever owns the partition.
    let load = Load::new(TOPIC, PRODUCERS);
    let running = load.begin(second.client());
    sink.wait_until("a delivery", |deliveries| !deliveries.is_empty()).await;
    let address = first.client().address().to_string();
    let status = first.gateway.terminate().await;
    assert!(status.success(), "{status}");
    let (after, took) = owned(&[&second, &third]).await;
    println!("{name}: the slots of one that left are owned by the others after {took:?}");
    assert!(after.values().all(|(http, _)| *http != address));
    // Later than that slots move to even the shares out.
    let staying = if took < limits::CLAIM_SETTLE_TIME { shared } else { Owners::new() };
    for (slot, (http, epoch)) in &staying {
        if *http != address {
            assert_eq!(&after[slot], &(http.clone(), *epoch), "slot {slot} moved, though its owner stayed");
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let counts = finish(running).await;
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let order = order(&deliveries);
    println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    assert_eq!(counts.unanswered, 0, "nobody is cut off by another gateway's end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_share_the_slots_and_one_leaves() {
    three_share_and_one_leaves("nats", Some("2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_share_the_slots_and_one_leaves_on_rabbitmq() {
    three_share_and_one_leaves("rabbitmq", None).await;
}

/// The control: gateways that are not of one cluster share nothing, and the same look finds that out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_of_two_namespaces_share_nothing() {
    let Some(broker) = Broker::start("nats").await else { return };
    let one = Member::start(&broker).await;
    let home = Home::new();
    let config = home.path().join("other.yaml");
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  backbone: {{url: '{}', namespace: other, topicPrefix: other.}}\n",
        broker.url()
    );
    std::fs::write(&config, text).unwrap();
    let options = Options { config: Some(config), ..Options::default() };
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    let other = Member { home, gateway };
    let ((mine, _), (theirs, _)) = (settled(&[&one]).await, settled(&[&other]).await);
    assert_ne!(mine, theirs);
    tokio::time::sleep(Duration::from_secs(4)).await;
    for member in [&one, &other] {
        let document = shown(member.client()).await;
        assert_eq!(document["nodes"].as_array().map(Vec::len), Some(1), "{document:#}");
        assert_eq!(owners(&document).len(), SLOTS, "{document:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_the_cluster() {
    let Some(broker) = Broker::start("nats").await else { return };
    let (one, two) = (Member::start(&broker).await, Member::start(&broker).await);
    settled(&[&one, &two]).await;
    let run = async |arguments: &[&str]| {
        let server = format!("http://{}", one.client().address());
        let output = Command::new(binary(false)).args(arguments).args(["--server", &server]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&["cluster"]).await;
    for member in [&one, &two] {
        assert!(table.contains(&member.client().address().to_string()), "{table}");
    }
    assert!(table.contains("nats"), "{table}");
    assert_eq!(run(&["cluster", "slots"]).await.lines().count(), 1 + SLOTS);
    let slots = run(&["cluster", "slots", "-o", "json"]).await;
    assert_eq!(slots.lines().count(), SLOTS, "{slots}");
    let document: serde_json::Value = serde_json::from_str(&run(&["cluster", "-o", "json"]).await).unwrap();
    assert_eq!(document["nodes"].as_array().map(Vec::len), Some(2), "{document:#}");
    // What has died is not shown for long.
    two.gateway.kill().await;
    let took = until("that one gateway is left", async || {
        shown(one.client()).await["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1)
    });
    println!("a gateway that was killed is no longer shown after {:?}", took.await);
}
