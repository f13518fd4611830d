use std::time::Duration;

use super::*;

fn no_variables(_: &str) -> Option<String> {
    None
}

fn load_text(text: &str) -> Result<Gateway, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.yaml");
    std::fs::write(&path, text).unwrap();
    let prefix = format!("{}/", folder.path().display());
    load(&path, &no_variables)
        .map_err(|faults| faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect())
}

/// A configuration with these lines below `spec`.
fn gateway(lines: &str) -> Result<Gateway, Vec<String>> {
    load_text(&format!("apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n{lines}\n"))
}

#[test]
fn the_example_of_the_documentation_is_all_defaults() {
    let source = include_str!("mod.rs");
    let example = source.split("//! ```").nth(1).unwrap();
    let example: String =
        example.lines().skip(1).map(|line| format!("{}\n", line.strip_prefix("//! ").unwrap_or(""))).collect();
    let expected = Gateway {
        backbone: Some(Backbone::embedded("./data")),
        resources: Some(PathBuf::from("./resources")),
        ..Gateway::default()
    };
    assert_eq!(load_text(&example), Ok(expected));
    assert_eq!(load_text("{apiVersion: tidegate.dev/v1, kind: Gateway}"), Ok(Gateway::default()));
}

#[test]
fn every_key_is_read() {
    let read = gateway(
        "  listeners: {http: 'localhost:0', grpc: '[::1]:5'}
  backbone: embedded:/var/lib/tidegate
  resources: /etc/tidegate
  topics: {createOnFirstUse: true}
  limits: {requestBody: 8MiB, batchEvents: 7, connections: 8, connectionsPerAddress: 9, headerTimeout: 1s,
           idleTimeout: 2s, publishTimeout: 3s, shutdownGrace: 4s, memory: 64MiB, publishesInFlight: 10,
           requestsInFlightPerClient: 11, requestsPerSecondPerClient: 12, bodyTimeout: 5s, writeTimeout: 6s}
  security: {privateSinks: true}
  telemetry: {log: {level: debug, format: json},
              otlp: {endpoint: 'https://collector:4318', headers: {X-Team: a}, sampling: 0.25}}",
    );
    let seconds = Duration::from_secs;
    let expected = Gateway {
        http: "127.0.0.1:0".parse().unwrap(),
        grpc: "[::1]:5".parse().unwrap(),
        backbone: Some(Backbone::embedded("/var/lib/tidegate")),
        resources: Some(PathBuf::from("/etc/tidegate")),
        create_topics_on_first_use: true,
        private_sinks: true,
        limits: Limits {
            request_body_bytes: 8 << 20,
            batch_events: 7,
            connections: 8,
            connections_per_address: 9,
            memory_bytes: Some(64 << 20),
            publishes_in_flight: 10,
            requests_in_flight_per_client: 11,
            requests_per_second_per_client: Some(12),
            body_timeout: seconds(5),
            write_timeout: seconds(6),
            header_timeout: seconds(1),
            idle_timeout: seconds(2),
            publish_timeout: seconds(3),
            shutdown_grace: seconds(4),
        },
        telemetry: Telemetry {
            log_level: LogLevel::Debug,
            log_format: LogFormat::Json,
            otlp: Some(Otlp {
                endpoint: "https://collector:4318".to_owned(),
                headers: vec![("x-team".to_owned(), "a".to_owned())],
                sampling: Ratio::new(0.25),
            }),
        },
    };
    assert_eq!(read, Ok(expected));
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = gateway(
        "  listener: {http: 127.0.0.1:1}
  listeners: {http: 0.0.0.0:3500, grpc: nowhere}
  backbone: amqpx://h:5672
  resources: ''
  topics: {createOnFirstUse: yes}
  limits: {requestBody: 1KiB, connections: 0, idleTimeout: 75}
  telemetry: {log: {level: INFO, format: xml}}
  security: {access: open}",
    )
    .unwrap_err();
    assert_eq!(
        faults,
        [
            "g.yaml:4:3: `spec.listener` is not known (did you mean `listeners`?)",
            "g.yaml:11:14: `spec.security.access` is not available in this version (remove it; the listeners serve this machine only)",
            "g.yaml:5:21: `spec.listeners.http`: `0.0.0.0:3500` can be reached from other machines, which needs `security.access`, and that is not available in this version (listen on 127.0.0.1 and put a proxy before it that knows who may come in)",
            "g.yaml:5:41: `spec.listeners.grpc`: `nowhere` is no address with a port (write for example `127.0.0.1:3500`)",
            "g.yaml:6:13: `spec.backbone`: `amqpx://h:5672` has an unknown scheme (did you mean `amqp:`?)",
            "g.yaml:7:14: `spec.resources`: `` is empty (name the folder with the resources, or remove the key)",
            "g.yaml:8:30: `spec.topics.createOnFirstUse` must be a boolean and is a text (write true or false, without quotes)",
            "g.yaml:9:25: `spec.limits.requestBody`: `1KiB` is out of range (write a size from 1MiB to 64MiB)",
            "g.yaml:9:44: `spec.limits.connections` is 0 and out of range (write a whole number from 1 to 1000000)",
            "g.yaml:9:60: `spec.limits.idleTimeout` must be a duration and is a number (give the number its unit: ms, s, m, h or d, for example `15s`)",
            "g.yaml:10:28: `spec.telemetry.log.level`: `INFO` is not known here (did you mean `info`?)",
            "g.yaml:10:42: `spec.telemetry.log.format`: `xml` is not known here (write one of: text, json)",
        ]
    );
}

#[test]
fn what_a_collector_is_sent_is_checked_and_its_secrets_are_only_named() {
    let faults = gateway(
        "  telemetry: {otlp: {endpoint: 'collector:4317', headers: {authorization: Bearer hush, 'a b': c}, sampling: 10}}",
    )
    .unwrap_err();
    assert_eq!(
        faults,
        [
            "g.yaml:4:32: `spec.telemetry.otlp.endpoint`: `collector:4317` is no URL of a collector (write for example `http://127.0.0.1:4318`)",
            "g.yaml:4:75: `spec.telemetry.otlp.headers.authorization` holds a secret (write it as `${env:NAME}` and set that variable in the environment of the gateway)",
            "g.yaml:4:88: `spec.telemetry.otlp.headers.a b` is no name of a header (correct the name)",
            "g.yaml:4:109: `spec.telemetry.otlp.sampling` is 10 and no ratio (write a number from 0 to 1)",
        ]
    );
    assert_eq!(
        gateway("  telemetry: {otlp: {headers: {}}}").unwrap_err(),
        ["g.yaml:4:15: `spec.telemetry.otlp.endpoint` is missing (add `endpoint: http://127.0.0.1:4318`)"]
    );
}

#[test]
fn a_configuration_is_one_gateway_and_nothing_else() {
    let one = "{apiVersion: tidegate.dev/v1, kind: Gateway}\n";
    let topic = "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: t}}\n";
    for (text, expected) in [
        (String::new(), "g.yaml: holds no `Gateway` (write one, beginning with `kind: Gateway`)"),
        (
            format!("{one}---\n{topic}"),
            "g.yaml: holds resources beside the `Gateway` (move them into a folder and name it with `resources` in the `Gateway`, or with `--resources`)",
        ),
        (
            format!("{one}---\n{{apiVersion: tidegate.dev/v1, kind: Gateway, metadata: {{name: b}}}}\n"),
            "g.yaml: holds more than one `Gateway` (remove all but one)",
        ),
    ] {
        assert_eq!(load_text(&text), Err(vec![expected.to_owned()]), "{text}");
    }
    let faults = gateway("  listeners: {http: 127.0.0.1:5, grpc: 127.0.0.1:5}").unwrap_err();
    assert_eq!(faults, ["g.yaml:4:3: `http` and `grpc` listen on the same address (give them different ports)"]);
    assert!(gateway("  listeners: {http: 127.0.0.1:0, grpc: 127.0.0.1:0}").is_ok());
    assert!(load(Path::new("/does/not/exist.yaml"), &no_variables).is_err());
}
