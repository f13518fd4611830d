//! Arbitrary events through every format, and arbitrary bytes into every reader.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tidegate_schemas::http::{self as binding, Message};
use tidegate_schemas::{Data, Event, Limits, Timestamp, Value, compact, json, protobuf};

use crate::round_trip::check_every_format;

fn is_allowed(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

fn text(range: std::ops::Range<usize>) -> impl Strategy<Value = ByteString> {
    let character = prop_oneof![prop::char::range(' ', '~'), any::<char>()]
        .prop_filter("a String may hold it", |it| is_allowed(*it));
    vec(character, range).prop_map(|characters| characters.into_iter().collect::<String>().into())
}

fn uri() -> impl Strategy<Value = ByteString> {
    "(https?://[a-z0-9.]{1,12}(:[0-9]{1,4})?|urn:[a-z0-9:]{1,10})(/([a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2}){0,8}){0,3}(\\?[a-z/?=]{0,6})?"
        .prop_map(ByteString::from)
}

fn uri_reference() -> impl Strategy<Value = ByteString> {
    prop_oneof![uri(), "/[a-z0-9;@:]{1,6}(/[a-z0-9;@:]{0,6}){0,3}(#[a-z?]{0,4})?".prop_map(ByteString::from)]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    let offset = prop_oneof![Just("Z".to_owned()), Just("z".to_owned()), "[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"];
    (
        "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,12})?",
        offset,
    )
        .prop_map(|(local, offset)| Timestamp::parse(local + &offset).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i32>().prop_map(Value::Integer),
        text(0..20).prop_map(Value::String),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Binary(bytes.into())),
        uri().prop_map(Value::Uri),
        uri_reference().prop_map(Value::UriReference),
        timestamp().prop_map(Value::Timestamp),
    ]
}

fn json_text() -> impl Strategy<Value = Bytes> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let tree = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    (tree, any::<bool>(), "[ \n\t\r]{0,2}").prop_map(|(tree, is_pretty, blanks)| {
        let text = if is_pretty { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) };
        Bytes::from(format!("{blanks}{}{blanks}", text.unwrap()))
    })
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        Just(Data::None),
        json_text().prop_map(Data::Json),
        any::<String>().prop_map(|text| Data::Text(text.into())),
        vec(any::<u8>(), 0..200).prop_map(|bytes| Data::Binary(bytes.into())),
        json_text().prop_map(Data::Binary),
    ]
}

fn content_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&[
        "application/json",
        "Application/vnd.x+JSON; a=\"b c\"",
        "text/plain",
        "text/plain; charset=iso-8859-1",
        "application/xml",
        "application/octet-stream",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    ])
}

fn event() -> impl Strategy<Value = Event> {
    let name = "[a-z0-9]{1,12}".prop_filter("names of CloudEvents are taken", |name| {
        !["id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema", "data"]
            .contains(&&**name)
    });
    let optional = (option::of(text(1..20)), option::of(timestamp()), option::of(content_type()), option::of(uri()));
    (text(1..20), uri_reference(), text(1..20), optional, btree_map(name, value(), 0..6), data()).prop_map(
        |(id, source, kind, (subject, time, content_type, schema), extensions, data)| {
            let mut builder = Event::builder(id, source, kind).data(data);
            builder = subject.into_iter().fold(builder, |builder, subject| builder.subject(subject));
            builder = time.into_iter().fold(builder, |builder, time| builder.timestamp(time));
            builder = content_type.into_iter().fold(builder, |builder, it| builder.data_content_type(it));
            builder = schema.into_iter().fold(builder, |builder, schema| builder.data_schema(schema));
            builder = extensions.into_iter().fold(builder, |builder, (name, value)| builder.extension(name, value));
            builder.build().unwrap()
        },
    )
}

/// Changes to bytes: each sets, inserts or removes one, at a place anywhere in them.
fn mutated(bytes: &[u8], changes: &[(u8, prop::sample::Index, u8)]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for (change, place, byte) in changes {
        let place = place.index(bytes.len() + 1);
        match change % 3 {
            0 if place < bytes.len() => bytes[place] = *byte,
            1 if place < bytes.len() => drop(bytes.remove(place)),
            _ => bytes.insert(place, *byte),
        }
    }
    bytes.into()
}

fn changes() -> impl Strategy<Value = Vec<(u8, prop::sample::Index, u8)>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\"{}[],:\\%ue0 \n".as_slice())];
    vec((any::<u8>(), any::<prop::sample::Index>(), byte), 1..5)
}

/// What every reader must hold to for any bytes. A fuzz target is this function.
fn check_readers(bytes: &Bytes) -> Result<(), String> {
    let limits = Limits::default();
    if let Ok(event) = json::read(bytes.clone(), &limits) {
        check_every_format(&event)?;
    }
    if let Ok(events) = json::read_batch(bytes.clone(), &limits) {
        events.iter().try_for_each(check_every_format)?;
    }
    if let Ok(event) = protobuf::read(bytes.clone(), &limits) {
        check_every_format(&event)?;
    }
    if let Ok(events) = protobuf::read_batch(bytes.clone(), &limits) {
        events.iter().try_for_each(check_every_format)?;
    }
    if let Ok(events) = json::read_lines(bytes.clone(), &limits) {
        events.iter().try_for_each(check_every_format)?;
    }
    if let Ok(event) = compact::decode(bytes.clone()) {
        // An event has one stored form, so what can be read is what would be written.
        let mut encoded = BytesMut::new();
        compact::encode(&event, &mut encoded);
        if encoded != bytes {
            return Err(format!("two encodings of {event:?}"));
        }
    }
    Ok(())
}

fn check_message(fields: Vec<(String, Vec<u8>)>, body: Bytes) -> Result<(), String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }
    match binding::read(&headers, body, &Limits::default()) {
        Ok(Message::Event(event)) => check_every_format(&event),
        Ok(Message::Batch(events)) => events.iter().try_for_each(check_every_format),
        Ok(Message::None) | Err(_) => Ok(()),
    }
}

proptest! {
    #[test]
    fn every_event_survives_every_format(event in event()) {
        check_every_format(&event).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        check_readers(&bytes.into()).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn damaged_events_are_read_or_refused(event in event(), changes in changes()) {
        let mut encoded = BytesMut::new();
        compact::encode(&event, &mut encoded);
        check_readers(&mutated(&encoded, &changes)).map_err(TestCaseError::fail)?;
        check_readers(&mutated(&json::to_bytes(&event), &changes)).map_err(TestCaseError::fail)?;
        let mut batch = Vec::new();
        json::write_batch([&event, &event], &mut batch);
        check_readers(&mutated(&batch, &changes)).map_err(TestCaseError::fail)?;
        let mut batch = Vec::new();
        protobuf::write_batch([&event, &event], &mut batch);
        check_readers(&mutated(&batch, &changes)).map_err(TestCaseError::fail)?;
        check_readers(&mutated(&protobuf::to_bytes(&event), &changes)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn damaged_messages_are_read_or_refused(event in event(), changes in changes(), field in any::<prop::sample::Index>()) {
        let (headers, body) = binding::write_binary(&event);
        let mut fields: Vec<(String, Vec<u8>)> =
            headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        let field = field.index(fields.len());
        fields[field].1 = mutated(&fields[field].1, &changes).to_vec();
        check_message(fields, mutated(&body, &changes)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_header_values_are_read_or_refused(
        values in vec(("(ce-[a-z0-9-]{0,8}|ce-id|ce-source|ce-type|ce-time|content-type)", vec(any::<u8>(), 0..20)), 0..8),
        body in vec(any::<u8>(), 0..50),
    ) {
        let mut fields = vec![("ce-specversion".to_owned(), b"1.0".to_vec())];
        fields.extend(values);
        check_message(fields, body.into()).map_err(TestCaseError::fail)?;
    }
}
