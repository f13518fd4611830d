//! One of two gateways is cut off from the broker, in every way that a network knows, while the other one and the sinks are
//! within its reach.

use tidegate_conformance::{Broker, Direction, Proxy};
use tidegate_tests::cluster::{Member, acknowledged, broker, figure, order, settled, until};
use tidegate_tests::gateway::Options;
use tidegate_tests::machine::long_faults;

use super::subscribed;

/// Cuts the connections through it in one way.
type Fault = fn(&Proxy);

async fn cut_off(name: &str, scheme: &str) {
    let Some(broker) = broker(name).await.filter(Broker::is_ours) else { return };
    let proxy = Proxy::start().await;
    proxy.forward_to(broker.addresses()[0].parse().unwrap());
    let (sink, home, load) = subscribed(8).await;
    let options = Options { backbone: Some(format!("{scheme}://{}", proxy.address())), ..Options::default() };
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    let (one, two) = (Member { home, gateway }, Member::start(&broker).await);
    settled(&[&one, &two]).await;
    let running = load.begin(two.client());
    sink.wait_until("fifty deliveries", |deliveries| deliveries.len() >= 50).await;

    let lost = async || figure(one.client(), "tidegate_slot_changes_total", "lost").await;
    let faults: [(&str, Fault); 3] = [
        ("silent", Proxy::half_open),
        ("refused", Proxy::refuse),
        // What it sends is swallowed, and what the broker sends arrives.
        ("unheard", |proxy| proxy.black_hole(Direction::ToBroker)),
    ];
    for (what, fault) in faults {
        let (lost_before, seen) = (lost().await, sink.deliveries().len());
        fault(&proxy);
        let (between, took) = settled(&[&two]).await;
        println!("{name}, {what}: the slots of a gateway that is cut off are owned by the other after {took:?}");
        sink.wait_until("deliveries by the other", |deliveries| deliveries.len() > seen + 50).await;
        let took = until("that it says so", async || one.client().get("/readyz").await.unwrap().status == 503).await;
        println!("{name}, {what}: /readyz says so {took:?} later");
        assert_eq!(two.client().get("/readyz").await.unwrap().status, 200, "{what}: the other one is not cut off");
        proxy.heal();
        let (after, took) = settled(&[&one, &two]).await;
        println!("{name}, {what}: both share the slots {took:?} after it is mended");
        // It was told, so that there was something to reject.
        assert!(lost().await > lost_before, "{what}: it lost nothing");
        for (slot, (_, epoch)) in &between {
            assert!(after[slot].1 >= *epoch, "{what}: slot {slot} went back from epoch {epoch}");
        }
    }
    let counts = running.finish().await;
    assert_eq!(counts.unanswered, 0, "nobody else is cut off by it");
    let order = order(&sink.wait_for_ids(&acknowledged(&load.acknowledged())).await);
    println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    drop(one);
}

// Kafka tells its clients one address for all of them, so that no gateway can be cut off there alone.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_cut_off_has_no_effect_any_more() {
    cut_off("nats", "nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_cut_off_has_no_effect_any_more_on_rabbitmq() {
    if long_faults("a gateway is cut off from rabbitmq") {
        cut_off("rabbitmq", "amqp").await;
    }
}
