//! The broker's disk is full to the last byte, and free again.

use tidegate_conformance::{Act, Broker};
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{Member, acknowledged, is_built_in, order, settled, until};
use tidegate_tests::machine::{long_faults, not_had};
use tidegate_tests::mount::SmallDisk;

use super::bare::Bare;
use super::subscribed;

/// Left free on the disk when it is filled: what a few hundred events take.
const LEFT_BYTES: u64 = 200_000;
/// What a client of a full NATS sends that asks for no acknowledgement: more than what is left.
const BARE_MESSAGES: u64 = 400;

/// Fills the disk under a load until the gateway says that nothing is acknowledged any more; frees it and starts the broker
/// anew, which both brokers want then.
async fn full(name: &str, mebibytes: u64) {
    if !is_built_in(name).await {
        return;
    }
    let disk = match SmallDisk::mount(mebibytes) {
        Ok(disk) => disk,
        Err(reason) => return not_had(&format!("a full disk under {name}"), &reason),
    };
    let Some(broker) = Broker::start_in(name, disk.path()).await.filter(Broker::is_ours) else { return };
    let (sink, home, load) = subscribed(4).await;
    let member = Member::start_in(home, &broker).await;
    settled(&[&member]).await;
    let client = member.client();
    let bare = Bare::connect(&broker).await;
    let running = load.begin(client);
    sink.wait_until("fifty deliveries", |deliveries| deliveries.len() >= 50).await;

    // What it sends takes room, too, and NATS falls silent stream by stream: there it begins when the gateway's are. Kafka ends.
    let ends = name == "kafka";
    let early = if ends { Some(bare.begin()) } else { None };
    let filler = disk.fill_but(LEFT_BYTES);
    let mut reason = String::new();
    let took =
        until("that the gateway is not ready, and says why", async || not_ready(client, &mut reason).await).await;
    println!("{name}: the gateway says so {took:?} after the disk was filled: {reason}");
    let event = Outgoing { id: "full", ..Outgoing::default() };
    let refused = client.publish("load", &event).await.unwrap();
    println!("a publish meanwhile: {refused}");
    refused.expect_problem(&[503, 504, 507]);
    let sending = early.unwrap_or_else(|| bare.begin());
    if !ends {
        sending.wait_for(BARE_MESSAGES).await;
    }
    let control = sending.end().await;

    // Ended before there is room: what it could not write and still holds would be written then, the control's too.
    broker.act(Act::Kill, None).await;
    std::fs::remove_file(filler).expect("the disk is ours");
    broker.restart(None).await;
    let took = until("that it is ready", async || client.get("/readyz").await.unwrap().status == 200).await;
    println!("{name}: it is ready {took:?} after the broker was started with room");
    let seen = sink.deliveries().len();
    sink.wait_until("deliveries afterwards", |deliveries| deliveries.len() > seen + 50).await;
    let counts = running.finish().await;
    assert!(counts.put_off > 0, "the fault met no publish, so that it shows nothing: {counts:?}");
    assert_eq!(counts.unanswered, 0, "the gateway goes on");
    let order = order(&sink.wait_for_ids(&acknowledged(&load.acknowledged())).await);
    println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    let (sent, there) = (control.messages, control.held().await);
    println!("a client that asks for no acknowledgement: {sent} told as sent, of which the broker holds {there}");
    assert!(there < sent, "a full disk takes nothing from anybody, so that it shows nothing");
}

/// Whether `/readyz` refuses; the reason that it gives.
async fn not_ready(client: &Client, reason: &mut String) -> bool {
    let answer = client.get("/readyz").await.unwrap();
    *reason = String::from_utf8_lossy(&answer.body).into_owned();
    answer.status == 503 && answer.expect_problem(&[503]) == "unavailable"
}

/// NATS falls silent, and stays so until it is started anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full_on_nats() {
    full("nats", 64).await;
}

/// Kafka takes its only log directory offline, and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full_on_kafka() {
    if long_faults("a full disk under kafka") {
        full("kafka", 128).await;
    }
}
