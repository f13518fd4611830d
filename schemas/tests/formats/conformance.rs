//! The JSON cases of cloudevents/conformance and of the Java SDK.

use bytes::Bytes;
use serde_json::Value as Json;
use tidegate_schemas::{Data, Event, Limits, Timestamp, Value, json};

use crate::round_trip::check_every_format;
use crate::tally::{Tally, json_file, testdata};

fn read(document: &Json) -> Result<Event, String> {
    json::read(Bytes::from(serde_json::to_vec(document).unwrap()), &Limits::default())
        .map_err(|error| error.to_string())
}

fn read_batch(document: &Json) -> Result<Vec<Event>, String> {
    let document = Bytes::from(serde_json::to_vec(document).unwrap());
    json::read_batch(document, &Limits::default()).map_err(|error| error.to_string())
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, String>) -> Result<(), String> {
    match result {
        Ok(taken) => Err(format!("is invalid and was taken: {taken:?}")),
        Err(_) => Ok(()),
    }
}

/// The golden events of format/README.md. That file gives `simpleTextData` the id "simpleData", which its own data files
/// do not; the data files are followed.
pub(crate) fn golden(sample: &str) -> Event {
    let builder = Event::builder(sample, "https://cloudevents.io", "io.cloudevents.test");
    let builder = match sample {
        "minimal" => builder,
        "minimalWithTime" => builder.time("2018-04-05T17:31:00Z"),
        "minimalWithRelativeSource" => Event::builder(sample, "#fragment", "io.cloudevents.test"),
        "allCore" => builder
            .data_content_type("text/plain")
            .data_schema("https://cloudevents.io/dataschema")
            .subject("tests")
            .time("2018-04-05T17:31:00Z"),
        "simpleTextData" => builder.data_content_type("text/plain").data(Data::Text("Simple text".into())),
        "allExtensionTypes" => builder
            .extension("extinteger", Value::Integer(10))
            .extension("extboolean", Value::Boolean(true))
            .extension("extstring", Value::String("text".into()))
            .extension("extbinary", Value::Binary(Bytes::from_static(&[77, 97])))
            .extension("exttimestamp", Value::Timestamp(Timestamp::parse("2023-03-31T15:12:00Z").unwrap()))
            .extension("exturi", Value::Uri("https://cloudevents.io".into()))
            .extension("exturiref", Value::UriReference("//authority/path".into())),
        other => panic!("there is no golden event {other}"),
    };
    builder.build().unwrap()
}

pub(crate) fn golden_batch(sample: &str) -> Vec<Event> {
    match sample {
        "empty" => vec![],
        "minimal" => vec![golden("minimal")],
        "minimal2" => vec![golden("minimal"), golden("minimal")],
        "minimalAndAllCore" => vec![golden("minimal"), golden("allCore")],
        "minimalAndAllExtensionTypes" => vec![golden("minimal"), golden("allExtensionTypes")],
        other => panic!("there is no golden batch {other}"),
    }
}

/// Equal in what CloudEvents is about: times as instants, and the types of extensions only as far as JSON has them.
pub(crate) fn check_equal(found: &Event, expected: &Event) -> Result<(), String> {
    let instant = |event: &Event| event.time().map(Timestamp::unix_nanoseconds);
    let attributes = |event: &Event| {
        let context = ["id", "source", "type", "subject", "datacontenttype", "dataschema"].map(String::from);
        let extensions = event.extensions().map(|(name, _)| name.to_string());
        let all = context.into_iter().chain(extensions);
        all.map(|name| (name.clone(), event.attribute(&name).map(|it| it.into_owned()))).collect::<Vec<_>>()
    };
    let same = instant(found) == instant(expected)
        && attributes(found) == attributes(expected)
        && found.data() == expected.data();
    if same { check_every_format(found) } else { Err(format!("found {found:?}, expected {expected:?}")) }
}

fn check_file(file: &'static str, check: impl Fn(&Json) -> Result<(), String>) {
    let Some(folder) = testdata("cloudevents/format/json") else { return };
    let mut tally = Tally::new(file);
    for test in json_file(&folder.join(file))["tests"].as_array().unwrap() {
        tally.decided(test["id"].as_str().unwrap(), check(test));
    }
    tally.finish();
}

#[test]
fn valid_events() {
    check_file("valid-events.json", |test| {
        check_equal(&read(&test["event"])?, &golden(test["sampleId"].as_str().unwrap()))
    });
}

#[test]
fn invalid_events() {
    check_file("invalid-events.json", |test| refused(read(&test["event"])));
}

#[test]
fn valid_batches() {
    check_file("valid-batches.json", |test| {
        let found = read_batch(&test["batch"])?;
        let expected = golden_batch(test["sampleId"].as_str().unwrap());
        if found.len() != expected.len() {
            return Err(format!("{} events instead of {}", found.len(), expected.len()));
        }
        found.iter().zip(&expected).try_for_each(|(found, expected)| check_equal(found, expected))
    });
}

#[test]
fn invalid_batches() {
    check_file("invalid-batches.json", |test| refused(read_batch(&test["batch"])));
}

#[test]
fn java_sdk() {
    let Some(folder) = testdata("cloudevents/sdk-java/json-jackson/v1") else { return };
    let mut tally = Tally::new("sdk-java/json-jackson/v1");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let outcome = read(&json_file(&path));
        let result = match name.starts_with("fail_") {
            true => refused(outcome),
            false => outcome.and_then(|event| check_every_format(&event)),
        };
        tally.decided(name, result);
    }
    tally.finish();
}
