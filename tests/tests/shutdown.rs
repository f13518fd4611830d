//! SIGTERM under load loses nothing, blames no event for it, and ends with exit code 0.
//!
//! `TIDEGATE_SHUTDOWNS` sets how often (50).
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::HashSet;
use std::time::Duration;

use tidegate_tests::checker;
use tidegate_tests::home::Home;
use tidegate_tests::load::{self, Load};
use tidegate_tests::machine::number_from_environment;
use tidegate_tests::random::Random;
use tidegate_tests::sink::{Reply, Sink};
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription, dead_letters};

const PRODUCERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn termination_under_load_loses_nothing() {
    let shutdowns = number_from_environment("TIDEGATE_SHUTDOWNS", 50);
    let (home, load, mut random) = (Home::new(), Load::new("shutdown", PRODUCERS), Random::from_environment());
    // Some answers are late and some are failures, so that every shutdown meets attempts in flight and retries parked.
    let sink = Sink::start(|delivery| match delivery.arrival % 10 {
        3 => Reply::Late(204, Duration::from_millis(50)),
        7 => Reply::Status(503),
        _ => Reply::Status(204),
    })
    .await;
    let url = sink.url();
    let subscription = Subscription {
        name: "everything",
        topics: &["shutdown"],
        filters: &[],
        sink: &url,
        delivery: &["order: key", PATIENT_RETRY],
    };
    home.write_resource("subscription.yaml", &subscription.yaml());

    let mut cycles_with_progress = 0;
    for shutdown in 1..=shutdowns {
        let gateway = home.start().await;
        let running = load.begin(gateway.client());
        tokio::time::sleep(random.milliseconds(50, 300)).await;
        let status = gateway.terminate().await;
        let counts = running.finish().await;
        cycles_with_progress += u64::from(counts.acknowledged > 0);
        assert!(status.success(), "shutdown {shutdown} ended with {status}");
    }

    let gateway = home.start().await;
    let verdict = checker::check(&load.acknowledged(), &checker::read_topic(gateway.client(), load.topic()).await);
    verdict.assert_sound();
    assert!(cycles_with_progress * 10 >= shutdowns * 9, "only {cycles_with_progress} of {shutdowns} runs did anything");

    // Every event on the topic reaches the sink, although the gateway that took it has gone.
    sink.answer(|_| Reply::Status(204));
    let expected: Vec<String> = load
        .acknowledged()
        .iter()
        .enumerate()
        .flat_map(|(producer, count)| (0..*count).map(move |n| load::id(producer, n)))
        .collect();
    let deliveries = sink.wait_for_ids(&expected).await;
    let letters = dead_letters(gateway.client(), "everything").await;
    assert!(letters.is_empty(), "a shutdown is nobody's fault: {letters:#?}");
    let distinct: HashSet<&str> = deliveries.iter().map(|delivery| delivery.id.as_str()).collect();
    println!("{shutdowns} shutdowns: {verdict}; {} deliveries of {} events", deliveries.len(), distinct.len());
    assert!(gateway.terminate().await.success());
}

/// A sink that never answers must not hold the process: its attempt is given up and made again by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn termination_does_not_wait_for_a_sink_that_hangs() {
    let home = Home::new();
    let sink = Sink::start(|_| Reply::Hang).await;
    let url = sink.url();
    let subscription = Subscription {
        name: "hanging",
        topics: &["shutdown"],
        filters: &[],
        sink: &url,
        delivery: &["order: key", "timeout: 5m", PATIENT_RETRY],
    };
    home.write_resource("subscription.yaml", &subscription.yaml());
    let gateway = home.start().await;
    let load = Load::new("shutdown", 1);
    let running = load.begin(gateway.client());
    sink.wait_until("an attempt in flight", |deliveries| !deliveries.is_empty()).await;
    let status = gateway.terminate().await;
    running.finish().await;
    assert!(status.success(), "{status}");

    sink.answer(|_| Reply::Status(204));
    let gateway = home.start().await;
    let first_id = load::id(0, 0);
    sink.wait_until("the first event once more", |deliveries| {
        deliveries.iter().filter(|delivery| delivery.id == first_id).count() >= 2
    })
    .await;
    assert!(dead_letters(gateway.client(), "hanging").await.is_empty());
}
