use std::sync::Arc;

use tidegate_schemas::Event;

use super::*;

fn read(text: &str) -> Result<Resources, Vec<String>> {
    parse("f.yaml", text, &|_| None).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("{{apiVersion: tidegate.dev/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n")
}

fn brokers() -> String {
    document("Broker", "legacy", "url: 'amqp://h/v'") + &document("Broker", "eu", "url: 'nats://h'")
}

fn direction(spec: &str) -> Direction {
    let read = read(&(brokers() + &document("Binding", "b", &format!("broker: legacy, {spec}")))).unwrap();
    read.bindings[0].direction.clone()
}

#[test]
fn what_a_binding_says() {
    let key = RoutingKey::parse("order.{type}").unwrap();
    let out = Output::Exchange { exchange: "orders".to_owned(), routing_key: key };
    assert_eq!(direction("output: {exchange: orders, routingKey: 'order.{type}'}"), Direction::Output(out));
    let out = Output::Queue("orders".to_owned());
    assert_eq!(direction("output: {queue: orders}"), Direction::Output(out));
    let input = Input {
        from: Source::Queue("orders".to_owned()),
        topic: TopicName::parse("orders.placed").unwrap(),
        prefetch: 100,
        key: Key::None,
        kind: None,
        source: None,
        on_refused: OnRefused::Pause,
    };
    assert_eq!(direction("input: {queue: orders, topic: orders/placed}"), Direction::Input(input.clone()));
    let all = "input: {exchange: {name: amq.topic, bind: ['order.#', '']}, topic: orders.placed, prefetch: 7, \
               key: header customer, type: com.example.order, source: /legacy, onRefused: reject}";
    let input = Input {
        from: Source::Exchange { exchange: "amq.topic".to_owned(), keys: vec!["order.#".to_owned(), String::new()] },
        prefetch: 7,
        key: Key::Header("customer".to_owned()),
        kind: Some("com.example.order".to_owned()),
        source: Some("/legacy".to_owned()),
        on_refused: OnRefused::Reject,
        ..input
    };
    assert_eq!(direction(all), Direction::Input(input));
    for (written, key) in [("queue", Key::Queue), ("routingKey", Key::RoutingKey), ("none", Key::None)] {
        let Direction::Input(input) = direction(&format!("input: {{queue: q, topic: t, key: {written}}}")) else {
            panic!()
        };
        assert_eq!(input.key, key);
    }
}

#[test]
fn every_fault_of_bindings_is_told_at_once() {
    let binding = |name: &str, spec: &str| document("Binding", name, spec);
    let text = brokers()
        + &binding("one", "broker: legcy, output: {queue: q}")
        + &binding("two", "broker: eu, output: {queue: q}")
        + &binding("three", "broker: legacy")
        + &binding("four", "broker: legacy, output: {queue: q}, input: {queue: q, topic: t}")
        + &binding("five", "output: {queue: q, exchange: e, routingKey: k}")
        + &binding("six", "broker: legacy, output: {routingKey: '{'}")
        + &binding("seven", "broker: legacy, input: {exchange: {name: e}, topic: dead.x}")
        + &binding("eight", "broker: legacy, input: {queue: q, topic: t, prefetch: 0, key: header, onRefused: drop}")
        + &binding("nine", "broker: legacy, input: {queue: taken, topic: t, source: 'a b', type: ''}")
        + &binding("ten", "broker: legacy, input: {queue: taken, topic: t}")
        + &binding("eleven", "broker: legacy, input: {queue: taken, topic: t}")
        + &document("Subscription", "a", "topics: [t], sink: 'binding://elevn'")
        + &document("Subscription", "b", "topics: [t], sink: 'binding://ten'")
        + &document("Subscription", "c", "topics: [t], sink: 'binding://ten', headers: {x: y}");
    let faults = read(&text).unwrap_err();
    for what in [
        "the binding `one` is on the broker `legcy`, which is not declared (did you mean `legacy`?)",
        "the binding `two` is on the broker `eu`, which has no queues (name one whose URL begins with amqp:// or amqps://",
        "the binding `three` has neither an input nor an output (add `input:",
        "the binding `four` has an input and an output (declare two bindings, one for each)",
        "`spec.broker` is missing",
        "`spec.output` names a queue and an exchange",
        "`spec.output.routingKey` is for exchanges",
        "`spec.output` names neither a queue nor an exchange",
        "`spec.output.routingKey`: `{` has a brace without its other one",
        "`spec.input.exchange.bind` is missing (add `bind: ['order.#']`)",
        "`spec.input.topic`: `dead.x` names a topic that only the gateway writes to",
        "`spec.input.prefetch` is 0 and out of range",
        "`spec.input.key`: `header` is no key",
        "`spec.input.onRefused`: `drop` is not known here",
        "`spec.input.source`: `a b` is no source of events",
        "`spec.input.type`: `` is no type of events",
        "the bindings `ten` and `eleven` take messages from the same queue `taken` of `legacy`",
        "the subscription `a` has the binding `elevn` as its sink, which is not declared (did you mean `eleven`?)",
        "the subscription `b` has the binding `ten` as its sink, which is an input (name an output; what comes in is in \
         the topic `t`)",
        "`spec.headers` is about requests, and the sink is a binding",
    ] {
        assert_eq!(faults.iter().filter(|fault| fault.contains(what)).count(), 1, "{what}: {faults:#?}");
    }
    assert!(faults.iter().all(|fault| fault.starts_with("f.yaml:")), "{faults:#?}");
    let many: String = (0..=tidegate_schemas::limits::BINDINGS)
        .map(|n| binding(&format!("b{n}"), "broker: legacy, output: {queue: q}"))
        .collect();
    assert!(read(&(brokers() + &many)).unwrap_err()[0].contains("at most 256 are taken"));
}

#[test]
fn requests_name_bindings_and_declare_none() {
    let parse = |text: &str| parse_all(&[(Arc::from("request"), text)], &|_| None);
    assert!(parse(&document("Subscription", "s", "topics: [t], sink: 'binding://out'")).is_ok());
    let faults = parse(&document("Binding", "out", "broker: legacy, output: {queue: q}")).unwrap_err();
    assert!(faults[0].to_string().contains("the binding `out` is no resource of requests"), "{faults:?}");
}

#[test]
fn a_circle_through_a_queue_is_found() {
    let out = document("Binding", "out", "broker: legacy, output: {queue: q}");
    let back =
        |queue: &str| document("Binding", "back", &format!("broker: legacy, input: {{queue: {queue}, topic: b}}"));
    let over = document("Subscription", "over", "topics: [a], sink: 'binding://out'");
    let round = document("Subscription", "round", "topics: [b], sink: 'topic://a'");
    let text = format!("{}{out}{}{over}{round}", brokers(), back("q"));
    let faults = read(&text).unwrap_err();
    assert!(faults.len() == 1 && faults[0].contains("`over` to b to `round` to topic://a to `over`"), "{faults:?}");
    // The control: from another queue nothing comes back.
    assert!(read(&format!("{}{out}{}{over}{round}", brokers(), back("other"))).is_ok());
}

#[test]
fn routing_keys_are_made_of_attributes() {
    let event = Event::builder("7", "/s", "placed").subject("eu").build().unwrap();
    let of = |text: &str| RoutingKey::parse(text).unwrap().of(&event);
    assert_eq!(of("orders"), Ok("orders".to_owned()));
    assert_eq!(of("order.{type}.{subject}{id}"), Ok("order.placed.eu7".to_owned()));
    assert_eq!(of(""), Ok(String::new()));
    assert!(of("{partitionkey}").unwrap_err().contains("no attribute partitionkey"));
    for bad in ["{", "}", "{}", "{Type}", "a{b", "a}b{c}", &"x".repeat(300)] {
        assert!(RoutingKey::parse(bad).unwrap_err().contains("; "), "{bad}");
    }
    let long = Event::builder("7", "/s", "x".repeat(300)).build().unwrap();
    assert!(RoutingKey::parse("{type}").unwrap().of(&long).unwrap_err().contains("300 bytes"));
}
