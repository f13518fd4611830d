//! What `bench` measures, against servers that answer at once, refuse, or stall.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidegate_backbone::Environment;
use tokio::net::TcpListener;

use super::{Answer, Server, invoke, problem};

fn receipt() -> Answer {
    Answer::json(202, "{}")
}

#[tokio::test]
async fn a_run_publishes_as_many_events_as_it_was_asked_for_and_one_before() {
    let server = Server::new((0..8).map(|_| receipt())).await;
    let arguments =
        ["bench", "load", "--events", "7", "--concurrency", "3", "--size", "20", "--no-follow", "-o", "json"];
    let outcome = invoke(&server.url, &arguments).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let report: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&report["published"], &report["failed"], &report["loop"]), (&7.into(), &0.into(), &"closed".into()));
    assert_eq!(report["publishMicroseconds"]["count"], 7);
    let requests = server.requests();
    assert_eq!(requests.len(), 8);
    assert!(requests.iter().all(|request| request.line == "POST /topics/load" && request.body.len() == 20));
    let ids: std::collections::HashSet<_> = requests.iter().map(|request| request.headers["ce-id"].clone()).collect();
    assert_eq!(ids.len(), 8);
}

#[tokio::test]
async fn failures_are_counted_and_the_first_is_told() {
    let refusal = || problem(507, "storage-full", "The disk is full.", "No space is left.");
    let server = Server::new([receipt(), receipt(), refusal(), refusal()]).await;
    let outcome = invoke(&server.url, &["bench", "--events", "3", "--concurrency", "1", "--no-follow"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.out.contains("1 events") && outcome.out.contains("2 failed"), "{outcome:?}");
    assert!(outcome.err.contains("2 of 3 publishes failed") && outcome.err.contains("disk is full"), "{outcome:?}");
    // What is wrong with every event is told before the load begins.
    let server = Server::new([problem(404, "topic-not-found", "There is no such topic.", "bench")]).await;
    let outcome = invoke(&server.url, &["bench"]).await;
    assert_eq!((outcome.code, outcome.out.as_str(), server.requests().len()), (1, "", 1), "{outcome:?}");
}

/// A server that answers at once, but for one request that it keeps for a while, with all that come behind it.
async fn stalling(environment: &Environment, stall: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (spawner, count) = (environment.clone(), Arc::new(AtomicU64::new(0)));
    environment.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            let service = service_fn(move |_| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    if number == 5 {
                        tokio::time::sleep(stall).await;
                    }
                    let mut response = http::Response::new(Full::new(Bytes::from_static(b"{}")));
                    *response.status_mut() = http::StatusCode::ACCEPTED;
                    Ok::<_, Infallible>(response)
                }
            });
            spawner.spawn(async move {
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    url
}

/// A stall of the server holds back what was due meanwhile. The open loop counts that, and the closed one, which is the
/// control, cannot see it.
#[tokio::test]
async fn an_open_loop_counts_what_a_stall_held_back() {
    let environment = Environment::system();
    let median = async |rate: &[&str]| {
        let url = stalling(&environment, Duration::from_millis(600)).await;
        let mut arguments = vec!["bench", "--events", "60", "--concurrency", "1", "--no-follow", "-o", "json"];
        arguments.extend(rate);
        let outcome = invoke(&url, &arguments).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let report: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
        assert!(report["publishMicroseconds"]["max"].as_u64().unwrap() >= 590_000, "{report}");
        report["publishMicroseconds"]["p50"].as_u64().unwrap()
    };
    let (open, closed) = (median(&["--rate", "100"]).await, median(&[]).await);
    assert!(open >= 100_000, "half of the events were due during the stall: {open} us");
    assert!(closed < open, "{closed} us, {open} us");
    environment.stopping().cancel();
}
