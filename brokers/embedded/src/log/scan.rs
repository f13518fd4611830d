//! Reading a segment frame by frame, and the search for evidence behind a hole.

use std::io;

use crate::log::frame::{ALIGNMENT, Bad, HEADER_BYTES, Header, Key, Kind, MAGIC};
use crate::storage::StorageFile;

/// What is read at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// A file read forward through a window.
pub(crate) struct Window<'a> {
    file: &'a dyn StorageFile,
    pub(crate) length: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn StorageFile) -> io::Result<Self> {
        Ok(Self { file, length: file.length()?, start: 0, buffer: Vec::new() })
    }

    /// The bytes at that place; `None` where the file ends before them.
    pub(crate) fn at(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let end = offset + length as u64;
        if end > self.length {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            let wanted = (self.length - offset).min(length.max(WINDOW_BYTES) as u64);
            self.buffer.resize(usize::try_from(wanted).unwrap_or(usize::MAX), 0);
            self.start = offset;
            let read = self.file.read_at(offset, &mut self.buffer)?;
            self.buffer.truncate(read);
            if read < length {
                return Ok(None);
            }
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(Some(&self.buffer[from..from + length]))
    }
}

/// Where and why a scan ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Behind the last valid frame.
    pub(crate) offset: u64,
    /// The lsn that a frame there would have; 0 where there is none at all.
    pub(crate) next_lsn: u64,
    /// The highest `durable_upto` of the valid frames.
    pub(crate) durable_upto: u64,
    /// Whether the last valid frame is a footer.
    pub(crate) sealed: bool,
    /// The frame there is whole, but of a newer version or kind.
    pub(crate) newer: Option<Bad>,
}

/// What stops a scan: the file cannot be read, or what a frame says makes no sense.
#[derive(Debug)]
pub(crate) enum Stop {
    Io(io::Error),
    Nonsense { offset: u64, lsn: u64 },
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Visits each valid frame in order, until there is none. The visitor says whether the frame makes sense.
///
/// Without `bodies` the bodies are not verified, and given to the visitor only where the frame is no record.
pub(crate) fn scan(
    file: &dyn StorageFile,
    key: Key,
    bodies: bool,
    mut visit: impl FnMut(u64, &Header, &[u8]) -> bool,
) -> Result<End, Stop> {
    let mut window = Window::new(file)?;
    let mut end = End { offset: 0, next_lsn: 0, durable_upto: 0, sealed: false, newer: None };
    let mut boot = None;
    while !end.sealed {
        let Some(bytes) = window.at(end.offset, HEADER_BYTES)? else { break };
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().expect("the window gives as many bytes as were asked for");
        let header = match Header::decode(bytes, key) {
            Ok(header) => header,
            Err(Bad::Damaged) => break,
            Err(newer) => {
                end.newer = Some(newer);
                break;
            }
        };
        let first = end.offset == 0;
        let continues = if first {
            header.kind == Kind::Segment
        } else {
            header.lsn == end.next_lsn && (boot == Some(header.boot) || header.kind == Kind::Boot)
        };
        if !continues || end.offset + header.frame_bytes() > window.length {
            break;
        }
        let body: &[u8] = if bodies || !header.kind.is_record() {
            let whole = HEADER_BYTES + header.length as usize;
            let Some(frame) = window.at(end.offset, whole)? else { break };
            let body = &frame[HEADER_BYTES..];
            if crc32c::crc32c(body) != header.body_crc {
                break;
            }
            body
        } else {
            &[]
        };
        if !visit(end.offset, &header, body) {
            return Err(Stop::Nonsense { offset: end.offset, lsn: header.lsn });
        }
        boot = Some(header.boot);
        end.sealed = header.kind == Kind::Footer;
        end.next_lsn = header.lsn + 1;
        end.durable_upto = end.durable_upto.max(header.durable_upto);
        end.offset += header.frame_bytes();
    }
    Ok(end)
}

/// What stands behind the last valid frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rest {
    /// The highest `durable_upto` of any header there.
    pub(crate) durable_upto: u64,
    /// Whether anything but zeros is there.
    pub(crate) rubbish: bool,
    /// Whether anything there, but for the first place, begins like a frame, be its checksum right or not.
    pub(crate) frames: bool,
}

/// Looks at every place behind `offset` where a frame can begin.
pub(crate) fn rest(file: &dyn StorageFile, key: Key, offset: u64) -> io::Result<Rest> {
    let mut window = Window::new(file)?;
    let mut rest = Rest::default();
    let mut at = offset;
    while at < window.length {
        let step = (window.length - at).min(ALIGNMENT);
        let Some(bytes) = window.at(at, step as usize)? else { break };
        let (zero, begins) = (bytes.iter().all(|&byte| byte == 0), bytes.starts_with(&MAGIC));
        rest.rubbish |= !zero;
        if begins && let Some(bytes) = window.at(at, HEADER_BYTES)? {
            let bytes: &[u8; HEADER_BYTES] =
                bytes.try_into().expect("the window gives as many bytes as were asked for");
            rest.frames |= at > offset && bytes[6..8] == [0, 0] && (1..=11).contains(&bytes[5]);
            if let Ok(header) = Header::decode(bytes, key) {
                rest.durable_upto = rest.durable_upto.max(header.durable_upto);
            }
        }
        at += step;
    }
    Ok(rest)
}
