//! `/subscriptions/{id}/dead-letters`: grouped, chosen, edited, redriven.

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Gateway, Sink};
use crate::sink::AddressPolicy;

const LETTERS: &str = "/subscriptions/s/dead-letters";
const REDRIVE: &str = "/subscriptions/s/dead-letters/redrive";

fn ids(answer: &Answer) -> Vec<String> {
    let letters = answer.body["deadLetters"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn dead_letters_are_grouped_edited_and_redriven() {
    // Refuses what is not mended: the first two with 400, the third with 422.
    let sink = Sink::answering(|request| match request {
        request if request.contains("ce-subject: mended") => 204,
        request if request.contains("ce-id: 3") => 422,
        _ => 400,
    })
    .await;
    let gateway = Gateway::start_with(tempfile::tempdir().unwrap(), AddressPolicy::PublicOrLoopback).await;
    let sink_url = format!("http://127.0.0.1:{}/", sink.port);
    let subscription =
        json!({"id": "s", "sink": sink_url, "config": {"topics": ["orders"], "delivery": {"from": "earliest"}}});
    assert_eq!(gateway.send(Method::POST, "/subscriptions", subscription.to_string()).await.status, 201);
    for id in ["1", "2", "3"] {
        gateway.publish("orders", id).await;
    }
    let all = gateway.until(LETTERS, "three letters", |answer| ids(answer).len() == 3).await;
    let of_event = |id: &str| {
        let letters = all.body["deadLetters"].as_array().unwrap();
        letters.iter().find(|letter| letter["event"]["id"] == id).unwrap()["id"].as_str().unwrap().to_owned()
    };

    let groups = gateway.send(Method::GET, &format!("{LETTERS}?group=cause"), "").await;
    let told: Vec<(&str, u64)> = groups.body["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["cause"].as_str().unwrap(), group["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("rejected-400", 2), ("rejected-422", 1)]);
    assert_eq!(groups.body["groups"][1]["example"], of_event("3"));
    for (query, count) in [
        ("cause=rejected-422", 1),
        ("reason=rejected", 3),
        ("reason=exhausted", 0),
        ("status=400", 2),
        ("since=2020-01-01T00:00:00Z&status=422", 1),
        ("since=2999-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(ids(&gateway.send(Method::GET, &format!("{LETTERS}?{query}"), "").await).len(), count, "{query}");
    }
    let page = gateway.send(Method::GET, &format!("{LETTERS}?limit=1&status=400"), "").await;
    let link = page.headers["link"].to_str().unwrap().to_owned();
    let next = link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap().0;
    let second = gateway.send(Method::GET, next, "").await;
    assert_eq!((ids(&second).len(), second.headers.get("link")), (1, None));
    for query in ["cause=none", "reason=x", "status=x", "since=x", "group=x", "group=cause&limit=1"] {
        assert_eq!(gateway.send(Method::GET, &format!("{LETTERS}?{query}"), "").await.status, 400, "{query}");
    }

    let redrive = |body: Value| {
        let gateway = &gateway;
        async move { gateway.send(Method::POST, REDRIVE, body.to_string()).await }
    };
    let dry = redrive(json!({"filter": {"status": 400}, "dryRun": true})).await;
    assert_eq!((dry.body["redriven"].as_u64(), dry.body["ids"].as_array().unwrap().len()), (Some(2), 2), "{dry:?}");
    assert_eq!(ids(&gateway.send(Method::GET, LETTERS, "").await).len(), 3, "a dry run changed something");
    let one = of_event("1");
    for body in [
        json!({"ratePerSecond": 0}),
        json!({"ratePerSecond": 1e9}),
        json!({"edits": {"9-9": {"subject": "mended"}}}),
        json!({"ids": ["0-0"], "edits": {"9-9": {}}}),
        json!({"edits": {&*one: {"id": "x"}}}),
        json!({"edits": {&*one: {"Not-Valid": 1}}}),
        json!({"unknown": 1}),
    ] {
        assert_eq!(redrive(body.clone()).await.status, 400, "{body}");
    }
    let edited = redrive(json!({"edits": {&*one: {"subject": "mended", "data": {"n": 2}}}})).await;
    assert_eq!(edited.body, json!({"redriven": 1, "dryRun": false, "more": false}));
    let requests = sink.wait_for(4).await;
    assert!(requests[3].contains("ce-id: 1") && requests[3].ends_with(r#"{"n":2}"#), "{}", requests[3]);
    let settled = |answer: &Answer| answer.body["status"]["redriving"] == 0;
    gateway.until("/subscriptions/s", "the edited letter is settled", settled).await;
    assert_eq!(ids(&gateway.send(Method::GET, LETTERS, "").await).len(), 2);
    let original = gateway.send(Method::GET, "/topics/orders/events", "").await;
    assert!(
        original.body.as_array().unwrap().iter().all(|event| event["data"]["n"] == 1),
        "a stored event was changed"
    );

    // The control: what is not mended comes back as a new letter.
    let again = redrive(json!({"filter": {"cause": "rejected-422"}, "ratePerSecond": 1000})).await;
    assert_eq!(again.body["redriven"], 1);
    sink.wait_for(5).await;
    let returned = |answer: &Answer| ids(answer).len() == 2 && !ids(answer).contains(&of_event("3"));
    gateway.until(LETTERS, "the letter came back", returned).await;
    // One letter an hour: the first goes out at once, the other waits and is no longer listed.
    let slow = redrive(json!({"ratePerSecond": 1.0 / 3_600.0})).await;
    assert_eq!(slow.body["redriven"], 2);
    sink.wait_for(6).await;
    let waits = |answer: &Answer| answer.body["status"]["redriving"] == 1;
    gateway.until("/subscriptions/s", "one waits", waits).await;
    assert_eq!(sink.requests().len(), 6);
    let dropped = gateway.send(Method::DELETE, &format!("{LETTERS}?reason=rejected"), "").await;
    assert_eq!((dropped.status.as_u16(), dropped.body["dropped"].as_u64()), (200, Some(1)), "{dropped:?}");
    gateway.stop().await;
}
