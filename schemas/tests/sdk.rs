//! The conversions to and from the event of the Rust SDK.
#![cfg(feature = "cloudevents-sdk")]

use bytes::Bytes;
use cloudevents::{AttributesReader, EventBuilder, EventBuilderV03, EventBuilderV10};
use serde_json::json;
use tidegate_schemas::{Data, Event, Faults, Timestamp, Value};

#[test]
fn what_both_can_say_returns() {
    let payloads = [
        (None, Data::None),
        (Some("application/json"), Data::Json(Bytes::from_static(br#"{"a":[1,"x",null]}"#))),
        (Some("text/plain"), Data::Text("text".into())),
        (Some("application/json"), Data::Binary(Bytes::from_static(b"{}"))),
        (None, Data::Binary(Bytes::from_static(&[0, 255]))),
    ];
    for (content_type, data) in payloads {
        let mut builder = Event::builder("1", "a/relative#source", "t")
            .subject("s")
            .time("1969-12-31T23:59:58.500+00:00")
            .data_schema("https://example.com/schema")
            .extension("text", Value::String("v".into()))
            .extension("number", Value::Integer(-7))
            .extension("truth", Value::Boolean(true))
            .data(data);
        if let Some(content_type) = content_type {
            builder = builder.data_content_type(content_type);
        }
        let event = builder.build().unwrap();
        let theirs = cloudevents::Event::from(event.clone());
        assert_eq!((theirs.id(), theirs.source().as_str(), theirs.ty()), ("1", "a/relative#source", "t"));
        assert_eq!(Event::try_from(theirs), Ok(event));
    }
}

#[test]
fn what_theirs_cannot_say_changes_as_documented() {
    let event = Event::builder("1", "/s", "t")
        .time("2018-04-05T18:31:00.10+01:00")
        .data_schema("HTTP://Example.com")
        .extension("bytes", Value::Binary(Bytes::from_static(b"Ma")))
        .extension("uri", Value::Uri("urn:x".into()))
        .extension("reference", Value::UriReference("/x".into()))
        .extension("at", Value::Timestamp(Timestamp::parse("2018-04-05t17:31:00z").unwrap()))
        .data(Data::Json(Bytes::from_static(b"{ \"b\": 1.50, \"a\": 1 }")))
        .build()
        .unwrap();
    let back = Event::try_from(cloudevents::Event::from(event.clone())).unwrap();
    assert_eq!(back.time().map(Timestamp::unix_nanoseconds), event.time().map(Timestamp::unix_nanoseconds));
    assert_eq!(back.time().unwrap().as_str(), "2018-04-05T17:31:00.100+00:00");
    assert_eq!(back.data_schema().unwrap(), "http://example.com/");
    for (name, text) in [("bytes", "TWE="), ("uri", "urn:x"), ("reference", "/x"), ("at", "2018-04-05t17:31:00z")] {
        assert_eq!(back.extension(name), Some(&Value::String(text.into())));
    }
    let tree: serde_json::Value = serde_json::from_slice(back.data().as_bytes()).unwrap();
    assert_eq!(tree, json!({"a": 1, "b": 1.5}));

    let number = Data::Json(Bytes::from_static(b"1e999"));
    let event = Event::builder("1", "/s", "t").data(number).build().unwrap();
    let back = Event::try_from(cloudevents::Event::from(event)).unwrap();
    assert_eq!(back.data(), &Data::Binary(Bytes::from_static(b"1e999")));
}

#[test]
fn what_theirs_lets_through_is_checked() {
    let theirs = EventBuilderV10::new()
        .id("")
        .source("a b")
        .ty("t")
        .extension("Capital", "v")
        .extension("large", 1_i64 << 40)
        .build()
        .unwrap();
    let Err(Faults(faults)) = Event::try_from(theirs) else { panic!("taken") };
    let mut named: Vec<&str> = faults.iter().map(|fault| &*fault.attribute).collect();
    named.sort_unstable();
    assert_eq!(named, ["Capital", "id", "large", "source"]);
}

#[test]
fn version_0_3_becomes_1_0() {
    let theirs = EventBuilderV03::new().id("1").source("/s").ty("t").subject("s").build().unwrap();
    let event = Event::try_from(theirs).unwrap();
    assert_eq!(event, Event::builder("1", "/s", "t").subject("s").build().unwrap());
}
