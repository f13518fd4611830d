//! Cases of the HTTP binding, in both directions.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tidegate_schemas::http::{Message, Mode, ReadError, read, write, write_binary};
use tidegate_schemas::{Data, Event, Format, Limits};

use crate::round_trip::check_every_format;
use crate::tally::{Tally, json_file, testdata};

fn headers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn status(error: &ReadError) -> u64 {
    match error {
        ReadError::UnsupportedMediaType(_) => 415,
        ReadError::TooLarge(_) => 413,
        ReadError::Malformed(_) | ReadError::Undecodable(_) | ReadError::Invalid(_) | ReadError::InvalidBatch(_) => 400,
    }
}

#[test]
fn binding_cases() {
    let Some(folder) = testdata("events") else { return };
    let mut tally = Tally::new("events/http_binding_cases.json");
    let mut encoded = 0;
    for case in json_file(&folder.join("http_binding_cases.json"))["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let fields = case["headers"].as_object().unwrap().iter();
        let headers = headers(fields.map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        let body = Bytes::from(case["body"].as_str().unwrap_or_default().to_owned());
        let mode = Mode::of(&headers);
        let outcome = read(&headers, body, &Limits::default());
        match case["expect"]["either"].as_array() {
            Some(choices) => {
                let any = choices.iter().any(|expected| check(expected, mode, &outcome).is_ok());
                tally.open(name, any.then_some(()).ok_or_else(|| format!("{outcome:?} is none of {choices:?}")));
            }
            None => tally.decided(name, check(&case["expect"], mode, &outcome)),
        }
        if let Some(expected) = case.get("encode") {
            encoded += 1;
            tally.decided(name, check_encoding(expected));
        }
    }
    println!("of these in the encoding direction: {encoded}");
    assert!(encoded > 0);
    tally.finish();
}

fn check(expected: &Value, mode: Mode, outcome: &Result<Message, ReadError>) -> Result<(), String> {
    for (key, value) in expected.as_object().unwrap() {
        let holds = match (key.as_str(), outcome) {
            ("error", Err(error)) => status(error) == value.as_u64().unwrap(),
            ("mode", Ok(message)) => {
                let found = match (mode, message) {
                    (Mode::Binary, Message::Event(_)) => "binary",
                    (Mode::Structured, Message::Event(_)) => "structured",
                    (Mode::Batch, Message::Batch(_)) => "batch",
                    _ => "none",
                };
                found == value
            }
            ("attributes", Ok(Message::Event(event))) => value
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, value)| event.attribute(name).as_deref() == value.as_str()),
            ("absent", Ok(Message::Event(event))) => {
                value.as_array().unwrap().iter().all(|name| event.attribute(name.as_str().unwrap()).is_none())
            }
            ("data", Ok(Message::Event(event))) => match value.as_str() {
                Some(text) => event.data().as_bytes() == text.as_bytes(),
                None => serde_json::from_slice(event.data().as_bytes()).is_ok_and(|found: Value| found == *value),
            },
            ("count", Ok(Message::Batch(events))) => events.len() as u64 == value.as_u64().unwrap(),
            ("not_a_cloudevent", Ok(message)) => matches!(message, Message::None) == value.as_bool().unwrap(),
            _ => false,
        };
        if !holds {
            return Err(format!("{key} should be {value}, and the outcome is {outcome:?}"));
        }
    }
    match outcome {
        Ok(Message::Event(event)) => check_every_format(event),
        _ => Ok(()),
    }
}

fn check_encoding(expected: &Value) -> Result<(), String> {
    let value = expected["value"].as_str().unwrap();
    let name = expected["attribute"].as_str().unwrap();
    let builder = Event::builder("1", "/s", "t");
    let event = match name {
        "subject" => builder.subject(value),
        _ => builder.extension(name, tidegate_schemas::Value::String(value.into())),
    };
    let (headers, _) = write_binary(&event.build().map_err(|faults| faults.to_string())?);
    let found = headers.get(format!("ce-{name}")).map(|value| value.as_bytes());
    if found == expected["header"].as_str().map(str::as_bytes) { Ok(()) } else { Err(format!("wrote {found:?}")) }
}

const CONTEXT: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

fn read_with(fields: &[(&str, &str)], body: &'static [u8]) -> Result<Message, ReadError> {
    read(&headers(CONTEXT.iter().chain(fields).copied()), Bytes::from_static(body), &Limits::default())
}

fn event_of(fields: &[(&str, &str)], body: &'static [u8]) -> Event {
    match read_with(fields, body) {
        Ok(Message::Event(event)) => event,
        other => panic!("{fields:?}: {other:?}"),
    }
}

#[test]
fn kinds_of_body() {
    let binary = |bytes: &'static [u8]| Data::Binary(Bytes::from_static(bytes));
    let json = |bytes: &'static [u8]| Data::Json(Bytes::from_static(bytes));
    let cases: [(Option<&str>, &'static [u8], Data); 13] = [
        (None, b"", Data::None),
        (None, b"{}", binary(b"{}")),
        (Some("application/json"), b"", Data::None),
        (Some("application/json"), b" {\"a\": 1}\n", json(b" {\"a\": 1}\n")),
        (Some("APPLICATION/X+JSON; charset=utf-8"), b"1", json(b"1")),
        (Some("application/json"), b"{\"a\":", binary(b"{\"a\":")),
        (Some("application/json"), b"\"\xff\"", binary(b"\"\xff\"")),
        (Some("text/plain"), b"caf\xc3\xa9", Data::Text("caf\u{e9}".into())),
        (Some("text/plain"), b"caf\xe9", binary(b"caf\xe9")),
        (Some("text/plain; charset=iso-8859-1"), b"\xc3\xa9", binary(b"\xc3\xa9")),
        (Some("text/plain; charset=\"UTF-8\""), b"a", Data::Text("a".into())),
        (Some("application/xml"), b"<a/>", Data::Text("<a/>".into())),
        (Some("application/octet-stream"), b"text", binary(b"text")),
    ];
    for (content_type, body, expected) in cases {
        let fields: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let event = event_of(&fields, body);
        assert_eq!(event.data(), &expected, "{content_type:?} {}", body.escape_ascii());
        assert_eq!(event.data_content_type().map(|text| &**text), content_type);
    }
}

#[test]
fn refusals() {
    let faulty = |fields: &[(&str, &str)]| match read_with(fields, b"") {
        Err(ReadError::Invalid(faults)) => faults.0.iter().map(|fault| fault.attribute.to_string()).collect::<Vec<_>>(),
        other => panic!("{fields:?}: {other:?}"),
    };
    assert_eq!(faulty(&[("ce-id", "2")]), ["id"]);
    assert_eq!(faulty(&[("ce-ext", "2"), ("CE-Ext", "2")]), ["ext"]);
    assert_eq!(faulty(&[("content-type", "a/b"), ("content-type", "a/b")]), ["datacontenttype"]);
    assert_eq!(faulty(&[("content-type", "json")]), ["datacontenttype"]);
    assert_eq!(faulty(&[("ce-datacontenttype", "a/b")]), ["datacontenttype"]);
    assert_eq!(
        faulty(&[("ce-time", "noon"), ("ce-my-ext", "1"), ("ce-subject", "%ff")]),
        ["subject", "time", "my-ext"]
    );
    assert_eq!(faulty(&[("ce-", "x")]), [""]);
    assert_eq!(faulty(&[("ce-data", "x")]), ["data"]);
    let lone = read(&headers([("ce-id", "1")]), Bytes::new(), &Limits::default());
    assert!(matches!(lone, Err(ReadError::Invalid(faults)) if faults.0.len() == 3));
}

#[test]
fn messages_without_an_event() {
    for fields in
        [&[][..], &[("content-type", "application/json")], &[("x-ce-id", "1"), ("ce", "2"), ("cesource", "3")]]
    {
        let message = read(&headers(fields.iter().copied()), Bytes::from_static(b"{}"), &Limits::default());
        assert_eq!(message, Ok(Message::None), "{fields:?}");
    }
}

#[test]
fn formats_that_are_not_known() {
    for content_type in [
        "application/cloudevents+avro",
        "application/cloudevents",
        "application/cloudevents-batch+avro",
        "application/cloudevents-batch",
        "application/cloudevents+protobuf2",
        "Application/CloudEvents+XML; charset=utf-8",
        "application/cloudeventsjson",
    ] {
        let message = read(&headers([("content-type", content_type)]), Bytes::new(), &Limits::default());
        assert!(matches!(message, Err(ReadError::UnsupportedMediaType(_))), "{content_type}: {message:?}");
    }
}

#[test]
fn the_media_type_decides_on_the_format_in_any_letter_case() {
    let event = Event::builder("1", "/s", "t").data(Data::Text("x".into())).build().unwrap();
    for format in Format::ALL {
        let content_type = format!("{} ; charset=utf-8", format.event_media_type().to_uppercase());
        let read =
            |content_type: &str, body| read(&headers([("content-type", content_type)]), body, &Limits::default());
        assert_eq!(read(&content_type, format.write(&event)).ok().map(id_of), Some("1".to_owned()), "{content_type}");
        let batch = read(format.batch_media_type(), format.write_batch([&event, &event]));
        assert!(matches!(&batch, Ok(Message::Batch(events)) if events.len() == 2), "{format:?}: {batch:?}");
        // One format's bytes under the other's name.
        let other = if format == Format::Json { Format::Protobuf } else { Format::Json };
        assert!(read(format.event_media_type(), other.write(&event)).is_err(), "{format:?}");
    }
}

fn id_of(message: Message) -> String {
    let Message::Event(event) = message else { panic!("{message:?}") };
    event.id().to_string()
}

#[test]
fn the_content_type_that_json_implies_is_written_out() {
    let builder = || Event::builder("1", "/s", "t");
    let content_type = |data: Data| {
        let (headers, _) = write_binary(&builder().data(data).build().unwrap());
        headers.get("content-type").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(content_type(Data::Json(Bytes::from_static(b"{}"))).as_deref(), Some("application/json"));
    assert_eq!(content_type(Data::Binary(Bytes::from_static(b"{}"))), None);
    assert_eq!(content_type(Data::None), None);
}

#[test]
fn a_nested_event_travels_structured() {
    for content_type in
        ["application/cloudevents+json", "Application/CloudEvents-batch+json", "application/cloudevents"]
    {
        let data = Data::Binary(Bytes::from_static(b"{}"));
        let event = Event::builder("1", "/s", "t").data_content_type(content_type).data(data).build().unwrap();
        let written = write(&event);
        assert_eq!(written.mode, Mode::Structured);
        let read_back = read(&written.headers, written.body, &Limits::default());
        assert_eq!(read_back, Ok(Message::Event(event)));
    }
}
