use std::sync::Arc;

use super::*;
use crate::config::Backbone;

fn read(text: &str) -> Result<Resources, Vec<String>> {
    let variables = |name: &str| (name == "PASSWORD").then(|| "hush".to_owned());
    parse("f.yaml", text, &variables).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("{{apiVersion: tidegate.dev/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n")
}

#[test]
fn a_broker_has_the_settings_of_a_backbone() {
    let spec = "url: 'kafka+ssl://h', credentials: {user: u, password: '${env:PASSWORD}'}, topicPrefix: mesh.";
    let text = document("Broker", "eu", spec) + &document("Topic", "t", "attach: {name: orders, broker: eu}");
    let read = read(&text).unwrap();
    let broker = &read.brokers[0];
    assert_eq!((broker.name.as_str(), broker.settings.to_string().as_str()), ("eu", "kafka+ssl://h:9092"));
    assert_eq!(broker.settings.topic_prefix, "mesh.");
    assert!(broker.settings.credentials.is_some() && !format!("{broker:?}").contains("hush"), "{broker:?}");
    let attach = Attach { name: "orders".to_owned(), broker: Some("eu".to_owned()) };
    assert_eq!(read.topics[0].attach, Some(attach));
    let plain = self::read(&document("Broker", "n", "url: 'nats://h'")).unwrap();
    assert_eq!(plain.brokers[0].settings, Backbone::of_argument("nats://h").unwrap());
}

#[test]
fn every_fault_of_brokers_is_told_at_once() {
    let text = document("Broker", "one", "url: 'nats://u:hush@h', slots: 3")
        + &document("Broker", "two", "url: 'embedded:./d'")
        + &document("Broker", "three", "tls: {ca: /nowhere/ca.pem}")
        + &document("Topic", "a", "attach: {name: '', broker: tow}")
        + &document("Topic", "b", "attach: {name: x, broker: elsewhere}")
        + &document("Topic", "c", "attach: {name: x, broker: one}")
        + &document("Topic", "d", "attach: {name: x, broker: two}");
    let faults = read(&text).unwrap_err();
    for what in [
        "f.yaml:1:99: `spec.slots` is not known",
        "`spec.url` holds a secret itself, and files only name them",
        "the topic `d` is attached on the broker `two`, which is an embedded log and belongs to one process (attach it on a broker \
         that others reach; an embedded log is declared to migrate to it)",
        "`spec.url` is missing (add `url: nats://127.0.0.1:4222`)",
        "`/nowhere/ca.pem` is no file that is there",
        "is no name of a topic on a broker",
        "the topic `a` is attached on the broker `tow`, which is not declared (did you mean `two`?)",
        "the topic `b` is attached on the broker `elsewhere`, which is not declared (declare it: `kind: Broker` with its `url`)",
    ] {
        assert_eq!(faults.iter().filter(|fault| fault.contains(what)).count(), 1, "{what}: {faults:#?}");
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
    assert!(!faults.iter().any(|fault| fault.contains("hush")), "{faults:#?}");
    // A slip of the pen has its name.
    let near =
        document("Broker", "europe", "url: 'nats://h'") + &document("Topic", "a", "attach: {name: x, broker: europa}");
    assert!(read(&near).unwrap_err()[0].contains("did you mean `europe`?"));
}

#[test]
fn requests_name_brokers_and_declare_none() {
    let parse = |text: &str| parse_all(&[(Arc::from("request"), text)], &|_| None);
    assert!(
        parse(&document("Topic", "t", "attach: {name: orders, broker: eu}")).is_ok(),
        "the gateway knows its brokers"
    );
    let faults = parse(&document("Broker", "eu", "url: 'nats://h'")).unwrap_err();
    assert!(faults[0].to_string().contains("the broker `eu` is no resource of requests"), "{faults:?}");
}

#[test]
fn a_circle_over_a_broker_is_one_under_whatever_names() {
    let broker = document("Broker", "eu", "url: 'nats://h'") + &document("Broker", "us", "url: 'nats://i'");
    let topic = |name: &str, broker: &str| document("Topic", name, &format!("attach: {{name: x, broker: {broker}}}"));
    let there = document("Subscription", "there", "topics: [here], sink: 'topic://out'");
    let back = document("Subscription", "back", "topics: [in], sink: 'topic://here'");
    let text = format!("{broker}{}{}{there}{back}", topic("out", "eu"), topic("in", "eu"));
    let faults = read(&text).unwrap_err();
    assert!(
        faults.len() == 1 && faults[0].contains("`there` to topic://out to `back` to topic://here to `there`"),
        "{faults:?}"
    );
    // The control: on two brokers these are two topics.
    assert!(read(&format!("{broker}{}{}{there}{back}", topic("out", "eu"), topic("in", "us"))).is_ok());
}
