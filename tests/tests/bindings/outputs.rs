//! Output bindings: events of subscriptions go to queues and exchanges.

use std::collections::{HashMap, HashSet};

use lapin::message::Delivery;
use tidegate_tests::bindings::{legacy, output, to};
use tidegate_tests::client::Outgoing;
use tidegate_tests::cluster::{acknowledged, broker, until};
use tidegate_tests::home::Home;
use tidegate_tests::load::{Load, parse_id};
use tidegate_tests::subscriptions::{QUICK_RETRY, dead_letters, standing, wait_for_dead_letters};

use crate::shared;
use crate::somebody::{Somebody, arguments, headers, id, quorum, text};

/// See brokers/rabbitmq/README.md, what RabbitMQ can lose.
pub(crate) const FIRST_QUORUM_REST: std::time::Duration = std::time::Duration::from_secs(2);

/// Ids that came for the first time before an earlier one of their producer had come.
pub(crate) fn early(came: &[String]) -> Vec<&String> {
    let mut due: HashMap<usize, u64> = HashMap::new();
    let is_early = |id: &&String| {
        let Some((producer, n)) = parse_id(id) else { return false };
        let due = due.entry(producer).or_default();
        *due = (*due).max(if n == *due { n + 1 } else { *due });
        n >= *due
    };
    came.iter().filter(is_early).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_into_queues_and_through_exchanges() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("out.classic", arguments(&[])).await;
    theirs.queue("out.quorum", quorum()).await;
    theirs.exchange("out.orders").await;
    theirs.queue("out.eu", arguments(&[])).await;
    theirs.bind("out.eu", "out.orders", "order.*.eu").await;
    let home = Home::new();
    let resources = legacy(broker)
        + &output("classic", "queue: out.classic")
        + &output("quorum", "queue: out.quorum")
        + &output("exchange", "exchange: out.orders, routingKey: 'order.{type}.{partitionkey}'")
        + &to("to-classic", "orders", "classic", &[])
        + &to("to-quorum", "orders", "quorum", &[])
        + &to("to-exchange", "orders", "exchange", &[QUICK_RETRY]);
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    for n in 0..20 {
        let (id, key) = (format!("p0-{n}"), if n % 10 == 9 { "us" } else { "eu" });
        let event = Outgoing { id: &id, key: Some(key), kind: "placed", data: r#"{"a": 1}"#, ..Outgoing::default() };
        client.publish("orders", &event).await.unwrap().expect(202);
    }
    let none = Outgoing { id: "none", key: None, kind: "placed", ..Outgoing::default() };
    client.publish("orders", &none).await.unwrap().expect(202);
    for queue in ["out.classic", "out.quorum"] {
        let came = theirs.take_some(queue, 21).await;
        let of_eu: Vec<String> = came
            .iter()
            .filter(|it| headers(it).get("cloudEvents_partitionkey").is_some_and(|key| key == "eu"))
            .map(id)
            .collect();
        let sent: Vec<String> = (0..20).filter(|n| n % 10 != 9).map(|n| format!("p0-{n}")).collect();
        assert_eq!(of_eu, sent, "the order of a key");
    }
    let came = theirs.take_some("out.eu", 18).await;
    let first: &Delivery = &came[0];
    assert_eq!((first.routing_key.as_str(), first.data.as_slice()), ("order.placed.eu", &br#"{"a": 1}"#[..]));
    let properties = &first.properties;
    assert_eq!(properties.content_type().as_ref().map(|it| it.as_str()), Some("application/json"));
    assert_eq!(properties.message_id().as_ref().map(|it| it.as_str()), Some("p0-0"));
    assert_eq!(properties.kind().as_ref().map(|it| it.as_str()), Some("placed"));
    assert_eq!(*properties.delivery_mode(), Some(2), "what a broker confirms it keeps");
    let headers = headers(first);
    for (name, value) in [("cloudEvents_id", "p0-0"), ("cloudEvents_type", "placed"), ("cloudEvents_tidegatehops", "1")]
    {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{headers:?}");
    }
    // What no queue takes is tried again, and is a dead letter then; what has no routing key is one at once.
    let letters = wait_for_dead_letters(client, "to-exchange", 3).await;
    let told: String = letters.iter().map(ToString::to_string).collect();
    assert_eq!(
        told.matches("no queue takes a message that is sent to the exchange out.orders").count() / 2,
        told.matches("order.placed.us").count() / 2
    );
    assert!(told.contains("order.placed.us") && told.contains("the event has no attribute partitionkey"), "{told}");
    for name in ["to-classic", "to-quorum"] {
        assert!(dead_letters(client, name).await.is_empty(), "{name}");
    }
    theirs.gets_nothing("out.eu").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_waited_for_and_uses_up_no_attempt() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("late.there", arguments(&[])).await;
    let home = Home::new();
    let resources = legacy(broker)
        + &output("queue", "queue: late.queue")
        + &output("exchange", "exchange: late.exchange, routingKey: k")
        + &output("there", "queue: late.there")
        + &to("to-queue", "orders", "queue", &[QUICK_RETRY])
        + &to("to-exchange", "orders", "exchange", &[QUICK_RETRY])
        + &to("to-there", "orders", "there", &[QUICK_RETRY]);
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    for n in 0..10 {
        let (id, key) = (format!("p0-{n}"), "k");
        client
            .publish("orders", &Outgoing { id: &id, key: Some(key), ..Outgoing::default() })
            .await
            .unwrap()
            .expect(202);
    }
    for name in ["to-queue", "to-exchange"] {
        until("that it is waited for", async || standing(client, name).await == "unreachable").await;
    }
    let sent: Vec<String> = (0..10).map(|n| format!("p0-{n}")).collect();
    let came: Vec<String> = theirs.take_some("late.there", 10).await.iter().map(id).collect();
    assert_eq!(came, sent, "nobody waits for what is not there but those who want to go there");
    assert!(dead_letters(client, "to-queue").await.is_empty() && dead_letters(client, "to-exchange").await.is_empty());
    theirs.queue("late.queue", quorum()).await;
    theirs.exchange("late.exchange").await;
    theirs.queue("late.bound", arguments(&[])).await;
    theirs.bind("late.bound", "late.exchange", "k").await;
    for queue in ["late.queue", "late.bound"] {
        let came: Vec<String> = theirs.take_some(queue, 10).await.iter().map(id).collect();
        let first: HashSet<&String> = came.iter().collect();
        assert_eq!(first.len(), 10, "{came:?}");
        assert!(early(&came).is_empty(), "{came:?}");
    }
    assert!(dead_letters(client, "to-queue").await.is_empty() && dead_letters(client, "to-exchange").await.is_empty());
}

/// The control of what is waited for: what says no to a message is asked again as often as the subscription says, no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_full_and_says_so_is_asked_again_by_the_policy() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    let full = [("x-max-length", lapin::types::AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))];
    theirs.queue("full.queue", arguments(&full)).await;
    let home = Home::new();
    let resources =
        legacy(broker) + &output("full", "queue: full.queue") + &to("to-full", "orders", "full", &[QUICK_RETRY]);
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    for id in ["one", "two"] {
        client.publish("orders", &Outgoing { id, key: Some("k"), ..Outgoing::default() }).await.unwrap().expect(202);
    }
    let letters = wait_for_dead_letters(client, "to-full", 1).await;
    let letter = letters[0].to_string();
    assert!(letter.contains("the broker refuses a message") && letter.contains("\"two\""), "{letter}");
    assert_eq!(id(&theirs.take_some("full.queue", 1).await[0]), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_the_order_of_keys_is_kept_while_the_broker_is_killed() {
    let Some(broker) = broker("rabbitmq").await.filter(tidegate_conformance::Broker::is_ours) else { return };
    let theirs = Somebody::at(&broker).await;
    theirs.queue("killed.queue", quorum()).await;
    drop(theirs);
    // A broker that is killed within about half a second after its first queue of that kind forgets all of them.
    tokio::time::sleep(FIRST_QUORUM_REST).await;
    let home = Home::new();
    let resources =
        legacy(&broker) + &output("out", "queue: killed.queue") + &to("over", "load", "out", &["order: key"]);
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    let load = Load::new("load", 6);
    let running = load.begin(client);
    let sent = async || load.acknowledged().iter().sum::<u64>();
    for _ in 0..2 {
        let before = sent().await;
        until("that events go out", async || sent().await >= before + 100).await;
        broker.kill(None).await;
        until("that it is waited for", async || standing(client, "over").await == "unreachable").await;
        client.get("/readyz").await.unwrap().expect(200);
        broker.restart(None).await;
        until("that it goes on", async || standing(client, "over").await == "active").await;
    }
    let counts = running.finish().await;
    assert_eq!(counts.put_off + counts.unanswered, 0, "who publishes here waits for no other broker");
    let wanted: HashSet<String> = acknowledged(&load.acknowledged()).into_iter().collect();
    let theirs = Somebody::at(&broker).await;
    let all = |taken: &[Delivery]| {
        taken.len() >= wanted.len() && taken.iter().map(id).collect::<HashSet<_>>().is_superset(&wanted)
    };
    let came: Vec<String> = theirs.take("killed.queue", all).await.iter().map(id).collect();
    println!("{} acknowledged, {} came", wanted.len(), came.len());
    assert!(early(&came).is_empty(), "out of order: {:?}", early(&came));
    assert!(dead_letters(client, "over").await.is_empty(), "an outage is no failure of events");
}
