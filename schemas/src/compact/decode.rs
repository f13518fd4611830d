use bytes::Bytes;
use bytestring::ByteString;

use super::*;
use crate::event::{Data, Event, Extensions, Faults, Timestamp, Value, rules};

/// Why bytes are not the compact form of an event. None of these can come from a client: the bytes were damaged, cut, or
/// written by a newer version of this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another version of the form.
    #[error(
        "the stored event has version {0} of the compact form, and only version 1 is known; read it with the version of the program that wrote it"
    )]
    Version(u8),
    /// A flag or a value's type that is not known.
    #[error("the stored event has an unknown {what} {found:#04x}; it is damaged or was written by a newer program")]
    Unknown {
        /// What is not known.
        what: &'static str,
        /// Its byte.
        found: u8,
    },
    /// The bytes contradict the layout.
    #[error("the stored event is damaged: {0}")]
    Malformed(&'static str),
    /// The layout is right and the content is no CloudEvent.
    #[error("the stored event is damaged: {0}")]
    Invalid(Faults),
}

/// Reads the compact form of one event, which must be all that the buffer holds. The event shares the buffer.
pub fn decode(buffer: Bytes) -> Result<Event, DecodeError> {
    let mut head = Head { rest: &buffer };
    let version = head.byte()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let flags = head.byte()?;
    if flags & UNKNOWN_FLAGS != 0 {
        return Err(DecodeError::Unknown { what: "flag among", found: flags });
    }
    let [id, source, kind] = [head.len()?, head.len()?, head.len()?];
    let mut optional = [None; 4];
    for (length, flag) in optional.iter_mut().zip([HAS_SUBJECT, HAS_TIME, HAS_DATA_CONTENT_TYPE, HAS_DATA_SCHEMA]) {
        if flags & flag != 0 {
            *length = Some(head.len()?);
        }
    }
    let entries = head.entries()?;
    let data_len = head.len()?;

    let attributes = [Some(id), Some(source), Some(kind)].into_iter().chain(optional).flatten();
    let entry_texts = entries.iter().flat_map(|entry| [entry.name_len, entry.operand.text_len()]);
    let texts_len = sum(attributes.chain(entry_texts))?;
    let binaries_len = sum(entries.iter().map(|entry| entry.operand.binary_len()))?;
    let expected = sum([texts_len, binaries_len, data_len].into_iter())?;
    match head.rest.len() {
        found if found < expected => return Err(DecodeError::Malformed("it ends too early")),
        found if found > expected => return Err(DecodeError::Malformed("something follows its payload")),
        _ => {}
    }

    // Positions are sums of lengths that were just found to fit into the buffer.
    let texts_at = buffer.len() - expected;
    let binaries_at = texts_at + texts_len;
    let data_at = binaries_at + binaries_len;
    let mut texts = Texts { all: utf8(buffer.slice(texts_at..binaries_at))?, at: 0 };
    let (id, source, kind) = (texts.take(id)?, texts.take(source)?, texts.take(kind)?);
    let [subject, time, data_content_type, data_schema] = optional;
    let mut faults = Faults::default();
    let event = Event {
        id,
        source,
        kind,
        subject: texts.take_some(subject)?,
        time: texts.take_some(time)?.and_then(|text| timestamp("time", text, &mut faults)),
        data_content_type: texts.take_some(data_content_type)?,
        data_schema: texts.take_some(data_schema)?,
        extensions: extensions(&entries, &mut texts, buffer.slice(binaries_at..data_at), &mut faults)?,
        data: data(flags >> DATA_KIND_SHIFT, buffer.slice(data_at..))?,
    };
    rules::check_attributes(&event, &mut faults);
    if faults.is_empty() { Ok(event) } else { Err(DecodeError::Invalid(faults)) }
}

fn data(kind: u8, bytes: Bytes) -> Result<Data, DecodeError> {
    match kind {
        DATA_NONE if bytes.is_empty() => Ok(Data::None),
        DATA_NONE => Err(DecodeError::Malformed("it has a payload and says that it has none")),
        DATA_JSON => Ok(Data::Json(bytes)),
        DATA_TEXT => utf8(bytes).map(Data::Text),
        DATA_BINARY => Ok(Data::Binary(bytes)),
        other => Err(DecodeError::Unknown { what: "kind of payload", found: other }),
    }
}

fn extensions(
    entries: &[Entry],
    texts: &mut Texts,
    mut binaries: Bytes,
    faults: &mut Faults,
) -> Result<Extensions, DecodeError> {
    let mut extensions = Extensions::with_capacity(entries.len());
    for entry in entries {
        let name = texts.take(entry.name_len)?;
        let value = match entry.operand {
            Operand::Boolean(value) => Value::Boolean(value),
            Operand::Integer(value) => Value::Integer(value),
            Operand::Binary(length) => Value::Binary(binaries.split_to(length)),
            Operand::String(length) => Value::String(texts.take(length)?),
            Operand::Uri(length) => Value::Uri(texts.take(length)?),
            Operand::UriReference(length) => Value::UriReference(texts.take(length)?),
            Operand::Timestamp(length) => match timestamp(&name, texts.take(length)?, faults) {
                Some(time) => Value::Timestamp(time),
                None => continue,
            },
        };
        if !extensions.push(name, value) {
            return Err(DecodeError::Malformed("its extensions are not in ascending order"));
        }
    }
    Ok(extensions)
}

fn timestamp(name: &str, text: ByteString, faults: &mut Faults) -> Option<Timestamp> {
    Timestamp::parse(text).map_err(|reason| faults.push(rules::shown(name), reason)).ok()
}

fn utf8(bytes: Bytes) -> Result<ByteString, DecodeError> {
    ByteString::try_from(bytes).map_err(|_| DecodeError::Malformed("a text in it is not UTF-8"))
}

fn sum(lengths: impl Iterator<Item = usize>) -> Result<usize, DecodeError> {
    let mut sum = 0_usize;
    for length in lengths {
        sum = sum.checked_add(length).ok_or(DecodeError::Malformed("a length in it is impossible"))?;
    }
    Ok(sum)
}

/// What is known of an extension before its texts are reached.
struct Entry {
    name_len: usize,
    operand: Operand,
}

enum Operand {
    Boolean(bool),
    Integer(i32),
    String(usize),
    Binary(usize),
    Uri(usize),
    UriReference(usize),
    Timestamp(usize),
}

impl Operand {
    fn text_len(&self) -> usize {
        match self {
            Self::String(length) | Self::Uri(length) | Self::UriReference(length) | Self::Timestamp(length) => *length,
            Self::Boolean(_) | Self::Integer(_) | Self::Binary(_) => 0,
        }
    }

    fn binary_len(&self) -> usize {
        if let Self::Binary(length) = self { *length } else { 0 }
    }
}

/// The numbers before the texts.
struct Head<'a> {
    rest: &'a [u8],
}

impl Head<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        varint::take(&mut self.rest).ok_or(DecodeError::Malformed("a number in it is cut or not in its shortest form"))
    }

    fn len(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.number()?).map_err(|_| DecodeError::Malformed("a length in it is impossible"))
    }

    fn entries(&mut self) -> Result<Vec<Entry>, DecodeError> {
        const ENTRY_BYTES_MIN: usize = 2;
        let count = self.len()?;
        // What cannot be there must not be allocated for.
        if count > self.rest.len() / ENTRY_BYTES_MIN {
            return Err(DecodeError::Malformed("it ends too early"));
        }
        (0..count).map(|_| self.entry()).collect()
    }

    fn entry(&mut self) -> Result<Entry, DecodeError> {
        let name_len = self.len()?;
        let operand = match self.byte()? {
            VALUE_FALSE => Operand::Boolean(false),
            VALUE_TRUE => Operand::Boolean(true),
            VALUE_INTEGER => Operand::Integer(
                varint::unzigzag(self.number()?)
                    .ok_or(DecodeError::Malformed("an Integer in it has more than 32 bits"))?,
            ),
            VALUE_STRING => Operand::String(self.len()?),
            VALUE_BINARY => Operand::Binary(self.len()?),
            VALUE_URI => Operand::Uri(self.len()?),
            VALUE_URI_REFERENCE => Operand::UriReference(self.len()?),
            VALUE_TIMESTAMP => Operand::Timestamp(self.len()?),
            found => return Err(DecodeError::Unknown { what: "type of an extension", found }),
        };
        Ok(Entry { name_len, operand })
    }
}

/// The texts, which were checked as one.
struct Texts {
    all: ByteString,
    at: usize,
}

impl Texts {
    fn take(&mut self, length: usize) -> Result<ByteString, DecodeError> {
        let end = self.at + length;
        let text = self.all.get(self.at..end).ok_or(DecodeError::Malformed("a text in it ends inside a character"))?;
        self.at = end;
        Ok(self.all.slice_ref(text))
    }

    fn take_some(&mut self, length: Option<usize>) -> Result<Option<ByteString>, DecodeError> {
        length.map(|length| self.take(length)).transpose()
    }
}
