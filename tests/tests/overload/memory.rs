//! What is refused when memory or the log is used up: at once, with the time to come again, and nothing is lost.

use std::time::{Duration, Instant};

use tidegate_tests::client::Client;
use tidegate_tests::home::Home;
use tidegate_tests::raw;
use tokio::io::AsyncWriteExt;

use super::{Good, comes_to, figure, memory_mebibytes, start};

fn head(length: usize) -> String {
    format!(
        "POST /topics/bodies HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Large bodies that never end hold the share of bodies; a further one is refused before it is sent, small ones go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_budget_are_refused_before_they_are_sent() {
    const BODY: usize = 900 * 1024;
    let home = Home::new();
    let gateway = start(&home, "{memory: 64MiB, bodyTimeout: 1h}").await;
    let good = Good::begin(&gateway);
    let mut held = Vec::new();
    // 20 MiB is the share of bodies.
    for _ in 0..21 {
        let mut stream = raw::open(gateway.http(), head(BODY).as_bytes()).await;
        stream.write_all(&vec![b'x'; BODY - 1]).await.expect("there is memory for it");
        held.push(stream);
    }
    assert!(comes_to(&gateway, "tidegate_memory_bytes", Duration::from_secs(30), |bytes| bytes > 18e6).await);
    let mut refusals = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        let stream = raw::open(gateway.http(), head(4 * 1024 * 1024).as_bytes()).await;
        refusals.push(raw::read_to_close(stream).await);
        slowest = slowest.max(began.elapsed());
    }
    println!("the slowest of {} refusals took {:.1} ms", refusals.len(), slowest.as_secs_f64() * 1e3);
    for refusal in &refusals {
        assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("retry-after: 1\r\n"), "{refusal}");
        assert!(refusal.contains("\"code\":\"overloaded\""), "{refusal}");
    }
    assert!(figure(&gateway, "tidegate_memory_refused_total").await >= 50.0);
    drop(held);
    assert!(comes_to(&gateway, "tidegate_memory_bytes", Duration::from_secs(30), |bytes| bytes < 8e6).await);
    let large = format!("\"{}\"", "x".repeat(800 * 1024));
    let event = tidegate_tests::client::Outgoing { data: &large, ..Default::default() };
    gateway.client().publish("bodies", &event).await.expect("the gateway answers").expect(202);
    good.end(&gateway).await;
    let peak = memory_mebibytes(&gateway, "VmHWM");
    assert!(peak < 128, "{peak} MiB with a budget of 64");
    assert!(gateway.terminate().await.success());
}

/// Batches beyond what may be on its way are refused with the time to come again, and what has a receipt is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishes_beyond_what_may_be_on_its_way_are_refused() {
    const CLIENTS: usize = 24;
    const ROUNDS: usize = 20;
    const BATCH: usize = 50;
    let home = Home::new();
    let gateway = start(&home, "{publishesInFlight: 60}").await;
    let publishing = (0..CLIENTS).map(|number| {
        let client = Client::new(gateway.http());
        tokio::spawn(async move {
            let (mut accepted, mut refused) = (Vec::new(), 0);
            for round in 0..ROUNDS {
                let ids: Vec<String> = (0..BATCH).map(|at| format!("{number}-{round}-{at}")).collect();
                let events: Vec<String> = ids
                    .iter()
                    .map(|id| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#))
                    .collect();
                let body = format!("[{}]", events.join(","));
                let headers = [("content-type", "application/cloudevents-batch+json")];
                let answer = client.post("/topics/many", &headers, body).await.expect("the gateway answers");
                if answer.status == 202 {
                    accepted.extend(ids);
                } else {
                    assert_eq!(answer.expect_problem(&[503]), "overloaded");
                    assert!(answer.headers.contains_key("retry-after"), "{answer}");
                    refused += 1;
                }
            }
            (accepted, refused)
        })
    });
    let publishing: Vec<_> = publishing.collect();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for client in publishing {
        let (ids, count) = client.await.expect("the answers are right");
        accepted.extend(ids);
        refused += count;
    }
    println!("{} events accepted, {refused} batches refused", accepted.len());
    assert!(refused > 0, "nothing was ever refused: the test does not bite");
    assert!(!accepted.is_empty(), "nothing was ever accepted");
    assert!(figure(&gateway, "tidegate_publishes_refused_total").await >= f64::from(refused));
    assert_eq!(figure(&gateway, "tidegate_publishes_in_flight").await, 0.0);
    let read = tidegate_tests::checker::read_topic(gateway.client(), "many").await;
    assert_eq!(read.len(), accepted.len(), "what was refused was stored, or what was accepted was not");
    assert!(gateway.terminate().await.success());
}
