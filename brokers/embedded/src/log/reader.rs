//! Reading records from the files. Every body is verified each time; what is damaged is told and never served.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_backbone::budget::Account;
use tidegate_backbone::{Error, ErrorKind, Position, Record, Result, Stored};
use tidegate_schemas::compact;

use crate::counters::add;
use crate::error::{data_loss, from_io, misconfigured, not_found};
use crate::log::frame::{Bad, HEADER_BYTES, Header, Kind};
use crate::log::index::{SegmentIndex, Tie};
use crate::log::scan::{self, Stop};
use crate::log::shared::{Ended, Log, Shared};
use crate::name;
use crate::storage::{self, StorageFile};

/// Records that one read looks up at most.
const RECORDS_MAX: usize = 1024;
/// What is read behind the beginning of the last record that is looked for; most records end within it.
const LAST_RECORD_BYTES: u64 = 4 * 1024;

/// Where a record is looked for, and which one it must be.
#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    log: u32,
    position: u64,
}

/// How much a reader wants.
#[derive(Clone, Copy)]
struct Amount {
    /// About the bytes of all records.
    bytes_max: usize,
    /// What is read at once.
    chunk: usize,
}

/// A frame whose header fits what was looked for.
struct Found {
    header: Header,
    body: Bytes,
}

impl Shared {
    /// The records from that position on, at least one, from one read of a file.
    ///
    /// The position must be before the durable end.
    pub(crate) fn read(&self, log: &Log, from: u64, bytes_max: usize, chunk: usize) -> Result<Vec<Stored>> {
        self.located(log, from, |segment, run_end| {
            let count = usize::try_from(run_end - from).unwrap_or(RECORDS_MAX).min(RECORDS_MAX);
            let offsets = self.offsets(segment, log.number, from, count)?;
            let first = Place { segment, offset: offsets[0], log: log.number, position: from };
            self.read_chunk(first, &offsets, Amount { bytes_max, chunk })
        })
    }

    /// When the record at that position was appended.
    pub(crate) fn appended_at(&self, log: &Log, position: u64) -> Result<u64> {
        self.located(log, position, |segment, _| {
            let offset = self.offsets(segment, log.number, position, 1)?.first().copied().unwrap_or(0);
            let mut bytes = [0; HEADER_BYTES];
            let file = self.open_segment(segment)?;
            self.read_file(&*file, segment, offset, &mut bytes)?;
            Ok(self.header(&bytes, Place { segment, offset, log: log.number, position })?.appended_at)
        })
    }

    /// Calls with the segment that holds the position and the end of its run; again where the segment was removed meanwhile.
    fn located<T>(&self, log: &Log, position: u64, mut read: impl FnMut(u64, u64) -> Result<T>) -> Result<T> {
        loop {
            let (segment, end) = {
                let state = log.state.read();
                if position < state.begin {
                    if log.visible.borrow().ended == Some(Ended::Deleted) {
                        return Err(not_found(&log.id));
                    }
                    return Err(position_lost(log, position, state.begin));
                }
                let run = state
                    .runs
                    .locate(position)
                    .ok_or_else(|| data_loss(format!("position {position} of {} stands in no segment", log.id)))?;
                (run.segment, run.end.min(state.end))
            };
            let result = read(segment, end);
            // Its records were copied forward or trimmed, and then the map says so by now.
            if result.is_err() && !self.segments.read().contains_key(&segment) {
                continue;
            }
            return result;
        }
    }

    /// One whole record, for copying it forward.
    pub(crate) fn record(&self, log: u32, position: u64, segment: u64) -> Result<(Header, Bytes)> {
        let offset = self.offsets(segment, log, position, 1)?.first().copied().unwrap_or(0);
        let file = self.open_segment(segment)?;
        let found = self.read_whole(&*file, Place { segment, offset, log, position })?;
        Ok((found.header, found.body))
    }

    fn open_segment(&self, segment: u64) -> Result<Arc<dyn StorageFile>> {
        self.file(segment).map_err(|error| {
            let path = self.path(segment);
            if error.kind() == io::ErrorKind::NotFound {
                data_loss(format!("{path} holds records that are kept, but is gone"))
            } else {
                from_io("open", &path, error)
            }
        })
    }

    fn path(&self, segment: u64) -> String {
        format!("{}/{}", self.storage.describe(), name::segment(segment))
    }

    /// Where the records from that position on stand, at least one.
    fn offsets(&self, segment: u64, log: u32, position: u64, count: usize) -> Result<Vec<u64>> {
        let offsets = {
            let active = self.active.read();
            active
                .as_ref()
                .filter(|(number, _)| *number == segment)
                .map(|(_, index)| index.offsets(log, position, count))
        };
        let offsets = match offsets {
            Some(offsets) => offsets,
            None => self.index(segment)?.offsets(log, position, count),
        };
        if offsets.is_empty() {
            return Err(data_loss(format!(
                "the index of {} does not hold position {position} of log number {log}",
                self.path(segment)
            )));
        }
        Ok(offsets)
    }

    /// The index of a sealed segment: from memory, from its file, or made anew.
    fn index(&self, segment: u64) -> Result<Arc<SegmentIndex>> {
        if let Some(index) = self.indexes.lock().get(segment) {
            return Ok(index);
        }
        let state = self.segments.read().get(&segment).copied();
        let state = state.ok_or_else(|| data_loss(format!("{} is gone", self.path(segment))))?;
        let tie = Tie { number: segment, last_lsn: state.last_lsn, length: state.length };
        let stored = storage::read_all(&*self.storage, &name::index(segment)).ok();
        let index = match stored.and_then(|bytes| SegmentIndex::decode(&bytes, tie)) {
            Some(index) => index,
            None => {
                add(&self.counters.indexes_rebuilt, 1);
                let index = rebuild(&*self.open_segment(segment)?, self.key, &self.path(segment))?;
                write_index(&*self.storage, &index, tie);
                index
            }
        };
        let index = Arc::new(index);
        self.indexes.lock().put(segment, Arc::clone(&index));
        Ok(index)
    }

    fn read_chunk(&self, first: Place, offsets: &[u64], amount: Amount) -> Result<Vec<Stored>> {
        let Amount { bytes_max, chunk } = amount;
        let file = self.open_segment(first.segment)?;
        let start = first.offset;
        let within = offsets.partition_point(|offset| offset - start < chunk as u64);
        let wanted = (offsets[within - 1] - start + LAST_RECORD_BYTES).min(chunk as u64).max(LAST_RECORD_BYTES);
        let mut buffer = vec![0; usize::try_from(wanted).unwrap_or(chunk)];
        add(&self.counters.reads, 1);
        let read =
            file.read_at(start, &mut buffer).map_err(|error| from_io("read", &self.path(first.segment), error))?;
        buffer.truncate(read);
        let buffer = self.counted(Bytes::from(buffer));
        let mut records = Vec::new();
        let mut bytes = 0;
        for (&offset, position) in offsets[..within].iter().zip(first.position..) {
            let at = usize::try_from(offset - start).unwrap_or(usize::MAX);
            let place = Place { offset, position, ..first };
            let alone = records.is_empty();
            let stored = match self.in_buffer(&buffer, at, place) {
                Ok(Some(found)) => {
                    bytes += found.body.len();
                    if !alone && bytes > bytes_max {
                        break;
                    }
                    self.stored(found, place)
                }
                // It does not end within what was read: alone where it is the first, else the next read has it.
                Ok(None) if alone => self.read_whole(&*file, place).and_then(|found| self.stored(found, place)),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match stored {
                Ok(stored) => records.push(stored),
                // Those before a damaged record are good; the next read begins with it and tells.
                Err(_) if !alone => break,
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    fn in_buffer(&self, buffer: &Bytes, at: usize, place: Place) -> Result<Option<Found>> {
        let Some(header) = buffer.get(at..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) else {
            return Ok(None);
        };
        let header = self.header(header, place)?;
        let body = at + HEADER_BYTES..at + HEADER_BYTES + header.length as usize;
        let Some(bytes) = buffer.get(body.clone()) else { return Ok(None) };
        // A slice keeps the whole buffer alive. A record that is a small part of it gets bytes of its own, so that
        // whoever keeps records holds at most four times their bytes.
        let body = if bytes.len() * 4 >= buffer.len() {
            buffer.slice(body)
        } else {
            self.counted(Bytes::copy_from_slice(bytes))
        };
        self.verified(header, body, place).map(Some)
    }

    /// What was read counts until nobody holds it any more. It is never refused: whoever keeps records asks first.
    fn counted(&self, bytes: Bytes) -> Bytes {
        self.memory.take(Account::Reads, bytes.len()).hold(bytes)
    }

    fn read_whole(&self, file: &dyn StorageFile, place: Place) -> Result<Found> {
        let mut bytes = [0; HEADER_BYTES];
        self.read_file(file, place.segment, place.offset, &mut bytes)?;
        let header = self.header(&bytes, place)?;
        let mut body = vec![0; header.length as usize];
        self.read_file(file, place.segment, place.offset + HEADER_BYTES as u64, &mut body)?;
        self.verified(header, self.counted(Bytes::from(body)), place)
    }

    /// Fills the buffer; a file that ends before is damaged.
    fn read_file(&self, file: &dyn StorageFile, segment: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        add(&self.counters.reads, 1);
        let read = file.read_at(offset, buffer).map_err(|error| from_io("read", &self.path(segment), error))?;
        if read < buffer.len() {
            return Err(damaged(&self.path(segment), offset, "the file ends within a record"));
        }
        Ok(())
    }

    fn header(&self, bytes: &[u8; HEADER_BYTES], place: Place) -> Result<Header> {
        let Place { segment, offset, log, position } = place;
        let path = || self.path(segment);
        match Header::decode(bytes, self.key) {
            Ok(header) if header.kind.is_record() && header.log == log && header.position == position => Ok(header),
            Ok(_) => Err(damaged(&path(), offset, "another record stands where the index says that this one is")),
            Err(Bad::Damaged) => Err(damaged(&path(), offset, "the checksum of the header differs")),
            Err(Bad::Newer { version, kind }) => Err(newer(&path(), offset, version, kind)),
        }
    }

    fn verified(&self, header: Header, body: Bytes, place: Place) -> Result<Found> {
        if crc32c::crc32c(&body) != header.body_crc {
            return Err(damaged(&self.path(place.segment), place.offset, "the checksum of the body differs"));
        }
        Ok(Found { header, body })
    }

    fn stored(&self, found: Found, place: Place) -> Result<Stored> {
        let record = match found.header.kind {
            Kind::Event | Kind::EventCopy => Record::Event(compact::decode(found.body).map_err(|error| {
                damaged(&self.path(place.segment), place.offset, "the event cannot be decoded").with_source(error)
            })?),
            _ => Record::Frame(found.body),
        };
        Ok(Stored { position: Position(found.header.position), appended_at: found.header.appended_at, record })
    }
}

/// The index of a sealed segment, made from its headers; bodies are verified when they are read.
pub(crate) fn rebuild(file: &dyn StorageFile, key: crate::log::frame::Key, path: &str) -> Result<SegmentIndex> {
    let mut index = SegmentIndex::default();
    let end = scan::scan(file, key, false, |offset, header, _| {
        if header.kind.is_record() {
            index.add(header.log, header.position, offset, header.frame_bytes());
        }
        true
    });
    match end {
        Ok(end) if end.sealed => Ok(index),
        Ok(end) => Err(damaged(path, end.offset, "a frame in the middle is damaged, so the index cannot be made anew")),
        Err(Stop::Io(error)) => Err(from_io("read", path, error)),
        Err(Stop::Nonsense { offset, .. }) => Err(damaged(path, offset, "a frame makes no sense")),
    }
}

/// Writes the file of an index. A failure costs a rebuild later and nothing else.
pub(crate) fn write_index(storage: &dyn storage::Storage, index: &SegmentIndex, tie: Tie) {
    let path = name::index(tie.number);
    let written = storage.open(&path, storage::Mode::Create).and_then(|file| file.write_at(0, &index.encode(tie)));
    if let Err(error) = written {
        tracing::warn!(path, %error, "the index of a sealed segment could not be written");
    }
}

pub(crate) fn position_lost(log: &Log, position: u64, begin: u64) -> Error {
    Error::new(
        ErrorKind::PositionLost { earliest: Position(begin) },
        format!("position {position} of {} was trimmed; the first that is kept is {begin}", log.id),
    )
}

pub(crate) fn damaged(path: &str, offset: u64, what: &str) -> Error {
    data_loss(format!(
        "{path} is damaged at offset {offset}: {what}; the record is not served. Restore the directory from a backup, \
         or trim the log beyond the record to give it up"
    ))
}

pub(crate) fn newer(path: &str, offset: u64, version: u8, kind: u8) -> Error {
    misconfigured(format!(
        "{path} holds at offset {offset} a frame of version {version} and kind {kind}, which this program does not know; \
         start the program that wrote it"
    ))
}
