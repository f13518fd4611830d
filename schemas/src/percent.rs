//! Attribute values as header values, the same for HTTP and NATS (CloudEvents HTTP binding 3.1.3.2, NATS binding 3.1.3).

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

/// The header value of an attribute: blanks, double quotes, percent signs and everything outside printable ASCII are
/// percent-encoded, nothing else is. A value without these is shared, not copied.
pub(crate) fn encode(text: &ByteString) -> ByteString {
    if text.bytes().all(is_plain) {
        return text.clone();
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
    ByteString::try_from(Bytes::from(encoded)).expect("percent-encoding leaves printable ASCII only")
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%'
}

/// The attribute value of a header value: a quoted string is unquoted, then one round of percent-decoding is done. The
/// buffer is where the text goes; it is cut off from it, so that the values of one message share one allocation.
pub(crate) fn decode(value: &[u8], buffer: &mut BytesMut) -> Result<ByteString, String> {
    let value = value.trim_ascii();
    if value.first() == Some(&b'"')
        && let Some(unquoted) = unquote(value)
    {
        percent_decode(&unquoted, buffer);
    } else {
        percent_decode(value, buffer);
    }
    ByteString::try_from(buffer.split().freeze())
        .map_err(|_| "is not UTF-8 after percent-decoding; encode the UTF-8 form of the text".to_owned())
}

/// The content of a quoted string (RFC 9110 section 5.6.4), or nothing where the value as a whole is not one.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let content = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut unquoted = Vec::with_capacity(content.len());
    let mut bytes = content.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => unquoted.push(*bytes.next()?),
            _ => unquoted.push(*byte),
        }
    }
    Some(unquoted)
}

fn percent_decode(value: &[u8], buffer: &mut BytesMut) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        buffer.put_slice(&rest[..at]);
        match rest.get(at + 1..at + 3).and_then(hex) {
            Some(byte) => {
                buffer.put_u8(byte);
                rest = &rest[at + 3..];
            }
            None => {
                buffer.put_u8(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    buffer.put_slice(rest);
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(digits[0])? << 4 | digit(digits[1])?) as u8)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use bytestring::ByteString;
    use proptest::prelude::*;

    use super::{decode, encode};

    fn decoded(value: &[u8]) -> Result<String, String> {
        decode(value, &mut BytesMut::new()).map(String::from)
    }

    #[test]
    fn decoding() {
        let cases: [(&[u8], &str); 12] = [
            (b"", ""),
            (b"plain", "plain"),
            (b"a%20b", "a b"),
            (b"%e2%82%AC", "\u{20ac}"),
            (b"%2541", "%41"),
            (b"100%", "100%"),
            (b"%%%4", "%%%4"),
            (b"%zz%41", "%zzA"),
            (br#""a \"b\" c\\d""#, "a \"b\" c\\d"),
            (br#""a" "b""#, "\"a\" \"b\""),
            (br#""open"#, "\"open"),
            (b"\"%22\"", "\""),
        ];
        for (value, expected) in cases {
            assert_eq!(decoded(value).as_deref(), Ok(expected), "{}", value.escape_ascii());
        }
        let bad: [&[u8]; 6] = [b"%C0%A0", b"%E2%82", b"%ED%A0%80", b"%FF", b"\xff", b"a%80"];
        for value in bad {
            assert!(decoded(value).is_err(), "{}", value.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn every_text_returns(text in "\\PC*") {
            let value = encode(&ByteString::from(text.clone()));
            prop_assert!(value.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'"'));
            prop_assert_eq!(decoded(value.as_bytes()), Ok(text));
        }
    }
}
