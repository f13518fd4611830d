//! `plan` says what delivery then does: random subscriptions, random events, and real deliveries to compare with.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::PATIENCE;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::home::Home;
use tidegate_tests::random::Random;
use tidegate_tests::sink::Sink;

const TOPICS: [&str; 3] = ["shop.orders", "shop.returns", "audit"];
const TYPES: [&str; 4] = ["com.example.a", "com.example.b", "com.example.ab", "com.other.a"];
const EXPRESSIONS: [&str; 4] = [
    "LENGTH(id) < 3",
    "NOT EXISTS partitionkey",
    "type LIKE 'com.example.%' AND EXISTS partitionkey",
    "type IN ('com.example.a', 'com.other.a')",
];
const EVENTS: usize = 80;

/// Events that a subscription gets.
type Taken = BTreeMap<String, BTreeSet<String>>;

fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from[(random.bits() % from.len() as u64) as usize]
}

fn filter(random: &mut Random, depth: u32) -> Value {
    match random.bits() % if depth == 0 { 4 } else { 7 } {
        0 => json!({"exact": {"type": pick(random, &TYPES)}}),
        1 => json!({"prefix": {"type": pick(random, &["com.example.", "com.", "com.other"])}}),
        2 => json!({"suffix": {"id": (random.bits() % 10).to_string()}}),
        3 => json!({"sql": pick(random, &EXPRESSIONS)}),
        4 => json!({"all": [filter(random, depth - 1), filter(random, depth - 1)]}),
        5 => json!({"any": [filter(random, depth - 1), filter(random, depth - 1)]}),
        _ => json!({"not": filter(random, depth - 1)}),
    }
}

/// A set of subscriptions as files, one each; JSON is YAML.
fn subscriptions(random: &mut Random, sink: &Sink) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for name in ["one", "two", "three", "four", "five"] {
        if random.bits().is_multiple_of(5) {
            continue;
        }
        let topics = pick(random, &["shop.orders", "shop.*", "**", "audit", "shop.returns"]);
        let filters: Vec<Value> = (0..random.bits() % 3).map(|_| filter(random, 2)).collect();
        let mut document = json!({
            "apiVersion": "tidegate.dev/v1",
            "kind": "Subscription",
            "metadata": {"name": name},
            "spec": {"topics": [topics], "filters": filters, "sink": format!("{}/{name}", sink.url()),
                "delivery": {"order": pick(random, &["key", "none"]), "from": "earliest"}},
        });
        if filters.is_empty() {
            document["spec"].as_object_mut().expect("an object").remove("filters");
        }
        files.insert(format!("{name}.yaml"), document.to_string());
    }
    files
}

async fn plan(client: &Client, files: &BTreeMap<String, String>) -> Value {
    let files: Vec<Value> = files.iter().map(|(name, text)| json!({"name": name, "text": text})).collect();
    let body = json!({"files": files, "complete": true, "last": 10_000, "examples": 1_000}).to_string();
    let answer = client.post("/plan", &[("content-type", "application/json")], body).await.expect("an answer");
    answer.expect(200).json()
}

/// The events of one kind of change, by subscription.
fn named(plan: &Value, kind: &str) -> Taken {
    let mut named = Taken::new();
    for subscription in plan["subscriptions"].as_array().expect("subscriptions are listed") {
        let examples = subscription[kind]["examples"].as_array().cloned().unwrap_or_default();
        assert_eq!(subscription[kind]["count"], examples.len(), "{subscription:#}");
        let ids: BTreeSet<String> =
            examples.iter().map(|example| example["id"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(ids.len(), examples.len(), "an event is named twice: {subscription:#}");
        if !ids.is_empty() {
            named.insert(subscription["name"].as_str().expect("a name").to_owned(), ids);
        }
    }
    named
}

/// Applies files, waits until every subscription has read everything, and gives what was delivered meanwhile.
async fn deliver(home: &Home, client: &Client, sink: &Sink, files: &BTreeMap<String, String>) -> Taken {
    for entry in std::fs::read_dir(home.resources()).expect("the folder is ours") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("the file is ours");
    }
    wait(client, "no subscription is left", |listed| listed.is_empty()).await;
    let before = sink.deliveries().len();
    for (name, text) in files {
        home.write_resource(name, text);
    }
    let count = files.len();
    wait(client, "everything is delivered", |listed| {
        let idle = |subscription: &Value| {
            let status = &subscription["status"];
            ["behind", "queued", "parked", "inFlight"].iter().all(|member| status[*member] == 0)
        };
        listed.len() == count && listed.iter().all(idle)
    })
    .await;
    let mut taken = Taken::new();
    for delivery in sink.deliveries().split_off(before) {
        let name = delivery.path.rsplit('/').next().expect("a path has an end").to_owned();
        taken.entry(name).or_default().insert(delivery.id);
    }
    taken
}

async fn wait(client: &Client, what: &str, done: impl Fn(&[Value]) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut times = 0;
    loop {
        let answer = client.get("/subscriptions").await.expect("an answer").expect(200).json();
        let listed = answer.as_array().expect("subscriptions are listed").clone();
        // More than once: a subscription that has just begun has nothing behind it before it looks.
        times = if done(&listed) { times + 1 } else { 0 };
        if times == 10 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {listed:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn without(one: &Taken, other: &Taken) -> Taken {
    let none = BTreeSet::new();
    let rest = one.iter().map(|(name, ids)| (name.clone(), ids - other.get(name).unwrap_or(&none)));
    rest.filter(|(_, ids): &(String, BTreeSet<String>)| !ids.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_exactly_what_delivery_then_does() {
    let mut random = Random::from_environment();
    let (home, sink) = (Home::new(), Sink::accepting().await);
    let gateway = home.start().await;
    let client = gateway.client();
    for number in 0..EVENTS {
        // Every tenth id comes twice in a row to one topic, which is a duplicate that delivery drops.
        let topic = TOPICS[(number / 2) % TOPICS.len()];
        let id = format!("e{}", if number % 10 == 9 { number - 1 } else { number });
        let topic = if number % 10 == 9 { TOPICS[((number - 1) / 2) % TOPICS.len()] } else { topic };
        let key = random.bits().is_multiple_of(3);
        let event =
            Outgoing { id: &id, kind: pick(&mut random, &TYPES), key: key.then_some("k"), ..Outgoing::default() };
        client.publish(topic, &event).await.expect("an answer").expect(202);
    }
    let (mut current, mut added, mut removed) = (Taken::new(), 0, 0);
    for _ in 0..5 {
        let files = subscriptions(&mut random, &sink);
        let planned = plan(client, &files).await;
        assert!(
            planned["looked"].as_array().is_some_and(|looked| files.is_empty() || !looked.is_empty()),
            "{planned:#}"
        );
        let delivered = deliver(&home, client, &sink, &files).await;
        assert_eq!(named(&planned, "added"), without(&delivered, &current), "added; {files:#?}");
        assert_eq!(named(&planned, "removed"), without(&current, &delivered), "removed; {files:#?}");
        for subscription in planned["subscriptions"].as_array().expect("subscriptions are listed") {
            let name = subscription["name"].as_str().expect("a name");
            let count = |taken: &Taken| taken.get(name).map_or(0, BTreeSet::len);
            assert_eq!(subscription["before"], count(&current), "{subscription:#}");
            assert_eq!(subscription["after"], count(&delivered), "{subscription:#}");
        }
        added += named(&planned, "added").values().map(BTreeSet::len).sum::<usize>();
        removed += named(&planned, "removed").values().map(BTreeSet::len).sum::<usize>();

        // The control: a delivery that is taken away is noticed.
        let mut spoiled = delivered.clone();
        let new = without(&delivered, &current);
        if let Some((name, ids)) = new.iter().next() {
            spoiled.get_mut(name).expect("it was delivered").remove(ids.first().expect("not empty"));
            assert_ne!(named(&planned, "added"), without(&spoiled, &current), "a delivery less was not noticed");
        }
        current = delivered;
    }
    assert!(added > 0 && removed > 0, "{added} added, {removed} removed: nothing was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_tells_faults_moves_and_what_is_missing_and_changes_nothing() {
    let (home, sink) = (Home::new(), Sink::accepting().await);
    let file = |name: &str, topic: &str, path: &str| {
        json!({
            "apiVersion": "tidegate.dev/v1", "kind": "Subscription", "metadata": {"name": name},
            "spec": {"topics": [topic], "sink": format!("{}/{path}", sink.url())},
        })
        .to_string()
    };
    home.write_resource("kept.yaml", &file("kept", "t", "kept"));
    home.write_resource("ends.yaml", &file("ends", "t", "ends"));
    let gateway = home.start().await;
    let client = gateway.client();
    for id in ["1", "2"] {
        client.publish("t", &Outgoing { id, ..Outgoing::default() }).await.expect("an answer").expect(202);
    }
    let files = BTreeMap::from([
        ("kept.yaml".to_owned(), file("kept", "t", "elsewhere")),
        ("new.yaml".to_owned(), file("new", "nowhere", "new")),
    ]);
    let planned = plan(client, &files).await;
    let find = |name: &str| {
        let subscriptions = planned["subscriptions"].as_array().expect("subscriptions are listed");
        subscriptions.iter().find(|subscription| subscription["name"] == name).expect("it is listed").clone()
    };
    let kept = find("kept");
    assert_eq!((&kept["action"], &kept["changes"]), (&"change".into(), &json!(["sink"])), "{kept:#}");
    assert_eq!((&kept["moved"]["count"], &kept["added"]["count"]), (&2.into(), &0.into()), "{kept:#}");
    assert_eq!((&find("ends")["action"], &find("ends")["removed"]["count"]), (&"end".into(), &2.into()));
    assert_eq!((&find("new")["action"], &find("new")["from"]), (&"create".into(), &"latest".into()));
    assert_eq!(planned["missingTopics"], json!([{"topic": "nowhere", "subscriptions": ["new"]}]), "{planned:#}");
    let listed = client.get("/subscriptions").await.expect("an answer").json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "a plan changes nothing: {listed:#}");

    let faulty = json!({"files": [
        {"name": "a.yaml", "text": file("a", "bad topic", "x")},
        {"name": "b.yaml", "text": "apiVersion: tidegate.dev/v1\nkind: Subscribtion\nmetadata: {name: b}\nspec: {}\n"},
    ]});
    let answer =
        client.post("/plan", &[("content-type", "application/json")], faulty.to_string()).await.expect("an answer");
    let problem = answer.json();
    assert_eq!(answer.expect_problem(&[400]), "invalid-resource");
    let places: Vec<&str> =
        problem["faults"].as_array().into_iter().flatten().filter_map(|fault| fault["attribute"].as_str()).collect();
    assert!(places.iter().any(|place| place.starts_with("a.yaml:")), "{problem:#}");
    assert!(places.iter().any(|place| place.starts_with("b.yaml:2:")), "{problem:#}");
}
