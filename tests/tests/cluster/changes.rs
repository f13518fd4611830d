//! What one gateway changes takes effect on all of them.

use http::Method;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{Member, broker, settled, until};
use tidegate_tests::home::Home;
use tidegate_tests::machine::long_faults;
use tidegate_tests::sink::{Reply, Sink};
use tidegate_tests::subscriptions::Subscription;

/// Publishes this many events with keys of their own, so that every partition gets some.
async fn publish(client: &Client, topic: &str, prefix: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let id = format!("{prefix}{n}");
        let event = Outgoing { id: &id, key: Some(&id), ..Outgoing::default() };
        client.publish(topic, &event).await.unwrap().expect(202);
        ids.push(id);
    }
    ids
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).await.unwrap().status
}

async fn a_subscription_works_from_all(name: &str) {
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id.starts_with("bad") { 400 } else { 204 })).await;
    let (one, two) = (Member::start(&broker).await, Member::start(&broker).await);
    settled(&[&one, &two]).await;
    one.client().send(Method::PUT, "/topics/orders", &[], "").await.unwrap().expect(201);
    until("that the other knows the topic", async || status(two.client(), "/topics/orders").await == 200).await;
    let body = format!(
        r#"{{"id": "shared", "sink": "{}", "config": {{"topics": ["orders"], "delivery": {{"from": "earliest"}}}}}}"#,
        sink.url()
    );
    let created = one.client().post("/subscriptions", &[("content-type", "application/json")], body).await.unwrap();
    created.expect(201);
    until("that the other knows it", async || status(two.client(), "/subscriptions/shared").await == 200).await;
    let ids = publish(two.client(), "orders", "good", 40).await;
    sink.wait_for_ids(&ids).await;
    // Dead letters of every partition are found from both gateways, whoever made them.
    publish(one.client(), "orders", "bad", 20).await;
    for member in [&one, &two] {
        tidegate_tests::subscriptions::wait_for_dead_letters(member.client(), "shared", 20).await;
    }
    // How a delivery went is known to the owner of its partition, and told by all.
    for member in [&one, &two] {
        for id in ["good0", "good7", "good13", "bad3", "bad11"] {
            let path = format!("/passports?id={id}");
            until("that a passport tells of an attempt", async || {
                let answer = member.client().get(&path).await.unwrap();
                answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("\"attempts\":[{")
            })
            .await;
        }
    }
    // Paused here, it rests there.
    two.client().post("/subscriptions/shared/pause", &[], "").await.unwrap().expect(200);
    until("that both have it paused", async || {
        let mut paused = 0;
        for member in [&one, &two] {
            let shown = member.client().get("/subscriptions/shared").await.unwrap().json();
            paused += usize::from(shown["status"]["standing"] == "paused");
        }
        paused == 2
    })
    .await;
    let before = sink.deliveries().len();
    let ids = publish(one.client(), "orders", "later", 20).await;
    one.client().post("/subscriptions/shared/resume", &[], "").await.unwrap().expect(200);
    sink.wait_for_ids(&ids).await;
    assert!(sink.deliveries().len() >= before + 20);
    // Deleted here, it is gone there.
    let gone = two.client().send(Method::DELETE, "/subscriptions/shared", &[], "").await.unwrap();
    assert_eq!(gone.status, 204, "{gone}");
    until("that it is gone", async || status(one.client(), "/subscriptions/shared").await == 404).await;
}

async fn each_speaks_for_its_own_files(name: &str) {
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::accepting().await;
    let (a, b) = (Home::new(), Home::new());
    let yaml = |name: &str, topic: &str| {
        let url = sink.url();
        Subscription { name, topics: &[topic], filters: &[], sink: &url, delivery: &[] }.yaml()
    };
    let file = a.write_resource("a.yaml", &yaml("of-a", "ta"));
    b.write_resource("b.yaml", &yaml("of-b", "tb"));
    let one = Member::start_in(a, &broker).await;
    let two = Member::start_in(b, &broker).await;
    settled(&[&one, &two]).await;
    let origin = async |member: &Member, name: &str| {
        let answer = member.client().get(&format!("/subscriptions/{name}")).await.unwrap();
        if answer.status == 200 { answer.json()["origin"].to_string() } else { answer.status.to_string() }
    };
    for member in [&one, &two] {
        until("that both are known", async || {
            origin(member, "of-a").await.contains("a.yaml") && origin(member, "of-b").await.contains("b.yaml")
        })
        .await;
    }
    // A change of one folder leaves what the other declares alone.
    two.home.write_resource("b.yaml", &yaml("of-b", "tb2"));
    until("that the change is in force", async || {
        one.client().get("/subscriptions/of-b").await.unwrap().json()["config"]["topics"][0] == "tb2"
    })
    .await;
    assert!(origin(&two, "of-a").await.contains("a.yaml"));
    let ids = publish(two.client(), "ta", "a", 10).await;
    sink.wait_for_ids(&ids).await;
    // A file that is gone ends its ownership and not the subscription.
    std::fs::remove_file(file).unwrap();
    until("that it belongs to the API", async || origin(&two, "of-a").await == "\"api\"").await;
    let ids = publish(one.client(), "ta", "later", 10).await;
    sink.wait_for_ids(&ids).await;
    let gone = two.client().send(Method::DELETE, "/subscriptions/of-a", &[], "").await.unwrap();
    assert_eq!(gone.status, 204, "{gone}");
}

/// The reply is given to whoever delivers the event, and is waited for where the request was published.
async fn a_request_is_answered(name: &str) {
    const KEYS: usize = 12;
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::start(|delivery| {
        let text = |text: &str| text.to_owned();
        let id = format!("to-{}", delivery.id);
        let fields = vec![
            ("ce-specversion", text("1.0")),
            ("ce-id", id),
            ("ce-source", text("/r")),
            ("ce-type", text("answer")),
        ];
        Reply::Fields(200, fields, String::new())
    })
    .await;
    let home = Home::new();
    let url = sink.url();
    let asked = Subscription { name: "asked", topics: &["questions"], filters: &[], sink: &url, delivery: &[] };
    home.write_resource("asked.yaml", &asked.yaml());
    let (one, two) = (Member::start_in(home, &broker).await, Member::start(&broker).await);
    settled(&[&one, &two]).await;
    let json = [("content-type", "application/json")];
    one.client().send(Method::PUT, "/topics/questions", &json, r#"{"partitions": 8}"#).await.unwrap().expect(201);
    for member in [&one, &two] {
        until("that the topic and who reads it are known", async || {
            status(member.client(), "/topics/questions").await == 200
                && status(member.client(), "/subscriptions/asked").await == 200
        })
        .await;
    }
    // Each key is delivered by one of the two, so what one of them asks is delivered by the other.
    for (name, member) in [("one", &one), ("two", &two)] {
        for n in 0..KEYS {
            let (id, key) = (format!("{name}-{n}"), format!("k{n}"));
            let headers = [
                ("ce-specversion", "1.0"),
                ("ce-id", &*id),
                ("ce-source", "/asks"),
                ("ce-type", "t"),
                ("ce-partitionkey", &*key),
            ];
            let answer = member.client().post("/topics/questions?reply=30s", &headers, "").await.unwrap().expect(200);
            let reply = answer.headers.get("ce-id").and_then(|value| value.to_str().ok());
            assert_eq!(reply, Some(&*format!("to-{id}")), "{answer}");
        }
    }
    let deliveries = sink.deliveries();
    assert!(deliveries.iter().all(|delivery| delivery.headers.contains_key("prefer")), "each is asked for a reply");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_of_one_gateway_works_from_all() {
    a_subscription_works_from_all("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_of_one_gateway_works_from_all_on_rabbitmq() {
    if long_faults("changes on rabbitmq") {
        a_subscription_works_from_all("rabbitmq").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_speaks_for_the_files_of_its_own_folder_only() {
    each_speaks_for_its_own_files("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_speaks_for_the_files_of_its_own_folder_only_on_rabbitmq() {
    if long_faults("changes on rabbitmq") {
        each_speaks_for_its_own_files("rabbitmq").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_a_topic_is_answered_whichever_gateway_delivers_it() {
    a_request_is_answered("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_a_topic_is_answered_whichever_gateway_delivers_it_on_rabbitmq() {
    if long_faults("changes on rabbitmq") {
        a_request_is_answered("rabbitmq").await;
    }
}
