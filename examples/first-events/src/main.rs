//! First events: what goes in by three ways comes out at two subscriptions, once, whatever the receiver does.
//! The story is in [`main`]; README.md says how to run it.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example runs beside the product, and prints")]

mod events;
mod gateway;
mod sink;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use events::{Event, Identity, batch, binary, identity, same_data, structured, text};
use gateway::Gateway;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use sink::{Mood, Seen, Sink};

/// Anything that ends the example, with its reason.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const TOPIC: &str = "/topics/first-events";
const DEAD_LETTERS: &str = "/subscriptions/everything/dead-letters";
const WANTED_TYPE: &str = "com.example.order.placed";
/// Where the receiver listens for a gateway that runs already.
const SINK_ADDRESS: &str = "127.0.0.1:8081";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (folder, events) = events::load()?;
    let sent: HashMap<Identity, &Event> = events.iter().map(|event| (identity(event), event)).collect();
    let moods = moods(&events);
    let count = |mood| moods.values().filter(|one| **one == mood).count();
    let (blamed, failing) = (count(Mood::BlamesTheEvent), count(Mood::FailsTwice));
    let wanted = sent.values().filter(|event| text(event, "type") == WANTED_TYPE).count();

    let (gateway, sink) = begin(moods.clone()).await?;
    let whose = if gateway.is_own() { "started for this example" } else { "found running" };
    println!("gateway     {}, {whose}", gateway.url);

    let published = publish(&gateway, &events).await?;
    println!("published   {} events of {}", events.len(), folder.display());
    for (way, (events, requests)) in published {
        println!("            {events:>4} {way} in {requests} requests");
    }
    println!("            a receipt for each, durability fsync; and one was sent twice, as a client in doubt does");

    wait("everything to arrive", || async { Ok(sink.arrived("everything") == sent.len() - blamed) }).await?;
    wait("the orders", || async { Ok(sink.arrived("orders") == wanted) }).await?;
    let letters = wait_for_letters(&gateway, blamed).await?;

    let orders = sink.seen("orders");
    check_arrivals(&orders, &sent, |event| text(event, "type") == WANTED_TYPE)?;
    println!("\norders      {:>4} arrived: those of type {WANTED_TYPE}", orders.len());

    let everything = sink.seen("everything");
    check_arrivals(&everything, &sent, |event| moods[&identity(event)] != Mood::BlamesTheEvent)?;
    check_attempts(&everything, &moods, false)?;
    println!(
        "everything  {:>4} arrived, {failing} of them at the third attempt, behind 503 and 503",
        sent.len() - blamed
    );
    println!("            {:>4} became dead letters, each answered 400 at the first attempt:", letters.len());
    for letter in letters.iter().take(3) {
        println!(
            "                 {} \"{}\"",
            text_of(&letter["cause"]["reason"]),
            text_of(&letter["cause"]["detail"])
        );
    }

    sink.mend();
    let redriven = redrive(&gateway).await?;
    ensure(redriven == blamed as u64, || format!("{redriven} were redriven, not {blamed}"))?;
    wait("the redriven events", || async { Ok(sink.arrived("everything") == sent.len()) }).await?;
    wait_for_letters(&gateway, 0).await?;
    ensure(sink.seen("orders").len() == wanted, || "a redrive reached another subscription".to_owned())?;
    println!("\nmended      {redriven:>4} dead letters sent again, all arrived, none is left");

    // A gateway ends when its deliveries have; what came twice would have come by now.
    ensure(gateway.end().await?, || "the gateway complained when it ended".to_owned())?;
    let everything = sink.seen("everything");
    check_arrivals(&everything, &sent, |_| true)?;
    check_attempts(&everything, &moods, true)?;
    println!("\nEvery number adds up: {} in, {} out, nothing lost, nothing twice.", sent.len(), sent.len());
    Ok(())
}

/// The gateway that `--server` names, or one of our own; and the receiver of its deliveries.
async fn begin(moods: HashMap<Identity, Mood>) -> Result<(Gateway, Sink), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let (sink, address) = Sink::start("127.0.0.1:0".parse()?, moods).await?;
            Ok((Gateway::start(address).await?, sink))
        }
        ["--server", url] => {
            let address = std::env::var("SINK").unwrap_or_else(|_| SINK_ADDRESS.to_owned());
            let (sink, _) = Sink::start(address.parse()?, moods).await?;
            let gateway = Gateway::at(url);
            let (status, _) = gateway.send(Method::GET, TOPIC, HeaderMap::new(), Bytes::new()).await?;
            let reason = "the topic first-events exists already; start the gateway on an empty folder";
            ensure(status == StatusCode::NOT_FOUND, || reason.to_owned())?;
            Ok((gateway, sink))
        }
        _ => Err("usage: example-first-events [--server URL]".into()),
    }
}

/// One third of the events each: accepted, accepted after two failures, blamed.
fn moods(events: &[Event]) -> HashMap<Identity, Mood> {
    let mut moods = HashMap::new();
    for (event, mood) in events.iter().zip([Mood::Accepts, Mood::FailsTwice, Mood::BlamesTheEvent].into_iter().cycle())
    {
        moods.insert(identity(event), mood);
    }
    moods
}

/// Publishes every event by one of the three ways; gives how many events and requests each way took.
async fn publish(gateway: &Gateway, events: &[Event]) -> Result<BTreeMap<&'static str, (usize, usize)>, Failure> {
    let (mut ways, mut batched) = (BTreeMap::<_, (usize, usize)>::new(), Vec::new());
    for (number, event) in events.iter().enumerate() {
        let (way, (headers, body)) = match number % 3 {
            0 => ("structured", structured(event)?),
            1 => ("binary", binary(event)?),
            _ => {
                batched.push(event);
                continue;
            }
        };
        let (status, receipt) = gateway.send(Method::POST, TOPIC, headers, body).await?;
        check_receipt(event, status, &receipt)?;
        let (events, requests) = ways.entry(way).or_default();
        (*events, *requests) = (*events + 1, *requests + 1);
    }
    repeat(gateway, &events[0]).await?;
    let (headers, body) = batch(&batched)?;
    let (status, receipts) = gateway.send(Method::POST, TOPIC, headers, body).await?;
    let receipts = receipts.as_array().ok_or_else(|| format!("a batch has an array of receipts: {receipts}"))?;
    ensure(receipts.len() == batched.len(), || format!("{} receipts for {} events", receipts.len(), batched.len()))?;
    for (event, receipt) in batched.iter().zip(receipts) {
        check_receipt(event, status, receipt)?;
    }
    ways.insert("batch", (batched.len(), 1));
    Ok(ways)
}

/// A client that got no answer sends the same event again. It gets its receipt, and subscribers see the event once.
async fn repeat(gateway: &Gateway, event: &Event) -> Result<(), Failure> {
    let (headers, body) = binary(event)?;
    let (status, receipt) = gateway.send(Method::POST, TOPIC, headers, body).await?;
    check_receipt(event, status, &receipt)
}

fn check_receipt(event: &Event, status: StatusCode, receipt: &Value) -> Result<(), Failure> {
    let same = receipt["id"] == event["id"] && receipt["source"] == event["source"];
    let durable = receipt["durability"] == "fsync";
    ensure(status == StatusCode::ACCEPTED && same && durable, || {
        format!("{status} {receipt} for {:?}", identity(event))
    })
}

/// Exactly those events arrived that should have, and their data is what was sent.
fn check_arrivals(
    seen: &HashMap<Identity, Seen>,
    sent: &HashMap<Identity, &Event>,
    should_arrive: impl Fn(&Event) -> bool,
) -> Result<(), Failure> {
    for (identity, event) in sent {
        let seen = seen.get(identity);
        let arrived = seen.is_some_and(Seen::arrived);
        ensure(arrived == should_arrive(event), || format!("{identity:?} has arrived: {arrived}"))?;
        if let Some(seen) = seen {
            ensure(same_data(event, &seen.data)?, || format!("the data of {identity:?} has changed"))?;
        }
    }
    let unknown = seen.keys().find(|identity| !sent.contains_key(*identity));
    ensure(unknown.is_none(), || format!("{unknown:?} arrived and was never sent"))
}

/// Each event was tried as often as its answers demanded, and told its attempts right.
fn check_attempts(
    seen: &HashMap<Identity, Seen>,
    moods: &HashMap<Identity, Mood>,
    mended: bool,
) -> Result<(), Failure> {
    for (identity, seen) in seen {
        let (statuses, attempts): (&[u16], &[u32]) = match moods[identity] {
            Mood::Accepts => (&[204], &[1]),
            Mood::FailsTwice => (&[503, 503, 204], &[1, 2, 3]),
            Mood::BlamesTheEvent if mended => (&[400, 204], &[1, 1]),
            Mood::BlamesTheEvent => (&[400], &[1]),
        };
        ensure(seen.statuses == statuses && seen.attempts == attempts, || format!("{identity:?}: {seen:?}"))?;
    }
    Ok(())
}

/// Waits until so many dead letters are there, and checks that each says why.
async fn wait_for_letters(gateway: &Gateway, expected: usize) -> Result<Vec<Value>, Failure> {
    let list = || async {
        let listed = gateway.get(&format!("{DEAD_LETTERS}?limit=1000")).await?;
        Ok::<_, Failure>(listed["deadLetters"].as_array().ok_or("dead letters are listed")?.clone())
    };
    wait("the dead letters", || async { Ok(list().await?.len() == expected) }).await?;
    let letters = list().await?;
    for letter in &letters {
        let cause = &letter["cause"];
        let said = cause["reason"] == "rejected" && cause["status"] == 400 && cause["attempts"] == 1;
        ensure(said && cause["subscription"] == "everything", || format!("another cause: {letter}"))?;
    }
    Ok(letters)
}

async fn redrive(gateway: &Gateway) -> Result<u64, Failure> {
    let (status, answer) =
        gateway.send(Method::POST, &format!("{DEAD_LETTERS}/redrive"), HeaderMap::new(), Bytes::new()).await?;
    let redriven = answer["redriven"].as_u64().filter(|_| status.is_success());
    redriven.ok_or_else(|| format!("redrive: {status} {answer}").into())
}

/// Looks again and again until it is so.
async fn wait<F: Future<Output = Result<bool, Failure>>>(what: &str, is_so: impl Fn() -> F) -> Result<(), Failure> {
    until(what, async {
        while !is_so().await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
    .await?
}

/// Bounds a wait: longer than this is hung.
pub(crate) async fn until<F: Future>(what: &str, future: F) -> Result<F::Output, Failure> {
    const PATIENCE: Duration = Duration::from_secs(60);
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| format!("waited {PATIENCE:?} for {what}").into())
}

fn ensure(so: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if so { Ok(()) } else { Err(otherwise().into()) }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
