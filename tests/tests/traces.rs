//! One trace from a publish to its deliveries, as a real OpenTelemetry Collector receives it.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::time::Instant;

use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::collector::{Collector, Span};
use tidegate_tests::gateway::Options;
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription};

/// A client's own context.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn subscription<'a>(name: &'a str, topic: &'a [&'a str], sink: &'a str) -> String {
    let delivery = [PATIENT_RETRY];
    Subscription { name, topics: topic, filters: &[], sink, delivery: &delivery }.yaml()
}

fn exporting_to(endpoint: &str) -> Options {
    let variables = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_SERVICE_NAME", "gateway-under-test".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests".to_owned()),
    ];
    Options { variables, ..Options::default() }
}

async fn publish(client: &Client, topic: &str, id: &str, trace: &[(&str, &str)]) {
    let mut headers =
        vec![("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/shop"), ("ce-type", "order.placed")];
    headers.extend(trace);
    client.post(&format!("/topics/{topic}"), &headers, "x").await.expect("an answer").expect(202);
}

/// Spans of one export.
const BATCH: u64 = 512;

async fn failed_spans(client: &Client) -> u64 {
    let answer = client.get("/metrics").await.expect("an answer").expect(200);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_spans_total{outcome=\"failed\"} "));
    line.map_or(0, |number| number.parse().expect("a counter is a number"))
}

fn header(delivery: &Delivery, name: &str) -> String {
    delivery.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn named<'a>(spans: &'a [Span], name: &str, id: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name && span.attribute("messaging.message.id") == id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_and_its_deliveries_are_one_trace_over_topics_retries_and_restarts() {
    let Some(collector) = Collector::start().await else { return };
    let home = Home::new();
    // The first attempt fails; the second topic is reached by a forward.
    let sink = Sink::start(|delivery| Reply::Status(if delivery.attempt < Some(2) { 503 } else { 204 })).await;
    home.write_resource("hook.yaml", &subscription("hook", &["orders"], &sink.url()));
    home.write_resource("forward.yaml", &subscription("forward", &["orders"], "topic://archive"));
    let options = exporting_to(&collector.endpoint);
    let gateway = home.start_with(options.clone()).await.unwrap_or_else(|refused| panic!("{refused}"));

    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    publish(gateway.client(), "orders", "a", &[("traceparent", &traceparent), ("tracestate", "shop=1")]).await;
    let deliveries = sink.wait_until("two attempts", |deliveries| deliveries.len() >= 2).await;
    let spans = collector
        .wait_for_spans("all spans of the event", |spans| {
            named(spans, "deliver orders", "a").len() >= 3 && !named(spans, "publish archive", "a").is_empty()
        })
        .await;

    for span in &spans {
        assert_eq!(span.trace_id, TRACE, "{span:?}");
        assert_eq!(span.resource_attribute("service.name"), "gateway-under-test");
        assert_eq!(span.resource_attribute("deployment.environment.name"), "tests");
        assert_eq!(span.attribute("messaging.system"), "tidegate");
    }
    let publish_span = named(&spans, "publish orders", "a")[0];
    assert_eq!((publish_span.parent_id.as_str(), publish_span.kind()), (PARENT, 4), "{publish_span:?}");
    assert_eq!(publish_span.attribute("messaging.destination.name"), "orders");
    assert_eq!(publish_span.attribute("messaging.operation.name"), "publish");
    assert_eq!(publish_span.attribute("cloudevents.event_source"), "/shop");
    let route = named(&spans, "route orders", "a")[0];
    assert_eq!(route.parent_id, publish_span.span_id);
    assert_eq!(route.attribute("tidegate.subscriptions.matched"), "2");

    let hooks: Vec<&Span> = named(&spans, "deliver orders", "a")
        .into_iter()
        .filter(|span| span.attribute("messaging.destination.subscription.name") == "hook")
        .collect();
    let of_attempt = |number: &str| {
        let found = hooks.iter().find(|span| span.attribute("tidegate.delivery.attempt") == number);
        *found.unwrap_or_else(|| panic!("no attempt {number} among {hooks:#?}"))
    };
    let (first, second) = (of_attempt("1"), of_attempt("2"));
    for (span, delivery) in [(first, &deliveries[0]), (second, &deliveries[1])] {
        assert_eq!(span.parent_id, publish_span.span_id);
        assert_eq!(header(delivery, "traceparent"), span.traceparent(), "the sink continues the delivery");
        assert_eq!(header(delivery, "tracestate"), "shop=1");
        assert_eq!(header(delivery, "ce-traceparent"), publish_span.traceparent(), "the event keeps where it began");
        assert_eq!((span.kind(), span.attribute("http.request.method").as_str()), (3, "POST"));
        assert_eq!(span.attribute("url.full"), sink.url());
    }
    assert_eq!((first.status(), first.attribute("error.type").as_str()), (2, "503"));
    assert_eq!(first.attribute("http.response.status_code"), "503");
    assert!(first.links().is_empty());
    assert_eq!((second.status(), second.attribute("http.response.status_code").as_str()), (0, "204"));
    assert_eq!(second.links(), [(TRACE.to_owned(), first.span_id.clone())], "a redelivery links to the first attempt");

    let forward = named(&spans, "deliver orders", "a")
        .into_iter()
        .find(|span| span.attribute("messaging.destination.subscription.name") == "forward")
        .expect("the forward is a delivery");
    assert_eq!(named(&spans, "publish archive", "a")[0].parent_id, forward.span_id);

    // A delivery of another process, later: the event carries what it takes. What waits is exported before the end.
    sink.answer(|_| Reply::Status(503));
    publish(gateway.client(), "orders", "b", &[]).await;
    sink.wait_until("an attempt on b", |deliveries| deliveries.iter().any(|delivery| delivery.id == "b")).await;
    assert!(gateway.terminate().await.success());
    let before = collector.spans();
    let began = named(&before, "publish orders", "b")[0].clone();
    assert_eq!(began.parent_id, "");
    let attempts = named(&before, "deliver orders", "b");
    let first = attempts.iter().find(|span| {
        let subscription = span.attribute("messaging.destination.subscription.name");
        subscription == "hook" && span.attribute("tidegate.delivery.attempt") == "1"
    });
    let first = first.expect("the spans of a process that ends are exported").span_id.clone();
    sink.answer(|_| Reply::Status(204));
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    let spans = collector
        .wait_for_spans("the delivery after the restart", |spans| {
            let attempts = named(spans, "deliver orders", "b");
            attempts.iter().any(|span| span.attribute("http.response.status_code") == "204")
        })
        .await;
    let done = named(&spans, "deliver orders", "b")
        .into_iter()
        .find(|span| span.attribute("http.response.status_code") == "204")
        .expect("waited for");
    assert_eq!((&done.trace_id, &done.parent_id), (&began.trace_id, &began.span_id));
    assert_eq!(done.links(), [(began.trace_id.clone(), first)], "the link holds over a restart");
    drop(gateway);
}

/// Without a collector, and with one that hangs: nothing is slower or lost, and one line says what is wrong. The control
/// is the same gateway without traces, which says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_disturbs_nobody() {
    const EVENTS: usize = 500;
    let mut away = Sink::accepting().await;
    let nobody = away.url();
    away.refuse().await;
    let hangs = Sink::start(|_| Reply::Hang).await;
    for (endpoint, told) in [(Some(nobody), true), (Some(hangs.url()), true), (None, false)] {
        let home = Home::new();
        let sink = Sink::accepting().await;
        home.write_resource("hook.yaml", &subscription("hook", &["orders"], &sink.url()));
        let options = endpoint.as_deref().map_or_else(Options::default, exporting_to);
        let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
        let ids: Vec<String> = (0..EVENTS).map(|number| number.to_string()).collect();
        for id in &ids {
            let event = Outgoing { id, ..Outgoing::default() };
            gateway.client().publish("orders", &event).await.expect("an answer").expect(202);
        }
        sink.wait_for_ids(&ids).await;
        assert_eq!(sink.deliveries().iter().all(|delivery| delivery.headers.contains_key("traceparent")), told);
        let until = Instant::now() + tidegate_tests::PATIENCE;
        // So many that more than one export has failed, and the line stays one.
        while told && failed_spans(gateway.client()).await <= BATCH && Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let lines = gateway.stderr().lines().filter(|line| line.contains("spans could not be exported")).count();
        assert_eq!(lines, usize::from(told), "{endpoint:?}\n{}", gateway.stderr());
        assert_eq!(failed_spans(gateway.client()).await > BATCH, told);
        assert!(gateway.terminate().await.success(), "a collector that is away does not make an end unclean");
    }
}
