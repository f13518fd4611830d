//! The Protobuf format against messages that are declared as its schema declares them, with texts and a map: what is on the
//! wire must be the same.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::{Message, Oneof};
use serde_json::Value as Json;
use tidegate_schemas::limits::{self, Limit};
use tidegate_schemas::protobuf::{self, ReadBatchError, ReadError};
use tidegate_schemas::{Data, Event, Limits, Timestamp, Value};

use crate::conformance::{check_equal, golden, golden_batch, refused};
use crate::round_trip::check_every_format;
use crate::tally::{Tally, json_file, testdata};

#[derive(Clone, PartialEq, Message)]
struct CloudEvent {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    spec_version: String,
    #[prost(string, tag = "4")]
    kind: String,
    #[prost(btree_map = "string, message", tag = "5")]
    attributes: BTreeMap<String, AttributeValue>,
    #[prost(oneof = "Payload", tags = "6, 7, 8")]
    data: Option<Payload>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeValue {
    #[prost(oneof = "Attribute", tags = "1, 2, 3, 4, 5, 6, 7")]
    attribute: Option<Attribute>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Attribute {
    #[prost(bool, tag = "1")]
    Boolean(bool),
    #[prost(int32, tag = "2")]
    Integer(i32),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(bytes, tag = "4")]
    Bytes(Vec<u8>),
    #[prost(string, tag = "5")]
    Uri(String),
    #[prost(string, tag = "6")]
    UriReference(String),
    #[prost(message, tag = "7")]
    Timestamp(ProtobufTimestamp),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ProtobufTimestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Oneof)]
enum Payload {
    #[prost(bytes, tag = "6")]
    Binary(Vec<u8>),
    #[prost(string, tag = "7")]
    Text(String),
    #[prost(message, tag = "8")]
    Proto(Any),
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Batch {
    #[prost(message, repeated, tag = "1")]
    events: Vec<CloudEvent>,
}

/// A message from its JSON form (protobuf's own, not that of CloudEvents), as far as the cases use it.
fn message(json: &Json) -> CloudEvent {
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let attributes = json["attributes"].as_object().into_iter().flatten();
    let data = json["text_data"].as_str().map(|text| Payload::Text(text.to_owned()));
    CloudEvent {
        id: text("id"),
        source: text("source"),
        spec_version: text("specVersion"),
        kind: text("type"),
        attributes: attributes.map(|(name, value)| (name.clone(), attribute(value))).collect(),
        data,
    }
}

fn attribute(json: &Json) -> AttributeValue {
    let attribute = json.as_object().unwrap().iter().next().map(|(field, value)| {
        let text = || value.as_str().unwrap().to_owned();
        match field.as_str() {
            "ceBoolean" => Attribute::Boolean(value.as_bool().unwrap()),
            "ceInteger" => Attribute::Integer(value.as_i64().unwrap() as i32),
            "ceString" => Attribute::String(text()),
            "ceBytes" => Attribute::Bytes(STANDARD.decode(text()).unwrap()),
            "ceUri" => Attribute::Uri(text()),
            "ceUriRef" => Attribute::UriReference(text()),
            "ceTimestamp" => {
                let nanoseconds = Timestamp::parse(text()).unwrap().unix_nanoseconds();
                let seconds = (nanoseconds / 1_000_000_000) as i64;
                Attribute::Timestamp(ProtobufTimestamp { seconds, nanos: (nanoseconds % 1_000_000_000) as i32 })
            }
            other => panic!("{other}"),
        }
    });
    AttributeValue { attribute }
}

fn read(message: &CloudEvent) -> Result<Event, ReadError> {
    protobuf::read(message.encode_to_vec().into(), &Limits::default())
}

fn read_batch(json: &Json) -> Result<Vec<Event>, String> {
    let events = json["events"].as_array().unwrap().iter().map(message).collect();
    let batch = Batch { events }.encode_to_vec();
    protobuf::read_batch(batch.into(), &Limits::default()).map_err(|error| error.to_string())
}

fn check_file(file: &'static str, check: impl Fn(&Json) -> Result<(), String>) {
    let Some(folder) = testdata("cloudevents/format/protobuf") else { return };
    let mut tally = Tally::new(file);
    for test in json_file(&folder.join(file))["tests"].as_array().unwrap() {
        tally.decided(test["id"].as_str().unwrap(), check(test));
    }
    tally.finish();
}

#[test]
fn valid_events() {
    check_file("valid-events.json", |test| {
        let event = read(&message(&test["validSingle"])).map_err(|error| error.to_string())?;
        check_equal(&event, &golden(test["sampleId"].as_str().unwrap()))?;
        // The types of extensions survive in this format, so here they are compared as well.
        let golden = golden(test["sampleId"].as_str().unwrap());
        match event.extensions().eq(golden.extensions()) {
            true => Ok(()),
            false => Err(format!("other types: {event:?}")),
        }
    });
}

#[test]
fn invalid_events() {
    check_file("invalid-events.json", |test| {
        refused(read(&message(&test["invalidSingle"])).map_err(|error| error.to_string()))
    });
}

#[test]
fn valid_batches() {
    check_file("valid-batches.json", |test| {
        let (found, expected) = (read_batch(&test["validBatch"])?, golden_batch(test["sampleId"].as_str().unwrap()));
        match found.len() == expected.len() {
            true => found.iter().zip(&expected).try_for_each(|(found, expected)| check_equal(found, expected)),
            false => Err(format!("{} events instead of {}", found.len(), expected.len())),
        }
    });
}

#[test]
fn invalid_batches() {
    check_file("invalid-batches.json", |test| refused(read_batch(&test["invalidBatch"])));
}

#[test]
fn java_sdk() {
    let Some(folder) = testdata("cloudevents/sdk-java/protobuf/v1") else { return };
    let mut tally = Tally::new("sdk-java/protobuf/v1");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let event = read(&message(&json_file(&path))).map_err(|error| error.to_string());
        tally.decided(path.file_name().unwrap().to_str().unwrap(), event.and_then(|event| check_every_format(&event)));
    }
    tally.finish();
}

fn minimal() -> CloudEvent {
    let text = |text: &str| text.to_owned();
    CloudEvent {
        id: text("1"),
        source: text("/s"),
        spec_version: text("1.0"),
        kind: text("t"),
        ..CloudEvent::default()
    }
}

fn with(attributes: &[(&str, Attribute)], data: Option<Payload>) -> CloudEvent {
    let attributes = attributes.iter().map(|(name, attribute)| {
        let attribute = Some(attribute.clone());
        ((*name).to_owned(), AttributeValue { attribute })
    });
    CloudEvent { attributes: attributes.collect(), data, ..minimal() }
}

fn string(text: &str) -> Attribute {
    Attribute::String(text.to_owned())
}

#[test]
fn what_is_written_is_what_the_schema_declares() {
    let event = Event::builder("1", "/s", "t")
        .subject("x")
        .time("2018-04-05T17:31:00.25+02:00")
        .data_schema("https://example.com/schema")
        .extension("flag", Value::Boolean(false))
        .extension("number", Value::Integer(-7))
        .extension("reference", Value::UriReference("/a".into()))
        .data(Data::Json(Bytes::from_static(b"{\"a\": 1}")))
        .build()
        .unwrap();
    let found = CloudEvent::decode(protobuf::to_bytes(&event)).unwrap();
    let time = Attribute::Timestamp(ProtobufTimestamp { seconds: 1_522_942_260, nanos: 250_000_000 });
    let attributes = [
        ("subject", string("x")),
        ("time", time),
        ("datacontenttype", string("application/json")),
        ("dataschema", Attribute::Uri("https://example.com/schema".to_owned())),
        ("flag", Attribute::Boolean(false)),
        ("number", Attribute::Integer(-7)),
        ("reference", Attribute::UriReference("/a".to_owned())),
    ];
    assert_eq!(found, with(&attributes, Some(Payload::Text("{\"a\": 1}".to_owned()))));
}

#[test]
fn kinds_of_payload() {
    let json = "application/json";
    let binary = |text: &'static str| Data::Binary(Bytes::from_static(text.as_bytes()));
    let cases = [
        (None, None, Data::None),
        (None, Some(Payload::Text("{}".to_owned())), Data::Text("{}".into())),
        (Some(json), Some(Payload::Text(" {}".to_owned())), Data::Json(Bytes::from_static(b" {}"))),
        (Some("text/json;a=b"), Some(Payload::Text("\"\"".to_owned())), Data::Json(Bytes::from_static(b"\"\""))),
        (Some(json), Some(Payload::Text("{".to_owned())), Data::Text("{".into())),
        (Some("text/plain"), Some(Payload::Text(String::new())), Data::Text("".into())),
        (Some(json), Some(Payload::Binary(b"{}".to_vec())), binary("{}")),
        (None, Some(Payload::Binary(Vec::new())), binary("")),
    ];
    for (content_type, data, expected) in cases {
        let attributes: Vec<_> = content_type.iter().map(|it| ("datacontenttype", string(it))).collect();
        let event = read(&with(&attributes, data.clone())).unwrap_or_else(|error| panic!("{data:?}: {error}"));
        assert_eq!(event.data(), &expected, "{content_type:?} {data:?}");
    }
}

#[test]
fn a_message_in_an_any_keeps_its_type() {
    let any = |type_url: &str| Payload::Proto(Any { type_url: type_url.to_owned(), value: vec![8, 1] });
    let absolute = "https://type.googleapis.com/example.v1.Order";
    for (type_url, attributes) in [
        ("type.googleapis.com/example.v1.Order", vec![]),
        ("type.googleapis.com/example.v1.Order", vec![("dataschema", string("type.googleapis.com/example.v1.Order"))]),
        (absolute, vec![("datacontenttype", string("application/protobuf"))]),
    ] {
        let event = read(&with(&attributes, Some(any(type_url)))).unwrap();
        assert_eq!(event.data(), &Data::Binary(Bytes::from_static(&[8, 1])));
        assert_eq!(event.data_content_type().map(|it| &**it), Some("application/protobuf"));
        assert_eq!(event.data_schema().map(|it| &**it), Some(absolute));
        check_every_format(&event).unwrap();
        let again = CloudEvent::decode(protobuf::to_bytes(&event)).unwrap();
        assert_eq!(again.data, Some(any("type.googleapis.com/example.v1.Order")));
    }
    // Where a type URL may just as well be the address of a schema, its bytes are not given another meaning.
    for schema in ["https://schemas.example.com/order.proto", "https://type.googleapis.com/a/b", "urn:x"] {
        let event = Event::builder("1", "/s", "t").data_content_type("application/protobuf").data_schema(schema);
        let event = event.data(Data::Binary(Bytes::from_static(&[8, 1]))).build().unwrap();
        let written = CloudEvent::decode(protobuf::to_bytes(&event)).unwrap();
        assert_eq!(written.data, Some(Payload::Binary(vec![8, 1])), "{schema}");
    }
    for (attributes, type_url, at) in [
        (vec![("dataschema", Attribute::Uri("https://example.com/s".to_owned()))], "a.b/c.D", "dataschema"),
        (vec![], "", "data"),
        (vec![], "not a url", "dataschema"),
    ] {
        let Err(ReadError::Invalid(faults)) = read(&with(&attributes, Some(any(type_url)))) else { panic!("taken") };
        assert_eq!(faults.0.iter().map(|fault| &*fault.attribute).collect::<Vec<_>>(), [at], "{faults}");
    }
}

#[test]
fn faults_are_named_all_at_once() {
    let nothing = AttributeValue { attribute: None };
    let mut message = with(
        &[
            ("subject", Attribute::Integer(1)),
            ("time", Attribute::Boolean(true)),
            ("datacontenttype", Attribute::Uri("a/b".to_owned())),
            ("dataschema", Attribute::Bytes(vec![])),
            ("id", string("2")),
            ("MyExt", string("x")),
            ("link", Attribute::Uri("/relative".to_owned())),
            ("late", Attribute::Timestamp(ProtobufTimestamp { seconds: i64::MAX, nanos: 0 })),
            ("early", Attribute::Timestamp(ProtobufTimestamp { seconds: 0, nanos: -1 })),
        ],
        None,
    );
    message.attributes.insert("empty".to_owned(), nothing);
    message.source = String::new();
    message.spec_version = "0.3".to_owned();
    let mut bytes = message.encode_to_vec();
    // A name, a value and text that are not UTF-8, and one name twice: no library writes these.
    bytes.extend_from_slice(b"\x2a\x08\x0a\x01\xff\x12\x03\x1a\x01x");
    bytes.extend_from_slice(b"\x2a\x0a\x0a\x03bad\x12\x03\x1a\x01\xff");
    bytes.extend_from_slice(b"\x2a\x0a\x0a\x03dup\x12\x03\x1a\x01a\x2a\x0a\x0a\x03dup\x12\x03\x1a\x01b");
    bytes.extend_from_slice(b"\x3a\x01\xff");
    let Err(ReadError::Invalid(faults)) = protobuf::read(bytes.into(), &Limits::default()) else { panic!("taken") };
    let mut named: Vec<&str> = faults.0.iter().map(|fault| &*fault.attribute).collect();
    named.sort_unstable();
    let expected = [
        "",
        "MyExt",
        "bad",
        "data",
        "datacontenttype",
        "dataschema",
        "dup",
        "early",
        "empty",
        "id",
        "late",
        "link",
        "source",
        "specversion",
        "subject",
        "time",
    ];
    assert_eq!(named, expected, "{faults}");
    assert!(faults.0.iter().all(|fault| !fault.reason.is_empty() && !fault.reason.ends_with('.')), "{faults}");
}

#[test]
fn what_is_no_message_is_told_and_unknown_fields_are_not() {
    for bytes in [&b"\x0a"[..], b"\x0a\x05ab", b"{\"id\":\"1\"}", b"\x08\x01", b"\x00", b"\xff\xff\xff\xff\xff\xff"] {
        let error = protobuf::read(Bytes::copy_from_slice(bytes), &Limits::default()).unwrap_err();
        assert!(matches!(error, ReadError::Undecodable(_)), "{}: {error}", bytes.escape_ascii());
    }
    let mut bytes = minimal().encode_to_vec();
    let plain = protobuf::read(bytes.clone().into(), &Limits::default()).unwrap();
    // Field 100 in each wire type: a number, eight bytes, four bytes, a text, a group.
    bytes.extend_from_slice(b"\xa0\x06\x01\xa1\x0612345678\xa5\x061234\xa2\x06\x02ab\xa3\x06\xa4\x06");
    assert_eq!(protobuf::read(bytes.into(), &Limits::default()).unwrap(), plain);
}

#[test]
fn times_that_protobuf_cannot_say_are_written_as_text() {
    for text in ["0000-06-01T00:00:00Z", "9999-12-31T23:59:59-01:00"] {
        let time = Timestamp::parse(text).unwrap();
        let event = Event::builder("1", "/s", "t").timestamp(time.clone()).extension("at", Value::Timestamp(time));
        let message = CloudEvent::decode(protobuf::to_bytes(&event.build().unwrap())).unwrap();
        assert_eq!(message.attributes["time"].attribute, Some(string(text)));
        let again = read(&message).unwrap();
        assert_eq!(again.time().map(Timestamp::as_str), Some(text));
        assert_eq!(again.attribute("at").as_deref(), Some(text));
    }
}

#[test]
fn the_document_is_shared_and_not_copied() {
    let attributes = [("datacontenttype", string("text/plain")), ("ext", string("value"))];
    let document = Bytes::from(with(&attributes, Some(Payload::Text("some text".to_owned()))).encode_to_vec());
    let range = document.as_ptr_range();
    let event = protobuf::read(document, &Limits::default()).unwrap();
    let Some(Value::String(extension)) = event.extension("ext") else { panic!() };
    let parts = [event.id().as_bytes(), extension.as_bytes(), &event.data().to_bytes()].map(|it| it.as_ptr());
    assert!(parts.iter().all(|part| range.contains(part)));
}

#[test]
fn limits_are_the_last_that_pass() {
    let exceeded = |message: &CloudEvent| match read(message) {
        Ok(_) => None,
        Err(ReadError::TooLarge(too_large)) => Some(too_large.limit),
        Err(other) => panic!("{other}"),
    };
    let others = read(&minimal()).unwrap().attributes_bytes();
    let data = |bytes: usize| with(&[], Some(Payload::Binary(vec![0; bytes])));
    assert_eq!(exceeded(&data(limits::EVENT_BYTES - others)), None);
    assert_eq!(exceeded(&data(limits::EVENT_BYTES - others + 1)), Some(Limit::EventBytes));
    let subject = |bytes: usize| with(&[("subject", string(&"x".repeat(bytes)))], None);
    assert_eq!(exceeded(&subject(limits::EVENT_ATTRIBUTES_BYTES - others)), None);
    assert_eq!(exceeded(&subject(limits::EVENT_ATTRIBUTES_BYTES - others + 1)), Some(Limit::EventAttributesBytes));
    let names: Vec<String> = (0..limits::EVENT_ATTRIBUTES).map(|index| format!("x{index}")).collect();
    let extensions = |count: usize| {
        let attributes: Vec<_> = names[..count].iter().map(|name| (name.as_str(), Attribute::Integer(1))).collect();
        with(&attributes, None)
    };
    assert_eq!(exceeded(&extensions(limits::EVENT_ATTRIBUTES - 4)), None);
    assert_eq!(exceeded(&extensions(limits::EVENT_ATTRIBUTES - 3)), Some(Limit::EventAttributes));
    // Two bytes each on the wire: refused by counting, before any of them is built.
    let flood = Bytes::from(b"\x2a\x00".repeat(1_000_000));
    let error = protobuf::read(flood, &Limits::default()).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge(ref found) if found.found == limits::EVENT_ATTRIBUTES + 1), "{error}");
    let nested = |levels: usize| {
        let text = "[".repeat(levels) + &"]".repeat(levels);
        read(&with(&[("datacontenttype", string("application/json"))], Some(Payload::Text(text))))
    };
    assert!(nested(limits::JSON_DEPTH).is_ok());
    assert!(
        matches!(nested(limits::JSON_DEPTH + 1), Err(ReadError::Invalid(faults)) if faults.0[0].attribute == "data")
    );
}

#[test]
fn batches_name_every_faulty_event_and_have_limits() {
    let broken = CloudEvent { id: String::new(), ..minimal() };
    let mut bytes = Batch { events: vec![broken.clone(), minimal(), broken] }.encode_to_vec();
    // An event that is no message, and one more that is.
    bytes.extend_from_slice(b"\x0a\x02\x0a\x05");
    bytes.extend_from_slice(&Batch { events: vec![minimal()] }.encode_to_vec());
    let Err(ReadBatchError::Invalid(faults)) = protobuf::read_batch(bytes.into(), &Limits::default()) else {
        panic!("taken")
    };
    assert_eq!(faults.events.iter().map(|event| event.index).collect::<Vec<_>>(), [0, 2, 3], "{faults}");

    let limits = Limits { batch_events: 3, ..Limits::default() };
    let batch = |count: usize| Batch { events: vec![minimal(); count] }.encode_to_vec();
    assert_eq!(protobuf::read_batch(batch(3).into(), &limits).map(|events| events.len()), Ok(3));
    let Err(ReadBatchError::TooLarge(too_large)) = protobuf::read_batch(batch(4).into(), &limits) else { panic!() };
    assert_eq!(too_large.limit, Limit::BatchEvents);
    for bytes in [&b"\x0a"[..], b"\x0a\x05a", b"\x08\x01", b"\x0b"] {
        let outcome = protobuf::read_batch(Bytes::copy_from_slice(bytes), &limits);
        assert!(matches!(outcome, Err(ReadBatchError::Undecodable(_))), "{}: {outcome:?}", bytes.escape_ascii());
    }
}
