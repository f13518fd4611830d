//! The broker loses what it had acknowledged: its data goes back to what it was a moment ago, as after a loss of power or a
//! backup that was brought back. Whoever knew more finds out, and says so.

use std::path::Path;
use std::process::Command;

use tidegate_conformance::Broker;
use tidegate_tests::cluster::{Member, SLOTS, broker, figure, settled, shown, until};

use super::{publish, subscribed};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp can be run");
    assert!(status.success(), "{status}");
}

/// How many slots the gateway says that it cannot read, with the reasons.
async fn damaged(member: &Member) -> Vec<String> {
    let document = shown(member.client()).await;
    let slots = document["slots"].as_array().cloned().unwrap_or_default();
    slots.iter().filter_map(|slot| slot["fault"].as_str().map(str::to_owned)).collect()
}

/// Kills the broker under gateways that know more than its data does when it comes back, or as much.
async fn restarted(name: &str, loses: bool) {
    let Some(broker) = broker(name).await.filter(Broker::is_ours) else { return };
    let (sink, home, load) = subscribed(4).await;
    let member = Member::start_in(home, &broker).await;
    settled(&[&member]).await;
    let running = load.begin(member.client());
    sink.wait_until("fifty deliveries", |deliveries| deliveries.len() >= 50).await;
    let data = broker.folder().expect("the broker is ours").join("1/data");
    let before = data.with_file_name("before");
    broker.pause(None).await;
    copy(&data, &before);
    broker.resume(None).await;
    // What is acknowledged from here on is what will be gone, heartbeats of the slots among it.
    let seen = sink.deliveries().len();
    sink.wait_until("deliveries after the copy", |deliveries| deliveries.len() >= seen + 200).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    running.finish().await;

    broker.kill(None).await;
    if loses {
        std::fs::remove_dir_all(&data).expect("the data is ours");
        copy(&before, &data);
    }
    broker.restart(None).await;
    if loses {
        // A slot that has lost heartbeats alone is taken again, and its fault is gone; one that has lost commits is not.
        let mut faults = Vec::new();
        until("that the loss is told", async || {
            faults = damaged(&member).await;
            !faults.is_empty() && figure(member.client(), "tidegate_slots_damaged", "").await > 0.0
        })
        .await;
        println!("{name}: {} of {SLOTS} slots are told as damaged: {}", faults.len(), faults[0]);
        assert!(faults[0].contains("lost records"), "{faults:?}");
        assert!(member.gateway.stderr().contains("the slot cannot be read"), "{}", member.gateway.stderr());
        return;
    }
    // The control: the same without the loss is no loss, and everything goes on.
    settled(&[&member]).await;
    publish(member.client(), "load", "afterwards").await;
    sink.wait_for_ids(&["afterwards".to_owned()]).await;
    assert_eq!(damaged(&member).await, Vec::<String>::new());
    assert!(figure(member.client(), "tidegate_slots_damaged", "").await.abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_told_on_nats() {
    restarted("nats", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_told_on_kafka() {
    restarted("kafka", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_loss_nothing_is_told_on_nats() {
    restarted("nats", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_loss_nothing_is_told_on_kafka() {
    restarted("kafka", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_told_on_rabbitmq() {
    restarted("rabbitmq", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_loss_nothing_is_told_on_rabbitmq() {
    restarted("rabbitmq", false).await;
}
