//! What the fuzz targets share: turning bytes into messages, and what must hold for every event that was read.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_schemas::{Data, Event, Limits, compact, http as binding, json};

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

/// The event as a JSON document can hold it: white space around a JSON payload belongs to the document.
fn trimmed(event: &Event) -> Event {
    let Data::Json(text) = event.data() else { return event.clone() };
    let is_space = |byte: &u8| b" \t\n\r".contains(byte);
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(0);
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(text.len(), |last| last + 1);
    let data = Data::Json(text.slice(start..end));
    event.clone().into_builder().data(data).build().expect("only white space was removed")
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
