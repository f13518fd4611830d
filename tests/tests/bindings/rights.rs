//! A user that has no more rights than docs/bindings.md asks for, and each of them by itself.

use serde_json::json;
use tidegate_conformance::Broker;
use tidegate_tests::bindings::{events, resource, status, to, wait_for};
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{broker, until};
use tidegate_tests::gateway::Options;
use tidegate_tests::home::Home;
use tidegate_tests::subscriptions::{dead_letters, standing};

const OWN: &str = "tidegate~binding~few-source";
const NOTHING: &str = "^$";

/// The user, without any right, and what it is to use.
fn definitions() -> String {
    let of = |name: &str, more: serde_json::Value| {
        let mut whole = json!({"name": name, "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}});
        for (name, value) in more.as_object().expect("it is a table") {
            whole[name] = value.clone();
        }
        whole
    };
    let exchange = |name: &str| of(name, json!({"type": "topic", "internal": false}));
    let queues = ["few.in", "few.out", "few.direct"].map(|name| of(name, json!({})));
    json!({
        "users": [{"name": "few", "password": "few-secret", "tags": ""}],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": "few", "vhost": "/", "configure": NOTHING, "write": NOTHING, "read": NOTHING}],
        "exchanges": [exchange("few.source"), exchange("few.target")],
        "queues": queues,
        "bindings": [{
            "source": "few.target", "vhost": "/", "destination": "few.out", "destination_type": "queue",
            "routing_key": "#", "arguments": {},
        }],
    })
    .to_string()
}

/// The broker as its user of few rights sees it, and as one that may do everything; bindings of the one, and of the other to
/// bring messages there and to look what came.
fn resources(server: &Broker) -> String {
    let ca = server.folder().expect("the broker is ours").join("tls/ca.pem");
    let broker = |name: &str, user: &str, variable: &str| {
        let password = format!("{{secretKeyRef: {{name: {variable}}}}}");
        let (url, ca) = (server.url(), ca.display());
        resource(
            "Broker",
            name,
            &format!("url: '{url}', credentials: {{user: {user}, password: {password}}}, tls: {{ca: '{ca}'}}"),
        )
    };
    let binding = |name: &str, spec: &str| resource("Binding", name, spec);
    let once = ["retry: {maxAttempts: 1}"];
    broker("few", "few", "FEW")
        + &broker("all", "tidegate", "ALL")
        + &binding("few-target", "broker: few, output: {exchange: few.target, routingKey: k}")
        + &binding("few-direct", "broker: few, output: {queue: few.direct}")
        + &binding("few-in", "broker: few, input: {queue: few.in, topic: from-queue}")
        + &binding(
            "few-source",
            "broker: few, input: {exchange: {name: few.source, bind: ['#']}, topic: from-exchange}",
        )
        + &binding("seed-in", "broker: all, output: {queue: few.in}")
        + &binding("seed-source", "broker: all, output: {exchange: few.source, routingKey: k}")
        + &binding("seen-target", "broker: all, input: {queue: few.out, topic: came-target}")
        + &binding("seen-direct", "broker: all, input: {queue: few.direct, topic: came-direct}")
        + &to("to-target", "orders", "few-target", &once)
        + &to("to-direct", "orders", "few-direct", &once)
        + &to("to-in", "seeds", "seed-in", &once)
        + &to("to-source", "late", "seed-source", &once)
}

/// Publishes five events to a topic.
async fn publish(client: &Client, topic: &str) {
    for n in 0..5 {
        let id = format!("{topic}-{n}");
        client.publish(topic, &Outgoing { id: &id, ..Outgoing::default() }).await.unwrap().expect(202);
    }
}

/// Waits until a binding waits for a right, says which, and how it is given.
async fn lacks(client: &Client, binding: &str, right: &str, on: &str) {
    let words = format!("user \"few\" lacks the right `{right}` on the {on} of the virtual host \"/\"");
    until(&format!("that {binding} says {words}"), async || {
        let told = status(client, binding).await;
        let reason = told["reason"].as_str().unwrap_or_default();
        told["state"] == "waiting" && reason.contains(&words) && reason.contains("rabbitmqctl set_permissions -p / few")
    })
    .await;
}

/// The control: what needs a right that is missing brings nothing.
async fn nothing_came(client: &Client, topic: &str) {
    let read = client.get(&format!("/topics/{topic}/events?from=earliest")).await.unwrap();
    assert!(read.status == 404 || read.json().as_array().is_some_and(Vec::is_empty), "{topic}: {read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_is_asked_for_by_name_and_all_of_them_suffice() {
    let Some(server) = broker("rabbitmq-auth").await.filter(Broker::is_ours) else { return };
    let home = Home::new();
    let file = home.path().join("definitions.json");
    std::fs::write(&file, definitions()).expect("the folder is ours");
    server.control(&["import_definitions", file.to_str().expect("the path is text")]).await;
    let grant = async |configure: &str, write: &str, read: &str| {
        server.control(&["set_permissions", "-p", "/", "few", configure, write, read]).await;
    };
    home.write_resource("bindings.yaml", &resources(&server));
    let variables = vec![("FEW", "few-secret".to_owned()), ("ALL", "tidegate-secret".to_owned())];
    let gateway =
        home.start_with(Options { variables, ..Options::default() }).await.unwrap_or_else(|no| panic!("{no}"));
    let client = gateway.client();
    publish(client, "orders").await;
    publish(client, "seeds").await;

    lacks(client, "few-target", "write", "exchange few.target").await;
    lacks(client, "few-direct", "write", "exchange amq.default").await;
    lacks(client, "few-in", "read", "queue few.in").await;
    lacks(client, "few-source", "configure", &format!("queue {OWN}")).await;
    for name in ["to-target", "to-direct"] {
        assert_eq!(standing(client, name).await, "unreachable", "{name}");
    }
    for topic in ["came-target", "came-direct", "from-queue", "from-exchange"] {
        nothing_came(client, topic).await;
    }

    grant(&format!("^{OWN}$"), r"^few\.target$", NOTHING).await;
    assert_eq!(events(client, "came-target", 5).await.len(), 5);
    lacks(client, "few-source", "write", &format!("queue {OWN}")).await;
    nothing_came(client, "came-direct").await;

    let write = format!(r"^(few\.target|amq\.default|{OWN})$");
    grant(&format!("^{OWN}$"), &write, NOTHING).await;
    assert_eq!(events(client, "came-direct", 5).await.len(), 5);
    lacks(client, "few-source", "read", "exchange few.source").await;

    grant(&format!("^{OWN}$"), &write, r"^few\.source$").await;
    lacks(client, "few-source", "read", &format!("queue {OWN}")).await;
    nothing_came(client, "from-queue").await;

    // What is there need not be created.
    grant(NOTHING, &write, &format!(r"^(few\.source|few\.in|{OWN})$")).await;
    assert_eq!(events(client, "from-queue", 5).await.len(), 5);
    wait_for(client, "few-source", "running").await;
    publish(client, "late").await;
    assert_eq!(events(client, "from-exchange", 5).await.len(), 5);

    for name in ["to-target", "to-direct", "to-in", "to-source"] {
        assert!(dead_letters(client, name).await.is_empty(), "a right that is missing uses up no attempt: {name}");
    }
    for name in ["few-target", "few-direct"] {
        assert_eq!(status(client, name).await["state"], "running", "{name}");
    }
    let log = gateway.stderr();
    assert!(!log.contains("few-secret"), "a password is shown: {log}");
}
