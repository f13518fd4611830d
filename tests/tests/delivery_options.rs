//! What a subscription or an event may ask of delivery: keys that stop, events that come later or expire, replies, and
//! a sink that fails everything.
#![allow(clippy::disallowed_methods, reason = "a test beside the product, not inside it")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::PATIENCE;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::{PATIENT_RETRY, QUICK_RETRY, Subscription, dead_letter_id, wait_for_dead_letters};

fn subscription<'a>(name: &'a str, sink: &'a str, delivery: &'a [&'a str]) -> Subscription<'a> {
    Subscription { name, topics: &["t"], filters: &[], sink, delivery }
}

/// A subscription whose replies go to a topic.
fn replying(name: &str, sink: &str, reply_to: &str) -> String {
    let yaml = subscription(name, sink, &["order: key", PATIENT_RETRY]).yaml();
    yaml.replace("  delivery:\n", &format!("  replyTo: topic://{reply_to}\n  delivery:\n"))
}

async fn publish(client: &Client, ids: &[&str]) {
    for id in ids {
        let key = id.split_once('-').map(|(key, _)| key);
        client.publish("t", &Outgoing { id, key, ..Outgoing::default() }).await.expect("an answer").expect(202);
    }
}

async fn show(client: &Client, name: &str) -> Value {
    client.get(&format!("/subscriptions/{name}")).await.expect("an answer").expect(200).json()
}

async fn wait_for(client: &Client, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let shown = show(client, name).await;
        if holds(&shown["status"]) {
            return shown;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}: {shown:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(deliveries: &[Delivery], id: &str) -> usize {
    deliveries.iter().filter(|delivery| delivery.id == id).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_used_up_its_attempts_stops_over_a_kill_until_it_is_resumed() {
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id == "bad-0" { 500 } else { 204 })).await;
    let delivery = ["order: key", QUICK_RETRY, "onExhausted: pauseKey"];
    home.write_resource("s.yaml", &subscription("strict", &sink.url(), &delivery).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &["bad-0", "bad-1", "good-0"]).await;
    let shown = wait_for(gateway.client(), "strict", "a paused key", |status| status["pausedKeys"] == 1).await;
    let paused = &shown["status"]["paused"][0];
    assert_eq!((&paused["key"], &paused["id"], &paused["attempts"]), (&"bad".into(), &"bad-0".into(), &4.into()));
    assert_eq!(paused["at"]["topic"], "t", "{shown:#}");
    sink.wait_for_ids(&["good-0".to_owned()]).await;
    // What was written down survives; a checkpoint comes at least every quarter of a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.kill().await;

    let gateway = home.start().await;
    let client = gateway.client();
    publish(client, &["good-1"]).await;
    sink.wait_for_ids(&["good-1".to_owned()]).await;
    assert_eq!(show(client, "strict").await["status"]["pausedKeys"], 1);
    assert_eq!((count(&sink.deliveries(), "bad-0"), count(&sink.deliveries(), "bad-1")), (4, 0));
    let other = client.post("/subscriptions/strict/resume", &[], r#"{"key": "good"}"#).await.expect("an answer");
    assert_eq!(other.expect_problem(&[409]), "conflict");
    let unknown = client.post("/subscriptions/strict/resume", &[], r#"{"head": "burn"}"#).await.expect("an answer");
    assert_eq!(unknown.expect_problem(&[400]), "invalid-argument");
    sink.answer(|_| Reply::Status(204));
    client.post("/subscriptions/strict/resume", &[], r#"{"key": "bad"}"#).await.expect("an answer").expect(200);
    sink.wait_for_ids(&["bad-1".to_owned()]).await;
    let order: Vec<String> = sink.ids().into_iter().filter(|id| id.starts_with("bad")).collect();
    assert_eq!(order, ["bad-0", "bad-0", "bad-0", "bad-0", "bad-0", "bad-1"], "in order, with its attempts anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_key_goes_on_without_its_event_where_somebody_says_so() {
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id == "bad-2" { 204 } else { 500 })).await;
    let delivery = ["order: key", QUICK_RETRY, "onExhausted: pauseKey"];
    home.write_resource("s.yaml", &subscription("strict", &sink.url(), &delivery).yaml());
    let gateway = home.start().await;
    let client = gateway.client();
    publish(client, &["bad-0", "bad-1", "bad-2"]).await;
    for (id, head) in [("bad-0", "dead-letter"), ("bad-1", "drop")] {
        let stands = |status: &Value| status["paused"][0]["id"] == id;
        let shown = wait_for(client, "strict", "a paused key", stands).await;
        let body = json!({"at": shown["status"]["paused"][0]["at"], "head": head}).to_string();
        client.post("/subscriptions/strict/resume", &[], body).await.expect("an answer").expect(200);
    }
    sink.wait_for_ids(&["bad-2".to_owned()]).await;
    let letters = wait_for_dead_letters(client, "strict", 1).await;
    assert_eq!(dead_letter_id(&letters[0]), "bad-0");
    assert_eq!(letters[0]["cause"]["attempts"], 4, "{:#}", letters[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_event_is_durable_at_once_comes_at_its_time_and_holds_back_nothing() {
    const DELAY: Duration = Duration::from_secs(4);
    let (home, sink) = (Home::new(), Sink::accepting().await);
    home.write_resource("s.yaml", &subscription("s", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    let began = Instant::now();
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "later"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-partitionkey", "k"),
    ];
    gateway.client().post("/topics/t?delay=4s", &headers, "").await.expect("an answer").expect(202);
    publish(gateway.client(), &["k-0"]).await;
    sink.wait_for_ids(&["k-0".to_owned()]).await;
    let read = gateway.client().get("/topics/t/events").await.expect("an answer").expect(200).json();
    assert_eq!(read[0]["id"], "later", "it can be read back at once");
    assert!(read[0]["deliverat"].is_string(), "{read}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.kill().await;
    let gateway = home.start().await;
    assert_eq!(sink.ids(), ["k-0"]);
    sink.wait_for_ids(&["later".to_owned()]).await;
    assert!(began.elapsed() >= DELAY, "it came after {:?}", began.elapsed());
    assert_eq!(sink.deliveries()[1].attempt, Some(1));
    // In an attribute of the event, in a header, in the query, and never in two of them or too far ahead.
    let client = gateway.client();
    let past = [("ce-deliverat", "2020-01-01T00:00:00Z"), ("ce-id", "past")];
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
        let base = headers.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).copied();
        base.chain(more.iter().copied()).collect()
    };
    client.post("/topics/t", &with(&past), "").await.expect("an answer").expect(202);
    sink.wait_for_ids(&["past".to_owned()]).await;
    let refused = client.post("/topics/t", &with(&[("ce-deliverat", "soon")]), "").await.expect("an answer");
    assert_eq!(refused.expect_problem(&[400]), "invalid-event");
    assert_eq!(refused.json()["faults"][0]["attribute"], "deliverat", "{refused}");
    for (path, more) in [
        ("/topics/t?delay=1s&deliver-at=2030-01-01T00:00:00Z", &[][..]),
        ("/topics/t?delay=1s", &[("tidegate-delay", "1s")]),
        ("/topics/t?delay=soon", &[]),
        ("/topics/t?deliver-at=tomorrow", &[]),
    ] {
        let refused = client.post(path, &with(more), "").await.expect("an answer");
        assert_eq!(refused.expect_problem(&[400]), "invalid-argument", "{path}");
    }
    let refused = client.post("/topics/t?delay=31d", &headers, "").await.expect("an answer");
    assert_eq!(refused.expect_problem(&[400]), "invalid-event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_event_is_dead_lettered_and_not_delivered() {
    let (home, sink) = (Home::new(), Sink::accepting().await);
    home.write_resource("s.yaml", &subscription("s", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    for (id, time) in [("k-0", "2020-01-01T00:00:00Z"), ("k-1", "2999-01-01T00:00:00Z")] {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-partitionkey", "k"),
            ("ce-expirytime", time),
        ];
        gateway.client().post("/topics/t", &headers, "").await.expect("an answer").expect(202);
    }
    sink.wait_for_ids(&["k-1".to_owned()]).await;
    let letters = wait_for_dead_letters(gateway.client(), "s", 1).await;
    assert_eq!(dead_letter_id(&letters[0]), "k-0");
    assert_eq!((&letters[0]["cause"]["reason"], &letters[0]["cause"]["attempts"]), (&"expired".into(), &0.into()));
    assert_eq!(sink.ids(), ["k-1"]);
}

fn reply(id: Option<&str>) -> Reply {
    let mut fields = vec![
        ("content-type", "application/json".to_owned()),
        ("ce-specversion", "1.0".to_owned()),
        ("ce-source", "/responder".to_owned()),
        ("ce-type", "answered".to_owned()),
    ];
    fields.extend(id.map(|id| ("ce-id", id.to_owned())));
    Reply::Fields(200, fields, r#"{"total": 1.50}"#.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_published_and_an_invalid_one_fails_nothing() {
    let home = Home::new();
    let sink = Sink::start(|delivery| match delivery.id.as_str() {
        "k-0" => reply(Some("own")),
        "k-1" if delivery.attempt == Some(1) => Reply::Status(503),
        "k-1" => reply(None),
        "k-2" => {
            Reply::Fields(202, vec![("ce-specversion", "1.0".to_owned()), ("ce-id", "x".to_owned())], "{}".to_owned())
        }
        "k-3" => {
            Reply::Fields(200, vec![("ce-specversion", "1.0".to_owned()), ("ce-id", "x".to_owned())], "{}".to_owned())
        }
        _ => Reply::Status(204),
    })
    .await;
    let replies = Sink::accepting().await;
    home.write_resource("s.yaml", &replying("asked", &sink.url(), "answers"));
    let answers = Subscription { topics: &["answers"], ..subscription("answers", "SINK", &["order: key"]) };
    home.write_resource("r.yaml", &Subscription { sink: &replies.url(), ..answers }.yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &["k-0", "k-1", "k-2", "k-3", "k-4"]).await;
    let asked = sink.wait_for_ids(&["k-4".to_owned()]).await;
    assert!(asked.iter().all(|delivery| delivery.headers.get("prefer").is_some_and(|value| value == "reply")));
    assert_eq!(asked.len(), 6, "neither what is no reply nor an invalid one is tried again");
    let deliveries = replies.wait_until("two replies", |deliveries| deliveries.len() >= 2).await;
    let header = |delivery: &Delivery, name: &str| {
        delivery.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let mut told: Vec<_> = deliveries.iter().map(|delivery| header(delivery, "ce-causationid")).collect();
    told.sort();
    assert_eq!(told, [Some("k-0".to_owned()), Some("k-1".to_owned())]);
    assert!(deliveries.iter().all(|delivery| delivery.body == r#"{"total": 1.50}"#));
    assert!(deliveries.iter().all(|delivery| header(delivery, "ce-tidegatehops").as_deref() == Some("1")));
    let webhook_id =
        asked.iter().find(|delivery| delivery.id == "k-1").and_then(|delivery| delivery.webhook_id.clone());
    assert!(deliveries.iter().any(|delivery| delivery.id == "own"));
    assert!(deliveries.iter().any(|delivery| Some(&delivery.id) == webhook_id.as_ref()), "an id is made where none is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_a_topic_is_answered_or_told_why_not() {
    let home = Home::new();
    let sink = Sink::start(|delivery| if delivery.id == "slow" { Reply::Hang } else { reply(Some("own")) }).await;
    home.write_resource(
        "s.yaml",
        &subscription("s", &sink.url(), &["order: key", "timeout: 2s", PATIENT_RETRY]).yaml(),
    );
    let gateway = home.start().await;
    let client = gateway.client();
    let ask = async |topic: &str, id: &str, reply: &str| {
        let headers = [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/asks"), ("ce-type", "t")];
        client.post(&format!("/topics/{topic}?reply={reply}"), &headers, "").await.expect("an answer")
    };
    let answer = ask("t", "quick", "30s").await.expect(200);
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!((header("ce-id"), header("ce-causationid")), (Some("own"), Some("quick")));
    assert_eq!(answer.body, r#"{"total": 1.50}"#);

    let late = ask("t", "slow", "300ms").await;
    assert_eq!(late.expect_problem(&[504]), "deadline-exceeded");
    assert_eq!(late.json()["receipts"][0]["id"], "slow", "{late}");

    client.publish("lonely", &Outgoing::default()).await.expect("an answer").expect(202);
    let began = Instant::now();
    let nobody = ask("lonely", "x", "30s").await;
    assert_eq!(nobody.expect_problem(&[503]), "no-responder");
    assert!(began.elapsed() < Duration::from_secs(10), "it is told at once");
    let read = client.get("/topics/lonely/events").await.expect("an answer").expect(200).json();
    assert_eq!(read.as_array().map(Vec::len), Some(1), "nothing was published");
    client.post("/subscriptions/s/pause", &[], "").await.expect("an answer").expect(200);
    assert_eq!(ask("t", "paused", "30s").await.expect_problem(&[503]), "no-responder");
    for bad in ["0s", "61s", "soon"] {
        assert_eq!(ask("t", "x", bad).await.expect_problem(&[400]), "invalid-argument", "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_fails_everything_is_probed_and_uses_up_no_event() {
    const EVENTS: usize = 40;
    let home = Home::new();
    let sink = Sink::start(|_| Reply::Status(500)).await;
    // Four quick attempts would be used up at once.
    home.write_resource(
        "s.yaml",
        &subscription("s", &sink.url(), &["order: key", QUICK_RETRY, "maxInFlight: 4"]).yaml(),
    );
    let gateway = home.start().await;
    let client = gateway.client();
    let ids: Vec<String> = (0..EVENTS).map(|n| format!("k{n}-0")).collect();
    // All of them at once: of a single key that comes first the sink has not failed everything, and its event is used up.
    client.post("/subscriptions/s/pause", &[], "").await.expect("an answer").expect(200);
    publish(client, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    wait_for(client, "s", "that all are there", |status| status["behind"] == EVENTS).await;
    client.post("/subscriptions/s/resume", &[], "").await.expect("an answer").expect(200);
    let shown = wait_for(client, "s", "an open breaker", |status| status["standing"] == "breaker-open").await;
    assert!(shown["status"]["since"].is_string() && shown["status"]["nextProbe"].is_string(), "{shown:#}");
    let tried = sink.deliveries().len();
    sink.wait_until("two probes", |deliveries| deliveries.len() >= tried + 2).await;
    sink.answer(|_| Reply::Status(204));
    sink.wait_for_ids(&ids).await;
    wait_for(client, "s", "that all is well", |status| status["standing"] == "active").await;
    let letters = wait_for_dead_letters(client, "s", 0).await;
    assert!(letters.is_empty(), "{letters:#?}");
}
