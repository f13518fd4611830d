//! Bridges that several gateways carry, of which some go.

use tidegate_tests::cluster::{Member, acknowledged, owned, settled, until};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::dead_letters;

use super::{THERE, arrived, bridge, broker_of, broker_of_ours, end, goods, topic_on, topics_on};

const PRODUCERS: usize = 6;
const ORDER: [&str; 1] = ["order: key"];

/// From the backbone of the cluster to Kafka and back, and on to the sink.
fn resources(kafka: &str, sink: &Sink) -> String {
    broker_of("k", kafka, "")
        + &topic_on("there", "k", THERE, "")
        + &bridge("out", "load", "there", &ORDER)
        + &bridge("back", "there", "returned", &ORDER)
        + &end("end", "returned", sink, &ORDER)
}

fn home_with(resources: &str) -> Home {
    let home = Home::new();
    home.write_resource("bridges.yaml", resources);
    home
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_goes_on_where_gateways_are_killed_and_stopped() {
    let (Some(nats), Some(kafka)) = (broker_of_ours("nats").await, broker_of_ours("kafka").await) else { return };
    topics_on(&kafka, &[THERE]).await;
    let sink = Sink::accepting().await;
    let resources = resources(kafka.url(), &sink);
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::start_in(home_with(&resources), &nats).await);
    }
    settled(&members.iter().collect::<Vec<_>>()).await;
    let load = Load::of("load", PRODUCERS, goods::message);
    // To the one that stays; each of the three owns partitions of the topics here and there.
    let running = load.begin(members[2].client());
    arrived(&sink, 200).await;
    members.remove(0).gateway.kill().await;
    owned(&members.iter().collect::<Vec<_>>()).await;
    arrived(&sink, sink.count() + 200).await;
    let status = members.remove(0).gateway.terminate().await;
    assert!(status.success(), "{status}");
    owned(&[&members[0]]).await;
    arrived(&sink, sink.count() + 200).await;
    let counts = running.finish().await;
    assert_eq!(counts.unanswered, 0);
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let verdict = goods::judge(&load.acknowledged(), &deliveries, "2");
    println!("one of three gateways killed and one stopped: {verdict}");
    verdict.assert_sound();
    for name in ["out", "back", "end"] {
        assert!(dead_letters(members[0].client(), name).await.is_empty(), "{name}");
    }
}

/// Without a successor the same death must show in what is checked above; with one nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_without_a_successor_events_are_missing() {
    let (Some(nats), Some(kafka)) = (broker_of_ours("nats").await, broker_of_ours("kafka").await) else { return };
    topics_on(&kafka, &[THERE]).await;
    let sink = Sink::accepting().await;
    let resources = resources(kafka.url(), &sink);
    let member = Member::start_in(home_with(&resources), &nats).await;
    let load = Load::of("load", PRODUCERS, goods::message);
    let running = load.begin(member.client());
    arrived(&sink, 50).await;
    // What is published from now on is not over the bridge when its gateway dies.
    kafka.pause(None).await;
    let before = load.acknowledged().iter().sum::<u64>();
    until("more events", async || load.acknowledged().iter().sum::<u64>() > before + 100).await;
    running.finish().await;
    member.gateway.kill().await;
    kafka.resume(None).await;
    let judge = |sink: &Sink| goods::judge(&load.acknowledged(), &sink.deliveries(), "2");
    let verdict = judge(&sink);
    println!("without a successor: {verdict}");
    assert!(verdict.lost > 0, "{verdict:#?}");

    let _successor = Member::start_in(home_with(&resources), &nats).await;
    sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let verdict = judge(&sink);
    println!("with one: {verdict}");
    verdict.assert_sound();
}
