//! One subscriber of fifty, or one key of fifty, that does not do its part: the others go on as if it were not there, and
//! what waits for it waits on the disk.
//!
//! What is compared are counts: in each phase so many events are published, and it ends when all others have all of them
//! while the one still has not. A control runs the same phase where all share one queue, and must come to nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::gateway::Gateway;
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription, dead_letters};

const SUBSCRIBERS: usize = 50;
const EVENTS: usize = 20;

async fn publish(client: &Client, topic: &str, phase: &str, count: usize, key: impl Fn(usize) -> String) {
    for n in 0..count {
        let event = Outgoing { id: &format!("{phase}-{n}"), key: Some(&key(n)), ..Outgoing::default() };
        client.publish(topic, &event).await.expect("the gateway answers").expect(202);
    }
}

/// How often each of these was received in a phase.
fn counts(deliveries: &[Delivery], phase: &str, of: impl Fn(&Delivery) -> String) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for delivery in deliveries.iter().filter(|delivery| delivery.id.starts_with(&format!("{phase}-"))) {
        *counts.entry(of(delivery)).or_default() += 1;
    }
    counts
}

async fn status(client: &Client, name: &str) -> Value {
    client.get(&format!("/subscriptions/{name}")).await.expect("an answer").expect(200).json()["status"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sick_subscriber_of_fifty_takes_nothing_from_the_others() {
    let (home, healthy) = (Home::new(), Sink::accepting().await);
    let mut sick = Sink::accepting().await;
    let delivery = ["order: key", "timeout: 1s", PATIENT_RETRY];
    for n in 0..SUBSCRIBERS {
        let (name, url) = (format!("s{n}"), if n == 0 { sick.url() } else { healthy.url_of(&format!("/s{n}")) });
        let subscription = Subscription { name: &name, topics: &["t"], filters: &[], sink: &url, delivery: &delivery };
        home.write_resource(&format!("{name}.yaml"), &subscription.yaml());
    }
    let gateway = home.start().await;
    let client = gateway.client();
    let run = async |phase: &str| {
        let began = Instant::now();
        publish(client, "t", phase, EVENTS, |n| format!("k{}", n % 10)).await;
        let all = |deliveries: &[Delivery]| {
            let counts = counts(deliveries, phase, |delivery| delivery.path.clone());
            counts.len() == SUBSCRIBERS - 1 && counts.values().all(|count| *count == EVENTS)
        };
        healthy.wait_until(&format!("all events of phase {phase} at all others"), all).await;
        began.elapsed()
    };
    let phases: [(&str, Option<Reply>); 5] = [
        ("hangs", Some(Reply::Hang)),
        ("fails", Some(Reply::Status(500))),
        ("drips", Some(Reply::Drip)),
        ("floods", Some(Reply::Endless)),
        ("refuses", None),
    ];
    let mut well = vec![run("well0").await];
    for (round, (phase, reply)) in phases.into_iter().enumerate() {
        let tried = sick.deliveries().len();
        match &reply {
            Some(reply) => {
                let reply = reply.clone();
                sick.answer(move |_| reply.clone());
            }
            None => sick.refuse().await,
        }
        let took = run(phase).await;
        if matches!(reply, Some(Reply::Hang | Reply::Status(_) | Reply::Drip)) {
            sick.wait_until(&format!("an attempt while it {phase}"), |deliveries| deliveries.len() > tried).await;
        }
        if !matches!(reply, Some(Reply::Endless)) {
            let left = status(client, "s0").await;
            let waits = ["queued", "parked", "inFlight"].iter().filter_map(|depth| left[*depth].as_u64()).sum::<u64>();
            assert!(waits > 0, "nothing waits for the sick one, so the phase {phase:?} showed nothing: {left}");
        }
        sick.answer(|_| Reply::Status(204));
        if reply.is_none() {
            sick.listen_again().await;
        }
        let again = run(&format!("well{}", round + 1)).await;
        println!("all others had everything after {took:?} while it {phase}, and after {again:?} when it was well");
        well.push(again);
    }
    println!("between phases in which all were well: {:?}", well);
    // What waited arrives, and is not held against the events.
    let names = ["hangs", "fails", "drips", "floods", "refuses", "well5"];
    let all: Vec<String> = names.iter().flat_map(|phase| (0..EVENTS).map(move |n| format!("{phase}-{n}"))).collect();
    sick.wait_for_ids(&all).await;
    assert!(dead_letters(client, "s0").await.is_empty());
    let phases = 1 + 2 * 5;
    assert_eq!(
        healthy.deliveries().len(),
        phases * EVENTS * (SUBSCRIBERS - 1),
        "each event once at each of the others"
    );
}

/// Publishes events of fifty keys, of which the first fails, and gives how many events of others arrived before `until`
/// holds of that number, or not at all within a while.
async fn with_poison(shared_queue: bool, until: usize) -> (usize, Gateway, Home) {
    const KEYS: usize = 50;
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id == "b-0" { 500 } else { 204 })).await;
    let subscription = Subscription {
        name: "keyed",
        topics: &["t"],
        filters: &[],
        sink: &sink.url(),
        delivery: &["order: key", PATIENT_RETRY],
    };
    home.write_resource("s.yaml", &subscription.yaml());
    let gateway = home.start().await;
    let key = |n: usize| if shared_queue { "all".to_owned() } else { format!("k{}", n % KEYS) };
    let of_key = |n: usize| format!("k{}", n % KEYS);
    let others = Arc::new(Mutex::new(0));
    for phase in ["a", "b", "c"] {
        publish(gateway.client(), "t", phase, KEYS * 10, key).await;
        let counted = Arc::clone(&others);
        let all = move |deliveries: &[Delivery]| {
            let number = |delivery: &Delivery| delivery.id[2..].parse::<usize>().expect("our own id");
            let counts = counts(deliveries, phase, |delivery| of_key(number(delivery)));
            let healthy = counts.iter().filter(|(key, _)| phase == "a" || **key != "k0").map(|(_, count)| count).sum();
            *counted.lock() = healthy;
            healthy >= if phase == "a" { KEYS * 10 } else { until }
        };
        let waiting = sink.wait_until(phase, all);
        if tokio::time::timeout(Duration::from_secs(if shared_queue { 3 } else { 60 }), waiting).await.is_err() {
            break;
        }
        let tried = sink.deliveries().iter().filter(|delivery| delivery.id == "b-0").count();
        assert!(phase == "a" || tried > 1, "the poisoned event was tried {tried} times, which shows nothing");
    }
    let others = *others.lock();
    (others, gateway, home)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisoned_key_of_fifty_takes_nothing_from_the_others() {
    let (others, gateway, _home) = with_poison(false, 490).await;
    assert_eq!(others, 490, "every event of the 49 others, also in the phase that began when the key was stuck");
    let status = status(gateway.client(), "keyed").await;
    assert_eq!((&status["standing"], &status["parked"]), (&"active".into(), &1.into()), "{status}");
    // The control: where all events share one queue the same poison lets nothing through.
    let (others, _gateway, _home) = with_poison(true, 490).await;
    assert_eq!(others, 0, "a shared queue did not stand still, so the test would not notice one");
}

fn resident_bytes(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.process_id());
    let status = std::fs::read_to_string(path).expect("the gateway runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number of KiB") * 1_024
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_of_a_stuck_subscriber_is_on_the_disk_and_not_in_memory() {
    const PAYLOAD_BYTES: usize = 128 * 1024;
    const BACKLOG_EVENTS: usize = 1_000;
    // Two queues of 8 MiB, 32 deliveries in flight of 128 KiB, the log's own queues, and an allocator that keeps some.
    const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;
    let (home, stuck, other) = (Home::new(), Sink::start(|_| Reply::Hang).await, Sink::accepting().await);
    for (name, sink) in [("stuck", &stuck), ("other", &other)] {
        let delivery = ["order: key", "timeout: 60s", PATIENT_RETRY];
        let url = sink.url();
        let subscription = Subscription { name, topics: &["t"], filters: &[], sink: &url, delivery: &delivery };
        home.write_resource(&format!("{name}.yaml"), &subscription.yaml());
    }
    let gateway = home.start().await;
    let data = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES));
    let send = async |range: std::ops::Range<usize>| {
        for n in range {
            let (id, key) = (format!("k-{n}"), format!("k{}", n % 100));
            let event = Outgoing { id: &id, key: Some(&key), data: &data, ..Outgoing::default() };
            gateway.client().publish("t", &event).await.expect("an answer").expect(202);
        }
    };
    // Whatever is allocated once is there afterwards.
    send(0..100).await;
    let first: Vec<String> = (0..100).map(|n| format!("k-{n}")).collect();
    other.wait_for_ids(&first).await;
    let (before, stored) = (resident_bytes(&gateway), bytes_below(home.data()));
    send(100..BACKLOG_EVENTS).await;
    let all: Vec<String> = (0..BACKLOG_EVENTS).map(|n| format!("k-{n}")).collect();
    other.wait_for_ids(&all).await;
    let grown = resident_bytes(&gateway).saturating_sub(before);
    let stored = bytes_below(home.data()).saturating_sub(stored);
    let backlog = ((BACKLOG_EVENTS - 100) * PAYLOAD_BYTES) as u64;
    println!("a backlog of {backlog} bytes: {stored} more bytes in files, {grown} more in memory");
    assert!(stuck.deliveries().len() <= 32, "the stuck one was sent {} events", stuck.deliveries().len());
    assert!(
        stored + 16 * 1024 * 1024 >= backlog,
        "the backlog of {backlog} bytes is not in the files, which grew by {stored}"
    );
    assert!(grown <= GROWTH_BYTES_MAX, "the memory grew by {grown} bytes for a backlog of {backlog}");
}
