//! What resource files mean and what is said about faulty ones, through the ways in that others use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_routing::filter::Filter;
use tidegate_routing::{KeyFrom, RetryPolicy};
use tidegate_schemas::limits;

use super::*;

fn variables(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("hush-hush".to_owned()),
        "BROKEN" => Some("hush hush".to_owned()),
        "STAGE" => Some("prod".to_owned()),
        _ => None,
    }
}

/// Writes the files into a folder and gives it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load_files(files: &[(&str, &str)]) -> Result<Resources, Vec<String>> {
    let folder = folder(files);
    load(&[folder.path().to_owned()], &variables).map_err(|diagnostics| shown(folder.path(), &diagnostics))
}

/// Diagnostics without the name of the folder.
fn shown(folder: &Path, diagnostics: &[Diagnostic]) -> Vec<String> {
    let prefix = format!("{}/", folder.display());
    diagnostics.iter().map(|diagnostic| diagnostic.to_string().replace(&prefix, "")).collect()
}

fn good(text: &str) -> Resources {
    load_files(&[("f.yaml", text)]).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// Checks what is said about one file.
#[track_caller]
fn check_faults(text: &str, expected: &[&str]) {
    let faults = load_files(&[("f.yaml", text)]).expect_err("the file is faulty");
    assert_eq!(faults, expected, "\n{text}");
    assert!(!faults.iter().any(|fault| fault.contains("hush")), "a value of the environment is shown");
}

/// A subscription whose `spec` has these lines beside what must be there.
fn subscription(lines: &str) -> String {
    let base = "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: s}\nspec:\n  topics: [t]\n  sink: http://h/\n";
    format!("{base}{lines}\n")
}

#[test]
fn a_whole_subscription_is_read() {
    let resources = good(
        "apiVersion: tidegate.dev/v1
kind: Subscription
metadata: {name: large-orders}
spec:
  topics: [orders.placed, 'orders/*', shop.**]
  filters:
    - exact: {type: com.example.order.placed}
    - any: [{prefix: {region: eu}}, {not: {suffix: {subject: .test}}}]
    - sql: |
        type = 'com.example.order.placed'
          AND region IN ('eu', '$${x}')
    - cesql: EXISTS subject
  sink: http://127.0.0.1:8081/hook?token=${env:TOKEN}&plain=$${x}
  replyTo: topic://order-replies
  delivery:
    order: none
    maxInFlight: 7
    timeout: 1500ms
    retry: {maxAttempts: 3, maxAge: 2h, initial: 100ms, max: 1m30s}
    onExhausted: pauseKey
    deadLetterTopic: orders-dead
    from: 2026-10-21T07:28:00.5Z
",
    );
    let [subscription] = &resources.subscriptions[..] else { panic!() };
    assert_eq!(subscription.name, "large-orders");
    assert_eq!(subscription.origin.place, Place { line: 3, column: 18 });
    let topics: Vec<_> = subscription.topics.iter().map(|topic| topic.as_str()).collect();
    assert_eq!(topics, ["orders.placed", "orders.*", "shop.**"]);
    let [Filter::Exact(_), Filter::Any(_), Filter::Sql(sql), Filter::Sql(cesql)] = &subscription.filters[..] else {
        panic!("{:?}", subscription.filters)
    };
    assert_eq!(sql.text(), "type = 'com.example.order.placed'\n  AND region IN ('eu', '${x}')\n");
    assert_eq!(cesql.text(), "EXISTS subject");
    let Sink::Http(sink) = &subscription.sink else { panic!() };
    assert_eq!(sink.uri().query(), Some("token=hush-hush&plain=${x}"));
    assert!(!format!("{resources:?}").contains("hush"));
    assert_eq!(subscription.reply_to, Some(TopicName::parse("order-replies").unwrap()));
    assert_eq!(
        subscription.delivery,
        Delivery {
            order: Order::None,
            max_in_flight: 7,
            timeout: Duration::from_millis(1_500),
            retry: RetryPolicy {
                max_attempts: 3,
                max_age: Duration::from_secs(7_200),
                initial: Duration::from_millis(100),
                max: Duration::from_secs(90),
            },
            on_exhausted: OnExhausted::PauseKey,
            dead_letter_topic: TopicName::parse("orders-dead").unwrap(),
            from: StartFrom::Time(1_792_567_680_500),
        }
    );
    assert_eq!(resources.dead_letter_topics().map(TopicName::as_str).collect::<Vec<_>>(), ["orders-dead"]);
    assert_eq!(resources.warnings, []);
}

#[test]
fn what_is_not_written_has_the_documented_default() {
    let resources = good(&subscription(""));
    assert_eq!(
        resources.subscriptions[0].delivery,
        Delivery {
            order: Order::Key,
            max_in_flight: 32,
            timeout: Duration::from_secs(15),
            retry: RetryPolicy {
                max_attempts: 20,
                max_age: Duration::from_secs(86_400),
                initial: Duration::from_secs(1),
                max: Duration::from_secs(3_600),
            },
            on_exhausted: OnExhausted::Continue,
            dead_letter_topic: TopicName::parse("dead.s").unwrap(),
            from: StartFrom::Latest,
        }
    );
    assert_eq!(resources.subscriptions[0].filters, []);
    for from in ["earliest", "latest"] {
        let expected = if from == "earliest" { StartFrom::Earliest } else { StartFrom::Latest };
        let resources = good(&subscription(&format!("  delivery: {{from: {from}}}")));
        assert_eq!(resources.subscriptions[0].delivery.from, expected);
    }
}

#[test]
fn topics_and_apps_are_read_and_said_to_be_early() {
    let resources = good(
        "apiVersion: tidegate.dev/v1
kind: Topic
metadata: {name: orders/placed}
spec: {partitions: 4, retention: {age: 7d, bytes: 10GiB}, dedupe: {window: 30s}, keyFrom: subject}
---
{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: bare}}
---
apiVersion: tidegate.dev/v1
kind: App
metadata: {name: billing}
spec:
  endpoints: [http://127.0.0.1:8000]
  health: {path: /up, interval: 9s, timeout: 1s, threshold: 2}
",
    );
    let [placed, bare] = &resources.topics[..] else { panic!() };
    assert_eq!((placed.name.as_str(), placed.partitions.map(u32::from)), ("orders.placed", Some(4)));
    assert_eq!(placed.retention, Retention { age: Some(Duration::from_secs(604_800)), bytes: Some(10 << 30) });
    assert_eq!((placed.dedupe_window, placed.key_from), (Some(Duration::from_secs(30)), KeyFrom::Subject));
    assert_eq!(bare.retention, Retention { age: Some(Duration::from_secs(604_800)), bytes: None });
    assert_eq!((bare.partitions, bare.dedupe_window, bare.key_from), (None, None, KeyFrom::PartitionKey));
    let [app] = &resources.apps[..] else { panic!() };
    assert_eq!(app.endpoints, ["http://127.0.0.1:8000"]);
    let health = Health {
        path: "/up".to_owned(),
        interval: Duration::from_secs(9),
        timeout: Duration::from_secs(1),
        threshold: 2,
    };
    assert_eq!(app.health, Some(health));
    let warnings: Vec<_> =
        resources.warnings.iter().map(|warning| (warning.place.unwrap().line, &*warning.what)).collect();
    assert_eq!(warnings, [(10, "the app `billing` is read, and nothing in this version calls it")]);
}

#[test]
fn retention_is_an_age_and_bytes_or_without_a_bound() {
    let topic = |name: &str, retention: &str| {
        format!("{{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {{name: {name}}}, spec: {{{retention}}}}}\n")
    };
    let week = Some(limits::RETENTION_AGE);
    for (name, written, age, bytes) in [
        ("t", "", week, None),
        ("dead.s", "", Some(limits::RETENTION_DEAD_LETTERS_AGE), None),
        ("t", "retention: {bytes: 10GiB}", week, Some(10 << 30)),
        ("t", "retention: {age: 36h}", Some(Duration::from_secs(129_600)), None),
        ("t", "retention: {age: unlimited, bytes: unlimited}", None, None),
        ("t", "retention: {bytes: 2097152}", week, Some(2 << 20)),
    ] {
        assert_eq!(good(&topic(name, written)).topics[0].retention, Retention { age, bytes }, "{written}");
    }
    for (written, fault) in [
        ("{age: 7}", "`spec.retention.age` must be a duration and is a number"),
        ("{age: 0s}", "is out of range; write a duration from 1s to 36500d, or `unlimited`"),
        ("{age: forever}", "is not a duration"),
        ("{bytes: 1KiB}", "is out of range"),
        ("{bytes: 12}", "is out of range"),
        ("{size: 1GiB}", "`spec.retention.size` is not known"),
    ] {
        let faults = load_files(&[("f.yaml", &topic("t", &format!("retention: {written}")))]).unwrap_err();
        let wanted = fault.split("; ").next().unwrap_or(fault);
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{written}: {faults:?}");
    }
}

#[test]
fn topics_of_others_are_attached_by_the_name_that_they_have() {
    let topic =
        |spec: &str| format!("{{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {{name: t}}, spec: {{{spec}}}}}\n");
    let read = good(&topic("attach: {name: 'legacy orders/v1'}, foreign: dead-letter")).topics.remove(0);
    let attach = Attach { name: "legacy orders/v1".to_owned(), broker: None };
    assert_eq!((read.attach, read.foreign), (Some(attach), Foreign::DeadLetter));
    assert_eq!(good(&topic("")).topics[0].foreign, Foreign::Wrap);
    for (spec, fault) in [
        ("attach: {name: ''}", "is no name of a topic on a broker"),
        ("attach: legacy", "`spec.attach` must be a map"),
        ("attach: {}", "`spec.attach.name` is missing"),
        ("attach: {name: a}, partitions: 3", "`spec.partitions` is what the topic has on the broker"),
        ("attach: {name: a}, retention: {age: 1d}", "`spec.retention` is what the topic has on the broker"),
        ("foreign: drop", "`drop` is not known here (write one of: wrap, dead-letter)"),
    ] {
        let faults = load_files(&[("f.yaml", &topic(spec))]).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains(fault), "{spec}: {faults:?}");
    }
}

#[test]
fn every_fault_of_a_file_is_told_at_once() {
    check_faults(
        "apiVersion: tidegate.dev/v1
kind: Subscription
metadata: {name: s, labels: {}}
spec:
  topic: [a]
  filters:
    - exact: {type: 5, Kind: x}
    - sql: \"type = 'x' AND\"
    - prefx: {type: x}
  sink: htp://h/
  delivery:
    oder: key
    order: keys
    maxInFlight: 0
    timeout: 15
    retry: {maxAttempts: many, maxAge: 1 day, initial: 2m, max: 1m}
    from: 17
---
kind: Subscription
metadata: {name: t}
",
        &[
            "f.yaml:3:21: `metadata.labels` is not known (known here: name)",
            "f.yaml:4:1: `spec.topics` is missing (add `topics: [orders.placed]`)",
            "f.yaml:5:3: `spec.topic` is not known (did you mean `topics`?)",
            "f.yaml:7:21: `spec.filters[0].exact.type`: must be a text (put the value in quotes, attributes are compared as text)",
            "f.yaml:7:24: `spec.filters[0].exact.Kind`: no event has an attribute `Kind`: their names are lower-case letters and digits (correct the filter)",
            "f.yaml:8:12: `spec.filters[1].sql`: in the expression, line 1, column 15: expected a value and found the end (a value is an attribute, a number, a text in quotes, `TRUE`, `FALSE` or a function)",
            "f.yaml:9:7: `spec.filters[2].prefx`: there is no filter dialect `prefx` (use exact, prefix, suffix, all, any, not, sql, cel)",
            "f.yaml:10:9: `spec.sink`: `htp://h/` has an unknown scheme (did you mean `http://`?)",
            "f.yaml:12:5: `spec.delivery.oder` is not known (did you mean `order`?)",
            "f.yaml:13:12: `spec.delivery.order`: `keys` is not known here (did you mean `key`?)",
            "f.yaml:14:18: `spec.delivery.maxInFlight` is 0 and out of range (write a whole number from 1 to 1024)",
            "f.yaml:15:14: `spec.delivery.timeout` must be a duration and is a number (give the number its unit: ms, s, m, h or d, for example `15s`)",
            "f.yaml:16:26: `spec.delivery.retry.maxAttempts` must be a number and is a text (write a whole number from 1 to 1000)",
            "f.yaml:16:40: `spec.delivery.retry.maxAge`: `1 day` has no unit (write a whole number with ms, s, m, h or d behind it, for example `15s`)",
            "f.yaml:16:56: the first delay `initial` is longer than the longest one, `max` (write `initial` below `max`; without being written they are 1s and 3600s)",
            "f.yaml:17:11: `spec.delivery.from` must be a text and is a number (put it in quotes)",
            "f.yaml:19:1: `apiVersion` is missing (add `apiVersion: tidegate.dev/v1`)",
        ],
    );
}

#[test]
fn faulty_expressions_are_told_with_both_places_and_no_variable() {
    check_faults(
        &subscription(
            "  filters:
    - not:
        cesql: |
          EXISTS subject
            AND type == 'x'
    - sql: a = 1 AND b = 2 OR NOT c = 3
    - sql: ${env:TOKEN}(1)
    - sql: region = '${env:TOKEN}
    - sql: true
    - cel: |
        event.data.amount > 100 &&
          evnt.type == 'x'
    - cel: event.data.name == '${env:TOKEN}",
        ),
        &[
            "f.yaml:10:11: `spec.filters[0].not.cesql`: in the expression, line 2, column 12: there is no operator `==` (write `=`)",
            "f.yaml:12:12: `spec.filters[1].sql`: in the expression, line 1, column 17: `AND` and `OR` bind alike, and not everybody reads them in the same order (write `(a AND b) OR c` or `a AND (b OR c)`)",
            "f.yaml:12:12: `spec.filters[1].sql`: in the expression, line 1, column 20: `NOT` binds tighter than the operator behind it, so only what stands between them is negated (put what is meant into parentheses, as in `NOT (type = 'x')`, or write `!=`, `NOT LIKE` or `NOT IN`)",
            "f.yaml:13:12: `spec.filters[2].sql` is not valid with its variables filled in (check the variables in `${env:TOKEN}(1)`)",
            "f.yaml:14:12: `spec.filters[3].sql` is not valid with its variables filled in (check the variables in `region = '${env:TOKEN}`)",
            "f.yaml:15:12: `spec.filters[4].sql`: `sql` takes an expression as a text (put it in quotes, such as `\"type = 'com.example.placed'\"`)",
            "f.yaml:17:9: `spec.filters[5].cel`: in the expression, line 2, column 3: there is no variable of this name (attributes are asked for as `event.type`, data as `event.data.amount`; put text into quotes)",
            "f.yaml:19:12: `spec.filters[6].cel` is not valid with its variables filled in (check the variables in `event.data.name == '${env:TOKEN}`)",
        ],
    );
}

#[test]
fn what_is_not_built_is_refused_and_never_ignored() {
    check_faults(
        "apiVersion: tidegate.dev/v1
kind: Subscription
metadata: {name: s}
spec:
  topics: [t]
  sink: app://billing/orders
  replyTo: topic://order-replies
  delivery:
    onExhausted: pauseKey
    retry: {policy: slow}
    from: partition=0:17
---
apiVersion: tidegate.dev/v1
kind: Subscription
metadata: {name: s2}
spec: {topics: [t, state.carts], sink: 'app://mail'}
---
{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: t}, spec: {schema: {subject: t-value}}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: x, namespace: y}
spec: {type: pubsub.redis}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
",
        &[
            "f.yaml:6:9: `spec.sink`: `app://billing/orders` has the scheme `app`, which is not available in this version (use http, https, topic or binding)",
            "f.yaml:10:13: `spec.delivery.retry.policy` is not available in this version (write maxAttempts, maxAge, initial and max out)",
            "f.yaml:11:11: `spec.delivery.from`: `partition=0:17` is neither earliest nor latest nor a time, and positions are not available here in this version (write earliest, latest or a time such as `2026-10-21T07:28:00Z`)",
            "f.yaml:16:20: `spec.topics[1]`: `state.carts` belongs to the gateway and cannot be read in this version (choose another topic)",
            "f.yaml:16:40: `spec.sink`: `app://mail` has the scheme `app`, which is not available in this version (use http, https, topic or binding)",
            "f.yaml:18:72: `spec.schema` is not available in this version (remove it; data is not checked against schemas)",
            "f.yaml:21:7: the kind `Component` of `dapr.io/v1alpha1` is not available in this version (use the kinds of `tidegate.dev/v1`, or remove the document)",
            "f.yaml:26:7: the kind `Subscription` of `dapr.io/v2alpha1` is not available in this version (use the kinds of `tidegate.dev/v1`, or remove the document)",
        ],
    );
}

#[test]
fn each_fault_of_a_document_names_its_place_and_its_cure() {
    let cases: &[(&str, &str)] = &[
        ("just text", "f.yaml:1:1: the document must be a map and is a text (write `key: value` lines below it)"),
        (
            "{apiVersion: tidegate.dev/v2, kind: Topic}",
            "f.yaml:1:14: `apiVersion` is `tidegate.dev/v2`, which is not known (write `apiVersion: tidegate.dev/v1`)",
        ),
        ("{apiVersion: tidegate.dev/v1, kind: topic}", "f.yaml:1:37: there is no kind `topic` (did you mean `Topic`?)"),
        (
            "{apiVersion: tidegate.dev/v1, kind: Gateway}",
            "f.yaml:1:37: a `Gateway` is the configuration of one process and no resource (move it into a file of its own and name that with `serve --config`)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic}",
            "f.yaml:1:1: `metadata` is missing (add `metadata: {name: my-name}`)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: 5}}",
            "f.yaml:1:61: `metadata.name` must be a text and is a number (put it in quotes)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: a b}}",
            "f.yaml:1:61: `metadata.name`: `a b` holds ' ' at byte 1 (use only the letters A to Z and a to z, digits, `_`, `-` and `.`)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: state.x}}",
            "f.yaml:1:61: the topic `state.x` belongs to the gateway itself (choose a name that begins neither with `tidegate.` nor with `state.`)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: \"${env:STAGE}.x\"}}",
            "f.yaml:1:61: `metadata.name` takes no variables (write the name out)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: x}, spec: {partitions: 257}}",
            "f.yaml:1:84: `spec.partitions` is 257 and out of range (write a whole number from 1 to 256)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: x}, spec: {partitions: '4'}}",
            "f.yaml:1:84: `spec.partitions` must be a number and is a text (write a whole number from 1 to 256)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: x}, spec: {dedupe: {}}}",
            "f.yaml:1:72: `spec.dedupe.window` is missing (add `window: 2m`)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Topic, metadata: {name: x}, spec: {dedupe: {window: 25h}}}",
            "f.yaml:1:89: `spec.dedupe.window`: `25h` is out of range (write a duration from 0ms to 1d)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {name: x}}",
            "f.yaml:1:1: `spec` is missing (add a `spec:` with the settings below it)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: App, metadata: {name: x}, spec: {endpoints: []}}",
            "f.yaml:1:81: `spec.endpoints` is an empty list (give it at least one entry)",
        ),
        (
            "{apiVersion: tidegate.dev/v1, kind: App, metadata: {name: x}, spec: {endpoints: ['http://h/x']}}",
            "f.yaml:1:82: `spec.endpoints[0]`: `http://h/x` has a path, and an endpoint is an address only (write for example `http://127.0.0.1:8000`)",
        ),
        (
            "a: b: c",
            "f.yaml:1:5: is not YAML: mapping values are not allowed in this context (correct the syntax here or above)",
        ),
    ];
    for (text, expected) in cases {
        let faults: Vec<_> = load_files(&[("f.yaml", text)])
            .expect_err("the file is faulty")
            .into_iter()
            .filter(|fault| !fault.contains("warning: "))
            .collect();
        assert_eq!(faults, [*expected], "\n{text}");
    }
}

#[test]
fn each_fault_of_a_subscription_names_its_place_and_its_cure() {
    let cases: &[(&str, &str)] = &[
        (
            "  filters: {exact: {type: x}}",
            "f.yaml:7:12: `spec.filters`: must be a list of filters, such as `[{exact: {type: com.example.placed}}]` (correct the filter)",
        ),
        (
            "  delivery: [order]",
            "f.yaml:7:13: `spec.delivery` must be a map and is a list (write `key: value` lines below it)",
        ),
        (
            "  delivery: {order: yes}",
            "f.yaml:7:21: `spec.delivery.order`: `yes` is not known here (write one of: key, none)",
        ),
        (
            "  delivery: {timeout: 11m}",
            "f.yaml:7:23: `spec.delivery.timeout`: `11m` is out of range (write a duration from 1ms to 10m)",
        ),
        (
            "  delivery: {timeout: 15sec}",
            "f.yaml:7:23: `spec.delivery.timeout`: `15sec` has an unknown unit (write a whole number with ms, s, m, h or d behind it, for example `15s`)",
        ),
        (
            "  delivery: {timeout: }",
            "f.yaml:7:21: `spec.delivery.timeout` must be a text and is empty (give it a value, or remove the key)",
        ),
        (
            "  delivery: {maxInFlight: 1.5}",
            "f.yaml:7:27: `spec.delivery.maxInFlight` is 1.5 and out of range (write a whole number from 1 to 1024)",
        ),
        (
            "  delivery: {deadLetterTopic: tidegate.x}",
            "f.yaml:7:31: `spec.delivery.deadLetterTopic`: `tidegate.x` belongs to the gateway itself (choose another name)",
        ),
        (
            "  delivery: {deadLetterTopic: 'd.*'}",
            "f.yaml:7:31: `spec.delivery.deadLetterTopic`: `d.*` holds a wildcard at byte 2, and a single topic is needed here (name the topic)",
        ),
        (
            "  delivery: {from: 1969-01-01T00:00:00Z}",
            "f.yaml:7:20: `spec.delivery.from`: `1969-01-01T00:00:00Z` is before 1970 (write earliest, latest or a time such as `2026-10-21T07:28:00Z`)",
        ),
        ("  sink: http://other/", "f.yaml:7:3: `sink` is written twice, the first time in line 6 (remove one)"),
        (
            "  delivery: {deadLetterTopic: t}",
            "f.yaml:5:12: the subscription `s` reads its own dead-letter topic `t` (redrive dead letters instead, or give `delivery.deadLetterTopic` another name)",
        ),
    ];
    for (lines, expected) in cases {
        check_faults(&subscription(lines), &[expected]);
    }
    let topics: &[(&str, &str)] = &[
        ("t", "f.yaml:1:87: `spec.topics` must be a list and is a text (write it as `[first, second]`)"),
        ("[]", "f.yaml:1:87: `spec.topics` is an empty list (give it at least one entry)"),
        (
            "['a.**.b']",
            "f.yaml:1:88: `spec.topics[0]`: `a.**.b` holds `**` at byte 2 before its end (`**` stands for the rest and may only be the last segment)",
        ),
        (
            "['dead.*']",
            "f.yaml:1:88: `spec.topics[0]`: `dead.*` can never match: wildcards do not reach topics under `dead.` (name the topic instead)",
        ),
        ("[a, {b: c}]", "f.yaml:1:91: `spec.topics[1]` must be a text and is a map (write a single value)"),
        ("[a/b, a.b]", "f.yaml:1:93: `spec.topics[1]`: `a.b` is named twice (remove one)"),
    ];
    for (topics, expected) in topics {
        check_faults(
            &format!(
                "{{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {{name: s}}, spec: {{topics: {topics}, sink: 'http://h/'}}}}"
            ),
            &[expected],
        );
    }
}

#[test]
fn replies_go_to_a_topic_that_does_not_lead_back() {
    check_faults(
        "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: a}\nspec: {topics: [asks], sink: 'http://host/', replyTo: 'topic://answers'}\n---\n\
         apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: b}\nspec: {topics: [answers], sink: 'topic://other', replyTo: 'topic://asks'}\n---\n\
         apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: c}\nspec: {topics: [t], sink: 'http://host/', replyTo: 'http://host/'}\n---\n\
         apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: d}\nspec: {topics: [t], sink: 'http://host/', delivery: {onExhausted: stop}}\n",
        &[
            "f.yaml:4:30: subscriptions feed each other: `a` to topic://answers to `b` to topic://asks to `a` (send one of them to a topic that none of them reads)",
            "f.yaml:14:52: `spec.replyTo`: `http://host/` is no topic (replies are published, so write for example `topic://replies`)",
            "f.yaml:19:67: `spec.delivery.onExhausted`: `stop` is not known here (write one of: continue, pauseKey)",
        ],
    );
}

#[test]
fn values_of_the_environment_are_never_shown() {
    check_faults(
        &subscription(
            "  filters: [{exact: {subject: '${env:MISSING}'}}]\n  delivery: {deadLetterTopic: '${env:BROKEN}', order: '${env:TOKEN}', timeout: '${env:BROKEN}', from: '${env:TOKEN}'}",
        ),
        &[
            "f.yaml:7:31: `spec.filters[0].exact.subject` needs the variable `MISSING`, which is not set (set `MISSING` in the environment of the gateway; a request to its API takes no variables)",
            "f.yaml:8:31: `spec.delivery.deadLetterTopic` is not valid with its variables filled in (check the variables in `${env:BROKEN}`)",
            "f.yaml:8:55: `spec.delivery.order` is not valid with its variables filled in (check the variables in `${env:TOKEN}`)",
            "f.yaml:8:80: `spec.delivery.timeout` is not valid with its variables filled in (check the variables in `${env:BROKEN}`)",
            "f.yaml:8:103: `spec.delivery.from` is not valid with its variables filled in (check the variables in `${env:TOKEN}`)",
        ],
    );
    check_faults(
        "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: s}\nspec: {topics: ['${env:TOKEN}.a', \"${env:TOKEN}_a\"], sink: 'topic://${env:TOKEN}_a'}\n---\n\
         apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: u}\nspec: {topics: ['${secret:x}', '${env:', '${}'], sink: 'http://${env:BROKEN}/'}\n",
        &[
            "f.yaml:4:35: the topic `${env:TOKEN}_a` differs only in `.` and `_` from `${env:TOKEN}.a` at f.yaml:4:17 (rename one: not every broker can hold both)",
            "f.yaml:4:60: the topic `topic://${env:TOKEN}_a` differs only in `.` and `_` from `${env:TOKEN}.a` at f.yaml:4:17 (rename one: not every broker can hold both)",
            "f.yaml:4:60: subscriptions feed each other: `s` to topic://${env:TOKEN}_a to `s` (send one of them to a topic that none of them reads)",
            "f.yaml:9:17: `spec.topics[0]` holds `${secret:x}`, which is not known (write `${env:NAME}`, or `$${` for the two characters themselves)",
            "f.yaml:9:32: `spec.topics[1]` has a `${` without a `}` (write `${env:NAME}`, or `$${` for the two characters themselves)",
            "f.yaml:9:42: `spec.topics[2]` holds `${}`, which is not known (write `${env:NAME}`, or `$${` for the two characters themselves)",
            "f.yaml:9:56: `spec.sink` is not valid with its variables filled in (check the variables in `http://${env:BROKEN}/`)",
        ],
    );
}

/// A subscription in one line.
fn short(name: &str, topics: &str, sink: &str) -> String {
    format!(
        "{{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {{name: {name}}}, spec: {{topics: {topics}, sink: '{sink}'}}}}\n"
    )
}

#[test]
fn names_are_unique_and_do_not_collide_across_files() {
    let faults = load_files(&[
        (
            "b.yml",
            &format!("{}---\n{}", short("one", "[orders_placed]", "http://h/"), short("a_b", "[x]", "http://h/")),
        ),
        (
            "a.yaml",
            &format!("{}---\n{}", short("one", "[orders.placed]", "http://h/"), short("a.b", "[x]", "http://h/")),
        ),
        ("c.txt", "is not read"),
        (".hidden.yaml", "is not read"),
    ])
    .unwrap_err();
    assert_eq!(
        faults,
        [
            "b.yml:1:68: there are two Subscriptions named `one`, the other one at a.yaml:1:68 (rename or remove one)",
            "b.yml:1:90: the topic `orders_placed` differs only in `.` and `_` from `orders.placed` at a.yaml:1:90 (rename one: not every broker can hold both)",
            "b.yml:3:68: the topic `dead.a_b` differs only in `.` and `_` from `dead.a.b` at a.yaml:3:68 (rename one: not every broker can hold both)",
        ]
    );
}

#[test]
fn static_cycles_are_refused() {
    let load = |documents: &[String]| load_files(&[("f.yaml", &documents.join("---\n"))]);
    // A chain, a fan-in and a wildcard that does not reach back are no cycles.
    let chain = [
        short("a", "[t1]", "topic://t2"),
        short("b", "[t2]", "topic://t3"),
        short("c", "[t1, t2]", "topic://t3"),
        short("d", "['x.*']", "topic://x.y.z"),
    ];
    assert!(load(&chain).is_ok(), "{:?}", load(&chain));
    let faults = load(&[
        short("a", "[t1]", "topic://t2"),
        short("b", "[t2]", "topic://t3"),
        short("c", "['**']", "topic://t1"),
        short("d", "[u]", "topic://u"),
    ])
    .unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[0].contains("`a` to topic://t2 to `c` to topic://t1 to `a`"), "{faults:#?}");
    assert!(faults[1].contains("`b` to topic://t3 to `c` to topic://t1 to `a` to topic://t2 to `b`"), "{faults:#?}");
    assert!(faults[2].starts_with("f.yaml:7:") && faults[2].contains("`d` to topic://u to `d`"), "{faults:#?}");
    // A topic that is somebody's dead-letter topic is not reached by a wildcard, whatever its name is.
    let dead = "{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {name: z}, spec: {topics: [q], sink: 'http://h/', delivery: {deadLetterTopic: lost}}}\n";
    assert!(load(&[short("w", "['**']", "topic://lost"), dead.to_owned()]).is_ok());
    assert!(load(&[short("w", "['**']", "topic://lost")]).is_err(), "the control: without that subscription it is");
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let folder = folder(&[
        ("big.yaml", &"#".repeat(limits::RESOURCE_FILE_BYTES + 1)),
        ("ok.yaml", &short("a", "[t]", "http://h/")),
    ]);
    std::fs::write(folder.path().join("latin.yaml"), b"a: 1\nb: \xe9\n").unwrap();
    let paths = [folder.path().to_owned(), folder.path().join("missing.yaml")];
    let faults = shown(folder.path(), &load(&paths, &variables).unwrap_err());
    assert_eq!(faults[0], "big.yaml: has more than 1048576 bytes (split the file)");
    assert_eq!(faults[1], "latin.yaml: is not UTF-8 in line 2 (save it as UTF-8)");
    assert!(faults[2].starts_with("missing.yaml: cannot be read: "), "{faults:?}");
    assert_eq!(faults.len(), 3);
    // An empty folder and a folder that is given as a file say nothing wrong.
    let empty = tempfile::tempdir().unwrap();
    assert!(load(&[empty.path().to_owned()], &variables).unwrap().subscriptions.is_empty());
    assert!(load(&[folder.path().join("ok.yaml")], &variables).is_ok());
}

#[test]
fn a_report_counts_and_shows_and_serialises() {
    let text = format!(
        "{}---\n{{apiVersion: tidegate.dev/v1, kind: Gateway, spec: {{backbone: 'nats://u:secret@h'}}}}\n---\n{{apiVersion: tidegate.dev/v1, kind: App, metadata: {{name: t}}, spec: {{endpoints: ['http://h']}}}}\n",
        short("a", "[t]", "http://h/")
    );
    let folder = folder(&[("f.yaml", &text)]);
    let report = check(&[folder.path().join("f.yaml")], &variables);
    let prefix = format!("{}/", folder.path().display());
    let lines = report.to_string().replace(&prefix, "");
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        [
            "f.yaml:3:63: `spec.backbone` holds a secret itself, and files only name them (write `${env:NAME}` or `{secretKeyRef: {name: NAME}}`, and set NAME in the environment of the gateway)",
            "f.yaml:5:59: warning: the app `t` is read, and nothing in this version calls it (subscribe its address with `sink: http://…`)",
            "1 file, 3 resources: 1 error, 1 warning",
        ]
    );
    assert!(!report.is_ok());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["diagnostics"][0]["line"], 3);
    assert_eq!(json["diagnostics"][0]["severity"], "error");
    assert_eq!(json["diagnostics"][1]["severity"], "warning");
    assert_eq!(json["files"], 1);
    let good = check(&[PathBuf::from("/does/not/exist.yaml")], &variables);
    assert_eq!((good.errors(), good.files), (1, 1));
}

proptest::proptest! {
    /// Whatever a file holds, reading it ends with an answer.
    #[test]
    fn no_file_stops_the_reader(text in "([a-z]{1,3}: |- |\\[|\\]|\\{|\\}|&a |\\*a|'|\"|\\||\n| |---\n|,|#|!x |\\$\\{env:|[0-9]|kind: Topic\n|spec:\n){0,40}") {
        let mut collected = Collected::default();
        read_documents(&"f".into(), &text, &variables, true, &mut collected);
    }
}

#[test]
fn texts_that_somebody_sent_are_read_together_and_no_file_that_they_name_is() {
    let text = |name: &str, request: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: {name}}}\nspec:\n  topics: [t]\n  \
             sink: https://127.0.0.1:1/{request}\n"
        )
    };
    let tls = text("a", "\n  tls: {ca: /nowhere/ca.pem}");
    let none = |_: &str| None;
    let read = super::parse_all(&[("a.yaml".into(), &tls), ("b.yaml".into(), &text("b", ""))], &none);
    assert_eq!(read.unwrap().subscriptions.len(), 2);
    assert!(super::parse("a.yaml", &tls, &none).is_err(), "a file of this machine is read where it is named");
    let faults = super::parse_all(&[("b.yaml".into(), &text("a", "")), ("a.yaml".into(), &text("a", ""))], &none);
    let faults = faults.unwrap_err();
    assert!(faults.len() == 1 && &*faults[0].file == "a.yaml" && faults[0].what.contains("b.yaml"), "{faults:?}");
}
