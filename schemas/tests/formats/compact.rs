//! The stored form: golden files, and everything that must be refused.

use bytes::{Bytes, BytesMut};
use tidegate_schemas::compact::{self, DecodeError};
use tidegate_schemas::{Data, Event, Timestamp, Value};

fn encode(event: &Event) -> Bytes {
    let mut out = BytesMut::new();
    compact::encode(event, &mut out);
    out.freeze()
}

fn every_type() -> Event {
    Event::builder("id-1", "https://example.com/s?q#f", "com.example.t")
        .subject("subj\u{e9}ct")
        .time("2016-12-31t23:59:60.5-00:00")
        .data_content_type("application/json; charset=utf-8")
        .data_schema("urn:schema:1")
        .extension("a", Value::Boolean(true))
        .extension("b", Value::Boolean(false))
        .extension("c", Value::Integer(-2_147_483_648))
        .extension("d", Value::String("\u{1f600}".into()))
        .extension("e", Value::Binary(Bytes::from_static(&[0, 255])))
        .extension("f", Value::Uri("urn:x".into()))
        .extension("g", Value::UriReference("".into()))
        .extension("h", Value::Timestamp(Timestamp::parse("2023-03-31T15:12:00Z").unwrap()))
        .extension("i", Value::Binary(Bytes::from_static(&[1])))
        .data(Data::Json(Bytes::from_static(b"{ \"a\": 1 }\n")))
        .build()
        .unwrap()
}

#[test]
fn golden_files() {
    let small = || Event::builder("a", "/s", "t");
    let text = small().data_content_type("text/plain").data(Data::Text("".into()));
    let binary = small().time("2018-04-05T17:31:00+02:00").data(Data::Binary(Bytes::from_static(&[0; 200])));
    let cases = [
        ("minimal", small().build().unwrap(), include_str!("../golden/minimal.hex")),
        ("every_type", every_type(), include_str!("../golden/every_type.hex")),
        ("empty_text", text.build().unwrap(), include_str!("../golden/empty_text.hex")),
        ("binary", binary.build().unwrap(), include_str!("../golden/binary.hex")),
    ];
    for (name, event, golden) in cases {
        let found = hex(&encode(&event));
        assert_eq!(found, golden, "{name}.hex: stored events of this version must stay readable");
        assert_eq!(compact::decode(unhex(golden)), Ok(event), "{name}");
    }
    let mut documented = include_str!("../../docs/compact.md").rsplit_once('`').unwrap().0.split('`');
    let example = documented.rfind(|code| code.starts_with("01 00 ")).unwrap();
    assert_eq!(compact::decode(unhex(example)), Ok(small().build().unwrap()));
}

fn hex(bytes: &[u8]) -> String {
    let lines =
        bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    lines.map(|line| line + "\n").collect()
}

fn unhex(text: &str) -> Bytes {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn damage_is_refused() {
    let bytes = |text: &str| compact::decode(unhex(text)).unwrap_err();
    assert_eq!(bytes("02 00 01 02 01 00 00 61 2f 73 74"), DecodeError::Version(2));
    assert_eq!(bytes("00"), DecodeError::Version(0));
    for (flags, what) in [("40", "flag among"), ("80", "flag among")] {
        let error = bytes(&format!("01 {flags} 01 02 01 00 00 61 2f 73 74"));
        assert!(matches!(error, DecodeError::Unknown { what: found, .. } if found == what), "{error}");
    }
    // A type that is not known.
    assert!(matches!(bytes("01 00 01 02 01 01 01 08 00 61 2f 73 74 78"), DecodeError::Unknown { found: 8, .. }));
    let malformed = [
        ("", "nothing at all"),
        ("01 00 01 02 01 00 00 61 2f 73 74 00", "a byte after it"),
        ("01 00 01 02 01 00 01 61 2f 73 74 00", "a payload of kind none"),
        ("01 00 81 00 02 01 00 00 61 2f 73 74", "a number with a needless byte"),
        ("01 00 ff ff ff ff ff ff ff ff ff 01 02 01 00 00 61 2f 73 74", "a length that overflows"),
        ("01 00 01 02 01 ff ff ff ff ff 0f 00 61 2f 73 74", "more extensions than bytes"),
        ("01 00 01 02 01 00 00 ff 2f 73 74", "a text that is not UTF-8"),
        ("01 00 01 02 02 00 00 c3 a9 2f 73 74", "a text that ends inside a character"),
        ("01 20 01 02 01 00 01 61 2f 73 74 ff", "a payload of text that is not UTF-8"),
        ("01 00 01 02 01 02 01 00 01 00 00 61 2f 73 74 79 78", "extensions out of order"),
        ("01 00 01 02 01 02 01 00 01 00 00 61 2f 73 74 78 78", "an extension twice"),
        ("01 00 01 02 01 01 01 02 80 80 80 80 10 00 61 2f 73 74 78", "an Integer of 33 bits"),
    ];
    for (text, what) in malformed {
        let error = bytes(text);
        assert!(matches!(error, DecodeError::Malformed(_)), "{what}: {error}");
    }
    let invalid = [
        ("01 00 00 02 01 00 00 2f 73 74", "an empty id"),
        ("01 00 01 02 01 00 00 0a 2f 73 74", "a control character"),
        ("01 00 01 02 01 01 01 00 00 61 2f 73 74 58", "an extension's name in capitals"),
        ("01 02 01 02 01 01 00 00 61 2f 73 74 78", "a time that is none"),
    ];
    for (text, what) in invalid {
        let error = bytes(text);
        assert!(matches!(error, DecodeError::Invalid(_)), "{what}: {error}");
    }
}

#[test]
fn no_prefix_of_an_event_is_an_event() {
    let encoded = encode(&every_type());
    for length in 0..encoded.len() {
        assert!(compact::decode(encoded.slice(..length)).is_err(), "{length} bytes");
    }
}

#[test]
fn the_payload_is_a_slice_of_what_was_read() {
    let encoded = encode(&every_type());
    let event = compact::decode(encoded.clone()).unwrap();
    let data = event.data().to_bytes();
    assert_eq!(data.as_ptr_range().end, encoded.as_ptr_range().end);
}
