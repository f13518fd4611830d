//! A passport tells what a sink saw, attempt by attempt, and why an event did not arrive; from outside.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::PATIENCE;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::{PATIENT_RETRY, QUICK_RETRY, Subscription, redrive_all};

fn subscription<'a>(name: &'a str, sink: &'a str, delivery: &'a [&'a str]) -> Subscription<'a> {
    Subscription { name, topics: &["t"], filters: &[], sink, delivery }
}

async fn publish(client: &Client, topic: &str, id: &str, key: Option<&str>) {
    let event = Outgoing { id, key, ..Outgoing::default() };
    client.publish(topic, &event).await.expect("the gateway answers").expect(202);
}

/// The passports of an id.
async fn passports(client: &Client, id: &str) -> Vec<Value> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = client.get(&format!("/passports?id={id}")).await.expect("the gateway answers");
        // An event is found once it was read for its subscriptions, which is shortly after its receipt.
        if answer.status == 404 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        return answer.expect(200).json().as_array().expect("passports are an array").clone();
    }
}

/// What became of an event of one subscription, at the first place of its only passport.
async fn fate(client: &Client, id: &str, subscription: &str) -> Value {
    let passports = passports(client, id).await;
    fate_in(&passports[0]["places"][0], subscription)
}

fn fate_in(place: &Value, subscription: &str) -> Value {
    let fates = place["subscriptions"].as_array().expect("a place lists subscriptions");
    let found = fates.iter().find(|fate| fate["subscription"] == subscription);
    found.unwrap_or_else(|| panic!("{subscription} is not in {place:#}")).clone()
}

/// Asks until what became of an event is as it is waited for.
async fn wait_for(client: &Client, id: &str, subscription: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let fate = fate(client, id, subscription).await;
        if holds(&fate) {
            return fate;
        }
        assert!(tokio::time::Instant::now() < deadline, "{id} with {subscription}, in the end: {fate:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same for its state alone.
async fn wait_for_state(client: &Client, id: &str, subscription: &str, state: &str) -> Value {
    wait_for(client, id, subscription, |fate| fate["state"] == state).await
}

/// Waits until a file's subscription is in force.
async fn wait_for_subscription(client: &Client, name: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while client.get(&format!("/subscriptions/{name}")).await.expect("an answer").status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the file of {name} is not taken up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An attempt as both sides know it: its number, and the status that the sink answered, none where it closed the connection.
type Seen = (u32, Option<u16>);

/// What the sink does with an attempt, by the event and the attempt alone. No event fails so often that it is given up.
fn script(id: &str, attempt: u32) -> Reply {
    let number: u32 = id.rsplit('-').next().and_then(|number| number.parse().ok()).expect("an id ends with a number");
    match (number * 7 + attempt * 13) % 11 {
        _ if attempt > 6 => Reply::Status(204),
        0 => Reply::Status(503),
        1 => Reply::Status(429),
        2 => Reply::Close,
        3 => Reply::Status(500),
        4 => Reply::Status(400),
        5 | 6 => Reply::Late(503, Duration::from_millis(30)),
        7 => Reply::Status(200),
        _ => Reply::Status(204),
    }
}

fn status(reply: &Reply) -> Option<u16> {
    match reply {
        Reply::Status(status) | Reply::Late(status, _) | Reply::Body(status, _, _) | Reply::Fields(status, _, _) => {
            Some(*status)
        }
        Reply::Endless => Some(200),
        Reply::Hang | Reply::Close | Reply::Drip => None,
    }
}

/// The sink's own log, by event.
fn log_of(deliveries: &[Delivery]) -> BTreeMap<String, Vec<Seen>> {
    let mut log: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for delivery in deliveries {
        let attempt = delivery.attempt.expect("a delivery says which attempt it is");
        log.entry(delivery.id.clone()).or_default().push((attempt, status(&script(&delivery.id, attempt))));
    }
    log
}

/// The attempts that a fate tells, those after a redrive behind the others, whose times must not go back.
fn attempts_of(fate: &Value) -> Vec<Seen> {
    let redrives = fate["deadLetters"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|letter| letter["redrives"].as_array().expect("a dead letter lists redrives").clone());
    let all: Vec<Value> =
        fate["attempts"].as_array().expect("attempts are listed").iter().cloned().chain(redrives).collect();
    let times: Vec<&str> = all.iter().map(|attempt| attempt["at"].as_str().expect("an attempt has its time")).collect();
    assert!(times.is_sorted(), "the attempts are not in the order of time: {all:#?}");
    let seen = |attempt: &Value| {
        let number = attempt["attempt"].as_u64().expect("an attempt has its number") as u32;
        (number, attempt["status"].as_u64().map(|status| status as u16))
    };
    all.iter().map(seen).collect()
}

/// Everything in which the two differ.
fn differences(told: &BTreeMap<String, Vec<Seen>>, log: &BTreeMap<String, Vec<Seen>>) -> Vec<String> {
    let ids = told.keys().chain(log.keys()).collect::<std::collections::BTreeSet<_>>();
    let differ = |id: &&&String| told.get(**id) != log.get(**id);
    ids.iter().filter(differ).map(|id| format!("{id}: told {:?}, logged {:?}", told.get(*id), log.get(*id))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passport_equals_the_log_of_the_sink_attempt_by_attempt() {
    let home = Home::new();
    let sink = Sink::start(|delivery| script(&delivery.id, delivery.attempt.unwrap_or_default())).await;
    home.write_resource("s.yaml", &subscription("scripted", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    let ids: Vec<String> = (0..60).map(|number| format!("e-{number}")).collect();
    for (id, key) in ids.iter().zip(0..) {
        publish(gateway.client(), "t", id, (key % 3 > 0).then(|| format!("k{}", key % 7)).as_deref()).await;
    }
    let mut told = BTreeMap::new();
    let (mut delivered, mut dead) = (0, 0);
    for id in &ids {
        let settled = |fate: &Value| fate["state"] == "delivered" || fate["state"] == "dead-lettered";
        let fate = wait_for(gateway.client(), id, "scripted", settled).await;
        *(if fate["state"] == "delivered" { &mut delivered } else { &mut dead }) += 1;
        told.insert(id.clone(), attempts_of(&fate));
    }
    let mut log = log_of(&sink.deliveries());
    assert!(delivered > 20 && dead > 3, "{delivered} delivered, {dead} dead: the script does not try enough");
    assert!(log.values().any(|attempts| attempts.len() > 3), "no event was tried often: {log:?}");
    assert_eq!(differences(&told, &log), Vec::<String>::new());

    // The control: whatever is taken out of the sink's log or changed in it is noticed.
    let whole = log.clone();
    let often = log.iter().find(|(_, attempts)| attempts.len() > 2).map(|(id, _)| id.clone()).expect("one of them");
    for spoil in [
        (|attempts| {
            attempts.remove(1);
        }) as fn(&mut Vec<Seen>),
        |attempts| attempts[0].1 = Some(418),
        |attempts| attempts.swap(0, 1),
        |attempts| attempts.push((9, None)),
    ] {
        spoil(log.get_mut(&often).expect("it is there"));
        assert_eq!(differences(&told, &log).len(), 1, "a spoiled log was not noticed");
        log = whole.clone();
    }

    // The same after an orderly end, which writes everything down, and a start from what is on the disk.
    gateway.terminate().await;
    let gateway = home.start().await;
    let mut told = BTreeMap::new();
    for id in &ids {
        told.insert(id.clone(), attempts_of(&fate(gateway.client(), id, "scripted").await));
    }
    assert_eq!(differences(&told, &log), Vec::<String>::new());

    // A redrive goes on where the dead letter stopped; what it attempts is told too.
    sink.answer(|_| Reply::Status(204));
    redrive_all(gateway.client(), "scripted").await;
    let rejected = ids.iter().find(|id| whole[*id].last().is_some_and(|(_, status)| *status == Some(400)));
    let rejected = rejected.expect("one was rejected");
    let fate = wait_for_state(gateway.client(), rejected, "scripted", "delivered").await;
    let letter = &fate["deadLetters"][0];
    assert_eq!((&letter["handled"], &letter["cause"]["reason"]), (&true.into(), &"rejected".into()), "{fate:#}");
    assert_eq!(attempts_of(&fate).last(), Some(&(1, Some(204))), "{fate:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passport_says_why_an_event_did_not_arrive() {
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id == "poison-1" { 503 } else { 204 })).await;
    let mut down = Sink::accepting().await;
    let long = "retry: {maxAttempts: 10, maxAge: 1h, initial: 10m, max: 10m}";
    home.write_resource("all.yaml", &subscription("all", &sink.url(), &["order: key", long]).yaml());
    home.write_resource("down.yaml", &subscription("down", &down.url(), &["order: key", QUICK_RETRY]).yaml());
    let url = sink.url();
    let picky = Subscription {
        filters: &[r#"sql: "type = 'com.example.other' AND EXISTS region""#],
        ..subscription("picky", &url, &["order: key"])
    };
    home.write_resource("picky.yaml", &picky.yaml());
    down.refuse().await;
    let gateway = home.start().await;
    let client = gateway.client();

    // Nobody reads the topic; the event is found all the same.
    publish(client, "unread", "lonely", None).await;
    let lonely = passports(client, "lonely").await;
    let place = &lonely[0]["places"][0];
    assert_eq!((&place["topic"], &place["offset"]), (&"unread".into(), &0.into()), "{place:#}");
    assert_eq!(place["subscriptions"], Value::Array(Vec::new()), "{place:#}");
    assert!(place["event"].get("data").is_none(), "data is shown only where it is asked for: {place:#}");
    let whole = client.get("/passports?id=lonely&data=true").await.expect("an answer").expect(200).json();
    assert!(whole[0]["places"][0]["event"].get("data").is_some(), "{whole:#}");

    // A filter, by the predicate that does not hold.
    publish(client, "t", "plain-1", None).await;
    let fate = wait_for_state(client, "plain-1", "all", "delivered").await;
    assert_eq!(fate["attempts"].as_array().map(Vec::len), Some(1), "{fate:#}");
    let fate = self::fate(client, "plain-1", "picky").await;
    assert_eq!((&fate["state"], &fate["matched"]), (&"filtered".into(), &false.into()), "{fate:#}");
    let failed = &fate["explanation"]["failed"][0];
    assert_eq!(failed["path"], "filters[0].sql", "{fate:#}");
    assert!(failed["predicate"].as_str().is_some_and(|text| text.contains("com.example.other")), "{fate:#}");

    // A sink that cannot be reached.
    let held = wait_for(client, "plain-1", "down", |fate| {
        fate["hold"]["standing"] == "unreachable" && fate["attempts"][0]["ending"] == "unreachable"
    });
    let held = held.await;
    assert_eq!(held["attempts"][0]["status"], Value::Null, "{held:#}");

    let no_attempts = Value::Array(Vec::new());
    // A key whose first event waits for its next attempt, and the one behind it.
    publish(client, "t", "poison-1", Some("k")).await;
    // The attempt is told once it was written down, which is a moment after it ended.
    let first =
        wait_for(client, "poison-1", "all", |fate| fate["state"] == "waiting" && fate["attempts"] != no_attempts);
    let first = first.await;
    assert_eq!((&first["attempt"], &first["attempts"][0]["status"]), (&2.into(), &503.into()), "{first:#}");
    publish(client, "t", "poison-2", Some("k")).await;
    let second = wait_for_state(client, "poison-2", "all", "key-waits").await;
    let head = &passports(client, "poison-1").await[0]["places"][0]["offset"];
    assert_eq!((&second["offset"], &second["due"]), (head, &first["due"]), "{second:#}");

    // A duplicate is dropped, and says of which.
    publish(client, "t", "plain-1", None).await;
    publish(client, "t", "plain-3", None).await;
    wait_for_state(client, "plain-3", "all", "delivered").await;
    let twice = &passports(client, "plain-1").await[0]["places"];
    assert_eq!(twice[1]["duplicate"]["of"], twice[0]["offset"], "{twice:#}");
    assert_eq!(twice[0].get("duplicate"), None, "{twice:#}");
    assert_eq!(fate_in(&twice[1], "all")["state"], "duplicate", "{twice:#}");

    // An answer that pauses the subscription: the attempt is told, though it does not count.
    let gone = Sink::start(|_| Reply::Status(410)).await;
    home.write_resource("gone.yaml", &subscription("gone", &gone.url(), &["order: key", "maxInFlight: 1"]).yaml());
    wait_for_subscription(client, "gone").await;
    let received = || gone.deliveries().iter().filter(|delivery| delivery.id == "plain-1").count();
    let paused = wait_for(client, "plain-1", "gone", |fate| {
        let attempts = fate["attempts"].as_array().expect("attempts are listed");
        fate["hold"]["standing"] == "paused" && attempts.len() == received()
    });
    let paused = paused.await;
    assert_eq!(
        (&paused["attempts"][0]["ending"], &paused["attempts"][0]["status"]),
        (&"paused".into(), &410.into()),
        "{paused:#}"
    );
    assert_eq!(gone.deliveries().len(), 1, "something went out between the answer and the pause");

    // A subscription that was paused, and one that came later than the event.
    client
        .post("/subscriptions/all/pause", &[("content-type", "application/json")], r#"{"reason":"a holiday"}"#)
        .await
        .expect("an answer")
        .expect(200);
    publish(client, "t", "late-4", None).await;
    let paused = self::fate(client, "late-4", "all").await;
    assert_eq!(paused["hold"]["reason"], "a holiday", "{paused:#}");
    let later = subscription("later", &sink.url(), &["order: key"]).yaml().replace("from: earliest", "from: latest");
    home.write_resource("later.yaml", &later);
    wait_for_subscription(client, "later").await;
    let early = self::fate(client, "late-4", "later").await;
    assert_eq!(early["state"], "not-yet-subscribed", "{early:#}");
    publish(client, "t", "later-5", None).await;
    wait_for_state(client, "later-5", "later", "delivered").await;

    // A kill takes no event out of the passports, and nothing that is not settled changes its state for good.
    gateway.kill().await;
    let gateway = home.start().await;
    let client = gateway.client();
    assert_eq!(passports(client, "lonely").await[0]["places"][0]["topic"], "unread");
    wait_for_state(client, "poison-1", "all", "waiting").await;
    assert_eq!(self::fate(client, "late-4", "later").await["state"], "not-yet-subscribed");
    assert_eq!(self::fate(client, "late-4", "all").await["hold"]["reason"], "a holiday");
    let twice = &passports(client, "plain-1").await[0]["places"];
    assert_eq!(twice[1]["duplicate"]["of"], twice[0]["offset"], "{twice:#}");

    let unknown = client.get("/passports?id=nobody&source=/elsewhere").await.expect("an answer");
    let detail = unknown.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(unknown.expect_problem(&[404]), "event-not-found");
    assert!(detail.contains("nobody") && detail.contains("Every topic was searched back to"), "{detail}");
}
