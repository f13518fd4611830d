//! Connections that break off, stall, or speak something that is not HTTP.

use std::time::Duration;

use tidegate_schemas::limits;
use tidegate_tests::home::Home;
use tidegate_tests::raw;

use super::check_that_it_serves;

const HEAD: &str = "POST /topics/t HTTP/1.1\r\nhost: 127.0.0.1\r\nce-specversion: 1.0\r\nce-id: half\r\n\
                    ce-source: /s\r\nce-type: t\r\ncontent-type: application/json\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_stores_nothing() {
    let home = Home::new();
    let gateway = home.start().await;
    check_that_it_serves(gateway.client(), "t", 0).await;
    let halves = [
        "POST /topics/t HT".to_owned(),
        HEAD.to_owned(),
        format!("{HEAD}content-length: 100\r\n\r\n{{\"a\":"),
        format!("{HEAD}transfer-encoding: chunked\r\n\r\n5\r\n{{\"a\":\r\n"),
        format!("{HEAD}transfer-encoding: chunked\r\n\r\n5\r\n{{}}"),
    ];
    for half in &halves {
        for _ in 0..20 {
            drop(raw::open(gateway.http(), half.as_bytes()).await);
        }
    }
    check_that_it_serves(gateway.client(), "t", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let home = Home::new();
    let gateway = home.start().await;
    check_that_it_serves(gateway.client(), "t", 0).await;
    let mut many_fields = "GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n".to_owned();
    for field in 0..=limits::REQUEST_HEADERS {
        many_fields.push_str(&format!("x-{field}: 1\r\n"));
    }
    let long_field = format!(
        "GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {}\r\n\r\n",
        "x".repeat(limits::REQUEST_HEADERS_BYTES + 1)
    );
    let cases = [
        ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned()),
        ("no number", format!("{HEAD}content-length: ten\r\n\r\n")),
        ("a sign", format!("{HEAD}content-length: +2\r\n\r\n{{}}")),
        ("two lengths", format!("{HEAD}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")),
        ("a chunk size that overflows", format!("{HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n")),
        ("an unknown coding", format!("{HEAD}transfer-encoding: xchunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("a space before the colon", format!("{HEAD}content-length : 2\r\n\r\n{{}}")),
        ("too many fields", format!("{many_fields}\r\n")),
        ("a header block too long", long_field),
    ];
    for (name, bytes) in &cases {
        let answer = raw::read_to_close(raw::open(gateway.http(), bytes.as_bytes()).await).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
        assert!(refused, "{name}: {answer}");
        assert!(answer.matches("HTTP/1.").count() <= 1, "{name}: two answers to one request: {answer}");
    }
    check_that_it_serves(gateway.client(), "t", 1).await;
}

/// Checks that a connection which sends one byte a second is closed once its limit is up, and not before.
async fn check_trickle(name: &str, head: &str, limit: Duration) {
    let home = Home::new();
    let gateway = home.start().await;
    check_that_it_serves(gateway.client(), "t", 0).await;
    let slow: Vec<_> = {
        let mut slow = Vec::new();
        for _ in 0..20 {
            let stream = raw::open(gateway.http(), head.as_bytes()).await;
            slow.push(tokio::spawn(raw::trickle(stream, Duration::from_secs(1))));
        }
        slow
    };
    // While they dawdle, others are served.
    check_that_it_serves(gateway.client(), "t", 1).await;
    for connection in slow {
        let (answer, took) = connection.await.expect("the connection is closed");
        assert!(took + Duration::from_secs(2) > limit, "{name}: cut off after {took:?}, before {limit:?}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{name}: {answer}");
    }
    check_that_it_serves(gateway.client(), "t", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_header_is_cut_off() {
    check_trickle("header", "GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ", limits::HEADER_TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_is_cut_off() {
    check_trickle("body", &format!("{HEAD}content-length: 100000\r\n\r\n"), limits::BODY_GRACE).await;
}
