//! What the fuzz targets share: turning bytes into messages, and what must hold for every event that was read.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_schemas::{Data, Event, Format, Limits, MediaType, Value, compact, http as binding, json, protobuf};

/// Reads the input as a message: header lines `name: value`, an empty line, and the body. A line that is no header is
/// left out, for a server would not have let it through.
pub fn message(input: &[u8]) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, Bytes::copy_from_slice(rest))
}

/// Events that only just fit a limit may exceed it in another form, so the way back is read without limits of size.
fn unlimited() -> Limits {
    Limits {
        event_bytes: usize::MAX,
        event_attributes_bytes: usize::MAX,
        event_attributes: usize::MAX,
        ..Limits::default()
    }
}

/// The event as a JSON document can hold it: white space around a JSON payload belongs to the document, text under a JSON
/// content type is carried as bytes, and of the types of attributes JSON has three.
fn trimmed(event: &Event) -> Event {
    let content_type = event.data_content_type().map(|text| MediaType::parse(text).expect("a valid event has one"));
    let allows_json = content_type.is_none_or(|media_type| media_type.is_json());
    let data = match event.data().clone() {
        Data::Json(text) if allows_json => {
            let is_space = |byte: &u8| b" \t\n\r".contains(byte);
            let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(0);
            let end = text.iter().rposition(|byte| !is_space(byte)).map_or(text.len(), |last| last + 1);
            Data::Json(text.slice(start..end))
        }
        Data::Json(text) => Data::Text(text.try_into().expect("a JSON text is UTF-8")),
        Data::Text(text) if allows_json => Data::Binary(text.into_bytes()),
        other => other,
    };
    let mut builder = event.clone().into_builder().data(data);
    for (name, value) in event.extensions() {
        if !matches!(value, Value::Boolean(_) | Value::Integer(_) | Value::String(_)) {
            builder = builder.extension(name.clone(), Value::String(value.canonical().into_owned().into()));
        }
    }
    builder.build_within(&unlimited()).expect("only the form was changed")
}

/// Checks that an event which came from a client survives every form unchanged.
pub fn check_event(event: &Event) {
    let limits = unlimited();
    let in_json = trimmed(event);
    let mut document = Vec::new();
    json::write(event, &mut document);
    let again = json::read(Bytes::from(document.clone()), &limits);
    let again = again.unwrap_or_else(|error| panic!("the JSON form is not read back: {error}\n{event:?}"));
    assert_eq!(again, in_json, "changed by the JSON form");

    let mut batch = Vec::with_capacity(document.len() + 2);
    batch.push(b'[');
    batch.extend_from_slice(&document);
    batch.push(b']');
    let batch = json::read_batch(Bytes::from(batch), &limits).expect("an event is a batch of one");
    assert_eq!(batch.as_slice(), std::slice::from_ref(&in_json), "a batch of one is another event");

    let again = compact::decode(stored(event));
    let again = again.unwrap_or_else(|error| panic!("the compact form is not read back: {error}\n{event:?}"));
    assert_eq!(&again, event, "changed by the compact form");

    let (headers, body) = binding::write_structured(event);
    check_headers(&headers);
    match binding::read(&headers, body, &limits) {
        Ok(binding::Message::Event(again)) => assert_eq!(again, in_json, "changed by structured mode"),
        other => panic!("structured mode is not read back: {other:?}\n{event:?}"),
    }
    check_binary(event);
    check_protobuf(event);
}

/// Protobuf keeps the instant of a time and not its text, and the kind of a payload is what the content type says, so the
/// first way back may differ; the second must not. What JSON says of the event is the same by way of protobuf, where the
/// payload kept its kind.
fn check_protobuf(event: &Event) {
    let limits = unlimited();
    let through = |event: &Event| {
        let read = protobuf::read(Format::Protobuf.write(event), &limits);
        read.unwrap_or_else(|error| panic!("the protobuf form is not read back: {error}\n{event:?}"))
    };
    let once = through(event);
    assert_eq!(once, through(&once), "the protobuf form is not stable");
    assert_eq!((once.id(), once.source(), once.kind()), (event.id(), event.source(), event.kind()));
    assert_eq!((once.subject(), once.data_schema()), (event.subject(), event.data_schema()));
    assert_eq!(once.data().as_bytes(), event.data().as_bytes(), "protobuf changes the payload");
    let instant = |event: &Event| event.time().map(|time| time.unix_nanoseconds());
    assert_eq!(instant(&once), instant(event), "protobuf changes the time");
    let names = |event: &Event| event.extensions().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&once), names(event), "protobuf changes the extensions");
    let as_json = |event: &Event| json::read(json::to_bytes(event), &limits).expect("what is written is read");
    if std::mem::discriminant(once.data()) == std::mem::discriminant(event.data()) {
        assert_eq!(as_json(&once).data(), as_json(event).data(), "JSON says another payload after protobuf");
    }
    let batch = protobuf::read_batch(Format::Protobuf.write_batch([event, event]), &limits);
    assert_eq!(batch.as_deref(), Ok(&[once.clone(), once][..]), "a batch holds other events");
}

/// The compact form of an event, with the length that was announced for it.
pub fn stored(event: &Event) -> Bytes {
    let mut out = BytesMut::new();
    compact::encode(event, &mut out);
    assert_eq!(out.len(), compact::encoded_len(event), "the announced length of the compact form");
    out.freeze()
}

/// Binary mode does not keep the kinds of attributes and payload, so the first way back may differ; the second must not.
pub fn check_binary(event: &Event) {
    let limits = unlimited();
    let once = through_binary(event, &limits);
    let twice = through_binary(&once, &limits);
    assert_eq!(once, twice, "binary mode is not stable");
    assert_eq!((once.id(), once.source(), once.kind()), (event.id(), event.source(), event.kind()));
    assert_eq!(once.subject(), event.subject());
    for (name, value) in event.extensions() {
        let kept = once.attribute(name);
        assert_eq!(kept.as_deref(), Some(&*value.canonical()), "binary mode changes {name}");
    }
    assert_eq!(once.data().as_bytes(), event.data().as_bytes(), "binary mode changes the payload");
}

fn through_binary(event: &Event, limits: &Limits) -> Event {
    let (headers, body) = binding::write_binary(event);
    check_headers(&headers);
    match binding::read(&headers, body, limits) {
        Ok(binding::Message::Event(event)) => event,
        other => panic!("binary mode is not read back: {other:?}\n{event:?}"),
    }
}

/// What stands in a header must not end it, nor mean different things to different readers.
fn check_headers(headers: &HeaderMap) {
    for (name, value) in headers {
        let printable = value.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte));
        assert!(printable, "header {name} carries {value:?}");
    }
}
