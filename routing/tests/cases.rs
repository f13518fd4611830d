//! Cases written by others from the texts of the specifications: filters of the CloudEvents Subscriptions API, and
//! answers of CloudEvents web hooks.

#![expect(clippy::print_stdout, reason = "a run without the cases must say so")]
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidegate_routing::filter::{explain, matches_all, parse_filters};
use tidegate_routing::handshake::{Allowed, Rate, Refusal, judge};
use tidegate_routing::{Answer, RetryHint, Verdict};
use tidegate_schemas::{Event, Value as Attribute};

/// The folder with the cases, or nothing where it is not there.
fn folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let folder = std::env::var_os("TIDEGATE_TESTDATA").map_or_else(|| root.join("../shared/testdata"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("{} is not there: the cases by others are not run", folder.display());
    None
}

fn load(path: &str) -> Option<Value> {
    let path = folder()?.join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

fn event(json: &Value) -> Event {
    let object = json.as_object().unwrap();
    let text = |name: &str| object[name].as_str().unwrap().to_owned();
    let mut builder = Event::builder(text("id"), text("source"), text("type"));
    for (name, value) in object {
        builder = match (name.as_str(), value) {
            ("specversion" | "id" | "source" | "type", _) => builder,
            ("subject", Value::String(subject)) => builder.subject(subject.clone()),
            (name, Value::String(text)) => builder.extension(name.to_owned(), Attribute::String(text.as_str().into())),
            (name, Value::Bool(flag)) => builder.extension(name.to_owned(), Attribute::Boolean(*flag)),
            (name, Value::Number(number)) => {
                let number = i32::try_from(number.as_i64().unwrap()).unwrap();
                builder.extension(name.to_owned(), Attribute::Integer(number))
            }
            (name, value) => panic!("{name}: {value}"),
        };
    }
    builder.build().unwrap()
}

#[test]
fn filters_of_the_subscriptions_api() {
    let Some(file) = load("events/subscription_filter_cases.json") else { return };
    let cases = file["cases"].as_array().unwrap();
    let (mut ran, mut with_sql) = (0, 0);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let filters = case["filters"].as_array().unwrap();
        with_sql += usize::from(filters.iter().any(|filter| filter.get("sql").is_some()));
        let parsed = parse_filters(&case["filters"]);
        match case["match"].as_bool() {
            Some(expected) => {
                let filters = parsed.unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
                let event = event(&case["event"]);
                assert_eq!(matches_all(&filters, &event), expected, "{name}: {}", case["rule"]);
                assert_eq!(explain(&filters, &event).matched, expected, "{name}: {}", case["rule"]);
            }
            None => {
                assert_eq!(case["reject"], Value::Bool(true), "{name}");
                assert!(parsed.is_err(), "{name}: {}", case["rule"]);
            }
        }
        ran += 1;
    }
    assert!(ran >= 18 && with_sql >= 4, "only {ran} cases ran, {with_sql} of them with expressions");
}

#[test]
fn answers_of_web_hooks() {
    const NOW: u64 = 1_792_567_600_000; // 2026-10-21T07:26:40Z, 80 s before the date that one case names.
    let Some(file) = load("webhooks/cloudevents_webhook_cases.json") else { return };
    let cases = file["delivery_responses"].as_array().unwrap();
    for case in cases {
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        let retry_after = case["headers"]["Retry-After"].as_str();
        let verdict = Verdict::of(Answer::Status { status, retry_after }, NOW);
        let seconds = match case["not_before_s"].as_u64() {
            Some(seconds) => Some(seconds),
            None => retry_after.map(|_| 80),
        };
        let hint = RetryHint { retry_after: seconds.map(Duration::from_secs), throttled: status == 429 };
        // Where the text leaves a choice, product documentation has made it: 400 is the event's fault, 404 the sink's.
        let expected = match case["outcome"].as_str().unwrap() {
            "delivered" | "accepted" => Verdict::Done,
            "failed" | "retry by policy (Knative retries 404)" => Verdict::RetryThenPause(hint),
            "gone" => Verdict::Pause,
            "permanent" | "permanent or retry by policy" => Verdict::EventAtFault,
            "retry" => Verdict::Retry(hint),
            other => panic!("{other}"),
        };
        assert_eq!(verdict, expected, "{case}");
    }
    assert!(cases.len() >= 16, "only {} cases", cases.len());
}

#[test]
fn handshakes_of_web_hooks() {
    let Some(file) = load("webhooks/cloudevents_webhook_cases.json") else { return };
    let cases = file["handshake"].as_array().unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let header = |part: &str, name: &str| case[part][name].as_str();
        let origin = header("request", "WebHook-Request-Origin").unwrap();
        let asked: Option<NonZeroU32> = header("request", "WebHook-Request-Rate").map(|rate| rate.parse().unwrap());
        let allowed = Allowed {
            origin: header("response", "WebHook-Allowed-Origin"),
            rate: header("response", "WebHook-Allowed-Rate"),
        };
        let outcome = judge(origin, asked, allowed);
        let Some(true) = case["granted"].as_bool() else {
            // The status is not asked for: 200, 405 and an answer that will be followed by a callback are all no consent.
            let refused = matches!(outcome, Err(Refusal::Silent | Refusal::OtherOrigin(_)));
            assert!(refused, "{name}: {outcome:?}");
            continue;
        };
        let expected = match &case["rate_per_minute"] {
            Value::Number(rate) => Rate::PerMinute(NonZeroU32::new(rate.as_u64().unwrap() as u32).unwrap()),
            // A target that does not answer the rate that it was asked for: its sender may assume that rate.
            Value::Null if case["conforming_target"] == Value::Bool(false) => Rate::PerMinute(asked.unwrap()),
            Value::Null => Rate::Unlimited,
            other => panic!("{name}: {other}"),
        };
        assert_eq!(outcome, Ok(expected), "{name}");
    }
    assert!(cases.len() >= 9, "only {} cases", cases.len());
}
