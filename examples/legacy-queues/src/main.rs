//! Legacy queues: a program that knows RabbitMQ alone sends to topics, and is sent what is published to them.
//! The story is in [`main`]; README.md says how to run it.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example runs beside the product, and prints")]

mod gateway;
mod shop;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use gateway::Gateway;
use serde_json::{Value, json};
use shop::Shop;

/// Anything that ends the example, with its reason.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const COUNT: usize = 30;
const REGIONS: [&str; 2] = ["order.eu", "order.us"];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = std::env::var("BROKER").map_err(
        |_| "set BROKER to the URL of a RabbitMQ, as amqp://127.0.0.1:5672; `scripts/brokers up rabbitmq` starts one",
    )?;
    let shop = Shop::open(&broker).await?;
    let gateway = Gateway::start(&broker).await?;
    for binding in ["orders-in", "parcels-lost"] {
        gateway.reads(binding).await?;
    }

    for n in 0..COUNT {
        shop.order(&format!("order-{n}"), REGIONS[n % 2], &format!(r#"{{"number": {n}}}"#)).await?;
    }
    let orders = gateway.events("orders", COUNT).await?;
    check_orders(&orders)?;
    println!("orders      {COUNT:>4} messages of the shop's exchange became events, in the order of each routing key");

    for n in 0..COUNT {
        gateway.publish("parcels", &parcel(n)).await?;
    }
    // Every third one is too much for it.
    let can_handle = |id: &str| id.rsplit('-').next().and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n % 3 != 0);
    let worked_on = shop.work(COUNT, can_handle).await?;
    let ids: BTreeSet<&str> = worked_on.iter().map(|(id, _)| id.as_str()).collect();
    ensure(ids.len() == COUNT, || format!("{} parcels came, not {COUNT}: {worked_on:?}", ids.len()))?;
    let of_type = worked_on.iter().all(|(_, kind)| kind == "com.example.parcel.sent");
    ensure(of_type, || format!("messages say their type: {worked_on:?}"))?;
    println!("parcels     {COUNT:>4} events became messages in the shop's queue");

    let refused: BTreeSet<&str> = ids.into_iter().filter(|id| !can_handle(id)).collect();
    let lost = gateway.events("parcels-lost", refused.len()).await?;
    let known: BTreeSet<&str> = lost.iter().filter_map(|event| event["id"].as_str()).collect();
    ensure(known == refused && lost.len() == refused.len(), || format!("{known:?} were lost, not {refused:?}"))?;
    for event in &lost {
        let told = (&event["deathreason"], &event["deathqueue"]);
        ensure(told == (&json!("rejected"), &json!("example.parcels")), || format!("no reason: {event}"))?;
    }
    println!("lost        {:>4} of them the shop refused, and they came back with the reason", lost.len());

    let letters = gateway.get("/subscriptions/parcels-to-shop/dead-letters").await?.unwrap_or_default();
    ensure(letters["deadLetters"] == json!([]), || format!("there are dead letters: {letters}"))?;
    ensure(gateway.end().await?, || "the gateway complained when it ended".to_owned())?;
    shop.clear().await?;
    println!("\nEvery number adds up, and nothing of the shop was changed.");
    Ok(())
}

fn parcel(n: usize) -> Value {
    json!({
        "specversion": "1.0", "id": format!("parcel-{n}"), "source": "/warehouse", "type": "com.example.parcel.sent",
        "datacontenttype": "application/json", "data": {"weight": n},
    })
}

/// Each order is there once, as it was sent, and those of one routing key stand in their order.
fn check_orders(orders: &[Value]) -> Result<(), Failure> {
    ensure(orders.len() == COUNT, || format!("{} orders arrived, not {COUNT}", orders.len()))?;
    for (first, region) in REGIONS.into_iter().enumerate() {
        let of_region = orders.iter().filter(|event| event["routingkey"] == region);
        let told: Vec<(&Value, &Value)> = of_region.clone().map(|event| (&event["id"], &event["data"])).collect();
        let sent: Vec<(Value, Value)> = (first..COUNT)
            .step_by(REGIONS.len())
            .map(|n| (json!(format!("order-{n}")), json!({"number": n})))
            .collect();
        ensure(told == sent.iter().map(|(id, data)| (id, data)).collect::<Vec<_>>(), || format!("{region}: {told:?}"))?;
        for event in of_region {
            let is_whole = event["type"] == "OrderPlaced" && event["partitionkey"] == region;
            ensure(is_whole, || format!("an order says what it is: {event}"))?;
        }
    }
    Ok(())
}

/// Bounds a wait: longer than this is hung.
pub(crate) async fn until<F: Future>(what: &str, future: F) -> Result<F::Output, Failure> {
    const PATIENCE: Duration = Duration::from_secs(60);
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| format!("waited {PATIENCE:?} for {what}").into())
}

fn ensure(so: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if so { Ok(()) } else { Err(otherwise().into()) }
}
