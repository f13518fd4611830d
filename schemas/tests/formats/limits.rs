//! Each limit: the last value that passes and the first that does not.

use bytes::Bytes;
use http::HeaderMap;
use tidegate_schemas::http::{self as binding, ReadError};
use tidegate_schemas::json::{self, ReadBatchError};
use tidegate_schemas::limits::{self, Limit};
use tidegate_schemas::{Data, Event, Limits, TooLarge, Value};

const CONTEXT: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;

fn read(members: &str) -> Result<Event, json::ReadError> {
    json::read(Bytes::from(format!("{{{CONTEXT},{members}}}")), &Limits::default())
}

fn exceeded(result: Result<Event, json::ReadError>) -> Option<Limit> {
    match result {
        Ok(_) => None,
        Err(json::ReadError::TooLarge(too_large)) => Some(too_large.limit),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn sizes_of_an_event() {
    let data = |bytes: usize| format!(r#""datacontenttype":"text/plain","data":"{}""#, "x".repeat(bytes));
    let attributes_bytes = read(&data(0)).unwrap().attributes_bytes();
    assert_eq!(exceeded(read(&data(limits::EVENT_BYTES - attributes_bytes))), None);
    assert_eq!(exceeded(read(&data(limits::EVENT_BYTES - attributes_bytes + 1))), Some(Limit::EventBytes));

    let subject = |bytes: usize| format!(r#""subject":"{}""#, "x".repeat(bytes));
    let others = read(&subject(1)).unwrap().attributes_bytes() - 1;
    assert_eq!(exceeded(read(&subject(limits::EVENT_ATTRIBUTES_BYTES - others))), None);
    let over = subject(limits::EVENT_ATTRIBUTES_BYTES - others + 1);
    assert_eq!(exceeded(read(&over)), Some(Limit::EventAttributesBytes));

    let extensions = |count: usize| (0..count).map(|index| format!(r#""x{index}":1"#)).collect::<Vec<_>>().join(",");
    assert_eq!(exceeded(read(&extensions(limits::EVENT_ATTRIBUTES - 4))), None);
    assert_eq!(exceeded(read(&extensions(limits::EVENT_ATTRIBUTES - 3))), Some(Limit::EventAttributes));
}

#[test]
fn the_builder_has_the_same_limits() {
    let with_data = |bytes: usize| Event::builder("1", "/s", "t").data(Data::Binary(vec![0; bytes].into())).build();
    let attributes_bytes = with_data(0).unwrap().attributes_bytes();
    assert!(with_data(limits::EVENT_BYTES - attributes_bytes).is_ok());
    assert!(with_data(limits::EVENT_BYTES - attributes_bytes + 1).is_err());
    let with_extensions = |count: usize| {
        let builder = Event::builder("1", "/s", "t");
        (0..count).fold(builder, |builder, index| builder.extension(format!("x{index}"), Value::Integer(1))).build()
    };
    assert!(with_extensions(limits::EVENT_ATTRIBUTES - 4).is_ok());
    assert!(with_extensions(limits::EVENT_ATTRIBUTES - 3).is_err());
}

#[test]
fn depth_of_a_payload_in_every_mode() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let headers: HeaderMap = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("content-type", "application/json"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
    .collect();
    let binary = |levels| binding::read(&headers, Bytes::from(nested(levels)), &Limits::default());
    let structured = |levels| read(&format!(r#""data":{}"#, nested(levels)));
    assert!(binary(limits::JSON_DEPTH).is_ok() && structured(limits::JSON_DEPTH).is_ok());
    for levels in [limits::JSON_DEPTH + 1, 100_000] {
        assert!(matches!(binary(levels), Err(ReadError::Invalid(faults)) if faults.0[0].attribute == "data"));
        assert!(matches!(structured(levels), Err(json::ReadError::Invalid(faults)) if faults.0[0].attribute == "data"));
    }
    // Nesting where no payload is must not exhaust the stack either.
    let deep = |prefix: &str| Bytes::from(format!("{prefix}{}", "[".repeat(500_000)));
    assert!(json::read(deep(""), &Limits::default()).is_err());
    assert!(json::read_batch(deep(""), &Limits::default()).is_err());
    assert!(json::read(deep("{\"x\":"), &Limits::default()).is_err());
}

#[test]
fn events_of_a_batch() {
    let event = format!("{{{CONTEXT}}}");
    let batch = |count: usize| Bytes::from(format!("[{}]", vec![event.as_str(); count].join(",")));
    let limits = Limits { batch_events: 3, ..Limits::default() };
    assert_eq!(json::read_batch(batch(3), &limits).map(|events| events.len()), Ok(3));
    let found = TooLarge { limit: Limit::BatchEvents, allowed: 3, found: 4, index: None };
    assert_eq!(json::read_batch(batch(4), &limits), Err(ReadBatchError::TooLarge(found)));

    let large =
        format!("[{event},{{{CONTEXT},\"subject\":\"{}\"}},{event}]", "x".repeat(limits::EVENT_ATTRIBUTES_BYTES));
    match json::read_batch(Bytes::from(large), &limits) {
        Err(ReadBatchError::TooLarge(found)) => {
            assert_eq!((found.limit, found.index), (Limit::EventAttributesBytes, Some(1)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_faulty_event_of_a_batch_is_named() {
    let batch = format!(r#"[{{"id":""}},{{{CONTEXT}}},7,[{{}}],{{{CONTEXT},"A":1,"b":{{}}}}]"#);
    let Err(ReadBatchError::Invalid(faults)) = json::read_batch(Bytes::from(batch), &Limits::default()) else {
        panic!("taken")
    };
    let found: Vec<_> = faults.events.iter().map(|event| (event.index, event.faults.0.len())).collect();
    assert_eq!((found, faults.more_events), (vec![(0, 4), (2, 1), (3, 1), (4, 2)], 0), "{faults}");
}

#[test]
fn what_a_refusal_names_is_bounded() {
    let batch = format!("[{}]", vec!["{}"; limits::BATCH_EVENTS].join(","));
    let Err(ReadBatchError::Invalid(faults)) = json::read_batch(Bytes::from(batch), &Limits::default()) else {
        panic!("taken")
    };
    let listed: usize = faults.events.iter().map(|event| event.faults.0.len()).sum();
    assert_eq!((listed, faults.events.len() + faults.more_events), (limits::BATCH_FAULTS, limits::BATCH_EVENTS));

    let name = "N".repeat(100_000);
    let error = read(&format!(r#""{name}":1"#)).unwrap_err().to_string();
    assert!(error.len() < 500, "{error}");
    let members = (0..100_000).map(|index| format!(r#""X{index}":1"#)).collect::<Vec<_>>().join(",");
    assert_eq!(exceeded(read(&members)), Some(Limit::EventAttributes));
}
