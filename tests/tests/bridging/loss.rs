//! A bridge that acknowledges before the far broker did must be found out by the comparison that the others pass.

use async_nats::header::HeaderMap;
use tidegate_tests::checker::Verdict;
use tidegate_tests::cluster::acknowledged;
use tidegate_tests::home::Home;
use tidegate_tests::load::{self, Load};
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tokio::sync::mpsc;

use super::{PARTITIONS, THERE, arrived, bridge, broker_of, broker_of_ours, end, goods, topic_on, topics_on};

const PRODUCERS: usize = 6;
const ORDER: [&str; 1] = ["order: key"];

/// NATS is killed while it stands still and events are on the way to it: what has reached its connections by then is with nobody.
/// Judges what came back over a careless bridge, or over one of the gateway's own.
async fn judged(careless: bool) -> Option<Verdict> {
    let nats = broker_of_ours("nats").await?;
    topics_on(&nats, &[THERE]).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    let (passed_on, waiting) = mpsc::channel(10_000);
    let taking = Sink::start(move |delivery| {
        passed_on.try_send(delivery.clone()).expect("the test waits for fewer events than that");
        Reply::Status(204)
    })
    .await;
    let out = if careless { end("out", "load", &taking, &ORDER) } else { bridge("out", "load", "there", &ORDER) };
    let resources = broker_of("n", nats.url(), "")
        + &topic_on("there", "n", THERE, "")
        + &out
        + &bridge("back", "there", "returned", &ORDER)
        + &end("end", "returned", &sink, &ORDER);
    home.write_resource("bridges.yaml", &resources);
    let gateway = home.start().await;
    let client = async_nats::connect(nats.url()).await.expect("NATS is up");
    let passing = tokio::spawn(pass_on(client.clone(), waiting));

    let load = Load::of("load", PRODUCERS, goods::message);
    let running = load.begin(gateway.client());
    arrived(&sink, 100).await;
    nats.pause(None).await;
    if careless {
        arrived(&taking, taking.count() + 200).await;
        // To the connection, which the server reads no more.
        client.flush().await.expect("the connection is open");
    }
    nats.kill(None).await;
    nats.restart(None).await;
    arrived(&sink, sink.count() + 200).await;
    running.finish().await;
    let last: Vec<String> =
        load.acknowledged().iter().enumerate().map(|(producer, count)| load::id(producer, count - 1)).collect();
    let everything = acknowledged(&load.acknowledged());
    // The careless one loses nothing once the server is back, so that the last events come whatever was lost before.
    let deliveries = sink.wait_for_ids(if careless { &last } else { &everything }).await;
    passing.abort();
    let hops = if careless { "1" } else { "2" };
    Some(goods::judge(&load.acknowledged(), &deliveries, hops))
}

/// Publishes what a sink was given, without waiting for anything: NATS acknowledges nothing to it.
async fn pass_on(client: async_nats::Client, mut waiting: mpsc::Receiver<Delivery>) {
    while let Some(delivery) = waiting.recv().await {
        let (producer, _) = load::parse_id(&delivery.id).expect("an event of the load");
        let mut headers = HeaderMap::new();
        for (name, value) in &delivery.headers {
            let value = value.to_str().expect("headers of events are ASCII");
            match name.as_str() {
                "content-type" if value.starts_with("application/cloudevents") => headers.insert("Content-Type", value),
                "content-type" => headers.insert("ce-datacontenttype", value),
                name if name.starts_with("ce-") => headers.insert(name, value),
                _ => {}
            }
        }
        // Each key has a partition, as order wants it; which one is nobody's business here.
        let subject = format!("{THERE}.{}", producer % PARTITIONS as usize);
        client.publish_with_headers(subject, headers, delivery.body).await.expect("the client queues it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_a_bridge_that_acknowledges_too_early_is_found_out() {
    let Some(verdict) = judged(true).await else { return };
    println!("{verdict}");
    assert!(verdict.lost > 0, "events were with nobody: {verdict:#?}");
    assert!(
        verdict.altered.is_empty() && verdict.unknown.is_empty(),
        "it lost events and did nothing else: {verdict:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_outage_costs_a_bridge_nothing() {
    let Some(verdict) = judged(false).await else { return };
    println!("{verdict}");
    verdict.assert_sound();
}
