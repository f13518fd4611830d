use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use bytestring::ByteString;

use super::Timestamp;

/// The value of an extension attribute, typed as CloudEvents 1.0 types it.
///
/// A format that has fewer types than these (JSON knows Boolean, Integer and String) reads what it has: a timestamp
/// extension arrives as a String and keeps its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number of 32 bits with a sign.
    Integer(i32),
    /// Text without control characters.
    String(ByteString),
    /// Bytes; canonical form is base64 (RFC 4648).
    Binary(Bytes),
    /// An absolute URI (RFC 3986).
    Uri(ByteString),
    /// A URI reference (RFC 3986).
    UriReference(ByteString),
    /// A point in time (RFC 3339).
    Timestamp(Timestamp),
}

impl Value {
    /// The canonical string form of the CloudEvents type system.
    pub fn canonical(&self) -> Cow<'_, str> {
        match self {
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::String(text) | Self::Uri(text) | Self::UriReference(text) => Cow::Borrowed(text),
            Self::Binary(bytes) => Cow::Owned(STANDARD.encode(bytes)),
            Self::Timestamp(time) => Cow::Borrowed(time.as_str()),
        }
    }

    /// The length of the canonical string form in bytes, without making it.
    pub fn canonical_bytes(&self) -> usize {
        match self {
            Self::Boolean(true) => "true".len(),
            Self::Boolean(false) => "false".len(),
            Self::Integer(number) => {
                let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
                digits + usize::from(*number < 0)
            }
            Self::String(text) | Self::Uri(text) | Self::UriReference(text) => text.len(),
            Self::Binary(bytes) => bytes.len().div_ceil(3) * 4,
            Self::Timestamp(time) => time.as_str().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Value;

    #[test]
    fn canonical_bytes_is_the_length_of_canonical() {
        let integers = [0, 9, 10, -1, -10, 99, 100, i32::MAX, i32::MIN].map(Value::Integer);
        let binaries = ["", "a", "ab", "abc", "abcd"].map(|text| Value::Binary(Bytes::from_static(text.as_bytes())));
        for value in [Value::Boolean(true), Value::Boolean(false)].iter().chain(&integers).chain(&binaries) {
            assert_eq!(value.canonical_bytes(), value.canonical().len(), "{value:?}");
        }
    }
}
