//! The messages of a lane, version 1. `docs/LANE.md` describes them byte by byte.

#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use bytestring::ByteString;

use crate::lane::NodeId;

/// The version that is written, and the only one that is read.
pub const VERSION: u8 = 1;
/// The bytes before a message's body.
pub const HEADER_BYTES: usize = 24;
/// Stands for every node.
pub const ALL: NodeId = NodeId(0);

const CHECKSUM: std::ops::Range<usize> = 4..8;

/// A message with who sent it and who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: NodeId,
    /// The receiver, or [`ALL`].
    pub to: NodeId,
    /// What it says.
    pub kind: Kind,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The sender is there.
    Beat(Beat),
    /// The sender ends.
    Goodbye,
    /// The sender has started and asks who is there.
    Ask(Beat),
    /// Begins a request.
    Request(RequestHead, Bytes),
    /// Begins the reply to the request of that id.
    Reply {
        /// Which request.
        id: u64,
        /// The bytes of the whole body.
        total: u32,
        /// The first of them.
        payload: Bytes,
    },
    /// The request of that id gets no reply.
    Refusal {
        /// Which request.
        id: u64,
        /// Why.
        cause: Cause,
        /// The handler's code, or nothing.
        code: ByteString,
        /// For people.
        message: ByteString,
    },
    /// Goes on with a body.
    Chunk {
        /// Which request.
        id: u64,
        /// Which body.
        of: Body,
        /// Where these bytes stand in it.
        offset: u32,
        /// The bytes.
        payload: Bytes,
    },
    /// Lets the sender of a body go on.
    Credit {
        /// Which request.
        id: u64,
        /// Which body.
        of: Body,
        /// Up to where.
        offset: u32,
    },
    /// Nobody waits for the answer to that request any more.
    Cancel {
        /// Which request.
        id: u64,
    },
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Grows with each.
    pub serial: u64,
    /// The sender's clock, in milliseconds since its machine booted: one that does not jump.
    pub time_ms: u64,
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// Where its HTTP interface is reached.
    pub http: ByteString,
    /// What it runs.
    pub version: ByteString,
    /// What it answers.
    pub services: Vec<ByteString>,
}

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Counts 1, 2, 3 in each node.
    pub id: u64,
    /// The time left when it was sent, in milliseconds.
    pub left_ms: u32,
    /// When its time is over by the sender's clock, in milliseconds since its machine booted.
    pub deadline_ms: u64,
    /// How often it was passed on.
    pub hop: u8,
    /// What is asked.
    pub service: ByteString,
    /// The bytes of the whole body.
    pub total: u32,
}

/// Which body of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// The request's.
    Request,
    /// The reply's.
    Reply,
}

/// Why a request gets no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The handler said so.
    Handler,
    /// The node does not offer the service.
    Unserved,
    /// The node is leaving.
    Leaving,
    /// A bound is reached.
    Busy,
    /// The request's body is too large.
    TooLarge,
    /// The request's body did not arrive whole.
    Broken,
    /// It was carried out, but the reply cannot be sent.
    ReplyLost,
    /// The handler failed without an answer.
    Failed,
}

impl Cause {
    const ALL: [Self; 8] = [
        Self::Handler,
        Self::Unserved,
        Self::Leaving,
        Self::Busy,
        Self::TooLarge,
        Self::Broken,
        Self::ReplyLost,
        Self::Failed,
    ];
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends early.
    #[error("the message ends in the middle of a field")]
    Truncated,
    /// Another version wrote it.
    #[error(
        "the message has version {0}, this program reads {VERSION}; the gateways of one cluster must fit each other"
    )]
    Version(u8),
    /// The checksum differs.
    #[error("the message's checksum differs from its bytes; it is damaged")]
    Checksum,
    /// A value that this version does not know.
    #[error("the message has {what} {value}, which this program does not know")]
    Unsupported {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Bytes that are not what they should be.
    #[error("the message has {0}")]
    Malformed(&'static str),
}

impl From<TryGetError> for WireError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

impl Message {
    /// The message as it is sent. Texts are cut to what their length can say.
    pub fn encode(&self) -> Bytes {
        let payload = match &self.kind {
            Kind::Request(_, payload) | Kind::Reply { payload, .. } | Kind::Chunk { payload, .. } => payload.len(),
            _ => 64,
        };
        let mut out = BytesMut::with_capacity(HEADER_BYTES + payload + 128);
        out.put_u8(VERSION);
        out.put_u8(self.kind.number());
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_u64_le(self.from.0);
        out.put_u64_le(self.to.0);
        put_body(&mut out, &self.kind);
        let checksum = checksum(&out);
        out[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        out.freeze()
    }

    /// Reads a message. Payloads are slices of it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let mut read = bytes.clone();
        let version = read.try_get_u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(WireError::Truncated);
        }
        let number = read.try_get_u8()?;
        let flags = read.try_get_u16_le()?;
        if read.try_get_u32_le()? != checksum(bytes) {
            return Err(WireError::Checksum);
        }
        if flags != 0 {
            return Err(WireError::Unsupported { what: "flags", value: flags.into() });
        }
        let (from, to) = (NodeId(read.try_get_u64_le()?), NodeId(read.try_get_u64_le()?));
        let kind = get_body(&mut read, number)?;
        if read.has_remaining() {
            return Err(WireError::Malformed("bytes behind its end"));
        }
        Ok(Self { from, to, kind })
    }
}

impl Kind {
    fn number(&self) -> u8 {
        match self {
            Self::Beat(_) => 1,
            Self::Goodbye => 2,
            Self::Ask(_) => 3,
            Self::Request(..) => 4,
            Self::Reply { .. } => 5,
            Self::Refusal { .. } => 6,
            Self::Chunk { .. } => 7,
            Self::Credit { .. } => 8,
            Self::Cancel { .. } => 9,
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let (head, tail) = bytes.split_at(CHECKSUM.start);
    crc32c::crc32c_append(crc32c::crc32c(head), &tail[CHECKSUM.len()..])
}

fn put_body(out: &mut BytesMut, kind: &Kind) {
    match kind {
        Kind::Beat(beat) | Kind::Ask(beat) => {
            out.put_u64_le(beat.serial);
            out.put_u64_le(beat.time_ms);
            out.put_u64_le(beat.started_at_ms);
            put_text(out, &beat.http);
            put_text(out, &beat.version);
            let count = u16::try_from(beat.services.len()).unwrap_or(u16::MAX);
            out.put_u16_le(count);
            for service in beat.services.iter().take(count.into()) {
                put_text(out, service);
            }
        }
        Kind::Goodbye => {}
        Kind::Request(head, payload) => {
            out.put_u64_le(head.id);
            out.put_u32_le(head.left_ms);
            out.put_u64_le(head.deadline_ms);
            out.put_u8(head.hop);
            put_text(out, &head.service);
            out.put_u32_le(head.total);
            out.put_slice(payload);
        }
        Kind::Reply { id, total, payload } => {
            out.put_u64_le(*id);
            out.put_u32_le(*total);
            out.put_slice(payload);
        }
        Kind::Refusal { id, cause, code, message } => {
            out.put_u64_le(*id);
            out.put_u8(*cause as u8);
            put_text(out, code);
            put_text(out, message);
        }
        Kind::Chunk { id, of, offset, payload } => {
            out.put_u64_le(*id);
            out.put_u8(*of as u8);
            out.put_u32_le(*offset);
            out.put_slice(payload);
        }
        Kind::Credit { id, of, offset } => {
            out.put_u64_le(*id);
            out.put_u8(*of as u8);
            out.put_u32_le(*offset);
        }
        Kind::Cancel { id } => out.put_u64_le(*id),
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(u16::MAX.into())];
    out.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn get_body(read: &mut Bytes, number: u8) -> Result<Kind, WireError> {
    Ok(match number {
        1 => Kind::Beat(get_beat(read)?),
        2 => Kind::Goodbye,
        3 => Kind::Ask(get_beat(read)?),
        4 => {
            let head = RequestHead {
                id: read.try_get_u64_le()?,
                left_ms: read.try_get_u32_le()?,
                deadline_ms: read.try_get_u64_le()?,
                hop: read.try_get_u8()?,
                service: get_text(read)?,
                total: read.try_get_u32_le()?,
            };
            let payload = get_start(read, head.total)?;
            Kind::Request(head, payload)
        }
        5 => {
            let (id, total) = (read.try_get_u64_le()?, read.try_get_u32_le()?);
            Kind::Reply { id, total, payload: get_start(read, total)? }
        }
        6 => Kind::Refusal {
            id: read.try_get_u64_le()?,
            cause: get_cause(read)?,
            code: get_text(read)?,
            message: get_text(read)?,
        },
        7 => {
            let (id, of, offset) = (read.try_get_u64_le()?, get_of(read)?, read.try_get_u32_le()?);
            if !read.has_remaining() {
                return Err(WireError::Malformed("a chunk without bytes"));
            }
            Kind::Chunk { id, of, offset, payload: read.split_to(read.len()) }
        }
        8 => Kind::Credit { id: read.try_get_u64_le()?, of: get_of(read)?, offset: read.try_get_u32_le()? },
        9 => Kind::Cancel { id: read.try_get_u64_le()? },
        other => return Err(WireError::Unsupported { what: "kind", value: other.into() }),
    })
}

/// The first bytes of a body of so many.
fn get_start(read: &mut Bytes, total: u32) -> Result<Bytes, WireError> {
    let payload = read.split_to(read.len());
    if payload.len() as u64 > u64::from(total) {
        return Err(WireError::Malformed("more bytes than its body has"));
    }
    if payload.is_empty() && total > 0 {
        return Err(WireError::Malformed("nothing of its body"));
    }
    Ok(payload)
}

fn get_beat(read: &mut Bytes) -> Result<Beat, WireError> {
    let mut beat = Beat {
        serial: read.try_get_u64_le()?,
        time_ms: read.try_get_u64_le()?,
        started_at_ms: read.try_get_u64_le()?,
        http: get_text(read)?,
        version: get_text(read)?,
        services: Vec::new(),
    };
    for _ in 0..read.try_get_u16_le()? {
        beat.services.push(get_text(read)?);
    }
    Ok(beat)
}

/// A copy: what stays in memory must not hold the whole message there.
fn get_text(read: &mut Bytes) -> Result<ByteString, WireError> {
    let length = usize::from(read.try_get_u16_le()?);
    if read.len() < length {
        return Err(WireError::Truncated);
    }
    let text = Bytes::copy_from_slice(&read.split_to(length));
    ByteString::try_from(text).map_err(|_| WireError::Malformed("a text that is no UTF-8"))
}

fn get_of(read: &mut Bytes) -> Result<Body, WireError> {
    match read.try_get_u8()? {
        0 => Ok(Body::Request),
        1 => Ok(Body::Reply),
        other => Err(WireError::Unsupported { what: "body", value: other.into() }),
    }
}

fn get_cause(read: &mut Bytes) -> Result<Cause, WireError> {
    let number = read.try_get_u8()?;
    let cause = Cause::ALL.get(usize::from(number)).copied();
    cause.ok_or_else(|| WireError::Unsupported { what: "cause", value: number.into() })
}
