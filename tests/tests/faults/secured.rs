//! Gateways on brokers that want TLS and credentials: they work as they are configured, and one that is configured wrongly ends
//! at once and says what is wrong, where, and how to mend it.

use tidegate_conformance::Broker;
use tidegate_tests::cluster::broker;
use tidegate_tests::home::Home;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::Subscription;

use super::{Backbone, over_tls, publish};

/// Seeds of nkeys: of the user that the broker knows, and of one that nobody knows.
const SEED: &str = "SUAACAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAN7EY";
const OTHER_SEED: &str = "SUAAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAT6EE";

/// Events come in and go out.
async fn works(backbone: &Backbone, id: &str) {
    let sink = Sink::accepting().await;
    let home = Home::new();
    let url = sink.url();
    let subscription = Subscription { name: "all", topics: &["orders"], filters: &[], sink: &url, delivery: &[] };
    home.write_resource("all.yaml", &subscription.yaml());
    let gateway = backbone.start(&home).await;
    publish(gateway.client(), "orders", id).await;
    sink.wait_for_ids(&[id.to_owned()]).await;
    let stderr = gateway.stderr();
    assert!(!backbone.is_shown_in(&stderr), "{stderr}");
    assert!(gateway.terminate().await.success());
}

/// The gateway ends before it is ready, and its last words hold these.
async fn is_refused(backbone: &Backbone, words: &[&str]) {
    let home = Home::new();
    let refused = home.start_with(backbone.options(&home)).await.expect_err("it is refused");
    assert!(refused.status.is_some_and(|status| !status.success()), "{refused}");
    for word in words {
        assert!(refused.stderr.contains(word), "{word:?} is not in: {refused}");
    }
    assert!(!backbone.is_shown_in(&refused.stderr), "{refused}");
}

async fn passwords(broker: &Broker, denied: &str) {
    let (url, tls) = (over_tls(broker), broker.folder().expect("the broker is ours").join("tls"));
    let address = broker.addresses().remove(0);
    let with = |ca: &str, user: &str, password: &str| Backbone::by_password(&url, &tls, ca, user, password);
    works(&with("ca.pem", "tidegate", "tidegate-secret"), "by-password").await;
    is_refused(&with("ca.pem", "tidegate", "secret-guess"), &[denied, &address]).await;
    is_refused(&with("other-ca.pem", "tidegate", "tidegate-secret"), &["set tls.ca", &address]).await;
    is_refused(&with("no-such-ca.pem", "tidegate", "tidegate-secret"), &["no-such-ca.pem", "gateway.yaml:"]).await;
    is_refused(&with("ca.pem", "guest", "guest-secret"), &["permission"]).await;
}

async fn certificates(broker: &Broker, url: &str) {
    let tls = broker.folder().expect("the broker is ours").join("tls");
    works(&Backbone::by_certificate(url, &tls, Some("tidegate")), "by-certificate").await;
    for name in [None, Some("stranger")] {
        is_refused(&Backbone::by_certificate(url, &tls, name), &["set tls.certificate and tls.key"]).await;
    }
    is_refused(&Backbone::by_certificate(url, &tls, Some("guest")), &["permission"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_wants_a_password_or_an_nkey() {
    let Some(broker) = broker("nats-auth").await.filter(Broker::is_ours) else { return };
    passwords(&broker, "check user, password").await;
    let (url, tls) = (over_tls(&broker), broker.folder().expect("the broker is ours").join("tls"));
    works(&Backbone::by_nkey(&url, &tls, SEED), "by-nkey").await;
    is_refused(&Backbone::by_nkey(&url, &tls, OTHER_SEED), &["does not take an nkey"]).await;
    is_refused(&Backbone::by_nkey(&url, &tls, "SUANONE"), &["with an nkey", "check the seed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_wants_a_certificate() {
    let Some(broker) = broker("nats-certs").await.filter(Broker::is_ours) else { return };
    certificates(&broker, &over_tls(&broker)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_wants_a_password() {
    let Some(broker) = broker("rabbitmq-auth").await.filter(Broker::is_ours) else { return };
    passwords(&broker, "check both").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_wants_a_password_or_a_certificate() {
    let Some(broker) = broker("kafka-auth").await.filter(Broker::is_ours) else { return };
    passwords(&broker, "check the user and its password").await;
    let port = broker.folder().expect("the broker is ours").join("1/port-certs");
    let port = std::fs::read_to_string(port).expect("the script writes it down");
    certificates(&broker, &format!("kafka+ssl://127.0.0.1:{}", port.trim())).await;
}
