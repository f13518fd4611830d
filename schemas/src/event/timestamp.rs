use bytestring::ByteString;

/// A point in time that keeps the text it was written with: offset, precision and letter case survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    text: ByteString,
    nanoseconds: i128,
}

impl Timestamp {
    /// Reads an RFC 3339 timestamp; the error says what is wrong.
    pub fn parse(text: impl Into<ByteString>) -> Result<Self, String> {
        let text = text.into();
        let instant: jiff::Timestamp =
            text.parse().map_err(|error| format!("is not an RFC 3339 timestamp: {error}"))?;
        Ok(Self { nanoseconds: instant.as_nanosecond(), text })
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The instant, in nanoseconds since 1970-01-01T00:00:00Z.
    pub fn unix_nanoseconds(&self) -> i128 {
        self.nanoseconds
    }
}
