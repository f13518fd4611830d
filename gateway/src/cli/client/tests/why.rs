//! `why` and `plan`: what is asked, and the pictures.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_backbone::{Clock, Environment};

use super::{Answer, Invocation, Outcome, Server, invoke, problem};

/// A minute after the events of the tests.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn unix_milliseconds(&self) -> u64 {
        1_769_846_460_000
    }

    fn since_boot(&self) -> Duration {
        Duration::ZERO
    }
}

fn passport() -> Value {
    let attempt = |attempt: u32, at: &str, status: Option<u16>, ending: &str, detail: &str| {
        let mut document = json!({"attempt": attempt, "at": at, "took": "9ms", "ending": ending});
        if let Some(status) = status {
            document["status"] = json!(status);
        }
        if !detail.is_empty() {
            document["detail"] = json!(detail);
        }
        document
    };
    let cause = json!({"subscription": "billing", "reason": "rejected", "status": 400});
    json!({
        "id": "A-1", "source": "/shop",
        "searched": {"backTo": "2026-01-24T08:00:00Z", "complete": true, "more": false},
        "places": [
            {
                "topic": "orders", "partition": 0, "offset": 3, "appendedAt": "2026-01-31T08:00:00.000Z",
                "event": {"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "order.placed", "partitionkey": "c-7"},
                "trace": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
                "subscriptions": [
                    {"subscription": "audit", "state": "delivered", "at": "2026-01-31T08:00:01.250Z", "attempts": [
                        attempt(1, "2026-01-31T08:00:00.012Z", Some(503), "retry", "busy\n"),
                        attempt(2, "2026-01-31T08:00:01.250Z", Some(204), "done", ""),
                    ]},
                    {"subscription": "billing", "state": "dead-lettered", "attempts": [
                        attempt(1, "2026-01-31T08:00:00.012Z", Some(400), "dead", "no amount"),
                    ], "deadLetters": [{"id": "0-17", "topic": "dead.billing", "at": "", "cause": cause, "handled": false, "redrives": []}]},
                    {"subscription": "large", "state": "filtered", "attempts": [], "explanation": {"matched": false, "failed": [
                        {"path": "filters[0].sql", "predicate": "size > 100", "found": [{"name": "size", "value": "80"}]},
                    ]}},
                    {"subscription": "slow", "state": "waiting", "attempt": 2, "due": "2026-01-31T08:03:00.000Z", "attempts": [
                        attempt(1, "2026-01-31T08:00:30.000Z", None, "retry", "the sink closed the connection"),
                    ]},
                    {"subscription": "stopped", "state": "behind", "offset": 2, "attempts": [],
                        "hold": {"standing": "paused", "reason": "a holiday"}},
                ],
            },
            {
                "topic": "orders", "partition": 0, "offset": 4, "appendedAt": "2026-01-31T08:00:00.500Z",
                "event": {"type": "order.placed"}, "duplicate": {"of": 3}, "subscriptions": [],
            },
            {
                "topic": "dead.billing", "partition": 0, "offset": 17, "appendedAt": "2026-01-31T08:00:00.020Z",
                "event": {"type": "order.placed"}, "deadLetterOf": cause, "subscriptions": [],
            },
        ],
    })
}

async fn why(answer: Answer, arguments: &[&str], attended: bool) -> (Vec<String>, Outcome) {
    let server = Server::new(vec![answer]).await;
    let environment = Environment::new(Arc::new(Later), Environment::system().random);
    let arguments: Vec<&str> = std::iter::once("why").chain(arguments.iter().copied()).collect();
    let outcome = Invocation { attended, environment, ..Invocation::new(&server.url, &arguments) }.run().await;
    let place = format!(" --server {}", server.url);
    (server.lines(), Outcome { out: outcome.out.replace(&place, ""), ..outcome })
}

#[tokio::test]
async fn a_passport_is_a_picture() {
    let answer = Answer::json(200, json!([passport()]));
    let (asked, outcome) = why(answer, &["A-1", "--source", "/shop"], true).await;
    assert_eq!(asked, ["GET /passports?id=A-1&source=%2Fshop"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let expected = "\
A-1 from /shop
type order.placed, key c-7, trace 4bf92f3577b34da6a3ce929d0e0e4736

orders partition 0 offset 3  appended 2026-01-31T08:00:00.000Z, 1 min ago
├─ ✓ audit    delivered      1.2 s after it came, 2 attempts
│    #1  +12 ms  503  9ms  to be tried again  busy
│    #2  +1.2 s  204  9ms  taken
├─ ✗ billing  dead-lettered  rejected, the sink answered 400; dead letter 0-17
│    #1  +12 ms  400  9ms  given up  no amount
│    try: tidegate dead-letters redrive billing 0-17
├─ ○ large    not wanted     filters[0].sql: size > 100; the event has size \"80\"
├─ … slow     waiting        attempt 2 goes out in 2 min
│    #1  +30 s  no answer  9ms  to be tried again  the sink closed the connection
└─ … stopped  behind         paused: a holiday; the subscription reads offset 2 next
     try: tidegate subscriptions resume stopped

orders partition 0 offset 4  appended 2026-01-31T08:00:00.500Z, 59 s ago
a duplicate of the one at offset 3, dropped: the same id and source came shortly before
└─ no subscription reads this topic
   try: tidegate subscriptions list
";
    assert_eq!(outcome.out, expected);

    // What is not a terminal gets ASCII, and whole lines.
    let (_, outcome) = why(Answer::json(200, json!([passport()])), &["A-1"], false).await;
    assert!(outcome.out.is_ascii(), "{}", outcome.out);
    for line in ["|- + audit    delivered      1.2 s after it came, 2 attempts", "`- ~ stopped  behind"] {
        assert!(outcome.out.contains(line), "{line}: {}", outcome.out);
    }
}

#[tokio::test]
async fn a_narrow_terminal_cuts_what_comes_from_elsewhere_and_a_long_story_its_middle() {
    let mut passport = passport();
    let fates = passport["places"][0]["subscriptions"].as_array_mut().unwrap();
    let attempt = fates[0]["attempts"][0].clone();
    let many = (1..=30).map(|number| {
        let mut attempt = attempt.clone();
        attempt["attempt"] = json!(number);
        attempt["detail"] = json!("z".repeat(300));
        attempt
    });
    fates[0]["attempts"] = many.collect();
    let (_, outcome) = why(Answer::json(200, json!([passport])), &["A-1"], true).await;
    let numbers: Vec<&str> = outcome.out.lines().filter_map(|line| line.split('#').nth(1)?.split(' ').next()).collect();
    assert_eq!(numbers[..13], ["1", "2", "3", "4", "5", "6", "25", "26", "27", "28", "29", "30", "1"]);
    assert!(outcome.out.contains("│    18 further attempts\n"), "{}", outcome.out);
    assert!(outcome.out.contains("zzz…\n"), "{}", outcome.out);
    assert!(outcome.out.lines().all(|line| line.chars().count() <= 110), "{}", outcome.out);
}

#[tokio::test]
async fn json_is_handed_on_and_what_is_not_there_is_told() {
    let passport = passport();
    let (_, outcome) = why(Answer::json(200, json!([passport, passport])), &["A-1", "-o", "json"], false).await;
    assert_eq!(outcome.out, format!("{passport}\n{passport}\n"));
    let answer = problem(
        404,
        "event-not-found",
        "No such event is known.",
        "There is no event of id \"B\". Every topic was searched.",
    );
    let (_, outcome) = why(answer, &["B"], false).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("Every topic was searched"), "{}", outcome.err);
    let mut partly = passport;
    partly["searched"]["complete"] = json!(false);
    let (_, outcome) = why(Answer::json(200, json!([partly])), &["A-1"], false).await;
    assert!(outcome.err.contains("not everything since 2026-01-24"), "{}", outcome.err);
}

const FILE: &str = "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: large}\nspec:\n  topics: [orders]\n  \
                    filters: [{exact: {region: \"${env:HOME}\"}}]\n  sink: http://127.0.0.1:8081/hook\n";

#[tokio::test]
async fn a_plan_sends_the_files_and_prints_what_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    std::fs::write(&path, FILE).unwrap();
    let sample = |count: u64, id: &str| json!({"count": count, "examples": [{"id": id, "topic": "orders"}]});
    let none = || json!({"count": 0});
    let document = json!({
        "subscriptions": [
            {"name": "audit", "action": "end", "before": 9, "after": 0, "added": none(), "removed": sample(9, "A-9"), "moved": none()},
            {"name": "kept", "action": "keep", "before": 2, "after": 2, "added": none(), "removed": none(), "moved": none()},
            {"name": "large", "action": "change", "changes": ["filters", "sink"], "before": 4, "after": 3,
                "added": sample(1, "A-1"), "removed": sample(2, "A-2"), "moved": sample(2, "A-3")},
            {"name": "new", "action": "create", "from": "latest", "before": 0, "after": 9, "added": sample(9, "A-9"),
                "removed": none(), "moved": none()},
        ],
        "topics": [{"name": "orders", "action": "refuse", "reason": "it exists with 2 partitions, not 4"}],
        "missingTopics": [{"topic": "returns", "subscriptions": ["new"]}],
        "looked": [{"topic": "orders", "events": 9, "duplicates": 1, "recorded": 120, "since": "2026-01-31T08:00:00.000Z", "limited": false}],
        "warnings": [],
    });
    let server = Server::new(vec![Answer::json(200, &document)]).await;
    let file = path.to_str().unwrap();
    let outcome = invoke(&server.url, &["plan", file, "--topic", "orders", "--last", "10"]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(
        outcome.out,
        "! cannot have topic orders: it exists with 2 partitions, not 4\n\
         - ends subscription audit\n\
         ~ changes subscription large: filters, sink\n\
         + creates subscription new, from latest\n\
         there is no topic returns yet, which new reads\n\
         \n\
         TOPIC   LOOKED AT  DUPLICATES  RECORDED  SINCE\n\
         orders          9           1       120  2026-01-31T08:00:00.000Z\n\
         \n\
         DELIVERIES OF  NOW  THEN  ADDED  REMOVED  MOVED  FOR EXAMPLE\n\
         audit            9     0      0       -9      0  -A-9 in orders\n\
         kept             2     2      0        0      0\n\
         large            4     3     +1       -2     ~2  +A-1 in orders, -A-2 in orders, ~A-3 in orders\n\
         new              0     9     +9        0      0  +A-9 in orders\n"
    );
    assert!(outcome.err.contains("begins at latest, such as new"), "{}", outcome.err);
    let asked: Value = serde_json::from_str(&server.requests()[0].body).unwrap();
    assert_eq!((&asked["files"][0]["name"], &asked["files"][0]["text"]), (&json!(file), &json!(FILE)));
    assert_eq!(
        asked["variables"],
        json!({"HOME": std::env::var("HOME").unwrap()}),
        "those that are used, and no other"
    );
    assert_eq!((&asked["topics"], &asked["last"], &asked["complete"]), (&json!(["orders"]), &json!(10), &json!(false)));

    let server = Server::new(vec![Answer::json(200, &document)]).await;
    let outcome = invoke(&server.url, &["plan", folder.path().to_str().unwrap(), "-o", "json"]).await;
    assert_eq!(outcome.out, format!("{document}\n"));
    let asked: Value = serde_json::from_str(&server.requests()[0].body).unwrap();
    assert_eq!(asked["complete"], json!(true), "a folder is the whole set");

    std::fs::write(&path, "apiVersion: tidegate.dev/v1\nkind: Subscribtion\n").unwrap();
    let server = Server::new(vec![]).await;
    let outcome = invoke(&server.url, &["plan", file]).await;
    assert_eq!((outcome.code, server.lines()), (1, vec![]), "faults are told before anything is asked");
    assert!(outcome.err.contains("large.yaml:2:"), "{}", outcome.err);
}
