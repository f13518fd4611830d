//! Reloading resources under load, again and again: no event is left out, and none is delivered twice.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test beside the product, not inside it")]

use std::collections::HashMap;
use std::time::Duration;

use tidegate_tests::PATIENCE;
use tidegate_tests::home::Home;
use tidegate_tests::load::{self, Load};
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription};

const RELOADS: usize = 100;
const PRODUCERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_leave_no_gap_and_repeat_nothing() {
    let (home, changed, steady) = (Home::new(), Sink::accepting().await, Sink::accepting().await);
    let write = |max_in_flight: usize| {
        let delivery = ["order: key".to_owned(), PATIENT_RETRY.to_owned(), format!("maxInFlight: {max_in_flight}")];
        let delivery: Vec<&str> = delivery.iter().map(String::as_str).collect();
        let (url, topics) = (changed.url(), &["load"]);
        let subscription = Subscription { name: "changed", topics, filters: &[], sink: &url, delivery: &delivery };
        home.write_resource("changed.yaml", &subscription.yaml());
    };
    write(1);
    let url = steady.url();
    let delivery = ["order: key", PATIENT_RETRY];
    let subscription =
        Subscription { name: "steady", topics: &["load"], filters: &[], sink: &url, delivery: &delivery };
    home.write_resource("steady.yaml", &subscription.yaml());
    let gateway = home.start().await;
    let load = Load::new("load", PRODUCERS);
    let running = load.begin(gateway.client());
    for reload in 1..=RELOADS {
        let max_in_flight = 1 + reload;
        write(max_in_flight);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let shown = gateway.client().get("/subscriptions/changed").await.expect("an answer").expect(200).json();
            if shown["config"]["delivery"]["maxInFlight"] == max_in_flight {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the reload {reload} is not in force: {shown:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let counts = running.finish().await;
    assert!(counts.acknowledged as usize > RELOADS * 2, "there was no load to speak of: {counts:?}");
    let acknowledged = load.acknowledged();
    for (name, sink) in [("changed", &changed), ("steady", &steady)] {
        let all: Vec<String> = acknowledged
            .iter()
            .enumerate()
            .flat_map(|(producer, count)| (0..*count).map(move |n| load::id(producer, n)))
            .collect();
        sink.wait_for_ids(&all).await;
        let mut next: HashMap<usize, u64> = HashMap::new();
        for id in sink.ids() {
            let (producer, n) = load::parse_id(&id).expect("our own id");
            let expected = next.entry(producer).or_default();
            assert_eq!(n, *expected, "{name}: of producer {producer} came {n}, and {expected} was due");
            *expected += 1;
        }
    }
    println!("{RELOADS} reloads while {} events were published", counts.acknowledged);
}
